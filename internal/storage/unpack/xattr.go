package unpack

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/tarball"
)

const capabilityXattr = "security.capability"

// allowed says whether an image may set an extended attribute. trusted.* and
// user.overlay.* are instructions to overlayfs, user.isle.* to isle; security.*
// other than file capabilities are labels of the machine that built the image.
func allowed(name string) bool {
	switch {
	case name == capabilityXattr:
		return true
	case strings.HasPrefix(name, "user.overlay."), strings.HasPrefix(name, "user.isle."):
		return false
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "system.posix_acl_"):
		return true
	}
	return false
}

// setXattrs sets the attributes of an open file or directory, and the record of
// its owner if that was folded.
func (u *unpacker) setXattrs(fd int, name string, xs []tarball.Xattr, folded string) error {
	if folded != "" {
		if err := unix.Fsetxattr(fd, ownerXattr, []byte(folded), 0); err != nil && err != unix.EOPNOTSUPP {
			return &os.PathError{Op: "setxattr " + ownerXattr, Path: name, Err: err}
		}
	}
	return u.eachXattr(name, xs, func(key string, value []byte) error { return unix.Fsetxattr(fd, key, value, 0) })
}

// setXattrsAt sets those of a symbolic link, device or FIFO, which cannot be
// opened for it. setxattrat(2) is new in Linux 6.13; /proc does it everywhere.
func (u *unpacker) setXattrsAt(up *dirNode, base, name string, xs []tarball.Xattr) error {
	p := "/proc/self/fd/" + strconv.Itoa(up.fd) + "/" + base
	return u.eachXattr(name, xs, func(key string, value []byte) error { return unix.Lsetxattr(p, key, value, 0) })
}

func (u *unpacker) eachXattr(name string, xs []tarball.Xattr, set func(string, []byte) error) error {
	for _, x := range xs {
		if !allowed(x.Name) {
			u.res.SkippedXattrs++
			continue
		}
		value := []byte(x.Value)
		if x.Name == capabilityXattr {
			value = plainCapability(value)
		}
		switch err := set(x.Name, value); {
		case err == nil:
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
			// The file system has none, or none on this type of file (user.* is
			// for regular files and directories); Docker goes on, too.
			u.res.SkippedXattrs++
		case errors.Is(err, unix.EINVAL):
			return errs.New(errs.Corrupt, "extended attribute %q: %w", x.Name, err)
		default:
			return &os.PathError{Op: "setxattr " + x.Name, Path: name, Err: err}
		}
	}
	return nil
}

// plainCapability makes a version 3 file capability, which names the root user
// of a namespace on another machine, a version 2 one. The kernel makes that one
// of version 3 with the caller's own root where it must (capabilities(7)).
func plainCapability(v []byte) []byte {
	const (
		revisionMask = 0xff000000
		revision2    = 0x02000000
		revision3    = 0x03000000
	)
	if len(v) != 24 {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&revisionMask != revision3 {
		return v
	}
	binary.LittleEndian.PutUint32(v, magic&^revisionMask|revision2)
	return v[:20]
}
