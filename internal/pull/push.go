package pull

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registry"
)

// uploads is how many layers are sent at once, Docker's default.
const uploads = 5

// PushOptions of a push.
type PushOptions struct {
	Ref      string
	Platform string // os/arch[/variant] that the image must be for; "" is any
	AllTags  bool
	Quiet    bool
	Out      *os.File // for the progress
	Progress Progress
}

// Pushed is a name that a registry has now.
type Pushed struct {
	Name   string `json:"name"`   // the resolved name
	Digest string `json:"digest"` // of the manifest
	Size   int64  `json:"size"`   // of the manifest
}

// PushMain is the role `isled push [options] REF`.
func PushMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		var o PushOptions
		fs.StringVar(&o.Platform, "platform", "", "os/arch[/variant] that the image must be for")
		fs.BoolVar(&o.AllTags, "all-tags", false, "push all tags of the repository")
		fs.BoolVar(&o.Quiet, "quiet", false, "show no progress")
		fs.StringVar((*string)(&o.Progress), "progress", string(Auto), "how to show progress: auto, tty, plain or none")
		return func(ctx context.Context, p *Puller) (any, error) {
			if fs.NArg() != 1 {
				return nil, errs.New(errs.Invalid, "push: wants one image reference, got %d", fs.NArg())
			}
			o.Ref, o.Out = fs.Arg(0), os.Stderr
			pushed, err := p.Push(ctx, o)
			return struct {
				Pushed []Pushed `json:"pushed"`
			}{pushed}, err
		}
	})
}

// Push sends what ref names to its registry, or all local tags of its
// repository.
func (p *Puller) Push(ctx context.Context, o PushOptions) (_ []Pushed, Err error) {
	name, err := image.ParseName(o.Ref)
	if err != nil {
		return nil, err
	}
	platform, err := image.ParsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	defer func() { Err = interrupted(ctx, "push "+name.Familiar(), Err) }()
	if name.Digest != "" {
		return nil, errs.New(errs.Invalid, "image reference %q: cannot push a digest reference", o.Ref)
	}
	if o.AllTags && o.Ref != name.Repository() && o.Ref != name.FamiliarName() {
		return nil, errs.New(errs.Invalid, "image reference %q: tag can't be used with --all-tags/-a", o.Ref)
	}
	list, err := p.Images.List()
	if err != nil {
		return nil, err
	}
	var names []image.Name
	others := false
	for _, img := range list {
		for _, t := range img.Tags {
			n, err := image.ParseName(t)
			if err != nil || n.Repository() != name.Repository() {
				continue
			}
			if others = true; o.AllTags || n.Tag == name.Tag {
				names = append(names, n)
			}
		}
	}
	switch {
	case len(names) > 0:
	case others:
		return nil, errs.New(errs.NotFound, "tag does not exist: %s", name.Familiar())
	default:
		return nil, errs.New(errs.NotFound, "An image does not exist locally with the tag: %s", name.FamiliarName())
	}
	slices.SortFunc(names, func(a, b image.Name) int { return cmp.Compare(a.Tag, b.Tag) })
	target, err := p.Client.Target(ctx, name)
	if err != nil {
		return nil, err
	}
	target.Sessions = p.Images
	how := o.Progress
	if o.Quiet {
		how = Quiet
	}
	var all []Pushed
	for i, n := range names {
		img, err := p.Images.Inspect(n.String())
		if err != nil {
			return all, err
		}
		if o.Platform != "" && !platform.Runs(img.Platform()) {
			return all, errs.New(errs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", n.Familiar(), o.Platform)
		}
		show := newDisplay(o.Out, how)
		if i == 0 {
			show.printf("The push refers to repository [%s]", name.Repository())
		}
		one, err := p.push(ctx, n, img, target, show, list)
		show.flush()
		if err != nil {
			return all, err
		}
		show.printf("%s: digest: %s size: %d", n.Tag, one.Digest, one.Size)
		all = append(all, one)
	}
	return all, nil
}

// push sends one image under one name.
func (p *Puller) push(ctx context.Context, name image.Name, img *image.Image, target *registry.Target, show *display, known []image.Image) (_ Pushed, Err error) {
	lease, err := p.Images.Lease()
	if err != nil {
		return Pushed{}, err
	}
	packed := false
	defer func() {
		Err = errors.Join(Err, lease.Close())
		if packed {
			_ = p.Images.Sweep(nil, nil) // what was packed for this push; a sweep comes again
		}
	}()
	protect := []string{img.ID, img.Manifest}
	for _, l := range img.Layers {
		protect = append(protect, l.Digest, l.DiffID)
	}
	if err := lease.Add(protect...); err != nil {
		return Pushed{}, err
	}
	s := &sender{p: p, target: target, name: name, from: mountSources(known, target), has: map[string]bool{}}
	for _, l := range img.Layers {
		s.lines = append(s.lines, show.add(l.DiffID, "Preparing"))
	}
	// What the registry has, or another repository of it, need not be here.
	lacks := func(l image.Layer) (bool, error) {
		if p.Images.HasBlob(l.Digest) {
			return false, nil
		}
		there, _, err := s.there(ctx, l.Digest)
		return !there, err
	}
	whole, err := p.whole(ctx, img, lease, true, lacks)
	if err != nil {
		return Pushed{}, err
	}
	packed = whole.packed
	if err := s.layers(ctx, whole.Layers); err != nil {
		return Pushed{}, err
	}
	config := image.Descriptor{Digest: image.DigestOf(whole.Config), Size: int64(len(whole.Config))}
	if has, err := target.Has(ctx, config.Digest); err != nil {
		return Pushed{}, err
	} else if !has {
		if err := target.Upload(ctx, config, memory(whole.Config), func(int64) {}); err != nil {
			return Pushed{}, err
		}
	}
	if err := target.PutManifest(ctx, name.Tag, whole.mediaType, whole.Manifest); err != nil {
		return Pushed{}, err
	}
	digest := image.DigestOf(whole.Manifest)
	if image.DigestOf(whole.Config) == img.ID {
		if err := p.Images.AddName(img.ID, name.WithDigest(digest)); err != nil {
			return Pushed{}, err
		}
	}
	return Pushed{Name: name.String(), Digest: digest, Size: int64(len(whole.Manifest))}, nil
}

// sender sends the layers of one image.
type sender struct {
	p      *Puller
	target *registry.Target
	name   image.Name
	lines  []*line
	from   map[string][]string // repositories of the same registry, by layer

	mu  sync.Mutex
	has map[string]bool // what the registry is known to have by now
}

// there makes sure that the repository has a blob without sending it, if that
// can be. from is the repository that it was taken from, "" if it was there.
func (s *sender) there(ctx context.Context, digest string) (is bool, from string, err error) {
	s.mu.Lock()
	has := s.has[digest]
	s.mu.Unlock()
	if has {
		return true, "", nil
	}
	is, err = s.target.Has(ctx, digest)
	for _, repo := range s.from[digest] {
		if is || err != nil {
			break
		}
		if is, err = s.target.Mount(ctx, digest, repo); is {
			from = repo
		}
	}
	if is {
		s.mu.Lock()
		s.has[digest] = true
		s.mu.Unlock()
	}
	return is, from, err
}

// layers sends what the repository has not.
func (s *sender) layers(ctx context.Context, layers []image.Layer) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	sending := map[string]bool{}
	for i, l := range layers {
		if sending[l.Digest] {
			s.lines[i].end("Layer already exists") // a layer may be in an image twice
			continue
		}
		sending[l.Digest] = true
		g.Go(func() error { return s.layer(ctx, l, s.lines[i]) })
	}
	return g.Wait()
}

