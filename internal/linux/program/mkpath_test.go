package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mkpathIn runs Mkpath in a child and returns where it led, relative to root.
func mkpathIn(t *testing.T, root, path string, dir bool) (string, error) {
	t.Helper()
	p := New()
	fd, r := p.Slot("made"), p.Slot("root")
	p.Fork(Clone{Share: true})
	p.Call(unix.SYS_OPENAT, CWD, p.String(root), Int(unix.O_PATH|unix.O_CLOEXEC)).To(r)
	p.Mkpath(r.Arg(), path, dir, -1, -1).To(fd)
	p.SendFile(fd.Arg())
	p.Exit(0)
	c, err := p.Start()
	if err != nil {
		return "", err
	}
	wait(t, c)
	defer c.Files[0].Close()
	l, err := os.Readlink("/proc/self/fd/" + itoa(int(c.Files[0].Fd())))
	if err != nil {
		t.Fatal(err)
	}
	if l == root {
		return "/", nil
	}
	rel, ok := strings.CutPrefix(l, root)
	if !ok {
		t.Fatalf("%s led out of the root: %s", path, l)
	}
	return rel, nil
}

func TestMkpath(t *testing.T) {
	outside := t.TempDir()
	for _, c := range []struct {
		path string
		dir  bool
		want string
		err  error
	}{
		{"/", true, "/", nil},
		{"", true, "/", nil},
		{"..//../.", true, "/", nil},
		{"a", true, "/a", nil},
		{"/a/b/c", true, "/a/b/c", nil},
		{"/a/./b//c/", true, "/a/b/c", nil},
		{"new/../other", true, "/other", nil},
		{"/x/y/file", false, "/x/y/file", nil},
		{"/../../../e", true, "/e", nil},
		{"/abs/new", true, "/target/new", nil},         // absolute link
		{"/abs", true, "/target", nil},                 // a link to nothing is followed
		{"/dangling", false, "/run/gone/file", nil},    // ../run/gone/file
		{"/deep/dangling/x", true, "/deep/far/x", nil}, // ../deep/far
		{"/out", true, "/OUTSIDE", nil},                // to the host, by absolute path
		{"/up/x", true, "/OUTSIDE/x", nil},             // to the host, by dots
		{"/loop/x", true, "", unix.ELOOP},
		{"/self", false, "", unix.ELOOP},
		{"/chain0", true, "/end", nil}, // 39 links
		{"/toolong0", true, "", unix.ELOOP},
		{"/file/x", true, "", unix.ENOTDIR},
		{"/dirlink/../z", true, "/target2/z", nil}, // .. is the parent of where the link led
		{"/" + strings.Repeat("n", 255), true, "/" + strings.Repeat("n", 255), nil},
		{"/" + strings.Repeat("n", 256), true, "", unix.ENAMETOOLONG},
		{strings.Repeat("/d", 1500), true, strings.Repeat("/d", 1500), nil},
		{strings.Repeat("/d", 3000), true, "", unix.ENAMETOOLONG},
	} {
		root := filepath.Join(t.TempDir(), "r")
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(os.MkdirAll(root+"/deep", 0o755))
		must(os.MkdirAll(root+"/target2/sub", 0o755))
		must(os.WriteFile(root+"/file", nil, 0o644))
		for from, to := range map[string]string{
			"abs": "/target", "dangling": "../run/gone/file", "deep/dangling": "../deep/far", "out": outside,
			"up": strings.Repeat("../", 30) + outside[1:], "loop": "loop2", "loop2": "/loop", "self": "self", "dirlink": "target2/sub",
		} {
			must(os.Symlink(to, filepath.Join(root, from)))
		}
		for i := range 39 {
			must(os.Symlink("chain"+itoa(i+1), root+"/chain"+itoa(i)))
		}
		must(os.Symlink("end", root+"/chain39"))
		must(os.Remove(root + "/chain39"))
		must(os.Symlink("/end", root+"/chain39"))
		for i := range 50 {
			must(os.Symlink("toolong"+itoa(i+1), root+"/toolong"+itoa(i)))
		}
		got, err := mkpathIn(t, root, c.path, c.dir)
		want := strings.Replace(c.want, "/OUTSIDE", outside, 1)
		if got != want || !errors.Is(err, c.err) {
			t.Errorf("%.60s: %.80q, %v; want %.80q, %v", c.path, got, err, want, c.err)
			continue
		}
		if err == nil && want != "/" && len(want) < 300 {
			fi, err := os.Lstat(root + want)
			if err != nil || fi.IsDir() != c.dir {
				t.Errorf("%.60s: %v, %v", c.path, fi, err)
			}
		}
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("made outside the root: %v", left)
	}
}

// The walk stays inside while a directory on its way is swapped for a link.
func TestMkpathRace(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(root+"/a", 0o755), os.Symlink(outside, root+"/b")); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, root+"/a", unix.AT_FDCWD, root+"/b", unix.RENAME_EXCHANGE)
			}
		}
	}()
	for i := range 200 {
		_, err := mkpathIn(t, root, "/a/x"+itoa(i)+"/y/z", true)
		var errno syscall.Errno
		if err != nil && (!errors.As(err, &errno) || errno != unix.ELOOP && errno != unix.ENOENT && errno != unix.ENOTDIR) {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("made outside the root: %v", left)
	}
}
