package cli

import (
	"context"
	"fmt"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// committer is the part of the engine that commit needs.
type committer interface {
	Commit(ctx context.Context, ref string, o engine.CommitOptions) (id string, err error)
}

func cmdCommit(c *call) func() error {
	o := engine.CommitOptions{Pause: true}
	c.flags = []flag{
		{name: "author", short: 'a', v: (*stringVar)(&o.Author), help: `Author ("Jane Doe <jane@example.com>")`},
		{name: "change", short: 'c', v: (*listVar)(&o.Changes), help: "Apply a Dockerfile instruction to the image"},
		{name: "message", short: 'm', v: (*stringVar)(&o.Message), help: "Comment of the image"},
		{name: "pause", short: 'p', v: (*boolVar)(&o.Pause), help: "Freeze the container meanwhile", def: "true"},
	}
	return func() error {
		if len(c.args) == 2 {
			o.Name = c.args[1]
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		m, ok := eng.(committer)
		if !ok {
			return errs.New(errs.Unsupported, "commit: this engine cannot")
		}
		id, err := m.Commit(c.ctx, c.args[0], o)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout(), id)
		return err
	}
}
