package runtime

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// NewNetns makes a network namespace whose loopback interface is up, for
// Options.Netns, and returns its file. It belongs to the caller's user namespace.
//
// It is the slowest of all namespaces to make: half a millisecond, as much as
// all others and the clone together, so it pays to have it made while something
// else is prepared. The calling goroutine's thread is then good for nothing
// else: the goroutine is to end without having unlocked it, which ends the thread.
func NewNetns() (*os.File, error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("unshare CLONE_NEWNET", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s) //nolint:errcheck // nothing was sent
	lo, err := unix.NewIfreq(loopbackName)
	if err != nil {
		return nil, err
	}
	lo.SetUint16(loopbackFlags)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return nil, os.NewSyscallError("ioctl SIOCSIFFLAGS lo", err)
	}
	const name = "/proc/thread-self/ns/net"
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

const (
	loopbackName  = "lo"
	loopbackFlags = unix.IFF_UP | unix.IFF_RUNNING
)
