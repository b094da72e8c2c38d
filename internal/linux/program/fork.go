package program

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The three functions that Go's own syscall package brackets a fork with. The
// runtime keeps their names and signatures for users outside it (go.dev/issue/67401).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// image is a program with everything in its place: what the child reads.
type image struct {
	ops     []op
	labels  []int32
	slots   []uintptr
	base    unsafe.Pointer // the program's memory
	scratch uintptr        // offset of scratchSize bytes for opMkpath
	sock    uintptr        // the child's end of the status socket
	peer    uintptr        // the parent's, which the child was born with
	minSock uintptr
	first   int // the child's first op
	nofile  uintptr

	args    cloneArgs
	legacy  bool
	cgprocs bool // the child moves itself into the cgroup (no clone3)
	noRange bool
	pidfd   int32
}

// cloneArgs is struct clone_args of clone3(2), the version of Linux 5.7.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal   uint64
	stack, stackSize, tls, setTID, setTIDSize, cgrp uint64
}

// message is what travels over the status socket, one record each.
type message struct {
	kind  byte
	_     [3]byte
	index uint32
	value uint64
}

const (
	msgError   = 'E'
	msgWarning = 'W'
	msgPid     = 'P'
	msgSync    = 'S'
	msgFile    = 'F'
	msgReady   = 'R'
	msgCommit  = 'X'
	msgToken   = 'G' // to the child
	msgReply   = 'A' // to the child, followed by the bytes
)

// replyMax bounds what a Sync function can answer.
const replyMax = 512

var cgroupProcs = [...]byte{'c', 'g', 'r', 'o', 'u', 'p', '.', 'p', 'r', 'o', 'c', 's', 0}

// sigactionSize is the size of the kernel's struct sigaction, generously.
const sigactionSize = 64

