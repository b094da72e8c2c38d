package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// again runs this test binary for one test with further environment, and
// returns its output and whether it passed.
func again(t *testing.T, name string, env ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+name+"$")
	cmd.Env = append(append(os.Environ(), "TESTENV_SELF=1"), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// TestInner is what the tests below run in a process of its own.
func TestInner(t *testing.T) {
	if os.Getenv("TESTENV_SELF") == "" {
		return
	}
	Need(t, Word(os.Getenv("TESTENV_WORD")))
}

func TestUnknownWordFails(t *testing.T) {
	out, ok := again(t, "TestInner", "TESTENV_WORD=Unicorn")
	if ok || !strings.Contains(out, `unknown need "Unicorn"`) {
		t.Fatalf("passed %v: %s", ok, out)
	}
}

func TestSkipIsCountedAndExpected(t *testing.T) {
	// A word that is missing wherever PATH is empty and no sbin has it.
	if _, err := LookTool("crun"); err == nil {
		t.Setenv("PATH", "/nonexistent")
		if _, err := LookTool("crun"); err == nil {
			t.Log("crun is in sbin here: nothing to leave out")
			return
		}
	}
	file := filepath.Join(Dir(t), "skips")
	out, ok := again(t, "TestInner", "TESTENV_WORD=Crun", "ISLE_TEST_SKIPS="+file, "ISLE_EXPECT_SKIPS=Docker Crun", "PATH=/nonexistent")
	if !ok || !strings.Contains(out, "--- SKIP") {
		t.Fatalf("expected skip: passed %v: %s", ok, out)
	}
	out, ok = again(t, "TestInner", "TESTENV_WORD=Crun", "ISLE_TEST_SKIPS="+file, "ISLE_EXPECT_SKIPS=", "PATH=/nonexistent")
	if ok || !strings.Contains(out, "expects no such skip") {
		t.Fatalf("unexpected skip: passed %v: %s", ok, out)
	}
	lines, err := os.ReadFile(file)
	if err != nil || strings.Count(string(lines), "Crun\tTestInner\t") != 2 {
		t.Fatalf("counted %q, %v", lines, err)
	}
}

func TestAsUser(t *testing.T) {
	if !AsUser(t) {
		return
	}
	u, err := ordinaryUser()
	if err != nil || os.Getuid() == 0 || u.UID != os.Getuid() {
		t.Fatalf("uid %d, user %+v, %v", os.Getuid(), u, err)
	}
	if err := os.WriteFile(filepath.Join(Dir(t), "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUnshare(t *testing.T) {
	Need(t, UserNS)
	if !Unshare(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS|syscall.CLONE_NEWPID) {
		return
	}
	if os.Getpid() != 1 || os.Getuid() != 0 {
		t.Fatalf("pid %d uid %d", os.Getpid(), os.Getuid())
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}

func TestUserRangeUnshare(t *testing.T) {
	if !AsUser(t) {
		return
	}
	Need(t, UserNS)
	if !UnshareRange(t, syscall.CLONE_NEWNS) {
		return
	}
	f := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(f, 1000, 1000); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveAllOfSubordinateIDs(t *testing.T) {
	if !AsUser(t) {
		return
	}
	Need(t, UserNS, NewUIDMap)
	dir := Dir(t)
	cmd := exec.Command("unshare", "--map-root-user", "--map-auto", "--", "sh", "-c",
		"mkdir -p $0/d/e && touch $0/d/e/f && chown -R 5:5 $0/d && chmod 0 $0/d", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

func TestLeaksAreSeen(t *testing.T) {
	dir := Dir(t)
	cmd := exec.Command("sleep", "100")
	cmd.Env = append(os.Environ(), "SOMETHING="+dir+"/x")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := Leaks(dir, 0)
	want := fmt.Sprintf("process %d: sleep 100", cmd.Process.Pid)
	if len(found) != 1 || found[0] != want {
		t.Errorf("found %q, want %q", found, want)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("killed process ended well")
	}
	if found := Leaks(dir, time.Second); len(found) != 0 {
		t.Errorf("after the kill: %q", found)
	}
}

func TestUserInDelegatedCgroups(t *testing.T) {
	Need(t, Root)
	if !AsUserInCgroups(t) {
		return
	}
	for _, c := range []string{"", "memory", "pids"} {
		dir, err := cgroupDir(c)
		if err != nil {
			continue
		}
		if !strings.Contains(dir, "isle-test-") {
			t.Errorf("%q: runs in %s", c, dir)
		}
		if err := mayDivide(dir); err != nil {
			t.Errorf("%q: %v", c, err)
		}
	}
}

func TestLeftCgroupIsSeen(t *testing.T) {
	Need(t, Root)
	if os.Getenv("TESTENV_SELF") == "" {
		out, ok := again(t, t.Name())
		if ok || !strings.Contains(out, "left behind: cgroup ") {
			t.Fatalf("passed %v: %s", ok, out)
		}
		return
	}
	if !InCgroups(t) {
		return
	}
	dir, err := cgroupDir("")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "stays"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestNeedsBeforeTheCopy asks for what only the parent has: the copy must not
// skip for it.
func TestNeedsBeforeTheCopy(t *testing.T) {
	Need(t, Root)
	if !AsUser(t) {
		return
	}
	Need(t, Root)
	if reason := missing(t, Root); reason == "" {
		t.Fatal("the copy is root")
	}
}
