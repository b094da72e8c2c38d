package testenv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// InCgroups makes the rest of the calling test run in cgroups of its own, one
// below this process's in every hierarchy it may divide, and reports whether the
// caller is the copy that does. A cgroup that the copy leaves below its own
// fails the test.
func InCgroups(t *testing.T) bool {
	t.Helper()
	if inside("cg", t) {
		awaitGate(t, "cgroups")
		return true
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), varInside+"="+mark("cg", t))
	inCgroups(t, cmd, -1, -1)
	return false
}

// AsUserInCgroups is AsUser where root, if it started the tests, delegates
// cgroups to the user, as systemd does; a user's own run has what it was given.
func AsUserInCgroups(t *testing.T) bool {
	t.Helper()
	return asUser(t, func(cmd *exec.Cmd, u User) { inCgroups(t, cmd, u.UID, u.GID) })
}

func inCgroups(t *testing.T, cmd *exec.Cmd, uid, gid int) {
	t.Helper()
	dirs := ownCgroups(t, uid, gid)
	gated(t, cmd, "cgroups", func() {
		for _, d := range dirs {
			if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
				t.Errorf("join %s: %v", d, err)
			}
		}
	})
}

// ownCgroups makes one cgroup below this process's own in each hierarchy and
// gives it to uid, if not negative. Its clean-up reports what is left below.
func ownCgroups(t *testing.T, uid, gid int) []string {
	t.Helper()
	var dirs []string
	seen := map[string]bool{}
	for _, c := range []string{"", "memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "devices"} {
		parent, err := cgroupDir(c)
		if err != nil || seen[parent] {
			continue // no such controller, or it shares a hierarchy
		}
		seen[parent] = true
		d, err := os.MkdirTemp(parent, "isle-test-")
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(t, d) })
		prepareCgroup(t, c, parent, d)
		if uid >= 0 {
			// The files that delegation gives away; cgroups(7).
			for _, f := range []string{"", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"} {
				if err := os.Chown(filepath.Join(d, f), uid, gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
		dirs = append(dirs, d)
	}
	return dirs
}

// prepareCgroup fills what a new cgroup of the v1 cpuset controller needs before
// a process may join it; cpuset(7).
func prepareCgroup(t *testing.T, controller, parent, d string) {
	t.Helper()
	if controller == "" {
		// A cgroup with processes in it cannot hand out controllers, the root
		// excepted; then the test has what CgroupV2Delegated says.
		for _, c := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+c), 0)
		}
		return
	}
	if controller != "cpuset" {
		return
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		v, err := os.ReadFile(filepath.Join(parent, f))
		if err == nil {
			err = os.WriteFile(filepath.Join(d, f), v, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func removeCgroup(t *testing.T, dir string) {
	t.Helper()
	var below []string
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		below = below[:0]
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && p != dir {
				below = append(below, p)
			}
			return nil // a cgroup may go while it is looked at
		})
		if len(below) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, left := range slices.Backward(below) {
		procs, _ := os.ReadFile(filepath.Join(left, "cgroup.procs"))
		t.Errorf("left behind: cgroup %s with processes [%s]", left, strings.Join(strings.Fields(string(procs)), " "))
		_ = os.Remove(left)
	}
	// The copy itself may still be on its way out.
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	t.Error(fmt.Errorf("cgroup of the test: %w (processes %s)", err, strings.Join(strings.Fields(string(procs)), " ")))
}