// fork clones the caller and, in the child, runs the program; it returns in the
// parent only. The OS thread is locked.
//
// Nothing after beforeFork may grow the stack or allocate: the child is a copy
// of one thread of a runtime whose other threads, and the locks they held, are
// gone. That is why the interpreter is one function, and what it calls is
// nosplit.
//
//go:noinline
//go:norace
func (im *image) fork() (pid uintptr, errno syscall.Errno) {
	var (
		a              [6]uintptr
		r              uintptr
		e              syscall.Errno
		pc, k          int
		o              *op
		msg            message
		buf            [16]byte
		zero           [sigactionSize]byte // SIG_DFL, no flags, empty mask
		tokens, awaits int
		v              uint64
		n              uintptr
	)
	beforeFork() // blocks all signals in this thread
	if im.legacy {
		pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(im.args.flags|im.args.exitSignal), 0, uintptr(im.args.pidfd), 0, 0, 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&im.args)), unsafe.Sizeof(im.args), 0, 0, 0, 0)
	}
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}

	// The child. Dispositions first, mask second: until then a handler of the
	// Go runtime could be called, which has no runtime to run in. All of them
	// are reset, also those that are ignored, which execve would pass on
	// (SIGPIPE in many programs that start us); SIGKILL and SIGSTOP refuse.
	for k = 1; k <= 64; k++ {
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(k), uintptr(unsafe.Pointer(&zero)), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&zero)), 0, 8, 0, 0)
	// While the child holds the parent's end, its own end never says that the
	// parent is gone, and the child would wait for it for ever.
	syscall.RawSyscall6(syscall.SYS_CLOSE, im.peer, 0, 0, 0, 0, 0)

	pc = im.first
	if im.sock < im.minSock {
		if r, _, e = syscall.RawSyscall6(syscall.SYS_FCNTL, im.sock, unix.F_DUPFD_CLOEXEC, im.minSock, 0, 0, 0); e != 0 {
			goto fail
		}
		im.sock = r
	}
	if im.cgprocs {
		r, _, e = syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(im.args.cgrp), uintptr(unsafe.Pointer(&cgroupProcs)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
		if e != 0 {
			goto fail
		}
		buf[0] = '0' // the writer itself
		if _, _, e = syscall.RawSyscall6(syscall.SYS_WRITE, r, uintptr(unsafe.Pointer(&buf)), 1, 0, 0, 0); e != 0 {
			goto fail
		}
		syscall.RawSyscall6(syscall.SYS_CLOSE, r, 0, 0, 0, 0, 0)
	}

	for ; pc < len(im.ops); pc++ {
		o = &im.ops[pc]
		for k = 0; k < int(o.nargs); k++ {
			switch o.kinds[k] {
			case memory:
				a[k] = uintptr(im.base) + uintptr(o.args[k])
			case slotted:
				a[k] = im.slots[o.args[k]]
			default:
				a[k] = uintptr(o.args[k])
			}
		}
		for ; k < 6; k++ {
			a[k] = 0
		}
		r, e = 0, 0
		switch o.nr {
		default:
			r, _, e = syscall.RawSyscall6(uintptr(o.nr), a[0], a[1], a[2], a[3], a[4], a[5])
		case opJump:
			pc = int(im.labels[a[0]]) - 1
			continue
		case opSet:
			r = a[0]
		case opPoke:
			if a[2] == 4 {
				*(*uint32)(unsafe.Add(im.base, a[0])) = uint32(a[1])
			} else {
				*(*uint64)(unsafe.Add(im.base, a[0])) = uint64(a[1])
			}
		case opLoad:
			r = uintptr(*(*uint32)(unsafe.Add(im.base, a[0])) & uint32(a[1]))
		case opExpect:
			if a[4] == 4 {
				v = uint64(*(*uint32)(unsafe.Add(im.base, a[0])))
			} else {
				v = *(*uint64)(unsafe.Add(im.base, a[0]))
			}
			if v&uint64(a[1]) != uint64(a[2]) {
				e = syscall.Errno(a[3])
			}
		case opFail, opNotFound:
			e = syscall.Errno(a[0])
		case opAwait:
			for awaits++; tokens < awaits && e == 0; {
				r, _, e = syscall.RawSyscall6(syscall.SYS_RECVFROM, im.sock, uintptr(unsafe.Pointer(&buf)), 1, 0, 0, 0)
				if e == 0 && r != 1 {
					// The parent is gone; nobody is left to tell.
					syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
				}
				tokens++
			}
		case opSync:
			msg = message{kind: msgSync, index: uint32(a[0])}
			_, _, e = syscall.RawSyscall6(syscall.SYS_SENDTO, im.sock, uintptr(unsafe.Pointer(&msg)), unsafe.Sizeof(msg), unix.MSG_NOSIGNAL, 0, 0)
			for e == 0 {
				// A token that overtook the request is counted; only then is
				// the reply read. Its first byte is the kind and is peeked at,
				// the rest goes straight where it belongs.
				r, _, e = syscall.RawSyscall6(syscall.SYS_RECVFROM, im.sock, uintptr(unsafe.Pointer(&buf)), 1, unix.MSG_PEEK, 0, 0)
				if e == 0 && r != 1 {
					syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
				}
				if buf[0] == msgToken {
					tokens++
					_, _, e = syscall.RawSyscall6(syscall.SYS_RECVFROM, im.sock, uintptr(unsafe.Pointer(&buf)), 1, 0, 0, 0)
					continue
				}
				if a[1] == 0 {
					a[1] = uintptr(unsafe.Pointer(&buf))
				}
				r, e = recvReply(im.sock, a[1], a[2])
				break
			}
		case opSendFile:
			e = sendFile(im.sock, int32(a[0]))
		case opReady, opCommit:
			msg = message{kind: msgReady}
			if o.nr == opCommit {
				msg.kind = msgCommit
			}
			_, _, e = syscall.RawSyscall6(syscall.SYS_SENDTO, im.sock, uintptr(unsafe.Pointer(&msg)), unsafe.Sizeof(msg), unix.MSG_NOSIGNAL, 0, 0)
		case opReclone:
			r, _, e = syscall.RawSyscall6(syscall.SYS_CLONE, a[0], 0, 0, 0, 0, 0)
			if e == 0 && r != 0 {
				msg = message{kind: msgPid, value: uint64(r)}
				syscall.RawSyscall6(syscall.SYS_SENDTO, im.sock, uintptr(unsafe.Pointer(&msg)), unsafe.Sizeof(msg), unix.MSG_NOSIGNAL, 0, 0)
				syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
			}
		case opMkpath:
			r, e = mkpath(a[0], a[1], a[2] != 0, a[3], a[4], unsafe.Add(im.base, im.scratch))
		case opCloexec:
			e = syscall.ENOSYS
			if !im.noRange {
				_, _, e = syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, a[0], ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC, 0, 0, 0)
			}
			if e != 0 {
				// Linux < 5.11, or a filter older than the call. The loop is
				// as long as the hard limit of open files allows.
				for n = a[0]; n < im.nofile; n++ {
					syscall.RawSyscall6(syscall.SYS_FCNTL, n, syscall.F_SETFD, syscall.FD_CLOEXEC, 0, 0, 0)
				}
				e = 0
			}
		case opKeep:
			keep(a[:o.nargs], im.sock, im.nofile, im.noRange)
		case opAlive:
			r, _, e = syscall.RawSyscall6(syscall.SYS_RECVFROM, im.sock, uintptr(unsafe.Pointer(&buf)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
			if e == 0 && r == 0 {
				syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
			}
			e = 0
		case opExit:
			syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, a[0], 0, 0, 0, 0, 0)
		}
		if e == 0 && o.want >= 0 && r != uintptr(o.want) {
			e = syscall.EIO
		}
		if e == 0 {
			if o.to != noSlot {
				im.slots[o.to] = r
			}
			continue
		}
		for k = 0; k < int(o.ncatch); k++ {
			if o.catch[k].errno == uint16(e) || o.catch[k].errno == anyErrno {
				break
			}
		}
		if k == int(o.ncatch) {
			goto fail
		}
		if o.warn {
			msg = message{kind: msgWarning, index: uint32(pc), value: uint64(e)}
			syscall.RawSyscall6(syscall.SYS_SENDTO, im.sock, uintptr(unsafe.Pointer(&msg)), unsafe.Sizeof(msg), unix.MSG_NOSIGNAL, 0, 0)
		}
		if o.catch[k].label != next {
			pc = int(im.labels[o.catch[k].label]) - 1
		}
	}
	e = syscall.ENOEXEC // the program has no end

fail:
	msg = message{kind: msgError, index: uint32(pc), value: uint64(e)}
	syscall.RawSyscall6(syscall.SYS_SENDTO, im.sock, uintptr(unsafe.Pointer(&msg)), unsafe.Sizeof(msg), unix.MSG_NOSIGNAL, 0, 0)
	for {
		syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
	}
}

