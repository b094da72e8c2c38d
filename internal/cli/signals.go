package cli

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/isle-engine/isle/internal/engine"
)

// signals passes signals on to a process in a container.
//
// To catch one signal costs the Go runtime some 20 µs and several switches
// between threads, so the sixty that Docker passes on would cost more than
// the container. Those that people and init systems send are caught at once,
// while the monitor is busy with the start; the others a moment later.
type signals struct {
	ch   chan os.Signal
	done chan struct{}
}

// catch begins to catch signals: those to be passed on, if proxy is set, and
// changes of the terminal's size, if size is set.
func catch(proxy, size bool) *signals {
	s := &signals{ch: make(chan os.Signal, 128), done: make(chan struct{})}
	var first []os.Signal
	if proxy {
		first = append(first, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	}
	if size {
		first = append(first, syscall.SIGWINCH)
	}
	if len(first) == 0 {
		return s
	}
	go func() {
		signal.Notify(s.ch, first...)
		if !proxy {
			return
		}
		select {
		case <-s.done:
		case <-time.After(50 * time.Millisecond):
			signal.Notify(s.ch, proxied()...)
		}
	}()
	return s
}

// pass sends what is caught to the session until stop.
func (s *signals) pass(to engine.Session, resize func(engine.Session)) {
	go func() {
		for {
			select {
			case <-s.done:
				return
			case sig := <-s.ch:
				if sig == syscall.SIGWINCH {
					resize(to)
					continue
				}
				// A process that has just ended cannot be told; Wait returns next.
				_ = to.Signal(sig)
			}
		}
	}()
}

// stop ends the passing. The signals stay caught: this command is about to end,
// and giving each back would cost what catching it did.
func (s *signals) stop() { close(s.done) }
