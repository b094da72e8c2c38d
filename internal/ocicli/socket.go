package ocicli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// connect connects to the sockets that get the terminal and the pidfd.
func (c *call) connect() error {
	for _, s := range [...]struct {
		flag string
		to   **os.File
	}{{"console-socket", &c.consoleSocket}, {"pidfd-socket", &c.pidfdSocket}} {
		path := c.flags.str(s.flag)
		if path == "" {
			continue
		}
		fd, err := dialSoon(path)
		if err != nil {
			return err
		}
		*s.to = os.NewFile(uintptr(fd), path)
	}
	return nil
}

// soon is how long a caller may take until its socket listens: many start the
// listener and the runtime side by side.
const soon = time.Second

func dialSoon(path string) (int, error) {
	for end := time.Now().Add(soon); ; time.Sleep(2 * time.Millisecond) {
		fd, err := dial(path, unix.SOCK_STREAM)
		retry := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED)
		if !retry || time.Now().After(end) {
			return fd, err
		}
	}
}

// sendFile sends f, with its name as the message, to a socket.
func sendFile(socket *os.File, name string, f *os.File) error {
	if err := unix.Sendmsg(int(socket.Fd()), []byte(name), unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send %s to %s: %w", name, socket.Name(), err)
	}
	return nil
}

// dial connects to a UNIX socket. Its name may be longer than an address can be:
// it is then reached through a descriptor.
func dial(path string, typ int) (int, error) {
	s, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.Connect(s, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.EINVAL) {
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
