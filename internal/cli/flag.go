package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// A flag is one option of a command. The table of a command's flags is built
// when the command was chosen, with each value bound to the field that it fills.
type flag struct {
	name  string
	short byte // 0: none
	v     value
	help  string
	def   string // shown as the default; "" for none
	// hidden flags work but are not shown: old spellings.
	hidden bool
	set    bool // was given
}

// value is where a flag's argument goes.
type value interface {
	// Set takes one argument; lists are given one at a time.
	Set(s string) error
	// kind is the word for the argument in the help; "" marks a switch, which
	// takes an argument only after "=".
	kind() string
}

// parseFlags takes the flags out of args and returns the rest. When mixed is
// false, the first word that is no flag ends them (run IMAGE COMMAND -x: the -x
// is the command's). The rules are those of pflag, which Docker uses.
func parseFlags(flags []flag, args []string, mixed bool) (rest []string, err error) {
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case len(a) < 2 || a[0] != '-':
			rest = append(rest, a)
			if !mixed {
				return append(rest, args...), nil
			}
		case a == "--":
			return append(rest, args...), nil
		case a[1] == '-':
			args, err = parseLong(flags, a[2:], args)
		default:
			args, err = parseShort(flags, a[1:], args)
		}
		if err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func parseLong(flags []flag, word string, args []string) ([]string, error) {
	if word == "" || word[0] == '-' || word[0] == '=' {
		return nil, usageErrorf("bad flag syntax: --%s", word)
	}
	name, val, has := strings.Cut(word, "=")
	f := findLong(flags, name)
	if f == nil {
		if name == "help" {
			return nil, errHelp{}
		}
		return nil, usageErrorf("unknown flag: --%s", name)
	}
	switch {
	case has:
	case f.v.kind() == "":
		val = "true"
	case len(args) > 0:
		val, args = args[0], args[1:]
	default:
		return nil, usageErrorf("flag needs an argument: --%s", name)
	}
	return args, f.take(val)
}

func parseShort(flags []flag, group string, args []string) ([]string, error) {
	for rest := group; rest != ""; {
		c := rest[0]
		f := findShort(flags, c)
		if f == nil {
			if c == 'h' {
				return nil, errHelp{}
			}
			return nil, usageErrorf("unknown shorthand flag: %q in -%s", rune(c), rest)
		}
		var val string
		switch {
		case len(rest) > 2 && rest[1] == '=':
			val, rest = rest[2:], ""
		case f.v.kind() == "":
			val, rest = "true", rest[1:]
		case len(rest) > 1:
			val, rest = rest[1:], ""
		case len(args) > 0:
			val, args, rest = args[0], args[1:], ""
		default:
			return nil, usageErrorf("flag needs an argument: %q in -%s", rune(c), rest)
		}
		if err := f.take(val); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func findLong(flags []flag, name string) *flag {
	for i := range flags {
		if flags[i].name == name {
			return &flags[i]
		}
	}
	return nil
}

func findShort(flags []flag, c byte) *flag {
	for i := range flags {
		if flags[i].short == c {
			return &flags[i]
		}
	}
	return nil
}

func (f *flag) take(val string) error {
	if err := f.v.Set(val); err != nil {
		if _, ok := f.v.(refusedVar); ok {
			return errs.WithExit(fmt.Errorf("--%s: %w", f.name, err), errs.ExitEngine)
		}
		name := "--" + f.name
		if f.short != 0 {
			name = "-" + string(rune(f.short)) + ", " + name
		}
		return usageErrorf("invalid argument %q for %q flag: %w", val, name, err)
	}
	f.set = true
	return nil
}

// errHelp asks for the command's help.
type errHelp struct{}

func (errHelp) Error() string { return "help" }

// usageError is a command line that cannot be understood. Its exit code is
// Docker's: 125 for flags, 1 for a wrong number of arguments.
type usageError struct {
	err  error
	code int
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), 125}
}

// The kinds of value, each a pointer to what it fills.
type (
	boolVar     bool
	stringVar   string
	listVar     []string
	wordsVar    []string // commas separate, too
	intVar      int
	int64Var    int64
	uint16Var   uint16
	intPtrVar   struct{ p **int }
	bytesVar    int64
	durationVar time.Duration
	mapVar      map[string]string
)

func (v *boolVar) kind() string { return "" }
func (v *boolVar) Set(s string) error {
	b, err := strconv.ParseBool(s)
	*v = boolVar(b)
	return err
}

func (v *stringVar) kind() string       { return "string" }
func (v *stringVar) Set(s string) error { *v = stringVar(s); return nil }

func (v *listVar) kind() string       { return "list" }
func (v *listVar) Set(s string) error { *v = append(*v, s); return nil }

func (v *wordsVar) kind() string       { return "strings" }
func (v *wordsVar) Set(s string) error { *v = append(*v, strings.Split(s, ",")...); return nil }

func (v *intVar) kind() string { return "int" }
func (v *intVar) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, strconv.IntSize)
	*v = intVar(n)
	return err
}

func (v *int64Var) kind() string { return "int" }
func (v *int64Var) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, 64)
	*v = int64Var(n)
	return err
}

func (v *uint16Var) kind() string { return "uint16" }
func (v *uint16Var) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 16)
	*v = uint16Var(n)
	return err
}

func (v intPtrVar) kind() string { return "int" }
func (v intPtrVar) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, strconv.IntSize)
	i := int(n)
	*v.p = &i
	return err
}

func (v *bytesVar) kind() string { return "bytes" }
func (v *bytesVar) Set(s string) error {
	n, err := container.ParseSize(s)
	*v = bytesVar(n)
	return err
}

func (v *durationVar) kind() string { return "duration" }
func (v *durationVar) Set(s string) error {
	d, err := time.ParseDuration(s)
	*v = durationVar(d)
	return err
}

func (v *mapVar) kind() string { return "map" }
func (v *mapVar) Set(s string) error {
	k, val, _ := strings.Cut(s, "=")
	if *v == nil {
		*v = mapVar{}
	}
	(*v)[k] = val
	return nil
}

// funcVar is a value with a parser of its own.
type funcVar struct {
	word string
	f    func(string) error
}

func (v funcVar) kind() string       { return v.word }
func (v funcVar) Set(s string) error { return v.f(s) }
