// Command sh is the shell of the built-in image: mvdan.cc/sh behind the options
// of sh(1) that scripts and containers use.
//
// Usage: sh [-eux] [-i] [-s] [-c COMMANDS [NAME [ARG]...] | FILE [ARG]...]
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

func main() {
	err := sh(os.Args[1:])
	var status interp.ExitStatus
	switch {
	case err == nil:
	case errors.As(err, &status):
		os.Exit(int(status))
	default:
		fmt.Fprintln(os.Stderr, "sh:", err)
		os.Exit(2)
	}
}

func sh(args []string) error {
	var params []string
	var command *string
	interactive, fromStdin := false, false
options:
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		a := args[0]
		args = args[1:]
		switch a {
		case "--":
			break options
		case "-o", "+o":
			if len(args) == 0 {
				return fmt.Errorf("option %s: needs a value", a)
			}
			params = append(params, a, args[0])
			args = args[1:]
			continue
		}
		var rest strings.Builder
		for _, c := range a[1:] {
			switch c {
			case 'c':
				command = new(string)
			case 'i':
				interactive = true
			case 's':
				fromStdin = true
			case 'l': // a login shell has no files to read here
			default:
				rest.WriteRune(c)
			}
		}
		if rest.Len() > 0 {
			params = append(params, a[:1]+rest.String())
		}
	}
	if command != nil {
		if len(args) == 0 {
			return errors.New("option -c: needs a value")
		}
		*command, args = args[0], args[1:]
	}

	var src io.Reader = os.Stdin
	name := "sh"
	switch {
	case command != nil:
		src = strings.NewReader(*command)
		if len(args) > 0 {
			name, args = args[0], args[1:]
		}
	case len(args) > 0 && !fromStdin:
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		src, name, args = f, args[0], args[1:]
	default:
		interactive = interactive || term.IsTerminal(0)
	}
	params = append(append(params, "--"), args...)
	r, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr), interp.Params(params...), interp.Interactive(interactive), interp.CallHandler(call))
	if err != nil {
		return err
	}
	parser := syntax.NewParser()
	if interactive {
		return prompt(r, parser, src)
	}
	// Statement by statement, as a shell does: what comes before a syntax error
	// has run, and a script on standard input may feed its own commands.
	var failed error
	if err := parser.Stmts(src, func(s *syntax.Stmt) bool {
		failed = r.Run(context.Background(), s)
		return !r.Exited()
	}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return failed
}

// call has the programs run that the interpreter knows only as names of
// builtins it does not have.
func call(_ context.Context, args []string) ([]string, error) {
	if args[0] == "kill" {
		args[0] = "/bin/kill"
	}
	return args, nil
}

func prompt(r *interp.Runner, parser *syntax.Parser, src io.Reader) error {
	sign := "$ "
	if syscall.Geteuid() == 0 {
		sign = "# "
	}
	fmt.Fprint(os.Stderr, sign)
	var failed error
	err := parser.Interactive(src, func(stmts []*syntax.Stmt) bool {
		if parser.Incomplete() {
			fmt.Fprint(os.Stderr, "> ")
			return true
		}
		for _, s := range stmts {
			failed = r.Run(context.Background(), s)
			var status interp.ExitStatus
			if failed != nil && !errors.As(failed, &status) {
				fmt.Fprintln(os.Stderr, "sh:", failed)
			}
			if r.Exited() {
				return false
			}
		}
		fmt.Fprint(os.Stderr, sign)
		return true
	})
	if err != nil {
		return err
	}
	return failed
}
