package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// whole is an image with everything that it takes to hand it on.
type whole struct {
	image.Content
	mediaType string // of the manifest
	packed    bool   // something was packed that the store does not keep
}

// whole puts together what is to be handed on of img: as it came, where that is
// all here or lacks says that it does not lack. A layer whose blob is not here is
// taken from another image that has it packed in another way, or else packed
// from its files. lease protects what the image names.
//
// With compress, a layer that is kept as it came from a commit or an archive,
// uncompressed, is compressed, and the store keeps it so from then on.
//
// A packed layer is seldom the archive byte for byte that it was unpacked from.
// Then the configuration, which names layers by digest, has to change with it:
// what is handed on is an image with another id.
func (p *Puller) whole(ctx context.Context, img *image.Image, lease *image.Lease, compress bool, lacks func(image.Layer) (bool, error)) (*whole, error) {
	w := new(whole)
	var err error
	if w.Config, err = p.Images.ReadBlob(img.ID, image.MaxConfig); err != nil {
		return nil, repairable(err)
	}
	w.Layers = slices.Clone(img.Layers)
	changed, same := false, true
	for i := range w.Layers {
		l := &w.Layers[i]
		is, err := lacks(*l)
		if err != nil {
			return nil, err
		}
		if !is && !(compress && isPlain(l.MediaType) && p.Images.HasBlob(l.Digest)) {
			continue
		}
		changed = true
		if !is {
			packed, err := p.compress(ctx, l, lease)
			if err != nil {
				return nil, err
			}
			packed.Unpacked = l.Unpacked
			*l = packed
			continue
		}
		if other, err := p.other(l.DiffID, lease); err != nil || other != nil {
			if err != nil {
				return nil, err
			}
			other.Unpacked = l.Unpacked
			*l = *other
			continue
		}
		packed, err := p.pack(ctx, l.DiffID, lease)
		if err != nil {
			return nil, err
		}
		packed.Unpacked = l.Unpacked
		same = same && packed.DiffID == l.DiffID
		*l = packed
	}
	if !changed {
		if w.Manifest, err = p.Images.ReadBlob(img.Manifest, image.MaxManifest); err == nil {
			m, _, err := image.ParseManifest(w.Manifest, "")
			if err != nil {
				return nil, err
			}
			if m == nil {
				return nil, errs.New(errs.Corrupt, "manifest %s: an index, not an image", img.Manifest)
			}
			w.mediaType = m.MediaType
			return w, nil
		}
		if !errors.Is(err, errs.NotFound) {
			return nil, repairable(err)
		}
	}
	if !same {
		if w.Config, err = withLayers(w.Config, w.Layers); err != nil {
			return nil, err
		}
	}
	w.mediaType = image.TypeOCIManifest
	if w.Manifest, err = image.MakeManifest(w.Config, w.Layers); err != nil {
		return nil, err
	}
	if !same {
		w.packed = true
		return w, nil
	}
	// The store keeps it, so that it need not be put together again.
	w.Replace = true
	_, _, err = p.Images.Put(w.Content)
	return w, err
}

// repairable adds what helps when content of the store is damaged or missing.
func repairable(err error) error {
	return errs.Hint(err, "`isle system check --repair` finds what is damaged and takes it out of use")
}

// other finds a blob of a layer as another image has it.
func (p *Puller) other(diffID string, lease *image.Lease) (*image.Layer, error) {
	list, err := p.Images.List()
	if err != nil {
		return nil, err
	}
	for _, img := range list {
		for _, l := range img.Layers {
			if l.DiffID != diffID || l.Digest == "" {
				continue
			}
			if err := lease.Add(l.Digest); err != nil {
				return nil, err
			}
			if p.Images.HasBlob(l.Digest) {
				return &l, nil
			}
		}
	}
	return nil, nil //nolint:nilnil // nothing found is no error
}

// isPlain reports whether a layer of a media type is not compressed.
func isPlain(mediaType string) bool {
	return strings.HasSuffix(mediaType, ".tar")
}

// compress makes a compressed blob of one that is not.
func (p *Puller) compress(ctx context.Context, l *image.Layer, lease *image.Lease) (image.Layer, error) {
	blob, err := p.Images.OpenBlob(l.Digest)
	if err != nil {
		return image.Layer{}, err
	}
	defer blob.Close() //nolint:errcheck // read only; nothing to lose
	return p.gzipped(ctx, lease, func(w io.Writer) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{&until{ctx, w}}, struct{ io.Reader }{blob}, make([]byte, 256<<10))
		if errors.Is(err, errs.Corrupt) {
			err = repairable(err)
		}
		return err
	})
}

// pack makes a blob of an unpacked layer.
func (p *Puller) pack(ctx context.Context, diffID string, lease *image.Lease) (image.Layer, error) {
	return p.gzipped(ctx, lease, func(w io.Writer) error {
		err := p.Layers.Archive(ctx, diffID, w)
		if errors.Is(err, errs.NotFound) {
			err = errs.Hint(errs.New(errs.NotFound, "layer %s: neither its blob nor its files are in the store", short(diffID)), "pull the image again")
		}
		return err
	})
}

// gzipped makes a compressed blob of the layer's archive that write writes.
func (p *Puller) gzipped(ctx context.Context, lease *image.Lease, write func(io.Writer) error) (layer image.Layer, err error) {
	w, err := p.Images.CreateBlob(ctx, "")
	if err != nil {
		return layer, err
	}
	defer w.Discard() // after Commit it does nothing
	sum := sha256.New()
	z := gzip.NewWriter(w)
	if err := write(io.MultiWriter(sum, z)); err != nil {
		return layer, err
	}
	if err := z.Close(); err != nil {
		return layer, err
	}
	layer = image.Layer{DiffID: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Digest: w.Digest(), Size: w.Size(), MediaType: image.TypeOCILayerGzip}
	if err := lease.Add(layer.Digest); err != nil {
		return layer, err
	}
	_, err = w.Commit()
	return layer, err
}

// withLayers returns a configuration with other diff ids; all else in it stays.
func withLayers(config []byte, layers []image.Layer) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(config, &all); err != nil {
		return nil, errs.New(errs.Corrupt, "image configuration %s: %w", image.DigestOf(config), err)
	}
	ids := make([]string, len(layers))
	for i, l := range layers {
		ids[i] = l.DiffID
	}
	root, err := json.Marshal(map[string]any{"type": "layers", "diff_ids": ids})
	if err != nil {
		return nil, err
	}
	all["rootfs"] = root
	return json.Marshal(all)
}
