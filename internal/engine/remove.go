package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
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
	if live(c.State.Status) {
		if !o.Force {
			how := "stop the container before removing or force remove"
			if c.State.Status == container.Paused {
				how = "unpause and " + how
			}
			return errs.New(errs.Conflict, "cannot remove container %q: container is %s: %s", "/"+c.Config.Name, c.State.Status, how)
		}
		if err := e.kill(ctx, c); err != nil {
			return err
		}
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, os.ErrNotExist) {
		return nil // --rm did it when it died
	}
	lock, err := monitor.Lock(e.env, id)
	if err != nil {
		if errors.Is(err, errs.Conflict) {
			return errs.New(errs.Conflict, "removal of container %s is already in progress", ref)
		}
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing is written to it
	return e.discard(c, o.Volumes || c.Config.AutoRemove)
}

// discard removes a container's directory, name and runtime directory; the
// caller holds its lock. The rename is the moment at which it is gone: whatever
// a crash leaves behind lies in tmp, where the next removal sweeps it.
func (e *Engine) discard(c *Container, volumes bool) error {
	if c.State.Status == container.Created {
		monitor.Sweep(e.env, &c.Record) // its monitor may have been killed before it wrote a state
	}
	grave := filepath.Join(e.env.Tmp(), "rm-"+c.ID)
	if err := os.Rename(c.Dir, grave); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errAll error
	if c.Config.Name != "" {
		errAll = state.Release(e.env.Names(), c.Config.Name, c.ID)
	}
	if volumes {
		errAll = errors.Join(errAll, e.removeAnonymous(c))
	}
	errAll = errors.Join(errAll, e.removeTree(grave), storage.RemoveTree(e.env.RunContainer(c.ID)))
	e.sweep()
	return errAll
}

// sweepAfter is how long a grave must have lain untouched to count as left by a
// crash: whoever is removing one changes it all the time.
const sweepAfter = 10 * time.Second

// sweep removes what crashed removals left in tmp.
func (e *Engine) sweep() {
	left, err := os.ReadDir(e.env.Tmp())
	if err != nil {
		return // nothing that could be swept
	}
	for _, d := range left {
		if !strings.HasPrefix(d.Name(), "rm-") {
			continue
		}
		path := filepath.Join(e.env.Tmp(), d.Name())
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || time.Since(time.Unix(st.Ctim.Unix())) < sweepAfter {
			continue
		}
		_ = e.removeTree(path) // the next removal tries again
	}
}
