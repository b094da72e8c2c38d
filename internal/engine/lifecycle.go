package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
)

// Restart stops a container as Stop does, if it runs, and starts it.
func (e *Engine) Restart(ctx context.Context, ref, signal string, timeout *int) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if c.State.Status == container.Paused {
		if err := e.Pause(ctx, ref, false); err != nil {
			return err
		}
	}
	if err := e.Stop(ctx, c.ID, signal, timeout); err != nil {
		return err
	}
	if _, err = e.Start(ctx, c.ID, nil); err == nil {
		e.tellContainer(&c.Record, "restart")
	}
	return err
}

// Pause freezes a running container (on), or thaws a frozen one.
func (e *Engine) Pause(ctx context.Context, ref string, on bool) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	switch {
	case !live(c.State.Status):
		return errs.New(errs.Conflict, "Container %s is not running", c.ID)
	case on && c.State.Status == container.Paused:
		return errs.New(errs.Conflict, "Container %s is already paused", c.ID)
	case on && c.State.Status == container.Restarting:
		return errs.New(errs.Conflict, "Container %s is restarting, wait until the container is running", c.ID)
	case !on && c.State.Status != container.Paused:
		return errs.New(errs.Conflict, "Container %s is not paused", c.ID)
	}
	conn, err := monitor.Dial(e.env, c.ID)
	if err != nil {
		return e.afterDial(ctx, c, err)
	}
	defer conn.Close() //nolint:errcheck // all has been said
	if err := conn.Pause(ctx, on); err != nil {
		return fmt.Errorf("container %q: %w", c.Config.Name, err)
	}
	return nil
}

// Rename gives a container another name.
func (e *Engine) Rename(ctx context.Context, ref, name string) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if err := container.CheckName(name); err != nil {
		return err
	}
	old := c.Config.Name
	if name == old {
		return errs.New(errs.Invalid, "Renaming a container with the same name as its current name")
	}
	rename := func() error {
		return state.Rename(e.env.Names(), old, name, c.ID, func() error {
			rec := c.Record
			rec.Config.Name = name
			return state.WriteRecord(c.Dir, &rec, true)
		})
	}
	err = rename()
	if errors.Is(err, errs.Exists) && e.nobodys(name) {
		err = rename()
	}
	if errors.Is(err, errs.Exists) {
		holder, lerr := state.Lookup(e.env.Names(), name)
		if lerr != nil {
			return lerr
		}
		return errs.New(errs.Conflict, `Conflict. The container name "/%s" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, name, holder)
	}
	if err != nil {
		return err
	}
	rec := c.Record
	rec.Config.Name = name
	e.tellContainer(&rec, "rename", "oldName", "/"+old)
	return e.tellMonitor(ctx, c)
}

// tellMonitor makes the monitor of a running container read its record again.
func (e *Engine) tellMonitor(ctx context.Context, c *Container) error {
	if !live(c.State.Status) {
		return nil
	}
	conn, err := monitor.Dial(e.env, c.ID)
	if err != nil {
		return e.afterDial(ctx, c, err)
	}
	defer conn.Close() //nolint:errcheck // all has been said
	return conn.Update(ctx)
}

// PruneOptions select what a prune removes.
type PruneOptions struct {
	Until  time.Time // only what was created before; zero: all
	Filter Filter    // label and label!
}

// PruneContainers removes the containers that do not run and that o selects. It
// returns their ids and the bytes that their writable layers had.
func (e *Engine) PruneContainers(ctx context.Context, o PruneOptions) (removed []string, bytes int64, Err error) {
	for key := range o.Filter {
		if key != "label" && key != "label!" {
			return nil, 0, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	all, err := e.loadAll()
	if err != nil {
		return nil, 0, err
	}
	for _, c := range all {
		if live(c.State.Status) || !o.Until.IsZero() && !c.Created.Before(o.Until) || !pruneLabels(c, o.Filter) {
			continue
		}
		if err := e.sizes(c); err != nil {
			c.SizeRw = 0 // damaged, which is no reason to keep it
		}
		if err := e.Remove(ctx, c.ID, RemoveOptions{Force: c.State.Status == container.Dead}); err != nil {
			if !errors.Is(err, errs.Conflict) { // started meanwhile
				Err = errors.Join(Err, err)
			}
			continue
		}
		removed = append(removed, c.ID)
		bytes += c.SizeRw
	}
	e.tell("container", "prune", "", map[string]string{"reclaimed": strconv.FormatInt(bytes, 10)})
	return removed, bytes, Err
}

func pruneLabels(c *Container, f Filter) bool {
	for _, l := range f["label"] {
		if !labelMatches(c.Labels(), l) {
			return false
		}
	}
	for _, l := range f["label!"] {
		if labelMatches(c.Labels(), l) {
			return false
		}
	}
	return true
}

// History returns an image's history, newest step first, with the size of the
// layer that each step made.
func (e *Engine) History(_ context.Context, ref string) ([]Step, error) {
	img, err := e.images.Inspect(ref)
	if err != nil {
		return nil, err
	}
	steps := make([]Step, len(img.History))
	layer := 0
	for i, h := range img.History {
		s := Step{Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment, ID: "<missing>"}
		if !h.EmptyLayer && layer < len(img.Layers) {
			if n, err := e.layers.Size(img.Layers[layer].DiffID); err == nil {
				s.Size = n
			}
			layer++
		}
		steps[len(steps)-1-i] = s
	}
	if len(steps) > 0 {
		steps[0].ID, steps[0].Tags = img.ID, img.Tags
	}
	return steps, nil
}

// Step is one line of an image's history.
type Step struct {
	ID        string
	Created   time.Time
	CreatedBy string
	Comment   string
	Size      int64
	Tags      []string
}
