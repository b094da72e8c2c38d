package program

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions that Go's own syscall package brackets a fork with. The runtime
// keeps their names and signatures for users outside it (go.dev/issue/67401).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// rawClone makes a clone or clone3 system call. In the parent it returns the
// result; the child calls childMain(im), on the stack that the call's arguments
// name.
//
//go:noescape
func rawClone(trap, a1, a2, a3 uintptr, im *image) (pid uintptr, errno syscall.Errno)

// image is a program with everything in its place: what the child reads.
//
// A child that shares the caller's memory writes here too, while the garbage
// collector may be running; so nothing that it writes is a pointer to Go.
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
	legacy  bool   // clone instead of clone3
	stack   []byte // the child's
	shared  bool   // the child runs on the caller's memory
	cgprocs bool   // the child moves itself into the cgroup
	noRange bool
	pidfd   int32

	// The child's own variables; its stack is small.
	msg  message
	buf  [16]byte
	zero [64]byte // a struct sigaction: SIG_DFL, no flags, empty mask
	iov  [2]iovec
	hdr  msghdr
	ctl  fdControl
}

// cloneArgs is struct clone_args of clone3(2), the version of Linux 5.7.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal   uint64
	stack, stackSize, tls, setTID, setTIDSize, cgrp uint64
}

// stackSize is the size of the child's stack. What it runs is nosplit and not
// recursive, two chains of at most 792 bytes as the linker checks, and it
// handles no signals.
const stackSize = 8 << 10

// fork clones the caller; the child runs the program and never returns. The OS
// thread is locked.
func (im *image) fork() (pid uintptr, errno syscall.Errno) {
	trap, a1, a2, a3 := uintptr(unix.SYS_CLONE3), uintptr(unsafe.Pointer(&im.args)), unsafe.Sizeof(im.args), uintptr(0)
	if im.shared {
		im.args.flags |= unix.CLONE_VM
	}
	im.args.stack = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(im.stack))))
	im.args.stackSize = stackSize
	if im.legacy {
		trap, a1, a2, a3 = syscall.SYS_CLONE, uintptr(im.args.flags|im.args.exitSignal), uintptr(im.args.stack+im.args.stackSize), uintptr(im.args.pidfd)
	}
	beforeFork() // blocks all signals in this thread
	pid, errno = rawClone(trap, a1, a2, a3, im)
	afterFork()
	return pid, errno
}

// dumpable takes care of the one thing that a child which shares memory changes
// for the caller: whether the process may be traced and looked into. The child
// gives that up, and a change of its credentials does too (prctl(2),
// PR_SET_DUMPABLE); it is put back when the last such child has executed.
type dumpable struct {
	mu       sync.Mutex
	children int
	was      int
}

var sharing dumpable

func (d *dumpable) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.children == 0 {
		d.was, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0) // cannot fail
	}
	d.children++
}

func (d *dumpable) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.children--; d.children == 0 && d.was == 1 {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // cannot fail
	}
}
