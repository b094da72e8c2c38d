package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/linux/tty"
)

func cmdImages(c *call) func() error {
	var o struct {
		all, digests, noTrunc, quiet bool
		filter                       engine.Filter
		format                       string
	}
	c.flags = []flag{
		{name: "all", short: 'a', v: (*boolVar)(&o.all), help: "Show all images (the same: isle keeps no intermediate images)"},
		{name: "digests", v: (*boolVar)(&o.digests), help: "Show digests"},
		{name: "filter", short: 'f', v: (*filterVar)(&o.filter), help: "Show those that match (KEY=VALUE)"},
		{name: "format", v: (*stringVar)(&o.format), help: formatHelp},
		{name: "no-trunc", v: (*boolVar)(&o.noTrunc), help: "Do not shorten the output"},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.quiet), help: "Show image IDs only"},
		refuse("tree", "", "each image is kept for one platform"),
	}
	return func() error {
		if len(c.args) == 1 {
			if o.filter == nil {
				o.filter = engine.Filter{}
			}
			o.filter["reference"] = append(o.filter["reference"], c.args[0])
		}
		for i, v := range o.filter["until"] {
			t, err := parseMoment("until", v, time.Now())
			if err != nil {
				return err
			}
			o.filter["until"][i] = t.Format(time.RFC3339Nano)
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		imgs, err := eng.Images(c.ctx, o.filter, o.all)
		if err != nil {
			return err
		}
		rows := imageRows(imgs, o.digests || wants(o.format, "Digest"), !o.noTrunc)
		if o.quiet {
			if o.format != "" {
				fmt.Fprintln(c.err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
			}
			for _, r := range rows {
				fmt.Fprintln(c.stdout(), r.id())
			}
			return nil
		}
		l := &list{
			text:     o.format,
			columns:  []string{"Repository", "Tag", "ID", "CreatedSince", "Size"},
			headings: imageHeadings(),
		}
		if o.digests {
			l.columns = []string{"Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"}
		}
		return l.print(c.app, len(rows), func(i int) row { return &rows[i] })
	}
}

func imageHeadings() map[string]string {
	return map[string]string{
		"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
		"Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE",
	}
}

// imageRow is one name of an image in a list.
type imageRow struct {
	img               *image.Image
	repo, tag, digest string
	trunc             bool
	now               time.Time
	usage             *engine.ImageUsage // nil: not asked for
}

// imageRows gives every name of every image its row, as Docker does: an image
// without a tag gets one for its digest, and one without either a row of <none>.
func imageRows(imgs []image.Image, digests, trunc bool) []imageRow {
	const none = "<none>"
	now := time.Now()
	rows := make([]imageRow, 0, len(imgs))
	for i := range imgs {
		img := &imgs[i]
		row := imageRow{img: img, repo: none, tag: none, digest: none, trunc: trunc, now: now}
		byRepo := map[string]string{}
		for _, d := range img.Digests {
			if repo, digest, ok := strings.Cut(d, "@"); ok {
				byRepo[repo] = digest
			}
		}
		seen := map[string]bool{}
		for _, t := range img.Tags {
			row.repo, row.tag, row.digest = t, none, none
			if at := strings.LastIndexByte(t, ':'); at > strings.LastIndexByte(t, '/') {
				row.repo, row.tag = t[:at], t[at+1:]
			}
			seen[row.repo] = true
			if d, ok := byRepo[row.repo]; ok && digests {
				row.digest = d
			}
			rows = append(rows, row)
		}
		for _, d := range img.Digests {
			repo, digest, ok := strings.Cut(d, "@")
			if !ok || seen[repo] {
				continue
			}
			row.repo, row.tag, row.digest = repo, none, digest
			rows = append(rows, row)
			seen[repo] = true
		}
		if len(seen) == 0 {
			row.repo, row.tag, row.digest = none, none, none
			rows = append(rows, row)
		}
	}
	return rows
}

func (r *imageRow) id() string {
	if r.trunc {
		return shortID(r.img.ID)
	}
	return r.img.ID
}

func (r *imageRow) keys() []string {
	return []string{"Containers", "CreatedAt", "CreatedSince", "Digest", "ID", "Repository", "SharedSize", "Size", "Tag", "UniqueSize", "VirtualSize"}
}

// Field implements format.Object.
func (r *imageRow) Field(name string, args []any) (any, bool) {
	if len(args) > 0 {
		return nil, false
	}
	switch name {
	case "ID":
		return r.id(), true
	case "Repository":
		return visible(r.repo), true
	case "Tag":
		return visible(r.tag), true
	case "Digest":
		return visible(r.digest), true
	case "CreatedSince":
		return ago(r.img.Created, r.now), true
	case "CreatedAt":
		return r.img.Created.Local().Truncate(time.Second).Format("2006-01-02 15:04:05 -0700 MST"), true
	case "Size":
		return humanSize(r.img.Size, 3), true
	case "VirtualSize":
		return humanSize(r.img.Size, 4), true
	case "Containers", "SharedSize", "UniqueSize":
		if r.usage == nil {
			return "N/A", true
		}
		switch name {
		case "Containers":
			return strconv.Itoa(r.usage.Containers), true
		case "SharedSize":
			return humanSize(r.usage.Shared, 4), true
		default:
			return humanSize(r.img.Size-r.usage.Shared, 4), true
		}
	}
	return nil, false
}

func cmdRmi(c *call) func() error {
	var o struct {
		force, noPrune bool
		platforms      []string
	}
	c.flags = []flag{
		{name: "force", short: 'f', v: (*boolVar)(&o.force), help: "Remove the image though containers or further names use it"},
		{name: "no-prune", v: (*boolVar)(&o.noPrune), help: "Do not delete untagged parents"},
		{name: "platform", v: (*wordsVar)(&o.platforms), help: "Remove the given platform only (os[/arch[/variant]])"},
	}
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		ctx := c.ctx
		failed := false
		for _, ref := range c.args {
			err := c.checkImagePlatforms(ctx, eng, ref, o.platforms)
			var lines []string
			if err == nil {
				lines, err = eng.RemoveImage(ctx, ref, o.force, o.noPrune)
			}
			for _, l := range lines {
				fmt.Fprintln(c.stdout(), visible(l))
			}
			if err != nil {
				c.complain(err)
				// As Docker: rm -f of what is not there has done its work.
				failed = failed || !o.force || errs.KindOf(err) != errs.NotFound
			}
		}
		if failed {
			return exitStatus(1)
		}
		return nil
	}
}

