package storage

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage/tree"
	"github.com/isle-engine/isle/internal/storage/unpack"
)

// Limits bound what a layer may claim.
type Limits = unpack.Limits

// Store is a directory of unpacked layers. Its methods may be called from
// several goroutines and processes at once.
type Store struct {
	dir string
	// Limits for layers unpacked from now on; to be set before the first use.
	Limits Limits
	rung   rung // the mount rung to start at
	// noIDMap makes root copy, too, as where the kernel has no idmapped mounts.
	noIDMap bool
}

// Open returns the store in dir. It does no I/O.
func Open(dir string) *Store { return &Store{dir: dir} }

// LayerInfo tells about an unpacked layer.
type LayerInfo struct {
	DiffID  string    `json:"diffID"`
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"`   // of regular files, as Docker counts the size of a layer
	Archive int64     `json:"archive"` // bytes of the uncompressed archive
	Entries int64     `json:"entries"`
	// What could not be unpacked (see unpack.Result).
	Devices        []string `json:"devices,omitempty"`
	SkippedDevices int64    `json:"skippedDevices,omitempty"`
	SkippedXattrs  int64    `json:"skippedXattrs,omitempty"`
	FoldedOwners   int64    `json:"foldedOwners,omitempty"`
}

// Names in the layers directory.
const (
	stagePrefix = ".stage-"
	gonePrefix  = ".gone-"
	formatLink  = ".format"
	emptyLayer  = ".empty"
	placesLayer = ".empty-places"
	diffDir     = "diff"
	infoFile    = "layer.json"
)

// hexOf returns the hex digits of a diff id, the only part of it that may
// become a name.
func hexOf(diffID string) (string, error) {
	h, ok := strings.CutPrefix(diffID, "sha256:")
	if !ok || !state.IsID(h) {
		return "", errs.New(errs.Invalid, "diff id %.100q: not sha256: and 64 hex digits", diffID)
	}
	return h, nil
}

// short is how messages name a layer.
func short(diffID string) string {
	h := strings.TrimPrefix(diffID, "sha256:")
	return h[:min(len(h), 12)]
}

// Has reports whether the layer is there, whole.
func (s *Store) Has(diffID string) bool {
	h, err := hexOf(diffID)
	return err == nil && unix.Access(s.dir+"/"+h, unix.F_OK) == nil
}

// Path returns the directory of a layer's files.
func (s *Store) Path(diffID string) (string, error) {
	h, err := hexOf(diffID)
	return filepath.Join(s.dir, h, diffDir), err
}

// Info returns what is recorded of a layer.
func (s *Store) Info(diffID string) (LayerInfo, error) {
	var info LayerInfo
	h, err := hexOf(diffID)
	if err != nil {
		return info, err
	}
	if !s.Has(diffID) {
		return info, errs.New(errs.NotFound, "layer %s: %w", short(diffID), errs.NotFound)
	}
	return info, state.ReadJSON(filepath.Join(s.dir, h, infoFile), &info)
}

// Size returns the bytes of a layer's regular files.
func (s *Store) Size(diffID string) (int64, error) {
	info, err := s.Info(diffID)
	return info.Bytes, err
}

// Layers returns all layers. One whose record cannot be read is listed with its
// diff id alone: its files are there and take space.
func (s *Store) Layers() ([]LayerInfo, error) {
	names, err := s.names(state.IsID)
	if err != nil {
		return nil, err
	}
	all := make([]LayerInfo, 0, len(names))
	for _, h := range names {
		id := "sha256:" + h
		info, err := s.Info(id)
		if errs.KindOf(err) == errs.NotFound && !s.Has(id) {
			continue // removed meanwhile
		}
		if err != nil || info.DiffID != id {
			info = LayerInfo{DiffID: id}
		}
		all = append(all, info)
	}
	return all, nil
}

// names lists what is in the directory and wanted.
func (s *Store) names(want func(string) bool) ([]string, error) {
	f, err := os.Open(s.dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	out := all[:0]
	for _, n := range all {
		if want(n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// Remove removes a layer. That nothing uses it is for the caller to know:
// overlayfs does not say what it does when a layer of a mounted stack changes.
func (s *Store) Remove(diffID string) error {
	gone, err := s.bury(diffID)
	if err != nil {
		return err
	}
	if err := tree.Remove(gone); err != nil {
		return errs.New(errs.KindOf(err), "layer %s: %w", short(diffID), err)
	}
	return nil
}

// Drop takes a layer out of the store, as Remove does, but leaves its files to
// the next Sweep: it is a rename, quick enough to be done under a lock.
func (s *Store) Drop(diffID string) error {
	_, err := s.bury(diffID)
	return err
}

// bury renames a layer to where Sweep finds it.
func (s *Store) bury(diffID string) (gone string, err error) {
	h, err := hexOf(diffID)
	if err != nil {
		return "", err
	}
	gone = filepath.Join(s.dir, gonePrefix+h+"-"+random())
	if err := os.Rename(filepath.Join(s.dir, h), gone); err != nil {
		if os.IsNotExist(err) {
			return "", errs.New(errs.NotFound, "layer %s: %w", short(diffID), errs.NotFound)
		}
		return "", err
	}
	return gone, nil
}

// Sweep removes what unpackers and removers that died have left. It may run at
// any time beside live ones, and tells how many leftovers it removed.
func (s *Store) Sweep() (int, error) {
	names, err := s.names(func(n string) bool {
		return strings.HasPrefix(n, stagePrefix) || strings.HasPrefix(n, gonePrefix)
	})
	if err != nil {
		return 0, err
	}
	n := 0
	var first error
	for _, name := range names {
		p := filepath.Join(s.dir, name)
		if fi, err := os.Lstat(p); err == nil && fi.Mode()&os.ModeSymlink != 0 && time.Since(fi.ModTime()) > time.Minute {
			_ = os.Remove(p) // a format link on its way, whose maker died
			continue
		}
		d, err := lockDir(p)
		if err != nil {
			continue // alive, or gone meanwhile
		}
		if err := tree.Remove(p); err == nil {
			n++
		} else if first == nil {
			first = err
		}
		_ = d.Close()
	}
	return n, first
}

// lockDir opens a directory and takes the lock that says it is in use. It fails
// when another one has the lock, and when the directory was removed before the
// lock was taken.
func lockDir(path string) (_ *os.File, Err error) {
	d, err := os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if Err != nil {
			_ = d.Close()
		}
	}()
	fd := int(d.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Nlink == 0 {
		return nil, &os.PathError{Op: "lock", Path: path, Err: unix.ENOENT}
	}
	return d, nil
}

// random is a part of a name that nobody else uses.
func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it would have crashed the process
	return hex.EncodeToString(b[:])
}

// RemoveTree removes dir and everything in it, whatever its modes, depth and
// number of files, without ever leaving it: no link is followed and no mount
// entered. Immutable files are removed when the caller may change that flag.
// A directory that is not there is removed already.
func RemoveTree(dir string) error { return tree.Remove(dir) }

// ChownTree gives dir and everything in it to uid and gid.
func ChownTree(dir string, uid, gid int) error { return tree.Chown(dir, uid, gid) }

// TreeSize returns how much dir and everything in it take on disk.
func TreeSize(dir string) (bytes, inodes int64, err error) { return tree.Size(dir) }
