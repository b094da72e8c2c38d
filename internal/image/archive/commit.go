package archive

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// CommitOptions of Commit.
type CommitOptions struct {
	Base      string // id of the image whose layers the new one begins with
	Config    container.ImageConfig
	Author    string
	Message   string
	CreatedBy string // the container's command
	Now       time.Time
}

// Commit makes an image, without a name, of another one and a further layer,
// which r is.
func (l *Loader) Commit(ctx context.Context, r io.Reader, o CommitOptions) (_ *image.Image, Err error) {
	lease, err := l.Images.Lease()
	if err != nil {
		return nil, err
	}
	defer func() { Err = l.end(lease, Err) }()
	base, err := l.Images.Inspect(o.Base)
	if err != nil {
		return nil, err
	}
	// Not to be removed meanwhile.
	for i := range base.Layers {
		if err := lease.Add(base.Layers[i].Digest, base.Layers[i].DiffID); err != nil {
			return nil, err
		}
	}
	layer, err := l.spool(ctx, r, lease)
	if err != nil {
		return nil, archiveError(err)
	}
	c := image.Content{Layers: append(slices.Clone(base.Layers), layer)}
	if c.Config, err = image.MakeConfig(&image.Image{
		Created: o.Now, OS: base.OS, Arch: base.Arch, Variant: base.Variant, Author: o.Author, Comment: o.Message,
		Config: o.Config, Layers: c.Layers,
		History: append(slices.Clone(base.History), image.History{Created: o.Now, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Message}),
	}); err != nil {
		return nil, err
	}
	if c.Manifest, err = image.MakeManifest(c.Config, c.Layers); err != nil {
		return nil, err
	}
	return l.store(ctx, c, lease)
}

// ParseImageConfig reads what json.Marshal made of a container.ImageConfig.
func ParseImageConfig(data []byte) (c container.ImageConfig, err error) {
	if err := json.Unmarshal(data, &c); err != nil {
		return c, errs.New(errs.Invalid, "image configuration: %w", err)
	}
	return c, nil
}
