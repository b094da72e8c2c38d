package tty

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

func TestTerminal(t *testing.T) {
	master, slave := openPTY(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if !IsTerminal(slave) || IsTerminal(null) || IsTerminal(nil) {
		t.Error("IsTerminal is wrong")
	}
	if err := SetSize(master, 40, 120); err != nil {
		t.Fatal(err)
	}
	if r, c, err := Size(slave); r != 40 || c != 120 || err != nil {
		t.Errorf("Size = %d, %d, %v", r, c, err)
	}
	if _, _, err := Size(null); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("Size of /dev/null: %v", err)
	}
	if _, err := MakeRaw(null); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("MakeRaw of /dev/null: %v", err)
	}

	before, _ := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	restore, err := MakeRaw(slave)
	if err != nil {
		t.Fatal(err)
	}
	// Raw: a carriage return stays one, ctrl-C is a byte, nothing waits for a line.
	if _, err := master.Write([]byte("a\r\x03")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(slave, got); err != nil || string(got) != "a\r\x03" {
		t.Errorf("read %q, %v", got, err)
	}
	restore()
	restore()
	after, _ := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if *before != *after {
		t.Errorf("not restored: %+v, was %+v", after, before)
	}
}

func TestParseDetachKeys(t *testing.T) {
	for keys, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "a,b": "ab", "ctrl-a,a": "\x01a", "ctrl-z": "\x1a",
		"ctrl-@": "\x00", "ctrl-[": "\x1b", `ctrl-\`: "\x1c", "ctrl-]": "\x1d", "ctrl-^": "\x1e", "ctrl-_": "\x1f", "DEL": "\x7f",
	} {
		if got, err := ParseDetachKeys(keys); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", keys, got, err)
		}
	}
	for _, keys := range []string{"ctrl-", "ctrl-A", "ctrl-1", "ab", "a,,b", ",", "shift-a", "ctrl-ab"} {
		if _, err := ParseDetachKeys(keys); err == nil || err.Error() != "Invalid detach keys ("+keys+") provided" {
			t.Errorf("%q: %v", keys, err)
		}
	}
}

func TestDetachReader(t *testing.T) {
	for _, c := range []struct {
		keys, in, want string
		detached       bool
	}{
		{"", "hello", "hello", false},
		{"", "ab\x10\x11cd", "ab", true},
		{"", "ab\x10", "ab\x10", false},      // held back, given at the end
		{"", "\x10x\x10\x11", "\x10x", true}, // begun, not finished, begun again
		{"", "\x10\x10\x11", "\x10", true},   // the first ctrl-p was not the beginning
		{"a,a,b", "aaab", "a", true},         // falls back within itself
		{"a,b,a,b,c", "ababab", "ababab", false},
		{"a,b,a,b,c", "abababc", "ab", true},
		{"x", "x", "", true},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "data+err": iotest.DataErrReader,
		} {
			d, err := NewDetachReader(wrap(strings.NewReader(c.in)), c.keys)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(iotest.OneByteReader(d))
			if string(got) != c.want || errors.Is(err, ErrDetached) != c.detached || !c.detached && err != nil {
				t.Errorf("%q in %q (%s): %q, %v", c.keys, c.in, name, got, err)
			}
		}
	}
}

// FuzzDetachReader compares with a search in the whole text.
func FuzzDetachReader(f *testing.F) {
	f.Add([]byte("aabaaab"), uint64(3))
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		keys := make([]string, 1+rnd.IntN(4))
		for i := range keys {
			keys[i] = string(rune('a' + rnd.IntN(2)))
		}
		for i := range in {
			in[i] = 'a' + in[i]%3
		}
		d, err := NewDetachReader(iotest.HalfReader(bytes.NewReader(in)), strings.Join(keys, ","))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(d)
		at := strings.Index(string(in), strings.Join(keys, ""))
		want := string(in)
		if at >= 0 {
			want = want[:at]
		}
		if string(got) != want || errors.Is(err, ErrDetached) != (at >= 0) {
			t.Errorf("%q in %q: got %q, %v; want %q", keys, in, got, err, want)
		}
	})
}
