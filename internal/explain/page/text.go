package page

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/isle-engine/isle/internal/explain/view"
)

// Style is how text is set off on a terminal; the zero Style is plain.
type Style struct{ Bold, Dim, Warn, Off string }

// Terminal is the Style of a terminal.
func Terminal() Style { return Style{"\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[0m"} }

// TextOptions say how text is laid out.
type TextOptions struct {
	Style
	Width   int // columns; 0: 120
	Section string
	Escape  func(string) string
}

// WriteText writes v as text.
func WriteText(w io.Writer, v *view.View, o TextOptions) error {
	if o.Width == 0 {
		o.Width = 120
	}
	t := &textPage{o: o}
	t.head(v)
	for _, s := range Sections(v) {
		if o.Section == "" || o.Section == s.Name {
			t.section(&s)
		}
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

type textPage struct {
	b strings.Builder
	o TextOptions
}

func (t *textPage) head(v *view.View) {
	e := t.o.Escape
	t.b.WriteString(t.o.Bold + e(v.Name) + t.o.Off + "  " + e(v.Image) + "  " + e(clip(strings.Join(v.Command, " "), 60)) + "  " + string(v.Status) + "\n")
	if t.o.Section == "" {
		t.b.WriteString(t.o.Dim + "Everything below was read from the kernel just now; the command under each fact shows the same." + t.o.Off + "\n")
	}
}

func (t *textPage) section(s *Section) {
	o := &t.o
	label := 10
	for _, r := range s.Rows {
		label = max(label, min(utf8.RuneCountInString(o.Escape(r.Label)), 22))
	}
	label = min(max(label, utf8.RuneCountInString(s.Title)-1), 22)
	host := false
	for _, r := range s.Rows {
		host = host || r.Host != ""
	}
	rest := max(o.Width-label-4, 24)
	left := rest
	if host {
		left = rest / 2
	}
	title := o.Escape(strings.ToUpper(s.Title))
	t.b.WriteString("\n" + o.Bold + pad(title, label+2) + o.Off)
	if host && s.Name != "differences" && utf8.RuneCountInString(title) < label+3 {
		t.b.WriteString(" " + o.Dim + pad("inside", left) + "on the host" + o.Off)
	}
	t.b.WriteString("\n")
	if s.Intro != "" {
		for _, l := range wrap(s.Intro, o.Width) {
			t.b.WriteString(o.Dim + l + o.Off + "\n")
		}
	}
	said := ""
	for _, r := range s.Rows {
		cells := [3][]string{wrap(o.Escape(r.Label), label), wrap(shorten(o.Escape(r.Inside)), left-1), nil}
		if host {
			cells[2] = wrap(shorten(o.Escape(r.Host)), rest-left)
		}
		n := max(len(cells[0]), len(cells[1]), len(cells[2]))
		for i := range n {
			line := "  " + pad(at(cells[0], i), label) + " " + pad(at(cells[1], i), left)
			line += at(cells[2], i)
			line = strings.TrimRight(line, " ")
			if r.Differs {
				line = o.Warn + line + o.Off
			}
			t.b.WriteString(line + "\n")
		}
		if r.Command != "" && r.Command != said {
			said = r.Command
			t.b.WriteString("  " + strings.Repeat(" ", label) + " " + o.Dim + "$ " + o.Escape(r.Command) + o.Off + "\n")
		}
	}
}

// shorten leaves twelve digits of the ids that paths are full of; commands have
// them whole.
func shorten(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		n := 0
		for i+n < len(s) && (s[i+n] >= '0' && s[i+n] <= '9' || s[i+n] >= 'a' && s[i+n] <= 'f') {
			n++
		}
		switch n {
		case 64:
			b.WriteString(s[i:i+12] + "…")
		case 0:
			n = 1
			b.WriteByte(s[i])
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func pad(s string, n int) string {
	if k := n - utf8.RuneCountInString(s); k > 0 {
		return s + strings.Repeat(" ", k)
	}
	return s
}

// wrap breaks s into lines of at most n characters, at blanks where there are any,
// else after a slash or where it must.
func wrap(s string, n int) []string {
	if s == "" {
		return nil
	}
	var lines []string
	r := []rune(s)
	for len(r) > n {
		cut := n
		for i := n; i > n/3; i-- {
			if r[i] == ' ' {
				cut = i
				break
			}
			if r[i-1] == '/' && cut == n && i > n/2 {
				cut = i
			}
		}
		lines = append(lines, strings.TrimRight(string(r[:cut]), " "))
		r = r[cut:]
		for len(r) > 0 && r[0] == ' ' {
			r = r[1:]
		}
	}
	return append(lines, string(r))
}
