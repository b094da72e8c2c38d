package unpack

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/tarball"
	"github.com/isle-engine/isle/internal/storage/tree"
)

const (
	modePerm    = 0o777
	modeSpecial = 0o7000 // setuid, setgid, sticky
	modeSetID   = 0o6000
)

// ownerXattr keeps "UID:GID:MODE" of a file whose owner has no id here.
const ownerXattr = "user.isle.owner"

// foldOwner checks the owner, and gives to root what belongs to an id that does
// not exist in this user namespace. Without its owner, a set-id bit would give
// away root's rights instead of the owner's: it goes too.
func (u *unpacker) foldOwner(h *tarball.Header) error {
	// -1 is "no change" to chown(2).
	if h.UID < 0 || h.UID >= allIDs || h.GID < 0 || h.GID >= allIDs {
		return errs.New(errs.Corrupt, "owner %d:%d: not an id", h.UID, h.GID)
	}
	uidOK, gidOK := has(u.opt.IDs.uids, h.UID), has(u.opt.IDs.gids, h.GID)
	u.folded = ""
	if uidOK && gidOK {
		return nil
	}
	u.res.FoldedOwners++
	u.folded = strconv.FormatInt(h.UID, 10) + ":" + strconv.FormatInt(h.GID, 10) + ":" + strconv.FormatInt(h.Mode&0o7777, 8)
	if !uidOK {
		h.UID = 0
	}
	if !gidOK {
		h.GID = 0
	}
	h.Mode &^= modeSetID
	return nil
}

// needChown reports whether a file just made has another owner than it should.
func (u *unpacker) needChown(h *tarball.Header) bool { return h.UID != u.uid || h.GID != u.gid }

func times(h *tarball.Header) []unix.Timespec {
	t := unix.Timespec{Sec: h.ModSec, Nsec: h.ModNsec}
	return []unix.Timespec{t, t}
}

func (u *unpacker) file(h *tarball.Header, up *dirNode, base string) error {
	perm := uint32(h.Mode) & modePerm
	var fd int
	err := u.make(up, base, func() (err error) {
		fd, err = unix.Openat(up.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
		return err
	})
	if err != nil {
		return &os.PathError{Op: "create", Path: h.Name, Err: err}
	}
	closeNow := true
	defer func() {
		if closeNow {
			_ = unix.Close(fd)
		}
	}()
	size := h.Size
	synced, err := u.data(h, fd)
	if err != nil {
		return err
	}
	// Order: data, owner, mode, attributes, times. Writing and chown(2) clear
	// the set-id bits and security.capability; an ACL sets the mode's group bits;
	// all of them but the last change the times.
	if u.needChown(h) {
		if err := unix.Fchown(fd, int(h.UID), int(h.GID)); err != nil {
			return &os.PathError{Op: "chown", Path: h.Name, Err: err}
		}
	}
	if uint32(h.Mode)&modeSpecial != 0 || perm&u.umask != 0 {
		if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: h.Name, Err: err}
		}
	}
	if len(h.Xattrs) > 0 || u.folded != "" {
		if err := u.setXattrs(fd, h.Name, h.Xattrs, u.folded); err != nil {
			return err
		}
	}
	// AT_EMPTY_PATH: on the descriptor itself, since Linux 5.8.
	if err := unix.UtimesNanoAt(fd, "", times(h), unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "utimensat", Path: h.Name, Err: err}
	}
	u.res.Bytes += size
	if size >= writebackSize {
		closeNow = false
		u.wb.add(writebackJob{fd: fd, off: synced, n: size - synced, close: true})
	} else {
		u.wb.addSmall(size)
	}
	return nil
}

// data writes the entry's data, and returns up to where the disk has been
// started on it.
func (u *unpacker) data(h *tarball.Header, fd int) (synced int64, err error) {
	var end int64 // of what was written
	for {
		p, off, err := u.tr.Data()
		if err == io.EOF {
			break
		}
		if err != nil {
			return synced, err
		}
		for len(p) > 0 {
			var n int
			if h.Sparse {
				n, err = unix.Pwrite(fd, p, off)
			} else {
				n, err = unix.Write(fd, p)
			}
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return synced, &os.PathError{Op: "write", Path: h.Name, Err: err}
			}
			p = p[n:]
			off += int64(n)
		}
		end = off
		if end-synced >= writebackStep {
			u.wb.add(writebackJob{fd: fd, off: synced, n: end - synced})
			synced = end
		}
	}
	if end < h.Size {
		// A hole at the end.
		if err := unix.Ftruncate(fd, h.Size); err != nil {
			return synced, &os.PathError{Op: "truncate", Path: h.Name, Err: err}
		}
	}
	return synced, nil
}

