package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// LayerSink is where layers are unpacked.
type LayerSink interface {
	// Has reports whether the layer is there, whole.
	Has(diffID string) bool
	// Unpack unpacks a layer from its uncompressed archive, whose digest it
	// verifies, and puts it on disk. It is idempotent.
	Unpack(ctx context.Context, diffID string, tar io.Reader) (unpacked int64, err error)
	// Size returns how much a layer takes unpacked.
	Size(diffID string) (int64, error)
	// Remove removes a layer that nobody uses.
	Remove(diffID string) error
}

// Limits of what an archive may hold beside layers.
const (
	maxFiles = 20_000
	maxJSON  = image.MaxManifest
)

// Loader reads archives into a store, one at a time.
type Loader struct {
	Images *image.Store
	Layers LayerSink
	// Unpacking, if set, is called before a layer is unpacked and returns what
	// to read it through (for progress) and what to call at its end.
	Unpacking func(l image.Layer, r io.Reader) (io.Reader, func())

	unpacked []string // layers, to be removed again if the rest fails
}

// found is what an archive turned out to hold.
type found struct {
	blobs map[string]string // path to digest of what was stored
	small map[string][]byte // path to content of index.json, manifest.json …
	links map[string]string
	files int
}

// Loaded is an image that an archive brought.
type Loaded struct {
	ID    string
	Names []image.Name // that the archive gave it
}

// Load reads an archive of images, compressed or not, and returns what it
// brought. platform chooses where the archive has an image for several.
func (l *Loader) Load(ctx context.Context, r io.Reader, platform image.Platform) (_ []Loaded, Err error) {
	lease, err := l.Images.Lease()
	if err != nil {
		return nil, err
	}
	defer func() { Err = l.end(lease, Err) }()
	plain, _, err := Decompress(r)
	if err != nil {
		return nil, archiveError(err)
	}
	defer plain.Close() // its errors come with Read
	f := &found{blobs: map[string]string{}, small: map[string][]byte{}, links: map[string]string{}}
	if err := l.read(ctx, plain, f, lease); err != nil {
		return nil, archiveError(err)
	}
	contents, err := l.contents(f, platform)
	if err != nil {
		return nil, archiveError(err)
	}
	if len(contents) == 0 {
		return nil, archiveError(f.nothing())
	}
	var loaded []Loaded
	for _, c := range contents {
		img, err := l.store(ctx, c, lease)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, Loaded{img.ID, c.Names})
	}
	return loaded, nil
}

// end ends the lease, and after a failure removes what was stored so far.
func (l *Loader) end(lease *image.Lease, err error) error {
	err = errors.Join(err, lease.Close())
	if err != nil {
		_ = l.Images.Sweep(l.unpacked, l.Layers.Remove) // the failure is what matters; a sweep comes again
	}
	l.unpacked = nil
	return err
}

func archiveError(err error) error {
	return errs.As(errs.KindOf(err), fmt.Errorf("archive: %w", err))
}

// nothing says why there is no image in what was read.
func (f *found) nothing() error {
	switch {
	case f.files == 0:
		return errs.New(errs.Invalid, "empty, or not a tar archive")
	case f.small["repositories"] != nil:
		return errs.New(errs.Unsupported, "written by a Docker older than 1.10; save it again with a present one")
	}
	return errs.Hint(errs.New(errs.Invalid, "neither manifest.json nor index.json in it: not an archive of images"),
		"an archive of a root file system becomes an image with `isle import`")
}

// read stores the files of the archive.
func (l *Loader) read(ctx context.Context, r io.Reader, f *found, lease *image.Lease) error {
	t := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			// What follows the archive's end is read too, or whoever writes it
			// into a pipe would be killed.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			if f.files == 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				return errs.New(errs.Invalid, "not a tar archive: %w", err)
			}
			return errs.As(errs.Corrupt, err)
		}
		name := clean(h.Name)
		if f.files++; f.files > maxFiles {
			return errs.New(errs.Invalid, "more than %d files", maxFiles)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			err = l.file(ctx, f, name, h.Size, t, lease)
		case tar.TypeSymlink:
			f.links[name] = clean(path.Join(path.Dir(name), h.Linkname))
		case tar.TypeLink:
			f.links[name] = clean(h.Linkname)
		}
		if err != nil {
			return err
		}
	}
}

