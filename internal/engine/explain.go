package engine

import (
	"context"

	facts "github.com/isle-engine/isle/internal/explain/view"
)

// Explain looks at a container and says what it is now.
func (e *Engine) Explain(ctx context.Context, ref string) (*facts.View, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	s := facts.Subject{Env: e.env, Record: &c.Record, State: &c.State, Dir: c.Dir}
	if live(c.State.Status) {
		all, err := e.List(ctx, ListOptions{})
		if err != nil {
			return nil, err
		}
		for i := range all {
			if p := &all[i]; p.ID != c.ID && p.State.Pid != 0 {
				s.Peers = append(s.Peers, facts.Peer{Name: p.Config.Name, Pid: p.State.Pid})
			}
		}
		ns, err := e.namespace()
		if err != nil {
			return nil, err
		}
		if ns != nil {
			defer ns.Close()
			s.Join = ns.Join()
		}
	}
	if img, err := e.images.Inspect(c.Record.Image.ID); err == nil { // without it, layers have no story
		layer := 0
		for _, h := range img.History {
			step := facts.Step{CreatedBy: h.CreatedBy}
			if !h.EmptyLayer && layer < len(img.Layers) {
				step.DiffID = img.Layers[layer].DiffID
				layer++
			}
			s.History = append(s.History, step)
		}
	}
	v, err := facts.Look(&s)
	if err != nil {
		return nil, err
	}
	return v, nil
}
