package monitor

import (
	"sync"

	"golang.org/x/sys/unix"
)

// maxPending is how much output a client may be behind before the container's
// output is not read any more.
const maxPending = 256 << 10

// sink is one output stream of one client. The descriptor is shared with
// whoever else has the user's terminal or pipe, so its mode must not be changed
// and a write to it may block. The loop writes itself only where that cannot
// happen; what is left is written by a goroutine that ends when it is done.
type sink struct {
	fd    int
	kind  sinkKind
	wake  func() // makes the loop look again; any goroutine may call it
	front func(write func([]byte) bool)

	mu      sync.Mutex
	pending []byte
	spare   []byte
	running bool // the goroutine owns fd
	dead    bool // nobody reads; fd is closed, or will be by the goroutine
}

type sinkKind uint8

const (
	mayBlock    sinkKind = iota
	neverBlocks          // a regular file, /dev/null
	emptyPipe            // a pipe: does not block when it is empty and the data is small
)

func newSink(fd int, wake func()) *sink {
	s := &sink{fd: fd, wake: wake}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return s
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.kind = neverBlocks
	case unix.S_IFIFO:
		s.kind = emptyPipe
	case unix.S_IFCHR:
		if unix.Major(st.Rdev) == 1 { // /dev/null, /dev/zero, /dev/full …
			s.kind = neverBlocks
		}
	}
	return s
}

// write passes output on, or remembers it.
func (s *sink) write(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return
	}
	if !s.running && s.canWrite(len(p)) {
		if !writeAll(s.fd, p) {
			s.drop()
		}
		return
	}
	s.pending = append(s.pending, p...)
	s.start()
}

func (s *sink) start() {
	if !s.running {
		s.running = true
		go s.run()
	}
}

// canWrite reports whether writing n bytes now surely does not block.
func (s *sink) canWrite(n int) bool {
	switch s.kind {
	case mayBlock:
	case neverBlocks:
		return true
	case emptyPipe:
		// An empty pipe has room for a page even if another writer comes
		// in between; a full one has not.
		used, err := unix.IoctlGetInt(s.fd, unix.TIOCINQ)
		return err == nil && used == 0 && n <= 4096
	}
	return false
}

// run writes what is pending, in a goroutine of its own, until there is nothing.
func (s *sink) run() {
	ok := true
	if s.front != nil {
		s.front(func(p []byte) bool {
			ok = ok && writeAll(s.fd, p) && !s.isDead()
			return ok
		})
		s.front = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ok && !s.dead && len(s.pending) > 0 {
		p := s.pending
		s.pending = s.spare[:0]
		s.mu.Unlock()
		ok = writeAll(s.fd, p)
		s.wake()
		s.mu.Lock()
		s.spare = p
	}
	s.running = false
	if !ok || s.dead {
		s.dead = false // so that drop closes the descriptor
		s.drop()
	}
	s.pending, s.spare = nil, nil
	s.wake()
}

func (s *sink) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// close forgets the client's stream. A goroutine that hangs in a write closes
// the descriptor when it comes back.
func (s *sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

func (s *sink) drop() {
	if !s.dead && !s.running {
		_ = unix.Close(s.fd) // what could not be written is known by now
	}
	s.dead = true
	s.pending = nil
}

// full reports whether the container's output must wait.
func (s *sink) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dead && len(s.pending) >= maxPending
}

// idle reports whether everything is written, or nobody is left to read it.
func (s *sink) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead || !s.running && len(s.pending) == 0
}

// writeAll reports whether all of p was written. EPIPE, EIO of a terminal
// that is gone, ENOSPC: whatever it is, this client gets no more.
func writeAll(fd int, p []byte) bool {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			// The client has made it non-blocking; wait as if it were not.
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil && err != unix.EINTR {
				return false
			}
		case err != nil:
			return false
		default:
			p = p[n:]
		}
	}
	return true
}
