package engine

import (
	"context"
	"errors"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
)

// Remove removes a container that does not run, or, with Force, any.
func (e *Engine) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	id, err := e.resolve(ref)
	if err != nil {
		return err
	}
	c, err := e.load(id)
	if errors.Is(err, errs.NotFound) {
		return nil // it went away by itself (--rm)
	}
	if err != nil && !errors.Is(err, errs.Corrupt) {
		return err
	}
	if err != nil { // a damaged record must not keep its container for ever
		if !o.Force {
			return errs.Hint(err, "isle rm -f "+ref+" removes it all the same")
		}
		c = &Container{Record: container.Record{ID: id}, Dir: e.env.Container(id)}
	}
	if live(c.State.Status) && !o.Force {
		how := "stop the container before removing or force remove"
		if c.State.Status == container.Paused {
			how = "unpause and " + how
		}
		return errs.New(errs.Conflict, "cannot remove container %q: container is %s: %s", "/"+c.Config.Name, c.State.Status, how)
	}
	lock, err := e.lockDead(ctx, c, o.Force)
	if err != nil {
		if errors.Is(err, errs.Conflict) {
			return errs.New(errs.Conflict, "removal of container %s is already in progress", ref)
		}
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing is written to it
	return e.discard(c, o.Volumes || c.Config.AutoRemove)
}

// patience is how long a forced removal waits for a container that is just
// being started, or removed, by somebody else.
const patience = 5 * time.Second

// lockDead locks a container that has no monitor, which with force it is made to
// lose. A monitor in the middle of a start is there but cannot be spoken to yet,
// and nothing says so but its lock: so force tries for a while.
func (e *Engine) lockDead(ctx context.Context, c *Container, force bool) (*state.Lock, error) {
	for end := time.Now().Add(patience); ; {
		if live(c.State.Status) {
			if err := e.kill(ctx, c); err != nil {
				return nil, err
			}
		}
		lock, err := monitor.Lock(e.env, c.ID)
		if err == nil || !force || !errors.Is(err, errs.Conflict) || time.Now().After(end) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if err := state.ReadState(c.Dir, &c.State); err != nil && !errors.Is(err, errs.NotFound) {
			return nil, err
		}
	}
}

// remover removes what belongs to ids of the user's namespace from inside it.
func (e *Engine) remover() monitor.Remover {
	return monitor.Remover{Tree: e.removeTree, Volume: e.removeVolume}
}

// discard removes a container; the caller holds its lock.
func (e *Engine) discard(c *Container, volumes bool) error {
	if c.State.Status == container.Created {
		monitor.Sweep(e.env, &c.Record) // its monitor may have been killed before it wrote a state
	}
	grave, err := monitor.Bury(e.env, &c.Record, volumes)
	if err != nil {
		return err
	}
	e.tellContainer(&c.Record, "destroy")
	return grave.Clear(e.remover())
}
