package ocicli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/isle-engine/isle/internal/engine"
)

func (c *call) rootHelp() {
	fmt.Fprintf(c.out, "NAME:\n   %s - Open Container Initiative runtime\n\n", c.name)
	fmt.Fprint(c.out, "   Runs containers from bundles: directories with a config.json, which says what\n   the container is, and a root file system. isle's, with the command line of runc.\n\n")
	fmt.Fprintf(c.out, "USAGE:\n   %s [global options] command [command options] [arguments...]\n\nVERSION:\n   %s\n\nCOMMANDS:\n", c.name, engine.Version)
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for _, cmd := range commands() {
		fmt.Fprintf(w, "   %s\t%s\n", cmd.name, cmd.short)
	}
	fmt.Fprint(w, "   help, h\tShow the help of a command\n")
	_ = w.Flush()
	fmt.Fprint(c.out, "\nGLOBAL OPTIONS:\n")
	c.flagHelp(globalFlags())
}

func (c *call) commandHelp(cmd *command) {
	fmt.Fprintf(c.out, "NAME:\n   %s %s - %s\n\nUSAGE:\n   %s %s [command options] %s\n", c.name, cmd.name, cmd.short, c.name, cmd.name, cmd.usage)
	if cmd.long != "" {
		fmt.Fprintf(c.out, "\nDESCRIPTION:\n   %s\n", strings.ReplaceAll(cmd.long, "\n", "\n   "))
	}
	if len(cmd.flags) > 0 {
		fmt.Fprint(c.out, "\nOPTIONS:\n")
		c.flagHelp(cmd.flags)
	}
}

func (c *call) flagHelp(flags []flag) {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for i := range flags {
		f := &flags[i]
		if f.hidden {
			continue
		}
		value := ""
		if f.kind != boolean {
			value = " value"
		}
		var spellings []string
		for n := range strings.FieldsSeq(f.names) {
			dash := "--"
			if len(n) == 1 {
				dash = "-"
			}
			spellings = append(spellings, dash+n+value)
		}
		text := f.help
		if f.def != "" {
			text += fmt.Sprintf(" (default: %q)", f.def)
		}
		fmt.Fprintf(w, "   %s\t%s\n", strings.Join(spellings, ", "), text)
	}
	fmt.Fprint(w, "   --help, -h\tshow help\n")
	_ = w.Flush()
}

func (c *call) help(args []string) error {
	if len(args) == 0 {
		c.rootHelp()
		return nil
	}
	cmd := find(args[0])
	if cmd == nil {
		return fmt.Errorf("No help topic for '%s'", args[0]) //nolint:staticcheck // callers know it so
	}
	c.commandHelp(cmd)
	return nil
}
