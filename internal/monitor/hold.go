package monitor

import (
	"os"

	"golang.org/x/sys/unix"
)

// HoldVar is the environment variable with the name of a FIFO that a container
// waits at just before its command: a byte lets it go on, the end of whoever holds
// the other end ends it. It is how a tracer gets in time to the start (run --why).
const HoldVar = "_ISLE_HOLD"

// openHold opens the FIFO for reading. Its writer is there already, so the end of
// file means that it is gone.
func openHold(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
