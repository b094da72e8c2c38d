package image

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

// Store is the images of one user. Its methods may be called from several
// goroutines and processes at once.
type Store struct {
	dir string
}

// lockTimeout is how long a change waits for another one. The lock is held for
// milliseconds; a holder that is stopped must not stop everybody for ever.
const lockTimeout = time.Minute

// Open returns the store in dir. It does no I/O; the directory is made by the
// first who writes to it.
func Open(dir string) *Store { return &Store{dir} }

func (s *Store) refFile(name string) string { return s.dir + "/refs/" + escapeName(name) }
func (s *Store) idFile(id string) string    { return s.dir + "/ids/" + digestHex(id) }
func (s *Store) blobFile(d string) string   { return s.dir + "/blobs/sha256/" + digestHex(d) }
func (s *Store) tmp(name string) string     { return s.dir + "/tmp/" + name }

// lock takes the store's lock and makes the store's directories.
func (s *Store) lock() (*state.Lock, error) {
	l, err := state.LockFile(s.dir+"/lock", true, lockTimeout)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.create(); err == nil {
			l, err = state.LockFile(s.dir+"/lock", true, lockTimeout)
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(s.dir + "/oci-layout"); err != nil {
		// Also for a store whose creation was cut short.
		if err := s.create(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		if err := state.WriteFile(s.dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), true); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

func (s *Store) create() error {
	for _, d := range []string{"/blobs/sha256", "/refs", "/ids", "/tmp"} {
		if err := os.MkdirAll(s.dir+d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// Resolve finds an image by name, name@digest, id or a unique beginning of its
// id, and fills what a container needs to start (see [Image]). The error is
// NotFound if there is none.
func (s *Store) Resolve(ref string) (*Image, error) {
	name, nameErr := parseName(ref)
	if nameErr == "" {
		img, err := s.byName(storedName(name))
		if !errors.Is(err, fs.ErrNotExist) {
			return img, err
		}
	}
	if isID(ref) {
		id, err := s.findID(ref)
		if err == nil {
			return s.byID(id)
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errs.NotFound) {
			return nil, err
		}
	} else if nameErr != "" {
		return nil, errs.New(errs.Invalid, "image reference %q: %s", ref, nameErr)
	}
	return nil, noSuch(ref)
}

// noSuch is the error for an image that is not here, in Docker's words.
func noSuch(ref string) error {
	if n, why := parseName(ref); why == "" {
		ref = n.Familiar()
	}
	return errs.New(errs.NotFound, "No such image: %s", ref)
}

// storedName is the name that refs holds for n: a digest says it all, and
// Docker does not look at the tag beside it either.
func storedName(n Name) string {
	if n.Digest != "" {
		n.Tag = ""
	}
	return n.String()
}

func (s *Store) byName(name string) (*Image, error) {
	path := s.refFile(name)
	data, err := state.ReadFile(path)
	if err != nil {
		return nil, err
	}
	img, err := decodeRef(data)
	if err == nil && img.Ref != name {
		err = errs.New(errs.Corrupt, "it is of the name %q", img.Ref)
	}
	if err != nil {
		return nil, errs.Hint(errs.New(errs.Corrupt, "image record %q: %w", path, err), "pull the image again to replace the record")
	}
	return img, nil
}

// byID reads the whole record of an image, without its names.
func (s *Store) byID(id string) (*Image, error) {
	img := new(Image)
	path := s.idFile(id)
	if err := state.ReadJSON(path, img); err != nil {
		return nil, err
	}
	if img.ID != id {
		return nil, errs.New(errs.Corrupt, "image record %q: it is of the image %q", path, img.ID)
	}
	for _, l := range img.Layers {
		if err := CheckDigest(l.DiffID); err != nil {
			return nil, errs.New(errs.Corrupt, "image record %q: layer %w", path, err)
		}
	}
	return img, nil
}

// isID reports whether ref can be an image id or the beginning of one.
func isID(ref string) bool {
	h := digestHex(ref)
	return h != "" && len(h) <= 64 && isHex(h)
}

// findID returns the only id that begins with prefix.
func (s *Store) findID(prefix string) (string, error) {
	h := digestHex(prefix)
	if len(h) == 64 {
		if _, err := os.Lstat(s.idFile(h)); err != nil {
			return "", err
		}
		return digestPrefix + h, nil
	}
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	found := ""
	for _, id := range ids {
		if !strings.HasPrefix(digestHex(id), h) {
			continue
		}
		if found != "" {
			return "", errs.New(errs.Invalid, "image %q: multiple IDs found with provided prefix", prefix)
		}
		found = id
	}
	if found == "" {
		return "", noSuch(prefix)
	}
	return found, nil
}

// Inspect finds an image as Resolve does and fills everything known of it.
func (s *Store) Inspect(ref string) (*Image, error) {
	short, err := s.Resolve(ref)
	if err != nil {
		return nil, err
	}
	img, err := s.byID(short.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(ref) // removed meanwhile
	}
	if err != nil {
		return nil, err
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	img.Ref = short.Ref
	img.setNames(names[img.ID])
	return img, nil
}

// List returns all images, the newest first.
func (s *Store) List() ([]Image, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	list := make([]Image, 0, len(ids))
	for _, id := range ids {
		img, err := s.byID(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		img.setNames(names[id])
		list = append(list, *img)
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// setNames fills Tags and Digests.
func (i *Image) setNames(names []Name) {
	i.Tags, i.Digests = nil, nil
	for _, n := range names {
		if n.Digest != "" {
			i.Digests = append(i.Digests, n.Familiar())
		} else {
			i.Tags = append(i.Tags, n.Familiar())
		}
	}
}

// ids returns the ids of all images.
func (s *Store) ids() ([]string, error) {
	list, err := readDir(s.dir + "/ids")
	out := list[:0]
	for _, n := range list {
		if len(n) == 64 && isHex(n) {
			out = append(out, digestPrefix+n)
		}
	}
	return out, err
}

// names returns all names, sorted, by the id of their image.
func (s *Store) names() (map[string][]Name, error) {
	files, err := readDir(s.dir + "/refs")
	if err != nil {
		return nil, err
	}
	all := make(map[string][]Name)
	for _, f := range files {
		if f[0] == '.' {
			continue // being written
		}
		data, err := state.ReadFile(s.dir + "/refs/" + f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		img, err := decodeRef(data)
		if err != nil {
			continue // Resolve of this name reports it; the others must still be listed
		}
		if n, why := parseName(img.Ref); why == "" {
			all[img.ID] = append(all[img.ID], n)
		}
	}
	for _, l := range all {
		slices.SortFunc(l, func(a, b Name) int { return cmp.Compare(a.String(), b.String()) })
	}
	return all, nil
}

// readDir returns the names in a directory, none if it does not exist.
func readDir(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only; nothing to lose
	return f.Readdirnames(-1)
}
