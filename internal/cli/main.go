package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// Main runs the command line args (args[0] is the program's name) and returns
// the process's exit code.
func Main(args []string) int {
	a := &app{
		ctx:  context.Background(), //nolint:forbidigo // the command line is where contexts begin
		name: "isle", in: os.Stdin, out: os.Stdout, err: os.Stderr,
		open: func() (conductor, error) {
			env, err := config.Load()
			if err != nil {
				return nil, err
			}
			eng, err := engine.Open(env)
			if err == nil {
				eng.Advise = advise
			}
			return eng, err
		},
	}
	return a.main(args[1:])
}

// advise shows what is poor about the user's set-up, when it is first used.
func advise(why string, remedies []string) {
	var b strings.Builder
	b.WriteString("WARNING: " + oneLine(why) + "\n")
	for _, r := range remedies {
		b.WriteString("hint: " + oneLine(r) + "\n")
	}
	_, _ = os.Stderr.WriteString(b.String()) // nobody is left to be told
}

// app is one run of the command line: its streams and how it gets an engine.
type app struct {
	ctx          context.Context
	name         string
	in, out, err *os.File
	open         func() (conductor, error)
	w            *bufio.Writer // over out; flushed at the end
	debug        bool          // tell more about errors
}

// call is one command being run.
type call struct {
	*app
	cmd   *command
	path  string // as the user spelled it: "container ls"
	flags []flag
	args  []string
	eng   conductor
}

// engine opens the engine at first use.
func (c *call) engine() (conductor, error) {
	if c.eng != nil {
		return c.eng, nil
	}
	var err error
	c.eng, err = c.open()
	return c.eng, err
}

// stdout returns the buffered standard output.
func (a *app) stdout() *bufio.Writer {
	if a.w == nil {
		a.w = bufio.NewWriterSize(a.out, 16<<10)
	}
	return a.w
}

// exitStatus ends a command with a code and no message: a container's own code,
// or errors that were printed one by one.
type exitStatus int

func (exitStatus) Error() string { return "exit" }

func (a *app) main(args []string) int {
	err := a.dispatch(args)
	if a.w != nil {
		if ferr := a.w.Flush(); err == nil && ferr != nil && !errors.Is(ferr, os.ErrClosed) {
			err = ferr
		}
	}
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitStatus](err); ok {
		return int(code)
	}
	return a.report(err)
}

// report prints err as one line, its hints after it, and returns the exit code.
func (a *app) report(err error) int {
	var b strings.Builder
	b.WriteString(a.name + ": " + oneLine(err.Error()) + "\n")
	for _, h := range errs.Hints(err) {
		b.WriteString("hint: " + oneLine(h) + "\n")
	}
	var u *usageError
	var in *inCommand
	isUsage := errors.As(err, &u)
	if isUsage {
		see := a.name
		if errors.As(err, &in) && in.path != "" {
			see += " " + in.path
		}
		b.WriteString("See '" + see + " --help'.\n")
	}
	if a.debug {
		fmt.Fprintf(&b, "debug: kind %q, exit code %d", errs.KindOf(err), errs.ExitCode(err))
		if no, ok := errors.AsType[syscall.Errno](err); ok {
			fmt.Fprintf(&b, ", errno %d (%s)", int(no), no)
		}
		b.WriteByte('\n')
	}
	_, _ = a.err.WriteString(b.String()) // nowhere to report it to
	if isUsage {
		return u.code
	}
	return errs.ExitCode(err)
}

// complain prints one of several errors; the command goes on.
func (a *app) complain(err error) {
	_ = a.flush()
	_ = a.report(err)
}

func (a *app) flush() error {
	if a.w == nil {
		return nil
	}
	return a.w.Flush()
}

// inCommand tells which command a usage error belongs to.
type inCommand struct {
	error
	path string
}

func (e *inCommand) Unwrap() error { return e.error }

// dispatch reads the global flags, finds the command and runs it.
func (a *app) dispatch(args []string) error {
	var g globals
	rest, err := parseFlags(g.flags(), args, false)
	if errors.As(err, new(errHelp)) {
		a.rootHelp()
		return nil
	}
	if err != nil {
		return err
	}
	if g.version {
		a.printShortVersion()
		return nil
	}
	a.debug = g.debug || g.logLevel == "debug"
	if err := g.apply(); err != nil {
		return err
	}
	if len(rest) == 0 {
		a.rootHelp()
		return nil
	}
	return a.command(rest)
}

