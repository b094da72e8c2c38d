package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/cli/format"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// keeper is the part of the engine that the commands about the whole store need.
type keeper interface {
	Usage(ctx context.Context) (*engine.Usage, error)
	PruneImages(ctx context.Context, o engine.PruneOptions, all bool) (done []image.Removed, bytes int64, err error)
	PruneContainers(ctx context.Context, o engine.PruneOptions) (removed []string, bytes int64, err error)
	PruneNetworks(ctx context.Context, o engine.PruneOptions) ([]string, error)
	PruneVolumes(ctx context.Context, f engine.Filter, all bool) (removed []string, bytes int64, err error)
	Check(ctx context.Context, repair, quiet bool) (*engine.Checked, error)
	Dissolve() error
}

var _ keeper = (*engine.Engine)(nil)

func (c *call) keeper() (keeper, error) {
	eng, err := c.engine()
	if err != nil {
		return nil, err
	}
	k, ok := eng.(keeper)
	if !ok {
		return nil, errs.New(errs.Unsupported, "system: this engine keeps nothing")
	}
	return k, nil
}

func cmdSystemDf(c *call) func() error {
	var text string
	verbose := false
	c.flags = []flag{
		{name: "format", v: (*stringVar)(&text), help: formatHelp},
		{name: "verbose", short: 'v', v: (*boolVar)(&verbose), help: "Show each image, container and volume"},
	}
	return func() error {
		eng, err := c.keeper()
		if err != nil {
			return err
		}
		u, err := eng.Usage(c.ctx)
		if err != nil {
			return err
		}
		if verbose {
			return c.usageVerbose(u, text)
		}
		rows := usageRows(u)
		l := &list{
			text:     text,
			columns:  []string{"Type", "TotalCount", "Active", "Size", "Reclaimable"},
			headings: map[string]string{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
		}
		return l.print(c.app, len(rows), func(i int) row { return &rows[i] })
	}
}

// usageRow is a line of system df.
type usageRow struct {
	what          string
	total, active int
	size, free    int64
	percent       bool
}

func usageRows(u *engine.Usage) []usageRow {
	images := usageRow{what: "Images", total: len(u.Images), size: u.ImagesSize, free: u.ImagesSize - u.ImagesInUse, percent: true}
	for i := range u.Images {
		if u.Images[i].Containers > 0 {
			images.active++
		}
	}
	containers := usageRow{what: "Containers", total: len(u.Containers), percent: true}
	for i := range u.Containers {
		c := &u.Containers[i]
		containers.size += c.SizeRw
		switch c.State.Status {
		case "running", "paused", "restarting":
			containers.active++
		default:
			containers.free += c.SizeRw
		}
	}
	volumes := usageRow{what: "Local Volumes", total: len(u.Volumes), percent: true}
	for i := range u.Volumes {
		v := &u.Volumes[i]
		volumes.size += v.Size
		if v.Users > 0 {
			volumes.active++
		} else {
			volumes.free += v.Size
		}
	}
	return []usageRow{images, containers, volumes, {what: "Build Cache"}}
}

func (r *usageRow) keys() []string {
	return []string{"Active", "Reclaimable", "Size", "TotalCount", "Type"}
}

// Field implements format.Object.
func (r *usageRow) Field(name string, args []any) (any, bool) {
	if len(args) > 0 {
		return nil, false
	}
	switch name {
	case "Type":
		return r.what, true
	case "TotalCount":
		return strconv.Itoa(r.total), true
	case "Active":
		return strconv.Itoa(r.active), true
	case "Size":
		return humanSize(r.size, 4), true
	case "Reclaimable":
		s := humanSize(r.free, 4)
		if r.percent && r.size > 0 {
			s += fmt.Sprintf(" (%d%%)", r.free*100/r.size)
		}
		return s, true
	}
	return nil, false
}

// usageVerbose prints a table for each kind of thing, or all as one object.
func (c *call) usageVerbose(u *engine.Usage, text string) error {
	now := time.Now()
	images := make([]imageRow, len(u.Images))
	for i := range u.Images {
		one := &u.Images[i]
		images[i] = imageRows([]image.Image{one.Image}, false, text == "")[0] // one line an image
		images[i].usage = one
	}
	short := text == "" || text == "table"
	containerRow := func(i int) row {
		u.Containers[i].SizeRootFs = 0 // as Docker: what the image takes was shown above
		return &psRow{&u.Containers[i], short, now}
	}
	volumeRowAt := func(i int) row { return &volumeRow{&u.Volumes[i], true} }
	if !short {
		all := struct {
			Images, Containers, Volumes []rowJSON
			BuildCache                  []rowJSON
		}{[]rowJSON{}, []rowJSON{}, []rowJSON{}, []rowJSON{}}
		for i := range images {
			all.Images = append(all.Images, rowJSON{&images[i]})
		}
		for i := range u.Containers {
			all.Containers = append(all.Containers, rowJSON{containerRow(i)})
		}
		for i := range u.Volumes {
			all.Volumes = append(all.Volumes, rowJSON{volumeRowAt(i)})
		}
		data, err := json.Marshal(all)
		if err != nil {
			return err
		}
		if text == "json" {
			return c.textOut(string(data)) // Docker ends no line here either
		}
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			return err
		}
		t, err := format.Parse(unescape(text), false)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := t.Execute(&out, v); err != nil {
			return err
		}
		return c.textOut(out.String())
	}
	var out bytes.Buffer
	section := func(title string, l *list, n int, at func(int) row) error {
		out.WriteString(title + "\n\n")
		return l.table(&out, n, at)
	}
	err := section("Images space usage:", &list{
		columns: []string{"Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"}, headings: imageHeadings(),
	}, len(images), func(i int) row { return &images[i] })
	if err == nil {
		cl := containerList("", false)
		cl.columns = []string{"ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"}
		err = section("\nContainers space usage:", cl, len(u.Containers), containerRow)
	}
	if err == nil {
		err = section("\nLocal Volumes space usage:", &list{
			columns: []string{"Name", "Links", "Size"}, headings: map[string]string{"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"},
		}, len(u.Volumes), volumeRowAt)
	}
	if err == nil {
		err = section("\nBuild cache usage: 0B", &list{
			columns:  []string{"a", "b", "c", "d", "e", "f", "g"},
			headings: map[string]string{"a": "CACHE ID", "b": "CACHE TYPE", "c": "SIZE", "d": "CREATED", "e": "LAST USED", "f": "USAGE", "g": "SHARED"},
		}, 0, nil)
	}
	if err != nil {
		return err
	}
	return c.textOut(out.String())
}

