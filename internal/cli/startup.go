package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// starter is the part of the engine that the startup commands need.
type starter interface {
	EnableStartup(ctx context.Context) (engine.Startup, error)
	DisableStartup(ctx context.Context) error
	StartupStatus(ctx context.Context) (engine.Startup, error)
	RunStartup(ctx context.Context) (started []string, err error)
}

var _ starter = (*engine.Engine)(nil)

// startup is a startup command: f with the engine.
func startup(f func(c *call, s starter) error) func(*call) func() error {
	return func(c *call) func() error {
		return func() error {
			eng, err := c.engine()
			if err != nil {
				return err
			}
			s, ok := eng.(starter)
			if !ok {
				return errs.New(errs.Unsupported, "startup: this engine cannot")
			}
			return f(c, s)
		}
	}
}

func startupEnable(c *call, s starter) error {
	st, err := s.EnableStartup(c.ctx)
	if err != nil {
		return err
	}
	c.printStartup(&st)
	return nil
}

func startupDisable(c *call, s starter) error {
	if err := s.DisableStartup(c.ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.stdout(), "disabled")
	return err
}

// startupStatus ends with 1 where containers would not come back.
func startupStatus(c *call, s starter) error {
	st, err := s.StartupStatus(c.ctx)
	if err != nil {
		return err
	}
	c.printStartup(&st)
	if !st.Enabled || len(st.Lacks) > 0 {
		return exitStatus(1)
	}
	return nil
}

func (c *call) printStartup(st *engine.Startup) {
	word := "disabled"
	switch {
	case st.Enabled && len(st.Lacks) > 0:
		word = "enabled, but will not work"
	case st.Enabled:
		word = "enabled"
	}
	w := c.stdout()
	fmt.Fprintf(w, "%s: %s\n", word, st.How)
	for _, l := range st.Lacks {
		fmt.Fprintln(w, "hint: "+oneLine(l))
	}
	if len(st.Names) == 0 {
		fmt.Fprintln(w, "containers: none (isle update --restart unless-stopped CONTAINER makes one come back)")
		return
	}
	fmt.Fprintln(w, "containers: "+visible(strings.Join(st.Names, " ")))
}

func startupRun(c *call, s starter) error {
	started, err := s.RunStartup(c.ctx)
	for _, n := range started {
		fmt.Fprintln(c.stdout(), visible(n))
	}
	return err
}
