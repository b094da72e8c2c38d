package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/explain/plan"
	"github.com/isle-engine/isle/internal/explain/tour"
	"github.com/isle-engine/isle/internal/linux/tty"
)

func cmdTour(c *call) func() error {
	var yes bool
	c.flags = []flag{{name: "yes", short: 'y', v: (*boolVar)(&yes), help: "Go through without asking"}}
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		for _, name := range tour.Names() {
			if _, err := eng.Inspect(c.ctx, name); err == nil {
				return errs.Hint(errs.New(errs.Conflict, "container %q: is there already, and the tour would remove it in the end", name), "isle rm -f "+name+", if it is left of an earlier tour")
			}
		}
		t := &guide{c: c, eng: eng, style: c.style(), ask: !yes && tty.IsTerminal(c.in)}
		// Whoever leaves in the middle finds nothing left either.
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer signal.Stop(stop)
		done := make(chan error, 1)
		go func() { done <- t.lead() }()
		select {
		case err = <-done:
		case <-stop:
			err = exitStatus(130)
		}
		return errors.Join(err, t.clean())
	}
}

// guide leads through the tour.
type guide struct {
	c     *call
	eng   conductor
	style plan.Style
	ask   bool
	lines *bufio.Reader
}

func (t *guide) say(format string, args ...any) error {
	fmt.Fprintf(t.c.stdout(), format, args...)
	return t.c.flush()
}

// errLeft ends the tour early, which is no failure.
var errLeft = exitStatus(0)

func (t *guide) lead() error {
	steps := tour.Steps()
	s := t.style
	if err := t.say("%sA tour of what a container is.%s %d lessons, with containers of your own; all are removed in the end.\n", s.Bold, s.Off, len(steps)); err != nil {
		return err
	}
	if t.ask {
		if err := t.say("After each lesson there is a question. An empty answer goes on, q leaves.\n"); err != nil {
			return err
		}
	}
	t.lines = bufio.NewReader(t.c.in)
	for i := range steps {
		x := &steps[i]
		if err := t.say("\n%s%d. %s%s\n\n%s\n", s.Bold, i+1, x.Title, s.Off, x.Text); err != nil {
			return err
		}
		for _, do := range x.Do {
			if err := t.say("\n%s$ isle %s%s\n", s.Bold, shellWords(do), s.Off); err != nil {
				return err
			}
			if err := t.c.command(do); err != nil && !errors.As(err, new(exitStatus)) {
				t.c.complain(err) // this machine cannot do it: that is a lesson too
			}
			if err := t.c.flush(); err != nil {
				return err
			}
		}
		if err := t.say("\n%s\n", x.After); err != nil {
			return err
		}
		if err := t.question(x); err != nil {
			return err
		}
	}
	return t.say("\n%sThe end.%s The same with every claim and its plain Linux command: docs/how-a-container-works.md\n", s.Bold, s.Off)
}

// question asks, where somebody can answer, and says what is right.
func (t *guide) question(x *tour.Step) error {
	if !t.ask {
		return t.say("\nQ: %s\nA: %s\n", x.Ask, x.Answer)
	}
	if err := t.say("\n%sQ: %s%s ", t.style.Bold, x.Ask, t.style.Off); err != nil {
		return err
	}
	line, err := t.lines.ReadString('\n')
	if errors.Is(err, io.EOF) {
		return errLeft
	}
	if err != nil {
		return err
	}
	reply := strings.ToLower(strings.TrimSpace(line))
	verdict := ""
	switch reply {
	case "q", "quit":
		return errLeft
	case "":
	default:
		verdict = "Not quite. "
		for _, r := range x.Right {
			if strings.Contains(reply, r) {
				verdict = "Right. "
			}
		}
	}
	return t.say("A: %s%s\n", verdict, x.Answer)
}

// clean removes the tour's containers.
func (t *guide) clean() error {
	var all error
	ctx := context.WithoutCancel(t.c.ctx)
	for _, name := range tour.Names() {
		all = errors.Join(all, ignoreNotFound(t.eng.Remove(ctx, name, engine.RemoveOptions{Force: true, Volumes: true})))
	}
	return all
}

// shellWords shows a command as it would be typed.
func shellWords(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, " ;|>") {
			a = "'" + a + "'"
		}
		out[i] = a
	}
	return strings.Join(out, " ")
}
