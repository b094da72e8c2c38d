package runtime

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/testenv"
)

// rootfs makes a root file system with busybox under its usual names.
func rootfs(t testing.TB) string {
	t.Helper()
	testenv.Need(t, testenv.Busybox)
	dir := filepath.Join(t.TempDir(), "root")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range strings.FieldsSeq("sh cat ls id true false sleep echo stat mount umount hostname readlink ps grep touch tty mkdir chmod ln sort head ip test wc rm tr stty sed printf env nsenter") {
		if err := os.Link(filepath.Join(dir, "bin/busybox"), filepath.Join(dir, "bin", n)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func dockerCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// docker is the spec that Docker would make.
func docker(root string, args ...string) *specs.Spec {
	caps := dockerCaps()
	return &specs.Spec{
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin", "HOME=/root"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root:     &specs.Root{Path: root},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "network"}, {Type: "uts"}, {Type: "ipc"}, {Type: "cgroup"}},
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// result is how a container ended.
type result struct {
	out  string // standard output and error, or what the terminal showed
	code int
	proc *Process
}

// run starts s, waits for its end and returns what it wrote.
func run(t testing.TB, s *specs.Spec, o Options) result {
	t.Helper()
	r, err := tryRun(t, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryRun(t testing.TB, s *specs.Spec, o Options) (result, error) {
	t.Helper()
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if !s.Process.Terminal {
		o.Stdio.Out, o.Stdio.Err = wr, wr
	}
	o.unshielded = !o.unshielded // tests are not started by way of a read-only mount
	p, err := Compile(s, o)
	if err != nil {
		_ = wr.Close()
		return result{}, err
	}
	proc, err := p.Start()
	_ = wr.Close()
	if err != nil {
		noChildrenBut(t)
		return result{}, err
	}
	var out bytes.Buffer
	if proc.Console != nil {
		_, _ = io.Copy(&out, proc.Console) // EIO once the last slave is closed
		_ = proc.Console.Close()
	} else {
		_, _ = io.Copy(&out, rd)
	}
	return result{out.String(), reap(t, proc), proc}, nil
}

func reap(t testing.TB, p *Process) int {
	t.Helper()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil {
		t.Fatalf("wait4: %v", err)
	}
	_ = p.Pidfd.Close()
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// running starts a container that sleeps; it is killed at the test's end.
func running(t testing.TB, s *specs.Spec, o Options) *Process {
	t.Helper()
	s.Process.Args = []string{"sleep", "1000"}
	o.unshielded = true
	p, err := Compile(s, o)
	if err != nil {
		t.Fatal(err)
	}
	proc, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(proc.Pid, unix.SIGKILL)
		reap(t, proc)
	})
	return proc
}

func noChildren(t testing.TB) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child was left: %d, %v", pid, err)
	}
}
