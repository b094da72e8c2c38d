package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/isle-engine/isle/internal/state"
)

// Annotations of index.json by which other tools find an image.
const (
	annotationRef  = "org.opencontainers.image.ref.name"
	annotationName = "io.containerd.image.name"
)

// writeIndex derives index.json from the records. The caller holds the lock.
func (s *Store) writeIndex() error {
	ids, err := s.ids()
	if err != nil {
		return err
	}
	slices.Sort(ids)
	names, err := s.names()
	if err != nil {
		return err
	}
	ix := Index{SchemaVersion: 2, MediaType: TypeOCIIndex, Manifests: []Descriptor{}}
	for _, id := range ids {
		img, err := s.byID(id)
		if err != nil {
			continue // a damaged record is reported by who asks for the image
		}
		d, ok := s.describe(img)
		if !ok {
			continue
		}
		named := false
		for _, n := range names[id] {
			if n.Tag == "" {
				continue
			}
			named = true
			d.Annotations = map[string]string{annotationRef: n.String(), annotationName: n.String()}
			ix.Manifests = append(ix.Manifests, d)
		}
		if !named {
			ix.Manifests = append(ix.Manifests, d)
		}
	}
	data, err := json.Marshal(ix)
	if err != nil {
		return err
	}
	path := s.dir + "/index.json"
	if old, err := state.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	return state.WriteFile(path, data, true)
}

// describe returns the descriptor of an image's manifest, unless a blob that it
// names is not here: other tools could not read the image.
func (s *Store) describe(img *Image) (Descriptor, bool) {
	fi, err := os.Lstat(s.blobFile(img.Manifest))
	if errors.Is(err, fs.ErrNotExist) || err != nil || !s.complete(img) {
		return Descriptor{}, false
	}
	p := img.Platform()
	d := Descriptor{MediaType: TypeOCIManifest, Digest: img.Manifest, Size: fi.Size(), Platform: &p}
	if data, err := s.ReadBlob(img.Manifest, MaxManifest); err == nil {
		if m, _, err := ParseManifest(data, ""); err == nil && m != nil {
			d.MediaType = m.MediaType
		}
	}
	return d, true
}
