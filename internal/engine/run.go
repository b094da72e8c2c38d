package engine

import (
	"context"
	"errors"
	"os"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/lap"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
)

// Session is a container or exec process that the caller is connected to.
type Session interface {
	// Wait returns when the process has ended or the user has detached.
	Wait(ctx context.Context) (Exit, error)
	// Signal sends a signal to the process.
	Signal(sig os.Signal) error
	// Resize tells the terminal's new size.
	Resize(rows, cols uint16) error
	// Close lets go of the process; it lives on.
	Close() error
}

// Run makes a container and starts it: isle's main job, and its hot path. With
// io it is connected to the caller and the session is returned; without, it runs
// detached. When the start fails, an AutoRemove container is gone again, another stays as created.
func (e *Engine) Run(ctx context.Context, cfg *container.Config, o CreateOptions, io *IO) (string, []string, Session, error) {
	img, err := e.needImage(ctx, cfg, o)
	if err != nil {
		return "", nil, nil, err
	}
	lap.Mark("start the monitor")
	// The monitor starts now, so that its Go runtime comes up while this process
	// writes the container's directory.
	conn, err := e.spawn()
	if err != nil {
		return "", nil, nil, err
	}
	lap.Mark("write the container's directory")
	rec, lock, err := e.create(cfg, img)
	if err != nil {
		_ = conn.Close() // it ends without having done anything
		return "", nil, nil, err
	}
	s, warnings, err := e.startWith(ctx, conn, rec, io, lock)
	if err != nil && cfg.AutoRemove {
		err = errors.Join(err, e.Remove(ctx, rec.ID, RemoveOptions{Force: true, Volumes: true}))
	}
	return rec.ID, warnings, s, err
}

// spawn starts a monitor that waits to be told its container.
func (e *Engine) spawn() (*monitor.Conn, error) {
	ns, err := e.namespace()
	if err != nil {
		return nil, err
	}
	if ns != nil {
		defer ns.Close()
	}
	return monitor.Spawn(e.env, ns)
}

// startWith tells a fresh monitor to start rec's container. One that has just been
// made comes with its lock, for the monitor to hold: nobody else knows it, and the
// monitor is to tell of it.
func (e *Engine) startWith(ctx context.Context, conn *monitor.Conn, rec *container.Record, io *IO, lock *state.Lock) (Session, []string, error) {
	s, err := newSession(conn, rec, io)
	if err != nil {
		if lock != nil {
			_ = lock.Close() // nothing is written to it
		}
		_ = conn.Close() // it ends without having done anything
		return nil, nil, err
	}
	req := monitor.StartRequest{ID: rec.ID, Attach: s.attach(), Sent: s.starting(), New: lock != nil, Lock: lock}
	if lock != nil {
		lap.Mark("mount the layers ahead")
		req.Root = monitor.MountRoot(e.env, rec) //nolint:contextcheck // a mount is not cancelled
	}
	lap.Mark("wait for the monitor")
	started, err := conn.Start(ctx, req)
	lap.Mark("connected to the container")
	if err != nil {
		_ = conn.Close() // the start's error says all
		return nil, nil, err
	}
	if io == nil {
		return nil, started.Warnings, conn.Close()
	}
	return s, started.Warnings, s.pump()
}

// Start starts a container that was created or has ended. One that runs is left
// as it is. With io the caller is connected to it.
func (e *Engine) Start(ctx context.Context, ref string, io *IO) (Session, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	if live(c.State.Status) {
		if io != nil {
			return e.Attach(ctx, ref, *io)
		}
		if c.State.Status == container.Paused {
			return nil, errs.New(errs.Conflict, "cannot start a paused container, try unpause instead")
		}
		return nil, nil //nolint:nilnil // nothing to be connected to was asked for
	}
	conn, err := e.spawn()
	if err != nil {
		return nil, err
	}
	s, _, err := e.startWith(ctx, conn, &c.Record, io, nil)
	return s, err
}

// Attach connects the caller to a running container.
func (e *Engine) Attach(ctx context.Context, ref string, io IO) (Session, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	switch {
	case c.State.Status == container.Paused:
		return nil, errs.New(errs.Conflict, "You cannot attach to a paused container, unpause it first")
	case c.State.Status == container.Restarting:
		return nil, errs.New(errs.Conflict, "You cannot attach to a restarting container, wait until it is running")
	case !live(c.State.Status):
		return nil, errs.New(errs.Conflict, "You cannot attach to a stopped container, start it first")
	}
	conn, err := monitor.Dial(e.env, c.ID)
	if err != nil {
		return nil, err
	}
	s, err := newSession(conn, &c.Record, &io)
	if err != nil {
		_ = conn.Close() // nothing was asked of it
		return nil, err
	}
	if err := conn.Attach(ctx, *s.attach()); err != nil {
		_ = conn.Close() // the error says all
		return nil, err
	}
	return s, s.pump()
}