// clean makes names comparable: no leading "./" or "/", no "..".
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (l *Loader) file(ctx context.Context, f *found, name string, size int64, r io.Reader, lease *image.Lease) error {
	base := path.Base(name)
	switch name {
	case "manifest.json", "index.json", "oci-layout", "repositories":
		if size > maxJSON {
			return errs.New(errs.Invalid, "%s: larger than %d bytes", name, maxJSON)
		}
		data, err := io.ReadAll(r)
		f.small[name] = data
		return err
	}
	digest := ""
	switch {
	case path.Dir(name) == "blobs/sha256" && image.CheckDigest("sha256:"+base) == nil:
		digest = "sha256:" + base
		if err := lease.Add(digest); err != nil {
			return err
		}
	case base == "VERSION", base == "json" && path.Dir(name) != ".":
		return nil // of Docker's first format
	case !strings.HasSuffix(base, ".tar") && !strings.HasSuffix(base, ".json") && !strings.HasSuffix(base, ".gz") && len(base) < 64:
		return nil // nothing that a manifest names
	}
	w, err := l.Images.CreateBlob(ctx, digest)
	if errors.Is(err, errs.Exists) {
		f.blobs[name] = digest
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Discard() // after Commit it does nothing
	if err := w.Restart(); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
		return err
	}
	if digest == "" {
		if err := lease.Add(w.Digest()); err != nil {
			return err
		}
	}
	f.blobs[name], err = w.Commit()
	return err
}

// blob returns the digest of what is stored for a name, links followed.
func (f *found) blob(name string) (string, error) {
	at := clean(name)
	for range 10 {
		if d, ok := f.blobs[at]; ok {
			return d, nil
		}
		to, ok := f.links[at]
		if !ok {
			// A link on the way: "aa/layer.tar" with "aa" a link to "bb".
			dir, ok := f.links[path.Dir(at)]
			if !ok {
				break
			}
			to = clean(dir + "/" + path.Base(at))
		}
		at = to
	}
	return "", errs.New(errs.Corrupt, "%q: named by its manifest, not in it", name)
}

