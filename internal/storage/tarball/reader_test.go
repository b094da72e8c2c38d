package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/errs"
)

// seen is an entry as both readers can tell it.
type seen struct {
	typ            byte
	name, linkname string
	mode, uid, gid int64
	size           int64
	mtime          time.Time
	major, minor   int64
	xattrs         map[string]string
	data           string
}

func (s seen) String() string {
	d := s.data
	if len(d) > 40 {
		d = fmt.Sprintf("%.20q… (%d)", d, len(d))
	}
	return fmt.Sprintf("%q %q → %q %o %d:%d %d bytes %v %d:%d %q %q", s.typ, s.name, s.linkname, s.mode, s.uid, s.gid, s.size, s.mtime.UTC(), s.major, s.minor, s.xattrs, d)
}

// maxFile keeps a fuzzer from claiming sparse files that fill the memory.
const maxFile = 8 << 20

var errTooLarge = errors.New("larger than the test wants")

// own reads with this package, in pieces of the given size.
func own(data []byte, piece int) (all []seen, err error) {
	r := New(FromReader(bytes.NewReader(data), make([]byte, piece)), Limits{})
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all, r.Rest()
		}
		if err != nil {
			return all, err
		}
		if h.Size > maxFile {
			return all, errTooLarge
		}
		s := seen{
			typ: h.Type, name: h.Name, linkname: h.Linkname, mode: h.Mode, uid: h.UID, gid: h.GID, size: h.Size,
			mtime: time.Unix(h.ModSec, h.ModNsec), major: h.Major, minor: h.Minor, xattrs: map[string]string{},
		}
		for _, x := range h.Xattrs {
			if x.Value != "" { // archive/tar drops these
				s.xattrs[x.Name] = x.Value
			}
		}
		if h.Type == Global {
			all = append(all, seen{typ: Global, name: s.name})
			continue
		}
		var b []byte
		if h.Sparse {
			b = make([]byte, h.Size)
		}
		end := int64(0)
		for {
			p, off, err := r.Data()
			if err == io.EOF {
				break
			}
			if err != nil {
				return all, err
			}
			if off < end {
				return all, fmt.Errorf("piece at %d after %d", off, end)
			}
			end = off + int64(len(p))
			if h.Sparse {
				copy(b[off:], p)
			} else if b = append(b, p...); end != int64(len(b)) {
				return all, fmt.Errorf("piece ends at %d of %d", end, len(b))
			}
		}
		s.data = string(b)
		all = append(all, s)
	}
}

// theirs reads with archive/tar.
func theirs(data []byte) (all []seen, err error) {
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if h.Size > maxFile {
			return all, errTooLarge
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			all = append(all, seen{typ: Global, name: h.Name})
			continue
		}
		s := seen{
			typ: h.Typeflag, name: h.Name, linkname: h.Linkname, mode: h.Mode, uid: int64(h.Uid), gid: int64(h.Gid), size: h.Size,
			mtime: h.ModTime, major: h.Devmajor, minor: h.Devminor, xattrs: map[string]string{},
		}
		if s.typ == tar.TypeGNUSparse {
			s.typ = tar.TypeReg
		}
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, xattrPrefix); ok && name != "" && v != "" {
				s.xattrs[name] = v
			}
		}
		b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
		if err != nil {
			return all, err
		}
		s.data = string(b)
		all = append(all, s)
	}
}

func compare(t *testing.T, data []byte) {
	t.Helper()
	want, wantErr := theirs(data)
	pieces := []int{700, 128 << 10}
	if len(data) <= 6<<10 {
		pieces = append(pieces, 1, 512)
	}
	for _, piece := range pieces {
		got, gotErr := own(data, piece)
		if errors.Is(wantErr, errTooLarge) || errors.Is(gotErr, errTooLarge) {
			return
		}
		if (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("pieces of %d: error %v, archive/tar %v", piece, gotErr, wantErr)
		}
		if gotErr != nil && errs.KindOf(gotErr) != errs.Corrupt {
			t.Fatalf("pieces of %d: error %v is not of kind corrupt", piece, gotErr)
		}
		if wantErr != nil {
			// The readers may notice the same fault at different times.
			n := min(len(got), len(want))
			got, want = got[:n], want[:n]
		}
		if len(got) != len(want) {
			t.Fatalf("pieces of %d: %d entries, archive/tar %d", piece, len(got), len(want))
		}
		for i := range got {
			g, w := got[i], want[i]
			if !maps.Equal(g.xattrs, w.xattrs) || !g.mtime.Equal(w.mtime) {
				t.Fatalf("pieces of %d:\n %v\narchive/tar:\n %v", piece, g, w)
			}
			g.xattrs, w.xattrs, g.mtime, w.mtime = nil, nil, time.Time{}, time.Time{}
			if fmt.Sprint(g) != fmt.Sprint(w) || g.data != w.data {
				t.Fatalf("pieces of %d:\n %v\narchive/tar:\n %v", piece, g, w)
			}
		}
	}
}

