package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/isle-engine/isle/internal/cli/format"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

const inspectFormatHelp = `Print with a template:
'json'      JSON on one line
'TEMPLATE'  by a Go template`

func cmdInspect(c *call) func() error {
	var o inspectOptions
	c.flags = []flag{
		{name: "format", short: 'f', v: (*stringVar)(&o.format), help: inspectFormatHelp},
		{name: "size", short: 's', v: (*boolVar)(&o.size), help: "Show how much disk a container uses"},
		{name: "type", v: (*stringVar)(&o.kind), help: "Look at objects of this type only (container|image|network|volume)"},
	}
	return func() error {
		switch o.kind {
		case "", "container", "image", "network", "volume":
		case "node", "plugin", "secret", "service", "task", "config":
			return errs.New(errs.Unsupported, "inspect --type %s: not supported", o.kind)
		default:
			return errs.New(errs.Invalid, `unknown type: %q: must be one of "container", "image", "network", "volume"`, o.kind)
		}
		return c.inspect(&o)
	}
}

func cmdContainerInspect(c *call) func() error {
	o := inspectOptions{kind: "container"}
	c.flags = []flag{
		{name: "format", short: 'f', v: (*stringVar)(&o.format), help: inspectFormatHelp},
		{name: "size", short: 's', v: (*boolVar)(&o.size), help: "Show how much disk the container uses"},
	}
	return func() error { return c.inspect(&o) }
}

func cmdImageInspect(c *call) func() error {
	o := inspectOptions{kind: "image"}
	c.flags = []flag{
		{name: "format", short: 'f', v: (*stringVar)(&o.format), help: inspectFormatHelp},
		{name: "platform", v: (*stringVar)(&o.platform), help: "The image must be for this platform (os[/arch[/variant]])"},
	}
	return func() error { return c.inspect(&o) }
}

type inspectOptions struct {
	format, kind, platform string
	size                   bool
}

// inspect prints what c.args name, as a JSON array or by a template. What is
// not there is told after what is, and makes the exit code 1.
func (c *call) inspect(o *inspectOptions) error {
	var t *format.Template
	if o.format != "" && o.format != "json" {
		var err error
		if t, err = format.Parse(o.format, false); err != nil {
			return err
		}
	}
	eng, err := c.engine()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	var all []any
	var failed []error
	for _, ref := range c.args {
		v, err := c.lookup(eng, ref, o)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		switch {
		case o.format == "json":
			b, err := marshal(v, "")
			if err != nil {
				return err
			}
			out.Write(b)
		case t == nil:
			all = append(all, v)
		default:
			if err := t.Execute(&out, v); err != nil {
				failed = append(failed, err)
				continue
			}
			out.WriteByte('\n')
		}
	}
	switch {
	case o.format == "" && len(all) == 0:
		out.WriteString("[]\n")
	case o.format == "":
		b, err := marshal(all, "    ")
		if err != nil {
			return err
		}
		out.Write(b)
	case out.Len() == 0:
		out.WriteByte('\n')
	}
	if err := c.textOut(out.String()); err != nil || len(failed) == 0 {
		return err
	}
	for _, err := range failed {
		c.complain(err)
	}
	return exitStatus(1)
}

// marshal encodes v as the daemon and the client of Docker do together: < > &
// stay, a newline at the end.
func marshal(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return b.Bytes(), err
}

// lookup finds a container or an image, containers first, as Docker does.
func (c *call) lookup(eng conductor, ref string, o *inspectOptions) (any, error) {
	ctx := c.ctx
	switch o.kind {
	case "network":
		return c.inspectNetwork(ref)
	case "volume":
		return c.inspectVolume(ref)
	}
	if o.kind != "image" {
		ct, err := eng.Inspect(ctx, ref)
		if err == nil && o.size {
			ct, err = c.withSize(ctx, eng, ct)
		}
		if err == nil {
			if f, ok := eng.(interface {
				FreshHealth(ctx context.Context, c *engine.Container) error
			}); ok {
				if err := f.FreshHealth(ctx, ct); err != nil {
					return nil, err
				}
			}
			return inspectContainer(ct, eng.Env(), o.size), nil
		}
		if o.kind == "container" || !errors.Is(err, errs.NotFound) {
			return nil, err
		}
	}
	img, err := eng.InspectImage(ctx, ref)
	if err == nil && o.platform != "" {
		err = matchPlatform(img, ref, o.platform)
	}
	if err != nil {
		if o.kind == "" && (errors.Is(err, errs.NotFound) || strings.Contains(ref, "_") || !isImageName(ref)) {
			return nil, errs.New(errs.NotFound, "Error: No such object: %s", ref)
		}
		return nil, err
	}
	return inspectImage(img), nil
}

// isImageName reports whether ref could name an image at all.
func isImageName(ref string) bool {
	_, err := image.ParseName(ref)
	return err == nil
}
