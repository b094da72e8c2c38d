package program

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var cgroupProcs = [...]byte{'c', 'g', 'r', 'o', 'u', 'p', '.', 'p', 'r', 'o', 'c', 's', 0}

var _ = childMain // called by rawClone, which tools do not read

// againMax bounds the repetitions of an openat2 that is disturbed.
const againMax = 1 << 14

// childMain is the child: it runs the program.
//
// Nothing here may grow the stack or allocate: the child is a copy of one
// thread of a runtime whose other threads, and the locks they held, are gone,
// or it runs beside them on memory that is theirs. So the interpreter is one
// function, and what it calls is nosplit.
//
//go:nosplit
//go:norace
func childMain(im *image) {
	var (
		a              [6]uintptr
		r              uintptr
		e              syscall.Errno
		pc, k          int
		o              *op
		tokens, awaits int
		v              uint64
		n              uintptr
	)

	// Dispositions first, mask second: until then a handler of the Go runtime
	// could be called, which has no runtime to run in. All of them are reset,
	// also those that are ignored, which execve would pass on (SIGPIPE in many
	// programs that start us); SIGKILL and SIGSTOP refuse.
	for k = 1; k <= 64; k++ {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(k), uintptr(unsafe.Pointer(&im.zero)), 0, 8, 0, 0)
	}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&im.zero)), 0, 8, 0, 0)

	// While the child holds the parent's end, its own end never says that the
	// parent is gone, and the child would wait for it for ever.
	_, _, _ = syscall.RawSyscall6(syscall.SYS_CLOSE, im.peer, 0, 0, 0, 0, 0)

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
		im.buf[0] = '0' // the writer itself
		if _, _, e = syscall.RawSyscall6(syscall.SYS_WRITE, r, uintptr(unsafe.Pointer(&im.buf)), 1, 0, 0, 0); e != 0 {
			goto fail
		}
		_, _, _ = syscall.RawSyscall6(syscall.SYS_CLOSE, r, 0, 0, 0, 0, 0)
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
			// A walk with ".." that cannot tell whether it was led astray, as
			// something was renamed or mounted meanwhile anywhere on the
			// machine: the caller shall try again (openat2(2)).
			for n = 0; e == syscall.EAGAIN && o.nr == unix.SYS_OPENAT2 && n < againMax; n++ {
				r, _, e = syscall.RawSyscall6(uintptr(o.nr), a[0], a[1], a[2], a[3], a[4], a[5])
			}
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
			awaits++
			tokens, e = im.await(tokens, awaits)
		case opSync:
			tokens, r, e = im.sync(uint32(a[0]), a[1], a[2], tokens)
		case opSendFile:
			im.msg.kind = msgFile
			e = im.sendFile(int32(a[0]))
		case opExchange:
			tokens, r, e = im.exchange(uint32(a[0]), int32(a[1]), tokens)
		case opIfSet:
			if a[0] != ^uintptr(0) {
				pc = int(im.labels[a[1]]) - 1
				continue
			}
		case opOctal:
			for k, v = 0, uint64(a[1]); k < 5; k++ {
				*(*byte)(unsafe.Add(im.base, a[0]+uintptr(4-k))) = '0' + byte(v&7)
				v >>= 3
			}
			*(*byte)(unsafe.Add(im.base, a[0]+5)) = 0
		case opReady:
			e = im.say(msgReady, 0, 0)
		case opCommit:
			// Nobody listens any more where the parent has let go of a child that
			// was Ready (Forget). One that shall die with it does by DieWithParent.
			if e = im.say(msgCommit, 0, 0); e == syscall.EPIPE {
				e = 0
			}
		case opReclone:
			r, _, e = syscall.RawSyscall6(syscall.SYS_CLONE, a[0], 0, 0, 0, 0, 0)
			if e == 0 && r != 0 {
				_ = im.say(msgPid, 0, uint64(r))
				_, _, _ = syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
			}
		case opMkpath:
			r, e = mkpathOnOwnStack(a[0], a[1], a[2] != 0, a[3], a[4], unsafe.Add(im.base, im.scratch))
		case opCloexec:
			e = syscall.ENOSYS
			if !im.noRange {
				_, _, e = syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, a[0], ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC, 0, 0, 0)
			}
			if e != 0 {
				// Linux < 5.11, or a filter older than the call. The loop is
				// as long as the hard limit of open files allows.
				for n = a[0]; n < im.nofile; n++ {
					_, _, _ = syscall.RawSyscall6(syscall.SYS_FCNTL, n, syscall.F_SETFD, syscall.FD_CLOEXEC, 0, 0, 0)
				}
				e = 0
			}
		case opKeep:
			keep(a[0], a[1:o.nargs], im.sock, im.nofile, im.noRange)
		case opAlive:
			r, _, e = syscall.RawSyscall6(syscall.SYS_RECVFROM, im.sock, uintptr(unsafe.Pointer(&im.buf)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
			if e == 0 && r == 0 {
				_, _, _ = syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
			}
			e = 0
		case opExit:
			_, _, _ = syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, a[0], 0, 0, 0, 0, 0)
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
			_ = im.say(msgWarning, uint32(pc), uint64(e))
		}
		if o.catch[k].label != next {
			pc = int(im.labels[o.catch[k].label]) - 1
		}
	}
	e = syscall.ENOEXEC // the program has no end

fail:
	_ = im.say(msgError, uint32(pc), uint64(e))
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
	}
}

// keep closes all descriptors from the given one up but those in fds and sock.
//
//go:nosplit
//go:norace
func keep(from uintptr, fds []uintptr, sock, limit uintptr, noRange bool) {
	for {
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
				_, _, _ = syscall.RawSyscall6(syscall.SYS_CLOSE, n, 0, 0, 0, 0, 0)
			}
		}
		if kept == 0 {
			return
		}
		from = kept + 1
	}
}
