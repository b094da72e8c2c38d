package pull

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"slices"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/archive"
)

// SaveMain is the role `isled save [options] REF…`: it writes an archive of
// images to its standard input, which is a file or pipe open for writing, as the
// standard output has the answer.
func SaveMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		platform := fs.String("platform", "", "os/arch[/variant] that the images must be for")
		return func(ctx context.Context, p *Puller) (any, error) {
			if fs.NArg() == 0 {
				return nil, errs.New(errs.Invalid, "save: wants an image reference")
			}
			n, err := p.Save(ctx, fs.Args(), *platform, os.NewFile(0, "archive"))
			return struct {
				Bytes int64 `json:"bytes"`
			}{n}, err
		}
	})
}

// Save writes the images that refs name as an archive, and returns its size. A
// name without a tag means all tags of the repository, as with Docker.
func (p *Puller) Save(ctx context.Context, refs []string, platform string, out io.Writer) (size int64, Err error) {
	defer func() { Err = interrupted(ctx, "save", Err) }()
	chosen, err := p.chosen(refs)
	if err != nil {
		return 0, err
	}
	lease, err := p.Images.Lease()
	if err != nil {
		return 0, err
	}
	packed := false
	defer func() {
		Err = errors.Join(Err, lease.Close())
		if packed {
			_ = p.Images.Sweep(nil, nil) // what was packed for this archive; a sweep comes again
		}
	}()
	want, err := image.ParsePlatform(platform)
	if err != nil {
		return 0, err
	}
	var list []archive.Saved
	for _, c := range chosen {
		if platform != "" && !want.Runs(c.img.Platform()) {
			return 0, errs.New(errs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", c.ref, platform)
		}
		protect := []string{c.img.ID, c.img.Manifest}
		for _, l := range c.img.Layers {
			protect = append(protect, l.Digest, l.DiffID)
		}
		if err := lease.Add(protect...); err != nil {
			return 0, err
		}
		w, err := p.whole(ctx, c.img, lease, false, func(l image.Layer) (bool, error) { return !p.Images.HasBlob(l.Digest), nil })
		if err != nil {
			return 0, err
		}
		packed = packed || w.packed
		w.Names = c.names
		list = append(list, archive.Saved{Content: w.Content, MediaType: w.mediaType})
	}
	err = archive.Save(p.Images, list, &until{ctx, out}, func(n int64) { size = n })
	if errors.Is(err, errs.Corrupt) {
		err = repairable(err)
	}
	return size, err
}

// chosenImage is an image to be saved.
type chosenImage struct {
	ref   string
	img   *image.Image
	names []image.Name
}

// chosen finds the images, each once with all the names it is to have.
func (p *Puller) chosen(refs []string) ([]*chosenImage, error) {
	var out []*chosenImage
	add := func(ref string, img *image.Image, names ...image.Name) {
		for _, c := range out {
			if c.img.ID == img.ID {
				for _, n := range names {
					if !slices.Contains(c.names, n) {
						c.names = append(c.names, n)
					}
				}
				return
			}
		}
		out = append(out, &chosenImage{ref, img, names})
	}
	for _, ref := range refs {
		if n, err := image.ParseName(ref); err == nil && (ref == n.FamiliarName() || ref == n.Repository()) {
			found, err := p.tagsOf(n)
			if err != nil {
				return nil, err
			}
			for _, f := range found {
				add(ref, f.img, f.names...)
			}
			if len(found) > 0 {
				continue
			}
		}
		img, err := p.Images.Inspect(ref)
		if err != nil {
			return nil, err
		}
		// By an id it is saved without a name, as with Docker.
		if n, err := image.ParseName(img.Ref); err == nil && n.Tag != "" && n.Digest == "" {
			add(ref, img, n)
		} else {
			add(ref, img)
		}
	}
	return out, nil
}

// tagsOf returns the images that have a tag of n's repository.
func (p *Puller) tagsOf(n image.Name) ([]*chosenImage, error) {
	list, err := p.Images.List()
	if err != nil {
		return nil, err
	}
	var out []*chosenImage
	for i := range list {
		c := &chosenImage{img: &list[i]}
		for _, t := range list[i].Tags {
			if name, err := image.ParseName(t); err == nil && name.Repository() == n.Repository() {
				c.names = append(c.names, name)
			}
		}
		if len(c.names) > 0 {
			out = append(out, c)
		}
	}
	return out, nil
}

// until is a writer that ends with its context.
type until struct {
	ctx context.Context
	w   io.Writer
}

func (u *until) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}
