package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/cli/format"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// eventer is the part of the engine that the events command needs.
type eventer interface {
	Events(ctx context.Context, o engine.EventOptions, f func(engine.Event) error) error
}

func cmdEvents(c *call) func() error {
	var o struct {
		engine.EventOptions
		since, until, format string
	}
	c.flags = []flag{
		{name: "filter", short: 'f', v: (*filterVar)(&o.Filter), help: "Show those that match (container, event, image, label, network, type, volume)"},
		{name: "format", v: (*stringVar)(&o.format), help: "Print with a template:\n'json'      one JSON object a line\n'TEMPLATE'  by a Go template"},
		{name: "since", v: (*stringVar)(&o.since), help: `Begin with what happened after a moment ("2013-01-02T13:23:37Z") or within a time ("42m")`},
		{name: "until", v: (*stringVar)(&o.until), help: `End at a moment ("2013-01-02T13:23:37Z") or a time ago ("42m")`},
	}
	return func() (err error) {
		now := time.Now()
		if o.Since, err = parseMoment("since", o.since, now); err != nil {
			return err
		}
		if o.Until, err = parseMoment("until", o.until, now); err != nil {
			return err
		}
		var t *format.Template
		if o.format != "" && o.format != "json" {
			if t, err = format.Parse(o.format, false); err != nil {
				return err
			}
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		ev, ok := eng.(eventer)
		if !ok {
			return errs.New(errs.Unsupported, "events: this engine has none")
		}
		return ev.Events(c.ctx, o.EventOptions, func(e engine.Event) error {
			w := c.stdout()
			switch {
			case t != nil:
				if err := t.Execute(w, eventJSON(&e)); err != nil {
					return err
				}
				fmt.Fprintln(w)
			case o.format == "json":
				b, err := json.Marshal(eventJSON(&e))
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s\n", b)
			default:
				fmt.Fprintln(w, eventLine(&e))
			}
			return c.flush()
		})
	}
}

// event is Docker's shape of an event.
type event struct {
	Status   string `json:"status,omitempty"`
	ID       string `json:"id,omitempty"`
	From     string `json:"from,omitempty"`
	Type     string
	Action   string
	Actor    actor
	Scope    string `json:"scope,omitempty"`
	Time     int64  `json:"time,omitempty"`
	TimeNano int64  `json:"timeNano,omitempty"`
}

type actor struct {
	ID         string
	Attributes map[string]string
}

func eventJSON(e *engine.Event) *event {
	j := &event{Type: e.Type, Action: e.Action, Actor: actor{e.ID, e.Attributes}, Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano()}
	// As Docker: what its clients of 2015 know.
	switch e.Type {
	case "container":
		j.Status, j.ID, j.From = e.Action, e.ID, e.Attributes["image"]
	case "image":
		j.Status, j.ID = e.Action, e.ID
	}
	return j
}

// eventLine is the line that Docker prints for an event.
func eventLine(e *engine.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", e.Time.Local().Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, visible(e.Action), visible(e.ID))
	if len(e.Attributes) > 0 {
		var all []string
		for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
			all = append(all, visible(k+"="+e.Attributes[k]))
		}
		fmt.Fprintf(&b, " (%s)", strings.Join(all, ", "))
	}
	return b.String()
}
