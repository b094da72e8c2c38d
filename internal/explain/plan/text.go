package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Style is how text is set off on a terminal; the zero Style is plain.
type Style struct{ Bold, Dim, Off string }

// Terminal is the Style of a terminal.
func Terminal() Style { return Style{"\x1b[1m", "\x1b[2m", "\x1b[0m"} }

// WriteText writes the plan for people: a heading where the group changes, each
// call on a line and below it why it is made, unless that is what was said last.
// Calls that are ways round a refusal are left out unless all is set. escape makes
// strings harmless that an image could have chosen.
func (p *Plan) WriteText(w io.Writer, s Style, all bool, escape func(string) string) error {
	var b strings.Builder
	who := "root"
	if p.Rootless {
		who = "an ordinary user"
	}
	hidden := 0
	for i := range p.Calls {
		if p.Calls[i].Fallback {
			hidden++
		}
	}
	fmt.Fprintf(&b, "%s%s%s %s\n", s.Bold, escape(p.Image), s.Off, escape(strings.Join(p.Command, " ")))
	fmt.Fprintf(&b, "A container is this list of system calls, made for %s. H: by a process on the host;\nC: by the child that becomes the container.", who)
	if hidden > 0 && !all {
		fmt.Fprintf(&b, " %d more are ways round a refusal (--all).", hidden)
	}
	b.WriteString("\n")
	group, said := "", ""
	for i := range p.Calls {
		c := &p.Calls[i]
		if c.Fallback && !all {
			continue
		}
		if c.Group != group {
			group, said = c.Group, ""
			fmt.Fprintf(&b, "\n%s%s%s\n", s.Bold, strings.ToUpper(group), s.Off)
		}
		by := "H"
		if c.By == "child" {
			by = "C"
		}
		if c.Fallback {
			by = "?"
		}
		fmt.Fprintf(&b, "%4d %s  %s\n", c.N, by, escape(c.Text))
		if why := c.Why + "\x00" + c.Man; why != said {
			said = why
			fmt.Fprintf(&b, "        %s%s  %s%s\n", s.Dim, escape(c.Why), c.Man, s.Off)
		}
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(&b, "\nWARNING: %s", escape(warning))
	}
	if len(p.Warnings) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes the plan as one JSON object.
func (p *Plan) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(p)
}
