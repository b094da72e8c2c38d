package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Child is a process made by a program.
type Child struct {
	Pid   int
	Pidfd *os.File // the caller closes it
	// Files are the descriptors that the child sent (SendFile).
	Files []*os.File
	// Warnings are the calls that failed in a way the program allows but that
	// somebody may want to know.
	Warnings []*CallError

	p     *Program
	sock  *socket // nil once the end of the program is known
	first int     // the pid of the first child where there was a second one
	done  bool    // the child has come to its Commit
}

// socket is the parent's end of the status socket.
type socket struct{ fd int }

// Start runs the program and returns when the child has executed its new
// program, has ended, or is Ready. When a call failed the error holds a
// *CallError, and no child is left.
func (p *Program) Start() (*Child, error) {
	if p.err != nil {
		return nil, p.err
	}
	if p.fork < 0 {
		return nil, errors.New("program: has no fork")
	}
	im := p.image()
	defer runtime.KeepAlive(p.files)

	// setns for the namespaces of children and prctl(PR_SET_PDEATHSIG) are
	// matters of one thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	opened, err := p.runParent(im)
	defer func() {
		for _, fd := range opened {
			_ = unix.Close(fd) // detached mounts and read-only descriptors; nothing to lose
		}
	}()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	im.sock, im.peer = uintptr(pair[1]), uintptr(pair[0])
	im.stack = make([]byte, stackSize)
	if im.shared = p.clone.Share && !p.talks; im.shared {
		sharing.begin()
		defer sharing.end()
	}
	defer runtime.KeepAlive(im) // the child may be using it until it has executed
	pid, err := p.cloneChild(im)
	_ = unix.Close(pair[1])
	if err != nil {
		_ = unix.Close(pair[0])
		return nil, err
	}
	c := &Child{Pid: pid, p: p, sock: &socket{pair[0]}}
	if im.pidfd >= 0 {
		c.Pidfd = os.NewFile(uintptr(im.pidfd), "pidfd")
	}
	for _, fn := range p.meanwhile {
		if err := fn(c.Pid); err != nil {
			return nil, c.abandon(c.ownError(err))
		}
		// EPIPE and the like: the child is gone and its message says why.
		_ = unix.Sendto(c.sock.fd, []byte{msgToken}, unix.MSG_NOSIGNAL, nil)
	}
	if err := c.follow(true); err != nil {
		return nil, err
	}
	return c, nil
}

// image lays the program out in fresh memory.
func (p *Program) image() *image {
	size := len(p.mem)
	im := &image{
		ops: p.ops, labels: p.labels, first: p.fork + 1, minSock: uintptr(p.minSock),
		slots: make([]uintptr, len(p.slots)), noRange: p.LegacyCloseRange, pidfd: -1,
	}
	if p.scratch {
		size = (size + 7) &^ 7
		im.scratch = uintptr(size)
		size += scratchSize
	}
	for i := range im.slots {
		im.slots[i] = ^uintptr(0) // a slot that nothing was stored in is no descriptor
	}
	mem := make([]byte, size+8)
	copy(mem, p.mem)
	im.base = unsafe.Pointer(&mem[0])
	for _, off := range p.relocs {
		v := binary.NativeEndian.Uint64(mem[off:]) + uint64(uintptr(im.base))
		binary.NativeEndian.PutUint64(mem[off:], v)
	}
	im.nofile = 1 << 16
	for i := range p.ops {
		if p.ops[i].nr == opCloexec || p.ops[i].nr == opKeep {
			var lim unix.Rlimit
			if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
				im.nofile = uintptr(min(lim.Max, 1<<20))
			}
			break
		}
	}
	return im
}

