package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/isle-engine/isle/internal/cli/format"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// row is one line of a list: its fields by Docker's names.
type row interface {
	format.Object
	// keys are the fields of --format json.
	keys() []string
}

// list prints rows as a table, as JSON or by a template.
type list struct {
	text    string   // the --format
	columns []string // fields of the default table
	// headings are the columns' titles by field.
	headings map[string]string
}

// print writes the list; at returns row i of n.
func (l *list) print(a *app, n int, at func(i int) row) error {
	text := l.text
	table := text == "" || text == "table"
	switch {
	case table:
		return l.table(a.stdout(), n, at)
	case text == "json":
		text = "{{json .}}"
	}
	text, table = strings.CutPrefix(text, "table")
	text = unescape(strings.Trim(text, " "))
	if !table && text == "{{json .}}" {
		return printJSON(a.stdout(), n, at)
	}
	t, err := format.Parse(text, false)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if table {
		h, err := format.Parse(text, true)
		if err != nil {
			return err
		}
		if err := h.Execute(&out, heading(l.headings)); err != nil {
			return err
		}
		out.WriteByte('\n')
	}
	for i := range n {
		if err := t.Execute(&out, at(i)); err != nil {
			return err
		}
		out.WriteByte('\n')
	}
	if table {
		var aligned bytes.Buffer
		tw := newTable(&aligned)
		if _, err := tw.Write(out.Bytes()); err != nil {
			return err
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		out = aligned
	}
	return a.textOut(out.String())
}

// unescape turns \t and \n, as typed between a shell's single quotes, into what they mean.
func unescape(s string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s)
}

// newTable aligns columns as Docker does: three blanks apart, at least ten wide.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 10, 1, 3, ' ', 0) }

// table is the default output; it needs no templates.
func (l *list) table(w io.Writer, n int, at func(i int) row) error {
	tw := newTable(w)
	line := make([]byte, 0, 256)
	for i, c := range l.columns {
		if i > 0 {
			line = append(line, '\t')
		}
		line = append(line, l.headings[c]...)
	}
	if _, err := tw.Write(append(line, '\n')); err != nil {
		return err
	}
	for i := range n {
		r := at(i)
		line = line[:0]
		for i, c := range l.columns {
			if i > 0 {
				line = append(line, '\t')
			}
			v, _ := r.Field(c, nil)
			s, _ := v.(string)
			line = append(line, s...)
		}
		if _, err := tw.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func printJSON(w io.Writer, n int, at func(i int) row) error {
	for i := range n {
		b, err := json.Marshal(rowJSON{at(i)})
		if err != nil {
			return err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// rowJSON marshals a row as an object of its keys, which are in alphabetical order.
type rowJSON struct{ row }

func (r rowJSON) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, k := range r.keys() {
		b.WriteByte("{,"[min(i, 1)])
		v, _ := r.Field(k, nil)
		j, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", k, j)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// heading answers every field with its column's title.
type heading map[string]string

// Field implements format.Object.
func (h heading) Field(name string, args []any) (any, bool) {
	if name == "Label" && len(args) == 1 {
		s := fmt.Sprint(args[0])
		s = s[strings.LastIndexByte(s, '.')+1:]
		return strings.NewReplacer("-", " ", "_", " ").Replace(s), true
	}
	s, ok := h[name]
	return s, ok
}

// wants reports whether a --format asks for a field.
func wants(text, field string) bool { return strings.Contains(text, "."+field) }

// filterVar collects --filter KEY=VALUE.
type filterVar engine.Filter

func (v *filterVar) kind() string { return "filter" }
func (v *filterVar) Set(s string) error {
	k, val, ok := strings.Cut(s, "=")
	if !ok {
		if s == "" {
			return nil
		}
		return errs.New(errs.Invalid, "bad format of filter (expected name=value)")
	}
	if *v == nil {
		*v = filterVar{}
	}
	k = strings.ToLower(strings.TrimSpace(k))
	(*v)[k] = append((*v)[k], strings.TrimSpace(val))
	return nil
}

// inputFile opens a file to read, or answers with standard input for "" and "-".
func (a *app) inputFile(name string) (*os.File, error) {
	if name == "" || name == "-" {
		return a.in, nil
	}
	return os.Open(name)
}
