package netlink

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WatchRemovals returns a socket that becomes readable when a table, a chain, a
// rule or a set of the packet filter of this namespace has been removed. It does
// not block. Elements of sets are of no interest: a filter in the kernel keeps
// them from waking anybody.
func WatchRemovals() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	// The first byte of the message's type, which both machines of ours store with
	// the lowest byte first. A datagram may hold several messages; a removal of
	// rules begins with one.
	const typeAt = 4
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: typeAt}}
	kinds := [...]uint32{unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET}
	for i, k := range kinds {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(kinds) - i), K: k})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 256})
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: unsafe.SliceData(prog)})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	}
	if err != nil {
		_ = unix.Close(fd) // of no use
		return nil, os.NewSyscallError("listen to the packet filter", err)
	}
	return os.NewFile(uintptr(fd), "packet filter"), nil
}
