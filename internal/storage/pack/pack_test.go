package pack_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/pack"
)

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func packed(t *testing.T, dir, name, as string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	p := pack.New(&b, pack.Options{})
	must(t, p.Add(open(t, dir), name, as), p.Close())
	return &b
}

// TestRoundTrip packs a tree, reads it by the standard library, and lays it out.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	long := strings.Repeat("long-", 30) + "é"
	then := time.Unix(1234567890, 123456789)
	must(t, os.MkdirAll(src+"/sub/"+long, 0o755), os.WriteFile(src+"/sub/f", []byte("data"), 0o600), os.WriteFile(src+"/empty", nil, 0o644),
		os.Link(src+"/sub/f", src+"/z"), os.Symlink("/etc/passwd", src+"/link"), unix.Mkfifo(src+"/fifo", 0o640), os.Chmod(src+"/fifo", 0o640),
		os.WriteFile(src+"/big", bytes.Repeat([]byte("0123456789"), 100_000), 0o755), os.Chmod(src+"/sub", 0o750), os.Chtimes(src+"/sub/f", then, then))
	if l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
		t.Chdir(src)
		must(t, unix.Bind(l, &unix.SockaddrUnix{Name: "sock"}), unix.Close(l))
	}
	b := packed(t, dir, "src", "x")
	names := map[string]*tar.Header{}
	tr := tar.NewReader(bytes.NewReader(b.Bytes()))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		names[h.Name] = h
	}
	for _, n := range []string{"x/", "x/sub/", "x/sub/" + long + "/", "x/sub/f", "x/empty", "x/z", "x/link", "x/fifo", "x/big"} {
		if names[n] == nil {
			t.Errorf("%q: not in the archive", n)
		}
	}
	if h := names["x/sub/f"]; !h.ModTime.Equal(then) || h.Mode != 0o600 || h.Uid != os.Getuid() {
		t.Errorf("sub/f: %+v", h)
	}
	if h := names["x/z"]; h.Typeflag != tar.TypeLink || h.Linkname != "x/sub/f" {
		t.Errorf("z: %+v", h)
	}
	if len(names) != 9 {
		t.Errorf("%d entries", len(names))
	}
	dst := filepath.Join(dir, "dst")
	must(t, os.Mkdir(dst, 0o755))
	must(t, pack.Extract(b, pack.Target{Dir: open(t, dst), Rename: "new"}))
	st, err := os.Stat(dst + "/new/sub")
	must(t, err)
	if st.Mode().Perm() != 0o750 {
		t.Errorf("sub: mode %v", st.Mode())
	}
	f, err := os.Stat(dst + "/new/sub/f")
	must(t, err)
	z, err := os.Stat(dst + "/new/z")
	must(t, err)
	if !os.SameFile(f, z) || !f.ModTime().Equal(then) {
		t.Errorf("z is not f, or f is of %v", f.ModTime())
	}
	if b, err := os.ReadFile(dst + "/new/big"); err != nil || len(b) != 1_000_000 {
		t.Errorf("big: %d bytes, %v", len(b), err)
	}
	if l, err := os.Readlink(dst + "/new/link"); err != nil || l != "/etc/passwd" {
		t.Errorf("link: %q, %v", l, err)
	}
}

// TestEscapes lays out archives that want to leave the target.
func TestEscapes(t *testing.T) {
	type entry struct {
		name, link string
		typ        byte
	}
	for name, entries := range map[string][]entry{
		"dots":       {{"../../out/f", "", tar.TypeReg}},
		"absolute":   {{"/../out/f", "", tar.TypeReg}},
		"link":       {{"l", "OUT", tar.TypeSymlink}, {"l/f", "", tar.TypeReg}},
		"relative":   {{"l", "../out", tar.TypeSymlink}, {"l/f", "", tar.TypeReg}},
		"replaced":   {{"d", "", tar.TypeDir}, {"d/e", "", tar.TypeDir}, {"d", "OUT", tar.TypeSymlink}},
		"hard":       {{"h", "../out/keep", tar.TypeLink}, {"h", "", tar.TypeReg}},
		"hard link":  {{"l", "OUT", tar.TypeSymlink}, {"h", "l/keep", tar.TypeLink}},
		"final link": {{"f", "OUT/keep", tar.TypeSymlink}, {"f", "", tar.TypeReg}},
	} {
		for _, inRoot := range []bool{false, true} {
			dir := t.TempDir()
			out, dst := dir+"/out", dir+"/dst"
			must(t, os.Mkdir(out, 0o755), os.Mkdir(dst, 0o755), os.WriteFile(out+"/keep", []byte("keep"), 0o644))
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, e := range entries {
				h := &tar.Header{Name: e.name, Linkname: strings.ReplaceAll(e.link, "OUT", out), Typeflag: e.typ, Mode: 0o777}
				if e.typ == tar.TypeReg {
					h.Size = 4
				}
				must(t, w.WriteHeader(h))
				if e.typ == tar.TypeReg {
					_, err := w.Write([]byte("evil"))
					must(t, err)
				}
			}
			must(t, w.Close())
			target := pack.Target{Dir: open(t, dst)}
			if inRoot {
				target.Root, target.Path = open(t, dst), ""
			}
			err := pack.Extract(&b, target) // it may be refused, or stay inside
			left, rerr := os.ReadDir(out)
			must(t, rerr)
			keep, rerr := os.ReadFile(out + "/keep")
			must(t, rerr)
			if len(left) != 1 || string(keep) != "keep" {
				t.Errorf("%s (in root %v): out has %v, keep %q; error %v", name, inRoot, left, keep, err)
			}
			st, rerr := os.Stat(out)
			must(t, rerr)
			if st.Mode().Perm() != 0o755 {
				t.Errorf("%s (in root %v): out has mode %v", name, inRoot, st.Mode())
			}
		}
	}
}

// TestKinds: directories and others do not replace one another.
func TestKinds(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/a/x", 0o755), os.Mkdir(dir+"/b", 0o755), os.WriteFile(dir+"/b/x", nil, 0o644), os.Mkdir(dir+"/dst", 0o755))
	dst := open(t, dir+"/dst")
	must(t, pack.Extract(packed(t, dir, "a", "top"), pack.Target{Dir: dst, Rename: "top", Strip: true}))
	err := pack.Extract(packed(t, dir, "b", "top"), pack.Target{Dir: dst, Rename: "top", Strip: true})
	if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "cannot overwrite directory") {
		t.Errorf("file over directory: %v", err)
	}
	must(t, os.Remove(dir+"/dst/x"), os.WriteFile(dir+"/dst/x", nil, 0o644))
	err = pack.Extract(packed(t, dir, "a", "top"), pack.Target{Dir: dst, Rename: "top", Strip: true})
	if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "cannot overwrite non-directory") {
		t.Errorf("directory over file: %v", err)
	}
}

// TestSwap packs a directory that somebody turns into a link all the time.
func TestSwap(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/c/d", 0o755), os.WriteFile(dir+"/c/d/f", []byte("fine"), 0o644), os.Symlink("/etc", dir+"/c/e"))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/c/d", unix.AT_FDCWD, dir+"/c/e", unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 500 {
		var b bytes.Buffer
		p := pack.New(&b, pack.Options{})
		if err := errors.Join(p.Add(open(t, dir), "c", "c"), p.Close()); err != nil {
			continue // it was seen
		}
		if bytes.Contains(b.Bytes(), []byte("root:")) {
			t.Error("a file of /etc was packed")
			break
		}
	}
	close(stop)
	<-done
}
