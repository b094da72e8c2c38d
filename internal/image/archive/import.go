package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// ImportOptions of Import.
type ImportOptions struct {
	Name     *image.Name // nil: none
	Changes  []string    // Dockerfile instructions
	Message  string
	Platform image.Platform
	Now      time.Time
}

// Import makes an image of one layer from the archive of a root file system.
func (l *Loader) Import(ctx context.Context, r io.Reader, o ImportOptions) (_ *image.Image, Err error) {
	var img image.Image
	for _, c := range o.Changes {
		if err := image.ApplyChange(&img.Config, c); err != nil {
			return nil, err
		}
	}
	if o.Name != nil && o.Name.Digest != "" {
		return nil, errs.New(errs.Invalid, "image reference %q: cannot import digest reference", o.Name.Familiar())
	}
	lease, err := l.Images.Lease()
	if err != nil {
		return nil, err
	}
	defer func() { Err = l.end(lease, Err) }()
	layer, err := l.spool(ctx, r, lease)
	if err != nil {
		return nil, archiveError(err)
	}
	c := image.Content{Layers: []image.Layer{layer}}
	if c.Config, err = image.MakeConfig(&image.Image{
		Created: o.Now, OS: o.Platform.OS, Arch: o.Platform.Arch, Variant: o.Platform.Variant, Comment: o.Message,
		Config: img.Config, Layers: c.Layers, History: []image.History{{Created: o.Now, Comment: o.Message}},
	}); err != nil {
		return nil, err
	}
	if c.Manifest, err = image.MakeManifest(c.Config, c.Layers); err != nil {
		return nil, err
	}
	if o.Name != nil {
		c.Names = []image.Name{*o.Name}
	}
	return l.store(ctx, c, lease)
}

// spool stores an archive as the blob of a layer, as it is if registries know
// its compression and else uncompressed.
func (l *Loader) spool(ctx context.Context, r io.Reader, lease *image.Lease) (layer image.Layer, err error) {
	w, err := l.Images.CreateBlob(ctx, "")
	if err != nil {
		return layer, err
	}
	defer w.Discard() // after Commit it does nothing
	source := io.TeeReader(&canceled{ctx, r}, w)
	plain, kind, err := Decompress(source)
	if err != nil {
		return layer, err
	}
	defer plain.Close() // its errors come with Read
	if kind != None && kind != Gzip && kind != Zstd {
		return l.spoolPlain(ctx, plain, lease)
	}
	sum := sha256.New()
	size, err := io.CopyBuffer(sum, struct{ io.Reader }{plain}, make([]byte, 256<<10))
	if err != nil {
		return layer, err
	}
	if size == 0 {
		return layer, errs.New(errs.Invalid, "empty")
	}
	if _, err := io.Copy(io.Discard, source); err != nil { // what follows the compressed data
		return layer, err
	}
	layer = image.Layer{DiffID: "sha256:" + hex.EncodeToString(sum.Sum(nil)), MediaType: layerType(kind), Size: w.Size(), Digest: w.Digest()}
	if err := lease.Add(layer.Digest, layer.DiffID); err != nil {
		return layer, err
	}
	_, err = w.Commit()
	return layer, err
}

// spoolPlain is spool for what has to be stored uncompressed.
func (l *Loader) spoolPlain(ctx context.Context, plain io.Reader, lease *image.Lease) (layer image.Layer, err error) {
	w, err := l.Images.CreateBlob(ctx, "")
	if err != nil {
		return layer, err
	}
	defer w.Discard() // after Commit it does nothing
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{plain}, make([]byte, 256<<10)); err != nil {
		return layer, err
	}
	d := w.Digest()
	if err := lease.Add(d); err != nil {
		return layer, err
	}
	layer = image.Layer{DiffID: d, Digest: d, MediaType: image.TypeOCILayer, Size: w.Size()}
	_, err = w.Commit()
	return layer, err
}

// canceled is a reader that ends with its context.
type canceled struct {
	ctx context.Context
	r   io.Reader
}

func (c *canceled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