func cmdSystemCheck(c *call) func() error {
	repair, quiet, text := false, false, ""
	c.flags = []flag{
		{name: "format", short: 'f', v: (*stringVar)(&text), help: inspectFormatHelp},
		{name: "quiet", short: 'q', v: (*boolVar)(&quiet), help: "Print what is wrong only"},
		{name: "repair", v: (*boolVar)(&repair), help: "Take what is damaged out of use, and remove what nobody needs"},
	}
	return func() error {
		eng, err := c.keeper()
		if err != nil {
			return err
		}
		res, err := eng.Check(c.ctx, repair, quiet || text != "")
		if err != nil {
			return err
		}
		left := 0
		for _, f := range res.Findings {
			if f.Done == "" {
				left++
			}
		}
		if text != "" {
			err = c.printOne(text, res)
		} else {
			c.printChecked(res, repair, quiet, left)
		}
		if err == nil && left > 0 {
			return exitStatus(1)
		}
		return err
	}
}

func (c *call) printChecked(res *engine.Checked, repair, quiet bool, left int) {
	w := c.stdout()
	for _, f := range res.Findings {
		fmt.Fprintf(w, "%s %s: %s", f.Kind, visible(f.Subject), visible(f.Problem))
		switch {
		case f.Done != "":
			fmt.Fprintf(w, ": %s", f.Done)
		case f.Failed != "":
			fmt.Fprintf(w, ": not repaired: %s", visible(f.Failed))
		}
		fmt.Fprintln(w)
	}
	if quiet {
		return
	}
	fmt.Fprintf(w, "Checked %s, %s, %s, %s: ", plural(res.Blobs, "blob"), plural(res.Layers, "layer"), plural(res.Images, "image"), plural(res.Containers, "container"))
	switch n := len(res.Findings); {
	case n == 0:
		fmt.Fprintln(w, "nothing is wrong")
	case left == 0:
		fmt.Fprintf(w, "%s, all repaired\n", plural(n, "problem"))
	default:
		fmt.Fprintf(w, "%s, %d repaired\n", plural(n, "problem"), n-left)
	}
	if res.Unverified > 0 {
		fmt.Fprintf(w, "%s unpacked without a blob to compare with\n", plural(res.Unverified, "layer"))
	}
	if res.Unused > 0 && repair {
		fmt.Fprintf(w, "Removed %s that nothing needs: %s\n", plural(res.Unused, "piece"), humanSize(res.Freed, 4))
	} else if res.Unused > 0 {
		fmt.Fprintf(w, "%s that nothing needs: %s\n", plural(res.Unused, "piece"), humanSize(res.Freed, 4))
	}
	if left > 0 && !repair {
		fmt.Fprintln(c.err, "hint: `isle system check --repair` takes what is damaged out of use")
	}
}

