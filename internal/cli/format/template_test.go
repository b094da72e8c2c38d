package format

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"text/template"
)

type inner struct {
	Pid    int
	Status string `json:"status"`
	Up     bool
	Ratio  float64
	Big    uint64
}

type outer struct {
	ID     string `json:"Id"`
	State  *inner
	Labels map[string]string
	Cmd    []string
	None   []string
	Ptr    *inner
	Any    any
	Nested map[string]map[string]int
	List   []inner
}

func sample() outer {
	return outer{
		ID: "abc", State: &inner{42, "running", true, 1.5, 7}, Labels: map[string]string{"a": "1", "b.c": "2 <3>"}, Cmd: []string{"sh", "-c", "echo hi"},
		Any: map[string]any{"k": 1.0, "s": "t"}, Nested: map[string]map[string]int{"x": {"y": 3}}, List: []inner{{1, "a", false, 0, 0}, {2, "b", true, 0, 0}},
	}
}

// TestLikeTextTemplate runs templates through both executors.
func TestLikeTextTemplate(t *testing.T) {
	d := sample()
	for _, text := range []string{
		"", "plain", "{{.ID}}", "{{.State.Pid}}", "{{.State}}", "{{.Cmd}}", "{{.Labels}}", "{{.None}}", "{{.Ptr}}", "{{.Nested}}", "{{.List}}", "{{.Any}}",
		`{{index .Labels "b.c"}}`, `{{index .Labels "nope"}}`, `{{index .Cmd 1}}`, `{{index .Nested "x" "y"}}`, `{{index .Nested "q" "y"}}`, `{{.Labels.a}}`, `{{.Labels.nope}}`, `{{.Any.k}}`,
		`{{range .Cmd}}[{{.}}]{{end}}`, `{{range $i, $e := .Cmd}}{{$i}}={{$e}};{{end}}`, `{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}`, `{{range .None}}x{{else}}none{{end}}`, `{{range 3}}{{.}}{{end}}`,
		`{{range .List}}{{if .Up}}{{.Status}}{{else}}-{{end}}{{end}}`, `{{range .Cmd}}{{if eq . "-c"}}{{break}}{{end}}{{.}}{{end}}`, `{{range .Cmd}}{{if eq . "-c"}}{{continue}}{{end}}{{.}}{{end}}`,
		`{{with .State}}{{.Pid}}{{end}}`, `{{with .Ptr}}x{{else}}nil{{end}}`, `{{if and .ID .State.Up}}y{{end}}`, `{{if or .None .Cmd}}y{{end}}`, `{{or .None "x"}}`, `{{and 1 0}}`, `{{not .ID}}`,
		`{{if eq .State.Pid 42}}y{{else}}n{{end}}`, `{{if eq .State.Status "exited" "running"}}y{{end}}`, `{{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge "b" "a"}} {{lt 1.5 2.5}} {{eq .State.Big 7}}`,
		`{{printf "%s-%d" .ID .State.Pid}}`, `{{println .ID}}`, `{{print 1 2 "x"}}`, `{{len .Cmd}} {{len .ID}} {{len .Labels}}`, `{{slice .ID 1}} {{slice .Cmd 1 2}}`,
		`{{html "<a href='x'>&"}}`, `{{urlquery "a b&c/é"}}`, `{{$x := .State}}{{$x.Pid}}`, `{{$x := 1}}{{$x = 2}}{{$x}}`, `{{$.ID}}`, `{{range .Cmd}}{{$.ID}}{{end}}`, `{{(index .List 1).Status}}`,
		`{{define "T"}}<{{.}}>{{end}}{{template "T" .ID}}{{template "T"}}`, `{{.ID | printf "%s!"}}`, `{{.ID | len}}`, `{{- .ID -}} x`, `{{/* c */}}a`, `{{if not (eq .ID "x")}}z{{end}}`, `{{1.5}} {{true}} {{"a\tb"}} {{'a'}} {{0x10}}`,
		`{{block "B" .}}{{.ID}}{{end}}`, `{{if .Ptr}}a{{else if .ID}}b{{else}}c{{end}}`, `{{with $y := .ID}}{{$y}}{{end}}`, `{{len "é"}}`, `{{range $e := .List}}{{$e.Pid}}{{end}}`,
		// Errors: both must refuse.
		`{{.Nope}}`, `{{.State.Nope}}`, `{{.ID.X}}`, `{{.Ptr.Pid}}`, `{{index .Cmd 9}}`, `{{index .Cmd "x"}}`, `{{len 3}}`, `{{template "none"}}`, `{{eq .ID 3}}`, `{{lt .ID 3}}`, `{{.ID "x"}}`, `{{range 1.5}}{{end}}`, `{{1 2}}`, `{{index 3 1}}`, `{{slice .ID 9}}`,
		`{{`, `{{.ID`, `{{nope}}`, `{{if}}`, `{{end}}`, `{{range .Cmd}}`, `{{$x}}`, `{{break}}`,
	} {
		var want bytes.Buffer
		std, werr := template.New("").Parse(text)
		if werr == nil {
			werr = std.Execute(&want, d)
		}
		var got bytes.Buffer
		own, gerr := Parse(text, false)
		if gerr == nil {
			gerr = own.Execute(&got, d)
		}
		if (werr == nil) != (gerr == nil) {
			t.Errorf("%s: text/template says %v, we %v", text, werr, gerr)
			continue
		}
		if werr == nil && got.String() != want.String() {
			t.Errorf("%s:\n got %q\nwant %q", text, got.String(), want.String())
		}
	}
}

