package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor"
)

// Stop asks a container to end, by signal ("" is the container's own stop
// signal), and kills it when it is still there after timeout seconds (nil: the
// container's own, ten; negative: never). A container that does not run is left as it is.
func (e *Engine) Stop(ctx context.Context, ref, signal string, timeout *int) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if !live(c.State.Status) {
		return nil
	}
	if signal == "" {
		signal = c.Config.StopSignal
	}
	if signal == "" {
		signal = c.Image.Config.StopSignal
	}
	if signal == "" {
		signal = "SIGTERM"
	}
	sig, err := container.ParseSignal(signal)
	if err != nil {
		return err
	}
	if timeout == nil {
		timeout = c.Config.StopTimeout
	}
	wait := 10 * time.Second
	if timeout != nil {
		wait = time.Duration(*timeout) * time.Second
	}
	conn, err := monitor.Dial(e.env, c.ID)
	if err != nil {
		return e.afterDial(ctx, c, err)
	}
	defer conn.Close() //nolint:errcheck // all has been said
	if err := conn.Stop(ctx, sig, wait); err != nil {
		return e.afterDial(ctx, c, err)
	}
	return nil
}

// afterDial makes sense of a monitor that does not answer: when it is gone, the
// container is gone with it and its record is set right. One that is about to go
// has closed its socket already but not yet written down the end.
func (e *Engine) afterDial(ctx context.Context, c *Container, cause error) error {
	for end := time.Now().Add(patience); ; {
		now, err := e.load(c.ID)
		if errors.Is(err, errs.NotFound) {
			return nil // --rm
		}
		if err == nil && !live(now.State.Status) {
			return nil
		}
		ending := errors.Is(cause, errs.Unavailable) || errors.Is(cause, errs.NotFound)
		if err != nil || !ending || time.Now().After(end) {
			return fmt.Errorf("container %q: %w", c.Config.Name, errors.Join(cause, err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Kill sends a signal to a running container's init ("" is SIGKILL).
func (e *Engine) Kill(ctx context.Context, ref, signal string) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if signal == "" {
		signal = "SIGKILL"
	}
	sig, err := container.ParseSignal(signal)
	if err != nil {
		return err
	}
	if !live(c.State.Status) {
		return errs.New(errs.Conflict, "cannot kill container: %s: container %s is not running", ref, c.ID)
	}
	if sig == unix.SIGKILL {
		return e.kill(ctx, c)
	}
	conn, err := monitor.Dial(e.env, c.ID)
	if err != nil {
		return e.afterDial(ctx, c, err)
	}
	defer conn.Close() //nolint:errcheck // all has been said
	if err := conn.Kill(ctx, sig); err != nil {
		return e.afterDial(ctx, c, err)
	}
	return nil
}

// kill ends a container at once and returns after its monitor has recorded that.
func (e *Engine) kill(ctx context.Context, c *Container) error {
	conn, err := monitor.Dial(e.env, c.ID)
	if err != nil {
		return e.afterDial(ctx, c, err)
	}
	defer conn.Close() //nolint:errcheck // all has been said
	if err := conn.Stop(ctx, unix.SIGKILL, 0); err != nil {
		return e.afterDial(ctx, c, err)
	}
	return nil
}

// openInit returns a pidfd of the container's init: of that process, not of one
// that got its number since.
func openInit(c *Container) (*os.File, error) {
	fd, err := unix.PidfdOpen(c.State.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, errs.New(errs.Conflict, "container %s is not running", c.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d of container %q: %w", c.State.Pid, c.Config.Name, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// The pidfd holds the number: if the start time is right now, it is the process.
	start, err := monitor.StartTime(c.State.Pid)
	if err != nil || start != c.State.PidStart {
		_ = f.Close() // of no use
		return nil, errs.New(errs.Conflict, "container %s is not running", c.ID)
	}
	return f, nil
}

// Wait returns the exit code of a container when it meets condition:
// "not-running" (the default), "next-exit" or "removed".
func (e *Engine) Wait(ctx context.Context, ref, condition string) (int, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return 0, err
	}
	switch condition {
	case "", "not-running":
		if !live(c.State.Status) {
			return c.State.ExitCode, nil
		}
	case "next-exit", "removed":
	default:
		return 0, errs.New(errs.Invalid, "invalid condition: %q", condition)
	}
	code := c.State.ExitCode
	for {
		conn, err := monitor.Dial(e.env, c.ID)
		if err == nil {
			exit, werr := conn.Wait(ctx)
			_ = conn.Close() // only read from
			if werr != nil && ctx.Err() != nil {
				return 0, werr
			}
			if werr == nil {
				code = exit.Code
				if condition != "removed" {
					return code, nil
				}
			}
		}
		now, err := e.load(c.ID)
		if errors.Is(err, errs.NotFound) {
			return code, nil // removed
		}
		if err != nil {
			return 0, err
		}
		if (condition == "" || condition == "not-running") && !live(now.State.Status) {
			return now.State.ExitCode, nil
		}
		select { // a container that is not started yet has nothing to wait on
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
