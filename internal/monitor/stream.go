package monitor

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/tty"
	"github.com/isle-engine/isle/internal/monitor/log"
)

// output is one stream that the container writes to.
type output struct {
	fd     int // reading end of its pipe, or the terminal's master; -1 at its end
	index  int // 0 stdout, 1 stderr
	stream *log.Stream
}

// input is what the container reads from.
type input struct {
	fd      int // writing end of its pipe, or the terminal's master; -1: no input, or it has ended
	tty     bool
	eof     bool   // end it once pending is written
	pending []byte // typed, not yet taken by the container
}

// chunk is how much output is read at once.
const chunk = 64 << 10

// streams are the container's ends of its standard streams.
type streams struct {
	files [3]*os.File // stdin, stdout, stderr for the container; nil with a terminal
}

func (s *streams) close() {
	for i, f := range s.files {
		if f != nil {
			_ = f.Close() // the container has its own
			s.files[i] = nil
		}
	}
}

// openStreams makes the container's streams, except for a terminal, which the
// container's own devpts gives (see setConsole). stdin is the client's pipe, if one came
// with the start.
func (m *monitor) openStreams(first *peer) (*streams, error) {
	s := &streams{}
	m.in = input{fd: -1, tty: m.rec.Config.TTY}
	if m.rec.Config.TTY {
		return s, nil
	}
	fail := func(err error) (*streams, error) {
		s.close()
		m.closeStreams()
		return nil, os.NewSyscallError("pipe2", err)
	}
	switch {
	case !m.rec.Config.OpenStdin:
		// The runtime gives it /dev/null.
	case first != nil && first.stdin >= 0:
		// The client that starts the container is its input: its pipe goes to
		// the container as it is, and its end is the container's end of file.
		_ = unix.SetNonblock(first.stdin, false) // a container expects plain reads
		s.files[0] = os.NewFile(uintptr(first.stdin), "stdin")
		first.stdin = -1
		m.once = true
	case m.once:
		// It has read its input to the end; started again, it finds the end.
	default:
		r, w, err := pipe()
		if err != nil {
			return fail(err)
		}
		s.files[0] = os.NewFile(uintptr(r), "stdin")
		m.in.fd = w
	}
	for i, name := range [...]string{"stdout", "stderr"} {
		r, w, err := pipe()
		if err != nil {
			return fail(err)
		}
		m.outs = append(m.outs, &output{fd: r, index: i, stream: m.log.Stream(name)})
		s.files[1+i] = os.NewFile(uintptr(w), name)
	}
	return s, nil
}

// pipe returns a pipe whose end on our side is chosen by the caller to be
// non-blocking: the two ends are separate open files.
func pipe() (r, w int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, err
	}
	return p[0], p[1], nil
}

// adoptStreams finishes the streams of a container that runs.
func (m *monitor) adoptStreams() {
	for _, o := range m.outs {
		_ = unix.SetNonblock(o.fd, true) // a valid descriptor
	}
	if m.in.fd >= 0 && !m.in.tty {
		_ = unix.SetNonblock(m.in.fd, true)
	}
}

// setConsole takes over the master of the container's terminal. The other end is
// held open as well, so that a moment at which the container has it closed does
// not look like the end.
func (m *monitor) setConsole(master *os.File, rows, cols uint16) error {
	m.console = master
	fd := raw(master)
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	if rows != 0 || cols != 0 {
		if err := tty.SetSize(master, rows, cols); err != nil {
			return err
		}
	}
	peer, err := tty.Peer(master)
	if err != nil {
		return err
	}
	m.consolePeer = peer
	m.in.fd = fd
	m.outs = append(m.outs, &output{fd: fd, index: 0, stream: m.log.Stream("stdout")})
	return nil
}

