package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sort"

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
	return res.Loaded, err
}

// Import makes a one-layer image of a root file system's tar.
func (e *Engine) Import(ctx context.Context, r *os.File, ref string, changes []string, message, platform string) (string, error) {
	var res struct {
		ID string `json:"id"`
	}
	args := []string{"import"}
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
	return res.ID, err
}

// Images lists the images, newest first.
func (e *Engine) Images(_ context.Context, f Filter, _ bool) ([]image.Image, error) {
	all, err := e.images.List()
	if err != nil {
		return nil, err
	}
	out := all[:0]
	for _, img := range all {
		if imageMatches(e, &img, f) {
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
func (e *Engine) Tag(_ context.Context, src, dst string) error { return e.images.Tag(src, dst) }

// RemoveImage takes a name off an image and, when it was the last, removes the
// image with every blob and layer that no other image or container needs. It
// returns Docker's "Untagged: …" and "Deleted: …" lines, also beside an error.
func (e *Engine) RemoveImage(_ context.Context, ref string, force, _ bool) ([]string, error) {
	all, err := e.loadAll()
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for i := range all {
		for _, l := range all[i].Image.Layers {
			needed[l] = true
		}
	}
	did, err := e.images.Remove(ref, force, image.Keep{
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
	})
	if len(did.Layers) > 0 {
		err = errors.Join(err, e.inside(workSweepLayers, e.env.Layers()))
	}
	return did.Lines(), err
}

var imageFilters = [...]string{"before", "dangling", "label", "reference", "since", "until"}

func imageMatches(e *Engine, img *image.Image, f Filter) bool {
	for key, values := range f {
		ok := key == "label"
		for _, v := range values {
			one := false
			switch key {
			case "dangling":
				one = (len(img.Tags) == 0) == (v == "true" || v == "1")
			case "label":
				ok = ok && labelMatches(img.Config.Labels, v)
				continue
			case "reference":
				for _, t := range img.Tags {
					one = one || referenceMatches(t, v)
				}
			case "before", "since":
				if other, err := e.images.Inspect(v); err == nil {
					one = key == "before" && img.Created.Before(other.Created) || key == "since" && img.Created.After(other.Created)
				}
			}
			ok = ok || one
		}
		if !ok {
			return false
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

// CheckImageFilter refuses a filter key that images does not know.
func CheckImageFilter(f Filter) error {
	for key := range f {
		known := false
		for _, k := range imageFilters {
			known = known || k == key
		}
		if !known {
			return errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	return nil
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
