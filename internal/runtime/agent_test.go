package runtime

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/testenv"
)

// notifyProfile leaves system calls to the agent at path.
func notifyProfile(path string, names ...string) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
		ListenerPath: path, ListenerMetadata: "some words",
		Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActNotify}},
	}
}

// told is what an agent got with a listener.
type told struct {
	state    specs.ContainerProcessState
	listener *os.File
	err      error
}

// listenAsAgent waits for containers as a seccomp agent does.
func listenAsAgent(t *testing.T) (path string, got <-chan told) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a socket's name must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	out := make(chan told, 8)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				close(out)
				return
			}
			var x told
			buf, oob := make([]byte, 1<<16), make([]byte, 128)
			n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
			if x.err = err; err == nil {
				x.err = json.NewDecoder(bytes.NewReader(buf[:n])).Decode(&x.state)
			}
			if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
				if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
					x.listener = os.NewFile(uintptr(fds[0]), "listener")
				}
			}
			_ = c.Close()
			out <- x
		}
	}()
	return path, out
}

func TestSeccompAgentIsGivenTheListener(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	path, got := listenAsAgent(t)
	for _, nnp := range []bool{false, true} {
		// Once nobody listens any more, the call fails with ENOSYS.
		s := docker(root, "sh", "-c", "read x </tmp/go; mkdir /tmp/dir 2>&1; ls /proc/self/fd | wc -l")
		s.Process.NoNewPrivileges = nnp
		s.Linux.Seccomp = notifyProfile(path, "mkdir", "mkdirat")
		fifo := filepath.Join(root, "tmp/go")
		_ = os.Remove(fifo)
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		listened := make(chan told, 1)
		go func() {
			x := <-got
			_ = x.listener.Close()
			f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err == nil {
				_, _ = f.WriteString("\n")
				_ = f.Close()
			}
			listened <- x
		}()
		r := run(t, s, Options{State: &specs.State{Version: specs.Version, ID: "box", Status: specs.StateCreating, Bundle: "/b"}})
		x := <-listened
		st := x.state
		if x.err != nil || st.Pid != r.proc.Pid || st.State.Pid != st.Pid || st.State.ID != "box" || st.State.Bundle != "/b" || st.Metadata != "some words" || strings.Join(st.Fds, " ") != "seccompFd" {
			t.Errorf("told %+v %v", st, x.err)
		}
		if r.out != "mkdir: can't create directory '/tmp/dir': Function not implemented\n4\n" {
			t.Errorf("got %q", r.out)
		}
	}
}

func TestSeccompAgentOfExec(t *testing.T) {
	testenv.Need(t, testenv.Root)
	path, got := listenAsAgent(t)
	s := docker(rootfs(t))
	other := running(t, s, Options{})
	s.Linux.Seccomp = notifyProfile(path, "mkdir", "mkdirat")
	filter, err := seccomp.Compile(s.Linux.Seccomp)
	if err != nil {
		t.Fatal(err)
	}
	pr := *s.Process
	pr.Args = []string{"true"}
	proc, err := Exec(Target{Pid: other.Pid}, &pr, ExecOptions{Seccomp: filter, Linux: s.Linux, State: &specs.State{ID: "box", Pid: other.Pid}, unshielded: true})
	if err != nil {
		t.Fatal(err)
	}
	if code := reap(t, proc); code != 0 {
		t.Errorf("exit code %d", code)
	}
	x := <-got
	if x.listener == nil || x.state.Pid != proc.Pid || x.state.State.Pid != other.Pid {
		t.Errorf("told %+v %v", x.state, x.err)
	}
}

func TestSeccompAgentIsMissing(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	for want, p := range map[string]*specs.LinuxSeccomp{
		"failed to connect with seccomp agent":                          notifyProfile("/nowhere/sock", "mkdir"),
		"listenerPath is missing":                                       notifyProfile("", "mkdir"),
		"SCMP_ACT_NOTIFY cannot be used for the write syscall":          notifyProfile("/x", "write"),
		"SCMP_ACT_NOTIFY cannot be used for the sendmsg syscall":        notifyProfile("/x", "sendmsg"),
		"SCMP_ACT_NOTIFY cannot be used as default action":              {DefaultAction: specs.ActNotify, ListenerPath: "/x"},
		"failed to connect with seccomp agent specified in the seccomp": notifyProfile("@isle-test-nobody-listens", "mkdir"),
	} {
		s := docker(root, "true")
		s.Linux.Seccomp = p
		if _, err := tryRun(t, s, Options{State: &specs.State{}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	// Without such an action the path is nobody's business.
	s := docker(root, "true")
	s.Linux.Seccomp = notifyProfile("/nowhere/sock")
	s.Linux.Seccomp.Syscalls = nil
	if r := run(t, s, Options{}); r.code != 0 {
		t.Errorf("exit code %d", r.code)
	}
}
