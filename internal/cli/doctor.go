package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/isle-engine/isle/internal/cli/format"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
)

// doctor is the part of the engine that the doctor command needs.
type doctor interface {
	Doctor(ctx context.Context, fix bool) (checks []host.Check, done []string, err error)
}

var _ doctor = (*engine.Engine)(nil)

// diagnosis is one check as --format json shows it.
type diagnosis struct {
	Name    string
	Found   string
	Problem string   `json:",omitempty"`
	Remedy  []string `json:",omitempty"`
	Blocks  bool     `json:",omitempty"`
}

// cmdDoctor prints a line for each thing that was looked at, and the remedies of
// what is amiss as failing commands print them. It ends with 1 when no container
// could start here.
func cmdDoctor(c *call) func() error {
	var o struct {
		fix    bool
		format string
	}
	c.flags = []flag{
		{name: "fix", v: (*boolVar)(&o.fix), help: "Put right what can be without root: what a crash has left"},
		{name: "format", v: (*stringVar)(&o.format), help: "Print with a template:\n'json'      one JSON object a line\n'TEMPLATE'  by a Go template"},
	}
	return func() error {
		var t *format.Template
		if o.format != "" && o.format != "json" {
			var err error
			if t, err = format.Parse(o.format, false); err != nil {
				return err
			}
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		d, ok := eng.(doctor)
		if !ok {
			return errs.New(errs.Unsupported, "doctor: this engine has none")
		}
		checks, done, err := d.Doctor(c.ctx, o.fix)
		for _, l := range done {
			fmt.Fprintln(c.stdout(), "fixed   "+oneLine(l))
		}
		if err != nil {
			return err
		}
		blocks := false
		for i := range checks {
			ch := &checks[i]
			blocks = blocks || ch.Blocks
			v := diagnosis{ch.Name, ch.Found, ch.Problem, ch.Remedy, ch.Blocks}
			switch {
			case t != nil:
				if err := t.Execute(c.stdout(), &v); err != nil {
					return err
				}
				fmt.Fprintln(c.stdout())
			case o.format == "json":
				b, err := json.Marshal(&v)
				if err != nil {
					return err
				}
				fmt.Fprintf(c.stdout(), "%s\n", b)
			default:
				c.printCheck(ch)
			}
		}
		if blocks {
			return exitStatus(1)
		}
		return nil
	}
}

func (c *call) printCheck(ch *host.Check) {
	word, text := "ok", ch.Found
	switch {
	case ch.Blocks:
		word, text = "FAILS", ch.Problem
	case ch.Problem != "":
		word, text = "poor", ch.Problem
	}
	fmt.Fprintf(c.stdout(), "%-7s %-18s %s\n", word, ch.Name, oneLine(text))
	for _, r := range ch.Remedy {
		fmt.Fprintln(c.stdout(), "        hint: "+oneLine(r))
	}
}
