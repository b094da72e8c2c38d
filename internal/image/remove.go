package image

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// User is a container that uses an image.
type User struct {
	ID      string
	Running bool
}

// Keep tells what is in use outside of the store, and how layers are deleted.
// The functions are called while the store's lock is held and must not call the
// store. A nil function knows of nothing, and deletes nothing.
type Keep struct {
	// Users returns the containers made of the image id.
	Users func(id string) []User
	// Layer reports whether a container needs the unpacked layer.
	Layer func(diffID string) bool
	// RemoveLayer deletes an unpacked layer that neither image, container nor
	// a running pull needs. It is not called for others.
	RemoveLayer func(diffID string) error
}

// Removed is one line of what a removal did: one of the two is set.
type Removed struct {
	Untagged string `json:"Untagged,omitempty"` // a name, as Docker shows it
	Deleted  string `json:"Deleted,omitempty"`  // an image's id or a layer's diff id
}

// Remove removes a name, or an image with its names, as `docker rmi` does:
//
//   - A name goes, if others are left or no container uses the image; with the
//     last name goes the image.
//   - An id takes the image and its names, if it has no more than one.
//   - force removes a name from under stopped containers (a running one keeps
//     the image, without a name), and by id all names.
//
// What was done is returned also beside an error. The error is Conflict, in
// Docker's words, when something is in use.
func (s *Store) Remove(ref string, force bool, keep Keep) (did []Removed, Err error) {
	lock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()

	short, err := s.Resolve(ref)
	if err != nil {
		return nil, err
	}
	id := short.ID
	all, err := s.names()
	if err != nil {
		return nil, err
	}
	names := all[id]
	users := keep.users(id)
	var running bool
	for _, u := range users {
		running = running || u.Running
	}
	defer func() { Err = errors.Join(Err, s.writeIndex()) }()
	untag := func(n Name) error {
		if err := s.dropName(n); err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(o Name) bool { return o == n })
		did = append(did, Removed{Untagged: n.Familiar()})
		return nil
	}

	if short.Ref != "" {
		if !force && singleName(names) && len(users) > 0 {
			return nil, errs.New(errs.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				ref, truncated(users[0].ID), truncated(id))
		}
		n, err := ParseName(short.Ref)
		if err != nil {
			return nil, err
		}
		if err := untag(n); err != nil {
			return did, err
		}
		// Digests of a repository of which no tag is left go with the tag.
		if n.Tag != "" && !slices.ContainsFunc(names, func(o Name) bool { return o.Tag != "" && o.Repository() == n.Repository() }) {
			for _, o := range slices.Clone(names) {
				if o.Repository() == n.Repository() {
					if err := untag(o); err != nil {
						return did, err
					}
				}
			}
		}
		if len(names) > 0 || len(users) > 0 && !force || running {
			return did, nil
		}
	} else {
		why := func(how, format string, args ...any) error {
			return errs.New(errs.Conflict, "conflict: unable to delete %s ("+how+") - "+format, append([]any{truncated(id)}, args...)...)
		}
		for _, u := range users {
			if u.Running {
				return nil, why("cannot be forced", "image is being used by running container %s", truncated(u.ID))
			}
		}
		switch {
		case force:
		case !singleName(names):
			return nil, why("must be forced", "image is referenced in multiple repositories")
		case len(users) > 0:
			return nil, why("must be forced", "image is being used by stopped container %s", truncated(users[0].ID))
		}
		for _, n := range slices.Clone(names) {
			if err := untag(n); err != nil {
				return did, err
			}
		}
	}
	more, err := s.deleteImage(id, keep)
	return append(did, more...), err
}

func (k Keep) users(id string) []User {
	if k.Users == nil {
		return nil
	}
	return k.Users(id)
}

// singleName reports whether names are one tag and digests of its repository,
// or less.
func singleName(names []Name) bool {
	tags := 0
	for _, n := range names {
		if n.Tag != "" {
			tags++
		}
		if n.Repository() != names[0].Repository() {
			return false
		}
	}
	return tags <= 1
}

func truncated(id string) string {
	h := digestHex(id)
	return h[:min(12, len(h))]
}

// deleteImage deletes the record of an image without names, and whatever
// nobody else needs. The caller holds the lock.
func (s *Store) deleteImage(id string, keep Keep) ([]Removed, error) {
	img, err := s.byID(id)
	if err != nil && !errors.Is(err, errs.Corrupt) {
		return nil, err
	}
	if err := os.Remove(s.idFile(id)); err != nil {
		return nil, err
	}
	did := []Removed{{Deleted: id}}
	if img == nil {
		img = new(Image)
	}
	more, err := s.sweep(img.DiffIDs(), true, keep)
	return append(did, more.Removed...), err
}

// Collected is what Collect found to delete.
type Collected struct {
	Removed []Removed // layers
	Bytes   int64     // of blobs
}

// Collect deletes content that no image, container or running pull needs:
// blobs, unfinished downloads, and those of the unpacked layers present. It
// is what finishes the removals and pulls that were killed.
func (s *Store) Collect(present []string, keep Keep) (c Collected, Err error) {
	lock, err := s.lock()
	if err != nil {
		return c, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	return s.sweep(present, false, keep)
}

// sweep is Collect under the lock.
func (s *Store) sweep(layers []string, keepParts bool, keep Keep) (c Collected, err error) {
	if err := s.sweepTmp(keepParts); err != nil {
		return c, err
	}
	need, err := s.leased()
	if err != nil {
		return c, err
	}
	ids, err := s.ids()
	if err != nil {
		return c, err
	}
	for _, id := range ids {
		img, err := s.byID(id)
		if err != nil {
			// What a damaged record needs is not known: nothing can be deleted.
			return c, err
		}
		need[id], need[img.Manifest] = true, true
		for _, l := range img.Layers {
			need[l.DiffID], need[l.Digest] = true, true
		}
	}
	blobs, err := readDir(s.dir + "/blobs/sha256")
	if err != nil {
		return c, err
	}
	for _, b := range blobs {
		if need[digestPrefix+b] {
			continue
		}
		path := s.blobFile(b)
		fi, err := os.Lstat(path)
		if err == nil {
			err = os.Remove(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, err
		}
		c.Bytes += fi.Size()
	}
	if keep.RemoveLayer == nil {
		return c, nil
	}
	// The uppermost first, as Docker lists them.
	for _, d := range slices.Backward(layers) {
		if need[d] || keep.Layer != nil && keep.Layer(d) || !strings.HasPrefix(d, digestPrefix) {
			continue
		}
		need[d] = true // a layer may be in an image twice
		if err := keep.RemoveLayer(d); err != nil {
			return c, err
		}
		c.Removed = append(c.Removed, Removed{Deleted: d})
	}
	return c, nil
}

// PruneImages removes the images without a name, or with all those that no
// container uses, as `docker image prune` does.
func (s *Store) PruneImages(all bool, keep Keep) (did []Removed, Err error) {
	lock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	defer func() { Err = errors.Join(Err, s.writeIndex()) }()
	for _, id := range ids {
		tagged := slices.ContainsFunc(names[id], func(n Name) bool { return n.Tag != "" })
		if tagged && !all || len(keep.users(id)) > 0 {
			continue
		}
		for _, n := range names[id] {
			if err := s.dropName(n); err != nil {
				return did, err
			}
			did = append(did, Removed{Untagged: n.Familiar()})
		}
		more, err := s.deleteImage(id, keep)
		did = append(did, more...)
		if err != nil {
			return did, err
		}
	}
	return did, nil
}
