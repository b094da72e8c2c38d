package program

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/testenv"
)

// wait reaps c and returns its exit status.
func wait(t *testing.T, c *Child) int {
	t.Helper()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(c.Pid, &ws, 0, nil); err != nil {
		t.Fatalf("wait4: %v", err)
	}
	if c.Pidfd != nil {
		_ = c.Pidfd.Close()
	}
	return ws.ExitStatus()
}

// output starts a program that p's caller has built up to its execve, with a
// pipe as standard output, and returns what it wrote.
func output(t *testing.T, build func(p *Program, out Arg)) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := New()
	build(p, p.File(w))
	c, err := p.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r)
	_ = r.Close()
	if code := wait(t, c); code != 0 {
		t.Errorf("exit code %d, output %q", code, b)
	}
	return string(b)
}

func sh(p *Program, out Arg, script string) {
	p.Inherit(FD(0), out, FD(2))
	p.Cloexec(3)
	p.Call(unix.SYS_EXECVE, p.String("/bin/sh"), p.Strings([]string{"sh", "-c", script}), p.Strings([]string{"A=b"}))
}

func TestStartRunsCommand(t *testing.T) {
	for i := range 4 {
		legacy := i&1 != 0
		got := output(t, func(p *Program, out Arg) {
			p.LegacyClone, p.LegacyCloseRange = legacy, legacy
			p.Fork(Clone{Share: i&2 != 0})
			sh(p, out, "echo $A; ls /proc/self/fd | tr '\\n' ' '")
		})
		if want := "b\n0 1 2 3 "; got != want { // 3 is ls reading the directory
			t.Errorf("legacy=%v: got %q, want %q", legacy, got, want)
		}
	}
}