func (u *unpacker) symlink(h *tarball.Header, up *dirNode, base string) error {
	if h.Linkname == "" {
		return errs.New(errs.Corrupt, "symbolic link to nothing")
	}
	if err := u.make(up, base, func() error { return unix.Symlinkat(h.Linkname, up.fd, base) }); err != nil {
		return &os.PathError{Op: "symlink", Path: h.Name, Err: err}
	}
	return u.byName(h, up, base)
}

// hardLink links to an earlier entry. Its other metadata are that entry's.
func (u *unpacker) hardLink(h *tarball.Header, up *dirNode, base string) error {
	target, err := u.clean(h.Linkname)
	if err != nil {
		return errs.New(errs.KindOf(err), "hard link to %.200q: %w", h.Linkname, err)
	}
	dir, name := splitPath(target)
	up.pins++
	defer func() { up.pins-- }()
	full := join(up.path, base)
	from, err := u.dirs.lookup(dir)
	if err == nil && (from.path == full || strings.HasPrefix(from.path, full+"/")) {
		err = unix.ENOENT // the link would replace the directory that its target is in
	}
	if err == nil {
		var st, old unix.Stat_t
		// Look before something in the way is removed: it may be the target.
		err = unix.Fstatat(from.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && unix.Fstatat(up.fd, base, &old, unix.AT_SYMLINK_NOFOLLOW) == nil && old.Ino == st.Ino && old.Dev == st.Dev {
			return nil
		}
	}
	if err == nil {
		from.pins++
		err = u.make(up, base, func() error { return unix.Linkat(from.fd, name, up.fd, base, 0) })
		from.pins--
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return errs.New(errs.Corrupt, "hard link to %.200q, which this layer does not bring: %w", h.Linkname, err)
	}
	return &os.PathError{Op: "link", Path: h.Name, Err: err}
}

// special makes a FIFO or a device.
func (u *unpacker) special(h *tarball.Header, up *dirNode, base string) error {
	mode := uint32(h.Mode) & modePerm
	var dev uint64
	switch h.Type {
	case tarball.FIFO:
		mode |= unix.S_IFIFO
	case tarball.Char:
		mode |= unix.S_IFCHR
	case tarball.Block:
		mode |= unix.S_IFBLK
	}
	if h.Type != tarball.FIFO {
		if h.Major < 0 || h.Major > 1<<12-1 || h.Minor < 0 || h.Minor > 1<<20-1 {
			return errs.New(errs.Corrupt, "device %d:%d: not a device number", h.Major, h.Minor)
		}
		dev = unix.Mkdev(uint32(h.Major), uint32(h.Minor))
	}
	err := u.make(up, base, func() error { return unix.Mknodat(up.fd, base, mode, int(dev)) })
	if err == unix.EPERM && h.Type != tarball.FIFO {
		// In a user namespace, and in some containers: nobody may.
		u.res.SkippedDevices++
		if len(u.res.Devices) < maxTold {
			u.res.Devices = append(u.res.Devices, join(up.path, base))
		}
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "mknod", Path: h.Name, Err: err}
	}
	return u.byName(h, up, base)
}

// byName sets the metadata of what cannot be opened without effects. The name
// was made a moment ago in a directory that is nobody else's.
func (u *unpacker) byName(h *tarball.Header, up *dirNode, base string) error {
	if u.needChown(h) {
		if err := unix.Fchownat(up.fd, base, int(h.UID), int(h.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: h.Name, Err: err}
		}
	}
	if mode := uint32(h.Mode); h.Type != tarball.Symlink && (mode&modeSpecial != 0 || mode&u.umask != 0) {
		if err := tree.ChmodFdAt(up.fd, base, mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: h.Name, Err: err}
		}
	}
	// An owner that was folded cannot be kept: user.* attributes are for regular
	// files and directories (xattr(7)).
	if len(h.Xattrs) > 0 {
		if err := u.setXattrsAt(up, base, h.Name, h.Xattrs); err != nil {
			return err
		}
	}
	if err := unix.UtimesNanoAt(up.fd, base, times(h), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: h.Name, Err: err}
	}
	return nil
}

