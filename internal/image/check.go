package image

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

// Fault is something that is wrong in the store.
type Fault struct {
	Kind    string // "blob", "image" or "name"
	Subject string // digest, id or name
	Problem string
	// Repair takes what is wrong out of use; nil where there is nothing to take.
	Repair func() error
}

// Check compares every blob with its digest, and every record with what it
// names. read is told of the bytes that were read. The layers of images may lack
// blobs: that their files are there is for the caller to find out.
func (s *Store) Check(ctx context.Context, read func(n int64)) (blobs, images int, faults []Fault, err error) {
	files, err := readDir(s.dir + "/blobs/sha256")
	if err != nil {
		return 0, 0, nil, err
	}
	slices.Sort(files)
	bad := map[string]bool{}
	for _, f := range files {
		if ctx.Err() != nil {
			return blobs, 0, faults, ctx.Err()
		}
		path := s.dir + "/blobs/sha256/" + f
		drop := func() error { return os.RemoveAll(path) }
		if len(f) != 64 || !isHex(f) {
			faults = append(faults, Fault{"blob", f, "not the name of a blob", drop})
			continue
		}
		blobs++
		err := s.checkBlob(digestPrefix+f, read)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errs.NotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			bad[digestPrefix+f] = true
			faults = append(faults, Fault{"blob", digestPrefix + f, problem(err, digestPrefix+f), drop})
		}
	}
	images, more, err := s.checkRecords(bad)
	return blobs, images, append(faults, more...), err
}

// problem is an error without the subject that its line begins with.
func problem(err error, subject string) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "blob "+subject+": "), "its ")
}

func (s *Store) checkBlob(digest string, read func(int64)) error {
	r, err := s.OpenBlob(digest)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only; nothing to lose
	b := make([]byte, 256<<10)
	for {
		n, err := r.Read(b)
		read(int64(n))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// checkRecords checks ids and refs. The blobs in bad are as good as missing.
func (s *Store) checkRecords(bad map[string]bool) (images int, faults []Fault, err error) {
	ids, err := s.ids()
	if err != nil {
		return 0, nil, err
	}
	slices.Sort(ids)
	known := map[string]bool{}
	for _, id := range ids {
		img, err := s.byID(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			faults = append(faults, Fault{"image", id, "damaged record: " + err.Error(), func() error { return s.Forget(id) }})
			continue
		}
		images++
		known[id] = true
		for _, b := range [...][2]string{{"configuration", id}, {"manifest", img.Manifest}} {
			what, digest := b[0], b[1]
			if bad[digest] || !s.HasBlob(digest) {
				faults = append(faults, Fault{"image", id, "its " + what + " is lost; it runs, but must be pulled again before it can be pushed or saved", nil})
			}
		}
	}
	files, err := readDir(s.dir + "/refs")
	if err != nil {
		return images, faults, err
	}
	slices.Sort(files)
	for _, f := range files {
		if f[0] == '.' {
			continue // being written
		}
		path := s.dir + "/refs/" + f
		data, err := state.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		var img *Image
		if err == nil {
			img, err = decodeRef(data)
		}
		drop := func() error { return s.changed(func() error { return os.Remove(path) }) }
		switch name := strings.ReplaceAll(f, "+", "/"); {
		case err != nil:
			faults = append(faults, Fault{"name", name, "damaged record: " + err.Error(), drop})
		case escapeName(img.Ref) != f:
			faults = append(faults, Fault{"name", name, "its record is of " + img.Ref, drop})
		case !known[img.ID]:
			faults = append(faults, Fault{"name", img.Ref, "leads to the image " + img.ID + ", which is not there", drop})
		}
	}
	return images, faults, nil
}

// changed makes a change to the records under the lock.
func (s *Store) changed(f func() error) (Err error) {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	if err := f(); err != nil {
		return err
	}
	return s.writeIndex()
}

// Forget removes the record of an image and its names, whoever uses it, so that
// it is pulled again when it is wanted next.
func (s *Store) Forget(id string) error {
	if err := CheckDigest(id); err != nil {
		return err
	}
	return s.changed(func() error {
		names, err := s.names()
		if err != nil {
			return err
		}
		for _, n := range names[id] {
			if err := s.dropName(n); err != nil {
				return err
			}
		}
		return os.Remove(s.idFile(id))
	})
}
