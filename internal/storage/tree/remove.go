package tree

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// maxRounds bounds how often a directory is listed again because somebody puts
// files into it while it is removed.
const maxRounds = 16

// Remove removes dir and everything in it. The path to dir is trusted, what is
// in it is not. A directory that is not there is removed already.
func Remove(dir string) error {
	dir = filepath.Clean(dir)
	if dir == "/" || dir == "." {
		return errs.New(errs.Invalid, "remove %q: not a directory that may go", dir)
	}
	parent, err := unix.Open(filepath.Dir(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	defer closeFD(parent)
	return removeAt(parent, filepath.Base(dir), dir)
}

// RemoveAt is Remove for one name in the directory parent. The name may be
// anything but a directory, too.
func RemoveAt(parent *os.File, name string) error {
	return removeAt(int(parent.Fd()), name, filepath.Join(parent.Name(), name))
}

// RemoveFdAt is RemoveAt for a plain descriptor.
func RemoveFdAt(parent int, name string) error { return removeAt(parent, name, name) }

func removeAt(parent int, name, path string) error {
	switch err := unix.Unlinkat(parent, name, 0); err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR:
	case unix.EPERM, unix.EACCES, unix.EBUSY:
		// Perhaps a directory: POSIX wants EPERM for one.
		var st unix.Stat_t
		if e := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); e != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return &os.PathError{Op: "remove", Path: path, Err: err}
		}
	default:
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	// An empty directory needs no walk.
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err == nil || err == unix.ENOENT {
		return nil
	}
	w := &walker{op: "remove", top: path, repair: makeAccessible}
	w.entry = func(dir int, name string, typ byte) (bool, error) {
		if typ == unix.DT_DIR {
			return true, nil
		}
		err := unix.Unlinkat(dir, name, 0)
		switch err {
		case nil, unix.ENOENT:
			return false, nil
		case unix.EISDIR:
			return true, nil
		case unix.EPERM, unix.EACCES:
			if isDirAt(dir, name) {
				return true, nil
			}
			if d, e := repairDir(dir), repairEntry(dir, name); d || e {
				err = unix.Unlinkat(dir, name, 0)
			}
		}
		return false, explain(err)
	}
	w.leave = func(parent int, l *level) (bool, error) {
		err := unix.Unlinkat(parent, l.name, unix.AT_REMOVEDIR)
		switch err {
		case nil, unix.ENOENT:
			return false, nil
		case unix.ENOTEMPTY, unix.EEXIST:
			if w.count > 0 {
				return false, nil // the reason has been told
			}
			return l.rounds < maxRounds, err
		case unix.EPERM, unix.EACCES:
			clearFlags(l.fd)
			if repairDir(parent) {
				err = unix.Unlinkat(parent, l.name, unix.AT_REMOVEDIR)
			}
		}
		return false, explain(err)
	}
	err := w.walk(parent, name)
	if errors.Is(err, unix.ENOENT) && len(w.errs) == 0 {
		return nil
	}
	return err
}

func isDirAt(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// explain gives EPERM, which after all the repairs has one likely cause left,
// its meaning.
func explain(err error) error {
	if err == unix.EPERM || err == unix.EACCES {
		return errs.As(errs.Denied, err)
	}
	if err == unix.EBUSY {
		return errs.New(errs.Conflict, "is a mount point: %w", err)
	}
	return err
}

// makeAccessible gives the owner all permissions on a directory that cannot be
// opened.
func makeAccessible(dir int, name string) bool {
	return isDirAt(dir, name) && ChmodFdAt(dir, name, 0o700) == nil
}

// ChmodFdAt changes the mode of what has this name in a directory, of itself and
// never of what a link leads to: fchmodat(2) would follow a link swapped in, and
// fchmodat2(2) is new in Linux 6.6. A descriptor taken with O_PATH needs no
// permission and has no effect on a device; through /proc its mode can be
// changed. A symbolic link's cannot: EOPNOTSUPP or ELOOP.
func ChmodFdAt(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// repairDir makes an open directory writable for its owner.
func repairDir(fd int) bool {
	cleared := clearFlags(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return cleared
	}
	if st.Mode&0o700 == 0o700 {
		return cleared
	}
	return unix.Fchmod(fd, st.Mode&0o7777|0o700) == nil
}

// Inode flags that forbid removal, from linux/fs.h.
const (
	flagImmutable = 0x10
	flagAppend    = 0x20
)

// repairEntry takes the immutable and append-only flags off a file or directory.
func repairEntry(dir int, name string) bool {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return false // opening a device or FIFO has effects, and these have no flags
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer closeFD(fd)
	return clearFlags(fd)
}

// clearFlags reports whether it removed a flag.
func clearFlags(fd int) bool {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(flagImmutable|flagAppend) == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^(flagImmutable|flagAppend)) == nil
}