// dir makes a directory, or gives one that is there the entry's metadata.
func (u *unpacker) dir(h *tarball.Header, up *dirNode, base string) error {
	perm := uint32(h.Mode)&modePerm | 0o700
	fresh := true
	overWhiteout := false
	err := u.make(up, base, func() error {
		err := unix.Mkdirat(up.fd, base, perm)
		if err != unix.EEXIST {
			return err
		}
		var st unix.Stat_t
		if e := unix.Fstatat(up.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); e != nil {
			return e
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fresh = false
			return nil
		}
		overWhiteout = isWhiteout(&st)
		return err
	})
	if err != nil {
		return &os.PathError{Op: "mkdir", Path: h.Name, Err: err}
	}
	if overWhiteout {
		fd, err := openHere(up.fd, base, false)
		if err != nil {
			return &os.PathError{Op: "open", Path: h.Name, Err: err}
		}
		err = u.setOpaque(&dirNode{path: join(up.path, base), fd: fd})
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	if !fresh || u.needChown(h) {
		if err := unix.Fchownat(up.fd, base, int(h.UID), int(h.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: h.Name, Err: err}
		}
	}
	mode := uint32(h.Mode) & 0o7777
	u.noteDir(dirMeta{
		path: join(up.path, base), mode: mode, setMode: !fresh || mode != perm || perm&u.umask != 0,
		sec: h.ModSec, nsec: h.ModNsec, setTime: true, xattrs: h.Xattrs, folded: u.folded,
	})
	return nil
}

// rootDir is the entry "./".
func (u *unpacker) rootDir(h *tarball.Header) error {
	if err := unix.Fchown(u.root, int(h.UID), int(h.GID)); err != nil {
		return &os.PathError{Op: "chown", Path: h.Name, Err: err}
	}
	u.noteDir(dirMeta{mode: uint32(h.Mode) & 0o7777, setMode: true, sec: h.ModSec, nsec: h.ModNsec, setTime: true, xattrs: h.Xattrs, folded: u.folded})
	return nil
}

// dirMade is told of directories that have no entry of their own (yet).
func (u *unpacker) dirMade(up *dirNode, name string, overWhiteout bool) error {
	full := join(up.path, name)
	if u.needChown(&tarball.Header{}) {
		if err := unix.Fchownat(up.fd, name, 0, 0, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: full, Err: err}
		}
	}
	if u.umask&0o755 != 0 {
		u.noteDir(dirMeta{path: full, mode: 0o755, setMode: true})
	}
	if overWhiteout {
		fd, err := openHere(up.fd, name, false)
		if err != nil {
			return &os.PathError{Op: "open", Path: full, Err: err}
		}
		defer closeFD(fd)
		return u.setOpaque(&dirNode{path: full, fd: fd})
	}
	return nil
}

// noteDir remembers what finishDirs has to do; the last entry of a name wins.
func (u *unpacker) noteDir(m dirMeta) {
	if len(m.xattrs) > 0 {
		m.xattrs = append([]tarball.Xattr(nil), m.xattrs...) // the header's slice is reused
	}
	if i, ok := u.metaOf[m.path]; ok {
		m.setMode = m.setMode || u.meta[i].setMode
		u.meta[i] = m
		return
	}
	u.metaOf[m.path] = len(u.meta)
	u.meta = append(u.meta, m)
}

// finishDirs sets modes, attributes and times of directories.
func (u *unpacker) finishDirs() error {
	// From the end: a directory comes before what is in it, and its own mode may
	// forbid to go there.
	for i := len(u.meta) - 1; i >= 0; i-- {
		m := &u.meta[i]
		if m.gone {
			continue
		}
		if err := u.finishDir(m); err != nil {
			return &os.PathError{Op: "set metadata", Path: "/" + m.path, Err: err}
		}
	}
	return nil
}

func (u *unpacker) finishDir(m *dirMeta) error {
	ts := []unix.Timespec{{Sec: m.sec, Nsec: m.nsec}, {Sec: m.sec, Nsec: m.nsec}}
	dir, base := splitPath(m.path)
	up, err := u.dirs.get(dir)
	if err != nil {
		return err
	}
	if m.path != "" && !m.setMode && len(m.xattrs) == 0 && m.folded == "" {
		return unix.UtimesNanoAt(up.fd, base, ts, unix.AT_SYMLINK_NOFOLLOW)
	}
	if m.path == "" {
		base = "."
	}
	fd, err := unix.Openat(up.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if m.setMode {
		if err := unix.Fchmod(fd, m.mode); err != nil {
			return err
		}
	}
	if len(m.xattrs) > 0 || m.folded != "" {
		if err := u.setXattrs(fd, m.path, m.xattrs, m.folded); err != nil {
			return err
		}
	}
	if m.setTime {
		return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
	}
	return nil
}
