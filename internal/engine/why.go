package engine

import (
	"context"
	"os"
	osruntime "runtime"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/explain/why"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
)

// Why runs a command in a running container, as Exec does, watches its system
// calls and says of each that was refused why.
func (e *Engine) Why(ctx context.Context, ref string, cfg container.ExecConfig, streams IO) (*why.Report, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	// The thread that makes the process is the one that may trace it.
	osruntime.LockOSThread()
	defer osruntime.UnlockOSThread()
	s, err := e.exec(c, &cfg, &streams, true)
	if err != nil {
		return nil, err
	}
	if err := s.connect(&cfg, &streams); err != nil {
		return nil, err
	}
	r, err := why.Watch(&why.Subject{Record: &c.Record, State: &c.State, Rootless: e.env.Rootless}, s.proc.Pid, false, nil)
	if err != nil {
		return nil, err
	}
	s.outputs.Wait()
	return r, nil
}

// RunWhy is Run in the foreground, with the container's command watched as Why does.
func (e *Engine) RunWhy(ctx context.Context, cfg *container.Config, o CreateOptions, io *IO) (id string, warnings []string, report *why.Report, s Session, err error) {
	hold, err := state.TempFIFO()
	if err != nil {
		return "", nil, nil, nil, err
	}
	defer func() { _ = os.RemoveAll(hold.Dir) }()
	defer hold.Close()
	if err := os.Setenv(monitor.HoldVar, hold.Path); err != nil {
		return "", nil, nil, nil, err
	}
	defer os.Unsetenv(monitor.HoldVar) //nolint:errcheck // a name without a NUL
	id, warnings, s, err = e.Run(ctx, cfg, o, io)
	if err != nil {
		return id, warnings, nil, s, err
	}
	// The monitor tells of a container that lives for some milliseconds; this one
	// waits for us.
	c, err := e.announced(ctx, id)
	if err != nil {
		return id, warnings, nil, s, err
	}
	report, err = why.Watch(&why.Subject{Record: &c.Record, State: &c.State, Rootless: e.env.Rootless}, c.State.Pid, true, func() {
		_, _ = hold.Write([]byte{1}) // go
	})
	return id, warnings, report, s, err
}

// announced waits until a container that has been started is in the records.
func (e *Engine) announced(ctx context.Context, id string) (*Container, error) {
	for range 1000 {
		c, err := e.Inspect(ctx, id)
		if err == nil && c.State.Status == container.Running && c.State.Pid != 0 {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil, errs.New(errs.Unavailable, "container %s: was not announced within five seconds", id)
}
