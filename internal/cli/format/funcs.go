package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"unicode/utf8"
)

// function is a function of the template language; max -1 is any number.
type function struct {
	min, max int
	do       func(args []any) (any, error)
}

// functions returns all functions; the map is made when a template is, not at start.
func functions(header bool) map[string]function {
	m := map[string]function{
		"eq":       {1, -1, equalAny},
		"ne":       {2, 2, func(a []any) (any, error) { eq, err := equal(a[0], a[1]); return !eq, err }},
		"lt":       {2, 2, func(a []any) (any, error) { c, err := compare(a[0], a[1]); return c < 0, err }},
		"le":       {2, 2, func(a []any) (any, error) { c, err := compare(a[0], a[1]); return c <= 0, err }},
		"gt":       {2, 2, func(a []any) (any, error) { c, err := compare(a[0], a[1]); return c > 0, err }},
		"ge":       {2, 2, func(a []any) (any, error) { c, err := compare(a[0], a[1]); return c >= 0, err }},
		"not":      {1, 1, func(a []any) (any, error) { return !truth(a[0]), nil }},
		"len":      {1, 1, length},
		"index":    {1, -1, index},
		"slice":    {1, 4, slice},
		"print":    {0, -1, func(a []any) (any, error) { return fmt.Sprint(a...), nil }},
		"println":  {0, -1, func(a []any) (any, error) { return fmt.Sprintln(a...), nil }},
		"printf":   {1, -1, printf},
		"html":     {1, -1, func(a []any) (any, error) { return escapeHTML(fmt.Sprint(a...)), nil }},
		"js":       {1, -1, func(a []any) (any, error) { return escapeJS(fmt.Sprint(a...)) }},
		"urlquery": {1, -1, func(a []any) (any, error) { return escapeQuery(fmt.Sprint(a...)), nil }},

		// Docker's.
		"json":     {1, 1, toJSON},
		"split":    {2, 2, func(a []any) (any, error) { return strings.Split(text(a[0]), text(a[1])), nil }},
		"join":     {2, 2, join},
		"title":    {1, 1, func(a []any) (any, error) { return title(text(a[0])), nil }},
		"lower":    {1, 1, func(a []any) (any, error) { return strings.ToLower(text(a[0])), nil }},
		"upper":    {1, 1, func(a []any) (any, error) { return strings.ToUpper(text(a[0])), nil }},
		"pad":      {3, 3, pad},
		"truncate": {2, 2, truncate},
	}
	if header {
		same := func(a []any) (any, error) { return a[0], nil }
		for _, name := range [...]string{"json", "split", "join", "title", "lower", "upper", "pad", "truncate"} {
			f := m[name]
			f.do = same
			m[name] = f
		}
	}
	return m
}

func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// toJSON encodes as Docker does: < > & stay readable, no final newline.
func toJSON(a []any) (any, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	v := a[0]
	if _, none := v.(missing); none {
		v = nil
	}
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return strings.TrimSpace(b.String()), nil
}

func join(a []any) (any, error) {
	v := indirect(reflect.ValueOf(a[0]))
	switch v.Kind() {
	case reflect.Invalid:
		return "", nil
	case reflect.Slice, reflect.Array:
	default:
		return nil, fmt.Errorf("can't join a value of type %T", a[0])
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = text(v.Index(i).Interface())
	}
	return strings.Join(parts, text(a[1])), nil
}

// title puts the first letter of each word into upper case.
func title(s string) string {
	start := true
	return strings.Map(func(r rune) rune {
		was := start
		start = r == ' ' || r == '\t' || r == '\n'
		if was {
			return []rune(strings.ToTitle(string(r)))[0]
		}
		return r
	}, s)
}

func pad(a []any) (any, error) {
	before, ok1 := a[1].(int)
	after, ok2 := a[2].(int)
	s := text(a[0])
	if !ok1 || !ok2 || before < 0 || after < 0 || before > 1<<16 || after > 1<<16 {
		return nil, errors.New("want two numbers of blanks")
	}
	if s == "" {
		return s, nil
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after), nil
}

func truncate(a []any) (any, error) {
	n, ok := a[1].(int)
	if !ok || n < 0 {
		return nil, errors.New("want a length")
	}
	s := text(a[0])
	if utf8.RuneCountInString(s) <= n {
		return s, nil
	}
	return string([]rune(s)[:n]), nil
}

func printf(a []any) (any, error) {
	f, ok := a[0].(string)
	if !ok {
		return nil, fmt.Errorf("wrong type for value; expected string; got %T", a[0])
	}
	return fmt.Sprintf(f, a[1:]...), nil
}

func length(a []any) (any, error) {
	v := indirect(reflect.ValueOf(a[0]))
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Array, reflect.Map:
		return v.Len(), nil
	case reflect.Invalid:
		return nil, errors.New("len of nil pointer")
	default:
		return nil, fmt.Errorf("len of type %T", a[0])
	}
}

