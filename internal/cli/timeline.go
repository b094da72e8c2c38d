package cli

import (
	"errors"
	"os"

	"github.com/isle-engine/isle/internal/explain/timeline"
	"github.com/isle-engine/isle/internal/linux/lap"
)

// timeline runs a container with all processes that take part noting what they do
// when, and draws the notes on standard error; standard output is the container's.
func (c *call) timeline(o *containerFlags, run func() error) (err error) {
	switch {
	case !o.timeline:
		return usageErrorf("--format: goes with --timeline or --why")
	case o.format != "" && o.format != "text" && o.format != "json":
		return usageErrorf("unknown format %q: text or json", o.format)
	}
	f, err := os.CreateTemp("", "isle-timeline-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := os.Setenv(lap.Var, f.Name()); err != nil {
		return err
	}
	lap.Begin(lap.Command)
	lap.MarkCPU("start of isle, flags")
	lap.Mark("find the image")
	rerr := run()
	lap.Mark("end")
	notes, err := lap.Read(f.Name())
	if err != nil {
		return err
	}
	t := timeline.New(notes)
	if o.format == "json" {
		err = t.WriteJSON(c.err)
	} else {
		columns := 120
		if size := c.consoleSize(); size[1] > 60 {
			columns = int(size[1])
		}
		err = t.WriteText(c.err, columns)
	}
	if rerr != nil {
		return rerr // the exit code is the container's
	}
	return err
}