// runParent makes the calls that come before the fork and returns the
// descriptors they opened, also when it fails.
func (p *Program) runParent(im *image) (opened []int, err error) {
	for pc := 0; pc < p.fork; pc++ {
		o := &p.ops[pc]
		var a [6]uintptr
		for k := range int(o.nargs) {
			switch o.kinds[k] {
			case memory:
				a[k] = uintptr(im.base) + uintptr(o.args[k])
			case slotted:
				a[k] = im.slots[o.args[k]]
			default:
				a[k] = uintptr(o.args[k])
			}
		}
		var r uintptr
		var e syscall.Errno
		switch o.nr {
		case opJump:
			pc = int(p.labels[a[0]]) - 1
			continue
		case opSet:
			r = a[0]
		case opFail:
			e = syscall.Errno(a[0])
		case opPoke:
			if a[2] == 4 {
				*(*uint32)(unsafe.Add(im.base, a[0])) = uint32(a[1])
			} else {
				*(*uint64)(unsafe.Add(im.base, a[0])) = uint64(a[1])
			}
		case opDo:
			f, err := p.dos[a[0]]()
			if err != nil {
				return opened, p.stepError(pc, err)
			}
			r = ^uintptr(0)
			if f != nil {
				fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
				_ = f.Close() // only a name for what it shows
				if err != nil {
					return opened, p.stepError(pc, err)
				}
				r = uintptr(fd)
				opened = append(opened, fd)
			}
		case opExpect:
			v := uint64(*(*uint32)(unsafe.Add(im.base, a[0])))
			if a[4] == 8 {
				v = *(*uint64)(unsafe.Add(im.base, a[0]))
			}
			if v&uint64(a[1]) != uint64(a[2]) {
				e = syscall.Errno(a[3])
			}
		default:
			if o.nr >= opBase {
				return opened, fmt.Errorf("program: %s before the fork", p.Text(pc))
			}
			r, _, e = syscall.Syscall6(uintptr(o.nr), a[0], a[1], a[2], a[3], a[4], a[5])
		}
		if e == 0 && o.want >= 0 && r != uintptr(o.want) {
			e = syscall.EIO
		}
		if e != 0 {
			l, ok := o.caught(e)
			if !ok {
				return opened, p.callError(pc, e)
			}
			if l != next {
				pc = int(p.labels[l]) - 1
			}
			continue
		}
		if o.to != noSlot {
			im.slots[o.to] = r
			if opensFD(o.nr) {
				opened = append(opened, int(r))
			}
		}
	}
	return opened, nil
}

func opensFD(nr uint32) bool {
	switch nr {
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_PIDFD_OPEN:
		return true
	}
	return false
}

func (o *op) caught(e syscall.Errno) (Label, bool) {
	for _, c := range o.catch[:o.ncatch] {
		if c.errno == uint16(e) || c.errno == anyErrno {
			return c.label, true
		}
	}
	return 0, false
}

// cloneChild makes the child, by clone3 or what is there instead.
func (p *Program) cloneChild(im *image) (int, error) {
	im.args = cloneArgs{flags: p.clone.Flags | unix.CLONE_PIDFD, exitSignal: uint64(unix.SIGCHLD)}
	im.args.pidfd = uint64(uintptr(unsafe.Pointer(&im.pidfd)))
	if p.clone.Cgroup != nil {
		im.args.flags |= unix.CLONE_INTO_CGROUP
		im.args.cgrp = uint64(p.clone.Cgroup.Fd())
	}
	if p.clone.PIDNS != nil {
		back, err := enterPIDNS(p.clone.PIDNS)
		if err != nil {
			return 0, p.forkError(err)
		}
		defer back()
	}
	pid, errno := uintptr(0), syscall.ENOSYS
	if !p.LegacyClone {
		pid, errno = im.fork()
	}
	if errno == syscall.ENOSYS {
		// A filter of ours or of another engine around us answers ENOSYS, as
		// it cannot look into clone3's arguments. clone(2) has no cgroup: the
		// child moves itself. It has no time namespace either (the flag's
		// value is in the exit signal's place), which then fails below.
		im.legacy = true
		im.cgprocs = p.clone.Cgroup != nil
		im.args.flags &^= unix.CLONE_INTO_CGROUP
		if im.args.flags&unix.CLONE_NEWTIME == 0 {
			pid, errno = im.fork()
		}
	}
	runtime.KeepAlive(p.clone.Cgroup)
	if errno != 0 {
		return 0, p.callError(p.fork, errno)
	}
	return int(pid), nil
}

// enterPIDNS makes ns (a namespace or a pidfd) the pid namespace of this
// thread's children until back is called. A thread that cannot come back must
// not run other goroutines: it stays locked, and ends with this one.
func enterPIDNS(ns *os.File) (back func(), err error) {
	own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// The way back is tried first: inside a user namespace the caller's own pid
	// namespace usually belongs to the host, and then there is none.
	err = unix.Setns(own, unix.CLONE_NEWPID)
	if err == nil {
		err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID)
	}
	if err != nil {
		_ = unix.Close(own)
		return nil, err
	}
	return func() {
		if unix.Setns(own, unix.CLONE_NEWPID) != nil {
			// Cannot happen after the trial. A thread in such a state must not
			// run other goroutines: it stays locked, and ends with this one.
			runtime.LockOSThread()
		}
		_ = unix.Close(own)
	}, nil
}

