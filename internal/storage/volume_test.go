package storage

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

func TestVolumes(t *testing.T) {
	v := OpenVolumes(filepath.Join(t.TempDir(), "volumes"))
	if all, err := v.List(); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
	vol, err := v.Create("data", map[string]string{"a": "b"}, nil)
	if err != nil || vol.Name != "data" || vol.Labels["a"] != "b" {
		t.Fatal(vol, err)
	}
	if again, err := v.Create("data", nil, nil); err != nil || again.Labels["a"] != "b" {
		t.Fatal(again, err)
	}
	anon, err := v.Create("", nil, nil)
	if err != nil || len(anon.Name) != 64 {
		t.Fatal(anon, err)
	}
	for _, bad := range []string{"a", "../x", ".x", "a/b", "-a", "a b", "\x00a"} {
		if _, err := v.Create(bad, nil, nil); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := v.Remove(bad); !errors.Is(err, errs.NotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := v.Create("tmp", nil, map[string]string{"type": "tmpfs"}); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	if _, err := v.Create("tmp", nil, map[string]string{"size": "1"}); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	if all, err := v.List(); err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	if err := v.Remove("data"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Get("data"); !errors.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	left, err := os.ReadDir(v.dir)
	if err != nil || len(left) != 1 {
		t.Fatal(left, err)
	}
}

func TestPopulate(t *testing.T) {
	inNamespaces(t, func(t *testing.T, userXattr bool) {
		dir := testenv.Dir(t)
		s := Open(filepath.Join(dir, "layers"))
		layer := put(t, s,
			tar.Header{Name: "var/lib/db/", Typeflag: tar.TypeDir, Mode: 0o1770},
			tar.Header{Name: "var/lib/db/a", Uname: "aaa", Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
			tar.Header{Name: "var/lib/db/sub/b", Typeflag: tar.TypeLink, Linkname: "var/lib/db/a"},
			tar.Header{Name: "var/lib/db/l", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
			tar.Header{Name: "var/lib/db/p", Typeflag: tar.TypeFifo},
			tar.Header{Name: "data", Typeflag: tar.TypeSymlink, Linkname: "/var/lib/db"},
			tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../../../etc"},
			tar.Header{Name: "file", Uname: "f"},
		)
		root, err := s.Mount([]string{layer}, "", "", MountOptions{UserXattr: userXattr, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		v := OpenVolumes(filepath.Join(dir, "volumes"))
		fill := func(name, target string) string {
			t.Helper()
			if _, err := v.Create(name, nil, nil); err != nil {
				t.Fatal(err)
			}
			if err := v.Populate(t.Context(), name, root, target); err != nil {
				t.Fatal(err)
			}
			return v.Path(name)
		}
		check := func(p string) {
			t.Helper()
			var a, b, d unix.Stat_t
			for name, st := range map[string]*unix.Stat_t{"a": &a, "sub/b": &b, "": &d} {
				if err := unix.Lstat(filepath.Join(p, name), st); err != nil {
					t.Fatal(err)
				}
			}
			if a.Ino != b.Ino || a.Mode&0o7777 != 0o4755 || d.Mode&0o7777 != 0o1770 || a.Size != 3 {
				t.Errorf("%+v\n%+v\n%+v", a, b, d)
			}
			var x [8]byte
			if n, err := unix.Lgetxattr(filepath.Join(p, "a"), "user.x", x[:]); err != nil || string(x[:n]) != "y" {
				t.Errorf("xattr %q, %v", x[:n], err)
			}
			if l, err := os.Readlink(filepath.Join(p, "l")); err != nil || l != "/etc/passwd" {
				t.Errorf("link %q, %v", l, err)
			}
		}
		check(fill("direct", "/var/lib/db"))
		check(fill("link", "data"))
		for _, target := range []string{"/nothing", "/file", "/out", "/../../etc"} {
			p := fill("none"+filepath.Base(target), target)
			if n, err := os.ReadDir(p); err != nil || len(n) != 0 {
				t.Errorf("%s: %v, %v", target, n, err)
			}
		}
		// Used volumes are left alone.
		if _, err := v.Create("used", nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(v.Path("used")+"/mine", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := os.ReadDir(fill("used", "/var/lib/db")); err != nil || len(n) != 1 {
			t.Error(n, err)
		}
		// And one whose filling was interrupted is filled again.
		p := fill("direct", "/var/lib/db")
		if err := os.Remove(filepath.Dir(p) + "/populated"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Dir(p)+"/populating", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p+"/a", 1); err != nil {
			t.Fatal(err)
		}
		check(fill("direct", "/var/lib/db"))
		if err := v.Populate(t.Context(), "absent", root, "/"); !errors.Is(err, errs.NotFound) {
			t.Error(err)
		}
	})
}

func TestMountCopy(t *testing.T) {
	inNamespaces(t, func(t *testing.T, userXattr bool) {
		dir := testenv.Dir(t)
		s := Open(filepath.Join(dir, "layers"))
		low := put(t, s,
			tar.Header{Name: "a", Uname: "low a"},
			tar.Header{Name: "d/x", Uname: "low x"},
			tar.Header{Name: "r/x/y", Uname: "low y"})
		high := put(t, s,
			tar.Header{Name: ".wh.a"},
			tar.Header{Name: "d/.wh..wh..opq"},
			tar.Header{Name: "d/y", Uname: "high y"},
			tar.Header{Name: "r", Uname: "high r"})
		upper := filepath.Join(dir, "upper")
		if err := os.Mkdir(upper, 0o755); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			f, err := s.MountCopy(t.Context(), []string{low, high}, upper, MountOptions{UserXattr: userXattr})
			if err != nil {
				t.Fatal(err)
			}
			if read(t, f, "d/y") != "high y" || read(t, f, "r") != "high r" {
				t.Error("wrong content")
			}
			for _, gone := range []string{"a", "d/x"} {
				if _, err := os.Lstat(at(f, gone)); !os.IsNotExist(err) {
					t.Errorf("%s: %v", gone, err)
				}
			}
			_ = f.Close()
		}
	})
}
