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

// Keep tells what is in use outside of the store, and how unpacked layers go.
// The functions are called while the store's lock is held and must not call the
// store. A nil function knows of nothing, and does nothing.
type Keep struct {
	// Users returns the containers made of the image id.
	Users func(id string) []User
	// Layer reports whether a container needs the unpacked layer.
	Layer func(diffID string) bool
	// DropLayer puts an unpacked layer out of use that neither image, container
	// nor a running pull needs. It should be quick, a rename: what takes time is
	// for later, without the lock.
	DropLayer func(diffID string) error
}

// Removed is one line of what a removal did: one of the two is set.
type Removed struct {
	Untagged string `json:"Untagged,omitempty"` // a name, as Docker shows it
	Deleted  string `json:"Deleted,omitempty"`  // an image's id or a layer's diff id
}

// Removal is what a removal did.
type Removal struct {
	Done   []Removed // in order, as Docker reports it, layers included
	Layers []string  // diff ids of the layers that nothing needs any more
	Bytes  int64     // of deleted blobs
	Count  int       // of deleted blobs and layers
}

// Lines returns Docker's "Untagged: …" and "Deleted: …".
func (r *Removal) Lines() []string {
	lines := make([]string, len(r.Done))
	for i, d := range r.Done {
		if lines[i] = "Untagged: " + d.Untagged; d.Deleted != "" {
			lines[i] = "Deleted: " + d.Deleted
		}
	}
	return lines
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
func (s *Store) Remove(ref string, force bool, keep Keep) (did Removal, Err error) {
	lock, err := s.lock()
	if err != nil {
		return did, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()

	short, err := s.Resolve(ref)
	if err != nil {
		return did, err
	}
	id := short.ID
	all, err := s.names()
	if err != nil {
		return did, err
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
		did.Done = append(did.Done, Removed{Untagged: n.Familiar()})
		return nil
	}

	if short.Ref != "" {
		if !force && singleName(names) && len(users) > 0 {
			return did, errs.New(errs.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				ref, truncated(users[0].ID), truncated(id))
		}
		n, err := ParseName(short.Ref)
		if err != nil {
			return did, err
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
				return did, why("cannot be forced", "image is being used by running container %s", truncated(u.ID))
			}
		}
		switch {
		case force:
		case !singleName(names):
			return did, why("must be forced", "image is referenced in multiple repositories")
		case len(users) > 0:
			return did, why("must be forced", "image is being used by stopped container %s", truncated(users[0].ID))
		}
		for _, n := range slices.Clone(names) {
			if err := untag(n); err != nil {
				return did, err
			}
		}
	}
	err = s.deleteImage(id, keep, &did)
	return did, err
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
func (s *Store) deleteImage(id string, keep Keep, did *Removal) error {
	img, err := s.byID(id)
	if err != nil && !errors.Is(err, errs.Corrupt) {
		return err
	}
	if err := os.Remove(s.idFile(id)); err != nil {
		return err
	}
	did.Done = append(did.Done, Removed{Deleted: id})
	if img == nil {
		img = new(Image)
	}
	return s.sweep(img.DiffIDs(), true, keep, did)
}

// Collect deletes content that no image, container or running pull needs:
// blobs, unfinished downloads, and those of the unpacked layers present. It
// is what finishes the removals and pulls that were killed.
func (s *Store) Collect(present []string, keep Keep) (did Removal, Err error) {
	lock, err := s.lock()
	if err != nil {
		return did, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	err = s.sweep(present, false, keep, &did)
	return did, err
}

// Orphans tells what Collect would delete.
func (s *Store) Orphans(present []string, keep Keep) (did Removal, Err error) {
	lock, err := s.lock()
	if err != nil {
		return did, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	keep.DropLayer = nil
	err = s.drop(present, keep, &did, func(string) error { return nil })
	return did, err
}

// sweep is Collect under the lock.
func (s *Store) sweep(layers []string, keepParts bool, keep Keep, did *Removal) error {
	if err := s.sweepTmp(keepParts); err != nil {
		return err
	}
	return s.drop(layers, keep, did, os.Remove)
}

// drop removes the blobs and layers that nobody needs.
func (s *Store) drop(layers []string, keep Keep, did *Removal, remove func(path string) error) error {
	need, err := s.leased()
	if err != nil {
		return err
	}
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		img, err := s.byID(id)
		if err != nil {
			// What a damaged record needs is not known: nothing can be deleted.
			return err
		}
		need[id], need[img.Manifest] = true, true
		for _, l := range img.Layers {
			need[l.DiffID], need[l.Digest] = true, true
		}
	}
	blobs, err := readDir(s.dir + "/blobs/sha256")
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if need[digestPrefix+b] {
			continue
		}
		path := s.blobFile(b)
		fi, err := os.Lstat(path)
		if err == nil {
			err = remove(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		did.Bytes += fi.Size()
		did.Count++
	}
	// The uppermost first, as Docker lists them.
	for _, d := range slices.Backward(layers) {
		if need[d] || keep.Layer != nil && keep.Layer(d) || !strings.HasPrefix(d, digestPrefix) {
			continue
		}
		need[d] = true // a layer may be in an image twice
		if keep.DropLayer != nil {
			if err := keep.DropLayer(d); err != nil {
				return err
			}
		}
		did.Layers = append(did.Layers, d)
		did.Count++
		did.Done = append(did.Done, Removed{Deleted: d})
	}
	return nil
}

// Prune removes the images without a tag, or with all those that no container
// uses, as `docker image prune` does; of these only the ones that want chooses,
// unless it is nil.
func (s *Store) Prune(all bool, want func(*Image) bool, keep Keep) (did Removal, Err error) {
	lock, err := s.lock()
	if err != nil {
		return did, err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	ids, err := s.ids()
	if err != nil {
		return did, err
	}
	names, err := s.names()
	if err != nil {
		return did, err
	}
	defer func() { Err = errors.Join(Err, s.writeIndex()) }()
	for _, id := range ids {
		tagged := slices.ContainsFunc(names[id], func(n Name) bool { return n.Tag != "" })
		if tagged && !all || len(keep.users(id)) > 0 {
			continue
		}
		if want != nil {
			if img, err := s.byID(id); err != nil || !want(img) {
				continue // a damaged record says nothing of what it is asked for
			}
		}
		for _, n := range names[id] {
			if err := s.dropName(n); err != nil {
				return did, err
			}
			did.Done = append(did.Done, Removed{Untagged: n.Familiar()})
		}
		if err := s.deleteImage(id, keep, &did); err != nil {
			return did, err
		}
	}
	return did, nil
}

// Sweep deletes what dead or failed pulls have left in the store, but for the
// recent beginnings of blobs that a later pull can go on with, and by drop
// those of the given layers that neither image nor running pull needs.
func (s *Store) Sweep(layers []string, drop func(diffID string) error) (Err error) {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	return s.sweep(layers, true, Keep{DropLayer: drop}, new(Removal))
}
