package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// isled returns the path of the second binary: beside this one, or where
// `make install` puts it.
func isled() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	for _, p := range [...]string{dir + "/isled", filepath.Dir(dir) + "/libexec/isle/isled", filepath.Dir(dir) + "/lib/isle/isled"} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", errs.Hint(errs.New(errs.NotFound, "isled: not found beside %s", self), "isled comes with isle and does the pulls: run make, or make install")
}

// server runs a role of isled to its end and decodes its one-line answer into v.
func (e *Engine) server(ctx context.Context, v any, progress, stdin *os.File, args ...string) error {
	path, err := isled()
	if err != nil {
		return err
	}
	if err := e.env.MakeDirs(); err != nil {
		return err
	}
	out, err := e.joined(path, append([]string{"isled"}, args...), progress, stdin)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var failed struct {
		Error *errs.Wire `json:"error"`
	}
	if err := json.Unmarshal(out, &failed); err != nil {
		return errs.New(errs.Unavailable, "isled %s: ended without an answer", args[0])
	}
	if failed.Error != nil {
		return failed.Error.Err()
	}
	return json.Unmarshal(out, v)
}

// Pull fetches an image; its progress is printed by isled to o.Progress.
func (e *Engine) Pull(ctx context.Context, ref string, o PullOptions) (Pulled, error) {
	var p Pulled
	if _, err := image.ParseName(ref); err != nil {
		return p, err
	}
	args := []string{"pull"}
	if o.Platform != "" {
		args = append(args, "--platform", o.Platform)
	}
	if o.Quiet || o.Progress == nil {
		args = append(args, "--quiet")
	}
	if o.All {
		args = append(args, "--all-tags")
	}
	err := e.server(ctx, &p, o.Progress, nil, append(args, ref)...)
	if err == nil {
		e.tell("image", "pull", ref, map[string]string{"name": p.Name})
	}
	return p, err
}

// Load reads images from an archive (docker save or OCI layout) and returns
// the names, or ids, that it brought.
func (e *Engine) Load(ctx context.Context, r *os.File, quiet bool) ([]string, error) {
	var res struct {
		Loaded []string `json:"loaded"`
	}
	args := []string{"load"}
	if quiet {
		args = append(args, "--quiet")
	}
	err := e.server(ctx, &res, os.Stderr, r, args...)
	for _, n := range res.Loaded {
		e.tell("image", "load", n, map[string]string{"name": n})
	}
	return res.Loaded, err
}

// Import makes a one-layer image of a root file system's tar: of r, or of what is
// at the HTTP address from.
func (e *Engine) Import(ctx context.Context, r *os.File, from, ref string, changes []string, message, platform string) (string, error) {
	var res struct {
		ID string `json:"id"`
	}
	args := []string{"import"}
	if from != "" {
		args = append(args, "--url", from)
	}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	if message != "" {
		args = append(args, "--message", message)
	}
	if platform != "" {
		args = append(args, "--platform", platform)
	}
	if ref != "" {
		args = append(args, ref)
	}
	err := e.server(ctx, &res, os.Stderr, r, args...)
	if err == nil {
		e.tell("image", "import", res.ID, map[string]string{"name": cmp.Or(ref, res.ID)})
	}
	return res.ID, err
}

// Images lists the images, newest first.
func (e *Engine) Images(_ context.Context, f Filter, _ bool) ([]image.Image, error) {
	all, err := e.images.List()
	if err != nil {
		return nil, err
	}
	m, err := e.imageMatcher(f)
	if err != nil {
		return nil, err
	}
	out := all[:0]
	for _, img := range all {
		if m.keep(&img) {
			out = append(out, img)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Created.After(out[j].Created) })
	return out, nil
}

// InspectImage returns one image.
func (e *Engine) InspectImage(_ context.Context, ref string) (*image.Image, error) {
	return e.images.Inspect(ref)
}

// Tag gives an image a further name.
func (e *Engine) Tag(_ context.Context, src, dst string) error {
	err := e.images.Tag(src, dst)
	if err == nil {
		e.tell("image", "tag", src, map[string]string{"name": dst})
	}
	return err
}

// keep tells what the containers need of the images.
func (e *Engine) keep() (image.Keep, error) {
	all, err := e.loadAll()
	if err != nil {
		return image.Keep{}, err
	}
	needed := map[string]bool{}
	for i := range all {
		for _, l := range all[i].Image.Layers {
			needed[l] = true
		}
	}
	return image.Keep{
		Users: func(id string) []image.User {
			var us []image.User
			for i := range all {
				if all[i].Image.ID == id {
					us = append(us, image.User{ID: all[i].ID, Running: live(all[i].State.Status)})
				}
			}
			return us
		},
		Layer:     func(diffID string) bool { return needed[diffID] },
		DropLayer: e.layers.Drop,
	}, nil
}

// removed finishes a removal: the files of the layers go, and it is told.
func (e *Engine) removed(did image.Removal) error {
	for _, d := range did.Done {
		switch {
		case d.Untagged != "":
			e.tell("image", "untag", d.Untagged, map[string]string{"name": d.Untagged})
		case !slices.Contains(did.Layers, d.Deleted):
			e.tell("image", "delete", d.Deleted, map[string]string{"name": d.Deleted})
		}
	}
	if len(did.Layers) == 0 {
		return nil
	}
	return e.inside(workSweepLayers, e.env.Layers())
}

// RemoveImage takes a name off an image and, when it was the last, removes the
// image with every blob and layer that no other image or container needs. It
// returns Docker's "Untagged: …" and "Deleted: …" lines, also beside an error.
func (e *Engine) RemoveImage(_ context.Context, ref string, force, _ bool) ([]string, error) {
	keep, err := e.keep()
	if err != nil {
		return nil, err
	}
	did, err := e.images.Remove(ref, force, keep)
	return did.Lines(), errors.Join(err, e.removed(did))
}