// keep closes all descriptors from 3 up but those in fds and sock.
//
//go:nosplit
//go:norace
func keep(fds []uintptr, sock, limit uintptr, noRange bool) {
	for from := uintptr(3); ; {
		kept := uintptr(0) // the lowest kept descriptor from here on
		for _, fd := range fds {
			if fd >= from && (kept == 0 || fd < kept) {
				kept = fd
			}
		}
		if sock >= from && (kept == 0 || sock < kept) {
			kept = sock
		}
		last := kept - 1
		if kept == 0 {
			last = 1<<32 - 1
		}
		e := syscall.ENOSYS
		if !noRange && last >= from {
			_, _, e = syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, from, last, 0, 0, 0, 0)
		}
		if e != 0 {
			for n := from; n <= min(last, limit); n++ {
				syscall.RawSyscall6(syscall.SYS_CLOSE, n, 0, 0, 0, 0, 0)
			}
		}
		if kept == 0 {
			return
		}
		from = kept + 1
	}
}

// recvReply receives the record {kind, bytes}: n bytes to addr.
//
//go:nosplit
//go:norace
func recvReply(sock, addr, n uintptr) (uintptr, syscall.Errno) {
	var (
		kind [8]byte
		iov  [2]unix.Iovec
		hdr  unix.Msghdr
	)
	iov[0].Base, iov[0].Len = &kind[0], 1
	// An address as a number, so that the compiler sees no store of a pointer.
	*(*uintptr)(unsafe.Pointer(&iov[1].Base)) = addr
	iov[1].Len = uint64(n)
	*(*uintptr)(unsafe.Pointer(&hdr.Iov)) = uintptr(unsafe.Pointer(&iov))
	hdr.Iovlen = 2
	r, _, e := syscall.RawSyscall6(syscall.SYS_RECVMSG, sock, uintptr(unsafe.Pointer(&hdr)), 0, 0, 0, 0)
	if e == 0 && r != n+1 {
		e = syscall.EIO
	}
	return n, e
}

// sendFile sends a descriptor over the status socket.
//
//go:nosplit
//go:norace
func sendFile(sock uintptr, fd int32) syscall.Errno {
	var (
		msg message
		iov unix.Iovec
		hdr unix.Msghdr
		ctl struct {
			h  unix.Cmsghdr
			fd int32
			_  int32
		}
	)
	msg.kind = msgFile
	*(*uintptr)(unsafe.Pointer(&iov.Base)) = uintptr(unsafe.Pointer(&msg))
	iov.Len = uint64(unsafe.Sizeof(msg))
	ctl.h.Len = uint64(unsafe.Sizeof(ctl.h)) + 4
	ctl.h.Level, ctl.h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	ctl.fd = fd
	*(*uintptr)(unsafe.Pointer(&hdr.Iov)) = uintptr(unsafe.Pointer(&iov))
	hdr.Iovlen = 1
	*(*uintptr)(unsafe.Pointer(&hdr.Control)) = uintptr(unsafe.Pointer(&ctl))
	hdr.Controllen = uint64(unsafe.Sizeof(ctl))
	_, _, e := syscall.RawSyscall6(syscall.SYS_SENDMSG, sock, uintptr(unsafe.Pointer(&hdr)), unix.MSG_NOSIGNAL, 0, 0, 0)
	return e
}
