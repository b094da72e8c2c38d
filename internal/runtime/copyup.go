package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
)

// copyUp makes a tmpfs that begins with the files of the directory it covers
// (the option tmpcopyup). The parent copies: the child cannot, and what the
// directory holds may be anything, but is only ever reached by descriptor and
// without following links.
//
// Where the parent may mount, it makes the file system as well, in its own user
// namespace: only there can any owner be written.
func (c *compiler) copyUp(m *mount, t program.Slot) program.Arg {
	p := c.p
	if c.parentMounts {
		mnt := p.Slot("tmpfs")
		p.Exchange(t.Arg(), func(_ int, from *os.File) (*os.File, error) {
			defer from.Close()
			to, err := newTmpfs(m)
			if err != nil {
				return nil, err
			}
			if err := copyTree(from, to, m.opt.data); err != nil {
				_ = to.Close() // the file system goes with it
				return nil, err
			}
			return to, nil
		}).To(mnt)
		return mnt.Arg()
	}
	mnt := c.newMount(m)
	var from *os.File
	p.Exchange(t.Arg(), func(_ int, f *os.File) (*os.File, error) {
		from = f
		return nil, nil //nolint:nilnil // no file is sent back
	})
	p.Exchange(mnt.Arg(), func(_ int, to *os.File) (*os.File, error) {
		defer to.Close()
		defer from.Close()
		return nil, copyTree(from, to, m.opt.data)
	})
	return mnt.Arg()
}

// newTmpfs makes a detached tmpfs with the options of m, not yet read-only.
func newTmpfs(m *mount) (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs) //nolint:errcheck // a context, done with
	set := func(kv string) error {
		if k, v, ok := strings.Cut(kv, "="); ok {
			return unix.FsconfigSetString(fs, k, v)
		}
		return unix.FsconfigSetFlag(fs, kv)
	}
	if m.spec.Source != "" {
		err = unix.FsconfigSetString(fs, "source", m.spec.Source)
	}
	for _, kv := range m.opt.data {
		if err == nil {
			err = set(kv)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(m.opt.set|m.opt.rset|m.opt.atime)&^unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(mnt), "tmpfs"), nil
}

// copyTree copies what is in a directory into another one, which gets its mode
// and owner too, unless options say otherwise.
func copyTree(from, to *os.File, options []string) error {
	src, err := openDir(from, ".")
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer src.Close()
	dst, err := openDir(to, ".")
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer dst.Close()
	if err := copyDir(src, dst); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if _, v := splitOption(options, "mode"); v != "" {
		n, err := strconv.ParseUint(v, 8, 32)
		if err != nil {
			return errs.New(errs.Invalid, "mode %q: not an octal number", v)
		}
		st.Mode = uint32(n)
	} else if err := chown(dst, ".", &st); err != nil {
		return err
	}
	return unix.Fchmod(int(dst.Fd()), st.Mode&0o7777)
}

func openDir(at *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(at.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func copyDir(src, dst *os.File) error {
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(src, dst, name); err != nil {
			return err
		}
	}
	return nil
}

// copyEntry copies one file with all that is below. Sockets are left out: they
// mean nothing without the process that made them.
func copyEntry(src, dst *os.File, name string) error {
	var st unix.Stat_t
	from, to := int(src.Fd()), int(dst.Fd())
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = copySubdir(src, dst, name)
	case unix.S_IFREG:
		err = copyFile(src, dst, name)
	case unix.S_IFLNK:
		buf := make([]byte, 4097)
		n, rerr := unix.Readlinkat(from, name, buf)
		if rerr != nil {
			return &os.PathError{Op: "readlink", Path: name, Err: rerr}
		}
		err = unix.Symlinkat(string(buf[:n]), to, name)
	case unix.S_IFSOCK:
		return nil
	default:
		err = unix.Mknodat(to, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return &os.PathError{Op: "copy", Path: name, Err: err}
	}
	if err := chown(dst, name, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		// After the owner: a change of that clears set-id bits (chown(2)).
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: name, Err: err}
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(to, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// chown gives a file its owner. An ordinary user's copy belongs to the user.
func chown(dir *os.File, name string, st *unix.Stat_t) error {
	err := unix.Fchownat(int(dir.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	return nil
}

func copySubdir(src, dst *os.File, name string) error {
	if err := unix.Mkdirat(int(dst.Fd()), name, 0o700); err != nil {
		return err
	}
	from, err := openDir(src, name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openDir(dst, name)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := copyDir(from, to); err != nil {
		return err
	}
	return copyAttrs(from, to)
}

func copyFile(src, dst *os.File, name string) error {
	fd, err := unix.Openat(int(src.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), name)
	defer from.Close()
	fd, err = unix.Openat(int(dst.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(to, from)
	return errors.Join(err, copyAttrs(from, to), to.Close())
}

// copyAttrs copies extended attributes, as far as a tmpfs takes them.
func copyAttrs(from, to *os.File) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(from.Fd()), buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		k, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err != nil {
			continue // it was removed meanwhile, or is not ours to read
		}
		err = unix.Fsetxattr(int(to.Fd()), name, value[:k], 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}
