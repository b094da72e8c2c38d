package runtime

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/testenv"
)

// execIn runs a process in a container and returns what it wrote.
func execIn(t testing.TB, to Target, pr *specs.Process, o ExecOptions) result {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if !pr.Terminal {
		o.Stdio.Out, o.Stdio.Err = w, w
	}
	o.unshielded = !o.unshielded
	proc, err := Exec(to, pr, o)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if proc.Console != nil {
		_, _ = io.Copy(&out, proc.Console)
		_ = proc.Console.Close()
	} else {
		_, _ = io.Copy(&out, r)
	}
	return result{out.String(), reap(t, proc), proc}
}

// statusOf keeps what must be the same for all processes of a container.
func statusOf(status string) string {
	keep := regexp.MustCompile(`(?m)^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|SigCgt|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Cpus_allowed_list|THP_enabled|CoreDumping):.*$`)
	return strings.Join(keep.FindAllString(status, -1), "\n")
}

// What holds for a container's first process holds for every other.
func TestExecIsAsConfined(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	for name, change := range map[string]func(*specs.Spec){
		"default": func(*specs.Spec) {},
		"user":    func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7}} },
		"nnp":     func(s *specs.Spec) { s.Process.NoNewPrivileges = true },
		"userns":  func(s *specs.Spec) { addUserNS(s) },
		"time": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
		},
		"host pid": func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
	} {
		for _, again := range []bool{false, true} {
			s := docker(root)
			s.Linux.Seccomp = seccomp.Default(dockerCaps())
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 300, Hard: 400}}
			adj := 100
			s.Process.OOMScoreAdj = &adj
			change(s)
			init := running(t, s, Options{})
			want, err := os.ReadFile("/proc/" + itoa(init.Pid) + "/status")
			if err != nil {
				t.Fatal(err)
			}
			limits, _ := os.ReadFile("/proc/" + itoa(init.Pid) + "/limits")
			filter, err := seccomp.Compile(s.Linux.Seccomp)
			if err != nil {
				t.Fatal(err)
			}
			s.Process.Args = []string{"cat", "/proc/self/status", "/proc/self/limits", "/proc/self/oom_score_adj"}
			r := execIn(t, Target{Pid: init.Pid, Pidfd: init.Pidfd}, s.Process, ExecOptions{Seccomp: filter, Clone: again})
			if got, want := statusOf(r.out), statusOf(string(want)); got != want || want == "" {
				t.Errorf("%s: exec is\n%s\ninit is\n%s", name, got, want)
			}
			if !strings.Contains(r.out, string(limits)) || !strings.HasSuffix(r.out, "\n100\n") {
				t.Errorf("%s: limits of exec are\n%s\nof init\n%s", name, r.out, limits)
			}
			s.Process.Args = []string{"sleep", "1000"}
			proc, err := Exec(Target{Pid: init.Pid}, s.Process, ExecOptions{Clone: again})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range nsNames {
				if nsID(t, proc.Pid, n) != nsID(t, init.Pid, n) {
					t.Errorf("%s: not in the container's %s namespace", name, n)
				}
			}
			if st, err := startTime(proc.Pid); err != nil || st != proc.StartTime {
				t.Errorf("%s: start time %d, is %d, %v", name, proc.StartTime, st, err)
			}
			_ = unix.Kill(proc.Pid, unix.SIGKILL)
			reap(t, proc)
		}
	}
}

func addUserNS(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	s.Linux.UIDMappings, s.Linux.GIDMappings = idRange(0, 0, 65536), idRange(0, 0, 65536)
}

func itoa(n int) string { return string(appendInt(nil, n)) }

func appendInt(b []byte, n int) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

func TestExecSeesOnlyTheContainer(t *testing.T) {
	testenv.Need(t, testenv.Root)
	init := running(t, docker(rootfs(t)), Options{})
	pr := docker("", "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; echo; hostname; pwd; ls /; ps -o comm | grep -c sleep; echo $HOME").Process
	pr.Cwd = "/usr/bin"
	r := execIn(t, Target{Pid: init.Pid}, pr, ExecOptions{Pdeathsig: true})
	has(t, r.out, "0 1 2 3 ", "box", "/usr/bin", "proc", "1", "/root")
	if strings.Contains(r.out, "boot") {
		t.Errorf("the host's root:\n%s", r.out)
	}
}

