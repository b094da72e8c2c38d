package format

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/template/parse"

	"github.com/isle-engine/isle/internal/errs"
)

// Template is a parsed template.
type Template struct {
	root  *parse.Tree
	named map[string]*parse.Tree
	funcs map[string]function
}

// Object is data that computes its fields when a template asks for them.
type Object interface {
	// Field returns the field called name, given the arguments that follow it in
	// the template; ok is false when there is none of that name.
	Field(name string, args []any) (v any, ok bool)
}

// Parse reads a template. With header set, it is made for the heading of a
// table: functions that change data leave their argument as it is.
func Parse(text string, header bool) (*Template, error) {
	t := &Template{funcs: functions(header), named: map[string]*parse.Tree{}}
	known := make(map[string]any, len(t.funcs)+len(keywords))
	for name := range t.funcs {
		known[name] = true
	}
	for _, k := range keywords {
		known[k] = true
	}
	root := parse.New("")
	trees := map[string]*parse.Tree{}
	if _, err := root.Parse(text, "", "", trees, known); err != nil {
		return nil, errs.New(errs.Invalid, "template parsing error: %w", err)
	}
	t.root, t.named = root, trees
	return t, nil
}

// keywords are functions that are not called like others: they stop early.
var keywords = [...]string{"and", "or"}

// Execute writes the template applied to data.
func (t *Template) Execute(w io.Writer, data any) (Err error) {
	var out bytes.Buffer
	s := &state{t: t, out: &out, tree: t.root, vars: []variable{{"$", data}}}
	defer func() {
		// Failures deep in the tree come up as a panic of our own type only.
		switch r := recover().(type) {
		case nil:
		case failure:
			Err = errs.New(errs.Invalid, "template parsing error: %w", r.error)
		default:
			panic(r)
		}
	}()
	if t.root.Root != nil {
		s.walk(data, t.root.Root)
	}
	_, err := w.Write(out.Bytes())
	return err
}

type failure struct{ error }

type variable struct {
	name  string
	value any
}

type state struct {
	t     *Template
	out   *bytes.Buffer
	tree  *parse.Tree
	vars  []variable
	depth int
}

// maxDepth bounds templates that call themselves.
const maxDepth = 1000

func (s *state) fail(n parse.Node, format string, args ...any) {
	where, what := s.tree.ErrorContext(n)
	msg := fmt.Sprintf(format, args...)
	panic(failure{fmt.Errorf("template: %s: executing %q at <%s>: %s", where, s.tree.Name, what, msg)})
}

// flow is how a node ended: break and continue leave the enclosing range.
type flow int

const (
	next flow = iota
	breaking
	continuing
)

func (s *state) walk(dot any, n parse.Node) flow {
	switch n := n.(type) {
	case *parse.ActionNode:
		v := s.pipe(dot, n.Pipe)
		if len(n.Pipe.Decl) == 0 {
			s.print(n, v)
		}
	case *parse.TextNode:
		s.out.Write(n.Text)
	case *parse.ListNode:
		for _, c := range n.Nodes {
			if f := s.walk(dot, c); f != next {
				return f
			}
		}
	case *parse.IfNode:
		return s.branch(dot, n.Pipe, n.List, n.ElseList, false)
	case *parse.WithNode:
		return s.branch(dot, n.Pipe, n.List, n.ElseList, true)
	case *parse.RangeNode:
		s.rangeOver(dot, n)
	case *parse.TemplateNode:
		s.call(dot, n)
	case *parse.BreakNode:
		return breaking
	case *parse.ContinueNode:
		return continuing
	case *parse.CommentNode:
	default:
		s.fail(n, "unknown node: %s", n)
	}
	return next
}

func (s *state) branch(dot any, p *parse.PipeNode, list, otherwise *parse.ListNode, with bool) flow {
	mark := len(s.vars)
	defer func() { s.vars = s.vars[:mark] }()
	v := s.pipe(dot, p)
	if truth(v) {
		if with {
			dot = v
		}
		return s.walk(dot, list)
	}
	if otherwise != nil {
		return s.walk(dot, otherwise)
	}
	return next
}

func (s *state) call(dot any, n *parse.TemplateNode) {
	tree := s.t.named[n.Name]
	if tree == nil {
		s.fail(n, "template %q not defined", n.Name)
	}
	if s.depth == maxDepth {
		s.fail(n, "exceeded maximum template depth (%d)", maxDepth)
	}
	var arg any
	if n.Pipe != nil {
		arg = s.pipe(dot, n.Pipe)
	}
	sub := &state{t: s.t, out: s.out, tree: tree, depth: s.depth + 1, vars: []variable{{"$", arg}}}
	sub.walk(arg, tree.Root)
}

