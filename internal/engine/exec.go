package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/tty"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/monitor/inside"
	"github.com/isle-engine/isle/internal/runtime"
	"github.com/isle-engine/isle/internal/state"
)

// Exec starts a further process in a running container and connects the caller
// to it; with cfg.Detach it returns a nil session once the process runs.
//
// The process gets what the container's init really has, read from the kernel:
// bounding set, no_new_privs, resource limits, OOM score. It can therefore not
// be weaker confined than the container.
func (e *Engine) Exec(ctx context.Context, ref string, cfg container.ExecConfig, streams IO) (Session, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	s, err := e.exec(c, &cfg, &streams, false)
	if err != nil || cfg.Detach {
		return nil, err // nobody is connected
	}
	return s, s.connect(&cfg, &streams)
}

// exec makes the process of an exec, not yet connected to anybody. With trace it is
// a tracee of the caller's thread.
func (e *Engine) exec(c *Container, cfg *container.ExecConfig, streams *IO, trace bool) (*execSession, error) {
	switch {
	case c.State.Status == container.Paused:
		return nil, errs.New(errs.Conflict, "container %s is paused, unpause the container before exec", c.ID)
	case c.State.Status == container.Restarting:
		return nil, errs.New(errs.Conflict, "container %s is restarting, wait until the container is running", c.ID)
	case !live(c.State.Status):
		return nil, errs.New(errs.Conflict, "container %s is not running", c.ID)
	}
	init, err := openInit(c)
	if err != nil {
		return nil, err
	}
	defer init.Close()
	notRunning := func() error { return errs.New(errs.Conflict, "container %s is not running", c.ID) }
	pr, filter, err := inside.Process(e.env, &c.Record, c.State.Pid, cfg)
	if err != nil {
		if dead(c.State.Pid, init, 0) { // meanwhile: its files in /proc are gone, or nobody's
			return nil, notRunning()
		}
		return nil, err
	}
	s := &execSession{}
	if err := s.prepare(cfg, streams); err != nil {
		return nil, err
	}
	target := runtime.Target{Pid: c.State.Pid, Pidfd: init}
	if c.State.Cgroup.V2 != "" || len(c.State.Cgroup.V1) > 0 {
		g := cgroup.Open(cgroup.Paths(c.State.Cgroup))
		defer g.Close() //nolint:errcheck // its directory's descriptor
		target.Cgroup = g
	}
	s.proc, err = runtime.Exec(target, pr, runtime.ExecOptions{Stdio: s.inner, Seccomp: filter, Trace: trace})
	s.closeInner()
	if err != nil {
		s.abort()
		if errs.ExitCode(err) == errs.ExitEngine { // as Docker: the process could not be made
			patience := 200 * time.Millisecond
			if _, killed := errors.AsType[*program.KilledError](err); killed { // with the container, most likely
				patience = 5 * time.Second
			}
			if dead(c.State.Pid, init, patience) {
				return nil, notRunning()
			}
			err = errs.WithExit(err, errs.ExitNotExecutable)
		}
		return nil, err
	}
	s.told = e.tellExec(c, cfg.Cmd)
	return s, nil
}

// dead reports whether the process of a pidfd has ended (pidfd_open(2)), or does
// within patience: the first process of a pid namespace that is killed takes the others
// along before it is seen to have ended (zap_pid_ns_processes).
func dead(pid int, pidfd *os.File, patience time.Duration) bool {
	// One that is on its way out has no root any more (exit_fs).
	if _, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/root"); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(patience.Milliseconds()))
	return err == nil && n == 1
}

// tellExec tells of an exec's start, and returns what tells of its end.
func (e *Engine) tellExec(c *Container, cmd []string) func(code int) {
	id, line := state.NewID(), strings.Join(cmd, " ")
	now := time.Now()
	_ = state.AppendEvents(e.env.EventLog(), // the records are the truth
		monitor.ContainerEvent(&c.Record, now, "exec_create: "+line, "execID", id),
		monitor.ContainerEvent(&c.Record, now, "exec_start: "+line, "execID", id))
	return func(code int) { e.tellContainer(&c.Record, "exec_die", "execID", id, "exitCode", strconv.Itoa(code)) }
}

