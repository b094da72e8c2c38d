package cli

import (
	"context"
	"os"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/explain/plan"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// planner is the part of the engine that tells what it would do.
type planner interface {
	Plan(ctx context.Context, cfg *container.Config, o engine.CreateOptions) (*plan.Plan, error)
}

func cmdPlan(c *call) func() error {
	var o containerFlags
	var format string
	var all bool
	run := o.flags()
	c.flags = append(run[:len(run)-lookOnly],
		flag{name: "all", v: (*boolVar)(&all), help: "Show also the calls that are ways round a refusal"},
		flag{name: "format", v: (*stringVar)(&format), help: "Output: \"text\" (default), \"json\", or \"sh\", a script that makes such a container by hand"},
	)
	return func() error {
		switch format {
		case "", "text", "json", "sh":
		default:
			return usageErrorf("unknown format %q: text, json or sh", format)
		}
		cfg, err := o.config(c.args)
		if err != nil {
			return err
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		pl, ok := eng.(planner)
		if !ok {
			return errs.New(errs.Unsupported, "plan: this engine has none")
		}
		p, err := pl.Plan(c.ctx, cfg, engine.CreateOptions{Pull: o.pull, Progress: c.err, Quiet: o.quiet})
		if err != nil {
			return err
		}
		switch format {
		case "json":
			return p.WriteJSON(c.stdout())
		case "sh":
			return p.WriteScript(c.stdout())
		}
		return p.WriteText(c.stdout(), c.style(), all, visible)
	}
}

// style sets text off where a person looks at it (no-color.org).
func (a *app) style() plan.Style {
	if os.Getenv("NO_COLOR") == "" && tty.IsTerminal(a.out) {
		return plan.Terminal()
	}
	return plan.Style{}
}
