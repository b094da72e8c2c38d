package monitor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// peer is a client's connection, as the monitor sees it.
type peer struct {
	fd       int
	attached bool
	waits    bool    // wants 'X' at the final end
	stops    bool    // wants 'a' at the final end
	sinks    []*sink // stdout and stderr, as far as given
	outs     [2]*sink
	stdin    int    // reading end of the client's pipe, or -1
	last     []byte // the message to send when the sinks are empty, and then the end
}

// accept takes new clients.
func (m *monitor) accept() {
	for {
		fd, _, err := unix.Accept4(m.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return
		}
		if !trusted(fd) {
			_ = unix.Close(fd) // nothing was said
			continue
		}
		m.peers = append(m.peers, &peer{fd: fd, stdin: -1})
		if m.proc != nil && m.timers[timerShrink].IsZero() {
			m.set(timerShrink, shrinkRetry)
		}
	}
}

// trusted reports whether the process at the other end is the user's own, or root's.
func trusted(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && (int(cred.Uid) == unix.Geteuid() || cred.Uid == 0)
}

// hear handles what a client says. It reports whether the client is still there.
func (m *monitor) hear(p *peer) bool {
	m.know()
	for {
		n, files, err := recv(p.fd, m.msg[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return true
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		m.handle(p, m.msg[:n], files)
	}
}

// handle carries out one request. It owns files.
func (m *monitor) handle(p *peer, b []byte, files []int) {
	if b[0] == msgAttach && len(b) == 2 {
		if err := m.attach(p, b[1], files); err != nil {
			p.answer(encodeError(err))
			return
		}
		m.note("attach")
		p.answer([]byte{msgAck})
		return
	}
	closeFDs(files)
	switch b[0] {
	case msgWait:
		if m.exit != nil && p.last == nil {
			p.last = m.exit
			return
		}
		p.waits = true
	case msgStop:
		sig, timeout, ok := decodeStop(b)
		if !ok {
			p.answer(encodeError(errs.New(errs.Invalid, "monitor: malformed stop")))
			return
		}
		p.stops = true
		m.sent = sent{unix.Signal(sig), "isle stop"}
		if unix.Signal(sig) == unix.SIGKILL {
			m.sent.by = "isle kill"
		}
		m.stop(unix.Signal(sig), timeout)
	case msgKill:
		if len(b) == 2 {
			m.wished()
			m.sent = sent{unix.Signal(b[1]), "isle kill"}
			err := m.signal(unix.Signal(b[1]))
			if err == nil {
				m.noteSignal(unix.Signal(b[1]))
				m.tell()
			}
			p.reply(err)
		}
	case msgSignal:
		if len(b) == 2 {
			m.sent = sent{unix.Signal(b[1]), "whoever watched it (the terminal, or a signal to isle run)"}
			_ = m.signal(unix.Signal(b[1])) // nobody waits for an answer
		}
	case msgPause:
		if len(b) == 2 {
			err := m.pause(b[1] != 0)
			m.tell() // before the client knows
			p.reply(err)
		}
	case msgUpdate:
		p.reply(m.reload())
	case msgNetwork:
		p.reply(m.changeNetwork(b[1:]))
	case msgHealth:
		p.answer(encodeHealth(m.st.Health))
	case msgResize:
		if len(b) == 5 && m.console != nil {
			m.size = [2]uint16{binary.LittleEndian.Uint16(b[1:]), binary.LittleEndian.Uint16(b[3:])}
			_ = tty.SetSize(m.console, m.size[0], m.size[1]) // a terminal that is gone has no size
		}
	default:
		p.answer(encodeError(errs.New(errs.Unsupported, "monitor: unknown request %q", b[0])))
	}
}

// attach gives a client the container's streams.
func (m *monitor) attach(p *peer, flags byte, files []int) error {
	var fds [3]int
	n := 0
	for i := range fds {
		fds[i] = -1
		if flags&(flagStdin<<i) != 0 && n < len(files) {
			fds[i] = files[n]
			n++
		}
	}
	closeFDs(files[n:])
	if p.attached || m.ended {
		closeFDs(files[:n])
		return errs.New(errs.Conflict, "attach: the container has ended, or the client is attached already")
	}
	p.attached = true
	if fds[0] >= 0 {
		if m.proc != nil && m.in.fd < 0 {
			_ = unix.Close(fds[0]) // there is none; the client learns it as EPIPE
		} else {
			p.stdin = fds[0]
			_ = unix.SetNonblock(p.stdin, true) // ours alone: the client sent its only copy, or keeps one it does not read
		}
	}
	for i, fd := range fds[1:] {
		if fd < 0 {
			continue
		}
		s := newSink(fd, m.poke)
		p.sinks = append(p.sinks, s)
		p.outs[i] = s
	}
	if flags&flagLogs != 0 {
		m.replay(p)
	}
	return nil
}

func (p *peer) answer(b []byte) {
	// A client that does not read its answers is dropped when it hangs up.
	_ = send(p.fd, b, unix.MSG_DONTWAIT)
}

func (p *peer) reply(err error) {
	if err != nil {
		p.answer(encodeError(err))
		return
	}
	p.answer([]byte{msgAck})
}

// settle sends a client its last message once its output is written, and
// reports whether that is done.
func (p *peer) settle() bool {
	if p.last == nil {
		return false
	}
	for _, s := range p.sinks {
		if !s.idle() {
			return false
		}
	}
	p.answer(p.last)
	return true
}

// leave forgets a client.
func (p *peer) leave() {
	for _, s := range p.sinks {
		s.close()
	}
	if p.stdin >= 0 {
		_ = unix.Close(p.stdin) // a reading end
		p.stdin = -1
	}
	_ = unix.Close(p.fd) // everything was sent
	p.fd = -1
}

// encodeExit is 'X'. What most containers have none of is JSON behind the rest.
func encodeExit(e Exit) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{msgExit}, uint32(e.Code))
	b = append(b, byte(e.Signal), 0)
	if e.OOMKilled {
		b[len(b)-1] = 1
	}
	if e.OOM == nil && e.Error == "" && e.By == "" {
		return b
	}
	more, err := json.Marshal(e)
	if err != nil || len(b)+len(more) > maxMessage {
		return b // a struct of numbers and strings always encodes; its text may be too long
	}
	return append(b, more...)
}

// listen makes the control socket and its directory.
func listen(path string) (int, error) {
	if err := unix.Mkdir(filepath.Dir(path), 0o700); err != nil && err != unix.EEXIST {
		return -1, &os.PathError{Op: "mkdir", Path: filepath.Dir(path), Err: err}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	name, done, err := shortPath(path)
	if err != nil {
		_ = unix.Close(fd) // new
		return -1, err
	}
	defer done()
	// bind(2) takes the mode from the socket, so that nobody ever sees it wider.
	_ = unix.Fchmod(fd, 0o600) // the directory is private anyway
	// The lock is ours, so a socket that is there is a dead monitor's.
	_ = unix.Unlink(path)
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		_ = unix.Close(fd) // new
		return -1, errs.New(errs.KindOf(err), "listen on %q: %w", path, err)
	}
	return fd, nil
}

// now is the time for records, without the monotonic part.
func now() time.Time { return time.Now().UTC().Round(0) }