// A child on the caller's memory, many at a time, beside a busy runtime: nothing
// of the caller's is disturbed, and it can be traced again afterwards.
func TestSharedMemory(t *testing.T) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	go func() { // garbage, so that the collector runs
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
				keep = append(keep[max(0, len(keep)-100):], make([]byte, 10000))
			}
		}
	}()
	for g := range 4 {
		wg.Go(func() {
			for i := range 40 {
				p := New()
				st, fd := p.Buffer(144), p.Slot("null")
				p.Meanwhile(func(int) error { runtime.GC(); return nil })
				p.Fork(Clone{Share: true})
				p.Call(unix.SYS_OPENAT, CWD, p.String("/dev/null"), Int(unix.O_PATH|unix.O_CLOEXEC)).To(fd)
				p.Call(unix.SYS_FSTAT, fd.Arg(), st)
				p.Call(unix.SYS_PRCTL, Int(unix.PR_SET_DUMPABLE), Int(0), Int(0), Int(0), Int(0))
				p.Await()
				if i%4 == 0 {
					p.Call(unix.SYS_CHDIR, p.String("/nowhere"))
				}
				p.Call(unix.SYS_EXECVE, p.String("/bin/sh"), p.Strings([]string{"sh", "-c", "exit " + itoa(g)}), p.Strings(nil))
				c, err := p.Start()
				if i%4 == 0 {
					if !errors.Is(err, unix.ENOENT) {
						t.Errorf("error %v", err)
					}
					continue
				}
				if err != nil {
					t.Error(err)
					continue
				}
				if code := wait(t, c); code != g {
					t.Errorf("exit code %d, want %d", code, g)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); d != 1 {
		t.Errorf("dumpable is %d, %v", d, err)
	}
}

func TestProgramCanBeStartedTwice(t *testing.T) {
	p := New()
	p.Fork(Clone{})
	p.Call(unix.SYS_EXECVE, p.String("/bin/true"), p.Strings([]string{"true"}), p.Strings(nil))
	for range 2 {
		c, err := p.Start()
		if err != nil {
			t.Fatal(err)
		}
		if code := wait(t, c); code != 0 {
			t.Fatalf("exit code %d", code)
		}
	}
}

func TestFailedCallIsNamed(t *testing.T) {
	p := New()
	p.Step(Step{Verb: "mount", Type: "proc", Dst: "/proc"})
	p.Fork(Clone{})
	p.Call(unix.SYS_OPENAT, CWD, p.String("/nowhere"), Int(unix.O_RDONLY|unix.O_CLOEXEC))
	_, err := p.Start()
	var ce *CallError
	if !errors.As(err, &ce) || ce.Index != 1 || ce.Errno != unix.ENOENT || !errors.Is(err, unix.ENOENT) {
		t.Fatalf("error %#v", err)
	}
	if want := "mount type=proc dst=/proc: openat: no such file or directory"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	if want := `openat(AT_FDCWD, "/nowhere", O_CLOEXEC)`; ce.Call != want {
		t.Errorf("call %q, want %q", ce.Call, want)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child was left: %v", err)
	}
}

func TestCatchJumpStoreExpect(t *testing.T) {
	got := output(t, func(p *Program, out Arg) {
		fd, st := p.Slot("null"), p.Buffer(144)
		missing, bad := p.NewLabel(), p.NewLabel()
		p.Fork(Clone{})
		p.Call(unix.SYS_OPENAT, CWD, p.String("/nowhere"), Int(0)).Catch(unix.ENOENT, missing)
		p.Fail(Int(int(unix.EDOM)))
		p.Place(missing)
		p.Call(unix.SYS_OPENAT, CWD, p.String("/dev/null"), Int(unix.O_PATH|unix.O_CLOEXEC)).To(fd)
		p.Call(unix.SYS_FSTAT, fd.Arg(), st)
		p.Expect64(st.Plus(40), ^uint64(0), unix.Mkdev(1, 3), unix.ENODEV) // st_rdev on amd64
		p.Expect64(st.Plus(40), ^uint64(0), unix.Mkdev(1, 5), unix.ENODEV).Catch(unix.ENODEV, bad)
		p.Fail(Int(int(unix.EDOM)))
		p.Place(bad)
		p.Call(unix.SYS_MKDIRAT, CWD, p.String("/proc/1"), Int(0)).Ignore()
		sh(p, out, "echo ok")
	})
	if got != "ok\n" {
		t.Errorf("got %q", got)
	}
}

func TestMeanwhileAndSync(t *testing.T) {
	var order []string
	var pid1, pid2 int
	got := output(t, func(p *Program, out Arg) {
		buf := p.Buffer(8)
		p.Meanwhile(func(pid int) error { order = append(order, "first"); pid1 = pid; return nil })
		p.Meanwhile(func(int) error { order = append(order, "second"); return nil })
		p.Fork(Clone{})
		// Asked before the tokens are read: they must not be taken for the reply.
		p.Sync(buf, 8, func(pid int, reply []byte) error {
			order = append(order, "sync")
			pid2 = pid
			copy(reply, "hello\n\x00\x00")
			return nil
		})
		p.Await()
		p.Await()
		p.Call(unix.SYS_WRITE, out, buf, Int(6)).Want(6)
		sh(p, out, "true")
	})
	if got != "hello\n" || strings.Join(order, " ") != "first second sync" || pid1 != pid2 || pid1 == 0 {
		t.Errorf("got %q, order %v, pids %d %d", got, order, pid1, pid2)
	}
}

func TestParentFunctionFails(t *testing.T) {
	boom := errors.New("boom")
	for name, add := range map[string]func(*Program){
		"meanwhile": func(p *Program) {
			p.Meanwhile(func(int) error { return boom })
			p.Fork(Clone{})
			p.Await()
		},
		"sync": func(p *Program) {
			p.Fork(Clone{})
			p.Sync(Null, 0, func(int, []byte) error { return boom })
		},
	} {
		p := New()
		add(p)
		p.Call(unix.SYS_EXECVE, p.String("/bin/true"), p.Strings([]string{"true"}), p.Strings(nil))
		if _, err := p.Start(); !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("%s: a child was left: %v", name, err)
		}
	}
}

// A child that fails before it has read what it was sent resets the socket: its
// last words must be heard all the same.
func TestLastWordsAreHeard(t *testing.T) {
	for range 50 {
		p := New()
		p.Meanwhile(func(int) error { time.Sleep(time.Millisecond); return nil })
		p.Fork(Clone{})
		p.Fail(Int(int(unix.EDOM)))
		p.Call(unix.SYS_EXECVE, p.String("/bin/true"), p.Strings([]string{"true"}), p.Strings(nil))
		if _, err := p.Start(); !errors.Is(err, unix.EDOM) {
			t.Fatal(err)
		}
	}
}

func TestKilledChildIsNoSuccess(t *testing.T) {
	for _, sync := range []bool{false, true} {
		p := New()
		kill := func(pid int, _ []byte) error { return unix.Kill(pid, unix.SIGKILL) }
		p.Fork(Clone{})
		if sync {
			p.Sync(Null, 0, kill)
		} else {
			p.Meanwhile(func(pid int) error { return kill(pid, nil) })
			p.Await()
		}
		p.Call(unix.SYS_EXECVE, p.String("/bin/true"), p.Strings([]string{"true"}), p.Strings(nil))
		if _, err := p.Start(); err == nil || err.Error() != "child: killed by signal 9 (killed) before its program was at its end" {
			t.Errorf("sync=%v: %v", sync, err)
		}
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("a child was left: %v", err)
		}
	}
}

// An ordinary user may not make the mount that protects the executable; nor may
// root of a user namespace where another mount is below its directory.
func TestProtectWhereItCannot(t *testing.T) {
	c, err := (&Command{Path: "/proc/self/exe", Args: []string{"x", "-test.run=^$"}, Protect: true}).Start()
	if err != nil {
		t.Fatal(err)
	}
	reap(c.Pid)
	_ = c.Pidfd.Close()
}

func TestReadyThenWait(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := New()
	gate, b := p.File(r), p.Buffer(1)
	p.Fork(Clone{})
	p.Ready()
	p.Call(unix.SYS_READ, gate, b, Int(1)).Want(1)
	p.Call(unix.SYS_EXECVE, p.String("/nowhere"), p.Strings([]string{"x"}), p.Strings(nil))
	c, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	var ce *CallError
	if err := c.Wait(); !errors.As(err, &ce) || !ce.Exec || ce.Errno != unix.ENOENT {
		t.Errorf("Wait: %v", err)
	}
}

func TestSendFileAndWarn(t *testing.T) {
	p := New()
	fd := p.Slot("zero")
	p.Fork(Clone{})
	p.Call(unix.SYS_OPENAT, CWD, p.String("/dev/zero"), Int(unix.O_RDONLY|unix.O_CLOEXEC)).To(fd)
	p.SendFile(fd.Arg())
	p.Call(unix.SYS_CHDIR, p.String("/nowhere")).Ignore(unix.ENOENT).Warn()
	p.Exit(7)
	c, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	if code := wait(t, c); code != 7 {
		t.Errorf("exit code %d", code)
	}
	if len(c.Files) != 1 || len(c.Warnings) != 1 || c.Warnings[0].Call != `chdir("/nowhere")` {
		t.Fatalf("files %v warnings %v", c.Files, c.Warnings)
	}
	b := []byte{1}
	if n, err := c.Files[0].Read(b); n != 1 || b[0] != 0 {
		t.Errorf("read %d %v", n, err)
	}
	_ = c.Files[0].Close()
}

func TestSignalsAreReset(t *testing.T) {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGHUP)
	defer signal.Reset(syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGHUP)
	got := output(t, func(p *Program, out Arg) {
		p.Fork(Clone{})
		sh(p, out, "cat /proc/self/status | grep -E 'Sig(Blk|Ign|Cgt)' | tr -d '\\t\\n'")
	})
	if want := "SigBlk:0000000000000000SigIgn:0000000000000000SigCgt:0000000000000000"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestInheritPermutesDescriptors(t *testing.T) {
	dir := t.TempDir()
	var files []*os.File
	for _, n := range []string{"0", "1", "2", "3", "4", "5"} {
		f, err := os.Create(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	// Standard descriptors swapped among themselves.
	c, err := (&Command{Path: "/bin/sh", Args: []string{"sh", "-c", "test /proc/self/fd/0 -ef /proc/" + itoa(os.Getpid()) + "/fd/2 && test /proc/self/fd/2 -ef /proc/" + itoa(os.Getpid()) + "/fd/0"}, Files: []*os.File{os.Stderr, os.Stdout, os.Stdin}}).Start()
	if err != nil {
		t.Fatal(err)
	}
	if code := wait(t, c); code != 0 {
		t.Errorf("swap: exit code %d", code)
	}
	// More than three, in an order that overwrites sources when done naively.
	c, err = (&Command{Path: "/bin/sh", Args: []string{"sh", "-c", "for n in 3 4 5 6 7; do echo $n >&$n; done; echo 0"}, Files: []*os.File{nil, files[0], nil, files[5], files[4], files[3], files[2], files[1]}}).Start()
	if err != nil {
		t.Fatal(err)
	}
	if code := wait(t, c); code != 0 {
		t.Errorf("many: exit code %d", code)
	}
	for i, want := range []string{"0\n", "7\n", "6\n", "5\n", "4\n", "3\n"} {
		b, _ := os.ReadFile(filepath.Join(dir, itoa(i)))
		if string(b) != want {
			t.Errorf("file %d holds %q, want %q", i, b, want)
		}
	}
}

func itoa(n int) string { return string(appendInt(nil, n)) }

func appendInt(b []byte, n int) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

func TestReclonedChildIsOurs(t *testing.T) {
	testenv.Need(t, testenv.Root)
	for _, legacy := range []bool{false, true} {
		var asked int
		r, w, _ := os.Pipe()
		p := New()
		out := p.File(w)
		p.LegacyClone = legacy
		p.Fork(Clone{})
		p.Call(unix.SYS_UNSHARE, Int(unix.CLONE_NEWPID))
		p.Reclone()
		p.Sync(Null, 0, func(pid int, _ []byte) error { asked = pid; return nil })
		sh(p, out, "echo $$")
		c, err := p.Start()
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		b, _ := io.ReadAll(r)
		if string(b) != "1\n" || asked != c.Pid {
			t.Errorf("pid inside %q, sync saw %d, child is %d", b, asked, c.Pid)
		}
		if code := wait(t, c); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("the first child was left: %v", err)
		}
	}
}

func TestPIDNSOfOneClone(t *testing.T) {
	testenv.Need(t, testenv.Root)
	p := New()
	p.Fork(Clone{Flags: unix.CLONE_NEWPID})
	p.Call(unix.SYS_EXECVE, p.String("/bin/sleep"), p.Strings([]string{"sleep", "60"}), p.Strings(nil))
	first, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(first.Pid, unix.SIGKILL); wait(t, first) }()
	got := output(t, func(p *Program, out Arg) {
		p.Fork(Clone{PIDNS: first.Pidfd})
		sh(p, out, "echo $$")
	})
	if got != "2\n" {
		t.Errorf("pid in the joined namespace: %q", got)
	}
	got = output(t, func(p *Program, out Arg) {
		p.Fork(Clone{})
		sh(p, out, "readlink /proc/self/ns/pid")
	})
	if own, _ := os.Readlink("/proc/self/ns/pid"); strings.TrimSpace(got) != own {
		t.Errorf("a later child is in %q, not in %q", got, own)
	}
}

// A thread that could not come back from the pid namespace does not go there.
func TestPIDNSWithoutWayBack(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.Unshare(t, unix.CLONE_NEWUSER) {
		return
	}
	p := New()
	p.Fork(Clone{Flags: unix.CLONE_NEWPID})
	p.Call(unix.SYS_EXECVE, p.String("/bin/sleep"), p.Strings([]string{"sleep", "60"}), p.Strings(nil))
	first, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(first.Pid, unix.SIGKILL); wait(t, first) }()
	p = New()
	p.Fork(Clone{PIDNS: first.Pidfd})
	p.Exit(0)
	if _, err := p.Start(); !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v", err)
	}
	got := output(t, func(p *Program, out Arg) {
		p.Fork(Clone{})
		sh(p, out, "readlink /proc/self/ns/pid")
	})
	if own, _ := os.Readlink("/proc/self/ns/pid"); strings.TrimSpace(got) != own {
		t.Errorf("a later child is in %q, not in %q", got, own)
	}
}

