package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// statter is the part of the engine that measures.
type statter interface {
	SampleIDs(ctx context.Context, all bool) ([]string, error)
	Sampler(ctx context.Context, ref string) (*engine.Sampler, error)
}

// interval is the time between two samples, over which the CPU is measured.
const interval = time.Second

func cmdStats(c *call) func() error {
	var o struct {
		all, noStream, noTrunc bool
		format                 string
	}
	c.flags = []flag{
		{name: "all", short: 'a', v: (*boolVar)(&o.all), help: "Show all containers, not just the running"},
		{name: "format", v: (*stringVar)(&o.format), help: formatHelp},
		{name: "no-stream", v: (*boolVar)(&o.noStream), help: "Print one result and end"},
		{name: "no-trunc", v: (*boolVar)(&o.noTrunc), help: "Do not shorten the output"},
	}
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		st, ok := eng.(statter)
		if !ok {
			return errs.New(errs.Unsupported, "stats: this engine has none")
		}
		s := &statsView{c: c, eng: eng, statter: st, all: o.all, noTrunc: o.noTrunc}
		defer s.close()
		s.list = &list{
			text:    o.format,
			columns: []string{"ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"},
			headings: map[string]string{
				"BlockIO": "BLOCK I/O", "CPUPressure": "CPU WAIT", "MemPressure": "MEM WAIT", "IOPressure": "IO WAIT", "CPUPerc": "CPU %", "Container": "CONTAINER", "ID": "CONTAINER ID", "MemPerc": "MEM %",
				"MemUsage": "MEM USAGE / LIMIT", "Name": "NAME", "NetIO": "NET I/O", "PIDs": "PIDS",
			},
		}
		// Containers that are named must be there.
		for _, ref := range c.args {
			if _, err := eng.Inspect(c.ctx, ref); err != nil {
				return err
			}
		}
		if err := s.sample(); err != nil {
			return err
		}
		live := tty.IsTerminal(c.out)
		for first := true; ; first = false {
			select {
			case <-c.ctx.Done():
				return nil
			case <-time.After(interval):
			}
			if err := s.sample(); err != nil {
				return err
			}
			if live && !o.noStream {
				home := "\x1b[H\x1b[J" // to the top, and clear from there
				if first {
					home = "\x1b[2J" + home
				}
				fmt.Fprint(c.stdout(), home)
			}
			if err := s.print(); err != nil || o.noStream {
				return err
			}
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
}

// statsView is what stats shows.
type statsView struct {
	c            *call
	eng          conductor
	statter      statter
	all, noTrunc bool
	list         *list
	rows         []*statsRow
}

func (s *statsView) close() {
	for _, r := range s.rows {
		if r != nil {
			_ = r.s.Close() // only read from
		}
	}
}

// sample finds the containers to show and measures each.
func (s *statsView) sample() error {
	refs := s.c.args
	if len(refs) == 0 {
		var err error
		if refs, err = s.statter.SampleIDs(s.c.ctx, s.all); err != nil {
			return err
		}
	}
	known := make(map[string]int, len(s.rows))
	for i, r := range s.rows {
		if r.now.Running {
			known[r.ref] = i
		}
	}
	var rows []*statsRow
	for _, ref := range refs {
		if i, ok := known[ref]; ok {
			rows = append(rows, s.rows[i])
			s.rows[i] = nil
			delete(known, ref) // named twice: measured twice
			continue
		}
		sampler, err := s.statter.Sampler(s.c.ctx, ref)
		if errors.Is(err, errs.NotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		sampler.Pressure = wants(s.list.text, "CPUPressure") || wants(s.list.text, "MemPressure") || wants(s.list.text, "IOPressure")
		rows = append(rows, &statsRow{ref: ref, s: sampler, trunc: !s.noTrunc})
	}
	if len(s.c.args) == 0 { // the newest first, as ps has them
		slices.SortStableFunc(rows, func(a, b *statsRow) int { return b.s.Created.Compare(a.s.Created) })
	}
	s.close() // those that are shown no more
	s.rows = rows
	for _, r := range rows {
		now, err := r.s.Sample()
		if err != nil {
			return err
		}
		r.before, r.now = r.now, now
	}
	return nil
}

func (s *statsView) print() error {
	return s.list.print(s.c.app, len(s.rows), func(i int) row { return s.rows[i] })
}

// statsRow is one container of stats.
type statsRow struct {
	ref         string
	s           *engine.Sampler
	before, now engine.Sample
	trunc       bool
}

func (r *statsRow) keys() []string {
	return []string{"BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"}
}

// Field implements format.Object.
func (r *statsRow) Field(name string, args []any) (any, bool) {
	if len(args) > 0 {
		return nil, false
	}
	id := r.s.ID
	if r.trunc {
		id = shortID(id)
	}
	n := &r.now
	switch name {
	case "Container":
		if r.ref == r.s.ID {
			return id, true
		}
		return r.ref, true
	case "ID":
		return id, true
	case "Name":
		return r.s.Name, true
	case "CPUPerc":
		cpu := 0.0
		if d := n.Taken.Sub(r.before.Taken); d > 0 && r.before.Running && n.CPU.Usage > r.before.CPU.Usage {
			cpu = float64(n.CPU.Usage-r.before.CPU.Usage) / float64(d) * 100
		}
		return percent(cpu), true
	case "MemUsage":
		used, limit := binarySize(n.Memory.Usage), binarySize(max(n.Memory.Limit, 0))
		return strings.ReplaceAll(used, " ", "") + " / " + strings.ReplaceAll(limit, " ", ""), true
	case "MemPerc":
		if n.Memory.Limit <= 0 {
			return percent(0), true
		}
		return percent(float64(n.Memory.Usage) / float64(n.Memory.Limit) * 100), true
	case "NetIO":
		return humanSize(n.NetReceived, 3) + " / " + humanSize(n.NetSent, 3), true
	case "BlockIO":
		var read, written int64
		for _, d := range n.IO {
			read, written = read+d.ReadBytes, written+d.WriteBytes
		}
		return humanSize(read, 3) + " / " + humanSize(written, 3), true
	case "CPUPressure": // not Docker's: the share of the last ten seconds in which work waited
		return percent(n.Pressure.CPU.SomeAvg10), true
	case "MemPressure":
		return percent(n.Pressure.Memory.SomeAvg10), true
	case "IOPressure":
		return percent(n.Pressure.IO.SomeAvg10), true
	case "PIDs":
		return strconv.FormatInt(n.Pids.Current, 10), true
	}
	return nil, false
}

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }
