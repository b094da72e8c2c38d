package tree

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// CopyOptions say what a copy means.
type CopyOptions struct {
	// Overlay treats the source as a layer of an overlay stack that is laid over
	// the target: whiteouts remove, opaque directories replace.
	Overlay bool
	// Layer copies a layer as one: whiteouts and what else overlayfs has written
	// down are kept as they are.
	Layer bool
	// Owner, if set, says whose the copy of a file is that belongs to uid and gid.
	Owner func(uid, gid uint32) (int, int)
}

// inode is the identity of a file.
type inode struct{ dev, ino uint64 }

type copier struct {
	ctx   context.Context
	o     CopyOptions
	dst   int              // the top, for hard links
	links map[inode]string // path in dst of files with several names
	buf   []byte
	path  []string
	n     int64
}

// Copy copies everything in the directory src into the directory dst, and gives
// dst src's own owner, mode, attributes and times. Files of the same name are
// replaced, directories are merged. Holes, hard links, extended attributes and
// times are kept; sockets are left out, and devices where the caller may not
// make them. No name of either tree is followed. It returns the number of
// entries copied.
func Copy(ctx context.Context, dst, src *os.File, o CopyOptions) (int64, error) {
	c := &copier{ctx: ctx, o: o, dst: int(dst.Fd()), links: map[inode]string{}}
	s, err := unix.Openat(int(src.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: src.Name(), Err: err}
	}
	defer closeFD(s)
	d, err := unix.Openat(c.dst, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dst.Name(), Err: err}
	}
	defer closeFD(d)
	err = c.dir(d, s)
	return c.n, err
}

func (c *copier) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: strings.Join(append(c.path, name), "/"), Err: err}
}

// dir copies an open directory into an open directory.
func (c *copier) dir(dst, src int) error {
	if c.o.Overlay && opaque(src) {
		if err := c.empty(dst); err != nil {
			return err
		}
	}
	names, err := readNames(src)
	if err != nil {
		return c.fail("read", "", err)
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(dst, src, name); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return c.fail("stat", "", err)
	}
	return c.meta(dst, src, &st, "")
}

// empty removes what earlier layers put into a directory.
func (c *copier) empty(dst int) error {
	names, err := readNames(dst)
	if err != nil {
		return c.fail("read", "", err)
	}
	for _, name := range names {
		if err := RemoveFdAt(dst, name); err != nil {
			return c.fail("remove", name, err)
		}
	}
	return nil
}

// readNames returns the names in an open directory.
func readNames(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, 0); err != nil {
		return nil, err
	}
	buf := make([]byte, 16<<10)
	var names []string
	for {
		n, err := unix.Getdents(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return names, err
		}
		for b := buf[:n]; len(b) > 0; {
			var name string
			if name, _, b = dirent(b); name != "." && name != ".." {
				names = append(names, name)
			}
		}
	}
}

func (c *copier) entry(dst, src int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return c.fail("stat", name, err)
	}
	typ := st.Mode & unix.S_IFMT
	if c.o.Overlay && typ == unix.S_IFCHR && st.Rdev == 0 {
		return c.fail("remove", name, RemoveFdAt(dst, name))
	}
	c.n++
	if typ == unix.S_IFDIR {
		return c.subdir(dst, src, name)
	}
	if typ == unix.S_IFSOCK {
		return nil
	}
	if err := RemoveFdAt(dst, name); err != nil {
		return c.fail("remove", name, err)
	}
	if st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return c.fail("link", name, c.link(first, dst, name))
		}
		c.links[key] = strings.Join(append(c.path, name), "/")
	}
	switch typ {
	case unix.S_IFREG:
		return c.file(dst, src, name)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), dst, name)
		}
		if err != nil {
			return c.fail("symlink", name, err)
		}
	default:
		err := unix.Mknodat(dst, name, typ|st.Mode&0o777, int(st.Rdev))
		if err == unix.EPERM && typ != unix.S_IFIFO {
			c.n--
			return nil
		}
		if err != nil {
			return c.fail("mknod", name, err)
		}
	}
	return c.metaAt(dst, src, name, &st)
}

// link gives the file at path (below the top) another name.
func (c *copier) link(path string, dst int, name string) error {
	i := strings.LastIndexByte(path, '/')
	dir, base := ".", path[i+1:]
	if i >= 0 {
		dir = path[:i]
	}
	fd, err := openDirAt(c.dst, dir)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return unix.Linkat(fd, base, dst, name, 0)
}

func (c *copier) subdir(dst, src int, name string) error {
	s, err := openDirAt(src, name)
	if err != nil {
		return c.fail("open", name, err)
	}
	defer closeFD(s)
	d := -1
	for try := 0; ; try++ {
		err := unix.Mkdirat(dst, name, 0o700)
		if err != nil && err != unix.EEXIST {
			return c.fail("mkdir", name, err)
		}
		d, err = openDirAt(dst, name)
		if (err == unix.ENOTDIR || err == unix.ELOOP) && try == 0 {
			if err := RemoveFdAt(dst, name); err != nil {
				return c.fail("remove", name, err)
			}
			continue
		}
		if err != nil {
			return c.fail("open", name, err)
		}
		break
	}
	defer closeFD(d)
	c.path = append(c.path, name)
	err = c.dir(d, s)
	c.path = c.path[:len(c.path)-1]
	return err
}

func (c *copier) file(dst, src int, name string) error {
	// O_NONBLOCK: should it be a FIFO by now, we do not wait for a writer.
	s, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return c.fail("open", name, err)
	}
	defer closeFD(s)
	var st unix.Stat_t
	if err := unix.Fstat(s, &st); err != nil {
		return c.fail("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return c.fail("copy", name, errs.New(errs.Conflict, "is no longer a regular file"))
	}
	d, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return c.fail("create", name, err)
	}
	defer closeFD(d)
	if err := c.data(d, s, st.Size, st.Blocks*512 < st.Size); err != nil {
		return c.fail("copy", name, err)
	}
	return c.meta(d, s, &st, name)
}

// data copies a file's data and keeps its holes.
func (c *copier) data(dst, src int, size int64, holes bool) error {
	pos := int64(0)
	for pos < size {
		end := size
		if holes {
			from, err := unix.Seek(src, pos, unix.SEEK_DATA)
			if err == unix.ENXIO {
				break // a hole up to the end
			}
			if err == nil {
				pos = from
				if end, err = unix.Seek(src, pos, unix.SEEK_HOLE); err != nil {
					return err
				}
			}
		}
		for pos < end {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			n, err := c.piece(dst, src, pos, min(end-pos, 64<<20))
			if err != nil {
				return err
			}
			if n == 0 {
				return unix.Ftruncate(dst, pos) // it became shorter
			}
			pos += int64(n)
		}
	}
	return unix.Ftruncate(dst, size)
}

// piece copies up to n bytes at pos: in the kernel, where it can share blocks,
// or else through a buffer.
func (c *copier) piece(dst, src int, pos, n int64) (int, error) {
	if c.buf == nil {
		from, to := pos, pos
		k, err := unix.CopyFileRange(src, &from, dst, &to, int(n), 0)
		switch err {
		case nil:
			if k > 0 {
				return k, nil
			}
		case unix.EXDEV, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EIO:
			// Across file systems, and from some (procfs says 0), not in the kernel.
		case unix.EINTR:
			return c.piece(dst, src, pos, n)
		default:
			return 0, err
		}
		c.buf = make([]byte, 256<<10)
	}
	k, err := unix.Pread(src, c.buf[:min(n, int64(len(c.buf)))], pos)
	if err != nil {
		return 0, err
	}
	for done := 0; done < k; {
		w, err := unix.Pwrite(dst, c.buf[done:k], pos+int64(done))
		if err != nil {
			return done, err
		}
		done += w
	}
	return k, nil
}

func stamps(st *unix.Stat_t) []unix.Timespec { return []unix.Timespec{st.Atim, st.Mtim} }

// meta copies owner, mode, attributes and times between descriptors, in this
// order: chown(2) clears set-id bits and file capabilities.
func (c *copier) meta(dst, src int, st *unix.Stat_t, name string) error {
	uid, gid := c.owner(st)
	if err := unix.Fchown(dst, uid, gid); err != nil {
		return c.fail("chown", name, err)
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return c.fail("chmod", name, err)
	}
	err := c.copyXattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(src, b) },
		func(k string, b []byte) (int, error) { return unix.Fgetxattr(src, k, b) },
		func(k string, b []byte) error { return unix.Fsetxattr(dst, k, b, 0) })
	if err != nil {
		return c.fail("copy attributes", name, err)
	}
	return c.fail("utimensat", name, unix.UtimesNanoAt(dst, "", stamps(st), unix.AT_EMPTY_PATH))
}

// metaAt is meta for what cannot be opened.
func (c *copier) metaAt(dst, src int, name string, st *unix.Stat_t) error {
	uid, gid := c.owner(st)
	if err := unix.Fchownat(dst, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return c.fail("chown", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := ChmodFdAt(dst, name, st.Mode&0o7777); err != nil {
			return c.fail("chmod", name, err)
		}
	}
	from := "/proc/self/fd/" + strconv.Itoa(src) + "/" + name
	to := "/proc/self/fd/" + strconv.Itoa(dst) + "/" + name
	err := c.copyXattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(from, b) },
		func(k string, b []byte) (int, error) { return unix.Lgetxattr(from, k, b) },
		func(k string, b []byte) error { return unix.Lsetxattr(to, k, b, 0) })
	if err != nil {
		return c.fail("copy attributes", name, err)
	}
	return c.fail("utimensat", name, unix.UtimesNanoAt(dst, name, stamps(st), unix.AT_SYMLINK_NOFOLLOW))
}

// owner is who gets the copy of a file.
func (c *copier) owner(st *unix.Stat_t) (uid, gid int) {
	if c.o.Owner != nil {
		return c.o.Owner(st.Uid, st.Gid)
	}
	return int(st.Uid), int(st.Gid)
}

func (c *copier) copyXattrs(list func([]byte) (int, error), get func(string, []byte) (int, error), set func(string, []byte) error) error {
	var small [256]byte
	names := small[:]
	n, err := list(names)
	if err == unix.ERANGE {
		names = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = list(names)
	}
	if err == unix.EOPNOTSUPP || err == nil && n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for k := range bytes.SplitSeq(bytes.TrimSuffix(names[:n], []byte{0}), []byte{0}) {
		key := string(k)
		// Instructions to overlayfs, and labels that the target gets by itself.
		overlay := strings.HasPrefix(key, "trusted.overlay.") || strings.HasPrefix(key, "user.overlay.")
		if (overlay || strings.HasPrefix(key, "trusted.")) && !(overlay && c.o.Layer) ||
			strings.HasPrefix(key, "security.") && key != "security.capability" {
			continue
		}
		n, err := get(key, value)
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			continue
		}
		if err != nil {
			return err
		}
		if err := set(key, value[:n]); err != nil && err != unix.EOPNOTSUPP {
			return err
		}
	}
	return nil
}

// opaque reports whether a layer's directory hides the one below it.
func opaque(dir int) bool {
	var v [2]byte
	for _, name := range [...]string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(dir, name, v[:]); err == nil && n == 1 && v[0] == 'y' {
			return true
		}
	}
	return false
}
