package ocicli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// kind is what a flag takes.
type kind uint8

const (
	text kind = iota
	boolean
	integer
	list     // text, more than once
	integers // integer, more than once
	duration
)

// flag is one flag of a command.
type flag struct {
	names  string // "bundle b"
	kind   kind
	help   string
	def    string // shown by help
	hidden bool
}

func (f *flag) name() string { n, _, _ := strings.Cut(f.names, " "); return n }

func (f *flag) is(name string) bool {
	for n := range strings.FieldsSeq(f.names) {
		if n == name {
			return true
		}
	}
	return false
}

// values are the flags that were given.
type values map[string][]string

func (v values) set(name string) bool { return len(v[name]) > 0 }

func (v values) str(name string) string {
	if l := v[name]; len(l) > 0 {
		return l[len(l)-1]
	}
	return ""
}

func (v values) on(name string) bool { return v.str(name) == "true" }

func (v values) num(name string) int {
	n, _ := strconv.Atoi(v.str(name)) // parse has looked at it
	return n
}

// parse takes flags off args as Go's flag package does: one dash or two, a value
// after "=" or as the next argument, booleans without one. With mixed, flags may
// follow other arguments.
func parse(flags []flag, args []string, mixed bool) (v values, rest []string, err error) {
	v = values{}
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a == "--" {
			return v, append(rest, args...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			if mixed {
				continue
			}
			return v, append(rest, args...), nil
		}
		given := strings.TrimPrefix(a[1:], "-")
		name, value, has := strings.Cut(given, "=")
		f := lookup(flags, name)
		if f == nil {
			if name == "h" || name == "help" {
				return v, rest, errHelp
			}
			return v, rest, fmt.Errorf("flag provided but not defined: -%s", name)
		}
		switch {
		case f.kind == boolean && !has:
			value = "true"
		case f.kind == boolean:
			b, err := strconv.ParseBool(value)
			if err != nil {
				return v, rest, fmt.Errorf("invalid boolean value %q for -%s: parse error", value, name)
			}
			value = strconv.FormatBool(b)
		case !has && len(args) == 0:
			return v, rest, fmt.Errorf("flag needs an argument: -%s", name)
		case !has:
			value, args = args[0], args[1:]
		}
		if err := f.check(value); err != nil {
			return v, rest, fmt.Errorf("invalid value %q for flag -%s: %w", value, name, err)
		}
		v[f.name()] = append(v[f.name()], value)
	}
	return v, rest, nil
}

func lookup(flags []flag, name string) *flag {
	for i := range flags {
		if flags[i].is(name) {
			return &flags[i]
		}
	}
	return nil
}

func (f *flag) check(value string) error {
	var err error
	switch f.kind { //nolint:exhaustive // the others take anything
	case integer, integers:
		if _, err = strconv.ParseInt(value, 0, 64); err != nil {
			return errParse
		}
	case duration:
		if _, err = time.ParseDuration(value); err != nil {
			return errParse
		}
	}
	return nil
}
