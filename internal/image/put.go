package image

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

// Content is an image that is to be recorded. Its layers are unpacked and on
// disk already.
type Content struct {
	Manifest []byte
	Config   []byte
	Layers   []Layer // as the manifest has them, lowest first, with diff ids
	Names    []Name  // each with a tag or a digest, not both
	// Replace records the image as it is here also where the store has all of it
	// in another packing, which goes with the next sweep.
	Replace bool
}

// Put records an image under names and returns it, and whether any of it was
// new: the image, or what a name meant. A name that belonged to another image
// moves. When Put returns, the image survives a power loss. Put is idempotent.
func (s *Store) Put(c Content) (img *Image, added bool, Err error) {
	img, err := ParseConfig(c.Config)
	if err != nil {
		return nil, false, err
	}
	man, _, err := ParseManifest(c.Manifest, "")
	switch {
	case err != nil:
		return nil, false, err
	case man == nil:
		return nil, false, errs.New(errs.Invalid, "manifest %s: an index, not an image", DigestOf(c.Manifest))
	case man.Config.Digest != img.ID:
		return nil, false, errs.New(errs.Corrupt, "manifest %s: its configuration is %s, not %s", DigestOf(c.Manifest), man.Config.Digest, img.ID)
	}
	if err := MatchLayers(img, man); err != nil {
		return nil, false, err
	}
	for i, l := range c.Layers {
		if i >= len(img.Layers) || l.DiffID != img.Layers[i].DiffID || l.Digest != man.Layers[i].Digest {
			return nil, false, errs.New(errs.Invalid, "image %s: layer %d is not that of its configuration", img.ID, i)
		}
		img.Size += l.Unpacked
	}
	if len(c.Layers) != len(img.Layers) {
		return nil, false, errs.New(errs.Invalid, "image %s: %d layers, its configuration has %d", img.ID, len(c.Layers), len(img.Layers))
	}
	img.Layers = c.Layers
	img.Stored = time.Now().UTC().Truncate(time.Second)

	// The blobs come before the lock: their writer may have to wait for
	// another one.
	lease, err := s.Lease()
	if err != nil {
		return nil, false, err
	}
	defer func() { Err = errors.Join(Err, lease.Close()) }()
	img.Manifest = DigestOf(c.Manifest)
	if err := lease.Add(img.Manifest, img.ID); err != nil {
		return nil, false, err
	}
	for _, b := range [][]byte{c.Config, c.Manifest} {
		if _, err := s.PutBlob(b); err != nil {
			return nil, false, err
		}
	}

	lock, err := s.lock()
	if err != nil {
		return nil, false, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	old, err := s.byID(img.ID)
	switch {
	case err == nil && s.complete(old) && !c.Replace:
		// The same configuration may come with layers packed in another way.
		// What is there can be handed on; what came now may lack blobs, as
		// layers that are unpacked already are not fetched.
		img = old
	case err == nil, errors.Is(err, errs.Corrupt):
		err = state.WriteJSON(s.idFile(img.ID), img, true)
	case errors.Is(err, fs.ErrNotExist):
		added = true
		err = state.WriteJSON(s.idFile(img.ID), img, true)
	}
	if err != nil {
		return nil, false, err
	}
	for _, n := range c.Names {
		changed, err := s.setName(n, img)
		if err != nil {
			return nil, false, err
		}
		added = added || changed
	}
	names, err := s.names()
	if err != nil {
		return nil, false, err
	}
	if c.Replace {
		// A name's record has the manifest, too.
		for _, n := range names[img.ID] {
			if _, err := s.setName(n, img); err != nil {
				return nil, false, err
			}
		}
	}
	if err := s.writeIndex(); err != nil {
		return nil, false, err
	}
	img.setNames(names[img.ID])
	if len(c.Names) > 0 {
		img.Ref = c.Names[0].String()
	}
	return img, added, nil
}

// MatchLayers returns a Corrupt error unless the configuration img and the
// manifest have as many layers.
func MatchLayers(img *Image, man *Manifest) error {
	if len(img.Layers) != len(man.Layers) {
		return errs.New(errs.Corrupt, "image %s: %d layers in its configuration, %d in its manifest", img.ID, len(img.Layers), len(man.Layers))
	}
	return nil
}

// complete reports whether all blobs of an image are in the store.
func (s *Store) complete(img *Image) bool {
	if !s.HasBlob(img.Manifest) {
		return false
	}
	return !slices.ContainsFunc(img.Layers, func(l Layer) bool { return !s.HasBlob(l.Digest) })
}

// setName makes n mean img and reports whether it did not before. The caller
// holds the lock.
func (s *Store) setName(n Name, img *Image) (changed bool, err error) {
	if (n.Tag == "") == (n.Digest == "") {
		return false, errs.New(errs.Invalid, "name %q: neither just a tag nor just a digest", n)
	}
	name := n.String()
	rec := encodeRef(name, img)
	was, err := s.byName(name)
	if err == nil && was.ID == img.ID && string(encodeRef(name, was)) == string(rec) {
		return false, nil
	}
	changed = err != nil || was.ID != img.ID
	return changed, state.WriteFile(s.refFile(name), rec, true)
}

// Tag gives the image that source means (as in Resolve) the further name target.
func (s *Store) Tag(source, target string) (Err error) {
	n, err := ParseName(target)
	if err != nil {
		return err
	}
	if n.Digest != "" {
		return errs.New(errs.Invalid, "image reference %q: refusing to create a tag with a digest reference", target)
	}
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	short, err := s.Resolve(source)
	if err != nil {
		return err
	}
	img, err := s.byID(short.ID)
	if err != nil {
		return err
	}
	if _, err := s.setName(n, img); err != nil {
		return err
	}
	return s.writeIndex()
}

// dropName removes a name. The caller holds the lock.
func (s *Store) dropName(n Name) error {
	err := os.Remove(s.refFile(n.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
