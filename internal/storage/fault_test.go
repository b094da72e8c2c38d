package storage

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

// Variables that make a test's own binary unpack a layer and end.
const (
	varStore = "STORAGE_TEST_STORE"
	varTar   = "STORAGE_TEST_TAR"
	varID    = "STORAGE_TEST_ID"
)

// TestUnpackHelper is no test: it is the other process of the tests below.
func TestUnpackHelper(t *testing.T) {
	dir := os.Getenv(varStore)
	if dir == "" {
		return
	}
	f, err := os.Open(os.Getenv(varTar))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir).Unpack(t.Context(), os.Getenv(varID), f); err != nil {
		t.Fatal(err)
	}
}

func unpackProcess(t *testing.T, store, tarFile, id string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestUnpackHelper$")
	cmd.Env = append(os.Environ(), varStore+"="+store, varTar+"="+tarFile, varID+"="+id)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// leftovers are the names in a store that are neither layers nor its format.
func leftovers(t *testing.T, s *Store) []string {
	t.Helper()
	left, err := s.names(func(n string) bool { return strings.HasPrefix(n, stagePrefix) || strings.HasPrefix(n, gonePrefix) })
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// bulk is a layer of n files of some kilobytes.
func bulk(t testing.TB, n int) (data []byte, id string) {
	hdrs := []tar.Header{}
	for i := range n {
		hdrs = append(hdrs, tar.Header{Name: fmt.Sprintf("d%d/f%d", i/50, i), Uname: strings.Repeat("x", i*37%9000)})
	}
	return layerOf(t, hdrs...)
}

func TestKilledUnpack(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := testenv.Dir(t)
	s := Open(filepath.Join(dir, "layers"))
	data, id := bulk(t, 600)
	tarFile := filepath.Join(dir, "tar")
	if err := os.WriteFile(tarFile, data, 0o600); err != nil {
		t.Fatal(err)
	}
	killed := 0
	for round := range 25 {
		cmd := unpackProcess(t, s.dir, tarFile, id)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		// A live unpacker's work is not swept.
		if _, err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Kill()
		err := cmd.Wait()
		if s.Has(id) {
			// Whole, whenever it was killed.
			var n int
			for i := range 600 {
				if b, err := os.ReadFile(fmt.Sprintf("%s/%s/diff/d%d/f%d", s.dir, id[7:], i/50, i)); err != nil || len(b) != i*37%9000 {
					t.Fatalf("round %d: file %d: %d bytes, %v", round, i, len(b), err)
				}
				n++
			}
			if err := s.Remove(id); err != nil {
				t.Fatal(err)
			}
		} else if err == nil {
			t.Fatalf("round %d: ended well without a layer", round)
		} else {
			killed++
		}
		if _, err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		if left := leftovers(t, s); len(left) > 0 {
			t.Fatalf("round %d: left %q", round, left)
		}
	}
	t.Logf("%d of 25 were killed in time", killed)
}

func TestFourUnpackers(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := testenv.Dir(t)
	s := Open(filepath.Join(dir, "layers"))
	data, id := bulk(t, 200)
	tarFile := filepath.Join(dir, "tar")
	if err := os.WriteFile(tarFile, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var all []*exec.Cmd
		for range 4 {
			all = append(all, unpackProcess(t, s.dir, tarFile, id))
		}
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
		if !s.Has(id) || len(leftovers(t, s)) > 0 {
			t.Fatalf("has %v, left %q", s.Has(id), leftovers(t, s))
		}
		if err := s.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	// The same within one process, and with a sweeper about.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if n, err := s.Unpack(t.Context(), id, bytes.NewReader(data)); err != nil || n == 0 {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			if _, err := s.Sweep(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestFullDisk(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if !testenv.Unshare(t, unix.CLONE_NEWNS) {
		return
	}
	dir := testenv.Dir(t)
	for _, c := range []struct{ opt, hint string }{
		{"size=1m", "is full"},
		{"nr_inodes=50", "has no inodes left"},
	} {
		t.Run(c.opt, func(t *testing.T) {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, c.opt); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err) // something is still open
				}
			}()
			s := Open(filepath.Join(dir, "layers"))
			data, id := bulk(t, 600)
			_, err := s.Unpack(t.Context(), id, bytes.NewReader(data))
			if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if h := errs.Hints(err); len(h) != 1 || !strings.Contains(h[0], c.hint) {
				t.Errorf("%v: hints %q", err, h)
			}
			t.Log(err, errs.Hints(err))
			if left := leftovers(t, s); len(left) > 0 || s.Has(id) {
				t.Errorf("left %q", left)
			}
		})
	}
}