// follow reads the child's messages until the program is at its end, or, when
// untilReady, until it says Ready.
func (c *Child) follow(untilReady bool) error {
	var buf [unsafe.Sizeof(message{})]byte
	var oob [64]byte
	var failed error
	var waiting []uint32 // Sync requests of a second child whose pid is not known yet
	if !c.p.talks {
		// Nothing the child says needs an answer: one wake-up, at its end.
		hup := []unix.PollFd{{Fd: int32(c.sock.fd)}}
		for {
			if _, err := unix.Poll(hup, -1); err != unix.EINTR {
				break
			}
		}
	}
	for {
		n, oobn, _, _, err := unix.Recvmsg(c.sock.fd, buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNRESET {
			// The latter comes once, before what is still to be read, when the
			// child ended without having read all that it was sent.
			continue
		}
		if err != nil {
			return c.abandon(fmt.Errorf("status socket: %w", err))
		}
		if n == 0 {
			if failed != nil {
				return c.abandon(failed)
			}
			if !c.done {
				return c.abandon(c.died())
			}
			return c.ended()
		}
		m := (*message)(unsafe.Pointer(&buf))
		switch m.kind {
		case msgError:
			failed = c.p.callError(int(m.index), syscall.Errno(m.value))
			if c.first == 0 && c.p.recloned(int(m.index)) {
				// A second child whose number the first one is about to tell. It must
				// be known to be reaped: while it is not, the first process of its pid
				// namespace cannot end, which may be one that we wait for.
				continue
			}
			return c.abandon(failed)
		case msgWarning:
			c.Warnings = append(c.Warnings, c.p.callError(int(m.index), syscall.Errno(m.value)))
		case msgFile:
			if err := c.takeFiles(oob[:oobn]); err != nil {
				return c.abandon(err)
			}
		case msgPid:
			if err := c.replacePid(int(m.value)); err != nil {
				return c.abandon(err)
			}
			if failed != nil {
				return c.abandon(failed)
			}
			for _, i := range waiting {
				if err := c.answer(i); err != nil {
					return c.abandon(err)
				}
			}
			waiting = nil
		case msgSync:
			if c.first == 0 && c.p.afterReclone(m.index) {
				waiting = append(waiting, m.index)
				continue
			}
			if err := c.answer(m.index); err != nil {
				return c.abandon(err)
			}
		case msgSwap:
			// The function of a second child may see the pid of the first.
			if err := c.swap(m.index, oob[:oobn]); err != nil {
				return c.abandon(err)
			}
		case msgCommit:
			c.done = true
		case msgReady:
			if untilReady {
				return nil
			}
		}
	}
}

// ownError is what the child has said of its end, if it has: a function of the
// parent that fails because the child is gone would hide the cause.
func (c *Child) ownError(err error) error {
	var buf [unsafe.Sizeof(message{})]byte
	for {
		n, _, e := unix.Recvfrom(c.sock.fd, buf[:], unix.MSG_DONTWAIT)
		if e == unix.ECONNRESET || e == unix.EINTR {
			continue
		}
		if e != nil || n == 0 {
			return err
		}
		if m := (*message)(unsafe.Pointer(&buf)); m.kind == msgError {
			return c.p.callError(int(m.index), syscall.Errno(m.value))
		}
	}
}

// recloned reports whether the call i is made by the second child.
func (p *Program) recloned(i int) bool {
	for k := range min(i, len(p.ops)) {
		if p.ops[k].nr == opReclone {
			return true
		}
	}
	return false
}

// afterReclone reports whether the i-th Sync is made by the second child.
func (p *Program) afterReclone(i uint32) bool {
	seen := false
	for k := range p.ops {
		switch p.ops[k].nr {
		case opReclone:
			seen = true
		case opSync:
			if p.ops[k].args[0] == uint64(i) {
				return seen
			}
		}
	}
	return false
}

func (c *Child) answer(i uint32) error {
	n := 0
	for k := range c.p.ops {
		if o := &c.p.ops[k]; o.nr == opSync && o.args[0] == uint64(i) {
			n = int(o.args[2])
		}
	}
	if n > replyMax {
		return fmt.Errorf("program: reply of %d bytes", n)
	}
	buf := make([]byte, 1+n)
	buf[0] = msgReply
	if err := c.p.syncs[i](c.Pid, buf[1:]); err != nil {
		return err
	}
	_ = unix.Sendto(c.sock.fd, buf, unix.MSG_NOSIGNAL, nil) // a dead child says so itself
	return nil
}

// swap runs the function of an Exchange.
func (c *Child) swap(i uint32, oob []byte) error {
	own := c.Files
	c.Files = nil
	var in *os.File
	if err := c.takeFiles(oob); err != nil {
		return err
	}
	if len(c.Files) > 0 {
		in = c.Files[0]
	}
	c.Files = own
	out, err := c.p.swaps[i](c.Pid, in)
	if err != nil {
		return c.p.stepError(c.p.swapAt(i), err)
	}
	var rights []byte
	if out != nil {
		rights = unix.UnixRights(int(out.Fd()))
		defer out.Close()
	}
	_ = unix.Sendmsg(c.sock.fd, []byte{msgReply}, rights, nil, unix.MSG_NOSIGNAL) // a dead child says so itself
	return nil
}

// swapAt is the index of the call that makes the i-th Exchange.
func (p *Program) swapAt(i uint32) int {
	for k := range p.ops {
		if o := &p.ops[k]; o.nr == opExchange && o.args[0] == uint64(i) {
			return k
		}
	}
	return p.fork
}

func (c *Child) takeFiles(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("status socket: %w", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fmt.Errorf("status socket: %w", err)
		}
		for _, fd := range fds {
			c.Files = append(c.Files, os.NewFile(uintptr(fd), "sent"))
		}
	}
	return nil
}