// gnuTar makes archives of one tree with GNU tar in each of its formats.
func gnuTar(t testing.TB) map[string][]byte {
	t.Helper()
	bin, err := exec.LookPath("tar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "d"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "d/a"), bytes.Repeat([]byte("a"), 5000), 0o4755))
	must(os.Link(filepath.Join(dir, "d/a"), filepath.Join(dir, "d/hard")))
	must(os.Symlink("../x", filepath.Join(dir, "d/soft")))
	must(os.Chtimes(filepath.Join(dir, "d/a"), time.Unix(1, 2), time.Unix(12345, 999999999)))
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	for i := range 30 {
		_, err = sparse.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 4096), int64(i)*64<<10)
		must(err)
	}
	must(sparse.Truncate(3 << 20))
	must(sparse.Close())
	out := map[string][]byte{}
	for name, args := range map[string][]string{
		"v7":     {"--format=v7"},
		"oldgnu": {"--format=oldgnu", "-S"},
		"gnu":    {"--format=gnu", "-S"},
		"ustar":  {"--format=ustar"},
		"pax":    {"--format=posix"},
		"pax0.0": {"--format=posix", "-S", "--sparse-version=0.0"},
		"pax0.1": {"--format=posix", "-S", "--sparse-version=0.1"},
		"pax1.0": {"--format=posix", "-S", "--sparse-version=1.0"},
		"global": {"--format=posix", "--pax-option=globexthdr.name=global,comment=x,delete=ctime"},
	} {
		b, err := exec.Command(bin, append(args, "-C", dir, "-cf", "-", "d", "sparse")...).Output()
		if err != nil {
			t.Fatalf("tar %s: %v", args, err)
		}
		out[name] = b
	}
	// Long names are refused by the old formats.
	long := filepath.Join(dir, "long", strings.Repeat("n", 200), strings.Repeat("m", 200))
	must(os.MkdirAll(filepath.Dir(long), 0o755))
	must(os.WriteFile(long, []byte("long"), 0o644))
	must(os.Symlink(strings.Repeat("target/", 100), filepath.Join(dir, "long/l")))
	for _, f := range []string{"gnu", "posix"} {
		b, err := exec.Command(bin, "--format="+f, "-C", dir, "-cf", "-", "long").Output()
		must(err)
		out["long-"+f] = b
	}
	return out
}

func TestGNUTar(t *testing.T) {
	for name, data := range gnuTar(t) {
		t.Run(name, func(t *testing.T) {
			compare(t, data)
			all, err := own(data, 100)
			if err != nil || len(all) < 3 {
				t.Fatalf("%d entries, %v", len(all), err)
			}
			// Every way to cut it short is noticed, or is a clean end.
			for n := 0; n < min(len(data), 8<<10); n += 173 {
				compare(t, data[:n])
			}
		})
	}
}

func TestLimits(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: "a", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 100_000)}}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := New(FromReader(&b, make([]byte, 4096)), Limits{ExtHeader: 64 << 10}).Next(); errs.KindOf(err) != errs.Corrupt || !strings.Contains(err.Error(), "limit of 65536") {
		t.Error(err)
	}
	// A header of 1 GB that claims to follow costs no memory.
	b.Reset()
	w = tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	data := b.Bytes()
	data[156] = 'x'
	sum := int64(0)
	copy(data[148:156], "        ")
	for _, c := range data[:512] {
		sum += int64(c)
	}
	copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
	if _, err := New(FromReader(bytes.NewReader(data), make([]byte, 4096)), Limits{}).Next(); !strings.Contains(fmt.Sprint(err), "1073741824") {
		t.Error(err)
	}
	sparse := gnuTar(t)["pax1.0"]
	r := New(FromReader(bytes.NewReader(sparse), make([]byte, 4096)), Limits{SparseEntries: 10})
	var err error
	for err == nil {
		_, err = r.Next()
	}
	if !strings.Contains(err.Error(), "limit of 10") {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	for _, data := range gnuTar(f) {
		// Without the bulk, so that mutations hit headers.
		f.Add(data[:min(len(data), 6<<10)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		compare(t, data)
		compare(t, withChecksums(data))
	})
}

// withChecksums makes mutated headers pass the first hurdle.
func withChecksums(data []byte) []byte {
	data = bytes.Clone(data)
	for b := data; len(b) >= blockSize; b = b[blockSize:] {
		if string(b[257:262]) != "ustar" {
			continue
		}
		copy(b[148:156], "        ")
		sum := 0
		for _, c := range b[:blockSize] {
			sum += int(c)
		}
		copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return data
}

func BenchmarkReader(b *testing.B) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range 10_000 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/lib/python3/dist-packages/module%d/file.py", i), Mode: 0o644, Size: 4000, ModTime: time.Unix(1e9, 0)}); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 4000)); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	data := buf.Bytes()
	b.Run("tarball", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			r := New(FromReader(bytes.NewReader(data), make([]byte, 128<<10)), Limits{})
			for {
				if _, err := r.Next(); err != nil {
					break
				}
				for {
					if _, _, err := r.Data(); err != nil {
						break
					}
				}
			}
		}
	})
	b.Run("archive-tar", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			r := tar.NewReader(bytes.NewReader(data))
			for {
				if _, err := r.Next(); err != nil {
					break
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