// index is x[1][2]...; a key that a map lacks gives the zero value of its elements.
func index(a []any) (any, error) {
	v := indirect(reflect.ValueOf(a[0]))
	for _, key := range a[1:] {
		switch v.Kind() {
		case reflect.Map:
			k := reflect.ValueOf(key)
			if !k.IsValid() || !k.Type().AssignableTo(v.Type().Key()) {
				if k.IsValid() && k.Kind() == reflect.String && v.Type().Key().Kind() == reflect.String {
					k = k.Convert(v.Type().Key())
				} else {
					return nil, fmt.Errorf("value has type %T; should be %s", key, v.Type().Key())
				}
			}
			e := v.MapIndex(k)
			if !e.IsValid() {
				e = reflect.Zero(v.Type().Elem())
			}
			v = indirect(e)
		case reflect.Slice, reflect.Array, reflect.String:
			i, err := position(key, v.Len()-1)
			if err != nil {
				return nil, err
			}
			v = indirect(v.Index(i))
		case reflect.Invalid:
			return nil, errors.New("index of nil pointer")
		default:
			return nil, fmt.Errorf("can't index item of type %s", v.Type())
		}
	}
	if !v.IsValid() {
		return nil, nil //nolint:nilnil // the value is nil
	}
	return v.Interface(), nil
}

func slice(a []any) (any, error) {
	v := indirect(reflect.ValueOf(a[0]))
	if k := v.Kind(); k != reflect.String && k != reflect.Slice {
		return nil, fmt.Errorf("can't slice item of type %T", a[0])
	}
	at := [2]int{0, v.Len()}
	for i, x := range a[1:] {
		if i > 1 {
			return nil, errors.New("cannot 3-index slice a string")
		}
		n, err := position(x, v.Len())
		if err != nil {
			return nil, err
		}
		at[i] = n
	}
	if at[0] > at[1] {
		return nil, fmt.Errorf("invalid slice index: %d > %d", at[0], at[1])
	}
	return v.Slice(at[0], at[1]).Interface(), nil
}

// position checks an index that may go up to last.
func position(x any, last int) (int, error) {
	v := reflect.ValueOf(x)
	var i int64
	switch {
	case v.CanInt():
		i = v.Int()
	case v.CanUint():
		i = int64(min(v.Uint(), 1<<62))
	default:
		return 0, fmt.Errorf("cannot index slice/array with type %T", x)
	}
	if i < 0 || i > int64(last) {
		return 0, fmt.Errorf("index out of range: %d", i)
	}
	return int(i), nil
}

// equalAny is eq: is the first equal to any of the others?
func equalAny(a []any) (any, error) {
	if len(a) < 2 {
		return nil, errors.New("missing argument for comparison")
	}
	for _, b := range a[1:] {
		eq, err := equal(a[0], b)
		if err != nil || eq {
			return eq, err
		}
	}
	return false, nil
}

// basic reduces a value to int64, uint64, float64, string, bool or nil.
func basic(x any) (any, bool) {
	if _, none := x.(missing); none {
		return nil, true
	}
	v := indirect(reflect.ValueOf(x))
	switch {
	case !v.IsValid():
		return nil, true
	case v.CanInt():
		return v.Int(), true
	case v.CanUint():
		if u := v.Uint(); u > 1<<63-1 {
			return u, true
		}
		return int64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	case v.Kind() == reflect.String:
		return v.String(), true
	case v.Kind() == reflect.Bool:
		return v.Bool(), true
	}
	return nil, false
}

func equal(x, y any) (bool, error) {
	a, ok1 := basic(x)
	b, ok2 := basic(y)
	if !ok1 || !ok2 {
		return false, errors.New("non-comparable types for comparison")
	}
	if a == nil || b == nil {
		return a == nil && b == nil, nil
	}
	if reflect.TypeOf(a) != reflect.TypeOf(b) {
		if _, u := a.(uint64); u {
			if _, i := b.(int64); i {
				return false, nil
			}
		}
		return false, errors.New("incompatible types for comparison")
	}
	return a == b, nil
}

func compare(x, y any) (int, error) {
	a, ok1 := basic(x)
	b, ok2 := basic(y)
	if ok1 && ok2 {
		switch a := a.(type) {
		case int64:
			if b, ok := b.(int64); ok {
				return order(a, b), nil
			}
		case float64:
			if b, ok := b.(float64); ok {
				return order(a, b), nil
			}
		case string:
			if b, ok := b.(string); ok {
				return order(a, b), nil
			}
		}
	}
	return 0, errors.New("incompatible types for comparison")
}

func order[T int64 | float64 | string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func sortedKeys(m reflect.Value) []reflect.Value {
	keys := m.MapKeys()
	sort.Slice(keys, func(i, j int) bool {
		c, err := compare(keys[i].Interface(), keys[j].Interface())
		return err == nil && c < 0
	})
	return keys
}

func escapeHTML(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;", "\x00", "\ufffd").Replace(s)
}

func escapeJS(s string) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(string(b), `"`), `"`), "'", `\'`), nil
}

func escapeQuery(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
			b.WriteByte(c)
		case c == ' ':
			b.WriteByte('+')
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
