package cli

import (
	"bufio"
	"fmt"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/engine"
)

func cmdContainerPrune(c *call) func() error {
	var o struct {
		force  bool
		filter engine.Filter
	}
	c.flags = []flag{
		{name: "filter", v: (*filterVar)(&o.filter), help: `Remove those that match ("until=24h", "label=KEY")`},
		{name: "force", short: 'f', v: (*boolVar)(&o.force), help: "Do not ask"},
	}
	return func() error {
		prune, err := pruneOptions(o.filter, time.Now())
		if err != nil {
			return err
		}
		if !o.force && !c.confirm("WARNING! This will remove all stopped containers.") {
			return nil
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		ids, bytes, err := eng.PruneContainers(c.ctx, prune)
		if len(ids) > 0 {
			fmt.Fprintln(c.stdout(), "Deleted Containers:")
			for _, id := range ids {
				fmt.Fprintln(c.stdout(), id)
			}
			fmt.Fprintln(c.stdout())
		}
		fmt.Fprintln(c.stdout(), "Total reclaimed space: "+humanSize(bytes, 4))
		return err
	}
}

// pruneOptions takes the moment out of a filter.
func pruneOptions(f engine.Filter, now time.Time) (engine.PruneOptions, error) {
	o := engine.PruneOptions{Filter: f}
	for _, v := range f["until"] {
		t, err := parseMoment("until", v, now)
		if err != nil {
			return o, err
		}
		o.Until = t
	}
	delete(f, "until")
	return o, nil
}

// confirm asks as Docker does; whatever is not yes is no.
func (c *call) confirm(warning string) bool {
	fmt.Fprintf(c.stdout(), "%s\nAre you sure you want to continue? [y/N] ", warning)
	if err := c.flush(); err != nil {
		return false
	}
	line, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && line == "" {
		return false
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}