// closeStreams closes the monitor's ends.
func (m *monitor) closeStreams() {
	for _, o := range m.outs {
		if o.fd >= 0 && m.console == nil {
			_ = unix.Close(o.fd) // a reading end
		}
	}
	m.outs = nil
	if m.in.fd >= 0 && m.console == nil {
		_ = unix.Close(m.in.fd) // nothing is pending, or nobody to read it
	}
	m.in.fd = -1
	if m.consolePeer != nil {
		_ = m.consolePeer.Close() // never written to
		m.consolePeer = nil
	}
	if m.console != nil {
		_ = m.console.Close() // its container is gone
		m.console = nil
	}
}

// read takes output that is there: at most one chunk, so that no stream keeps
// the loop from the others. It reports whether there may be more.
func (m *monitor) read(o *output) bool {
	if m.buf == nil {
		m.buf = make([]byte, chunk)
	}
	n, err := unix.Read(o.fd, m.buf)
	switch {
	case err == unix.EINTR:
		return true
	case err == unix.EAGAIN:
		return false
	case err != nil || n == 0:
		// EIO: nobody has the terminal open any more, not even we ourselves.
		m.endOutput(o)
		return false
	}
	p := m.buf[:n]
	o.stream.Write(p, time.Now())
	m.flush()
	for _, c := range m.peers {
		if s := c.outs[o.index]; s != nil {
			s.write(p)
		}
	}
	return true
}

// flush writes the log. A log that cannot be written (a full disk) must not stop
// the container; what went wrong is in its state.
func (m *monitor) flush() {
	if err := m.log.Flush(); err != nil && m.logErr == "" {
		m.logErr = err.Error()
	}
}

func (m *monitor) endOutput(o *output) {
	o.stream.Close(time.Now())
	m.flush()
	if m.console == nil {
		_ = unix.Close(o.fd) // a reading end
	}
	o.fd = -1
}

// blocked reports whether a client is so far behind that output must wait.
func (m *monitor) blocked() bool {
	for _, p := range m.peers {
		for _, s := range p.sinks {
			if s.full() {
				return true
			}
		}
	}
	return false
}

// typed takes input from a client's pipe.
func (m *monitor) typed(p *peer) {
	var buf [4096]byte
	n, err := unix.Read(p.stdin, buf[:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if n > 0 {
		m.in.pending = append(m.in.pending, buf[:n]...)
		m.feed()
		return
	}
	_ = unix.Close(p.stdin) // a reading end
	p.stdin = -1
}

// feed gives the container what it takes of the pending input.
func (m *monitor) feed() {
	for len(m.in.pending) > 0 && m.in.fd >= 0 {
		n, err := unix.Write(m.in.fd, m.in.pending)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			m.endInput()
			return
		}
		m.in.pending = m.in.pending[n:]
	}
	m.in.pending = nil
	if m.in.eof {
		m.endInput()
	}
}

// endInput closes the container's input: its clients get EPIPE.
func (m *monitor) endInput() {
	m.in.pending = nil
	if m.in.tty {
		return // ends with its terminal
	}
	if m.in.fd >= 0 {
		_ = unix.Close(m.in.fd) // what it has not taken it does not want
		m.in.fd = -1
	}
	for _, p := range m.peers {
		if p.stdin >= 0 {
			_ = unix.Close(p.stdin) // a reading end
			p.stdin = -1
		}
	}
}

// replay gives a client first what the log holds, then what comes from now on.
func (m *monitor) replay(p *peer) {
	m.flush()
	for i, name := range [...]string{"stdout", "stderr"} {
		s := p.outs[i]
		if s == nil {
			continue
		}
		past, err := log.Open(m.dir, m.id, m.logDriver())
		if err != nil {
			continue // a log that cannot be read replays nothing; isle logs says why
		}
		s.mu.Lock()
		for _, o := range m.outs {
			if o.index == i {
				s.pending = append(s.pending, o.stream.Unfinished()...)
			}
		}
		s.front = func(write func([]byte) bool) {
			defer past.Close()
			_ = past.Each(background(), func(e *log.Entry) error { // it fails when the client is gone
				if e.Stream == name && !write(e.Line) {
					return errs.Canceled
				}
				return nil
			})
		}
		s.start()
		s.mu.Unlock()
	}
}