// execSession connects the caller to a process that this process is the parent
// of. The process never gets the caller's own files or terminal, only pipes:
// a descriptor of a host file would let it read and change that file.
type execSession struct {
	proc     *runtime.Process
	inner    runtime.Stdio // its ends
	ours     []*os.File    // pipes' other ends, closed by abort
	stdin    *os.File      // to write to
	outputs  sync.WaitGroup
	outs     [2]*os.File // to read from
	detached chan struct{}
	told     func(code int) // tells of the end
}

// prepare makes the pipes.
func (s *execSession) prepare(cfg *container.ExecConfig, streams *IO) error {
	s.detached = make(chan struct{})
	if cfg.TTY || cfg.Detach {
		return nil
	}
	if streams.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		s.inner.In, s.stdin = r, w
		s.ours = append(s.ours, w)
	}
	for i, dst := range [...]*os.File{streams.Stdout, streams.Stderr} {
		if dst == nil {
			continue
		}
		inner := &s.inner.Out
		if i == 1 {
			inner = &s.inner.Err
		}
		if passable(dst) {
			*inner = dst
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			s.closeInner()
			s.abort()
			return err
		}
		*inner, s.outs[i] = w, r
		s.ours = append(s.ours, r)
	}
	return nil
}

// passable reports whether a container may have f itself: a pipe or a socket
// is no more than what a relay would give it, and saves the copying.
func passable(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	t := st.Mode & unix.S_IFMT
	return t == unix.S_IFIFO || t == unix.S_IFSOCK || t == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// closeInner closes the process's ends of our pipes; it has its own.
func (s *execSession) closeInner() {
	if s.inner.In != nil {
		_ = s.inner.In.Close() // a pipe end of ours
	}
	for i, f := range [...]*os.File{s.inner.Out, s.inner.Err} {
		if f != nil && s.outs[i] != nil {
			_ = f.Close() // a pipe end of ours
		}
	}
}

// abort closes what prepare opened.
func (s *execSession) abort() {
	for _, f := range s.ours {
		_ = f.Close() // a pipe that nobody used
	}
}

// connect starts to pass the streams.
func (s *execSession) connect(cfg *container.ExecConfig, streams *IO) error {
	in := streams.Stdin
	if s.proc.Console != nil {
		s.stdin, s.outs[0] = s.proc.Console, s.proc.Console
		if in != nil {
			r, err := tty.NewDetachReader(in, cfg.DetachKeys)
			if err != nil {
				return err
			}
			in = r
		}
	}
	if in != nil {
		go func() {
			_, err := io.Copy(s.stdin, in)
			if s.proc.Console == nil {
				_ = s.stdin.Close() // its input ends
			}
			if errors.Is(err, tty.ErrDetached) {
				close(s.detached)
			}
		}()
	}
	for i, dst := range [...]*os.File{streams.Stdout, streams.Stderr} {
		if src := s.outs[i]; src != nil && dst != nil {
			s.outputs.Go(func() {
				_, _ = io.Copy(dst, src) // EIO ends a terminal; a reader that went away is its own affair
			})
		}
	}
	return nil
}

// Wait returns when the process has ended and all it wrote has been passed on.
func (s *execSession) Wait(ctx context.Context) (Exit, error) {
	done := make(chan error, 1)
	var code int
	go func() {
		var err error
		if code, err = waitExit(s.proc.Pid); err == nil {
			s.outputs.Wait()
			s.told(code)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return Exit{Code: code}, err
	case <-s.detached:
		return Exit{Detached: true}, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// waitExit reaps pid, a child of this process, and returns its exit code, 128
// and the signal's number for one that a signal ended.
func waitExit(pid int) (int, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		default:
			return ws.ExitStatus(), nil
		}
	}
}

// Signal sends the process a signal.
func (s *execSession) Signal(sig os.Signal) error {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return nil
	}
	return unix.PidfdSendSignal(int(s.proc.Pidfd.Fd()), n, nil, 0)
}

// Resize sets the size of the process's terminal.
func (s *execSession) Resize(rows, cols uint16) error {
	if s.proc.Console == nil {
		return nil
	}
	return tty.SetSize(s.proc.Console, rows, cols)
}

// Close lets go of the process.
func (s *execSession) Close() error { return nil }
