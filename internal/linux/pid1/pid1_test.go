package pid1

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/testenv"
)

const maxSize = 4 << 10

func TestBytesAreSmallStaticPrograms(t *testing.T) {
	testenv.Need(t, testenv.Source)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		data, err := os.ReadFile("pid1_" + arch)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > maxSize {
			t.Errorf("%s: %d bytes, want at most %d", arch, len(data), maxSize)
		}
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		if f.Machine != machine || f.Type != elf.ET_EXEC {
			t.Errorf("%s: machine %v, type %v", arch, f.Machine, f.Type)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s: has %v", arch, p.Type)
			}
			if p.Flags&elf.PF_W != 0 && p.Flags&elf.PF_X != 0 || p.Type == elf.PT_GNU_STACK && p.Flags&elf.PF_X != 0 {
				t.Errorf("%s: %v is writable and executable", arch, p.Type)
			}
		}
	}
}

// TestBytesComeFromSource builds c/pid1.c again for every machine whose
// compiler, of the version that made the committed bytes, is here.
func TestBytesComeFromSource(t *testing.T) {
	testenv.Need(t, testenv.Source, testenv.CC)
	dir := testenv.Dir(t)
	if out, err := exec.Command("c/build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		version, err := os.ReadFile(filepath.Join(dir, "pid1_"+arch+".gcc"))
		if errors.Is(err, os.ErrNotExist) {
			t.Logf("%s: no compiler", arch)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile("pid1_" + arch + ".gcc")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(version, want) {
			t.Logf("%s: compiler %s, committed bytes are of %s", arch, version, want)
			continue
		}
		built, err := os.ReadFile(filepath.Join(dir, "pid1_"+arch))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile("pid1_" + arch)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(built, committed) {
			t.Errorf("pid1_%s is not what c/pid1.c gives: run go generate", arch)
		}
	}
}

func TestMemFDIsSealed(t *testing.T) {
	for _, flag := range []int{unix.MFD_EXEC, 0x4000 /* a flag no kernel knows: as before 6.3 */} {
		f, err := memFD(flag)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || got&Seals != Seals {
			t.Errorf("Seals %#x, %v", got, err)
		}
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("write: %v, want EPERM", err)
		}
		if w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0); err == nil {
			if _, err := w.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
				t.Errorf("write through /proc: %v, want EPERM", err)
			}
			w.Close()
		}
	}
}

// command runs the program with args; it is killed at the end of the test.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	f, err := MemFD()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()))
	cmd.Args = append([]string{"isle-init"}, args...)
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

func TestInitExitCodes(t *testing.T) {
	dir := testenv.Dir(t)
	for name, f := range map[string]struct {
		mode os.FileMode
		text string
	}{"noexec": {0o644, "#!/bin/sh\n"}, "bare": {0o755, "echo bare $1\n"}, "badmagic": {0o755, "#!/no/such/interpreter\n"}} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		path string
		code int
		out  string
	}{
		{[]string{"--", "/bin/sh", "-c", "exit 0"}, "", 0, ""},
		{[]string{"--", "sh", "-c", "exit 7"}, "/nowhere:/bin", 7, ""},
		{[]string{"--", "sh", "-c", "exit 7"}, ":/bin", 7, ""},
		{[]string{"--", "sh", "-c", "kill -9 $$"}, "/bin", 137, ""},
		{[]string{"--", "sh", "-c", "kill -TERM $$"}, "/bin", 143, ""},
		{[]string{"--", "sh", "-c", "echo $0 $1", "a", "b"}, "/bin", 0, "a b\n"},
		{[]string{"--", "no-such-command"}, "/bin:/usr/bin", 127, "init: no-such-command: not found\n"},
		{[]string{"--", "/no/such/file"}, "/bin", 127, "init: /no/such/file: not found\n"},
		{[]string{"--", ""}, "/bin", 127, "init: : not found\n"},
		{[]string{"--", "noexec"}, dir + ":/bin", 126, "init: noexec: permission denied\n"},
		{[]string{"--", dir + "/noexec"}, "", 126, "init: " + dir + "/noexec: permission denied\n"},
		{[]string{"--", "bare", "x"}, dir, 0, "bare x\n"},
		{[]string{"--", "badmagic"}, dir, 127, "init: badmagic: not found\n"},
		{[]string{"--", "sh", "-c", "exit 3"}, strings.Repeat("/long", 2000) + ":/bin", 3, ""},
		{[]string{"--", strings.Repeat("x", 5000)}, "/bin", 127, "init: " + strings.Repeat("x", 5000) + ": not found\n"},
		{[]string{"--"}, "/bin", 125, "init: no command\n"},
		{nil, "/bin", 125, "init: no command\n"},
	} {
		cmd := command(t, c.args...)
		cmd.Env = []string{"PATH=" + c.path}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != c.code || out.String() != c.out {
			t.Errorf("%.60q: exit %d %.80q, want %d %.80q", c.args, code, out.String(), c.code, c.out)
		}
	}
}

