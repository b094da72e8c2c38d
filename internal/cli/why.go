package cli

import (
	"context"
	"errors"
	"os"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/explain/why"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// reasoner is the part of the engine that watches commands.
type reasoner interface {
	Why(ctx context.Context, ref string, cfg container.ExecConfig, io engine.IO) (*why.Report, error)
	RunWhy(ctx context.Context, cfg *container.Config, o engine.CreateOptions, io *engine.IO) (id string, warnings []string, r *why.Report, s engine.Session, err error)
}

func (c *call) reasoner() (reasoner, error) {
	eng, err := c.engine()
	if err != nil {
		return nil, err
	}
	r, ok := eng.(reasoner)
	if !ok {
		return nil, errs.New(errs.Unsupported, "why: this engine has none")
	}
	return r, nil
}

func cmdWhy(c *call) func() error {
	var o container.ExecConfig
	var format string
	c.flags = []flag{
		{name: "env", short: 'e', v: funcVar{"list", func(s string) error {
			e, err := container.ParseEnv(s, os.LookupEnv)
			o.Env = append(o.Env, e)
			return err
		}}, help: "Set environment variables"},
		{name: "format", v: (*stringVar)(&format), help: "Output: \"text\" (default) or \"json\""},
		{name: "interactive", short: 'i', v: (*boolVar)(&o.Stdin), help: "Keep STDIN open even if not attached"},
		{name: "user", short: 'u', v: (*stringVar)(&o.User), help: "User inside (<name|uid>[:<group|gid>])"},
		{name: "workdir", short: 'w', v: (*stringVar)(&o.WorkingDir), help: "Working directory inside the container"},
	}
	return func() error {
		if format != "" && format != "text" && format != "json" {
			return usageErrorf("unknown format %q: text or json", format)
		}
		o.Cmd = c.args[1:]
		if o.Cmd[0] == "--" {
			o.Cmd = o.Cmd[1:]
		}
		if len(o.Cmd) == 0 {
			return usageErrorf("no command to run")
		}
		r, err := c.reasoner()
		if err != nil {
			return err
		}
		io := engine.IO{Stdout: c.out, Stderr: c.err}
		if o.Stdin {
			io.Stdin = c.in
		}
		report, err := r.Why(c.ctx, c.args[0], o, io)
		if err != nil {
			return err
		}
		return c.tellWhy(report, format)
	}
}

// tellWhy prints what was found, on standard error: standard output is the command's.
func (c *call) tellWhy(r *why.Report, format string) error {
	var err error
	if format == "json" {
		err = r.WriteJSON(c.err)
	} else {
		var s why.Style
		if os.Getenv("NO_COLOR") == "" && tty.IsTerminal(c.err) {
			s = why.Style{Bold: "\x1b[1m", Dim: "\x1b[2m", Warn: "\x1b[33m", Off: "\x1b[0m"}
		}
		err = r.WriteText(c.err, s, visible)
	}
	if err == nil && r.ExitCode != 0 {
		return exitStatus(r.ExitCode)
	}
	return err
}

// runWhy is run --why.
func (c *call) runWhy(cfg *container.Config, o *containerFlags, io *engine.IO) error {
	if io == nil {
		return errs.New(errs.Invalid, "conflicting options: --why and --detach")
	}
	r, err := c.reasoner()
	if err != nil {
		return err
	}
	f := follow{tty: cfg.TTY, sigProxy: o.sigProxy, stdin: io.Stdin != nil, name: cfg.Name}
	id, warnings, report, s, err := r.RunWhy(c.ctx, cfg, engine.CreateOptions{Pull: o.pull, Progress: c.err, Quiet: o.quiet}, io)
	c.warn(warnings)
	if err != nil {
		return err
	}
	f.name = or(f.name, shortID(id))
	ferr := c.follow(s, f)
	if err := c.tellWhy(report, o.format); err != nil && !errors.As(err, new(exitStatus)) {
		return err
	}
	return ferr
}
