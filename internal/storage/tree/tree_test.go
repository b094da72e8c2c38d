package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deep makes n directories in one another, and a file in the last. Its path is
// too long for any system call.
func deep(t testing.TB, dir string, n int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	name := strings.Repeat("d", 50)
	for range n {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		_ = unix.Close(fd)
		fd = next
	}
	f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	must(t, err)
	_ = unix.Close(f)
	_ = unix.Close(fd)
}

func TestRemove(t *testing.T) {
	t.Run("root", testRemove)
	t.Run("user", func(t *testing.T) {
		testenv.Need(t, testenv.OrdinaryUser)
		if testenv.AsUser(t) {
			testRemove(t)
		}
	})
}

func testRemove(t *testing.T) {
	base := testenv.Dir(t)
	out := filepath.Join(base, "out")
	must(t, os.MkdirAll(out+"/d", 0o755))
	must(t, os.WriteFile(out+"/d/f", nil, 0o644))
	for name, build := range map[string]func(t *testing.T, dir string){
		"nothing": func(t *testing.T, dir string) { must(t, os.Remove(dir)) },
		"empty":   func(*testing.T, string) {},
		"a file":  func(t *testing.T, dir string) { must(t, os.Remove(dir)); must(t, os.WriteFile(dir, nil, 0)) },
		"a link":  func(t *testing.T, dir string) { must(t, os.Remove(dir)); must(t, os.Symlink(out, dir)) },
		"of links": func(t *testing.T, dir string) {
			must(t, os.Symlink(out, dir+"/l"))
			must(t, os.Symlink("../out/d", dir+"/m"))
		},
		"files": func(t *testing.T, dir string) {
			for i := range 600 {
				must(t, os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o644))
			}
		},
		"special files": func(t *testing.T, dir string) {
			must(t, unix.Mkfifo(dir+"/p", 0o600))
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			must(t, err)
			defer closeFD(fd)
			t.Chdir(dir) // socket paths are short
			must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "s"}))
		},
		"no permissions": func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a/b/c", 0o755))
			must(t, os.WriteFile(dir+"/a/b/f", nil, 0))
			must(t, unix.Chmod(dir+"/a/b/c", 0))
			must(t, unix.Chmod(dir+"/a/b", 0o500))
			must(t, unix.Chmod(dir+"/a", 0))
			must(t, unix.Chmod(dir, 0))
		},
		"deep": func(t *testing.T, dir string) { deep(t, dir, 1000) },
		"odd names": func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/\n\xff*", 0o755))
			must(t, os.WriteFile(dir+"/-rf", nil, 0))
		},
		"deep, twice": func(t *testing.T, dir string) {
			deep(t, dir, 100)
			must(t, os.Mkdir(dir+"/e", 0o700))
			deep(t, dir+"/e", 100)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(base, "tree")
			must(t, os.Mkdir(dir, 0o755))
			build(t, dir)
			if err := Remove(dir); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(dir); !os.IsNotExist(err) {
				t.Fatalf("left: %v", err)
			}
			if _, err := os.Stat(out + "/d/f"); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, bad := range []string{"/", "", ".", "/tmp/.."} {
		if err := Remove(bad); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestRemoveImmutable(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := filepath.Join(testenv.Dir(t), "tree")
	must(t, os.MkdirAll(dir+"/d", 0o755))
	for _, p := range []string{dir + "/f", dir + "/d/f"} {
		must(t, os.WriteFile(p, nil, 0o644))
	}
	set := func(p string) {
		f, err := os.Open(p)
		must(t, err)
		defer f.Close()
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flagImmutable); err != nil {
			t.Skip("the file system has no immutable files: ", err)
		}
	}
	set(dir + "/f")
	set(dir + "/d/f")
	set(dir + "/d")
	must(t, Remove(dir))
}

func TestRemoveMount(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if !testenv.Unshare(t, unix.CLONE_NEWNS) {
		return
	}
	base := testenv.Dir(t)
	dir := filepath.Join(base, "tree")
	must(t, os.MkdirAll(dir+"/a/mnt", 0o755))
	must(t, os.MkdirAll(base+"/src", 0o755))
	must(t, os.WriteFile(base+"/src/precious", nil, 0o644))
	must(t, os.WriteFile(dir+"/a/f", nil, 0o644))
	// Of the same file system: the device number does not tell.
	must(t, unix.Mount(base+"/src", dir+"/a/mnt", "", unix.MS_BIND, ""))
	err := Remove(dir)
	if err == nil || !strings.Contains(err.Error(), dir+"/a/mnt: is a mount point") || errs.KindOf(err) != errs.Conflict || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(base + "/src/precious"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/a/f"); !os.IsNotExist(err) {
		t.Errorf("what could be removed was not: %v", err)
	}
	must(t, unix.Unmount(dir+"/a/mnt", 0))
	must(t, Remove(dir))
}

// TestRemoveRace swaps a directory of the tree with a link to another tree, as
// fast as it can, while the tree is removed.
func TestRemoveRace(t *testing.T) {
	base := testenv.Dir(t)
	out := filepath.Join(base, "out")
	must(t, os.MkdirAll(out+"/d", 0o755))
	must(t, os.WriteFile(out+"/d/f", nil, 0o644))
	for round := range 30 {
		dir := filepath.Join(base, fmt.Sprint(round))
		must(t, os.MkdirAll(dir+"/a/d", 0o755))
		must(t, os.Symlink(out, dir+"/b"))
		for i := range 50 {
			must(t, os.WriteFile(fmt.Sprintf("%s/a/%d", dir, i), nil, 0o644))
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					_ = unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE)
				}
			}
		}()
		// It may well lose the race; it may not lose its way.
		if err := Remove(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			t.Log(err)
		}
		close(stop)
		<-done
		must(t, Remove(dir))
		if _, err := os.Stat(out + "/d/f"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRemoveMoved moves the directory that the walk stands in, deep down, to
// somewhere else: ".." then is not where it came from.
func TestRemoveMoved(t *testing.T) {
	base := testenv.Dir(t)
	dir, out := filepath.Join(base, "tree"), filepath.Join(base, "out")
	must(t, os.Mkdir(out, 0o755))
	must(t, os.WriteFile(out+"/f", nil, 0o644))
	p := dir
	for range 2 * maxOpen {
		p += "/d"
	}
	must(t, os.MkdirAll(p, 0o755))
	must(t, os.WriteFile(p+"/f", nil, 0o644))
	w := &walker{op: "remove", top: dir}
	moved := false
	w.entry = func(_ int, name string, typ byte) (bool, error) {
		if typ != unix.DT_DIR && !moved {
			moved = true
			// Something far above, whose descriptor is closed by now.
			must(t, os.Rename(dir+"/d/d/d", out+"/d"))
		}
		return typ == unix.DT_DIR, nil
	}
	var left []string
	w.leave = func(_ int, l *level) (bool, error) { left = append(left, l.name); return false, nil }
	parent, err := unix.Open(base, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer closeFD(parent)
	err = w.walk(parent, "tree")
	if errs.KindOf(err) != errs.Conflict || !errors.Is(err, unix.ESTALE) {
		t.Errorf("%v", err)
	}
	for _, n := range left {
		if n == "out" {
			t.Error("left the tree")
		}
	}
}

func TestRemoveWhileWritten(t *testing.T) {
	dir := filepath.Join(testenv.Dir(t), "tree")
	must(t, os.Mkdir(dir, 0o755))
	stop := time.Now().Add(30 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; time.Now().Before(stop); i++ {
			_ = os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o644)
		}
	}()
	_ = Remove(dir)
	<-done
	must(t, Remove(dir))
}

func TestSize(t *testing.T) {
	dir := filepath.Join(testenv.Dir(t), "tree")
	must(t, os.Mkdir(dir, 0o755))
	empty, inodes, err := Size(dir)
	must(t, err)
	if inodes != 1 {
		t.Error(inodes)
	}
	must(t, os.WriteFile(dir+"/f", make([]byte, 100_000), 0o644))
	must(t, os.Link(dir+"/f", dir+"/g"))
	must(t, os.WriteFile(dir+"/sparse", nil, 0o644))
	must(t, os.Truncate(dir+"/sparse", 1<<40))
	must(t, os.Symlink("/", dir+"/l"))
	// Delayed allocation: blocks are counted when they have been chosen.
	f, err := os.Open(dir)
	must(t, err)
	must(t, unix.Syncfs(int(f.Fd())))
	must(t, f.Close())
	n, inodes, err := Size(dir)
	must(t, err)
	if n < empty+100_000 || n > empty+150_000 || inodes != 4 {
		t.Errorf("%d bytes in %d inodes, empty %d", n, inodes, empty)
	}
	deep(t, dir, 300)
	_, inodes, err = Size(dir)
	must(t, err)
	if inodes != 305 {
		t.Error(inodes)
	}
	if _, _, err := Size(dir + "/absent"); !os.IsNotExist(err) {
		t.Error(err)
	}
	must(t, Remove(dir))
}

func BenchmarkRemove(b *testing.B) {
	base := testenv.Dir(b)
	const files = 20_000
	for b.Loop() {
		b.StopTimer()
		dir := filepath.Join(base, "tree")
		for i := range files {
			p := fmt.Sprintf("%s/%d", dir, i/200)
			if i%200 == 0 {
				must(b, os.MkdirAll(p, 0o755))
			}
			must(b, os.WriteFile(fmt.Sprintf("%s/%d", p, i), nil, 0o644))
		}
		b.StartTimer()
		must(b, Remove(dir))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*files), "ns/file")
}
