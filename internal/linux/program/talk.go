package program

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
	msgSwap    = 'D'
	msgFile    = 'F'
	msgReady   = 'R'
	msgCommit  = 'X'
	msgToken   = 'G' // to the child
	msgReply   = 'A' // to the child, followed by the bytes
)

// replyMax bounds what a Sync function can answer: well below what fits into a
// socket (net.core.wmem_default).
const replyMax = 64 << 10

// The kernel's structures with addresses as numbers: the child must not store
// Go pointers.
type (
	iovec  struct{ base, len uintptr }
	msghdr struct {
		name, namelen, iov, iovlen, control, controllen uintptr
		flags                                           int64
	}
	fdControl struct {
		len        uint64
		level, typ int32
		fd, _      int32
	}
)

// say sends a message to the parent.
//
//go:nosplit
//go:norace
func (im *image) say(kind byte, index uint32, value uint64) syscall.Errno {
	im.msg.kind, im.msg.index, im.msg.value = kind, index, value
	_, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, im.sock, uintptr(unsafe.Pointer(&im.msg)), unsafe.Sizeof(im.msg), unix.MSG_NOSIGNAL, 0, 0)
	return e
}

// hear receives the first byte of a record, which is its kind. A child whose
// parent is gone ends: nobody is left to tell.
//
//go:nosplit
//go:norace
func (im *image) hear(flags uintptr) (byte, syscall.Errno) {
	r, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, im.sock, uintptr(unsafe.Pointer(&im.buf)), 1, flags, 0, 0)
	if e == 0 && r == 0 {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
	}
	return im.buf[0], e
}

// await waits until want tokens have come and returns how many there are.
//
//go:nosplit
//go:norace
func (im *image) await(tokens, want int) (int, syscall.Errno) {
	for tokens < want {
		if _, e := im.hear(0); e != 0 {
			return tokens, e
		}
		tokens++
	}
	return tokens, 0
}

// sync asks the parent to run function i and receives its answer, n bytes at
// addr. A token that overtook the request is counted.
//
//go:nosplit
//go:norace
func (im *image) sync(i uint32, addr, n uintptr, tokens int) (int, uintptr, syscall.Errno) {
	if e := im.say(msgSync, i, 0); e != 0 {
		return tokens, 0, e
	}
	tokens, e := im.skip(tokens)
	if e != 0 {
		return tokens, 0, e
	}
	if addr == 0 {
		addr = uintptr(unsafe.Pointer(&im.buf))
	}
	// The kind goes here, the rest straight where it belongs.
	im.iov[0] = iovec{uintptr(unsafe.Pointer(&im.buf)), 1}
	im.iov[1] = iovec{addr, n}
	im.hdr = msghdr{iov: uintptr(unsafe.Pointer(&im.iov)), iovlen: 2}
	var r uintptr
	r, _, e = syscall.RawSyscall6(syscall.SYS_RECVMSG, im.sock, uintptr(unsafe.Pointer(&im.hdr)), 0, 0, 0, 0)
	if e == 0 && r != n+1 {
		e = syscall.EIO
	}
	return tokens, n, e
}

// skip counts tokens until something else is next.
//
//go:nosplit
//go:norace
func (im *image) skip(tokens int) (int, syscall.Errno) {
	for {
		kind, e := im.hear(unix.MSG_PEEK)
		if e != 0 || kind != msgToken {
			return tokens, e
		}
		if _, e = im.hear(0); e != 0 {
			return tokens, e
		}
		tokens++
	}
}

// exchange sends a descriptor with a request and receives one with the answer.
//
//go:nosplit
//go:norace
func (im *image) exchange(i uint32, fd int32, tokens int) (int, uintptr, syscall.Errno) {
	var e syscall.Errno
	if fd < 0 {
		e = im.say(msgSwap, i, 0)
	} else {
		im.msg.kind, im.msg.index = msgSwap, i
		e = im.sendFile(fd)
	}
	if e == 0 {
		tokens, e = im.skip(tokens)
	}
	if e != 0 {
		return tokens, 0, e
	}
	im.iov[0] = iovec{uintptr(unsafe.Pointer(&im.buf)), 1}
	im.ctl.len, im.ctl.fd = 0, -1
	im.hdr = msghdr{
		iov: uintptr(unsafe.Pointer(&im.iov)), iovlen: 1,
		control: uintptr(unsafe.Pointer(&im.ctl)), controllen: unsafe.Sizeof(im.ctl),
	}
	_, _, e = syscall.RawSyscall6(syscall.SYS_RECVMSG, im.sock, uintptr(unsafe.Pointer(&im.hdr)), unix.MSG_CMSG_CLOEXEC, 0, 0, 0)
	return tokens, uintptr(int(im.ctl.fd)), e
}

// sendFile sends the message with a descriptor to the parent.
//
//go:nosplit
//go:norace
func (im *image) sendFile(fd int32) syscall.Errno {
	im.iov[0] = iovec{uintptr(unsafe.Pointer(&im.msg)), unsafe.Sizeof(im.msg)}
	im.ctl.len = uint64(unsafe.Offsetof(im.ctl.fd)) + 4
	im.ctl.level, im.ctl.typ, im.ctl.fd = unix.SOL_SOCKET, unix.SCM_RIGHTS, fd
	im.hdr = msghdr{
		iov: uintptr(unsafe.Pointer(&im.iov)), iovlen: 1,
		control: uintptr(unsafe.Pointer(&im.ctl)), controllen: unsafe.Sizeof(im.ctl),
	}
	_, _, e := syscall.RawSyscall6(syscall.SYS_SENDMSG, im.sock, uintptr(unsafe.Pointer(&im.hdr)), unix.MSG_NOSIGNAL, 0, 0, 0)
	return e
}
