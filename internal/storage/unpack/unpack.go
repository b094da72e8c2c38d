package unpack

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/tarball"
	"github.com/isle-engine/isle/internal/storage/tree"
)

// Limits bound what one layer may claim. Zero means the default, and for Bytes
// no limit: what a disk holds is the operator's to say.
type Limits struct {
	Entries   int64 // default 10 million
	ExtHeader int64 // bytes of one pax header or long name; default 1 MiB
	Path      int   // bytes of a name; default 4095, the kernel's PATH_MAX
	Bytes     int64 // of the whole archive, uncompressed
}

const (
	defaultEntries = 10_000_000
	defaultPath    = 4095
)

// Options say how a layer is unpacked.
type Options struct {
	// UserXattr marks opaque directories with user.overlay.opaque, for overlay
	// mounts made in a user namespace; else trusted.overlay.opaque.
	UserXattr bool
	IDs       IDs
	Limits    Limits
}

// Result tells what was unpacked and what was not.
type Result struct {
	Digest  string // "sha256:HEX" of all bytes of the archive
	Bytes   int64  // of regular files, as Docker counts the size of a layer
	Archive int64  // bytes of the archive
	Entries int64
	// OpaqueRoot is set when the layer hides all layers below it.
	OpaqueRoot bool
	// Devices are device files that could not be made: the first hundred.
	Devices []string
	// Counts of devices and extended attributes that were left out, and of
	// files whose owner does not exist in this user namespace.
	SkippedDevices, SkippedXattrs, FoldedOwners int64
}

// maxTold bounds the lists in a Result.
const maxTold = 100

// unpacker is the unpacking of one layer.
type unpacker struct {
	opt   Options
	root  int
	tr    *tarball.Reader
	dirs  *dirCache
	wb    *writeback
	res   Result
	umask uint32
	uid   int64 // the effective ids: what a new file gets
	gid   int64
	// opaque is the attribute of overlayfs in this store.
	opaque string
	folded string // of the entry at hand: what ownerXattr gets

	meta   []dirMeta
	metaOf map[string]int // index in meta by canonical path
}

// dirMeta is what a directory gets when all is in it: making files changes its
// times, a setgid bit or default ACL on it would change the files made.
type dirMeta struct {
	path      string
	mode      uint32
	setMode   bool
	sec, nsec int64
	setTime   bool
	xattrs    []tarball.Xattr
	folded    string
	gone      bool
}

// Layer unpacks the uncompressed archive r into root, an empty directory on its
// own. When it fails, root holds a partial tree.
func Layer(ctx context.Context, root *os.File, r io.Reader, o Options) (Result, error) {
	if o.Limits.Entries == 0 {
		o.Limits.Entries = defaultEntries
	}
	if o.Limits.Path == 0 {
		o.Limits.Path = defaultPath
	}
	mask, err := umask()
	if err != nil {
		return Result{}, err
	}
	u := &unpacker{
		opt:    o,
		root:   int(root.Fd()),
		dirs:   newDirCache(int(root.Fd())),
		wb:     newWriteback(int(root.Fd())),
		umask:  mask,
		uid:    int64(os.Geteuid()),
		gid:    int64(os.Getegid()),
		opaque: "trusted.overlay.opaque",
		metaOf: map[string]int{},
	}
	if o.UserXattr {
		u.opaque = "user.overlay.opaque"
	}
	u.dirs.made = u.dirMade
	defer u.dirs.close()
	s := newStream(ctx, r, o.Limits.Bytes)
	u.tr = tarball.New(s, tarball.Limits{ExtHeader: o.Limits.ExtHeader})
	err = u.run(ctx)
	s.close()
	u.wb.close()
	if err != nil {
		return u.res, err
	}
	u.res.Digest = "sha256:" + hex.EncodeToString(s.digest[:])
	u.res.Archive = s.total
	return u.res, nil
}

func (u *unpacker) run(ctx context.Context) error {
	if err := u.prepareRoot(); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := u.tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if u.res.Entries++; u.res.Entries > u.opt.Limits.Entries {
			return errs.New(errs.Invalid, "archive has more entries than the limit of %d", u.opt.Limits.Entries)
		}
		if err := u.entry(h); err != nil {
			return describe(h.Name, err)
		}
	}
	if err := u.tr.Rest(); err != nil {
		return err
	}
	return u.finishDirs()
}

// describe adds the entry to an error that does not name it.
func describe(unsafeName string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) && p.Path == unsafeName {
		return err
	}
	return errs.New(errs.KindOf(err), "entry %.200q: %w", unsafeName, err)
}

// umask reads the process's umask; umask(2) could only read it by changing it
// under the feet of other threads.
func umask() (uint32, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "Umask:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32)
			return uint32(n), err
		}
	}
	return 0o777, nil // no such line: every mode is set explicitly
}

// prepareRoot makes the root directory what a layer without an entry for it
// means, whatever the store's own directory hands down.
func (u *unpacker) prepareRoot() error {
	// A default ACL of the store would go to every file.
	for _, name := range [...]string{"system.posix_acl_default", "system.posix_acl_access"} {
		if err := unix.Fremovexattr(u.root, name); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
			return &os.PathError{Op: "remove ACL", Path: ".", Err: err}
		}
	}
	if err := unix.Fchown(u.root, 0, 0); err != nil {
		return &os.PathError{Op: "chown", Path: ".", Err: err}
	}
	if err := unix.Fchmod(u.root, 0o755); err != nil {
		return &os.PathError{Op: "chmod", Path: ".", Err: err}
	}
	return nil
}

