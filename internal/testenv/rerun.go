package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Variables between a test and the copy of itself that it starts.
const (
	varInside = "_ISLE_TESTENV"      // "user:TEST" and "ns:TEST", blank after each: what this copy is
	varStage  = "_ISLE_TESTENV_WAIT" // "maps" or "cgroups": what the copy waits for, on descriptor 3
	varUser   = "ISLE_TEST_USER"     // the ordinary user of tests that root starts
	varDir    = "ISLE_TEST_DIR"      // where Dir makes its directories
)

// DefaultUser is the account that hack/setup creates for tests run as root.
const DefaultUser = "isletest"

// User is the ordinary user that tests run as.
type User struct {
	Name     string
	UID, GID int
	Home     string
}

// ordinaryUser returns the caller itself, or for root the test account.
func ordinaryUser() (User, error) {
	if os.Getuid() == 0 {
		return TestUser()
	}
	u, err := user.Current()
	if err != nil {
		return User{}, err
	}
	return fromPasswd(u)
}

// TestUser returns the account that root's tests and benchmarks use where they
// need an ordinary user: the one that ISLE_TEST_USER names, or DefaultUser.
func TestUser() (User, error) {
	name := os.Getenv(varUser)
	if name == "" {
		name = DefaultUser
	}
	u, err := user.Lookup(name)
	if err != nil {
		return User{}, fmt.Errorf("%w (hack/setup creates it)", err)
	}
	return fromPasswd(u)
}

func fromPasswd(u *user.User) (User, error) {
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return User{Name: u.Username, UID: uid, GID: gid, Home: u.HomeDir}, errors.Join(err1, err2)
}

// inside reports whether this process is the copy of the test of that kind.
func inside(kind string, t *testing.T) bool {
	return strings.Contains(os.Getenv(varInside), kind+":"+t.Name()+" ")
}

// mark is the value of varInside for a copy of that kind made by this process.
func mark(kind string, t *testing.T) string {
	met.Lock()
	defer met.Unlock()
	return os.Getenv(varInside) + kind + ":" + t.Name() + " " + strings.Join(met.words, "")
}

// Ordinary returns the ordinary user that AsUser runs tests as.
func Ordinary(t testing.TB) User {
	t.Helper()
	Need(t, OrdinaryUser)
	u, err := ordinaryUser()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// AsUser makes the rest of the calling test run as an ordinary user, with that
// user's home, no XDG_RUNTIME_DIR and no supplementary groups. It reports
// whether the caller is the one to run it: always when the tests were started
// by an ordinary user; when root started them, only in the copy of the test
// that AsUser starts, whose result becomes the caller's.
//
// The copy's working directory holds a copy of testdata.
func AsUser(t *testing.T) bool {
	t.Helper()
	return asUser(t, func(cmd *exec.Cmd, _ User) { rerun(t, cmd) })
}

// asUser prepares the copy that runs as the ordinary user, and has again run it.
func asUser(t *testing.T, again func(*exec.Cmd, User)) bool {
	t.Helper()
	Need(t, OrdinaryUser)
	if inside("user", t) {
		awaitGate(t, "cgroups")
		return true
	}
	if os.Getuid() != 0 {
		// A copy in a user namespace will be uid 0, and the same user still.
		//nolint:usetesting // t.Setenv forbids t.Parallel, and the mark may stay
		if err := os.Setenv(varInside, mark("user", t)); err != nil {
			t.Fatal(err)
		}
		return true
	}
	u := Ordinary(t)
	dir := Dir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "test")
	copyFile(t, "/proc/self/exe", exe)
	if _, err := os.Stat("testdata"); err == nil {
		if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS("testdata")); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(dir, "u")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(own, u.UID, u.GID); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir = dir
	cmd.Env = append(passed(), "HOME="+u.Home, "USER="+u.Name, "LOGNAME="+u.Name, "SHELL=/bin/sh",
		varInside+"="+mark("user", t), varDir+"="+own)
	if bin := os.Getenv(varBin); bin != "" || built() {
		cmd.Env = append(cmd.Env, varBin+"="+reachableBin(t, dir))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID), Groups: []uint32{uint32(u.GID)}},
	}
	again(cmd, u)
	return false
}

// Unshare makes the rest of the calling test run in new namespaces: flags are
// those of clone(2) for namespaces. It reports whether the caller is the copy
// that is inside. With CLONE_NEWUSER the copy is root there: root's copy keeps
// the ids 0 to 65535 as they are, an ordinary user has just uid 0. With
// CLONE_NEWNS nothing propagates back, and with CLONE_NEWPID too, /proc is the
// new namespace's own.
func Unshare(t *testing.T, flags uintptr) bool {
	t.Helper()
	return unshare(t, flags, false)
}

// UnshareRange is Unshare with CLONE_NEWUSER for an ordinary user who shall
// have the subordinate ids as well: the user is 0 inside, the range follows
// from 1. Callers need NewUIDMap.
func UnshareRange(t *testing.T, flags uintptr) bool {
	t.Helper()
	Need(t, NewUIDMap)
	return unshare(t, flags|syscall.CLONE_NEWUSER, os.Getuid() != 0)
}

