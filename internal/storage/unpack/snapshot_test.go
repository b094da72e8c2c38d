package unpack

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot describes a tree: path to everything that unpacking sets. Access
// and change times are not part of it.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%06o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			h := sha256.New()
			_, err = io.Copy(h, f)
			_ = f.Close()
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x", st.Size, h.Sum(nil)[:8])
			if st.Size > 1<<20 {
				fmt.Fprintf(&b, " sparse=%v", st.Blocks*512 < st.Size/2)
			}
		case unix.S_IFLNK:
			l, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " → %q", l)
		case unix.S_IFCHR, unix.S_IFBLK:
			fmt.Fprintf(&b, " %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if _, ok := first[st.Ino]; !ok {
				first[st.Ino] = rel
			}
			fmt.Fprintf(&b, " links=%d of %s", st.Nlink, first[st.Ino])
		}
		buf := make([]byte, 4096)
		n, err := unix.Llistxattr(p, buf)
		if err == nil {
			names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
			sort.Strings(names)
			for _, x := range names {
				if x == "" {
					continue
				}
				v := make([]byte, 4096)
				n, err := unix.Lgetxattr(p, x, v)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", p, x, err)
				}
				fmt.Fprintf(&b, " %s=%x", x, v[:n])
			}
		}
		out[rel] = b.String()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// difference tells what is not the same in two snapshots.
func difference(a, b map[string]string) string {
	var out []string
	for p, v := range a {
		if w, ok := b[p]; !ok {
			out = append(out, fmt.Sprintf("%q: missing", p))
		} else if v != w {
			out = append(out, fmt.Sprintf("%q:\n    %s\n    %s", p, v, w))
		}
	}
	for p := range b {
		if _, ok := a[p]; !ok {
			out = append(out, fmt.Sprintf("%q: new: %s", p, b[p]))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// archive makes a tar archive. A regular file's data is its Uname; a Mode of 0
// stands for the usual one and -1 for 0.
func archive(t testing.TB, hdrs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range hdrs {
		h := hdrs[i]
		body := h.Uname
		h.Uname = ""
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag = tar.TypeReg
			h.Size = int64(len(body))
		}
		switch {
		case h.Mode == -1:
			h.Mode = 0
		case h.Mode == 0 && h.Typeflag == tar.TypeDir:
			h.Mode = 0o755
		case h.Mode == 0:
			h.Mode = 0o644
		}
		if h.Uid < 0 || h.Uid > 1<<31 {
			h.Format = tar.FormatGNU
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, body string) tar.Header { return tar.Header{Name: name, Uname: body} }
func dir(name string) tar.Header        { return tar.Header{Name: name + "/", Typeflag: tar.TypeDir} }

func link(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

func symlink(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

// unpackInto unpacks data into a new directory root.
func unpackInto(t testing.TB, root string, data []byte, o Options) (Result, error) {
	t.Helper()
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if o.IDs.uids == nil {
		if o.IDs, err = OwnIDs(); err != nil {
			t.Fatal(err)
		}
		o.UserXattr = !o.IDs.Initial()
	}
	return Layer(t.Context(), f, bytes.NewReader(data), o)
}