func TestLongStacks(t *testing.T) {
	inNamespaces(t, func(t *testing.T, userXattr bool) {
		dir := testenv.Dir(t)
		// A path that no option holds, with everything that options hold dear.
		s := Open(filepath.Join(dir, strings.Repeat("long, and \\with: colons ", 9), "layers"))
		var ids []string
		count := maxLayers
		if userXattr {
			count = 130 // the same code, and each layer takes its time
		}
		for i := range count {
			hdrs := []tar.Header{{Name: "who", Uname: strconv.Itoa(i)}, {Name: "n/" + strconv.Itoa(i), Uname: "x"}}
			if i > 0 {
				hdrs = append(hdrs, tar.Header{Name: "n/.wh." + strconv.Itoa(i-1)})
			}
			ids = append(ids, quickPut(t, s, hdrs...))
		}
		for r := rungAppend; r <= rungMount; r++ {
			for _, n := range []int{1, 2, 50, 128, 300, 500} {
				if n > count {
					break
				}
				s.rung = r
				f, err := s.Mount(ids[:n], "", "", MountOptions{UserXattr: userXattr, ReadOnly: true})
				if err != nil {
					t.Fatalf("rung %d, %d layers: %v", r, n, err)
				}
				if got := read(t, f, "who"); got != strconv.Itoa(n-1) {
					t.Errorf("rung %d, %d layers: %s", r, n, got)
				}
				names, err := os.ReadDir(at(f, "n"))
				if err != nil || len(names) != 1 || names[0].Name() != strconv.Itoa(n-1) {
					t.Errorf("rung %d, %d layers: %v, %v", r, n, names, err)
				}
				_ = f.Close()
			}
		}
		upper, work := filepath.Join(s.dir, "u:,p"), filepath.Join(s.dir, "w\\k")
		for r := rungAppend; r <= rungMount; r++ {
			s.rung = r
			for _, d := range []string{upper, work} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			f, err := s.Mount(ids, upper, work, MountOptions{UserXattr: userXattr, Volatile: true})
			if err != nil {
				t.Fatalf("rung %d: %v", r, err)
			}
			if err := os.WriteFile(at(f, "who"), []byte("me"), 0o644); err != nil {
				t.Error(err)
			}
			_ = f.Close()
			// Volatile: this pair is used up.
			if err := errors.Join(RemoveTree(upper), RemoveTree(work)); err != nil {
				t.Fatal(err)
			}
		}
		if count < maxLayers {
			return
		}
		if _, err := s.Mount(append(ids, ids[0]), upper, work, MountOptions{UserXattr: userXattr}); errs.KindOf(err) != errs.Unsupported || !strings.Contains(err.Error(), "501 layers") {
			t.Error(err)
		}
	})
}

