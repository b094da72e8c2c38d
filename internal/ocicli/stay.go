package ocicli

import (
	"errors"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/tty"
	"github.com/isle-engine/isle/internal/runtime"
)

// stay makes the container, waits for its end, and deletes it.
func (l *launch) stay() (Err error) {
	c := l.c
	w := newWatch(!c.flags.on("no-subreaper"), c)
	if err := l.begin(false); err != nil {
		return err
	}
	err := l.finish(false)
	l.ct.close() // others may look at it, and kill it
	if err != nil {
		l.abandon()
		return err
	}
	if l.notify != nil {
		// The service is ready when the container says so; this process goes on
		// relaying, so it is the service's main one.
		go l.notify.relay(l.proc.Pid, os.Getpid(), c)
	}
	code, err := w.wait(l.proc, l.master)
	if !c.flags.on("keep") {
		if derr := l.remove(); derr != nil && err == nil {
			c.log.warn("%v", derr)
		}
	}
	if err != nil {
		return err
	}
	return exitCode(code)
}

// remove deletes the container after its end, unless somebody has done it.
func (l *launch) remove() error {
	ct, err := change(l.c.root, l.ct.ID)
	if errors.Is(err, errNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ct.close()
	return l.c.destroy(ct)
}

// watch is what a process does that stays with a container's: it passes signals
// on, reaps, and relays the terminal.
type watch struct {
	c       *call
	signals chan os.Signal
}

func newWatch(reaper bool, c *call) *watch {
	if reaper {
		// Orphans of a container without a pid namespace come to us.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			c.log.warn("prctl PR_SET_CHILD_SUBREAPER: %v", err)
		}
	}
	w := &watch{c: c, signals: make(chan os.Signal, 64)}
	signal.Notify(w.signals) // all of them
	return w
}

// wait returns the exit code of proc. Its terminal, if it has one, is connected
// to the caller's.
func (w *watch) wait(proc *runtime.Process, master *os.File) (int, error) {
	var resize func()
	if master != nil {
		done, fit, err := relay(master)
		if err != nil {
			_ = unix.PidfdSendSignal(int(proc.Pidfd.Fd()), unix.SIGKILL, nil, 0)
			return -1, err
		}
		defer done()
		resize = fit
		resize()
	}
	// It may have ended before the first signal could tell.
	if code, ended := w.reap(proc.Pid); ended {
		return code, nil
	}
	for s := range w.signals {
		switch s {
		case unix.SIGCHLD:
			if code, ended := w.reap(proc.Pid); ended {
				return code, nil
			}
		case unix.SIGWINCH:
			if resize != nil {
				resize()
			}
		case unix.SIGURG: // the Go runtime's own
		case unix.SIGPIPE: // from our own writing; the container has its own pipes
		default:
			sig, ok := s.(unix.Signal)
			if !ok {
				continue
			}
			w.c.log.debugf("forwarding signal %d (%s) to %d", int(sig), unix.SignalName(sig), proc.Pid)
			if err := unix.PidfdSendSignal(int(proc.Pidfd.Fd()), sig, nil, 0); err != nil && err != unix.ESRCH {
				w.c.log.error(err)
			}
		}
	}
	return -1, nil
}

// reap reaps every process that has ended; ended is true when pid is one.
func (w *watch) reap(pid int) (code int, ended bool) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got <= 0 {
			return code, ended
		}
		w.c.log.debugf("process %d exited", got)
		if got != pid {
			continue
		}
		ended = true
		if code = ws.ExitStatus(); ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	}
}

// relay connects the terminal master to this process's own terminal. done ends
// it: what the container has written comes out first.
func relay(master *os.File) (done, resize func(), err error) {
	host, err := ownTerminal()
	if err != nil {
		return nil, nil, err
	}
	restore, err := tty.MakeRaw(host)
	if err != nil {
		return nil, nil, err
	}
	out := make(chan struct{})
	go func() {
		_, _ = io.Copy(os.Stdout, master) // EIO: the other end is closed
		close(out)
	}()
	go func() {
		_, _ = io.Copy(master, os.Stdin)
	}()
	resize = func() {
		if rows, cols, err := tty.Size(host); err == nil {
			_ = tty.SetSize(master, rows, cols) // it has ended
		}
	}
	return func() {
		<-out
		restore()
	}, resize, nil
}

// ownTerminal finds the caller's terminal.
func ownTerminal() (*os.File, error) {
	for _, f := range [...]*os.File{os.Stderr, os.Stdout, os.Stdin} {
		if tty.IsTerminal(f) {
			return f, nil
		}
	}
	return os.OpenFile("/dev/tty", os.O_RDWR, 0)
}
