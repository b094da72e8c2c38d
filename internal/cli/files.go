package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// filer is the part of the engine that looks into containers.
type filer interface {
	Top(ctx context.Context, ref string, options []string) (titles []string, rows [][]string, err error)
	Diff(ctx context.Context, ref string) ([]engine.Change, error)
	Export(ctx context.Context, ref string, out *os.File) error
	CopyFrom(ctx context.Context, ref, from, to string, out *os.File, o engine.CopyOptions) (int64, error)
	CopyTo(ctx context.Context, ref, from, to string, in *os.File, o engine.CopyOptions) (int64, error)
}

func (c *call) filer() (filer, error) {
	eng, err := c.engine()
	if err != nil {
		return nil, err
	}
	f, ok := eng.(filer)
	if !ok {
		return nil, errs.New(errs.Unsupported, "files of containers: this engine has none")
	}
	return f, nil
}

func cmdTop(c *call) func() error {
	return func() error {
		eng, err := c.filer()
		if err != nil {
			return err
		}
		titles, rows, err := eng.Top(c.ctx, c.args[0], c.args[1:])
		if err != nil {
			return err
		}
		tw := tabwriter.NewWriter(c.stdout(), 20, 1, 3, ' ', 0)
		fmt.Fprintln(tw, strings.Join(titles, "\t"))
		for _, r := range rows {
			for i := range r {
				r[i] = visible(r[i])
			}
			fmt.Fprintln(tw, strings.Join(r, "\t"))
		}
		return tw.Flush()
	}
}

func cmdDiff(c *call) func() error {
	return func() error {
		eng, err := c.filer()
		if err != nil {
			return err
		}
		all, err := eng.Diff(c.ctx, c.args[0])
		if err != nil {
			return err
		}
		for _, ch := range all {
			fmt.Fprintf(c.stdout(), "%c %s\n", ch.Kind, visible(ch.Path))
		}
		return nil
	}
}

func cmdExport(c *call) func() error {
	output := ""
	c.flags = []flag{{name: "output", short: 'o', v: (*stringVar)(&output), help: "Write to a file, not to STDOUT"}}
	return func() error {
		eng, err := c.filer()
		if err != nil {
			return err
		}
		return c.archiveTo(output, func(out *os.File) error { return eng.Export(c.ctx, c.args[0], out) })
	}
}

func dirOf(file string) string {
	if i := strings.LastIndexByte(file, '/'); i >= 0 {
		return file[:i+1]
	}
	return "."
}

func cmdCp(c *call) func() error {
	var o engine.CopyOptions
	quiet := false
	c.flags = []flag{
		{name: "archive", short: 'a', v: (*boolVar)(&o.Archive), help: "Keep owners; into a container: give the files to its user"},
		{name: "follow-link", short: 'L', v: (*boolVar)(&o.Follow), help: "Follow the symbolic link that SRC_PATH may be"},
		{name: "quiet", short: 'q', v: (*boolVar)(&quiet), help: "Do not tell how much was copied, which is told on a terminal only"},
	}
	return func() error {
		fromRef, from := splitCopy(c.args[0])
		toRef, to := splitCopy(c.args[1])
		switch {
		case from == "":
			return errs.New(errs.Invalid, "source can not be empty")
		case to == "":
			return errs.New(errs.Invalid, "destination can not be empty")
		case fromRef != "" && toRef != "":
			return errs.New(errs.Invalid, "copying between containers is not supported")
		case fromRef == "" && toRef == "":
			return errs.New(errs.Invalid, "must specify at least one container source")
		}
		eng, err := c.filer()
		if err != nil {
			return err
		}
		var n int64
		shown := c.args[1]
		switch {
		case fromRef != "" && to == "-":
			if tty.IsTerminal(c.out) {
				return errs.New(errs.Invalid, "refusing to write an archive to a terminal")
			}
			_, err = eng.CopyFrom(c.ctx, fromRef, from, "", c.out, o)
			return err
		case fromRef != "":
			if to, err = absolute(to); err == nil {
				n, err = eng.CopyFrom(c.ctx, fromRef, from, to, nil, o)
			}
		case from == "-":
			_, err = eng.CopyTo(c.ctx, toRef, "", to, c.in, o)
			return err
		default:
			if from, err = absolute(from); err == nil {
				n, err = eng.CopyTo(c.ctx, toRef, from, to, nil, o)
			}
		}
		if err == nil && !quiet && tty.IsTerminal(c.out) {
			fmt.Fprintf(c.err, "Successfully copied %s to %s\n", humanSize(n, 3), visible(shown))
		}
		return err
	}
}

// splitCopy takes the container off an argument of cp. A path that begins with
// / or . is of the host, whatever colons it has.
func splitCopy(arg string) (container, path string) {
	if arg == "" || arg[0] == '/' || arg[0] == '.' {
		return "", arg
	}
	ref, path, ok := strings.Cut(arg, ":")
	if !ok {
		return "", arg
	}
	return ref, path
}