// quickPut is put without the disk: a stack of 500 layers would be 500 syncs.
func quickPut(t testing.TB, s *Store, hdrs ...tar.Header) string {
	t.Helper()
	data, id := layerOf(t, hdrs...)
	st, err := s.Stage(t.Context(), id, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(st.path, filepath.Join(s.dir, id[7:])); err != nil {
		t.Fatal(err)
	}
	_ = st.dir.Close()
	return id
}

func TestOpaqueRootLayer(t *testing.T) {
	inNamespaces(t, func(t *testing.T, userXattr bool) {
		dir := testenv.Dir(t)
		s := Open(filepath.Join(dir, "layers"))
		low := put(t, s, tar.Header{Name: "low", Uname: "x"})
		mid := put(t, s, tar.Header{Name: ".wh..wh..opq"}, tar.Header{Name: "mid", Uname: "x"})
		high := put(t, s, tar.Header{Name: "high", Uname: "x"})
		f, err := s.Mount([]string{low, mid, high}, "", "", MountOptions{UserXattr: userXattr, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		names, err := os.ReadDir(at(f, "."))
		if err != nil || len(names) != 2 || names[0].Name() != "high" || names[1].Name() != "mid" {
			t.Errorf("%v, %v", names, err)
		}
	})
}

func TestStoreOfAnotherKind(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := Open(filepath.Join(t.TempDir(), "layers"))
	id := put(t, s, tar.Header{Name: "a", Uname: "x"})
	_, err := s.Mount([]string{id}, "", "", MountOptions{UserXattr: true})
	if errs.KindOf(err) != errs.Conflict || len(errs.Hints(err)) != 1 {
		t.Errorf("%v", err)
	}
	if err := s.setFormat(true); errs.KindOf(err) != errs.Conflict {
		t.Errorf("%v", err)
	}
	if err := errors.Join(os.Remove(s.dir+"/.format"), os.Symlink("7-new", s.dir+"/.format")); err != nil {
		t.Fatal(err)
	}
	if err := s.setFormat(false); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("%v", err)
	}
}

func TestMountErrors(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Overlay)
	if !testenv.Unshare(t, unix.CLONE_NEWNS) {
		return
	}
	dir := testenv.Dir(t)
	s := Open(filepath.Join(dir, "layers"))
	id := put(t, s, tar.Header{Name: "a", Uname: "x"})
	absent := "sha256:" + strings.Repeat("0", 64)
	if _, err := s.Mount([]string{id, absent}, "", "", MountOptions{}); errs.KindOf(err) != errs.NotFound || !strings.Contains(err.Error(), "layer 000000000000: not unpacked") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:../../../../etc", "sha512:" + strings.Repeat("0", 64), strings.Repeat("0", 64)} {
		if _, err := s.Mount([]string{bad}, "", "", MountOptions{}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := s.Unpack(t.Context(), bad, strings.NewReader("")); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := s.Mount([]string{id}, dir+"/no/upper", dir+"/no/work", MountOptions{}); errs.KindOf(err) != errs.NotFound || !strings.Contains(err.Error(), "upper") {
		t.Errorf("%v", err)
	}
	// An upper directory on overlayfs itself, as in a container.
	mnt := filepath.Join(dir, "mnt")
	for _, d := range []string{mnt, dir + "/u", dir + "/w"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.Mount([]string{id}, dir+"/u", dir+"/w", MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, mnt, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	for _, d := range []string{mnt + "/u", mnt + "/w"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for r := rungAppend; r <= rungMount; r++ {
		s.rung = r
		_, err = s.Mount([]string{id}, mnt+"/u", mnt+"/w", MountOptions{})
		if errs.KindOf(err) != errs.Unsupported || !strings.Contains(strings.Join(errs.Hints(err), " "), "overlayfs (are you in a container?)") {
			t.Errorf("rung %d: %v %q", r, err, errs.Hints(err))
		}
		t.Log(err)
	}
}

// BenchmarkMount is what a container's start pays for its root.
func BenchmarkMount(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Overlay)
	dir := testenv.Dir(b)
	s := Open(filepath.Join(dir, "layers"))
	var ids []string
	for i := range 60 {
		ids = append(ids, quickPut(b, s, tar.Header{Name: strconv.Itoa(i), Uname: "x"}))
	}
	for r := rungAppend; r <= rungMount; r++ {
		for _, n := range []int{1, 10, 60} {
			b.Run(fmt.Sprintf("%s/%d", []string{"append", "string", "mount"}[r], n), func(b *testing.B) {
				s.rung = r
				for b.Loop() {
					// Without an upper directory, whose file system is synced at the end.
					f, err := s.Mount(ids[:n], "", "", MountOptions{ReadOnly: true})
					if err != nil {
						b.Fatal(err)
					}
					_ = f.Close()
				}
			})
		}
	}
}

// BenchmarkStage unpacks 2,000 files of 8 kB and one of 32 MB.
func BenchmarkStage(b *testing.B) {
	testenv.Need(b, testenv.Root)
	s := Open(filepath.Join(testenv.Dir(b), "layers"))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, n int) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(n), Mode: 0o644, ModTime: time.Unix(1e9, 0)}); err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(w, io.LimitReader(rand.NewChaCha8([32]byte{}), int64(n))); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 2000 {
		add(fmt.Sprintf("usr/lib/d%d/f%d", i/40, i), 8000)
	}
	add("big", 32<<20)
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	id := digestOf(buf.Bytes())
	b.SetBytes(int64(buf.Len()))
	b.ReportAllocs()
	for b.Loop() {
		st, err := s.Stage(b.Context(), id, bytes.NewReader(buf.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := st.Discard(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
