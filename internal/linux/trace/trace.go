// Package trace watches the system calls of a process and of all it forks, from
// outside, as strace(1) does, and reads their arguments. It changes nothing in the
// process but its speed.
//
// It hides the states of ptrace(2): stops at entry and exit of a call, signals on
// their way, new threads and processes that appear before or after their parent
// tells of them, execve by a thread.
//
// A tracee has one tracer, which is a thread, not a process: [Watch] locks the
// caller's thread for as long as it runs, and so must the caller have been when the
// tracee asked to be traced (PTRACE_TRACEME).
//
// See ptrace(2), process_vm_readv(2), wait(2).
package trace

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that has returned.
type Call struct {
	Pid  int // of the thread
	Nr   uint64
	Args [6]uint64
	Err  unix.Errno // 0: it succeeded
}

// Exit is how a traced process ended.
type Exit struct {
	Pid    int
	Status unix.WaitStatus
}

// Watcher is told what happens. Its functions run while the thread in question
// stands still.
type Watcher struct {
	Call func(c *Call)
	// Dies is called for a process that a signal ends.
	Dies func(pid int, sig unix.Signal)
}

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC

// syscallInfo is struct ptrace_syscall_info (Linux 5.3).
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	data [7]uint64 // entry: nr, args; exit: rval, is_error in the next byte
	_    [2]uint64
}

const (
	getSyscallInfo = 0x420e
	opEntry        = 1
	opExit         = 2
)

// Watch traces pid until it ends and returns how it did. With seize it attaches to a
// process that is not its child, or does not expect it; otherwise pid has asked for it and
// stops at its next execve. started is called once the tracing has begun.
func Watch(pid int, seize bool, started func(), w *Watcher) (unix.WaitStatus, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t := &tracer{w: w, first: pid, threads: map[int]*thread{}}
	if seize {
		if err := ptrace(unix.PTRACE_SEIZE, pid, options); err != nil {
			return 0, os.NewSyscallError("ptrace", err)
		}
		if err := ptrace(unix.PTRACE_INTERRUPT, pid, 0); err != nil {
			return 0, os.NewSyscallError("ptrace", err)
		}
	}
	t.threads[pid] = &thread{seized: seize, fresh: true}
	t.executed = !seize
	if started != nil {
		started()
	}
	return t.loop()
}

func ptrace(request, pid int, data uintptr) error {
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), 0, data, 0, 0); e != 0 {
		return e
	}
	return nil
}

type thread struct {
	seized bool
	fresh  bool // its first stop is yet to come
	inside bool // in a call
	call   Call
}

type tracer struct {
	w        *Watcher
	first    int
	executed bool // it has become what is to be watched
	threads  map[int]*thread
}

func (t *tracer) loop() (unix.WaitStatus, error) {
	var result unix.WaitStatus
	ended := false
	for len(t.threads) > 0 {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECHILD) {
			break
		}
		if err != nil {
			return 0, os.NewSyscallError("wait4", err)
		}
		switch {
		case ws.Exited(), ws.Signaled():
			if t.threads[pid] != nil && ws.Signaled() && t.w.Dies != nil {
				t.w.Dies(pid, ws.Signal())
			}
			delete(t.threads, pid)
			if pid == t.first {
				result, ended = ws, true
			}
		case ws.Stopped():
			t.stopped(pid, ws)
		}
		if ended && len(t.threads) > 0 {
			// Whom the command has left behind goes on by itself.
			for p := range t.threads {
				_ = ptrace(unix.PTRACE_INTERRUPT, p, 0) // not for those who were not seized
				_ = ptrace(unix.PTRACE_DETACH, p, 0)    // works for those who stand still
			}
			break
		}
	}
	if !ended {
		return result, errors.New("trace: lost the process")
	}
	return result, nil
}

// stopped handles a stop and lets the thread go on.
func (t *tracer) stopped(pid int, ws unix.WaitStatus) {
	th := t.threads[pid]
	if th == nil {
		// A child that is there before its parent's event tells of it.
		th = &thread{fresh: true, seized: true}
		t.threads[pid] = th
	}
	sig := ws.StopSignal()
	event := int(ws>>16) & 0xffff
	deliver := uintptr(0)
	switch {
	case sig == unix.SIGTRAP|0x80:
		t.syscall(pid, th)
	case event != 0:
		if event == unix.PTRACE_EVENT_EXEC {
			// All other threads are gone; the one that executed has the leader's number.
			th.inside = false
			t.executed = true
		}
		if event == unix.PTRACE_EVENT_STOP && !th.fresh && (sig == unix.SIGSTOP || sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU) {
			_ = ptrace(unix.PTRACE_LISTEN, pid, 0) // stopped by job control: it stays so
			return
		}
	case sig == unix.SIGTRAP && th.fresh && !th.seized:
		_ = ptrace(unix.PTRACE_SETOPTIONS, pid, options) // it has just been executed
	case sig == unix.SIGSTOP && th.fresh:
		// How a new thread of a tracee that was not seized begins.
	default:
		deliver = uintptr(sig)
	}
	th.fresh = false
	_ = ptrace(unix.PTRACE_SYSCALL, pid, deliver) // ESRCH: killed meanwhile; wait4 says so
}

func (t *tracer) syscall(pid int, th *thread) {
	var info syscallInfo
	n, _, e := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(pid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if e != 0 || n == 0 {
		return
	}
	switch info.op {
	case opEntry:
		th.inside = true
		th.call = Call{Pid: pid, Nr: info.data[0]}
		copy(th.call.Args[:], info.data[1:])
	case opExit:
		if !th.inside {
			return
		}
		th.inside = false
		c := th.call
		if info.data[1]&0xff != 0 {
			c.Err = unix.Errno(-int64(info.data[0]))
		}
		if t.executed {
			t.w.Call(&c)
		}
	}
}

// Memory reads up to n bytes of a process at addr; fewer where the memory ends.
func Memory(pid int, addr uint64, n int) []byte {
	if addr == 0 {
		return nil
	}
	buf := make([]byte, n)
	got := 0
	for got < n {
		// Page by page: a read across the end of what is mapped gives nothing.
		chunk := min(n-got, 4096-int((addr+uint64(got))%4096))
		local := []unix.Iovec{{Base: &buf[got]}}
		local[0].SetLen(chunk)
		remote := []unix.RemoteIovec{{Base: uintptr(addr) + uintptr(got), Len: chunk}}
		k, err := unix.ProcessVMReadv(pid, local, remote, 0)
		if err != nil || k <= 0 {
			break
		}
		got += k
	}
	return buf[:got]
}

// String reads a string of a process.
func String(pid int, addr uint64) string {
	b := Memory(pid, addr, 4096)
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
