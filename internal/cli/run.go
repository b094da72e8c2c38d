package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/tty"
)

func cmdRun(c *call) func() error {
	var o containerFlags
	c.flags = o.flags()
	return func() error {
		cfg, err := o.config(c.args)
		if err != nil {
			return err
		}
		io, err := c.runIO(cfg, o.detach, o.detachKeys)
		if err != nil {
			return err
		}
		if o.why {
			return c.runWhy(cfg, &o, io)
		}
		if o.timeline || o.format != "" {
			return c.timeline(&o, func() error { return c.runWith(cfg, &o, io) })
		}
		return c.runWith(cfg, &o, io)
	}
}

// runWith makes and starts a container and stays with it.
func (c *call) runWith(cfg *container.Config, o *containerFlags, io *engine.IO) error {
	f := follow{tty: cfg.TTY, sigProxy: o.sigProxy}
	if io != nil {
		f.stdin = io.Stdin != nil
		io.Starting = func() { f.signals = catch(o.sigProxy, cfg.TTY) }
	}
	id, s, err := c.startNew(cfg, o, io)
	if err != nil || io == nil {
		return err
	}
	f.name = or(cfg.Name, shortID(id))
	return c.follow(s, f)
}

// startNew makes and starts the container. Without io it prints the id.
func (c *call) startNew(cfg *container.Config, o *containerFlags, io *engine.IO) (id string, s engine.Session, err error) {
	eng, err := c.engine()
	if err != nil {
		return "", nil, err
	}
	ctx := c.ctx
	create := engine.CreateOptions{Pull: o.pull, Progress: c.err, Quiet: o.quiet}
	var warnings []string
	if cfg.CidFile == "" {
		id, warnings, s, err = eng.Run(ctx, cfg, create, io)
	} else {
		// Whoever reads the file expects it before the command runs.
		if err := checkCIDFile(cfg.CidFile); err != nil {
			return "", nil, err
		}
		if id, warnings, err = eng.Create(ctx, cfg, create); err != nil {
			return "", nil, err
		}
		if err = writeCIDFile(cfg.CidFile, id); err == nil {
			s, err = eng.Start(ctx, id, io)
		}
		if err != nil && cfg.AutoRemove {
			err = errors.Join(err, ignoreNotFound(eng.Remove(ctx, id, engine.RemoveOptions{Force: true, Volumes: true})))
		}
	}
	c.warn(warnings)
	if err != nil {
		return "", nil, err
	}
	if io == nil {
		_, err = fmt.Fprintln(c.stdout(), id)
	}
	return id, s, err
}

func ignoreNotFound(err error) error {
	if errors.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

func (c *call) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(c.err, "WARNING: %s\n", oneLine(w))
	}
}

// runIO works out what a run connects: nothing when detached, else the streams
// of -a, or stdout and stderr, and stdin with -i.
func (c *call) runIO(cfg *container.Config, detach bool, keys string) (*engine.IO, error) {
	if detach {
		if len(cfg.Attach) > 0 {
			return nil, errs.New(errs.Invalid, "conflicting options: cannot specify both --attach and --detach")
		}
		return nil, nil //nolint:nilnil // nothing to connect is an answer
	}
	io := &engine.IO{DetachKeys: keys}
	cfg.Attach = attached(cfg)
	for _, a := range cfg.Attach {
		switch a {
		case "stdin":
			io.Stdin = c.in
		case "stdout":
			io.Stdout = c.out
		case "stderr":
			io.Stderr = c.err
		}
	}
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	if cfg.TTY {
		if io.Stdin != nil && !tty.IsTerminal(c.in) {
			return nil, errNoTTY()
		}
		cfg.ConsoleSize = c.consoleSize()
	}
	return io, nil
}

// attached are the streams that a foreground run of cfg is connected to: those
// of -a, else stdout and stderr; and stdin with -i.
func attached(cfg *container.Config) []string {
	streams := cfg.Attach
	if len(streams) == 0 {
		streams = []string{"stdout", "stderr"}
	}
	if cfg.OpenStdin && !slices.Contains(streams, "stdin") {
		streams = append([]string{"stdin"}, streams...)
	}
	return streams
}

func errNoTTY() error {
	return errs.WithExit(errs.New(errs.Invalid, "the input device is not a TTY"), 1)
}

func checkKeys(keys string) error {
	if keys == "" {
		return nil
	}
	_, err := tty.ParseDetachKeys(keys)
	return errs.As(errs.Invalid, err)
}

// consoleSize is the size of the terminal, as rows and columns, or zeros.
func (a *app) consoleSize() [2]uint {
	for _, f := range [...]*os.File{a.out, a.in} {
		if rows, cols, err := tty.Size(f); err == nil {
			return [2]uint{uint(rows), uint(cols)}
		}
	}
	return [2]uint{}
}

func cmdCreate(c *call) func() error {
	var o containerFlags
	all := o.flags()
	c.flags = all[:len(all)-runOnly]
	return func() error {
		cfg, err := o.config(c.args)
		if err != nil {
			return err
		}
		if cfg.CidFile != "" {
			if err := checkCIDFile(cfg.CidFile); err != nil {
				return err
			}
		}
		cfg.Attach = attached(cfg)
		if cfg.TTY {
			cfg.ConsoleSize = c.consoleSize()
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		id, warnings, err := eng.Create(c.ctx, cfg, engine.CreateOptions{Pull: o.pull, Progress: c.err, Quiet: o.quiet})
		c.warn(warnings)
		if err != nil {
			return err
		}
		if cfg.CidFile != "" {
			if err := writeCIDFile(cfg.CidFile, id); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintln(c.stdout(), id)
		return err
	}
}