func (s *sender) layer(ctx context.Context, l image.Layer, line *line) error {
	is, from, err := s.there(ctx, l.Digest)
	switch {
	case err != nil:
		return err
	case is && from != "":
		line.end("Mounted from " + from)
		return nil
	case is:
		line.end("Layer already exists")
		return nil
	}
	blob, err := s.p.Images.OpenBlob(l.Digest)
	if err != nil {
		return err
	}
	defer blob.Close() //nolint:errcheck // read only; nothing to lose
	// A damaged blob is found here and not by the registry, after all of it was
	// sent.
	var n int64
	check := readFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		k, err := blob.Read(b)
		n += int64(k)
		line.bar("Verifying", n, blob.Size)
		return k, err
	})
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, check, make([]byte, 256<<10)); err != nil {
		return repairable(err)
	}
	err = s.target.Upload(ctx, image.Descriptor{Digest: l.Digest, Size: blob.Size}, func(offset int64) (io.ReadCloser, error) {
		return s.p.Images.OpenBlobAt(l.Digest, offset)
	}, func(n int64) { line.bar("Pushing", n, blob.Size) })
	if err != nil {
		return err
	}
	line.end("Pushed")
	return nil
}

// mountSources are the repositories of target's registry that should have a
// layer, as images with it have names with a digest there.
func mountSources(known []image.Image, target *registry.Target) map[string][]string {
	const most = 3
	out := map[string][]string{}
	for _, img := range known {
		for _, d := range img.Digests {
			n, err := image.ParseName(d)
			if err != nil {
				continue
			}
			repo, ok := target.Beside(n)
			if !ok {
				continue
			}
			for _, l := range img.Layers {
				if at := out[l.Digest]; len(at) < most && !slices.Contains(at, repo) {
					out[l.Digest] = append(at, repo)
				}
			}
		}
	}
	return out
}

func memory(data []byte) registry.Source {
	return func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data[min(offset, int64(len(data))):])), nil
	}
}
