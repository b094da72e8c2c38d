package why

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Style is how text is set off on a terminal; the zero Style is plain.
type Style struct{ Bold, Dim, Warn, Off string }

// WriteText writes the report for people; escape makes strings harmless that the
// command has chosen.
func (r *Report) WriteText(w io.Writer, s Style, escape func(string) string) error {
	var b strings.Builder
	if len(r.Refusals) == 0 {
		fmt.Fprintf(&b, "%swhy:%s none of %d system calls was refused", s.Bold, s.Off, r.Calls)
		if r.ExitCode != 0 {
			fmt.Fprintf(&b, "; exit code %d is the command's own affair", r.ExitCode)
		}
		b.WriteByte('\n')
	} else {
		fmt.Fprintf(&b, "%swhy:%s %d of %d system calls were refused\n", s.Bold, s.Off, len(r.Refusals), r.Calls)
	}
	for _, x := range r.Refusals {
		times := ""
		if x.Times > 1 {
			times = fmt.Sprintf("  (%d times)", x.Times)
		}
		fmt.Fprintf(&b, "\n%s%s = %s%s%s  %s%s[%s]%s\n", s.Bold, escape(x.Call), x.Errno, s.Off, times, s.Dim, "", escape(x.Comm), s.Off)
		line := func(label, text string) {
			if text != "" {
				fmt.Fprintf(&b, "  %-6s %s\n", label, escape(text))
			}
		}
		fmt.Fprintf(&b, "  %-6s %s%s%s: %s\n", "cause", s.Warn, x.Cause, s.Off, escape(x.Text))
		line("", x.Behind)
		proof := x.Proof
		if proof != "" && !x.Proven {
			proof += " (no proof)"
		}
		if proof == "" {
			proof = "none: to make the call again would change something"
		}
		line("proof", proof)
		line("flag", x.Flag)
		line("cost", x.Cost)
		line("better", x.vm())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Refusal) vm() string {
	if r.VM == "" {
		return ""
	}
	return "a virtual machine: " + strings.TrimPrefix(r.VM, "a virtual machine ")
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
