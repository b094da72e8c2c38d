package archive

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image/registrytest"
)

func TestDecompress(t *testing.T) {
	want := []byte(strings.Repeat("some text, and more. ", 50_000))
	var x bytes.Buffer
	w, err := xz.NewWriter(&x)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	gz, zs := registrytest.Gzip(t, want), registrytest.Zstd(t, want)
	cases := map[Compression][]byte{None: want, Gzip: gz, Zstd: zs, XZ: x.Bytes()}
	if bz, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.Command(bz)
		cmd.Stdin = bytes.NewReader(want)
		if cases[Bzip2], err = cmd.Output(); err != nil {
			t.Fatal(err)
		}
	}
	for kind, data := range cases {
		r, got, err := Decompress(bytes.NewReader(data))
		if err != nil || got != kind {
			t.Errorf("%s: seen as %s, %v", kind, got, err)
			continue
		}
		if out, err := io.ReadAll(r); err != nil || !bytes.Equal(out, want) {
			t.Errorf("%s: %d bytes, %v", kind, len(out), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if kind == None {
			continue
		}
		for name, bad := range map[string][]byte{"cut off": data[:len(data)-8], "changed": flip(data, len(data)*2/3)} {
			r, _, err := Decompress(bytes.NewReader(bad))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if !errors.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), string(kind)) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
	// Members one after the other are one stream, as gzip(1) has it; a zstd
	// stream may have skippable frames before and after it.
	skip := []byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}
	for name, data := range map[string][]byte{"two members": append(bytes.Clone(gz), gz...), "two frames": append(append(append(bytes.Clone(skip), zs...), zs...), skip...)} {
		r, _, err := Decompress(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(r); err != nil || len(out) != 2*len(want) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
	if r, kind, err := Decompress(strings.NewReader("")); err != nil || kind != None {
		t.Errorf("empty: %v %s %v", r, kind, err)
	}
}

func flip(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 0x55
	return out
}

// The error of what is read from is not the archive's damage.
func TestDecompressPassesErrorsOfTheSource(t *testing.T) {
	gz := registrytest.Gzip(t, bytes.Repeat([]byte("0123456789"), 10_000))
	gone := errs.New(errs.Unavailable, "registry gone")
	r, _, err := Decompress(io.MultiReader(bytes.NewReader(gz[:len(gz)/2]), failing{gone}))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if !errors.Is(err, errs.Unavailable) || errors.Is(err, errs.Corrupt) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
