package pack

import (
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/storage/tarball"
)

// Target says where and how an archive is laid out.
type Target struct {
	Dir *os.File // where
	// Root, if set, is the root that links on the way to an entry are resolved in,
	// and Path is where Dir lies below it. Without it no link is followed.
	Root *os.File
	Path string
	// Rename replaces the first component of every name; with Strip that is
	// dropped, and what was in the directory comes into Dir itself.
	Rename string
	Strip  bool
	// Owner translates the owner of an entry; nil leaves files to the caller.
	Owner func(uid, gid int64) (int, int, error)
}

type dirMeta struct {
	path string
	h    tarball.Header
}

type extractor struct {
	t      Target
	dirs   []dirMeta
	last   string // path of the parent that up is open for
	up     int
	opened bool
}

// Extract lays an archive out.
func Extract(r io.Reader, t Target) (Err error) {
	x := &extractor{t: t, up: -1}
	defer func() {
		if x.opened {
			_ = unix.Close(x.up)
		}
	}()
	tr := tarball.New(tarball.FromReader(r, make([]byte, 256<<10)), tarball.Limits{})
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if h.Type == tarball.Global {
			continue
		}
		if err := x.entry(tr, h); err != nil {
			return err
		}
	}
	// Children first: writing into a directory changes its time.
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if err := x.finish(&x.dirs[i]); err != nil {
			return err
		}
	}
	return drain(r)
}

// drain lets the writer finish: an archive may be padded.
func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// name is where an entry goes, below the target; "" is the target itself.
func (x *extractor) name(unsafeName string) string {
	p := strings.TrimPrefix(path.Clean("/"+unsafeName), "/")
	if !x.t.Strip && x.t.Rename == "" {
		return p
	}
	_, rest, _ := strings.Cut(p, "/")
	if x.t.Strip {
		return rest
	}
	return strings.TrimSuffix(x.t.Rename+"/"+rest, "/")
}