// clean turns a name of the archive into a relative path; "" is the root.
func (u *unpacker) clean(unsafeName string) (string, error) {
	if len(unsafeName) > u.opt.Limits.Path {
		return "", errs.New(errs.Invalid, "name of %d bytes is longer than the limit of %d", len(unsafeName), u.opt.Limits.Path)
	}
	if strings.IndexByte(unsafeName, 0) >= 0 {
		return "", errs.New(errs.Corrupt, "name has a NUL byte")
	}
	p := unsafeName
	for len(p) > 0 && p[0] == '/' {
		p = p[1:]
	}
	p = path.Clean(p)
	switch {
	case p == ".":
		return "", nil
	case p == "..", strings.HasPrefix(p, "../"):
		return "", errs.New(errs.Corrupt, "name leads out of the layer")
	}
	return p, nil
}

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // AUFS's own files; only opq means anything
	whiteoutOpaque = ".wh..wh..opq"
)

func (u *unpacker) entry(h *tarball.Header) error {
	if h.Type == tarball.Global {
		return nil
	}
	name, err := u.clean(h.Name)
	if err != nil {
		return err
	}
	dir, base := splitPath(name)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(dir, base)
	}
	if err := u.foldOwner(h); err != nil {
		return err
	}
	if name == "" {
		if h.Type != tarball.Dir {
			return errs.New(errs.Corrupt, "the layer's root is not a directory")
		}
		return u.rootDir(h)
	}
	up, err := u.dirs.get(dir)
	if err != nil {
		return err
	}
	switch h.Type {
	case tarball.Dir:
		return u.dir(h, up, base)
	case tarball.Regular, '7': // contiguous: a regular file, says POSIX
		return u.file(h, up, base)
	case tarball.HardLink:
		return u.hardLink(h, up, base)
	case tarball.Symlink:
		return u.symlink(h, up, base)
	case tarball.Char, tarball.Block, tarball.FIFO:
		return u.special(h, up, base)
	}
	return errs.New(errs.Unsupported, "entry type %q", h.Type)
}

// make calls create, and when something is in the way removes that and calls it
// again: the last entry of a name wins.
func (u *unpacker) make(up *dirNode, base string, create func() error) error {
	for try := 0; ; try++ {
		err := create()
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EEXIST && try < 2:
			if err := u.remove(up, base); err != nil {
				return err
			}
			continue
		}
		return err
	}
}

// remove removes an earlier entry of the layer.
func (u *unpacker) remove(up *dirNode, base string) error {
	clear(u.dirs.aliases) // a link may be what goes
	u.dirs.lastKey, u.dirs.last = "", nil
	err := unix.Unlinkat(up.fd, base, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	full := join(up.path, base)
	u.dirs.forget(full)
	for i := range u.meta {
		if m := &u.meta[i]; !m.gone && (m.path == full || strings.HasPrefix(m.path, full+"/")) {
			m.gone = true
			delete(u.metaOf, m.path)
		}
	}
	return tree.RemoveFdAt(up.fd, base)
}

// whiteout hides base in the layers below: as OCI has it, and so not what this
// very layer brings under that name.
func (u *unpacker) whiteout(dir, base string) error {
	if base == whiteoutOpaque {
		up, err := u.dirs.get(dir)
		if err != nil {
			return err
		}
		if up.path == "" {
			u.res.OpaqueRoot = true
		}
		return u.setOpaque(up)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	target := base[len(whiteoutPrefix):]
	if target == "" || target == "." || target == ".." {
		return errs.New(errs.Corrupt, "whiteout of nothing")
	}
	up, err := u.dirs.get(dir)
	if err != nil {
		return err
	}
	err = unix.Mknodat(up.fd, target, unix.S_IFCHR, 0)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		fd, err := openHere(up.fd, target, false)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil // it hides what is below by itself
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: join(up.path, target), Err: err}
		}
		defer closeFD(fd)
		return u.setOpaque(&dirNode{path: join(up.path, target), fd: fd})
	case errors.Is(err, unix.EPERM):
		return errs.Hint(errs.New(errs.Unsupported, "make whiteout: %w", err),
			"Linux before 5.8 cannot make whiteouts in a user namespace")
	}
	return &os.PathError{Op: "mknod", Path: join(up.path, target), Err: err}
}

// setOpaque makes a directory hide the one of the same name in lower layers.
func (u *unpacker) setOpaque(n *dirNode) error {
	err := u.withDir(n, func(fd int) error { return unix.Fsetxattr(fd, u.opaque, []byte{'y'}, 0) })
	if err == unix.EOPNOTSUPP {
		return errs.New(errs.Unsupported, "file system holds no %s attribute: %w", u.opaque, err)
	}
	if err != nil {
		return &os.PathError{Op: "setxattr " + u.opaque, Path: n.path, Err: err}
	}
	return nil
}

// withDir calls f with a descriptor that can be read and changed.
func (u *unpacker) withDir(n *dirNode, f func(fd int) error) error {
	fd, err := unix.Openat(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return f(fd)
}
