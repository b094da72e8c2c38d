package tty

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Size returns the size of the terminal f in characters.
func Size(f *os.File) (rows, cols uint16, err error) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, os.NewSyscallError("ioctl TIOCGWINSZ", err)
	}
	return ws.Row, ws.Col, nil
}

// SetSize tells the terminal f (for a pseudoterminal either end) its size. The
// kernel sends SIGWINCH to the foreground process group if it changed.
func SetSize(f *os.File, rows, cols uint16) error {
	return os.NewSyscallError("ioctl TIOCSWINSZ",
		unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

// MakeRaw makes the terminal f pass every byte as it is, as cfmakeraw(3)
// does, and returns what puts it back. The caller must call restore also on
// the way out of a failure: the user's shell gets the terminal as it is left.
func MakeRaw(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, os.NewSyscallError("ioctl TCGETS", err)
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, os.NewSyscallError("ioctl TCSETS", err)
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			// Nothing can be done about a terminal that has gone away.
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
		})
	}, nil
}

// Peer opens the other end of the pseudoterminal master, wherever its devpts is
// mounted (TIOCGPTPEER, Linux 4.13). It does not become the caller's
// controlling terminal.
func Peer(master *os.File) (*os.File, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, os.NewSyscallError("ioctl TIOCGPTPEER", errno)
	}
	return os.NewFile(fd, "pty"), nil
}

// NoEcho makes the terminal f not show what is typed, for a password, and
// returns what puts it back, which the caller must call.
func NoEcho(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, os.NewSyscallError("ioctl TCGETS", err)
	}
	quiet := *old
	quiet.Lflag &^= unix.ECHO
	quiet.Lflag |= unix.ICANON | unix.ISIG
	quiet.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, os.NewSyscallError("ioctl TCSETS", err)
	}
	// Nothing can be done about a terminal that has gone away.
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}
