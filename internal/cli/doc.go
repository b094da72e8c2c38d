// Package cli is the Docker-compatible command line: it turns arguments into
// engine calls, and what they return into Docker's tables, JSON and text. It
// translates and never decides.
//
// The path of `isle run` through it is short on purpose. The table of commands
// ([commands]) is data; only the flags of the command that was typed are built
// (a slice, bound to the fields they fill, in about two microseconds); templates
// and tables cost nothing until they are used. The flag parser is our own,
// with the rules of pflag, because registering the hundred flags of run in
// a library's maps costs more than 0.1 ms.
//
// Errors are one line, "isle: what: why", followed by lines "hint: ...". Exit
// codes are Docker's: the container's own; 125 where a flag is wrong or a run
// failed before its command was started; 126 and 127 where the command cannot be
// executed or found; 1 for everything else. Text that comes from images,
// registries and containers is printed with its control characters escaped:
// a name must not repaint the terminal.
//
// Differences from Docker: SIGHUP is not passed on, so that closing a terminal
// leaves the container alone; there is no daemon, so -H and --context are refused.
//
// Invariants: nothing happens at import; no command keeps state; all output goes
// through app's streams, so that tests see it.
package cli
