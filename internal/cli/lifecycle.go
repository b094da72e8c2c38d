package cli

import (
	"errors"
	"fmt"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/tty"
)

func cmdStart(c *call) func() error {
	var o struct {
		attach, stdin bool
		detachKeys    string
	}
	c.flags = []flag{
		{name: "attach", short: 'a', v: (*boolVar)(&o.attach), help: "Attach STDOUT and STDERR, and pass signals on"},
		hidden(refuse("checkpoint", "string", "checkpoints are not supported")),
		hidden(refuse("checkpoint-dir", "string", "checkpoints are not supported")),
		{name: "detach-keys", v: (*stringVar)(&o.detachKeys), help: "Keys that detach from the container (default ctrl-p,ctrl-q)"},
		{name: "interactive", short: 'i', v: (*boolVar)(&o.stdin), help: "Attach the container's STDIN"},
	}
	return func() error {
		if err := checkKeys(o.detachKeys); err != nil {
			return err
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		ctx := c.ctx
		if !o.attach && !o.stdin {
			return c.each(func(ref string) error {
				s, err := eng.Start(ctx, ref, nil)
				if err != nil {
					return err
				}
				if s != nil {
					_ = s.Close() // not asked for
				}
				_, err = fmt.Fprintln(c.stdout(), ref)
				return err
			})
		}
		if len(c.args) > 1 {
			return errs.New(errs.Invalid, "you cannot start and attach multiple containers at once")
		}
		ct, err := eng.Inspect(ctx, c.args[0])
		if err != nil {
			return err
		}
		cfg := &ct.Config
		io := &engine.IO{Stdout: c.out, Stderr: c.err, DetachKeys: o.detachKeys}
		if o.stdin && cfg.OpenStdin {
			io.Stdin = c.in
			if cfg.TTY && !tty.IsTerminal(c.in) {
				return errNoTTY()
			}
		}
		s, err := eng.Start(ctx, c.args[0], io)
		if err != nil {
			return err
		}
		return c.follow(s, follow{tty: cfg.TTY, stdin: io.Stdin != nil, sigProxy: true, name: cfg.Name})
	}
}

func cmdAttach(c *call) func() error {
	o := struct {
		noStdin, sigProxy bool
		detachKeys        string
	}{sigProxy: true}
	c.flags = []flag{
		{name: "detach-keys", v: (*stringVar)(&o.detachKeys), help: "Keys that detach from the container (default ctrl-p,ctrl-q)"},
		{name: "no-stdin", v: (*boolVar)(&o.noStdin), help: "Do not attach STDIN"},
		{name: "sig-proxy", v: (*boolVar)(&o.sigProxy), help: "Pass received signals on to the process", def: "true"},
	}
	return func() error {
		if err := checkKeys(o.detachKeys); err != nil {
			return err
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		ctx := c.ctx
		ct, err := eng.Inspect(ctx, c.args[0])
		if err != nil {
			return err
		}
		cfg := &ct.Config
		io := engine.IO{Stdout: c.out, Stderr: c.err, DetachKeys: o.detachKeys}
		if !o.noStdin && cfg.OpenStdin {
			io.Stdin = c.in
			if cfg.TTY && !tty.IsTerminal(c.in) {
				return errNoTTY()
			}
		}
		s, err := eng.Attach(ctx, c.args[0], io)
		if err != nil {
			return err
		}
		return c.follow(s, follow{tty: cfg.TTY, stdin: io.Stdin != nil, sigProxy: o.sigProxy, name: cfg.Name})
	}
}

func cmdStop(c *call) func() error {
	return stopping(c, func(eng conductor, ref, signal string, timeout *int) error {
		return eng.Stop(c.ctx, ref, signal, timeout)
	})
}

func cmdRestart(c *call) func() error {
	return stopping(c, func(eng conductor, ref, signal string, timeout *int) error {
		return eng.Restart(c.ctx, ref, signal, timeout)
	})
}

// stopping is a command that stops containers, with the flags for how.
func stopping(c *call, do func(eng conductor, ref, signal string, timeout *int) error) func() error {
	var o struct {
		signal  string
		timeout *int
	}
	c.flags = []flag{
		{name: "signal", short: 's', v: (*stringVar)(&o.signal), help: "Signal to send (the container's own by default)"},
		{name: "time", v: intPtrVar{&o.timeout}, hidden: true},
		{name: "timeout", short: 't', v: intPtrVar{&o.timeout}, help: "Seconds to wait before the container is killed; -1 never"},
	}
	return func() error {
		if o.signal != "" {
			if _, err := container.ParseSignal(o.signal); err != nil {
				return err
			}
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		return c.eachAtOnce(func(ref string) (string, error) {
			return ref, do(eng, ref, o.signal, o.timeout)
		})
	}
}

func cmdKill(c *call) func() error {
	var sig string
	c.flags = []flag{
		{name: "signal", short: 's', v: (*stringVar)(&sig), help: "Signal to send (KILL by default)"},
	}
	return func() error {
		if sig != "" {
			if _, err := container.ParseSignal(sig); err != nil {
				return err
			}
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		return c.eachAtOnce(func(ref string) (string, error) {
			return ref, eng.Kill(c.ctx, ref, sig)
		})
	}
}

func cmdWait(c *call) func() error {
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		return c.eachAtOnce(func(ref string) (string, error) {
			code, err := eng.Wait(c.ctx, ref, "")
			return fmt.Sprint(code), err
		})
	}
}

func cmdRm(c *call) func() error {
	var o engine.RemoveOptions
	var link bool
	c.flags = []flag{
		{name: "force", short: 'f', v: (*boolVar)(&o.Force), help: "Kill running containers (SIGKILL) and remove them"},
		{name: "link", short: 'l', v: (*boolVar)(&link), help: "Remove the link of that name"},
		{name: "volumes", short: 'v', v: (*boolVar)(&o.Volumes), help: "Remove the containers' anonymous volumes, too"},
	}
	return func() error {
		if link {
			return errs.New(errs.Unsupported, "links between containers are not supported")
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		return c.eachAtOnce(func(ref string) (string, error) {
			err := eng.Remove(c.ctx, ref, o)
			if o.Force && errors.Is(err, errs.NotFound) {
				// As Docker: said, but no failure. It is gone, as was asked for.
				return "", &benign{err}
			}
			return ref, err
		})
	}
}

// benign is an error that is printed and does not count.
type benign struct{ error }

func (e *benign) Unwrap() error { return e.error }

// atOnce is how many of several containers are worked on at the same time:
// stopping is mostly waiting.
const atOnce = 50

// eachAtOnce does f for all arguments at the same time and prints what it
// returns, or the error, in the order of the arguments.
func (c *call) eachAtOnce(f func(arg string) (string, error)) error {
	type result struct {
		text string
		err  error
	}
	results := make([]chan result, len(c.args))
	slots := make(chan struct{}, atOnce)
	for i := range results {
		results[i] = make(chan result, 1)
	}
	go func() {
		for i, arg := range c.args {
			slots <- struct{}{}
			go func() {
				text, err := f(arg)
				results[i] <- result{text, err}
				<-slots
			}()
		}
	}()
	failed := false
	for _, ch := range results {
		r := <-ch
		if r.err != nil {
			c.complain(r.err)
			var b *benign
			failed = failed || !errors.As(r.err, &b)
			continue
		}
		fmt.Fprintln(c.stdout(), r.text)
		if err := c.flush(); err != nil {
			return err
		}
	}
	if failed {
		return exitStatus(1)
	}
	return nil
}

func cmdTag(c *call) func() error {
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		return eng.Tag(c.ctx, c.args[0], c.args[1])
	}
}