func (s *state) rangeOver(dot any, n *parse.RangeNode) {
	mark := len(s.vars)
	defer func() { s.vars = s.vars[:mark] }()
	v := s.pipe(dot, n.Pipe)
	// The pipe declared its variables with the whole; each turn sets them anew.
	s.vars = s.vars[:mark]
	empty := true
	one := func(key, elem any) bool {
		empty = false
		switch d := n.Pipe.Decl; len(d) {
		case 1:
			s.set(n.Pipe, d[0], elem)
		case 2:
			s.set(n.Pipe, d[0], key)
			s.set(n.Pipe, d[1], elem)
		}
		f := s.walk(elem, n.List)
		s.vars = s.vars[:mark]
		return f != breaking
	}
	if n.Pipe.IsAssign {
		mark = len(s.vars)
	}
	rv := indirect(reflect.ValueOf(v))
	switch rv.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range rv.Len() {
			if !one(i, rv.Index(i).Interface()) {
				break
			}
		}
	case reflect.Map:
		for _, k := range sortedKeys(rv) {
			if !one(k.Interface(), rv.MapIndex(k).Interface()) {
				break
			}
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		for i := range rv.Int() {
			if !one(int(i), int(i)) {
				break
			}
		}
	case reflect.Invalid:
	default:
		s.fail(n, "range can't iterate over %v", v)
	}
	if empty && n.ElseList != nil {
		s.walk(dot, n.ElseList)
	}
}

// set declares, or with = assigns, a variable.
func (s *state) set(p *parse.PipeNode, v *parse.VariableNode, val any) {
	name := v.Ident[0]
	if !p.IsAssign {
		s.vars = append(s.vars, variable{name, val})
		return
	}
	for i := len(s.vars) - 1; i >= 0; i-- {
		if s.vars[i].name == name {
			s.vars[i].value = val
			return
		}
	}
	s.fail(v, "undefined variable: %s", name)
}

func (s *state) pipe(dot any, p *parse.PipeNode) any {
	if p == nil {
		return nil
	}
	var v any
	for i, c := range p.Cmds {
		v = s.cmd(dot, c, v, i > 0)
	}
	for _, d := range p.Decl {
		s.set(p, d, v)
	}
	return v
}

// cmd evaluates one command of a pipeline; last is what the one before it gave.
func (s *state) cmd(dot any, c *parse.CommandNode, last any, piped bool) any {
	first := c.Args[0]
	args := func() []any {
		vals := make([]any, 0, len(c.Args))
		for _, a := range c.Args[1:] {
			vals = append(vals, s.arg(dot, a))
		}
		if piped {
			vals = append(vals, last)
		}
		return vals
	}
	switch n := first.(type) {
	case *parse.FieldNode:
		return s.fields(n, dot, n.Ident, args())
	case *parse.ChainNode:
		return s.fields(n, s.arg(dot, n.Node), n.Field, args())
	case *parse.VariableNode:
		return s.fields(n, s.variable(n), n.Ident[1:], args())
	case *parse.IdentifierNode:
		if n.Ident == "and" || n.Ident == "or" {
			return s.shortcut(dot, n, c.Args[1:], last, piped)
		}
		return s.function(n, args())
	case *parse.PipeNode:
		s.alone(n, c, piped)
		return s.pipe(dot, n)
	}
	s.alone(first, c, piped)
	return s.arg(dot, first)
}

// alone makes sure that what is no function was given no arguments.
func (s *state) alone(n parse.Node, c *parse.CommandNode, piped bool) {
	if len(c.Args) > 1 || piped {
		s.fail(n, "can't give argument to non-function %s", n)
	}
}

// shortcut is and, or: the arguments after the deciding one are not evaluated.
func (s *state) shortcut(dot any, n *parse.IdentifierNode, args []parse.Node, last any, piped bool) any {
	if len(args) == 0 && !piped {
		s.fail(n, "wrong number of args for %s: want at least 1 got 0", n.Ident)
	}
	var v any
	for _, a := range args {
		if v = s.arg(dot, a); truth(v) == (n.Ident == "or") {
			return v
		}
	}
	if piped {
		return last
	}
	return v
}

func (s *state) function(n *parse.IdentifierNode, args []any) any {
	f, ok := s.t.funcs[n.Ident]
	if !ok {
		s.fail(n, "function %q not defined", n.Ident)
	}
	if len(args) < f.min || f.max >= 0 && len(args) > f.max {
		want := fmt.Sprint(f.min)
		if f.max < 0 || f.max > f.min {
			want = "at least " + want
		}
		s.fail(n, "wrong number of args for %s: want %s got %d", n.Ident, want, len(args))
	}
	v, err := f.do(args)
	if err != nil {
		s.fail(n, "error calling %s: %v", n.Ident, err)
	}
	return v
}

