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
		if c == "" {
			parent = divisible(parent)
		}
		d, err := os.MkdirTemp(parent, "isle-test-")
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(t, d) })
		leaf := prepareCgroup(t, c, parent, d)
		for _, dir := range []string{d, leaf} {
			// The files that delegation gives away; cgroups(7).
			for _, f := range []string{"", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"} {
				if uid < 0 {
					break
				}
				if err := os.Chown(filepath.Join(dir, f), uid, gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
		dirs = append(dirs, leaf)
	}
	return dirs
}

// divisible returns own, a v2 cgroup, or the one above it where that is what can
// hand out controllers: one with processes cannot, the root excepted, and what is
// made below it would be of no use to anyone ("domain invalid", cgroups(7)).
func divisible(own string) string {
	up := filepath.Dir(own)
	controllers, err := os.ReadFile(filepath.Join(up, "cgroup.controllers"))
	if err != nil || len(controllers) == 0 || syscall.Access(filepath.Join(up, "cgroup.procs"), 2) != nil {
		return own // the root, or a hierarchy without controllers, or not ours
	}
	return up
}

// callersLeaf is where isle puts the processes of a cgroup that it has been given,
// and finds it prepared (doc.go of internal/linux/cgroup).
const callersLeaf = "isle-callers"

// prepareCgroup fills what a new cgroup of the v1 cpuset controller needs before
// a process may join it (cpuset(7)), and divides one of v2. It returns the cgroup
// that the process is to join: the same, or a leaf below it.
func prepareCgroup(t *testing.T, controller, parent, d string) string {
	t.Helper()
	if controller == "" {
		have, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil || len(have) == 0 {
			return d // a hybrid host's, that controllers are not on
		}
		for _, c := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
			for _, dir := range []string{parent, d} {
				// What is not there is missing in what CgroupV2Delegated says.
				_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
			}
		}
		leaf := filepath.Join(d, callersLeaf)
		if err := os.Mkdir(leaf, 0o755); err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	if controller != "cpuset" {
		return d
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
	return d
}

func removeCgroup(t *testing.T, dir string) {
	t.Helper()
	var below []string
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		below = below[:0]
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && p != dir && p != filepath.Join(dir, callersLeaf) {
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
		_ = os.Remove(filepath.Join(dir, callersLeaf)) // where there is one
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	t.Error(fmt.Errorf("cgroup of the test: %w (processes %s)", err, strings.Join(strings.Fields(string(procs)), " ")))
}
