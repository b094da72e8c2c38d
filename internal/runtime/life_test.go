package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/pid1"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/testenv"
)

func TestGate(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	for _, c := range []struct {
		name, send string
		uid        uint32
		want       string
	}{{"opened", "x", 0, ""}, {"opened for a user", "x", 1000, ""}, {"closed", "", 0, "gate: read: input/output error"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s := docker(root, "sh", "-c", "touch /tmp/ran; ls /proc/self/fd | tr '\\n' ' ' >/tmp/ran")
		s.Process.User.UID = c.uid
		if err := os.Chmod(filepath.Join(root, "tmp"), 0o1777); err != nil {
			t.Fatal(err)
		}
		p, err := Compile(s, Options{Gate: r})
		if err != nil {
			t.Fatal(err)
		}
		proc, err := p.Start()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		_ = r.Close()
		time.Sleep(20 * time.Millisecond)
		if _, err := os.Stat(filepath.Join(root, "tmp/ran")); err == nil {
			t.Errorf("%s: ran before the gate was opened", c.name)
		}
		// While it waits it holds nothing of ours but what it needs.
		fds, err := os.ReadDir("/proc/" + itoa(proc.Pid) + "/fd")
		if err != nil || len(fds) > 7 {
			t.Errorf("%s: %d descriptors at the gate, %v", c.name, len(fds), err)
		}
		_, _ = w.WriteString(c.send)
		_ = w.Close()
		err = proc.Executed()
		if got := text(err); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if err == nil {
			reap(t, proc)
			if b, err := os.ReadFile(filepath.Join(root, "tmp/ran")); err != nil || string(b) != "0 1 2 3 " {
				t.Errorf("%s: %q, %v", c.name, b, err)
			}
			_ = os.Remove(filepath.Join(root, "tmp/ran"))
		}
		noChildren(t)
	}
	// What does not exist is known before the gate.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, c := range commandFailures {
		_, err = tryRun(t, docker(root, c.args...), Options{Gate: r})
		c.check(t, err)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestInit(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	init, err := pid1.MemFD()
	if err != nil {
		t.Fatal(err)
	}
	defer init.Close()
	for _, uid := range []uint32{0, 1000} {
		s := docker(root, "sh", "-c", "echo pid $$; tr '\\0' ' ' </proc/1/cmdline; echo; ls /proc/1/fd 2>/dev/null | tr '\\n' ' '; exit 7")
		s.Process.User.UID = uid
		r := run(t, s, Options{Init: init, Pdeathsig: true})
		if r.code != 7 {
			t.Errorf("exit code %d", r.code)
		}
		has(t, r.out, "pid 2")
		if !strings.Contains(r.out, "init -- /bin/sh -c ") {
			t.Errorf("init's arguments: %s", r.out)
		}
		if uid == 0 && !strings.HasSuffix(r.out, "\n0 1 2 ") {
			t.Errorf("init's descriptors: %s", r.out)
		}
	}
	for _, c := range commandFailures {
		_, err := tryRun(t, docker(root, c.args...), Options{Init: init})
		c.check(t, err)
	}
}

func TestDiesWithParent(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if root := os.Getenv("ISLE_TEST_ROOT"); root != "" {
		s := docker(root, "sleep", "100")
		s.Process.User.UID = 1000
		p, err := Compile(s, Options{Pdeathsig: true})
		if err != nil {
			t.Fatal(err)
		}
		proc, err := p.Start()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("pid " + itoa(proc.Pid) + "\n")
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	root := rootfs(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&program.Command{Path: exe, Args: []string{exe, "-test.run=^TestDiesWithParent$"}, Env: append(os.Environ(), "ISLE_TEST_ROOT="+root), Files: []*os.File{nil, w, os.Stderr}}).Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, _ := r.Read(buf)
	_ = r.Close()
	_, _ = unix.Wait4(c.Pid, nil, 0, nil)
	_, pid, ok := strings.Cut(strings.TrimSpace(string(buf[:n])), "pid ")
	if !ok {
		t.Fatalf("output %q", buf[:n])
	}
	for range 200 {
		st, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(st), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("container %s outlived its parent", pid)
}

// brokenCgroup fails when it is joined.
type brokenCgroup struct{ file *os.File }

func (b *brokenCgroup) File() *os.File { return b.file }
func (*brokenCgroup) Attach(int) error {
	return errs.New(errs.Denied, "cgroup memory: %w", unix.EACCES)
}

func TestCgroupCannotBeJoined(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	_, err := tryRun(t, docker(root, "touch", "/ran"), Options{Cgroup: &brokenCgroup{}})
	if text(err) != "cgroup memory: permission denied" || errs.ExitCode(err) != 125 {
		t.Errorf("attach: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "ran")); err == nil {
		t.Errorf("ran outside its cgroup")
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	_, err = tryRun(t, docker(root, "true"), Options{Cgroup: &brokenCgroup{dir}})
	var ce *CallError
	if !errors.As(err, &ce) || ce.Name != "clone3" || !strings.Contains(ce.Call, "CLONE_INTO_CGROUP, cgroup="+root) {
		t.Errorf("no cgroup: %v", err)
	}
}

// v2cgroup is a cgroup on the v2 hierarchy, below the caller's own.
type v2cgroup struct {
	dir  string
	file *os.File
}

func (c *v2cgroup) File() *os.File { return c.file }
func (*v2cgroup) Attach(int) error { return nil }

func newV2(t *testing.T) *v2cgroup {
	t.Helper()
	testenv.Need(t, testenv.CgroupV2)
	dir := ""
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(mount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			dir = mount
		}
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || dir == "" {
		t.Fatalf("cgroup v2 at %q, %v", dir, err)
	}
	for line := range strings.Lines(string(b)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			dir = filepath.Join(dir, own, "isle-runtime-test-"+itoa(os.Getpid()))
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.Close()
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return &v2cgroup{dir, f}
}

func TestBornIntoCgroup(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cg := newV2(t)
	root := rootfs(t)
	for _, legacy := range []bool{false, true} {
		s := docker(root, "sh", "-c", "grep 0:: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; touch /sys/fs/cgroup/x 2>&1 | sed 's/.*: //'")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
		r := run(t, s, Options{Cgroup: cg, legacyClone: legacy})
		has(t, r.out, "0::/", "1", "Read-only file system")
	}
	init := running(t, docker(root), Options{Cgroup: cg})
	pr := docker("", "sh", "-c", "grep 0:: /proc/self/cgroup").Process
	r := execIn(t, Target{Pid: init.Pid, Cgroup: cg}, pr, ExecOptions{})
	has(t, r.out, "0::/")
	// The cgroup cannot be removed while its last process is being torn down.
	t.Cleanup(func() { time.Sleep(50 * time.Millisecond) })
}

func TestCgroupV1Hierarchies(t *testing.T) {
	testenv.Need(t, testenv.Root)
	own, other := t.TempDir(), t.TempDir()
	if err := errors.Join(os.WriteFile(own+"/memory.limit_in_bytes", []byte("134217728\n"), 0o644), os.WriteFile(other+"/cpu.shares", []byte("7\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s := docker(rootfs(t), "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares; readlink /sys/fs/cgroup/cpuacct; touch /sys/fs/cgroup/x 2>&1 | sed 's/.*: //'; touch /sys/fs/cgroup/memory/x 2>&1 | sed 's/.*: //'; ls /sys/fs/cgroup | wc -l")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
	r := run(t, s, Options{CgroupV1: []Hierarchy{{"memory", own}, {"cpu,cpuacct", other}}})
	if want := "134217728\n7\ncpu,cpuacct\nRead-only file system\nRead-only file system\n4\n"; r.out != want {
		t.Errorf("got %q, want %q", r.out, want)
	}
}
