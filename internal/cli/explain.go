package cli

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/explain/page"
	"github.com/isle-engine/isle/internal/explain/view"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// explainer is the part of the engine that looks at a container.
type explainer interface {
	Explain(ctx context.Context, ref string) (*view.View, error)
}

func cmdExplain(c *call) func() error {
	var o struct {
		format, section string
		watch           bool
	}
	c.flags = []flag{
		{name: "format", v: (*stringVar)(&o.format), help: "Output: \"text\" (default), \"json\", or \"html\", one page with the picture"},
		{name: "section", v: (*stringVar)(&o.section), help: "Only one section: " + strings.Join(page.Names(), ", ")},
		{name: "watch", short: 'w', v: (*boolVar)(&o.watch), help: "Show it live, once a second"},
	}
	return func() error {
		switch o.format {
		case "", "text", "json", "html":
		default:
			return usageErrorf("unknown format %q: text, json or html", o.format)
		}
		if o.section != "" && !slices.Contains(page.Names(), o.section) {
			return usageErrorf("unknown section %q: one of %s", o.section, strings.Join(page.Names(), ", "))
		}
		if o.watch && o.format == "html" {
			return usageErrorf("--watch: not with html")
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		e, ok := eng.(explainer)
		if !ok {
			return errs.New(errs.Unsupported, "explain: this engine has none")
		}
		for first := true; ; first = false {
			v, err := e.Explain(c.ctx, c.args[0])
			if err != nil {
				return err
			}
			if o.watch && o.format != "json" && tty.IsTerminal(c.out) {
				home := "\x1b[H\x1b[J" // to the top, and clear from there
				if first {
					home = "\x1b[2J" + home
				}
				if _, err := c.stdout().WriteString(home); err != nil {
					return err
				}
			}
			if err := c.explain(v, o.format, o.section); err != nil {
				return err
			}
			if !o.watch {
				return nil
			}
			if err := c.flush(); err != nil {
				return err
			}
			select {
			case <-c.ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
}

// explain prints one look.
func (c *call) explain(v *view.View, format, section string) error {
	switch format {
	case "json":
		e := json.NewEncoder(c.stdout())
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if section != "" {
			part, err := pick(v, section)
			if err != nil {
				return err
			}
			return e.Encode(part)
		}
		return e.Encode(v)
	case "html":
		return page.WriteHTML(c.stdout(), v, section, visible)
	}
	o := page.TextOptions{Section: section, Escape: visible}
	if os.Getenv("NO_COLOR") == "" && tty.IsTerminal(c.out) {
		o.Style = page.Terminal()
	}
	if size := c.consoleSize(); tty.IsTerminal(c.out) && size[1] > 40 {
		o.Width = int(size[1])
	}
	return page.WriteText(c.stdout(), v, o)
}

// pick returns what of v belongs to a section.
func pick(v *view.View, section string) (any, error) {
	switch section {
	case "end":
		return map[string]any{"status": v.Status, "ended": v.Ended}, nil
	case "differences":
		return map[string]any{"differences": v.Differences, "unseen": v.Unseen}, nil
	case "process":
		return map[string]any{"processes": v.Processes, "hostName": v.Host}, nil
	case "users":
		return v.Users, nil
	case "namespaces":
		return v.Namespaces, nil
	case "cgroup":
		return v.Cgroup, nil
	case "layers":
		return v.Root, nil
	case "mounts":
		return v.Mounts, nil
	case "credentials":
		return v.Credentials, nil
	case "seccomp":
		if v.Credentials == nil {
			return nil, nil //nolint:nilnil // none of a container that does not run
		}
		return v.Credentials.Seccomp, nil
	case "network":
		return v.Network, nil
	}
	return nil, errs.New(errs.Invalid, "section %q: unknown", section)
}
