package engine

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

// Inspect returns one container, its state checked against the machine.
func (e *Engine) Inspect(_ context.Context, ref string) (*Container, error) {
	id, err := e.resolve(ref)
	if err != nil {
		return nil, err
	}
	return e.load(id)
}

// List returns the containers that o selects, newest first. Containers that go
// away meanwhile are left out; damaged ones are listed by what is known of them.
func (e *Engine) List(_ context.Context, o ListOptions) ([]Container, error) {
	all, err := e.loadAll()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *Container) int { return b.Created.Compare(a.Created) })
	match, err := newMatcher(e, o, all)
	if err != nil {
		return nil, err
	}
	out := make([]Container, 0, len(all))
	for _, c := range all {
		if match.keep(c) {
			out = append(out, *c)
		}
		if o.Last > 0 && len(out) == o.Last {
			break
		}
	}
	if o.Size {
		for i := range out {
			if err := e.sizes(&out[i]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// loadAll reads all containers, with two readers: reading is half waiting for
// the kernel.
func (e *Engine) loadAll() ([]*Container, error) {
	ids, err := state.IDs(e.env.Containers())
	if errors.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := make([]*Container, len(ids))
	failed := make([]error, len(ids))
	const readers = 2
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			for i := r; i < len(ids); i += readers {
				found[i], failed[i] = e.load(ids[i])
			}
		})
	}
	wg.Wait()
	out := make([]*Container, 0, len(ids))
	for i, c := range found {
		switch err := failed[i]; {
		case err == nil:
			out = append(out, c)
		case errors.Is(err, errs.NotFound): // removed meanwhile, or being created
		case errors.Is(err, errs.Corrupt):
			d := &Container{Dir: e.env.Container(ids[i])}
			d.ID, d.State.Status, d.State.Error = ids[i], "dead", err.Error()
			out = append(out, d)
		default:
			return nil, err
		}
	}
	return out, nil
}

// sizes fills in how much disk the container uses.
func (e *Engine) sizes(c *Container) error {
	rw, err := e.treeSize(c.Dir + "/upper")
	if err != nil {
		return err
	}
	c.SizeRw, c.SizeRootFs = rw, rw
	for _, l := range c.Image.Layers {
		n, err := e.layers.Size(l)
		if err != nil {
			return err
		}
		c.SizeRootFs += n
	}
	return nil
}
