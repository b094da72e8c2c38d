package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"slices"

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
// A packed layer is seldom the archive byte for byte that it was unpacked from.
// Then the configuration, which names layers by digest, has to change with it:
// what is handed on is an image with another id.
func (p *Puller) whole(ctx context.Context, img *image.Image, lease *image.Lease, lacks func(image.Layer) (bool, error)) (*whole, error) {
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
		if !is {
			continue
		}
		changed = true
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

// pack makes a blob of an unpacked layer.
func (p *Puller) pack(ctx context.Context, diffID string, lease *image.Lease) (layer image.Layer, err error) {
	w, err := p.Images.CreateBlob(ctx, "")
	if err != nil {
		return layer, err
	}
	defer w.Discard() // after Commit it does nothing
	sum := sha256.New()
	z := gzip.NewWriter(w)
	if err := p.Layers.Archive(ctx, diffID, io.MultiWriter(sum, z)); err != nil {
		if errors.Is(err, errs.NotFound) {
			return layer, errs.Hint(errs.New(errs.NotFound, "layer %s: neither its blob nor its files are in the store", short(diffID)), "pull the image again")
		}
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