// contents puts the images together.
func (l *Loader) contents(f *found, platform image.Platform) ([]image.Content, error) {
	named, err := f.dockerEntries()
	if err != nil {
		return nil, err
	}
	if data := f.small["index.json"]; data != nil {
		return l.fromLayout(data, platform, named)
	}
	var all []image.Content
	for _, e := range named {
		c, err := l.fromEntry(f, e)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// entry is an image in Docker's manifest.json.
type entry struct {
	Config   string
	RepoTags []string
	Layers   []string

	id string // digest of Config
}

func (f *found) dockerEntries() ([]entry, error) {
	data := f.small["manifest.json"]
	if data == nil {
		return nil, nil
	}
	var list []entry
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, errs.New(errs.Corrupt, "manifest.json: %w", err)
	}
	for i := range list {
		var err error
		if list[i].id, err = f.blob(list[i].Config); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// fromEntry makes the content of an image of `docker save`, with a manifest of
// our own, as that has none.
func (l *Loader) fromEntry(f *found, e entry) (c image.Content, err error) {
	if c.Config, err = l.Images.ReadBlob(e.id, maxJSON); err != nil {
		return c, err
	}
	img, err := image.ParseConfig(c.Config)
	if err != nil {
		return c, err
	}
	if len(img.Layers) != len(e.Layers) {
		return c, errs.New(errs.Corrupt, "image %s: %d layers in its configuration, %d in manifest.json", img.ID, len(img.Layers), len(e.Layers))
	}
	for i, name := range e.Layers {
		layer := image.Layer{DiffID: img.Layers[i].DiffID}
		if layer.Digest, err = f.blob(name); err != nil {
			return c, err
		}
		if layer.Size, layer.MediaType, err = l.describe(layer.Digest); err != nil {
			return c, err
		}
		c.Layers = append(c.Layers, layer)
	}
	if c.Manifest, err = image.MakeManifest(c.Config, c.Layers); err != nil {
		return c, err
	}
	c.Names, err = names(e.RepoTags)
	return c, err
}

// describe returns the size and the media type of a layer's blob.
func (l *Loader) describe(digest string) (int64, string, error) {
	r, err := l.Images.OpenBlob(digest)
	if err != nil {
		return 0, "", err
	}
	defer r.Close() //nolint:errcheck // read only; nothing to lose
	head := make([]byte, 6)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, "", err
	}
	return r.Size, layerType(detect(head[:n])), nil
}

func layerType(kind Compression) string {
	switch kind {
	case Gzip:
		return image.TypeOCILayerGzip
	case Zstd:
		return image.TypeOCILayerZstd
	default:
		return image.TypeOCILayer
	}
}

// names parses the names that an archive gives an image.
func names(list []string) ([]image.Name, error) {
	var out []image.Name
	for _, s := range list {
		n, err := image.ParseName(s)
		if err != nil {
			return nil, errs.As(errs.Corrupt, err)
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// fromLayout makes the contents of the images of an OCI image layout. What
// Docker's manifest.json beside it names is named too.
func (l *Loader) fromLayout(data []byte, platform image.Platform, named []entry) ([]image.Content, error) {
	_, ix, err := image.ParseManifest(data, image.TypeOCIIndex)
	if err != nil {
		return nil, err
	}
	var all []image.Content
	at := make(map[string]int) // by configuration
	for _, d := range ix.Manifests {
		c, err := l.fromDescriptor(d, platform, 0)
		if err != nil {
			return nil, err
		}
		id := image.DigestOf(c.Config)
		list := layoutNames(d)
		for _, e := range named {
			if e.id == id {
				list = append(list, e.RepoTags...)
			}
		}
		ns, err := names(list)
		if err != nil {
			return nil, err
		}
		if i, ok := at[id]; ok {
			for _, n := range ns {
				if !slices.Contains(all[i].Names, n) {
					all[i].Names = append(all[i].Names, n)
				}
			}
			continue
		}
		at[id] = len(all)
		c.Names = ns
		all = append(all, c)
	}
	return all, nil
}

// layoutNames returns the names in the annotations of an entry of index.json: a
// whole name. A mere tag, which some tools write, says nothing.
func layoutNames(d image.Descriptor) []string {
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		s := d.Annotations[key]
		if _, err := image.ParseName(s); err == nil && strings.ContainsAny(s, "/:") {
			return []string{s}
		}
	}
	return nil
}

func (l *Loader) fromDescriptor(d image.Descriptor, platform image.Platform, depth int) (c image.Content, err error) {
	if c.Manifest, err = l.Images.ReadBlob(d.Digest, image.MaxManifest); err != nil {
		return c, err
	}
	m, ix, err := image.ParseManifest(c.Manifest, d.MediaType)
	if err != nil {
		return c, err
	}
	if ix != nil {
		if depth > 2 {
			return c, errs.New(errs.Invalid, "index %s: more than three deep", d.Digest)
		}
		// Only what was saved can be had.
		ix.Manifests = slices.DeleteFunc(ix.Manifests, func(d image.Descriptor) bool { return !l.Images.HasBlob(d.Digest) })
		if d, err = ix.Select(platform); err != nil {
			return c, err
		}
		return l.fromDescriptor(d, platform, depth+1)
	}
	if c.Config, err = l.Images.ReadBlob(m.Config.Digest, m.Config.Size); err != nil {
		return c, err
	}
	img, err := image.ParseConfig(c.Config)
	if err != nil {
		return c, err
	}
	if err := image.MatchLayers(img, m); err != nil {
		return c, err
	}
	for i, d := range m.Layers {
		c.Layers = append(c.Layers, image.Layer{DiffID: img.Layers[i].DiffID, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size})
	}
	return c, nil
}

// store unpacks the layers of an image and records it.
func (l *Loader) store(ctx context.Context, c image.Content, lease *image.Lease) (*image.Image, error) {
	for i := range c.Layers {
		layer := &c.Layers[i]
		if err := lease.Add(layer.DiffID); err != nil {
			return nil, err
		}
		if err := l.unpack(ctx, *layer); err != nil {
			return nil, err
		}
		size, err := l.Layers.Size(layer.DiffID)
		if err != nil {
			return nil, err
		}
		layer.Unpacked = size
	}
	img, _, err := l.Images.Put(c)
	return img, err
}

func (l *Loader) unpack(ctx context.Context, layer image.Layer) error {
	if l.Layers.Has(layer.DiffID) {
		return nil
	}
	blob, err := l.Images.OpenBlob(layer.Digest)
	if err != nil {
		return err
	}
	defer blob.Close() //nolint:errcheck // read only; nothing to lose
	var r io.Reader = blob
	if l.Unpacking != nil {
		layer.Size = blob.Size
		var end func()
		r, end = l.Unpacking(layer, r)
		defer end()
	}
	plain, _, err := Decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close() // its errors come with Read
	if _, err = l.Layers.Unpack(ctx, layer.DiffID, plain); err == nil {
		l.unpacked = append(l.unpacked, layer.DiffID)
	}
	return err
}