// TestInitDefaultPath: a container with no PATH at all still finds commands.
func TestInitDefaultPath(t *testing.T) {
	cmd := command(t, "--", "true")
	cmd.Env = []string{"PATHX=/nowhere"}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}

func TestInitForwardsSignals(t *testing.T) {
	cmd := command(t, "--", "/bin/sh", "-c", `trap 'echo hup' HUP; trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		buf := make([]byte, 16)
		n, _ := out.Read(buf)
		if string(buf[:n]) != want {
			t.Fatalf("read %q, want %q", buf[:n], want)
		}
	}
	expect("ready\n")
	_ = cmd.Process.Signal(syscall.SIGHUP)
	expect("hup\n")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	expect("term\n")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit %d, want 5", code)
	}
}

// TestInitReapsOrphans: 200 orphans of a command leave no zombie behind, also
// where SIGCHLD was ignored by who started init.
func TestInitReapsOrphans(t *testing.T) {
	for _, start := range []string{`exec "$@"`, `trap '' CHLD; exec "$@"`} {
		inner := command(t, "--", "/bin/sh", "-c",
			`i=0; while [ $i -lt 200 ]; do (sleep 0.01 &) ; i=$((i+1)); done; sleep 0.5; cat /proc/$PPID/task/$PPID/children; exit 9`)
		cmd := exec.Command("/bin/sh", append([]string{"-c", start, "sh", inner.Path}, inner.Args[1:]...)...)
		out, _ := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("exit %d, want 9", code)
		}
		if kids := strings.Fields(string(out)); len(kids) != 1 {
			t.Errorf("children of init: %q, want the command only", kids)
		}
	}
}

// TestInitTerminal: the command's process group is in the foreground of the
// terminal, and ^C reaches it.
func TestInitTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "--", "/bin/sh", "-c", `trap 'echo int; exit 4' INT; echo ready; while :; do sleep 0.05; done`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var got bytes.Buffer
	buf := make([]byte, 64)
	for !strings.Contains(got.String(), "ready") {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(buf[:n])
	}
	pgrp, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPGRP)
	if err != nil || pgrp == cmd.Process.Pid {
		t.Errorf("foreground group %d, init %d, %v", pgrp, cmd.Process.Pid, err)
	}
	if _, err := master.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("exit %d, want 4", code)
	}
}

func TestPauseOutlivesSignals(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "pause")
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("the holder keeps a file of its parent open")
	}
	for s := syscall.Signal(1); s < 65; s++ {
		switch s {
		case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGSTOP:
		default:
			_ = cmd.Process.Signal(s)
		}
	}
	time.Sleep(20 * time.Millisecond)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "State:\tS") || !strings.Contains(string(status), "Name:\tisle-init") {
		t.Errorf("%v\n%s", err, status)
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log(line)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}