func TestDockerFunctions(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{{json .Labels}}`, `{"a":"1","b.c":"2 <3>"}`},
		{`{{json .State}}`, `{"Pid":42,"status":"running","Up":true,"Ratio":1.5,"Big":7}`},
		{`{{join .Cmd " "}}`, "sh -c echo hi"},
		{`{{range split "a,b" ","}}[{{.}}]{{end}}`, "[a][b]"},
		{`{{upper .ID}} {{lower "AbC"}} {{title "one two"}}`, "ABC abc One Two"},
		{`{{pad .ID 1 2}}|{{truncate .ID 2}}`, " abc  |ab"},
		{`{{.Id}} {{.State.status}}`, "abc running"},
		{`{{.Labels.nope}}`, "<no value>"},
	} {
		tm, err := Parse(c.in, false)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		var b bytes.Buffer
		if err := tm.Execute(&b, sample()); err != nil || b.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", c.in, b.String(), err, c.want)
		}
	}
}

type object struct{}

func (object) Field(name string, args []any) (any, bool) {
	switch name {
	case "Names":
		return "web", true
	case "Label":
		if len(args) == 1 {
			return fmt.Sprint("label-", args[0]), true
		}
	}
	return nil, false
}

func TestObjectAndErrors(t *testing.T) {
	run := func(text string, data any) (string, error) {
		tm, err := Parse(text, false)
		if err != nil {
			return "", err
		}
		var b bytes.Buffer
		err = tm.Execute(&b, data)
		return b.String(), err
	}
	if got, err := run(`{{.Names}} {{.Label "x"}} {{"y" | .Label}}`, object{}); err != nil || got != "web label-x label-y" {
		t.Errorf("%q %v", got, err)
	}
	_, err := run(`{{.Foo}}`, object{})
	if err == nil || !strings.Contains(err.Error(), `template: :1:2: executing "" at <.Foo>: can't evaluate field Foo in type`) {
		t.Errorf("%v", err)
	}
	_, err = run(`{{.Foo}}`, sample())
	if err == nil || err.Error() != `template parsing error: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"` {
		t.Errorf("%v", err)
	}
	if _, err = run(`{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`, nil); err == nil {
		t.Error("endless recursion not refused")
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{.ID}}", "{{range .Cmd}}{{.}}{{end}}", `{{index .Labels "a"}}`, `{{json .}}`, `{{printf "%d" 3}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "range") && strings.ContainsAny(text, "0123456789") {
			t.Skip("counting loops may run long")
		}
		tm, err := Parse(text, false)
		if err != nil {
			return
		}
		_ = tm.Execute(&bytes.Buffer{}, sample())
	})
}