func TestCommandJoinsNamespaces(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	p := New()
	p.Fork(Clone{Flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS})
	p.Sync(Null, 0, func(pid int, _ []byte) error {
		dir := "/proc/" + itoa(pid)
		_ = os.WriteFile(dir+"/setgroups", []byte("deny"), 0)
		return errors.Join(os.WriteFile(dir+"/uid_map", []byte("0 "+itoa(os.Getuid())+" 1"), 0),
			os.WriteFile(dir+"/gid_map", []byte("0 "+itoa(os.Getgid())+" 1"), 0))
	})
	p.Call(unix.SYS_EXECVE, p.String("/bin/sleep"), p.Strings([]string{"sleep", "60"}), p.Strings(nil))
	holder, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(holder.Pid, unix.SIGKILL); wait(t, holder) }()
	r, w, _ := os.Pipe()
	c, err := (&Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", "id -u; for n in user mnt uts; do readlink /proc/self/ns/$n; done; cat /proc/self/sessionid >/dev/null; ps -o sid= -p $$ | tr -d ' '; echo $$"},
		Env:    []string{"PATH=/usr/bin:/bin"},
		Files:  []*os.File{nil, w, os.Stderr},
		Join:   []Join{{holder.Pidfd, unix.CLONE_NEWUSER}, {holder.Pidfd, unix.CLONE_NEWNS | unix.CLONE_NEWUTS}},
		Setsid: true, Protect: true, PdeathSig: syscall.SIGKILL, Dir: "/",
	}).Start()
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	b, _ := io.ReadAll(r)
	if code := wait(t, c); code != 0 {
		t.Fatalf("exit code %d, output %q", code, b)
	}
	want := "0\n"
	for _, n := range []string{"user", "mnt", "uts"} {
		l, err := os.Readlink("/proc/" + itoa(holder.Pid) + "/ns/" + n)
		if err != nil {
			t.Fatal(err)
		}
		want += l + "\n"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if !strings.HasPrefix(string(b), want) || len(lines) != 6 || lines[4] != lines[5] {
		t.Errorf("got %q, want %q and a session of its own", b, want)
	}
}

