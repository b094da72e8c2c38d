package ocicli

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// sendFile sends f, with its name as the message, to the UNIX socket at path.
func sendFile(path, name string, f *os.File) error {
	s, err := dial(path, unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer unix.Close(s) //nolint:errcheck // all is said
	if err := unix.Sendmsg(s, []byte(name), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		return fmt.Errorf("send %s to %s: %w", name, path, err)
	}
	return nil
}

// dial connects to a UNIX socket. Its name may be longer than an address can be:
// it is then reached through its directory.
func dial(path string, typ int) (int, error) {
	s, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.Connect(s, &unix.SockaddrUnix{Name: path})
	if err == unix.EINVAL {
		fd, oerr := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if oerr == nil {
			err = unix.Connect(s, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(fd)})
			_ = unix.Close(fd) // only named something
		}
	}
	if err != nil {
		_ = unix.Close(s) // not connected
		return -1, fmt.Errorf("dial unix %s: connect: %w", path, err)
	}
	return s, nil
}

// ptsName is the name of a terminal in its own devpts.
func ptsName(master *os.File) string {
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return "/dev/ptmx"
	}
	return "/dev/pts/" + strconv.Itoa(n)
}