func (s *state) arg(dot any, n parse.Node) any {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.NilNode:
		return nil
	case *parse.FieldNode:
		return s.fields(n, dot, n.Ident, nil)
	case *parse.VariableNode:
		return s.fields(n, s.variable(n), n.Ident[1:], nil)
	case *parse.ChainNode:
		return s.fields(n, s.arg(dot, n.Node), n.Field, nil)
	case *parse.PipeNode:
		return s.pipe(dot, n)
	case *parse.IdentifierNode:
		if n.Ident == "and" || n.Ident == "or" {
			return s.shortcut(dot, n, nil, nil, false)
		}
		return s.function(n, nil)
	case *parse.BoolNode:
		return n.True
	case *parse.StringNode:
		return n.Text
	case *parse.NumberNode:
		return number(n)
	}
	s.fail(n, "can't handle %s", n)
	return nil
}

func number(n *parse.NumberNode) any {
	switch {
	case n.IsInt && !strings.ContainsAny(n.Text, "."):
		return int(n.Int64)
	case n.IsFloat:
		return n.Float64
	case n.IsUint:
		return n.Uint64
	}
	return n.Text
}

func (s *state) variable(n *parse.VariableNode) any {
	for _, v := range slices.Backward(s.vars) {
		if v.name == n.Ident[0] {
			return v.value
		}
	}
	s.fail(n, "undefined variable: %s", n.Ident[0])
	return nil
}

// fields follows a chain of names; args are for the last of them.
func (s *state) fields(n parse.Node, v any, names []string, args []any) any {
	if len(names) == 0 && len(args) > 0 {
		s.fail(n, "can't give argument to non-function %s", n)
	}
	for i, name := range names {
		var given []any
		if i == len(names)-1 {
			given = args
		}
		v = s.field(n, v, name, given)
	}
	return v
}

func (s *state) field(n parse.Node, v any, name string, args []any) any {
	if o, ok := v.(Object); ok {
		got, known := o.Field(name, args)
		if !known {
			s.fail(n, "can't evaluate field %s in type %T", name, v)
		}
		return got
	}
	rv := indirect(reflect.ValueOf(v))
	if len(args) > 0 {
		s.fail(n, "%s has arguments but cannot be invoked as function", name)
	}
	switch rv.Kind() {
	case reflect.Struct:
		if f, ok := structField(rv, name); ok {
			return f.Interface()
		}
		s.fail(n, "map has no entry for key %q", name)
	case reflect.Map:
		if rv.Type().Key().Kind() != reflect.String {
			s.fail(n, "can't evaluate field %s in type %T", name, v)
		}
		e := rv.MapIndex(reflect.ValueOf(name).Convert(rv.Type().Key()))
		if e.IsValid() {
			return e.Interface()
		}
		return missing{}
	case reflect.Invalid:
		s.fail(n, "nil data; no entry for key %q", name)
	default:
		s.fail(n, "can't evaluate field %s in type %T", name, v)
	}
	return nil
}

// missing is the value of a key that a map does not have: it prints as
// text/template prints it, and is false.
type missing struct{}

func (missing) String() string { return "<no value>" }

// structField finds a field by its Go name or its JSON name, in embedded structs too.
func structField(v reflect.Value, name string) (reflect.Value, bool) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if in := indirect(v.Field(i)); in.Kind() == reflect.Struct {
				if got, ok := structField(in, name); ok {
					return got, true
				}
			}
			continue
		}
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && (f.Name == name || tag == name) {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func (s *state) print(n parse.Node, v any) {
	if v == nil {
		s.out.WriteString("<no value>")
		return
	}
	switch v.(type) {
	case fmt.Stringer, error:
		fmt.Fprint(s.out, v)
		return
	}
	rv := indirect(reflect.ValueOf(v))
	switch rv.Kind() {
	case reflect.Invalid:
		s.out.WriteString("<nil>") // a nil pointer
	case reflect.Chan, reflect.Func:
		s.fail(n, "can't print %s of type %T", n, v)
	default:
		fmt.Fprint(s.out, rv.Interface())
	}
}

// indirect follows pointers and interfaces.
func indirect(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	return v
}

// truth is what if and with ask: anything but the zero value of basic kinds and
// what is empty.
func truth(x any) bool {
	v := reflect.ValueOf(x)
	for v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Invalid:
		return false
	case reflect.Struct:
		_, none := x.(missing)
		return !none
	case reflect.Slice, reflect.Map, reflect.Array, reflect.String:
		return v.Len() > 0
	default:
		return !v.IsZero()
	}
}