func TestExecFailures(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	s := docker(root)
	init := running(t, s, Options{})
	for _, c := range commandFailures {
		pr := docker("", c.args...).Process
		_, err := Exec(Target{Pid: init.Pid}, pr, ExecOptions{})
		c.check(t, err)
	}
	pr := docker("", "true").Process
	pr.Cwd = "/missing"
	if _, err := Exec(Target{Pid: init.Pid}, pr, ExecOptions{}); err == nil || err.Error() != "working directory /missing: openat2: no such file or directory" {
		t.Errorf("missing directory: %v", err)
	}
	if _, err := os.Stat(root + "/missing"); err == nil {
		t.Errorf("exec made its working directory")
	}
	if _, err := Exec(Target{Pid: 1 << 22}, pr, ExecOptions{}); err == nil {
		t.Errorf("a container that is gone: no error")
	}
}

func TestTerminal(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	script := []string{"sh", "-c", "tty; stty size; stat -c '%u %a %T' $(tty); stat -c '%t:%T' /dev/console 2>&1; ls /proc/self/fd | tr '\\n' ' '; echo; ps -o pid,tty | grep -c pts; exec 3</dev/tty && echo controlled"}
	s := docker(root, script...)
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	r := run(t, s, Options{})
	has(t, r.out, "/dev/pts/0", "33 99", "0 620 0", "88:0", "0 1 2 3 ", "controlled")
	s.Process.User.UID = 1000
	r = run(t, s, Options{})
	has(t, r.out, "/dev/pts/0", "1000 620 0")

	s = docker(root)
	addUserNS(s)
	init := running(t, s, Options{})
	s.Process.Args, s.Process.Terminal, s.Process.ConsoleSize = script, true, &specs.Box{Height: 10, Width: 20}
	r = execIn(t, Target{Pid: init.Pid}, s.Process, ExecOptions{})
	has(t, r.out, "/dev/pts/0", "10 20", "0 620 0", "0 1 2 3 ", "controlled")
}

// The master of an exec's terminal is a terminal, whatever lies in /dev.
func TestExecTerminalIsVerified(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t))
	s.Process.Capabilities = nil
	init := running(t, s, Options{})
	root := "/proc/" + itoa(init.Pid) + "/root/dev/pts"
	pr := docker("", "tty").Process
	pr.Terminal = true
	for name, fake := range map[string]func(dir string) error{
		"fifo":    func(dir string) error { return unix.Mkfifo(dir+"/ptmx", 0o666) },
		"file":    func(dir string) error { return os.WriteFile(dir+"/ptmx", nil, 0o666) },
		"null":    func(dir string) error { return unix.Mknod(dir+"/ptmx", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		"ptmx":    func(dir string) error { return unix.Mknod(dir+"/ptmx", unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))) },
		"symlink": func(dir string) error { return os.Symlink("/dev/null", dir+"/ptmx") },
	} {
		cmd := mountIn(t, init, root)
		if err := fake(root); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			proc, err := Exec(Target{Pid: init.Pid}, pr, ExecOptions{})
			if err == nil {
				reap(t, proc)
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.HasPrefix(err.Error(), "terminal src=/dev/pts/ptmx: ") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: hangs", name)
		}
		cmd()
	}
}

// mountIn covers /dev/pts of a container with a tmpfs, as a privileged process
// inside could, and returns what takes it away.
func mountIn(t *testing.T, init *Process, dir string) func() {
	t.Helper()
	pr := docker("", "mount", "-t", "tmpfs", "none", "/dev/pts").Process
	pr.Capabilities.Bounding = append(pr.Capabilities.Bounding, "CAP_SYS_ADMIN")
	pr.Capabilities.Effective, pr.Capabilities.Permitted = pr.Capabilities.Bounding, pr.Capabilities.Bounding
	if r := execIn(t, Target{Pid: init.Pid}, pr, ExecOptions{}); r.code != 0 {
		t.Fatalf("mount in container: %s", r.out)
	}
	return func() {
		pr.Args = []string{"umount", "/dev/pts"}
		if r := execIn(t, Target{Pid: init.Pid}, pr, ExecOptions{}); r.code != 0 {
			t.Fatalf("unmount in container: %s", r.out)
		}
	}
}
