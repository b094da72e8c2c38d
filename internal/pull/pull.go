package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/archive"
	"github.com/isle-engine/isle/internal/image/registry"
	"github.com/isle-engine/isle/internal/storage"
)

// Options of a pull.
type Options struct {
	Ref      string
	Platform string // os/arch[/variant]; "" is this machine's
	AllTags  bool
	Quiet    bool
	Out      *os.File // for the progress
	Progress Progress
}

// Result is what a pull or import brought.
type Result struct {
	Name   string `json:"name"`   // the resolved name
	Digest string `json:"digest"` // of the manifest or index that the name means
	ID     string `json:"id"`     // image id
	New    bool   `json:"new"`    // something changed in the store
}

// Puller fills the stores of one user.
type Puller struct {
	Images *image.Store
	Layers *storage.Store
	Client *registry.Client
	// Containers is the directory of the containers, for a check.
	Containers string
	// Builtin is the image that is had without a registry.
	Builtin Builtin

	keep int64 // for tests; 0: keepFrom
}

// Builtin is an image that comes with the program.
type Builtin struct {
	Name    string                 // normalized
	Archive func() ([]byte, error) // as Load reads it
}

// Pull fetches what ref names, all its tags if AllTags is set; the last result
// is returned then.
func (p *Puller) Pull(ctx context.Context, o Options) (_ Result, Err error) {
	name, err := image.ParseName(o.Ref)
	if err != nil {
		return Result{}, err
	}
	platform, err := image.ParsePlatform(o.Platform)
	if err != nil {
		return Result{}, err
	}
	defer func() { Err = interrupted(ctx, "pull "+name.Familiar(), Err) }()
	if !o.AllTags {
		return p.one(ctx, name, platform, o)
	}
	if name.Digest != "" || o.Ref != name.Repository() && o.Ref != name.FamiliarName() {
		return Result{}, errs.New(errs.Invalid, "image reference %q: tag can't be used with --all-tags/-a", o.Ref)
	}
	tags, err := p.Client.Tags(ctx, name)
	if err != nil {
		return Result{}, err
	}
	var res Result
	for _, t := range tags {
		name.Tag = t
		one, err := p.one(ctx, name, platform, o)
		if err != nil {
			return res, err
		}
		one.New = one.New || res.New
		res = one
	}
	return res, nil
}

// one pulls one tag or digest.
func (p *Puller) one(ctx context.Context, name image.Name, platform image.Platform, o Options) (_ Result, Err error) {
	how := o.Progress
	if o.Quiet {
		how = Quiet
	}
	show := newDisplay(o.Out, how)
	defer show.flush()

	if name.String() == p.Builtin.Name {
		return p.builtin(ctx, name, platform, o.Platform != "", show)
	}
	lease, err := p.Images.Lease()
	if err != nil {
		return Result{}, err
	}
	f := &fetcher{p: p, show: show}
	defer func() {
		Err = errors.Join(Err, lease.Close())
		// What a registry broke off is kept for the next attempt, if it is
		// worth it.
		if Err != nil && !f.worthKeeping(context.WithoutCancel(ctx), Err) {
			_ = p.Images.Sweep(nil, nil) // the failure is what matters; a sweep comes again
		}
	}()

	which := name.Tag
	if name.Digest != "" {
		which = name.Digest
	}
	show.printf("%s: Pulling from %s", which, name.Repository())
	if res, ok := p.upToDate(ctx, name, platform); ok {
		show.printf("Digest: %s\nStatus: Image is up to date for %s", res.Digest, name.Familiar())
		return res, nil
	}

	remote, err := p.Client.Resolve(ctx, name)
	if err != nil {
		return Result{}, err
	}
	man, index, err := image.ParseManifest(remote.Content, remote.MediaType)
	if err != nil {
		return Result{}, err
	}
	data := remote.Content
	if index != nil {
		d, err := index.Select(platform)
		if err != nil {
			return Result{}, errs.As(errs.KindOf(err), fmt.Errorf("image %s: %w", name.Familiar(), err))
		}
		if data, err = remote.Manifest(ctx, d); err != nil {
			return Result{}, err
		}
		if man, index, err = image.ParseManifest(data, d.MediaType); err != nil {
			return Result{}, err
		}
		if index != nil {
			return Result{}, errs.New(errs.Unsupported, "image %s: its index has an index in it", name.Familiar())
		}
	}
	if err := p.Client.Allowed(ctx, remote, image.DigestOf(data)); err != nil {
		return Result{}, err
	}
	config, err := p.config(ctx, remote, man.Config)
	if err != nil {
		return Result{}, err
	}
	img, err := image.ParseConfig(config)
	if err != nil {
		return Result{}, err
	}
	if err := image.MatchLayers(img, man); err != nil {
		return Result{}, err
	}
	if !platform.Runs(img.Platform()) {
		if o.Platform != "" {
			return Result{}, errs.New(errs.NotFound, "image %s: made for %s, not for %s", name.Familiar(), img.Platform(), platform)
		}
		fmt.Fprintf(o.warnings(), "WARNING: The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested\n", img.Platform(), platform)
	}

	layers := make([]image.Layer, len(man.Layers))
	protect := []string{img.ID, image.DigestOf(data)}
	for i, d := range man.Layers {
		layers[i] = image.Layer{DiffID: img.Layers[i].DiffID, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size}
		protect = append(protect, layers[i].DiffID, layers[i].Digest)
	}
	if err := lease.Add(protect...); err != nil {
		return Result{}, err
	}
	f.remote = remote
	if err := f.all(ctx, layers); err != nil {
		return Result{}, err
	}
	for i := range layers {
		if layers[i].Unpacked, err = p.Layers.Size(layers[i].DiffID); err != nil {
			return Result{}, err
		}
	}
	names := []image.Name{name.WithDigest(remote.Digest)}
	if name.Digest == "" {
		names = slices.Insert(names, 0, name)
	}
	stored, added, err := p.Images.Put(image.Content{Manifest: data, Config: config, Layers: layers, Names: names})
	if err != nil {
		return Result{}, err
	}
	show.flush()
	_, _ = p.Layers.Sweep() // what killed pulls have left; it comes again
	status := "Downloaded newer image"
	if !added {
		status = "Image is up to date"
	}
	show.printf("Digest: %s\nStatus: %s for %s", remote.Digest, status, name.Familiar())
	return Result{Name: name.String(), Digest: remote.Digest, ID: stored.ID, New: added}, nil
}

