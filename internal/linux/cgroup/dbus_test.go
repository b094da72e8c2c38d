package cgroup

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// serve answers one connection on a new socket: handshake says what follows the
// client's, answers are whole messages, one batch for each call.
func serve(t *testing.T, handshake string, answers ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		c, _, err := unix.Accept(fd)
		if err != nil {
			return
		}
		defer func() { _ = unix.Close(c) }()
		buf := make([]byte, 65536)
		if _, err := unix.Read(c, buf); err != nil {
			return
		}
		_, _ = unix.Write(c, []byte(handshake))
		for _, a := range answers {
			if _, err := unix.Read(c, buf); err != nil {
				return
			}
			_, _ = unix.Write(c, a)
		}
	}()
	t.Cleanup(func() {
		_ = unix.Close(fd)
		<-done
	})
	return path
}

const welcome = "DATA\r\nOK 1234deadbeef\r\n"

// reply builds a message as a server sends it.
func reply(kind byte, serial uint32, errorName, signature string, body marshal) []byte {
	h := marshal{[]byte{'l', kind, 0, 1}}
	h.u32(uint32(len(body.b)))
	h.u32(99)
	h.array(8, func() {
		h.align(8)
		h.b = append(h.b, fieldReplySerial)
		h.sig("u")
		h.u32(serial)
		if errorName != "" {
			h.align(8)
			h.b = append(h.b, fieldErrorName)
			h.sig("s")
			h.str(errorName)
		}
		h.align(8)
		h.b = append(h.b, fieldSignature)
		h.sig("g")
		h.sig(signature)
	})
	h.align(8)
	return append(h.b, body.b...)
}

func TestBusCall(t *testing.T) {
	var ok, refused marshal
	ok.str("/the/job")
	refused.str("no such unit")
	signal := reply(4, 77, "", "s", ok)
	path := serve(t, welcome,
		append(signal, reply(typeReturn, 1, "", "o", ok)...),
		reply(typeError, 2, "org.freedesktop.systemd1.NoSuchUnit", "s", refused),
	)
	b, err := dialBus(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	m := &manager{b, false}
	body, err := m.method("First", "", marshal{})
	r := unmarshal{b: body}
	if got := r.str(); err != nil || r.err != nil || got != "/the/job" {
		t.Errorf("%q, %v, %v", got, err, r.err)
	}
	_, err = m.method("Second", "", marshal{})
	if !busErrorIs(err, ".NoSuchUnit") || err.Error() != "Second: no such unit" {
		t.Errorf("%v", err)
	}
	if _, err = m.method("Third", "", marshal{}); errs.KindOf(err) != errs.Unavailable && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("closed: %v", err)
	}
}

func TestBusRefuses(t *testing.T) {
	if _, err := dialBus(filepath.Join(t.TempDir(), "none"), true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := dialBus(serve(t, "REJECTED EXTERNAL\r\n"), true); errs.KindOf(err) != errs.Denied {
		t.Errorf("%v", err)
	}
	if _, err := dialBus(serve(t, strings.Repeat("x", 300)), true); errs.KindOf(err) != errs.Corrupt {
		t.Errorf("%v", err)
	}
}

// TestMarshal checks the wire format by an example of the specification's kind:
// alignment is counted from the start of the message.
func TestMarshal(t *testing.T) {
	var m marshal
	m.str("ab") // 4 + 3
	m.array(8, func() {
		m.property("P", "au", func() { m.array(4, func() { m.u32(7) }) })
	})
	m.u64(1)
	want := []byte{
		2, 0, 0, 0, 'a', 'b', 0, 0,
		20, 0, 0, 0, 0, 0, 0, 0, // the length leaves out the padding before the first element
		1, 0, 0, 0, 'P', 0, 2, 'a',
		'u', 0, 0, 0, 4, 0, 0, 0,
		7, 0, 0, 0, 0, 0, 0, 0,
		1, 0, 0, 0, 0, 0, 0, 0,
	}
	if string(m.b) != string(want) {
		t.Errorf("\n got % x\nwant % x", m.b, want)
	}
}

// FuzzBus feeds replies to the client.
func FuzzBus(f *testing.F) {
	var body marshal
	body.str("text")
	f.Add(reply(typeReturn, 1, "", "s", body))
	f.Add(reply(typeError, 1, "a.b", "s", body))
	f.Fuzz(func(t *testing.T, data []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fds[1], append(data, binary.LittleEndian.AppendUint32(nil, 0)...)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Shutdown(fds[1], unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		b := &bus{fd: fds[0], direct: true}
		for range 10 {
			if _, _, _, _, err := b.next(); err != nil {
				break
			}
		}
		b.close()
		_ = unix.Close(fds[1])
	})
}