// command finds and runs the command that args begin with.
func (a *app) command(args []string) error {
	cmd, path, rest := find(args)
	if cmd == nil {
		if err := refusal(args); err != nil {
			return err
		}
		if isGroup(args[0]) {
			return a.group(args)
		}
		return &usageError{errs.New(errs.Invalid, "unknown command: %s %s", a.name, args[0]), 1}
	}
	c := &call{app: a, cmd: cmd, path: path}
	run := cmd.setup(c)
	var err error
	c.args, err = parseFlags(c.flags, rest, !cmd.wordsEndFlags)
	if errors.As(err, new(errHelp)) {
		c.help()
		return nil
	}
	if err == nil {
		err = c.checkArgs()
	}
	if err == nil {
		err = run()
	}
	if err != nil {
		if _, ok := errors.AsType[*usageError](err); ok {
			return &inCommand{err, path}
		}
		if cmd.engineExit != 0 && !errs.HasExit(err) && !errors.As(err, new(exitStatus)) {
			return errs.WithExit(err, cmd.engineExit)
		}
	}
	return err
}

// group answers "isle container", with or without a word that is no command of it.
func (a *app) group(args []string) error {
	if len(args) == 1 || args[1] == "--help" || args[1] == "-h" {
		a.groupHelp(args[0])
		return nil
	}
	if strings.HasPrefix(args[1], "-") {
		_, err := parseFlags(nil, args[1:2], false)
		return &inCommand{err, args[0]}
	}
	return &inCommand{&usageError{errs.New(errs.Invalid, "unknown command: %s %s %s", a.name, args[0], args[1]), 1}, args[0]}
}

// checkArgs compares the number of arguments with what the command takes.
func (c *call) checkArgs() error {
	n, lo, hi := len(c.args), c.cmd.min, c.cmd.max
	if n >= lo && (hi < 0 || n <= hi) {
		return nil
	}
	name := c.name + " " + c.path
	var text string
	switch {
	case hi == 0:
		text = "accepts no arguments"
	case lo == hi:
		text = "requires " + plural(lo, "argument")
	case n < lo:
		text = "requires at least " + plural(lo, "argument")
	default:
		text = "requires at most " + plural(hi, "argument")
	}
	return &usageError{errs.New(errs.Invalid, "'%s' %s", name, text), 1}
}

// each does f for every argument, prints what fails and goes on; it ends with
// exit code 1 when one failed.
func (c *call) each(f func(arg string) error) error {
	failed := false
	for _, arg := range c.args {
		if err := f(arg); err != nil {
			c.complain(err)
			failed = true
		}
	}
	if failed {
		return exitStatus(1)
	}
	return nil
}

// globals are the flags before the command.
type globals struct {
	root, runroot  string
	host, context  string
	config         string
	logLevel       string
	debug, version bool
	tls            bool
}

func (g *globals) flags() []flag {
	return []flag{
		{name: "config", v: (*stringVar)(&g.config), help: "Directory of the registry credentials (config.json)", def: "~/.docker"},
		{name: "context", short: 'c', v: (*stringVar)(&g.context), help: "Accepted for Docker's sake; only \"default\"", hidden: true},
		{name: "debug", short: 'D', v: (*boolVar)(&g.debug), help: "Print more about what fails"},
		{name: "host", short: 'H', v: (*stringVar)(&g.host), help: "Refused: there is no daemon to connect to", hidden: true},
		{name: "log-level", short: 'l', v: (*stringVar)(&g.logLevel), help: `Logging level ("debug", "info", "warn", "error", "fatal")`, def: "info"},
		{name: "root", v: (*stringVar)(&g.root), help: "Directory of images, containers and volumes (ISLE_ROOT)"},
		{name: "runroot", v: (*stringVar)(&g.runroot), help: "Directory of sockets and locks (ISLE_RUNROOT)"},
		{name: "tls", v: (*boolVar)(&g.tls), help: "Refused: there is no daemon to connect to", hidden: true},
		{name: "version", short: 'v', v: (*boolVar)(&g.version), help: "Print version information and quit"},
	}
}

// apply makes the global flags true for the rest of the process. The directories
// go through the environment, where config.Load looks, as children do.
func (g *globals) apply() error {
	switch {
	case g.host != "" || g.tls:
		return errs.Hint(errs.New(errs.Unsupported, "--host %q: isle has no daemon to connect to", g.host),
			"to work on another machine, run isle there (ssh HOST isle ...)")
	case g.context != "" && g.context != "default":
		return errs.Hint(errs.New(errs.Unsupported, "--context %q: isle has no daemon to connect to", g.context),
			"to work on another machine, run isle there (ssh HOST isle ...)")
	}
	switch g.logLevel {
	case "", "debug", "info", "warn", "error", "fatal":
	default:
		return usageErrorf("unable to parse logging level: %s", g.logLevel)
	}
	for _, v := range [...]struct{ name, val string }{{"ISLE_ROOT", g.root}, {"ISLE_RUNROOT", g.runroot}, {"DOCKER_CONFIG", g.config}} {
		if v.val == "" {
			continue
		}
		dir, err := absolute(v.val)
		if err != nil {
			return err
		}
		if err := os.Setenv(v.name, dir); err != nil {
			return err
		}
	}
	return nil
}

// absolute is filepath.Abs without its weight.
func absolute(dir string) (string, error) {
	if dir[0] == '/' {
		return dir, nil
	}
	wd, err := os.Getwd()
	return wd + "/" + dir, err
}