// builtin puts the image that comes with the program into the store. No
// registry has a say in what its name means.
func (p *Puller) builtin(ctx context.Context, name image.Name, platform image.Platform, asked bool, show *display) (Result, error) {
	data, err := p.Builtin.Archive()
	if err != nil {
		return Result{}, err
	}
	was := ""
	if img, err := p.Images.Resolve(name.String()); err == nil {
		was = img.ID
	}
	l := &archive.Loader{Images: p.Images, Layers: p.Layers}
	loaded, err := l.Load(ctx, bytes.NewReader(data), platform)
	if err != nil {
		return Result{}, err
	}
	img, err := p.Images.Inspect(name.String())
	if err != nil {
		return Result{}, err
	}
	if len(loaded) != 1 || loaded[0].ID != img.ID {
		return Result{}, errs.New(errs.Corrupt, "built-in image %s: its archive does not hold it", name.Familiar())
	}
	if asked && !platform.Runs(img.Platform()) {
		return Result{}, errs.New(errs.NotFound, "image %s: built in for %s, not for %s", name.Familiar(), img.Platform(), platform)
	}
	show.printf("%s: Built-in image %s", name.Tag, name.Repository())
	return Result{Name: name.String(), Digest: img.Manifest, ID: img.ID, New: was != img.ID}, nil
}

// warnings is where the user is told what is not an error.
func (o Options) warnings() io.Writer {
	if o.Out == nil {
		return io.Discard
	}
	return o.Out
}

// upToDate reports whether the store has just what name means at its registry,
// for this platform and whole.
func (p *Puller) upToDate(ctx context.Context, name image.Name, platform image.Platform) (Result, bool) {
	img, err := p.Images.Inspect(name.String())
	if err != nil || !platform.Runs(img.Platform()) || !p.Images.HasBlob(img.ID) || !p.Images.HasBlob(img.Manifest) {
		return Result{}, false
	}
	for _, l := range img.Layers {
		if !p.Layers.Has(l.DiffID) {
			return Result{}, false
		}
	}
	digest := name.Digest
	if digest == "" {
		digest = p.Client.Digest(ctx, name)
		if digest == "" || !slices.Contains(img.Digests, name.WithDigest(digest).Familiar()) {
			return Result{}, false
		}
	}
	return Result{Name: name.String(), Digest: digest, ID: img.ID}, true
}

// config returns the image configuration, from the store or the registry.
func (p *Puller) config(ctx context.Context, remote *registry.Remote, d image.Descriptor) ([]byte, error) {
	if data, err := p.Images.ReadBlob(d.Digest, d.Size); err == nil {
		return data, nil
	}
	r, err := remote.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close() // read only; nothing to lose
	return io.ReadAll(image.NewVerifier(r, d.Digest, d.Size))
}