// The executable of a protected command cannot be opened for writing through
// /proc, although its file belongs to the one who tries.
func TestProtectedExecutable(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := t.TempDir()
	b, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "sleeper")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := (&Command{Path: exe, Args: []string{"sleeper", "60"}, Protect: true}).Start()
	if err != nil {
		t.Fatal(err)
	}
	link := "/proc/" + itoa(c.Pid) + "/exe"
	comm, _ := os.ReadFile("/proc/" + itoa(c.Pid) + "/comm")
	held, err := os.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	_ = unix.Kill(c.Pid, unix.SIGKILL)
	wait(t, c)
	// While it ran the kernel would have said ETXTBSY to anyone.
	_, err = os.OpenFile("/proc/self/fd/"+itoa(int(held.Fd())), os.O_WRONLY, 0)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("open for writing: %v, want %v", err, unix.EROFS)
	}
	if string(comm) != "sleeper\n" {
		t.Errorf("comm %q", comm)
	}
}

func TestChildDiesWithItsParent(t *testing.T) {
	if os.Getenv("ISLE_TEST_PARENT") != "" {
		c, err := (&Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, PdeathSig: syscall.SIGKILL, Setsid: true}).Start()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("pid " + itoa(c.Pid) + "\n")
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	exe, _ := os.Executable()
	r, w, _ := os.Pipe()
	c, err := (&Command{Path: exe, Args: []string{exe, "-test.run=^TestChildDiesWithItsParent$"}, Env: append(os.Environ(), "ISLE_TEST_PARENT=1"), Files: []*os.File{nil, w, os.Stderr}}).Start()
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	b, _ := io.ReadAll(r)
	wait(t, c)
	_, num, _ := strings.Cut(strings.TrimSpace(string(b)), "pid ")
	for range 100 {
		st, err := os.ReadFile("/proc/" + num + "/stat")
		if err != nil || strings.Contains(string(st), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %q outlived its parent", num)
}
