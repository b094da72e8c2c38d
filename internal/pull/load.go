package pull

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/archive"
)

// Loaded is what a load brought.
type Loaded struct {
	Loaded []string `json:"loaded"` // names as Docker shows them, ids of images without one
	IDs    []string `json:"ids"`
}

// LoadMain is the role `isled load [options]`: it reads an archive of images
// from its standard input or a file.
func LoadMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		input := fs.String("input", "", "file to read instead of the standard input")
		platform := fs.String("platform", "", "os/arch[/variant] to choose where there are several")
		quiet := fs.Bool("quiet", false, "show no progress")
		how := fs.String("progress", string(Auto), "how to show progress: auto, tty, plain or none")
		return func(ctx context.Context, p *Puller) (any, error) {
			want, err := image.ParsePlatform(*platform)
			if err != nil {
				return nil, err
			}
			in, err := source(*input)
			if err != nil {
				return nil, err
			}
			defer in.Close() // read only; nothing to lose
			if *quiet {
				*how = string(Quiet)
			}
			return p.Load(ctx, in, want, os.Stderr, Progress(*how))
		}
	})
}

// source opens what to read, "" or "-" being the standard input.
func source(path string) (*os.File, error) {
	if path == "" || path == "-" {
		return os.Stdin, nil
	}
	return os.Open(path)
}

// Load reads an archive of images.
func (p *Puller) Load(ctx context.Context, in io.Reader, platform image.Platform, out *os.File, how Progress) (*Loaded, error) {
	show := newDisplay(out, how)
	defer show.flush()
	l := &archive.Loader{Images: p.Images, Layers: p.Layers, Unpacking: show.unpacking}
	loaded, err := l.Load(ctx, in, platform)
	if err != nil {
		return nil, interrupted(ctx, "load", err)
	}
	res := &Loaded{Loaded: []string{}, IDs: []string{}}
	for _, one := range loaded {
		res.IDs = append(res.IDs, one.ID)
		if len(one.Names) == 0 {
			res.Loaded = append(res.Loaded, one.ID)
		}
		for _, n := range one.Names {
			res.Loaded = append(res.Loaded, n.Familiar())
		}
	}
	return res, nil
}

// unpacking shows the unpacking of a layer; see archive.Loader.
func (d *display) unpacking(l image.Layer, r io.Reader) (io.Reader, func()) {
	if !d.tty {
		return r, func() {}
	}
	line := d.add(l.DiffID, "Loading layer")
	var n int64
	return readFunc(func(p []byte) (int, error) {
		k, err := r.Read(p)
		n += int64(k)
		line.bar("Loading layer", n, l.Size)
		return k, err
	}), func() { line.end("Load complete") }
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// ImportMain is the role `isled import [options] [NAME]`: it makes an image of
// the archive of a root file system.
func ImportMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		input := fs.String("input", "", "file to read instead of the standard input")
		from := fs.String("url", "", "HTTP address to read instead of the standard input")
		platform := fs.String("platform", "", "os/arch[/variant] of the image")
		message := fs.String("message", "", "comment of the image")
		var changes list
		fs.Var(&changes, "change", "Dockerfile instruction to apply")
		return func(ctx context.Context, p *Puller) (any, error) {
			o := archive.ImportOptions{Changes: changes, Message: *message, Now: time.Now().UTC().Truncate(time.Second)}
			var err error
			if o.Platform, err = image.ParsePlatform(*platform); err != nil {
				return nil, err
			}
			switch fs.NArg() {
			case 0:
			case 1:
				n, err := image.ParseName(fs.Arg(0))
				if err != nil {
					return nil, err
				}
				o.Name = &n
			default:
				return nil, errs.New(errs.Invalid, "import: wants one image reference, got %d", fs.NArg())
			}
			if *from != "" {
				body, err := p.Client.Fetch(ctx, *from)
				if err != nil {
					return nil, interrupted(ctx, "import", err)
				}
				defer body.Close() // read only; nothing to lose
				return p.Import(ctx, body, o)
			}
			in, err := source(*input)
			if err != nil {
				return nil, err
			}
			defer in.Close() // read only; nothing to lose
			return p.Import(ctx, in, o)
		}
	})
}

// Import makes an image of the archive of a root file system.
func (p *Puller) Import(ctx context.Context, in io.Reader, o archive.ImportOptions) (Result, error) {
	l := &archive.Loader{Images: p.Images, Layers: p.Layers}
	img, err := l.Import(ctx, in, o)
	if err != nil {
		return Result{}, interrupted(ctx, "import", err)
	}
	return Result{Name: img.Ref, Digest: img.Manifest, ID: img.ID, New: true}, nil
}

// interrupted says so of an error that came of the end of ctx.
func interrupted(ctx context.Context, what string, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return errs.New(errs.Canceled, "%s: interrupted", what)
	}
	return err
}