// parent opens the directory that holds name, making what is missing.
func (x *extractor) parent(dir string) (int, error) {
	if x.opened && x.last == dir {
		return x.up, nil
	}
	fd, err := x.open(dir)
	if errors.Is(err, unix.ENOENT) && dir != "" {
		up, base := path.Split(dir)
		upfd, perr := x.parent(strings.TrimSuffix(up, "/"))
		if perr != nil {
			return -1, perr
		}
		if err := unix.Mkdirat(upfd, base, 0o755); err != nil && err != unix.EEXIST {
			return -1, &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		fd, err = x.open(dir)
	}
	if err != nil {
		return -1, err
	}
	if x.opened {
		_ = unix.Close(x.up) // O_PATH; nothing to lose
	}
	x.up, x.last, x.opened = fd, dir, true
	return fd, nil
}

func (x *extractor) open(dir string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC}
	from, p := x.t.Dir, dir
	if x.t.Root != nil && dir != "" {
		from, p = x.t.Root, strings.TrimPrefix(x.t.Path+"/"+dir, "/")
		how.Resolve = defence.Resolve(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS)
	} else {
		how.Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS
	}
	if p == "" {
		p = "."
	}
	fd, err := openat2(from, p, &how)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

func openat2(dir *os.File, p string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(int(dir.Fd()), p, how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

func (x *extractor) entry(tr *tarball.Reader, h *tarball.Header) error {
	name := x.name(h.Name)
	if name == "" {
		return nil // the target itself, which stays as it is
	}
	dir, base := path.Split(name)
	up, err := x.parent(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	fail := func(op string, err error) error { return &os.PathError{Op: op, Path: name, Err: err} }
	var st unix.Stat_t
	err = unix.Fstatat(up, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && err != unix.ENOENT {
		return fail("stat", err)
	}
	there, isDir := err == nil, err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	if h.Type == tarball.Dir {
		if there && !isDir {
			return errs.New(errs.Conflict, "cannot overwrite non-directory %q with directory %q", name, h.Name)
		}
		if !there {
			if err := unix.Mkdirat(up, base, 0o700); err != nil && err != unix.EEXIST {
				return fail("mkdir", err)
			}
		}
		x.dirs = append(x.dirs, dirMeta{name, *h})
		return nil
	}
	if isDir {
		return errs.New(errs.Conflict, "cannot overwrite directory %q with non-directory %q", name, h.Name)
	}
	switch h.Type {
	case tarball.Regular, tarball.Symlink, tarball.HardLink, tarball.Char, tarball.Block, tarball.FIFO:
	default:
		return nil // of no known type
	}
	busy := false
	if there {
		err := unix.Unlinkat(up, base, 0)
		busy = err == unix.EBUSY && h.Type == tarball.Regular // a mount: its file is written
		if err != nil && err != unix.ENOENT && !busy {
			return fail("replace", err)
		}
	}
	switch h.Type {
	case tarball.Regular:
		return x.file(tr, h, up, base, busy)
	case tarball.Symlink:
		if err := unix.Symlinkat(h.Linkname, up, base); err != nil {
			return fail("symlink", err)
		}
	case tarball.HardLink:
		return x.link(h, up, base)
	default:
		typ := map[byte]uint32{tarball.Char: unix.S_IFCHR, tarball.Block: unix.S_IFBLK, tarball.FIFO: unix.S_IFIFO}[h.Type]
		if err := unix.Mknodat(up, base, typ|0o600, int(unix.Mkdev(uint32(h.Major), uint32(h.Minor)))); err != nil {
			return fail("mknod", err)
		}
	}
	return x.meta(h, up, base)
}

// link makes a further name of a file that came before.
func (x *extractor) link(h *tarball.Header, up int, base string) error {
	target := x.name(h.Linkname)
	dir, name := path.Split(target)
	fd, err := x.open(strings.TrimSuffix(dir, "/"))
	if err == nil {
		err = unix.Linkat(fd, name, up, base, 0)
		_ = unix.Close(fd) // O_PATH; nothing to lose
	}
	if err != nil {
		return &os.PathError{Op: "link", Path: target, Err: err}
	}
	return nil
}

func (x *extractor) file(tr *tarball.Reader, h *tarball.Header, up int, base string, exists bool) error {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if exists {
		flags = unix.O_WRONLY | unix.O_TRUNC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	}
	fd, err := unix.Openat(up, base, flags, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: h.Name, Err: err}
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	for {
		piece, off, err := tr.Data()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(piece, off); err != nil {
			return err
		}
	}
	if h.Sparse {
		if err := f.Truncate(h.Size); err != nil {
			return err
		}
	}
	mode := uint32(h.Mode & 0o7777)
	if x.t.Owner == nil {
		mode &^= unix.S_ISUID | unix.S_ISGID // it would be the caller's power, not its maker's
	} else {
		uid, gid, err := x.t.Owner(h.UID, h.GID)
		if err != nil {
			return err
		}
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return &os.PathError{Op: "chmod", Path: h.Name, Err: err}
	}
	if x.t.Owner != nil {
		for _, a := range h.Xattrs {
			if a.Name != "security.capability" {
				continue
			}
			if err := unix.Fsetxattr(fd, a.Name, []byte(a.Value), 0); err != nil && err != unix.EPERM && err != unix.EOPNOTSUPP {
				return &os.PathError{Op: "setxattr", Path: h.Name, Err: err}
			}
		}
	}
	return utimes(fd, "", h, unix.AT_EMPTY_PATH)
}

func utimes(fd int, base string, h *tarball.Header, flags int) error {
	ts := []unix.Timespec{{Sec: h.ModSec, Nsec: h.ModNsec}, {Sec: h.ModSec, Nsec: h.ModNsec}}
	if err := unix.UtimesNanoAt(fd, base, ts, flags); err != nil {
		return &os.PathError{Op: "utimensat", Path: h.Name, Err: err}
	}
	return nil
}

// meta gives an entry that cannot be opened its owner, mode and time.
func (x *extractor) meta(h *tarball.Header, up int, base string) error {
	if x.t.Owner != nil {
		uid, gid, err := x.t.Owner(h.UID, h.GID)
		if err != nil {
			return err
		}
		if err := unix.Fchownat(up, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: h.Name, Err: err}
		}
	}
	if h.Type != tarball.Symlink {
		// By descriptor: fchmodat(2) follows links, and the name may be one by now.
		fd, err := unix.Openat(up, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			var st unix.Stat_t
			if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
				err = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(h.Mode&0o777))
			}
			_ = unix.Close(fd) // O_PATH; nothing to lose
		}
		if err != nil {
			return &os.PathError{Op: "chmod", Path: h.Name, Err: err}
		}
	}
	return utimes(up, base, h, unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives a directory its owner, mode and time.
func (x *extractor) finish(d *dirMeta) error {
	fd, err := x.open(d.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // O_PATH; nothing to lose
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	mode := uint32(d.h.Mode & 0o7777)
	if x.t.Owner != nil {
		uid, gid, err := x.t.Owner(d.h.UID, d.h.GID)
		if err != nil {
			return err
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "chown", Path: d.path, Err: err}
		}
	} else {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if err := unix.Chmod(self, mode); err != nil {
		return &os.PathError{Op: "chmod", Path: d.path, Err: err}
	}
	return utimes(unix.AT_FDCWD, self, &d.h, 0)
}
