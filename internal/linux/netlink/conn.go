package netlink

import (
	"encoding/binary"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Conn is a netlink socket. It is not for concurrent use.
type Conn struct {
	fd  int
	buf []byte
}

// Dial opens a socket in the caller's network namespace; protocol is
// unix.NETLINK_ROUTE or unix.NETLINK_NETFILTER.
func Dial(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	// The kernel answers a request before sendto returns, unless it cannot: then
	// nobody shall wait for ever.
	tv := unix.Timeval{Sec: 30}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv) // only a safeguard
	return &Conn{fd: fd}, nil
}

// DialIn opens a socket in the network namespace ns; nil is the caller's.
func DialIn(ns *os.File, protocol int) (c *Conn, err error) {
	if ns == nil {
		return Dial(protocol)
	}
	ierr := In(ns, func() error {
		c, err = Dial(protocol)
		return err
	})
	return c, ierr
}

// In calls f on a thread that is in the network namespace ns. f must not start
// goroutines that rely on it.
func In(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/thread-self/ns/net", Err: err}
	}
	defer unix.Close(own) //nolint:errcheck // a namespace's handle
	// Who is root of a user namespace only may leave the host's network, but not
	// come back (setns(2)): then it is a thread's last journey.
	if unix.Setns(own, unix.CLONE_NEWNET) != nil {
		return inLastThread(ns, f)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns net", err)
	}
	err = f()
	if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
		// The thread may be the one a container's life hangs on, and it must
		// not go on in a network that is not its own.
		panic("netlink: return to the own network namespace: " + err.Error())
	}
	return err
}

// inLastThread calls f on a thread that ends afterwards.
func inLastThread(ns *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("setns net", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Do sends the requests of b and waits until the kernel has handled them all. The
// error is that of the first request that failed.
func (c *Conn) Do(b *Batch) error {
	return c.do(b, -1, 0, nil)
}

// Try is Do that ignores the given errno in all requests.
func (c *Conn) Try(b *Batch, ignore unix.Errno) error {
	return c.do(b, -1, ignore, nil)
}

// Get sends one request that is answered by at most one message, and calls f
// with its content after the header.
func (c *Conn) Get(b *Batch, f func(typ uint16, p []byte)) error {
	return c.do(b, -1, 0, f)
}

// DoTransaction sends an nfnetlink transaction: the first and the last request
// of b are its frame, and all requests are applied or none.
func (c *Conn) DoTransaction(b *Batch) error {
	// The end of a batch is not acknowledged; the request before it is.
	return c.do(b, len(b.names)-1, 0, nil)
}

// do sends b; ackOf is the number of the request whose acknowledgement ends it,
// -1 for the last one.
func (c *Conn) do(b *Batch, ackOf int, ignore unix.Errno, f func(uint16, []byte)) error {
	if len(b.names) == 0 {
		return nil
	}
	b.finish()
	if ackOf < 0 {
		ackOf = len(b.names)
	}
	b.setAck(ackOf)
	if err := c.send(b.buf); err != nil {
		return errs.New(errs.Unknown, "%s: %w", b.names[0], err)
	}
	var first error
	for {
		p, err := c.recv()
		if err != nil {
			if first != nil {
				return first // a transaction that failed early ends without its acknowledgement
			}
			return errs.New(errs.Unknown, "%s: %w", b.names[len(b.names)-1], err)
		}
		for len(p) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(p))
			if n < unix.NLMSG_HDRLEN || n > len(p) {
				break
			}
			typ, seq, body := binary.NativeEndian.Uint16(p[4:]), int(binary.NativeEndian.Uint32(p[8:])), p[unix.NLMSG_HDRLEN:n]
			p = p[min(len(p), (n+3)&^3):]
			if typ != unix.NLMSG_ERROR {
				if f != nil && typ != unix.NLMSG_NOOP {
					f(typ, body)
				}
				continue
			}
			if len(body) < 4 {
				continue
			}
			no := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			if no != 0 && no != ignore && first == nil {
				what := "request"
				if seq >= 1 && seq <= len(b.names) {
					what = b.names[seq-1]
				}
				first = &Error{what, no}
			}
			if seq == ackOf || ackOf < len(b.names) && no != 0 {
				// A transaction stops at an error; what else it reports is of the same cause.
				return first
			}
		}
	}
}

// setAck asks for the acknowledgement of request n only.
func (b *Batch) setAck(n int) {
	for off, i := 0, 1; off < len(b.buf); i++ {
		flags := binary.NativeEndian.Uint16(b.buf[off+6:]) &^ unix.NLM_F_ACK
		if i == n {
			flags |= unix.NLM_F_ACK
		}
		binary.NativeEndian.PutUint16(b.buf[off+6:], flags)
		off += int(binary.NativeEndian.Uint32(b.buf[off:]))
	}
}

// Dump sends one request for a list and calls f with each entry. When the list
// changed meanwhile it is taken again, after again was called.
func (c *Conn) Dump(b *Batch, again func(), f func(typ uint16, p []byte)) error {
	b.finish()
	for try := 0; ; try++ {
		changed, err := c.dump(b, f)
		if err != nil || !changed {
			return err
		}
		if try == 10 {
			return errs.New(errs.Unavailable, "%s: the list keeps changing", b.names[0])
		}
		again()
	}
}

func (c *Conn) dump(b *Batch, f func(uint16, []byte)) (changed bool, err error) {
	if err := c.send(b.buf); err != nil {
		return false, errs.New(errs.Unknown, "%s: %w", b.names[0], err)
	}
	for {
		p, err := c.recv()
		if err != nil {
			return false, errs.New(errs.Unknown, "%s: %w", b.names[0], err)
		}
		for len(p) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(p))
			if n < unix.NLMSG_HDRLEN || n > len(p) {
				break
			}
			typ, flags, body := binary.NativeEndian.Uint16(p[4:]), binary.NativeEndian.Uint16(p[6:]), p[unix.NLMSG_HDRLEN:n]
			p = p[min(len(p), (n+3)&^3):]
			changed = changed || flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case typ == unix.NLMSG_DONE:
				return changed, nil
			case typ == unix.NLMSG_ERROR && len(body) >= 4:
				if no := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); no != 0 {
					return false, &Error{b.names[0], no}
				}
				return changed, nil
			default:
				f(typ, body)
			}
		}
	}
}

func (c *Conn) send(p []byte) error {
	for {
		err := unix.Sendto(c.fd, p, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

// recv reads one datagram, which holds any number of messages.
func (c *Conn) recv() ([]byte, error) {
	if c.buf == nil {
		c.buf = make([]byte, 32<<10) // NLMSG_GOODSIZE is at most that
	}
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid != 0 {
			continue // not from the kernel
		}
		return c.buf[:n], nil
	}
}

// Error is a request that the kernel refused.
type Error struct {
	What  string
	Errno unix.Errno
}

func (e *Error) Error() string { return e.What + ": " + e.Errno.Error() }

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// FromFile takes over a netlink socket that was made elsewhere, as in a namespace
// that this process cannot enter. The caller keeps f.
func FromFile(f *os.File) (*Conn, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &Conn{fd: fd}, nil
}
