package pack

import (
	"io"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/tarball"
)

// Options say how files are written and made.
type Options struct {
	// UID and GID translate the ids of files to those of the stream, or back;
	// nil leaves them.
	UID, GID func(id uint32) uint32
	// OneFS leaves the content of other file systems out: a mount point is an
	// empty directory. Kernel file systems (proc, sysfs ...) are always left out.
	OneFS bool
	// Layer says that the tree is the directory of a layer, for overlayfs: its
	// whiteouts and opaque directories are written as those of a layer's archive,
	// all that an image may say of a file is kept, and so are recorded owners.
	Layer bool
}

type inode struct{ dev, ino uint64 }

// Packer writes trees to an archive.
type Packer struct {
	t     *tarball.Writer
	o     Options
	links map[inode]string
	buf   []byte
}

// New returns a Packer that writes to w.
func New(w io.Writer, o Options) *Packer {
	return &Packer{t: tarball.NewWriter(w), o: o, links: map[inode]string{}}
}

// Close ends the archive.
func (p *Packer) Close() error { return p.t.Close() }

// Size returns the bytes written.
func (p *Packer) Size() int64 { return p.t.Size() }

// Whiteout writes the entry that takes a name away in a layer.
func (p *Packer) Whiteout(name string) error {
	return p.t.Next(&tarball.Header{Type: tarball.Regular, Name: name, Mode: 0o600})
}

// Add writes what dir has at name, with all below it, as the archive's as.
func (p *Packer) Add(dir *os.File, name, as string) error {
	return p.add(int(dir.Fd()), name, as, true)
}

// AddOne writes the same without what is below it.
func (p *Packer) AddOne(dir *os.File, name, as string) error {
	return p.add(int(dir.Fd()), name, as, false)
}

// AddContent writes what is in dir, with names below as ("" for none).
func (p *Packer) AddContent(dir *os.File, as string) error {
	fd, err := openDir(int(dir.Fd()), ".")
	if err != nil {
		return &os.PathError{Op: "open", Path: "/" + as, Err: err}
	}
	f := os.NewFile(uintptr(fd), as)
	defer f.Close()
	return p.content(f, as)
}

func (p *Packer) content(f *os.File, as string) error {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return &os.PathError{Op: "read", Path: "/" + as, Err: err}
	}
	slices.Sort(names)
	if as != "" && as[len(as)-1] != '/' {
		as += "/"
	}
	for _, n := range names {
		if err := p.add(int(f.Fd()), n, as+n, true); err != nil {
			return err
		}
	}
	return nil
}

