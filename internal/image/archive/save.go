package archive

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"io"
	"time"

	"github.com/isle-engine/isle/internal/image"
)

// Saved is an image to be saved, with the names that it is saved under. All its
// blobs are in the store.
type Saved struct {
	image.Content
	MediaType string // of Manifest
}

// savedEntry is an image in Docker's manifest.json.
type savedEntry struct {
	Config       string
	RepoTags     []string
	Layers       []string
	LayerSources map[string]layerSource `json:",omitempty"`
}

// layerSource describes a layer, by its diff id, as Docker since 25 does.
type layerSource struct {
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	Digest    string `json:"digest"`
}

// Save writes images as `docker save` since Docker 25 does: an OCI image layout
// with manifest.json beside it, which any version of Docker and Podman reads.
// Layers are written as they are packed in the store. The same images give the
// same bytes. written is told of progress.
func Save(store *image.Store, images []Saved, out io.Writer, written func(n int64)) error {
	b := bufio.NewWriterSize(out, 1<<20)
	s := &saver{store: store, t: tar.NewWriter(b), done: map[string]bool{}, written: written}
	if err := s.save(images); err != nil {
		return err
	}
	if err := s.t.Close(); err != nil {
		return err
	}
	return b.Flush()
}

// epoch is the time of all files, as it is Docker's.
var epoch = time.Unix(0, 0)

type saver struct {
	store   *image.Store
	t       *tar.Writer
	done    map[string]bool
	size    int64
	written func(int64)
}

func (s *saver) save(images []Saved) error {
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := s.t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
			return err
		}
	}
	index := image.Index{SchemaVersion: 2, MediaType: image.TypeOCIIndex, Manifests: []image.Descriptor{}}
	entries := []savedEntry{}
	repositories := map[string]map[string]string{} // name to tag to the top layer
	for _, img := range images {
		entry, err := s.image(img)
		if err != nil {
			return err
		}
		d := image.Descriptor{MediaType: img.MediaType, Digest: image.DigestOf(img.Manifest), Size: int64(len(img.Manifest))}
		for _, n := range img.Names {
			entry.RepoTags = append(entry.RepoTags, n.Familiar())
			named := d
			named.Annotations = map[string]string{"io.containerd.image.name": n.String(), "org.opencontainers.image.ref.name": n.Tag}
			index.Manifests = append(index.Manifests, named)
			if top := len(img.Layers) - 1; top >= 0 {
				if repositories[n.FamiliarName()] == nil {
					repositories[n.FamiliarName()] = map[string]string{}
				}
				repositories[n.FamiliarName()][n.Tag] = digestHex(img.Layers[top].DiffID)
			}
		}
		if len(img.Names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
		entries = append(entries, entry)
	}
	for _, f := range []struct {
		name string
		v    any
	}{
		{"index.json", index},
		{"manifest.json", entries},
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
		{"repositories", repositories},
	} {
		if f.name == "repositories" && len(repositories) == 0 {
			continue
		}
		data, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := s.file(f.name, data); err != nil {
			return err
		}
	}
	return nil
}

// image writes the blobs of an image and returns its entry in manifest.json.
func (s *saver) image(img Saved) (savedEntry, error) {
	e := savedEntry{Config: blobName(image.DigestOf(img.Config)), Layers: []string{}, LayerSources: map[string]layerSource{}}
	for _, l := range img.Layers {
		if err := s.blob(l.Digest); err != nil {
			return e, err
		}
		e.Layers = append(e.Layers, blobName(l.Digest))
		e.LayerSources[l.DiffID] = layerSource{l.MediaType, l.Size, l.Digest}
	}
	for _, data := range [][]byte{img.Config, img.Manifest} {
		if d := image.DigestOf(data); !s.done[d] {
			s.done[d] = true
			if err := s.file(blobName(d), data); err != nil {
				return e, err
			}
		}
	}
	return e, nil
}

func blobName(digest string) string { return "blobs/sha256/" + digestHex(digest) }

func digestHex(digest string) string { return digest[len("sha256:"):] }

// blob copies a blob of the store, which is verified on the way.
func (s *saver) blob(digest string) error {
	if s.done[digest] {
		return nil
	}
	s.done[digest] = true
	r, err := s.store.OpenBlob(digest)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only; nothing to lose
	if err := s.t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobName(digest), Mode: 0o644, Size: r.Size, ModTime: epoch}); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{&told{s}}, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return err
}

// told writes to the archive and tells how much.
type told struct{ s *saver }

func (w *told) Write(p []byte) (int, error) {
	n, err := w.s.t.Write(p)
	w.s.size += int64(n)
	w.s.written(w.s.size)
	return n, err
}

func (s *saver) file(name string, data []byte) error {
	if err := s.t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}); err != nil {
		return err
	}
	_, err := s.t.Write(data)
	return err
}