func cmdImagePrune(c *call) func() error {
	var o struct {
		all, force bool
		filter     engine.Filter
	}
	c.flags = []flag{
		{name: "all", short: 'a', v: (*boolVar)(&o.all), help: "Remove all that no container uses, not just those without a tag"},
		{name: "filter", v: (*filterVar)(&o.filter), help: `Remove those only that match ("until=24h", "label=KEY")`},
		{name: "force", short: 'f', v: (*boolVar)(&o.force), help: "Do not ask"},
	}
	return func() error {
		prune, err := pruneOptions(o.filter, time.Now())
		if err != nil {
			return err
		}
		what := "all dangling images."
		if o.all {
			what = "all images without at least one container associated to them."
		}
		if !o.force && !c.confirm("WARNING! This will remove "+what) {
			return nil
		}
		eng, err := c.keeper()
		if err != nil {
			return err
		}
		done, bytes, err := eng.PruneImages(c.ctx, prune, o.all)
		c.pruned("Deleted Images:", removedLines(done))
		fmt.Fprintln(c.stdout(), "Total reclaimed space: "+humanSize(bytes, 4))
		return err
	}
}

func removedLines(done []image.Removed) []string {
	var out []string
	for _, d := range done {
		if d.Untagged != "" {
			out = append(out, "untagged: "+visible(d.Untagged))
		} else {
			out = append(out, "deleted: "+d.Deleted)
		}
	}
	return out
}

func cmdSystemPrune(c *call) func() error {
	var o struct {
		all, force, volumes bool
		filter              engine.Filter
	}
	c.flags = []flag{
		{name: "all", short: 'a', v: (*boolVar)(&o.all), help: "Remove all images that no container uses, not just those without a tag"},
		{name: "filter", v: (*filterVar)(&o.filter), help: `Remove those only that match ("until=24h", "label=KEY")`},
		{name: "force", short: 'f', v: (*boolVar)(&o.force), help: "Do not ask"},
		{name: "volumes", v: (*boolVar)(&o.volumes), help: "Remove anonymous volumes, too"},
	}
	return func() error {
		if o.volumes && len(o.filter["until"]) > 0 {
			return errs.New(errs.Invalid, `The "until" filter is not supported with "--volumes"`)
		}
		warning := systemWarning(o.filter, o.all, o.volumes)
		prune, err := pruneOptions(o.filter, time.Now())
		if err != nil {
			return err
		}
		if !o.force && !c.confirm(warning) {
			return nil
		}
		eng, err := c.keeper()
		if err != nil {
			return err
		}
		return c.pruneAll(eng, prune, o.all, o.volumes)
	}
}

func systemWarning(f engine.Filter, all, volumes bool) string {
	var s strings.Builder
	s.WriteString("WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n")
	if volumes {
		s.WriteString("  - all anonymous volumes not used by at least one container\n")
	}
	if all {
		s.WriteString("  - all images without at least one container associated to them\n")
	} else {
		s.WriteString("  - all dangling images\n")
	}
	if len(f) > 0 {
		s.WriteString("\n  Items to be pruned will be filtered with:\n")
		for _, k := range sortedKeys(f) {
			for _, v := range f[k] {
				s.WriteString("  - " + k + "=" + v + "\n")
			}
		}
	}
	return s.String()
}

// pruneAll prunes one kind after the other; what fails does not keep the others
// from being pruned.
func (c *call) pruneAll(eng keeper, o engine.PruneOptions, all, volumes bool) error {
	var total int64
	failed := false
	note := func(err error) {
		if err != nil {
			c.complain(err)
			failed = true
		}
	}
	ids, n, err := eng.PruneContainers(c.ctx, o)
	c.pruned("Deleted Containers:", ids)
	total += n
	note(err)
	nets, err := eng.PruneNetworks(c.ctx, o)
	c.pruned("Deleted Networks:", nets)
	note(err)
	if volumes {
		vols, n, err := eng.PruneVolumes(c.ctx, o.Filter, false)
		c.pruned("Deleted Volumes:", vols)
		total += n
		note(err)
	}
	done, n, err := eng.PruneImages(c.ctx, o, all)
	c.pruned("Deleted Images:", removedLines(done))
	total += n
	note(err)
	note(eng.Dissolve())
	fmt.Fprintln(c.stdout(), "Total reclaimed space: "+humanSize(total, 4))
	if failed {
		return exitStatus(1)
	}
	return nil
}

func sortedKeys(f engine.Filter) []string {
	keys := make([]string, 0, len(f))
	for k := range f {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
