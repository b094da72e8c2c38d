package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/tty"
	"github.com/isle-engine/isle/internal/monitor"
)

// session connects the caller to a container through its monitor. The monitor
// writes to the caller's own streams; only input passes through this process,
// because it has to see the detach keys.
type session struct {
	conn     *monitor.Conn
	io       *IO
	tty      bool
	stdin    *os.File // reading end, for the monitor; nil: no input
	input    *os.File // writing end
	detached chan struct{}
}

func newSession(conn *monitor.Conn, rec *container.Record, io *IO) (*session, error) {
	s := &session{conn: conn, io: io, tty: rec.Config.TTY, detached: make(chan struct{})}
	if io != nil && io.Stdin != nil && rec.Config.OpenStdin {
		var err error
		if s.stdin, s.input, err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// attach is what the monitor shall connect; nil for a detached start.
func (s *session) attach() *monitor.Attach {
	if s.io == nil {
		return nil
	}
	return &monitor.Attach{Stdin: s.stdin, Stdout: s.io.Stdout, Stderr: s.io.Stderr, Logs: s.io.Logs}
}

// starting is what to do while the monitor starts the container.
func (s *session) starting() func() {
	if s.io == nil {
		return nil
	}
	return s.io.Starting
}

// pump starts to pass input on. The monitor has its own copy of the reading end.
func (s *session) pump() error {
	if s.stdin == nil {
		return nil
	}
	if err := s.stdin.Close(); err != nil {
		return err
	}
	in := s.io.Stdin
	if s.tty {
		r, err := tty.NewDetachReader(in, s.io.DetachKeys)
		if err != nil {
			return err
		}
		in = r
	}
	go func() {
		_, err := io.Copy(s.input, in)
		_ = s.input.Close() // the container sees the end of its input
		if errors.Is(err, tty.ErrDetached) {
			close(s.detached)
		}
	}()
	return nil
}

// Wait returns when the container has ended or the user has detached.
func (s *session) Wait(ctx context.Context) (Exit, error) {
	type result struct {
		exit monitor.Exit
		err  error
	}
	if s.stdin == nil { // nothing to detach by: no goroutine
		exit, err := s.conn.Wait(ctx)
		return Exit{Code: exit.Code, OOMKilled: exit.OOMKilled, OOM: exit.OOM, Signal: exit.Signal, By: exit.By}, err
	}
	done := make(chan result, 1)
	go func() {
		exit, err := s.conn.Wait(ctx)
		done <- result{exit, err}
	}()
	select {
	case r := <-done:
		return Exit{Code: r.exit.Code, OOMKilled: r.exit.OOMKilled, OOM: r.exit.OOM, Signal: r.exit.Signal, By: r.exit.By}, r.err
	case <-s.detached:
		return Exit{Detached: true}, s.conn.Close()
	}
}

// Signal passes a signal on to the container's init.
func (s *session) Signal(sig os.Signal) error {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return nil
	}
	return s.conn.Signal(n)
}

// Resize tells the container's terminal its size.
func (s *session) Resize(rows, cols uint16) error { return s.conn.Resize(rows, cols) }

// Close lets go of the container.
func (s *session) Close() error { return s.conn.Close() }