// checkImagePlatforms refuses to remove an image of another platform than asked for.
func (c *call) checkImagePlatforms(ctx context.Context, eng conductor, ref string, platforms []string) error {
	if len(platforms) == 0 {
		return nil
	}
	img, err := eng.InspectImage(ctx, ref)
	if err != nil {
		return err
	}
	for _, p := range platforms {
		if err := matchPlatform(img, ref, p); err == nil {
			return nil
		}
	}
	return errs.New(errs.NotFound, "no such image: %s for %s", ref, strings.Join(platforms, ", "))
}

// matchPlatform compares an image with os[/arch[/variant]].
func matchPlatform(img *image.Image, ref, want string) error {
	p, err := image.ParsePlatform(want)
	if err != nil {
		return err
	}
	has := img.Platform()
	if p.OS != has.OS || p.Arch != "" && p.Arch != has.Arch || p.Variant != "" && p.Variant != has.Variant {
		return errs.New(errs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, want)
	}
	return nil
}

func cmdPull(c *call) func() error {
	var o engine.PullOptions
	c.flags = []flag{
		{name: "all-tags", short: 'a', v: (*boolVar)(&o.All), help: "Download all tags of the repository"},
		{name: "disable-content-trust", v: funcVar{"", contentTrust}, help: "Accepted for Docker's sake: images are verified by digest", def: "true"},
		{name: "platform", v: (*stringVar)(&o.Platform), help: "Platform of the image (os/arch[/variant])"},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.Quiet), help: "Print the image's name only"},
	}
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		ref := c.args[0]
		if !o.All && !o.Quiet {
			if name, err := image.ParseName(ref); err == nil && name.Tag == "latest" && !strings.HasSuffix(ref, ":latest") && name.Digest == "" {
				fmt.Fprintln(c.stdout(), "Using default tag: latest")
				if err := c.flush(); err != nil {
					return err
				}
			}
		}
		o.Progress = c.out
		p, err := eng.Pull(c.ctx, ref, o)
		if err != nil {
			return err
		}
		// The digest and the status were the end of the progress.
		_, err = fmt.Fprintln(c.stdout(), visible(p.Name))
		return err
	}
}

func cmdLoad(c *call) func() error {
	var o struct {
		input, platform string
		quiet           bool
	}
	c.flags = []flag{
		{name: "input", short: 'i', v: (*stringVar)(&o.input), help: "Read from this archive, not from STDIN"},
		{name: "platform", v: (*stringVar)(&o.platform), help: "Load the given platform only (os[/arch[/variant]])"},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.quiet), help: "Suppress the load output"},
	}
	return func() error {
		f, err := c.inputFile(o.input)
		if err != nil {
			return err
		}
		if f != c.in {
			defer f.Close()
		} else if tty.IsTerminal(f) {
			return errs.New(errs.Invalid, "requested load from stdin, but stdin is empty")
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		names, err := eng.Load(c.ctx, f, o.quiet)
		for _, n := range names {
			what := "Loaded image: "
			if strings.HasPrefix(n, "sha256:") {
				what = "Loaded image ID: "
			}
			fmt.Fprintln(c.stdout(), what+visible(n))
		}
		if err != nil {
			return fromFile(o.input, err)
		}
		if o.platform == "" {
			return nil
		}
		for _, n := range names {
			img, err := eng.InspectImage(c.ctx, n)
			if err != nil {
				return err
			}
			if err := matchPlatform(img, n, o.platform); err != nil {
				return err
			}
		}
		return nil
	}
}

func cmdImport(c *call) func() error {
	var o struct {
		changes           []string
		message, platform string
	}
	c.flags = []flag{
		{name: "change", short: 'c', v: (*listVar)(&o.changes), help: "Apply a Dockerfile instruction to the image"},
		{name: "message", short: 'm', v: (*stringVar)(&o.message), help: "Comment of the image"},
		{name: "platform", v: (*stringVar)(&o.platform), help: "Platform of the image (os/arch[/variant])"},
	}
	return func() error {
		src, ref, from := c.args[0], "", ""
		if len(c.args) == 2 {
			ref = c.args[1]
		}
		var f *os.File
		if strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://") {
			from = src
			fmt.Fprintln(c.stdout(), "Downloading from "+visible(src))
			if err := c.flush(); err != nil {
				return err
			}
		} else {
			var err error
			if f, err = c.inputFile(src); err != nil {
				return err
			}
			if f != c.in {
				defer f.Close()
			}
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		id, err := eng.Import(c.ctx, f, from, ref, o.changes, o.message, o.platform)
		if err != nil {
			return fromFile(src, err)
		}
		_, err = fmt.Fprintln(c.stdout(), id)
		return err
	}
}

// fromFile says which archive err is about; the engine has seen a file without a name.
func fromFile(name string, err error) error {
	if err == nil || name == "" || name == "-" || strings.Contains(err.Error(), name) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}
