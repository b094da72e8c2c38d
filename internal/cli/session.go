package cli

import (
	"fmt"
	"os"
	"syscall"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// follow says how a session is stayed with.
type follow struct {
	tty, stdin, sigProxy bool
	name                 string   // the container's, for messages
	signals              *signals // caught since the start; nil: not yet
}

// follow stays with a session until the process ends or the user detaches, and
// returns the exit code as an exitStatus.
//
// The terminal is made raw after the process has started: until then Ctrl-C
// ends this command, as it would any other.
func (c *call) follow(s engine.Session, f follow) error {
	if s == nil {
		return nil
	}
	stop, err := c.connect(s, f)
	if err != nil {
		return err
	}
	exit, err := s.Wait(c.ctx)
	stop()
	_ = s.Close() // the process has ended, or lives on by itself
	if err != nil {
		return err
	}
	if exit.Detached {
		fmt.Fprintln(c.err, "read escape sequence")
		return nil
	}
	if exit.OOMKilled {
		c.tellOOM(f.name, exit)
	} else if exit.Code >= 125 || exit.Signal != 0 {
		st := container.State{Status: container.Exited, ExitCode: exit.Code, Signal: exit.Signal, EndedBy: exit.By}
		c.tellEnd(f.name, st.Ended())
	}
	if exit.Code != 0 {
		return exitStatus(exit.Code)
	}
	return nil
}

// connect makes the terminal raw and passes signals and the terminal's size on
// until stop is called.
func (c *call) connect(s engine.Session, f follow) (stop func(), err error) {
	restore := func() {}
	if f.tty && f.stdin && tty.IsTerminal(c.in) {
		if restore, err = tty.MakeRaw(c.in); err != nil {
			return nil, err
		}
	}
	sigs := f.signals
	if sigs == nil {
		sigs = catch(f.sigProxy, f.tty)
	}
	if f.tty {
		c.resize(s) // it may have changed since the start; from here on we are told
	}
	sigs.pass(s, c.resize)
	return func() {
		sigs.stop()
		restore()
	}, nil
}

func (c *call) resize(s engine.Session) {
	if size := c.consoleSize(); size[0] != 0 || size[1] != 0 {
		// The process may have ended meanwhile, which is no news.
		_ = s.Resize(uint16(size[0]), uint16(size[1]))
	}
}

// proxied are the signals that are passed on. Left out: what cannot be caught;
// what tells this process about itself (SIGCHLD, SIGPIPE, SIGURG, faults, job
// control of the terminal); and, unlike Docker, SIGHUP: closing the terminal ends
// this command and leaves the container alone.
func proxied() []os.Signal {
	sigs := make([]os.Signal, 0, 64)
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGHUP, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG,
			syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV,
			syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGWINCH, syscall.SIGPROF, 32, 33:
		default:
			sigs = append(sigs, n)
		}
	}
	return sigs
}

// tellEnd says how a container ended to a person who looks on. Programs have the
// exit code, and their standard error stays the container's.
func (c *call) tellEnd(name, words string) {
	if words != "" && tty.IsTerminal(c.err) {
		fmt.Fprintf(c.err, "%s: container %q: %s\n", c.app.name, name, oneLine(words))
	}
}

// tellOOM says in one line which limit ended the container.
func (c *call) tellOOM(name string, e engine.Exit) {
	text := fmt.Sprintf("container %q: out of memory: killed", name)
	if o := e.OOM; o != nil {
		if o.Victim != "" {
			text += ": " + o.Victim
		}
		if o.Limit > 0 {
			text += " at its limit of " + binarySize(o.Limit)
		}
		if o.Peak > 0 {
			text += " (peak " + binarySize(o.Peak) + ")"
		}
		if o.Limit > 0 {
			text += "; use --memory to raise it"
		}
	}
	fmt.Fprintf(c.err, "%s: %s\n", c.app.name, oneLine(text))
}
