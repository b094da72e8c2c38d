package storage

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/testenv"
)

// ownerOf is who a file of a mount belongs to, as this process sees it.
func ownerOf(t *testing.T, f *os.File, name string) (uid, gid, mode uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(at(f, name), &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid, st.Mode
}

func shifted(t *testing.T, s *Store, id string) int {
	t.Helper()
	p, err := s.Path(id)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Dir(p) + "/" + shiftPrefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestMountForOtherIDs(t *testing.T) {
	inNamespaces(t, func(t *testing.T, userXattr bool) {
		if strings.HasSuffix(t.Name(), "single_id") {
			return // there are no other ids; TestKeeps
		}
		dir := testenv.Dir(t)
		s := Open(filepath.Join(dir, "layers"))
		low := put(t, s,
			tar.Header{Name: "root", Uname: "root's"},
			tar.Header{Name: "user", Uname: "user's", Uid: 1000, Gid: 50, Mode: 0o4755},
			tar.Header{Name: "far", Uname: "nobody's", Uid: 60000, Gid: 60000},
			tar.Header{Name: "gone", Uname: "x"},
			tar.Header{Name: "d/", Typeflag: tar.TypeDir, Uid: 5, Gid: 5, Mode: 0o2775},
			tar.Header{Name: "d/x", Uname: "low x", Uid: 5},
		)
		high := put(t, s,
			tar.Header{Name: ".wh.gone"},
			tar.Header{Name: "d/", Typeflag: tar.TypeDir, Uid: 5, Gid: 5, Mode: 0o2775},
			tar.Header{Name: "d/.wh..wh..opq"},
			tar.Header{Name: "d/y", Uname: "high y", Uid: 1000},
			tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "user", Uid: 1000, Gid: 1000},
		)
		// As keep-id has it: the ids around 1000 move, 1000 becomes the caller.
		maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 1000}, {ContainerID: 1000, HostID: 0, Size: 1}, {ContainerID: 1001, HostID: 1001, Size: 100}}
		var warned []string
		o := MountOptions{UserXattr: userXattr, UIDs: maps, GIDs: maps, Warn: func(w string) { warned = append(warned, w) }}
		kinds := []string{"append", "string", "mount", "copy"}
		for i, kind := range kinds {
			t.Run(kind, func(t *testing.T) {
				s := Open(s.dir)
				if s.rung = rung(i); kind == "copy" {
					s.rung, s.noIDMap = rungAppend, true
				}
				warned = nil
				upper, work := filepath.Join(dir, "u"+strconv.Itoa(i)), filepath.Join(dir, "w"+strconv.Itoa(i))
				for _, d := range []string{upper, work} {
					if err := os.Mkdir(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				f, err := s.Mount([]string{low, high}, upper, work, o)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for name, want := range map[string][3]uint32{
					"root": {1, 1, 0o100644}, "user": {0, 51, 0o104755}, "d": {6, 6, 0o42775}, "d/y": {0, 1, 0o100644}, "link": {0, 0, 0o120777},
				} {
					uid, gid, mode := ownerOf(t, f, name)
					if got := [3]uint32{uid, gid, mode}; got != want {
						t.Errorf("%s: owner and mode %d %d %o, want %d %d %o", name, got[0], got[1], got[2], want[0], want[1], want[2])
					}
				}
				if uid, _, _ := ownerOf(t, f, "far"); uid == 60000 {
					t.Error("far: the owner is an id that the container does not have, as it is outside")
				}
				for _, gone := range []string{"gone", "d/x"} {
					if _, err := os.Lstat(at(f, gone)); !os.IsNotExist(err) {
						t.Errorf("%s: %v", gone, err)
					}
				}
				// Copied up, a file keeps the owner that it is seen with.
				if err := os.Chmod(at(f, "root"), 0o600); err != nil {
					t.Fatal(err)
				}
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(upper, "root"), &st); err != nil || st.Uid != 1 || st.Gid != 1 {
					t.Errorf("copied up: owner %d:%d, %v", st.Uid, st.Gid, err)
				}
				if got := read(t, f, "user"); got != "user's" {
					t.Errorf("user = %q", got)
				}
				copies := 0
				if userXattr || kind == "copy" {
					copies = 1
				}
				if n := shifted(t, s, low); n != copies {
					t.Errorf("%d copies of the layer, want %d", n, copies)
				}
				if want := kind == "copy" && !userXattr; (len(warned) == 1) != want {
					t.Errorf("warned: %q", warned)
				}
			})
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("mounts left: %v\n%s", err, mounts)
		}
		// Many at once make one copy of each layer, and those go with it.
		maps = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 1000}}
		before := shifted(t, s, low)
		s.noIDMap = true
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				f, err := s.Mount([]string{low, high}, "", "", MountOptions{UserXattr: userXattr, ReadOnly: true, UIDs: maps, GIDs: maps})
				if err != nil {
					t.Error(err)
					return
				}
				if uid, _, _ := ownerOf(t, f, "root"); uid != 2000 {
					t.Errorf("root: owner %d", uid)
				}
				_ = f.Close()
			})
		}
		wg.Wait()
		if n := shifted(t, s, low) - before; n != 1 {
			t.Errorf("%d copies were made", n)
		}
		for _, id := range []string{low, high} {
			if err := s.Remove(id); err != nil {
				t.Error(err)
			}
		}
		left, err := s.names(func(n string) bool {
			return n != "n" && n != formatLink && !strings.HasPrefix(n, emptyLayer)
		})
		if err != nil || len(left) > 0 {
			t.Errorf("left: %q, %v", left, err)
		}
	})
}

func TestKeeps(t *testing.T) {
	for _, c := range []struct {
		maps []specs.LinuxIDMapping
		want bool
	}{
		{nil, true},
		{[]specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 65536}}, true},
		{[]specs.LinuxIDMapping{{ContainerID: 1000, HostID: 0, Size: 1}}, true},
		{[]specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 1000}}, false},
		{[]specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 5}, {ContainerID: 5, HostID: 0, Size: 1}}, false},
	} {
		if got := keeps(c.maps); got != c.want {
			t.Errorf("%v: %v", c.maps, got)
		}
	}
}