// openDir opens a directory by one name that is no link.
func openDir(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (p *Packer) add(dir int, name, as string, deep bool) error {
	fail := func(op string, err error) error { return &os.PathError{Op: op, Path: "/" + as, Err: err} }
	// One open descriptor for look and content, so that they are of one file.
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil // gone meanwhile
	}
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(fd) //nolint:errcheck // O_PATH; nothing to lose
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return fail("stat", err)
	}
	h := tarball.Header{Name: as, Mode: int64(st.Mode & 0o7777), UID: int64(st.Uid), GID: int64(st.Gid), ModSec: st.Mtime.Sec, ModNsec: int64(st.Mtime.Nsec)}
	if p.o.UID != nil {
		h.UID, h.GID = int64(p.o.UID(st.Uid)), int64(p.o.GID(st.Gid))
	}
	typ := uint32(st.Mode) & unix.S_IFMT
	if p.o.Layer && typ == unix.S_IFCHR && st.Rdev_major == 0 && st.Rdev_minor == 0 {
		return p.Whiteout(path.Join(path.Dir(as), ".wh."+path.Base(as)))
	}
	if typ != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
		if first, ok := p.links[key]; ok {
			h.Type, h.Linkname = tarball.HardLink, first
			return p.t.Next(&h)
		}
		p.links[key] = as
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	switch typ {
	case unix.S_IFDIR:
		if h.Name[len(h.Name)-1] != '/' {
			h.Name += "/"
		}
		h.Type = tarball.Dir
		opaque := false
		if p.o.Layer {
			if opaque, err = layerAttrs(self, &h); err != nil {
				return fail("read", err)
			}
		}
		if err := p.t.Next(&h); err != nil || !deep || p.closed(fd, &st) {
			return err
		}
		if opaque {
			if err := p.Whiteout(as + "/" + opaqueName); err != nil {
				return err
			}
		}
		sub, err := openDir(fd, ".")
		if err != nil {
			return fail("open", err)
		}
		f := os.NewFile(uintptr(sub), as)
		defer f.Close()
		return p.content(f, as)
	case unix.S_IFREG:
		return p.file(self, &h)
	case unix.S_IFLNK:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", b)
		if err != nil {
			return fail("readlink", err)
		}
		h.Type, h.Linkname = tarball.Symlink, string(b[:n])
	case unix.S_IFCHR:
		h.Type, h.Major, h.Minor = tarball.Char, int64(st.Rdev_major), int64(st.Rdev_minor)
	case unix.S_IFBLK:
		h.Type, h.Major, h.Minor = tarball.Block, int64(st.Rdev_major), int64(st.Rdev_minor)
	case unix.S_IFIFO:
		h.Type = tarball.FIFO
	default:
		return nil // a socket is of no use in an archive
	}
	return p.t.Next(&h)
}

// closed reports whether a directory's content stays out.
func (p *Packer) closed(fd int, st *unix.Statx_t) bool {
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false
	}
	if p.o.OneFS {
		return true
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return true
	}
	switch fs.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC, mqueueMagic:
		return true
	}
	return false
}

// mqueueMagic is MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
const mqueueMagic = 0x19800202

// file writes a regular file; self leads to the very file that h describes.
func (p *Packer) file(self string, h *tarball.Header) error {
	fail := func(err error) error { return &os.PathError{Op: "read", Path: "/" + h.Name, Err: err} }
	f, err := os.OpenFile(self, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	h.Type, h.Size = tarball.Regular, info.Size()
	var cap [64]byte
	if p.o.Layer {
		if _, err := layerAttrs(self, h); err != nil {
			return fail(err)
		}
	} else if n, err := unix.Fgetxattr(int(f.Fd()), "security.capability", cap[:]); err == nil {
		h.Xattrs = []tarball.Xattr{{Name: "security.capability", Value: string(cap[:n])}}
	}
	if err := p.t.Next(h); err != nil {
		return err
	}
	if p.buf == nil {
		p.buf = make([]byte, 256<<10)
	}
	for left := h.Size; left > 0; {
		n, err := f.Read(p.buf[:min(left, int64(len(p.buf)))])
		if n > 0 {
			if _, err := p.t.Write(p.buf[:n]); err != nil {
				return err
			}
			left -= int64(n)
		}
		if err == io.EOF {
			return nil // it became shorter; the writer fills up
		}
		if err != nil {
			return fail(err)
		}
	}
	return nil
}

// IDs translates ids by a map of /proc/PID/uid_map as this process reads it:
// inside, outside, count. What is not mapped is 65534.
type IDs []IDRange

// IDRange is one line of it.
type IDRange struct{ Inside, Outside, Count uint32 }

// In translates an id as this process sees it to one inside.
func (m IDs) In(id uint32) uint32 {
	for _, r := range m {
		if id >= r.Outside && id-r.Outside < r.Count {
			return r.Inside + id - r.Outside
		}
	}
	return 65534
}

// Out translates an id inside to one as this process sees it.
func (m IDs) Out(id uint32) (uint32, error) {
	for _, r := range m {
		if id >= r.Inside && id-r.Inside < r.Count {
			return r.Outside + id - r.Inside, nil
		}
	}
	return 0, errs.New(errs.Invalid, "id %d: not mapped in the container", id)
}