// PruneImages removes the images without a tag that no container uses, or with
// all those that no container uses, and of these what o selects. Beside what went
// it returns how many bytes the blobs and the files of the layers took.
func (e *Engine) PruneImages(_ context.Context, o PruneOptions, all bool) (done []image.Removed, bytes int64, err error) {
	for key, values := range o.Filter {
		switch key {
		case "label", "label!":
		case "dangling":
			// Docker has -a send dangling=false, and takes it from users too.
			for _, v := range values {
				only, ok := truth(v)
				if !ok {
					return nil, 0, errs.New(errs.Invalid, "invalid filter 'dangling=%s'", v)
				}
				all = all || !only
			}
		default:
			return nil, 0, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	keep, err := e.keep()
	if err != nil {
		return nil, 0, err
	}
	var files int64
	keep.DropLayer = func(diffID string) error {
		n, err := e.layers.Size(diffID)
		if err != nil {
			n = 0 // damaged, which is no reason to keep it
		}
		files += n
		return e.layers.Drop(diffID)
	}
	did, err := e.images.Prune(all, func(img *image.Image) bool {
		return (o.Until.IsZero() || img.Created.Before(o.Until)) && labelsSelected(img.Config.Labels, o.Filter)
	}, keep)
	// And what no image or container needs any more: layers of images that were
	// removed under their containers, beginnings of downloads.
	if err == nil {
		var rest image.Removal
		rest, err = e.images.Collect(e.layerIDs(), keep)
		did.Bytes += rest.Bytes
		did.Layers = append(did.Layers, rest.Layers...)
		did.Done = append(did.Done, rest.Done...)
	}
	err = errors.Join(err, e.removed(did))
	bytes = did.Bytes + files
	e.tell("image", "prune", "", map[string]string{"reclaimed": strconv.FormatInt(bytes, 10)})
	return did.Done, bytes, err
}

// layerIDs returns the layers that are unpacked. What cannot be read is left
// alone.
func (e *Engine) layerIDs() []string {
	list, err := e.layers.Layers()
	if err != nil {
		return nil
	}
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].DiffID
	}
	return ids
}

// imageMatcher is the filter of images.
type imageMatcher struct {
	f                    Filter
	before, since, until time.Time
}

func (e *Engine) imageMatcher(f Filter) (*imageMatcher, error) {
	m := &imageMatcher{f: f}
	for key, values := range f {
		for _, v := range values {
			switch key {
			case "label", "reference":
			case "dangling":
				if _, ok := truth(v); !ok {
					return nil, errs.New(errs.Invalid, "invalid filter 'dangling=%s'", v)
				}
			case "until":
				t, err := time.Parse(time.RFC3339Nano, v) // the front doors know the other ways to write it
				if err != nil {
					return nil, errs.New(errs.Invalid, "invalid filter 'until=%s'", v)
				}
				if m.until.IsZero() || t.Before(m.until) {
					m.until = t
				}
			case "before", "since":
				img, err := e.images.Inspect(v)
				if err != nil {
					return nil, err
				}
				if key == "before" && (m.before.IsZero() || img.Created.Before(m.before)) {
					m.before = img.Created
				}
				if key == "since" && (m.since.IsZero() || img.Created.After(m.since)) {
					m.since = img.Created
				}
			default:
				return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
			}
		}
	}
	return m, nil
}

// keep reports whether an image is listed, and leaves it the names that match.
func (m *imageMatcher) keep(img *image.Image) bool {
	c := img.Created
	if !m.before.IsZero() && !c.Before(m.before) || !m.since.IsZero() && !c.After(m.since) || !m.until.IsZero() && !c.Before(m.until) {
		return false
	}
	for key, values := range m.f {
		switch key {
		case "dangling":
			if !slices.ContainsFunc(values, func(v string) bool { b, _ := truth(v); return b == (len(img.Tags) == 0) }) {
				return false
			}
		case "label":
			for _, v := range values {
				if !labelMatches(img.Config.Labels, v) {
					return false
				}
			}
		case "reference":
			match := func(name string) bool {
				return slices.ContainsFunc(values, func(v string) bool { return referenceMatches(name, v) })
			}
			img.Tags = slices.DeleteFunc(img.Tags, func(t string) bool { return !match(t) })
			img.Digests = slices.DeleteFunc(img.Digests, func(d string) bool { return !match(d) })
			if len(img.Tags)+len(img.Digests) == 0 {
				return false
			}
		}
	}
	return true
}

// referenceMatches is Docker's reference filter: a glob over the name, with or
// without its tag.
func referenceMatches(tag, pattern string) bool {
	n, err := image.ParseName(tag)
	if err != nil {
		return false
	}
	for _, s := range [...]string{n.Familiar(), n.String(), n.FamiliarName()} {
		if ok, err := filepath.Match(pattern, s); err == nil && ok {
			return true
		}
	}
	return false
}

// Info tells about this engine and machine.
func (e *Engine) Info(context.Context) (Info, error) {
	in := Info{Version: Version, Root: e.env.Data, RunRoot: e.env.Run, Rootless: e.env.Rootless}
	all, err := e.loadAll()
	if err != nil {
		return in, err
	}
	in.Containers = len(all)
	for i := range all {
		switch s := all[i].State.Status; {
		case s == "paused":
			in.Paused++
		case live(s):
			in.Running++
		default:
			in.Stopped++
		}
	}
	imgs, err := e.images.List()
	if err != nil && !errors.Is(err, errs.NotFound) {
		return in, err
	}
	in.Images = len(imgs)
	return in, hostInfo(&in)
}
