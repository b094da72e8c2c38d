package ocicli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/engine"
)

var (
	errHelp  = errors.New("help requested")
	errParse = errors.New("parse error")
)

// Main runs the command line args and returns the process's exit code. args[0]
// is the program's name as help shows it.
func Main(args []string) int {
	c := &call{argv0: args[0], name: filepath.Base(args[0]), out: os.Stdout, err: os.Stderr}
	c.log.c = c
	return c.main(args[1:])
}

// call is one run of the command line.
type call struct {
	argv0    string
	name     string // of the program, for help
	out, err io.Writer
	log      logger
	root     string // directory of the containers
	global   values
	cmd      *command
	flags    values
	args     []string

	// Connected before the process is made, so that what is wrong is known first.
	consoleSocket, pidfdSocket *os.File
}

// exitCode ends a command with a code; the rest has been said.
type exitCode int

func (exitCode) Error() string { return "exit" }

func (c *call) main(args []string) int {
	err := c.dispatch(args)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	c.log.error(err)
	if !c.log.toStderr() {
		// Callers that have a log of their own look at standard error as well.
		fmt.Fprintln(c.err, err)
	}
	if c.cmd != nil && c.cmd.name == "exec" {
		return 255 // not an exit code that the command could have had
	}
	return 1
}

func globalFlags() []flag {
	return []flag{
		{names: "debug", kind: boolean, help: "log what is done, step by step"},
		{names: "log", help: "file for the log", def: "/dev/stderr"},
		{names: "log-format", help: "format of the log: text or json", def: "text"},
		{names: "root", help: "directory of the containers' state; it should not survive a reboot", def: defaultRoot()},
		{names: "criu", help: "path of criu; the one in $PATH is used", hidden: true},
		{names: "systemd-cgroup", kind: boolean, help: "let systemd make the cgroups; cgroupsPath is then SLICE:PREFIX:NAME"},
		{names: "cgroup-manager", help: "as crun has it: cgroupfs, systemd or disabled", hidden: true},
		{names: "rootless", help: "go on without cgroups that may not be made: true, false or auto", def: "auto"},
		{names: "version v", kind: boolean, help: "print the version"},
	}
}

// defaultRoot is on a file system that a reboot empties. A root user inside of
// an ordinary user's namespace is that user.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && ordinary() {
		return dir + "/isle-oci"
	}
	return "/run/isle-oci"
}

func ordinary() bool {
	if os.Geteuid() != 0 {
		return true
	}
	return inUserNS() && os.Getenv("USER") != "root"
}

func (c *call) dispatch(args []string) error {
	v, rest, err := parse(globalFlags(), args, false)
	if errors.Is(err, errHelp) {
		c.rootHelp()
		return nil
	}
	if err != nil {
		fmt.Fprintf(c.out, "Incorrect Usage: %v\n\n", err)
		c.rootHelp()
		return err
	}
	c.global = v
	if v.on("version") {
		c.printVersion()
		return nil
	}
	if len(rest) == 0 {
		c.rootHelp()
		return nil
	}
	if err := c.setup(); err != nil {
		return err
	}
	word, rest := rest[0], rest[1:]
	if word == "help" || word == "h" {
		return c.help(rest)
	}
	cmd := find(word)
	if cmd == nil {
		if len(rest) > 0 && (rest[0] == "-h" || rest[0] == "--help") {
			return fmt.Errorf("No help topic for '%s'", word) //nolint:staticcheck // callers know it so
		}
		c.rootHelp()
		return fmt.Errorf("No help topic for '%s'", word) //nolint:staticcheck // callers know it so
	}
	c.cmd = cmd
	c.flags, c.args, err = parse(cmd.flags, rest, !cmd.wordsEndFlags)
	if errors.Is(err, errHelp) {
		c.commandHelp(cmd)
		return nil
	}
	if err != nil {
		fmt.Fprintf(c.out, "Incorrect Usage: %v\n\n", err)
		c.commandHelp(cmd)
		return err
	}
	if err := c.checkArgs(); err != nil {
		fmt.Fprint(c.out, "Incorrect Usage.\n\n")
		c.commandHelp(cmd)
		return err
	}
	err = cmd.run(c)
	if err != nil && cmd.failed != "" && !errors.As(err, new(exitCode)) {
		return fmt.Errorf("%s failed: %w", cmd.failed, err)
	}
	return err
}

// setup makes the global flags true.
func (c *call) setup() error {
	c.root = defaultRoot()
	if c.global.set("root") {
		root, err := filepath.Abs(c.global.str("root"))
		if err != nil {
			return err
		}
		if root == "/" {
			return errors.New("Option --root argument should not be set to /") //nolint:staticcheck // callers know it so
		}
		c.root = root
	} else if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && strings.HasPrefix(c.root, dir+"/") {
		// The sticky bit says: do not clean this up (XDG Base Directory Specification).
		if err := os.MkdirAll(c.root, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(c.root, os.ModeSticky|0o700); err != nil {
			return err
		}
	}
	return c.log.open(c.global)
}

func (c *call) checkArgs() error {
	n, cmd := len(c.args), c.cmd
	switch {
	case cmd.min == cmd.max && n != cmd.min:
		return fmt.Errorf("%s: %q requires exactly %d argument(s)", c.argv0, cmd.name, cmd.min)
	case n < cmd.min:
		return fmt.Errorf("%s: %q requires a minimum of %d argument(s)", c.argv0, cmd.name, cmd.min)
	case cmd.max >= 0 && n > cmd.max:
		return fmt.Errorf("%s: %q requires a maximum of %d argument(s)", c.argv0, cmd.name, cmd.max)
	}
	return nil
}

// printVersion has the shape that engines parse.
func (c *call) printVersion() {
	fmt.Fprintf(c.out, "runc version %s\ncommit: isle-%s\nspec: %s\ngo: %s\n", engine.Version, engine.Version, specs.Version, runtime.Version())
}
