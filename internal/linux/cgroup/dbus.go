package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// A client for the few calls that are made to systemd: one connection, one call
// at a time, little-endian. See the D-Bus specification and sd_bus_call(3).

// bus is a connection that has been authenticated.
type bus struct {
	fd     int
	serial uint32
	direct bool // to systemd itself (its private socket), not through a bus
}

// callTimeout bounds one call, in seconds. systemd answers in a millisecond.
const callTimeout = 10

func dialBus(path string, direct bool) (*bus, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	b := &bus{fd: fd, direct: direct}
	for _, o := range [...]int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &unix.Timeval{Sec: callTimeout}); err != nil {
			b.close()
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if _, err := retry(func() (int, error) { return 0, unix.Connect(fd, &unix.SockaddrUnix{Name: path}) }); err != nil {
		b.close()
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	if err := b.authenticate(); err != nil {
		b.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func (b *bus) close() { _ = unix.Close(b.fd) }

// authenticate claims no identity of its own: the server takes the credentials
// of the socket, which are right in a user namespace too, where our own uid has
// another number.
func (b *bus) authenticate() error {
	if err := b.send([]byte("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")); err != nil {
		return err
	}
	// The server answers "DATA" and "OK GUID", and then speaks only when asked.
	var got []byte
	for {
		var c [1]byte
		if err := b.receive(c[:]); err != nil {
			return err
		}
		got = append(got, c[0])
		line, done := strings.CutSuffix(string(got), "\r\n")
		switch {
		case !done && len(got) > 200:
			return errs.New(errs.Corrupt, "not a D-Bus server")
		case !done:
		case strings.HasPrefix(line, "OK"):
			return b.hello()
		case strings.HasPrefix(line, "DATA"):
			got = got[:0]
		default:
			return errs.New(errs.Denied, "D-Bus authentication: %s", line)
		}
	}
}

// hello gets a name on a bus, without which it forwards nothing.
func (b *bus) hello() error {
	if b.direct {
		return nil
	}
	_, err := b.call(message{
		destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus",
		iface: "org.freedesktop.DBus", member: "Hello",
	})
	return err
}

func (b *bus) send(data []byte) error {
	for len(data) > 0 {
		n, err := retry(func() (int, error) { return unix.SendmsgN(b.fd, data, nil, nil, unix.MSG_NOSIGNAL) })
		if err != nil {
			return os.NewSyscallError("send", err)
		}
		data = data[n:]
	}
	return nil
}

func (b *bus) receive(data []byte) error {
	for len(data) > 0 {
		n, err := retry(func() (int, error) { return unix.Read(b.fd, data) })
		switch {
		case errors.Is(err, unix.EAGAIN):
			return errs.New(errs.Unavailable, "no answer in %d seconds", callTimeout)
		case err != nil:
			return os.NewSyscallError("receive", err)
		case n == 0:
			return errs.New(errs.Unavailable, "connection closed")
		}
		data = data[n:]
	}
	return nil
}

// message is a method call.
type message struct {
	destination, path, iface, member string
	signature                        string
	body                             marshal
}

// marshal builds values in D-Bus's wire format, each aligned to its size.
type marshal struct{ b []byte }

func (m *marshal) align(n int) {
	for len(m.b)%n != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *marshal) u32(v uint32) {
	m.align(4)
	m.b = binary.LittleEndian.AppendUint32(m.b, v)
}

func (m *marshal) u64(v uint64) {
	m.align(8)
	m.b = binary.LittleEndian.AppendUint64(m.b, v)
}

func (m *marshal) bool(v bool) {
	n := uint32(0)
	if v {
		n = 1
	}
	m.u32(n)
}

func (m *marshal) str(s string) {
	m.u32(uint32(len(s)))
	m.b = append(append(m.b, s...), 0)
}

func (m *marshal) sig(s string) {
	m.b = append(append(append(m.b, byte(len(s))), s...), 0)
}

// array writes what fill does as an array whose elements are aligned to n.
func (m *marshal) array(n int, fill func()) {
	m.u32(0)
	at := len(m.b)
	m.align(n)
	start := len(m.b)
	fill()
	binary.LittleEndian.PutUint32(m.b[at-4:], uint32(len(m.b)-start))
}

// property writes one element of an array of (name, variant).
func (m *marshal) property(name, signature string, value func()) {
	m.align(8)
	m.str(name)
	m.sig(signature)
	value()
}

// Header fields and message types.
const (
	fieldPath, fieldInterface, fieldMember, fieldErrorName = 1, 2, 3, 4
	fieldReplySerial, fieldDestination, fieldSignature     = 5, 6, 8

	typeCall, typeReturn, typeError = 1, 2, 3
)

// maxMessage is far beyond what systemd answers to these calls.
const maxMessage = 1 << 20

// call sends m and returns the body of the reply.
func (b *bus) call(m message) ([]byte, error) {
	b.serial++
	h := marshal{[]byte{'l', typeCall, 0, 1}}
	h.u32(uint32(len(m.body.b)))
	h.u32(b.serial)
	h.array(8, func() {
		field := func(code byte, signature, value string) {
			if value == "" {
				return
			}
			h.align(8)
			h.b = append(h.b, code)
			h.sig(signature)
			if signature == "g" {
				h.sig(value)
			} else {
				h.str(value)
			}
		}
		field(fieldPath, "o", m.path)
		field(fieldDestination, "s", m.destination)
		field(fieldInterface, "s", m.iface)
		field(fieldMember, "s", m.member)
		field(fieldSignature, "g", m.signature)
	})
	h.align(8)
	if err := b.send(append(h.b, m.body.b...)); err != nil {
		return nil, err
	}
	for {
		kind, serial, name, body, err := b.next()
		switch {
		case err != nil:
			return nil, err
		case serial != b.serial: // a signal
		case kind == typeReturn:
			return body, nil
		case kind == typeError:
			text := name
			if len(body) > 4 {
				r := unmarshal{body, 0, nil}
				if s := r.str(); r.err == nil && s != "" {
					text = s
				}
			}
			return nil, &busError{name, m.member + ": " + text}
		}
	}
}

// busError is an error that the other side returned.
type busError struct{ name, text string }

func (e *busError) Error() string { return e.text }

// next reads one message.
func (b *bus) next() (kind byte, serial uint32, errorName string, body []byte, err error) {
	var fixed [16]byte
	if err := b.receive(fixed[:]); err != nil {
		return 0, 0, "", nil, err
	}
	size, fields := binary.LittleEndian.Uint32(fixed[4:]), binary.LittleEndian.Uint32(fixed[12:])
	if fixed[0] != 'l' || size > maxMessage || fields > maxMessage {
		return 0, 0, "", nil, errs.New(errs.Corrupt, "D-Bus message with header % x", fixed)
	}
	rest := make([]byte, int(fields+7)&^7+int(size))
	if err := b.receive(rest); err != nil {
		return 0, 0, "", nil, err
	}
	// The array of fields begins at offset 16, so its alignment is that of rest.
	r := unmarshal{rest[:fields], 0, nil}
	for r.err == nil && r.at < len(r.b) {
		r.align(8)
		code := r.byte()
		switch signature := r.sig(); {
		case r.err != nil:
		case signature == "u":
			if n := r.u32(); code == fieldReplySerial {
				serial = n
			}
		case signature == "s" || signature == "o":
			if s := r.str(); code == fieldErrorName {
				errorName = s
			}
		case signature == "g":
			r.sig()
		default:
			r.err = errs.New(errs.Corrupt, "D-Bus header field of type %q", signature)
		}
	}
	return fixed[1], serial, errorName, rest[len(rest)-int(size):], r.err
}

// unmarshal reads values; the first one that does not fit sets err.
type unmarshal struct {
	b   []byte
	at  int
	err error
}

func (r *unmarshal) align(n int) { r.at = (r.at + n - 1) &^ (n - 1) }

func (r *unmarshal) take(n int) []byte {
	if r.err == nil && (n < 0 || r.at+n > len(r.b)) {
		r.err = errs.New(errs.Corrupt, "D-Bus message ends early")
	}
	if r.err != nil {
		return make([]byte, min(max(n, 0), 8))
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *unmarshal) byte() byte { return r.take(1)[0] }

func (r *unmarshal) u32() uint32 {
	r.align(4)
	return binary.LittleEndian.Uint32(r.take(4))
}

func (r *unmarshal) str() string {
	n := int(r.u32())
	s := r.take(n)
	r.take(1)
	return string(s)
}

func (r *unmarshal) sig() string {
	n := int(r.byte())
	s := r.take(n)
	r.take(1)
	return string(s)
}
