package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/isle-engine/isle/internal/linux/tty"
)

// helpWidth is how wide help may be: the terminal, or 80 columns.
func (a *app) helpWidth() int {
	if _, cols, err := tty.Size(a.out); err == nil && cols >= 40 {
		return int(cols)
	}
	return 80
}

// help prints the help of a command whose flags are set up, as Docker lays it out.
func (c *call) help() {
	w := c.stdout()
	fmt.Fprintf(w, "Usage:  %s %s", c.name, c.path)
	if c.cmd.usage != "" {
		fmt.Fprintf(w, " %s", c.cmd.usage)
	}
	fmt.Fprintf(w, "\n\n%s\n", c.cmd.short)
	if len(c.cmd.paths) > 1 {
		// Docker lists the long forms first.
		all := append(append([]string{}, c.cmd.paths[1:]...), c.cmd.paths[0])
		if strings.Contains(c.cmd.paths[0], " ") { // there is none but long ones
			copy(all, c.cmd.paths)
		}
		for i, p := range all {
			all[i] = c.name + " " + p
		}
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(all, ", "))
	}
	if len(c.flags) > 0 {
		fmt.Fprint(w, "\nOptions:\n")
		printFlags(w, c.flags, c.helpWidth())
	}
}

// printFlags prints the table of flags, each with its argument's kind and default.
func printFlags(w *bufio.Writer, flags []flag, width int) {
	sorted := sortedFlags(flags)
	left := make([]string, len(sorted))
	widest := 0
	for i, f := range sorted {
		left[i] = f.spelled()
		widest = max(widest, len(left[i]))
	}
	for i, f := range sorted {
		help := f.help
		if f.def != "" {
			help += " (default " + f.def + ")"
		}
		room := max(width-widest-3, 24)
		for n, l := range wrap(help, room) {
			if n == 0 {
				fmt.Fprintf(w, "%-*s   %s\n", widest, left[i], l)
			} else {
				fmt.Fprintf(w, "%*s   %s\n", widest, "", l)
			}
		}
	}
}

// spelled is the flag as the table shows it: "  -m, --memory bytes".
func (f *flag) spelled() string {
	s := "      "
	if f.short != 0 {
		s = "  -" + string(rune(f.short)) + ", "
	}
	s += "--" + f.name
	if k := f.v.kind(); k != "" {
		s += " " + k
	}
	return s
}

// sortedFlags leaves hidden flags out and sorts the rest by name.
func sortedFlags(flags []flag) []*flag {
	var out []*flag
	for i := range flags {
		if !flags[i].hidden {
			out = append(out, &flags[i])
		}
	}
	for i := 1; i < len(out); i++ {
		for j := i; j > 0 && out[j].name < out[j-1].name; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

// wrap breaks text at blanks into lines of at most width characters.
func wrap(text string, width int) []string {
	var lines []string
	for para := range strings.SplitSeq(text, "\n") {
		line := ""
		for i, word := range strings.Split(para, " ") {
			switch {
			case i == 0:
				line = word
			case len(line)+1+len(word) > width:
				lines = append(lines, strings.TrimRight(line, " "))
				line = word
			default:
				line += " " + word
			}
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

// rootHelp prints what `isle` and `isle --help` print.
func (a *app) rootHelp() {
	w := a.stdout()
	fmt.Fprintf(w, "Usage:  %s [OPTIONS] COMMAND\n\nContainers without a daemon, as root or as yourself\n", a.name)
	table := commands()
	for _, group := range [...]string{groupCommon, "", groupAll} {
		if group == "" {
			fmt.Fprint(w, "\nManagement Commands:\n")
			for _, g := range groups() {
				fmt.Fprintf(w, "  %-11s %s\n", g.name, g.short)
			}
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", group)
		for i := range table {
			if table[i].group == group {
				fmt.Fprintf(w, "  %-11s %s\n", table[i].paths[0], table[i].short)
			}
		}
	}
	fmt.Fprint(w, "\nGlobal Options:\n")
	var g globals
	printFlags(w, g.flags(), a.helpWidth())
	fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", a.name)
}

// groupHelp prints what `isle container` prints.
func (a *app) groupHelp(group string) {
	w := a.stdout()
	short := ""
	for _, g := range groups() {
		if g.name == group {
			short = g.short
		}
	}
	fmt.Fprintf(w, "Usage:  %s %s COMMAND\n\n%s\n\nCommands:\n", a.name, group, short)
	for _, e := range groupCommands(group) {
		fmt.Fprintf(w, "  %-11s %s\n", e.name, e.short)
	}
	fmt.Fprintf(w, "\nRun '%s %s COMMAND --help' for more information on a command.\n", a.name, group)
}

// groupCommands are a group's commands in alphabetical order, each under its
// first spelling there.
func groupCommands(group string) []struct{ name, short string } {
	var out []struct{ name, short string }
	table := commands()
	for i := range table {
		for _, p := range table[i].paths {
			if word, ok := strings.CutPrefix(p, group+" "); ok {
				out = append(out, struct{ name, short string }{word, table[i].short})
				break
			}
		}
	}
	for i := 1; i < len(out); i++ {
		for j := i; j > 0 && out[j].name < out[j-1].name; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}
