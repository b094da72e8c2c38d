package storage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

// layerOf makes an archive of headers; a regular file's data is its Uname.
func layerOf(t testing.TB, hdrs ...tar.Header) (data []byte, diffID string) {
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
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
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
	return b.Bytes(), digestOf(b.Bytes())
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// put unpacks a layer and returns its id.
func put(t testing.TB, s *Store, hdrs ...tar.Header) string {
	t.Helper()
	data, id := layerOf(t, hdrs...)
	if _, err := s.Unpack(t.Context(), id, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return id
}

// at is a path below a directory that is attached nowhere.
func at(f *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) + "/" + name
}

func read(t testing.TB, f *os.File, name string) string {
	t.Helper()
	b, err := os.ReadFile(at(f, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// inNamespaces runs a test as root and in a user namespace with a range of ids,
// and says whether layers are marked with user.* attributes there.
func inNamespaces(t *testing.T, f func(t *testing.T, userXattr bool)) {
	t.Run("root", func(t *testing.T) {
		testenv.Need(t, testenv.Root, testenv.Overlay)
		if testenv.Unshare(t, unix.CLONE_NEWNS) {
			f(t, false)
		}
	})
	t.Run("userns", func(t *testing.T) {
		testenv.Need(t, testenv.OrdinaryUser, testenv.UserNS, testenv.NewUIDMap)
		if testenv.AsUser(t) && testenv.UnshareRange(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNS) {
			f(t, true)
		}
	})
	t.Run("single id", func(t *testing.T) {
		testenv.Need(t, testenv.UserNS, testenv.Overlay, testenv.OrdinaryUser)
		if testenv.AsUser(t) && testenv.Unshare(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNS) {
			f(t, true)
		}
	})
}

func TestMount(t *testing.T) {
	inNamespaces(t, func(t *testing.T, userXattr bool) {
		dir := testenv.Dir(t)
		s := Open(filepath.Join(dir, "layers"))
		low := put(t, s,
			tar.Header{Name: "a", Uname: "low a"},
			tar.Header{Name: "b", Uname: "low b"},
			tar.Header{Name: "d/", Typeflag: tar.TypeDir},
			tar.Header{Name: "d/x", Uname: "low x"},
			tar.Header{Name: "e/x", Uname: "low x"},
		)
		high := put(t, s,
			tar.Header{Name: ".wh.a"},
			tar.Header{Name: "b", Uname: "high b"},
			tar.Header{Name: "d/.wh..wh..opq"},
			tar.Header{Name: "d/y", Uname: "high y"},
			tar.Header{Name: "e/.wh.x"},
		)
		for r := rungAppend; r <= rungMount; r++ {
			t.Run([]string{"append", "string", "mount"}[r], func(t *testing.T) {
				s.rung = r
				upper, work := filepath.Join(dir, "u"+strconv.Itoa(int(r))), filepath.Join(dir, "w"+strconv.Itoa(int(r)))
				for _, d := range []string{upper, work} {
					if err := os.Mkdir(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				f, err := s.Mount([]string{low, high}, upper, work, MountOptions{UserXattr: userXattr})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if got := read(t, f, "b"); got != "high b" {
					t.Errorf("b = %q", got)
				}
				if got := read(t, f, "d/y"); got != "high y" {
					t.Errorf("d/y = %q", got)
				}
				for _, gone := range []string{"a", "d/x", "e/x"} {
					if _, err := os.Lstat(at(f, gone)); !os.IsNotExist(err) {
						t.Errorf("%s: %v", gone, err)
					}
				}
				if err := os.WriteFile(at(f, "new"), []byte("new"), 0o644); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(filepath.Join(upper, "new")); err != nil || string(b) != "new" {
					t.Errorf("upper: %q, %v", b, err)
				}
				// Read-only, of two, one and no layers.
				for n, layers := range [][]string{{}, {low}, {low, high}} {
					f, err := s.Mount(layers, "", "", MountOptions{UserXattr: userXattr, ReadOnly: true})
					if err != nil {
						t.Fatalf("%d layers: %v", n, err)
					}
					if err := os.WriteFile(at(f, "new"), nil, 0o644); errs.KindOf(err) != errs.Unknown || err == nil {
						t.Errorf("write to a read-only mount: %v", err)
					}
					if n == 1 {
						if got := read(t, f, "d/x"); got != "low x" {
							t.Errorf("d/x = %q", got)
						}
					}
					_ = f.Close()
				}
			})
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("mounts left: %v\n%s", err, mounts)
		}
	})
}

// TestPlaces: what every container has something mounted on is there without a
// file in its writable layer, whatever the umask of who mounts, and the image's
// own files win.
func TestPlaces(t *testing.T) {
	inNamespaces(t, func(t *testing.T, userXattr bool) {
		dir := testenv.Dir(t)
		s := Open(filepath.Join(dir, "layers"))
		layer := put(t, s, tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o750}, tar.Header{Name: "etc/hosts", Uname: "the image's"})
		upper, work := filepath.Join(dir, "u"), filepath.Join(dir, "w")
		if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
			t.Fatal(err)
		}
		old := unix.Umask(0o077)
		f, err := s.Mount([]string{layer}, upper, work, MountOptions{UserXattr: userXattr, Places: true})
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for name, want := range map[string]uint32{
			"dev": unix.S_IFDIR | 0o755, "proc": unix.S_IFDIR | 0o755, "sys": unix.S_IFDIR | 0o755, "etc": unix.S_IFDIR | 0o750,
			"etc/hosts": unix.S_IFREG | 0o644, "etc/hostname": unix.S_IFREG | 0o644, "etc/resolv.conf": unix.S_IFREG | 0o644,
		} {
			var st unix.Stat_t
			if err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode != want || st.Uid != 0 {
				t.Errorf("%s: mode %o, not %o, uid %d, %v", name, st.Mode, want, st.Uid, err)
			}
		}
		if b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/etc/hosts", f.Fd())); err != nil || string(b) != "the image's" {
			t.Errorf("etc/hosts holds %q, %v", b, err)
		}
		if left, err := os.ReadDir(upper); err != nil || len(left) > 0 {
			t.Errorf("in the upper directory: %v, %v", left, err)
		}
	})
}

func TestUnpackVerifies(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := t.TempDir()
	s := Open(filepath.Join(dir, "layers"))
	data, id := layerOf(t, tar.Header{Name: "a", Uname: "aaaa"})
	data = append(data, "trailing bytes count"...)
	if _, err := s.Unpack(t.Context(), id, bytes.NewReader(data)); errs.KindOf(err) != errs.Corrupt {
		t.Fatalf("wrong digest: %v", err)
	}
	if _, err := s.Unpack(t.Context(), digestOf(data[:514]), bytes.NewReader(data[:514])); errs.KindOf(err) != errs.Corrupt {
		t.Fatalf("truncated: %v", err)
	}
	left, err := s.names(func(n string) bool { return n != formatLink })
	if err != nil || len(left) > 0 {
		t.Fatalf("left: %q, %v", left, err)
	}
	n, err := s.Unpack(t.Context(), digestOf(data), bytes.NewReader(data))
	if err != nil || n != 4 {
		t.Fatalf("%d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Unpack(ctx, id, bytes.NewReader(data)); errs.KindOf(err) != errs.Canceled {
		t.Fatalf("canceled: %v", err)
	}
	all, err := s.Layers()
	if err != nil || len(all) != 1 || all[0].DiffID != digestOf(data) || all[0].Bytes != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := s.Remove(digestOf(data)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(digestOf(data)); errs.KindOf(err) != errs.NotFound {
		t.Fatal(err)
	}
}
