package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// volumer is the part of the engine that the volume commands need.
type volumer interface {
	CreateVolume(ctx context.Context, name, driver string, labels, opts map[string]string) (engine.Volume, error)
	InspectVolume(ctx context.Context, name string) (engine.Volume, error)
	Volumes(ctx context.Context, f engine.Filter) ([]engine.Volume, error)
	RemoveVolume(ctx context.Context, name string) error
	ExportVolume(ctx context.Context, name string, out *os.File) error
	ImportVolume(ctx context.Context, name string, in *os.File) error
	PruneVolumes(ctx context.Context, f engine.Filter, all bool) (removed []string, bytes int64, err error)
}

func (c *call) volumer() (volumer, error) {
	eng, err := c.engine()
	if err != nil {
		return nil, err
	}
	v, ok := eng.(volumer)
	if !ok {
		return nil, errs.New(errs.Unsupported, "volumes: this engine has none")
	}
	return v, nil
}

func cmdVolumeCreate(c *call) func() error {
	driver, name := "local", ""
	var labels listVar
	var opts mapVar
	const swarm = "volumes of a swarm"
	c.flags = []flag{
		refuse("availability", "string", swarm),
		{name: "driver", short: 'd', v: (*stringVar)(&driver), help: "Volume driver; there is one", def: `"local"`},
		refuse("group", "string", swarm),
		{name: "label", v: &labels, help: "Set metadata"},
		refuse("limit-bytes", "bytes", swarm),
		{name: "name", v: (*stringVar)(&name), help: "Old spelling of the argument", hidden: true},
		{name: "opt", short: 'o', v: &opts, help: "Options of the driver", def: "map[]"},
		refuse("required-bytes", "bytes", swarm),
		refuse("scope", "string", swarm),
		refuse("secret", "map", swarm),
		refuse("sharing", "string", swarm),
		refuse("topology-preferred", "list", swarm),
		refuse("topology-required", "list", swarm),
		refuse("type", "string", swarm),
	}
	return func() error {
		if len(c.args) == 1 {
			if name != "" {
				return errs.New(errs.Invalid, "conflicting options: cannot specify a volume-name through both --name and as a positional arg")
			}
			name = c.args[0]
		}
		set := map[string]string{}
		for _, l := range labels {
			k, v, err := container.ParseLabel(l)
			if err != nil {
				return err
			}
			set[k] = v
		}
		if len(set) == 0 {
			set = nil
		}
		eng, err := c.volumer()
		if err != nil {
			return err
		}
		v, err := eng.CreateVolume(c.ctx, name, driver, set, opts)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout(), v.Name)
		return err
	}
}

func cmdVolumeInspect(c *call) func() error {
	o := inspectOptions{kind: "volume"}
	c.flags = []flag{{name: "format", short: 'f', v: (*stringVar)(&o.format), help: inspectFormatHelp}}
	return func() error { return c.inspect(&o) }
}

// volumeJSON is Docker's shape of a volume.
type volumeJSON struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

func (c *call) inspectVolume(name string) (any, error) {
	eng, err := c.volumer()
	if err != nil {
		return nil, err
	}
	v, err := eng.InspectVolume(c.ctx, name)
	if err != nil {
		return nil, err
	}
	return &volumeJSON{v.Created.Local().Format(time.RFC3339), "local", v.Labels, v.Path, v.Name, v.Options, "local"}, nil
}

func cmdVolumeList(c *call) func() error {
	var o struct {
		quiet  bool
		filter engine.Filter
		format string
	}
	c.flags = []flag{
		refuse("cluster", "", "volumes of a swarm"),
		{name: "filter", short: 'f', v: (*filterVar)(&o.filter), help: `Show those only that match ("dangling=true", driver, label, name)`},
		{name: "format", v: (*stringVar)(&o.format), help: formatHelp},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.quiet), help: "Show names only"},
	}
	return func() error {
		eng, err := c.volumer()
		if err != nil {
			return err
		}
		vols, err := eng.Volumes(c.ctx, o.filter)
		if err != nil {
			return err
		}
		if o.quiet && o.format == "" {
			for i := range vols {
				fmt.Fprintln(c.stdout(), vols[i].Name)
			}
			return nil
		}
		l := &list{
			text:    o.format,
			columns: []string{"Driver", "Name"},
			headings: map[string]string{
				"Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS",
				"Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
			},
		}
		if o.quiet && (o.format == "table" || o.format == "json") {
			l.text, l.columns = "{{.Name}}", nil
		}
		return l.print(c.app, len(vols), func(i int) row { return &volumeRow{&vols[i], false} })
	}
}

