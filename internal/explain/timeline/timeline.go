// Package timeline shows where the time of a start went: the notes that all its
// processes took (package lap), as phases, as a bar chart or as JSON.
//
// A phase lasts from its note to the next one of the same process. Phases of the
// forked child that are alike and follow one another are one: forty mounts are
// "mounts".
package timeline

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/isle-engine/isle/internal/linux/lap"
)

// Phase is one piece of work of one process.
type Phase struct {
	Who   string  `json:"who"` // isle, monitor, child
	What  string  `json:"what"`
	Start float64 `json:"startUs"` // microseconds since the first note
	Took  float64 `json:"tookUs"`
	Parts int     `json:"parts,omitempty"` // that it is made of
}

// Timeline is a run.
type Timeline struct {
	Phases []Phase `json:"phases"`
	Ready  float64 `json:"readyUs"` // until the command was executed
	Total  float64 `json:"totalUs"`
}

// New makes phases of notes.
func New(notes []lap.Note) *Timeline {
	t := &Timeline{}
	if len(notes) == 0 {
		return t
	}
	notes = slices.Clone(notes)
	slices.SortStableFunc(notes, func(a, b lap.Note) int {
		switch {
		case a.At < b.At:
			return -1
		case a.At > b.At:
			return 1
		}
		return 0
	})
	first, last := notes[0].At, notes[len(notes)-1].At
	us := func(ns int64) float64 { return float64(ns-first) / 1000 }
	t.Total = us(last)
	running := last
	for _, n := range notes {
		if n.Who == lap.Monitor && n.What == "the command runs" {
			running = n.At
		}
	}
	t.Ready = us(running)
	for i, n := range notes {
		end := int64(-1)
		for _, m := range notes[i+1:] {
			if m.Who == n.Who {
				end = m.At
				break
			}
		}
		if end < 0 {
			if n.Who != lap.Child {
				continue // the last note ends the one before
			}
			end = running
		}
		p := Phase{Who: who(n.Who), What: n.What, Start: us(n.At), Took: float64(end-n.At) / 1000, Parts: 1}
		if n.Who == lap.Child {
			p.What = subject(n.What)
			if k := slices.IndexFunc(t.Phases, func(o Phase) bool { return o.Who == p.Who && o.What == p.What && o.Start+o.Took >= p.Start-0.01 }); k >= 0 {
				t.Phases[k].Took += p.Took
				t.Phases[k].Parts++
				continue
			}
		}
		t.Phases = append(t.Phases, p)
	}
	for i := range t.Phases {
		if t.Phases[i].Parts == 1 {
			t.Phases[i].Parts = 0
		}
	}
	return t
}

func who(b byte) string {
	switch b {
	case lap.Command:
		return "isle"
	case lap.Monitor:
		return "monitor"
	}
	return "child"
}

// subject is what a step of the child belongs to.
func subject(step string) string {
	verb, _, _ := strings.Cut(step, " ")
	switch {
	case strings.HasPrefix(step, "make mounts private"), verb == "mount", strings.HasPrefix(step, "open host's"), verb == "remount":
		return "mounts"
	case verb == "device" || verb == "devices" || verb == "links":
		return "devices"
	case verb == "mask" || strings.HasPrefix(step, "mask with"):
		return "masked and read-only paths"
	case strings.HasPrefix(step, "change root"):
		return "change the root (pivot_root)"
	case strings.HasPrefix(step, "bring up"):
		return "loopback up"
	case strings.HasPrefix(step, "capabilities"), verb == "user", verb == "security", strings.HasPrefix(step, "die with"), strings.HasPrefix(step, "hide from"):
		return "credentials"
	case strings.HasPrefix(step, "close files"):
		return "seccomp filter and execve"
	case strings.HasPrefix(step, "new namespace"), strings.HasPrefix(step, "join namespace"), strings.HasPrefix(step, "enter namespaces"):
		return "namespaces"
	case verb == "limit" || verb == "sysctl" || verb == "umask" || verb == "session" || strings.HasPrefix(step, "working directory") || strings.HasPrefix(step, "host name") || strings.HasPrefix(step, "domain name"):
		return "limits, sysctls, names, session"
	}
	return step
}

// WriteJSON writes t as one JSON object.
func (t *Timeline) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(t) }

// WriteText draws t for a terminal of that many columns.
func (t *Timeline) WriteText(w io.Writer, columns int) error {
	if len(t.Phases) == 0 {
		_, err := io.WriteString(w, "timeline: no notes were taken\n")
		return err
	}
	var b strings.Builder
	label := 0
	for _, p := range t.Phases {
		label = max(label, utf8.RuneCountInString(p.name()))
	}
	label = min(label, 50)
	bars := max(columns-label-22, 20)
	// While the command runs there is nothing to see: that time is cut out of the axis.
	cut := 0.0
	for i := range t.Phases {
		if p := &t.Phases[i]; p.Who == "monitor" && p.What == "the command runs" {
			cut = max(p.Took-t.Ready/4, 0)
		}
	}
	axis := t.Total - cut
	if axis <= 0 {
		axis = 1
	}
	at := func(us float64) float64 {
		if us > t.Ready+t.Ready/4 {
			us = max(us-cut, t.Ready+t.Ready/4)
		}
		return us / axis
	}
	fmt.Fprintf(&b, "%.0f µs until the command ran, %.0f µs in all; one column is %.0f µs\n", t.Ready, t.Total, axis/float64(bars))
	for _, p := range t.Phases {
		name := p.name()
		if r := []rune(name); len(r) > label {
			name = string(r[:label-1]) + "…"
		}
		name += strings.Repeat(" ", label-utf8.RuneCountInString(name))
		from := min(int(at(p.Start)*float64(bars)), bars-1)
		to := min(int(at(p.Start+p.Took)*float64(bars)+0.5), bars)
		bar := strings.Repeat(" ", from)
		if to <= from {
			bar += "▏"
		} else {
			bar += strings.Repeat("█", to-from)
		}
		fmt.Fprintf(&b, "%-8s%s%9.0f µs %s\n", p.Who, name, p.Took, bar)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Phase) name() string {
	if p.Parts > 1 {
		return fmt.Sprintf("%s (%d)", p.What, p.Parts)
	}
	return p.What
}