// replacePid makes the second child the one that the caller sees.
func (c *Child) replacePid(pid int) error {
	c.first, c.Pid = c.Pid, pid
	if c.Pidfd != nil {
		_ = c.Pidfd.Close()
		c.Pidfd = nil
	}
	// No race for the number: the second child is ours (CLONE_PARENT) and
	// nobody has reaped it.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	c.Pidfd = os.NewFile(uintptr(fd), "pidfd")
	return nil
}

// ended is the good end: every copy of the child's socket is closed.
func (c *Child) ended() error {
	_ = unix.Close(c.sock.fd)
	c.sock = nil
	if c.first != 0 {
		reap(c.first)
	}
	if c.Pidfd == nil {
		fd, err := unix.PidfdOpen(c.Pid, 0)
		if err != nil {
			return fmt.Errorf("pidfd_open %d: %w", c.Pid, err)
		}
		c.Pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	return nil
}

// KilledError is the error for a child that a signal ended before its program was
// at its end.
type KilledError struct{ Signal unix.Signal }

func (e *KilledError) Error() string {
	return fmt.Sprintf("child: killed by signal %d (%s) before its program was at its end", e.Signal, e.Signal)
}

// died is the error for a child that ended without a word: somebody killed it,
// or the kernel did for want of memory.
func (c *Child) died() error {
	var ws unix.WaitStatus
	_, err := unix.Wait4(c.Pid, &ws, unix.WALL, nil)
	c.Pid = 0
	if err == nil && ws.Signaled() {
		return &KilledError{ws.Signal()}
	}
	return errors.New("child: ended before its program was at its end")
}

// abandon kills and reaps the child, closes what it sent, and returns err.
func (c *Child) abandon(err error) error {
	for _, pid := range [...]int{c.Pid, c.first} {
		if pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL) // ours and not reaped, so the number is right
			reap(pid)
		}
	}
	c.Pid, c.first = 0, 0
	if c.Pidfd != nil {
		_ = c.Pidfd.Close()
	}
	for _, f := range c.Files {
		_ = f.Close()
	}
	if c.sock != nil {
		_ = unix.Close(c.sock.fd)
		c.sock = nil
	}
	return err
}

func reap(pid int) {
	for {
		// ECHILD: the process reaps all its children somewhere else.
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}

// Wait returns when a program that was Ready has come to its end. It returns
// at once for one that has.
func (c *Child) Wait() error {
	if c.sock == nil {
		return nil
	}
	return c.follow(false)
}

// Forget closes the conversation with a child that is Ready; its further fate
// is nobody's business here.
func (c *Child) Forget() {
	if c.sock != nil {
		_ = unix.Close(c.sock.fd)
		c.sock = nil
	}
}