func unshare(t *testing.T, flags uintptr, subids bool) bool {
	t.Helper()
	if inside("ns", t) {
		awaitMaps(t)
		enter(t, flags)
		return true
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), varInside+"="+mark("ns", t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&syscall.CLONE_NEWUSER != 0 && !subids {
		size := 1
		if os.Getuid() == 0 {
			size = 65536
		}
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: size}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: size}}
		cmd.SysProcAttr.GidMappingsEnableSetgroups = os.Getuid() == 0
	}
	if subids {
		mapRange(t, cmd)
		return false
	}
	rerun(t, cmd)
	return false
}

// mapRange runs cmd, which waits in awaitMaps, and has newuidmap and newgidmap
// write its maps.
func mapRange(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	u, err := ordinaryUser()
	if err != nil {
		t.Fatal(err)
	}
	gated(t, cmd, "maps", func() {
		for _, m := range []struct {
			tool, file string
			id         int
		}{{"newuidmap", "/etc/subuid", u.UID}, {"newgidmap", "/etc/subgid", u.GID}} {
			first, count := subRange(t, m.file, u)
			out, err := exec.Command(m.tool, strconv.Itoa(cmd.Process.Pid),
				"0", strconv.Itoa(m.id), "1", "1", strconv.Itoa(first), strconv.Itoa(count)).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v: %s", m.tool, err, out)
			}
		}
	})
}

// gated runs cmd, a copy that waits in awaitGate for what, and lets it go on when
// ready has returned.
func gated(t *testing.T, cmd *exec.Cmd, what string, ready func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd.ExtraFiles = []*os.File{r}
	cmd.Env = append(cmd.Env, varStage+"="+what)
	start(t, cmd, func() {
		r.Close()
		ready()
		w.Close()
	})
}

func subRange(t *testing.T, file string, u User) (first, count int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 3 && (f[0] == u.Name || f[0] == strconv.Itoa(u.UID)) {
			first, err1 := strconv.Atoi(f[1])
			count, err2 := strconv.Atoi(f[2])
			if err := errors.Join(err1, err2); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			return first, count
		}
	}
	t.Fatalf("%s: no range for %s", file, u.Name)
	return 0, 0
}

// awaitGate waits, in a copy started by gated, until it may go on. It reports
// whether there was anything to wait for.
func awaitGate(t *testing.T, what string) bool {
	t.Helper()
	if os.Getenv(varStage) != what {
		return false
	}
	gate := os.NewFile(3, "gate")
	if _, err := io.Copy(io.Discard, gate); err != nil {
		t.Fatal(err)
	}
	gate.Close()
	if err := os.Unsetenv(varStage); err != nil {
		t.Fatal(err)
	}
	return true
}

// awaitMaps waits until the parent has had the id maps written and executes the
// test again: capabilities were lost in the first execve, when no id of the
// process was mapped to 0 (capabilities(7)).
func awaitMaps(t *testing.T) {
	t.Helper()
	if awaitGate(t, "maps") {
		t.Fatal(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
	}
}

// enter finishes the new namespaces from inside.
func enter(t *testing.T, flags uintptr) {
	t.Helper()
	if flags&syscall.CLONE_NEWNS == 0 {
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
	if flags&syscall.CLONE_NEWPID != 0 {
		if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
			t.Fatalf("mount proc: %v", err)
		}
	}
}

// rerun runs cmd, a copy of this test binary, for just the calling test and
// takes over its result.
func rerun(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	start(t, cmd, func() {})
}

func start(t *testing.T, cmd *exec.Cmd, started func()) {
	t.Helper()
	var parts []string
	for p := range strings.SplitSeq(t.Name(), "/") {
		parts = append(parts, "^"+regexp.QuoteMeta(p)+"$")
	}
	cmd.Args = []string{os.Args[0], "-test.run=" + strings.Join(parts, "/"), "-test.v", "-test.count=1"}
	if d, ok := t.Deadline(); ok {
		// The copy's own deadline comes first: it prints where it hangs.
		cmd.Args = append(cmd.Args, "-test.timeout="+max(time.Until(d)-2*time.Second, time.Second).String())
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// A daemon that inherits the output would keep Wait waiting; what it is
	// shall be seen in a test's result, not in a hang.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("run %s again: %v", t.Name(), err)
	}
	started()
	err := cmd.Wait()
	text := strings.TrimSpace(out.String())
	switch {
	case err != nil:
		t.Fatalf("%s, run again: %v\n%s", t.Name(), err, text)
	case strings.Contains(text, "--- SKIP: "+t.Name()+" "):
		t.Skip(text) // counted by the copy
	case !strings.Contains(text, "--- PASS: "+t.Name()+" "):
		t.Fatalf("%s, run again: did not run\n%s", t.Name(), text)
	case testing.Verbose():
		t.Log("\n" + text)
	}
}

// passed is the part of the environment that another user's copy gets.
func passed() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		switch {
		case k == varDir || k == varBin:
		case strings.HasPrefix(k, "ISLE_"), k == "GODEBUG", k == "GOTRACEBACK":
			env = append(env, kv)
		}
	}
	return env
}
