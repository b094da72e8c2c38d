package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
)

// Event is one thing that happened to a container, image, network or volume.
type Event = state.Event

// tell writes an event down. One that cannot be written is lost: what it tells
// has happened all the same, and the records say so.
func (e *Engine) tell(kind, action, id string, attrs map[string]string) {
	_ = state.AppendEvents(e.env.EventLog(), state.Event{Time: time.Now(), Type: kind, Action: action, ID: id, Attributes: attrs})
}

// tellContainer is tell for a container; extra are keys and values in turn.
func (e *Engine) tellContainer(rec *container.Record, action string, extra ...string) {
	_ = state.AppendEvents(e.env.EventLog(), monitor.ContainerEvent(rec, time.Now(), action, extra...))
}

// EventOptions select events.
type EventOptions struct {
	Since  time.Time // zero: from now on
	Until  time.Time // zero: for ever
	Filter Filter
}

// Events calls f for every event that o selects, until o.Until is over, ctx ends
// or f returns an error.
func (e *Engine) Events(ctx context.Context, o EventOptions, f func(Event) error) error {
	for key := range o.Filter {
		if !slices.Contains(eventFilters[:], key) {
			return errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	if err := e.env.MakeDirs(); err != nil {
		return err
	}
	r, err := state.OpenEvents(e.env.EventLog())
	if err != nil {
		return err
	}
	defer r.Close()
	if o.Since.IsZero() {
		r.Skip()
	}
	w := state.NewWatch(e.env.EventLog())
	defer w.Close()
	for {
		// Looked at before reading: what happens by then is in the log by then.
		over := !o.Until.IsZero() && time.Now().After(o.Until)
		list, err := r.Next()
		if err != nil {
			return err
		}
		for i := range list {
			ev := &list[i]
			if ev.Time.Before(o.Since) || !o.Until.IsZero() && ev.Time.After(o.Until) || !eventMatches(ev, o.Filter) {
				continue
			}
			if err := f(*ev); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		if err := w.Wait(ctx, o.Until); err != nil {
			return err
		}
	}
}

// Docker's filters. Those for what there is none of match nothing.
var eventFilters = [...]string{
	"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume",
}

// eventMatches reports whether an event passes the filters: one of the values of
// each key, all of the labels.
func eventMatches(ev *Event, f Filter) bool {
	for key, values := range f {
		any := false
		for _, v := range values {
			ok := eventHas(ev, key, v)
			if key == "label" && !ok {
				return false
			}
			any = any || ok
		}
		if !any {
			return false
		}
	}
	return true
}

func eventHas(ev *Event, key, v string) bool {
	switch key {
	case "type":
		return ev.Type == v
	case "event":
		// health_status and the exec_ events have more behind a colon.
		word, _, _ := strings.Cut(ev.Action, ":")
		return ev.Action == v || word == v
	case "scope":
		return v == "local"
	case "label":
		return labelMatches(ev.Attributes, v)
	case "image":
		name := ev.Attributes["image"]
		if ev.Type == "image" {
			name = ev.Attributes["name"]
		}
		return v == ev.ID || v == name || sameName(name, v)
	case "container", "network", "volume":
		if ev.Type == key {
			return strings.HasPrefix(ev.ID, v) || strings.HasPrefix(ev.Attributes["name"], v)
		}
	}
	return false
}

// sameName reports whether v names the same repository as name, whatever the tag.
func sameName(name, v string) bool {
	a, err := image.ParseName(name)
	if err != nil {
		return false
	}
	familiar := a.Familiar()
	repo := familiar
	if i := strings.LastIndexByte(familiar, ':'); i > strings.LastIndexByte(familiar, '/') {
		repo = familiar[:i]
	}
	return v == familiar || v == repo
}
