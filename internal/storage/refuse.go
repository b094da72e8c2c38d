package storage

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Magic numbers of file systems that cannot be the upper one, from linux/magic.h.
const (
	magicOverlay = 0x794c7630
	magicNFS     = 0x6969
	magicFUSE    = 0x65735546
	magicVFAT    = 0x4d44
	magic9P      = 0x01021997
	magicCIFS    = 0xff534d42
	magicSMB2    = 0xfe534d42
)

// noLayers adds hints to err if dir is on a file system that overlayfs is known
// not to write to.
func noLayers(dir string, err error) error {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return err
	}
	name := ""
	switch uint32(fs.Type) {
	case magicOverlay:
		name = "overlayfs (are you in a container?)"
	case magicNFS:
		name = "NFS"
	case magicFUSE:
		name = "a FUSE file system"
	case magicVFAT:
		name = "FAT"
	case magic9P:
		name = "9p"
	case magicCIFS, magicSMB2:
		name = "SMB"
	default:
		return err
	}
	return errs.Hint(err, "the writable layer would be on "+name+", which overlayfs cannot write to",
		"set ISLE_ROOT to a directory on a local disk (ext4, xfs, btrfs)")
}

// hasUserXattrs returns an error if the file system of dir has no extended
// attributes for ordinary users: there overlayfs mounts, and a directory that is
// made where one was removed fails with EIO.
func hasUserXattrs(dir *os.File) error {
	const name = "user.isle.probe"
	err := unix.Fsetxattr(int(dir.Fd()), name, []byte{'1'}, 0)
	if err == unix.EOPNOTSUPP {
		return errs.Hint(errs.New(errs.Unsupported, "%s is on a file system without extended attributes for ordinary users", dir.Name()),
			"tmpfs has them since Linux 6.6; or set ISLE_ROOT to a directory on a local disk (ext4, xfs, btrfs)")
	}
	if err == nil {
		err = unix.Fremovexattr(int(dir.Fd()), name)
	}
	if err != nil {
		return &os.PathError{Op: "setxattr", Path: dir.Name(), Err: err}
	}
	return nil
}
