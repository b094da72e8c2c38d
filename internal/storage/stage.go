package storage

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage/tree"
	"github.com/isle-engine/isle/internal/storage/unpack"
)

// Staged is a layer that has been unpacked and verified but is not in the store
// yet. It ends in Commit or Discard.
type Staged struct {
	Info LayerInfo
	s    *Store
	path string   // of the temporary directory
	dir  *os.File // the same, locked
}

// Unpack unpacks a layer from its uncompressed archive. All of tar is read and
// its sha256 must be diffID; what was unpacked is on disk, whole, when Unpack
// returns without an error, and nothing is left of it otherwise. A layer that is
// there already is not unpacked again, and tar is not read. unpacked is the sum
// of the sizes of its regular files.
func (s *Store) Unpack(ctx context.Context, diffID string, tar io.Reader) (unpacked int64, err error) {
	if s.Has(diffID) {
		return s.Size(diffID)
	}
	st, err := s.Stage(ctx, diffID, tar)
	if err != nil {
		return 0, err
	}
	return st.Info.Bytes, s.Commit(st)
}

// Stage is the first half of Unpack: everything but the wait for the disk, which
// [Store.Commit] does once for several layers.
func (s *Store) Stage(ctx context.Context, diffID string, tar io.Reader) (_ *Staged, Err error) {
	h, err := hexOf(diffID)
	if err != nil {
		return nil, err
	}
	subject := func(err error) error {
		return s.explain(errs.New(errs.KindOf(err), "layer %s: %w", short(diffID), err))
	}
	ids, err := unpack.OwnIDs()
	if err != nil {
		return nil, subject(err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, subject(err)
	}
	if err := s.setFormat(!ids.Initial()); err != nil {
		return nil, err
	}
	st, err := s.newStage(h)
	if err != nil {
		return nil, subject(err)
	}
	defer func() {
		if Err != nil {
			Err = errors.Join(Err, st.Discard())
		}
	}()
	if err := unix.Mkdirat(int(st.dir.Fd()), diffDir+"-new", 0o755); err != nil {
		return nil, subject(err)
	}
	// A file system that does not know the flags of renameat2(2) is none for
	// overlayfs, which needs them for whiteouts. That is found out here, before
	// anything is unpacked, and not when a container is to start.
	err = unix.Renameat2(int(st.dir.Fd()), diffDir+"-new", int(st.dir.Fd()), diffDir, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL {
		return nil, noLayers(s.dir, errs.New(errs.Unsupported, "layer %s: %s cannot hold the layers of images", short(diffID), s.dir))
	}
	if err != nil {
		return nil, subject(err)
	}
	if !ids.Initial() {
		if err := hasUserXattrs(st.dir); err != nil {
			return nil, subject(err)
		}
	}
	diff, err := os.OpenFile(filepath.Join(st.path, diffDir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, subject(err)
	}
	defer diff.Close()
	res, err := unpack.Layer(ctx, diff, tar, unpack.Options{UserXattr: !ids.Initial(), IDs: ids, Limits: s.Limits})
	if err != nil {
		return nil, subject(err)
	}
	if res.Digest != diffID && !defence.Removed("digest") {
		return nil, subject(errs.New(errs.Corrupt, "archive has digest %s", res.Digest))
	}
	st.Info = LayerInfo{
		DiffID: diffID, Created: time.Now().UTC(), Bytes: res.Bytes, Archive: res.Archive, Entries: res.Entries,
		Devices: res.Devices, SkippedDevices: res.SkippedDevices, SkippedXattrs: res.SkippedXattrs, FoldedOwners: res.FoldedOwners,
	}
	if res.OpaqueRoot {
		if err := s.noteOpaqueRoot(); err != nil {
			return nil, subject(err)
		}
	}
	// Not durable by itself: Commit's sync is for everything.
	if err := state.WriteJSON(filepath.Join(st.path, infoFile), st.Info, false); err != nil {
		return nil, subject(err)
	}
	return st, nil
}

// newStage makes the temporary directory and takes its lock.
func (s *Store) newStage(h string) (*Staged, error) {
	p, d, err := makeStage(s.dir, h[:16]+"-", 0o700)
	if err != nil {
		return nil, err
	}
	return &Staged{s: s, path: p, dir: d}, nil
}

// makeStage makes a temporary directory in dir and takes its lock, which keeps
// sweepers away.
func makeStage(dir, name string, mode os.FileMode) (path string, lock *os.File, err error) {
	for try := 0; ; try++ {
		path = filepath.Join(dir, stagePrefix+name+random())
		if err = os.Mkdir(path, mode); err != nil {
			return "", nil, err
		}
		if lock, err = lockDir(path); err == nil {
			return path, lock, nil
		}
		// A sweeper saw it before we had the lock.
		if try == 10 {
			return "", nil, err
		}
	}
}

// Discard removes the staged layer. It does nothing after Commit.
func (st *Staged) Discard() error {
	if st.dir == nil {
		return nil
	}
	err := tree.Remove(st.path)
	_ = st.dir.Close() // last: until then a sweeper stays away
	st.dir = nil
	return err
}

// Commit puts staged layers into the store. They are on disk when it returns
// without an error; one that another process has put there meanwhile is as good.
// All of them are used up either way.
func (s *Store) Commit(layers ...*Staged) (Err error) {
	if len(layers) == 0 {
		return nil
	}
	defer func() {
		for _, st := range layers {
			if err := st.Discard(); err != nil && Err == nil {
				Err = err
			}
		}
	}()
	// One call for all files of all layers. The rename must come after it: a
	// layer that has its name is believed without a look (ext4 would write the
	// rename first and leave files without data).
	if err := unix.Syncfs(int(layers[0].dir.Fd())); err != nil {
		return s.explain(&os.PathError{Op: "sync", Path: s.dir, Err: err})
	}
	for _, st := range layers {
		h, err := hexOf(st.Info.DiffID)
		if err != nil {
			return err
		}
		switch err := unix.Renameat2(unix.AT_FDCWD, st.path, unix.AT_FDCWD, filepath.Join(s.dir, h), unix.RENAME_NOREPLACE); err {
		case nil:
			_ = st.dir.Close()
			st.dir = nil
		case unix.EEXIST:
			// Somebody was faster; Discard removes ours.
		default:
			return s.explain(&os.PathError{Op: "rename", Path: st.path, Err: err})
		}
	}
	return state.SyncDir(s.dir)
}

// explain gives the errors of a full disk their meaning.
func (s *Store) explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		var fs unix.Statfs_t
		if unix.Statfs(s.dir, &fs) == nil && fs.Bavail > 0 && fs.Ffree == 0 && fs.Files > 0 {
			return errs.Hint(err, "the file system of "+s.dir+" has no inodes left")
		}
		return errs.Hint(err, "the file system of "+s.dir+" is full")
	case errors.Is(err, unix.EDQUOT):
		return errs.Hint(err, "the disk quota for "+s.dir+" is used up")
	}
	return err
}

// The words of the format link.
const (
	formatTrusted = "1-trusted"
	formatUser    = "1-user"
	// opaqueRootMark follows when the store has a layer whose root is opaque,
	// which overlayfs itself does not honour.
	opaqueRootMark = "-opaqueroot"
)

func formatOf(userXattr bool) string {
	if userXattr {
		return formatUser
	}
	return formatTrusted
}

// setFormat records how whiteouts are kept in this store, or checks what was
// recorded. A symbolic link is made whole or not at all, by the first who comes.
func (s *Store) setFormat(userXattr bool) error {
	link := filepath.Join(s.dir, formatLink)
	err := os.Symlink(formatOf(userXattr), link)
	if err != nil && !os.IsExist(err) {
		return s.explain(err)
	}
	_, err = s.checkFormat(userXattr)
	return err
}

// checkFormat refuses a store of the other kind, and tells whether it has
// layers with an opaque root. A store without a format has no layers.
func (s *Store) checkFormat(userXattr bool) (opaqueRoots bool, err error) {
	var buf [64]byte
	n, err := unix.Readlink(s.dir+"/"+formatLink, buf[:])
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "readlink", Path: s.dir + "/" + formatLink, Err: err}
	}
	word, opaqueRoots := strings.CutSuffix(string(buf[:n]), opaqueRootMark)
	switch {
	case word == formatOf(userXattr):
		return opaqueRoots, nil
	case word == formatOf(!userXattr):
		who := "root, outside of a user namespace"
		if !userXattr {
			who = "an ordinary user, in a user namespace"
		}
		return false, errs.Hint(errs.New(errs.Conflict, "layers %s: belong to another kind of user", s.dir),
			"its layers were unpacked by "+who+"; give each user a directory of its own (ISLE_ROOT)")
	}
	return false, errs.New(errs.Unsupported, "layers %s: format %.20q of another version of isle", s.dir, word)
}

// noteOpaqueRoot adds the mark to the format.
func (s *Store) noteOpaqueRoot() error {
	link := filepath.Join(s.dir, formatLink)
	old, err := os.Readlink(link)
	if err != nil || strings.HasSuffix(old, opaqueRootMark) {
		return err
	}
	tmp := filepath.Join(s.dir, stagePrefix+"format-"+random())
	if err := os.Symlink(old+opaqueRootMark, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, link)
}