// volumeRow is one volume of a list.
type volumeRow struct {
	v     *engine.Volume
	usage bool // its size and users have been found out
}

func (r *volumeRow) keys() []string {
	return []string{"Availability", "Driver", "Group", "Labels", "Links", "Mountpoint", "Name", "Scope", "Size", "Status"}
}

// Field implements format.Object.
func (r *volumeRow) Field(name string, args []any) (any, bool) {
	if name == "Label" && len(args) == 1 {
		return r.v.Labels[fmt.Sprint(args[0])], true
	}
	if len(args) > 0 {
		return nil, false
	}
	switch name {
	case "Name":
		return r.v.Name, true
	case "Driver", "Scope":
		return "local", true
	case "Mountpoint":
		return r.v.Path, true
	case "Labels":
		return volumeLabels(r.v.Labels), true
	case "Links":
		if r.usage {
			return fmt.Sprint(r.v.Users), true
		}
		return "N/A", true
	case "Size":
		if r.usage && r.v.Size >= 0 {
			return humanSize(r.v.Size, 4), true
		}
		return "N/A", true
	case "Availability", "Group", "Status":
		return "N/A", true
	}
	return nil, false
}

func volumeLabels(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, k+"="+labels[k])
	}
	return strings.Join(all, ",")
}

func cmdVolumeRm(c *call) func() error {
	force := false
	c.flags = []flag{{name: "force", short: 'f', v: (*boolVar)(&force), help: "Do not complain about volumes that do not exist"}}
	return func() error {
		eng, err := c.volumer()
		if err != nil {
			return err
		}
		return c.each(func(name string) error {
			err := eng.RemoveVolume(c.ctx, name)
			if err != nil && (!force || !errors.Is(err, errs.NotFound)) {
				return err
			}
			_, err = fmt.Fprintln(c.stdout(), name)
			return err
		})
	}
}

func cmdVolumePrune(c *call) func() error {
	var o struct {
		all, force bool
		filter     engine.Filter
	}
	c.flags = []flag{
		{name: "all", short: 'a', v: (*boolVar)(&o.all), help: "Remove all that no container uses, not just the anonymous"},
		{name: "filter", v: (*filterVar)(&o.filter), help: `Remove those only that match ("label=KEY")`},
		{name: "force", short: 'f', v: (*boolVar)(&o.force), help: "Do not ask"},
	}
	return func() error {
		what := "anonymous local volumes not used by at least one container."
		if o.all {
			what = "all local volumes not used by at least one container."
		}
		if !o.force && !c.confirm("WARNING! This will remove "+what) {
			return nil
		}
		eng, err := c.volumer()
		if err != nil {
			return err
		}
		gone, bytes, err := eng.PruneVolumes(c.ctx, o.filter, o.all)
		c.pruned("Deleted Volumes:", gone)
		fmt.Fprintln(c.stdout(), "Total reclaimed space: "+humanSize(bytes, 4))
		return err
	}
}

// pruned prints what a prune removed.
func (c *call) pruned(title string, gone []string) {
	if len(gone) == 0 {
		return
	}
	fmt.Fprintln(c.stdout(), title)
	for _, s := range gone {
		fmt.Fprintln(c.stdout(), s)
	}
	fmt.Fprintln(c.stdout())
}

func cmdVolumeExport(c *call) func() error {
	output := ""
	c.flags = []flag{{name: "output", short: 'o', v: (*stringVar)(&output), help: "Write to a file instead of STDOUT"}}
	return func() error {
		eng, err := c.volumer()
		if err != nil {
			return err
		}
		return c.archiveTo(output, func(out *os.File) error { return eng.ExportVolume(c.ctx, c.args[0], out) })
	}
}

func cmdVolumeImport(c *call) func() error {
	return func() error {
		eng, err := c.volumer()
		if err != nil {
			return err
		}
		name := "-"
		if len(c.args) == 2 {
			name = c.args[1]
		}
		in, err := c.inputFile(name)
		if err != nil {
			return err
		}
		if in != c.in {
			defer in.Close()
		}
		return eng.ImportVolume(c.ctx, c.args[0], in)
	}
}
