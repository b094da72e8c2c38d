package host

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// FileSystem returns the type of the file system that dir is on, by its common
// name or as a number.
func FileSystem(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	for i := range fsNames {
		if fsNames[i].magic == uint32(st.Type) {
			return fsNames[i].name, nil
		}
	}
	return fmt.Sprintf("%#x", uint32(st.Type)), nil
}

// fsNames are the types that container storage meets (statfs(2)).
var fsNames = [...]struct {
	magic uint32
	name  string
}{
	{unix.EXT4_SUPER_MAGIC, "ext4"},
	{unix.XFS_SUPER_MAGIC, "xfs"},
	{unix.BTRFS_SUPER_MAGIC, "btrfs"},
	{0x2fc12fc1, "zfs"},
	{unix.TMPFS_MAGIC, "tmpfs"},
	{unix.OVERLAYFS_SUPER_MAGIC, "overlay"},
	{unix.NFS_SUPER_MAGIC, "nfs"},
	{0xff534d42, "cifs"},
	{0xfe534d42, "smb3"},
	{unix.FUSE_SUPER_MAGIC, "fuse"},
	{unix.F2FS_SUPER_MAGIC, "f2fs"},
	{unix.V9FS_MAGIC, "9p"},
	{0xca451a4e, "bcachefs"},
	{unix.ECRYPTFS_SUPER_MAGIC, "ecryptfs"},
	{unix.RAMFS_MAGIC, "ramfs"},
	{unix.SQUASHFS_MAGIC, "squashfs"},
	{unix.EROFS_SUPER_MAGIC_V1, "erofs"},
	{0x47504653, "gpfs"},
	{0x0bd00bd0, "lustre"},
	{unix.CEPH_SUPER_MAGIC, "ceph"},
}

// Layers says whether a file system can hold unpacked layers and the writable
// layer of an overlay mount; if not, why.
func Layers(fs string) (ok bool, why string) {
	switch fs {
	case "nfs", "cifs", "smb3", "9p", "gpfs", "lustre", "ceph", "fuse":
		return false, "a network or FUSE file system cannot hold the writable layer of overlayfs (no whiteouts or trusted attributes)"
	case "overlay":
		return false, "overlayfs cannot be the writable layer of another overlayfs"
	case "ecryptfs":
		return false, "ecryptfs cannot hold the layers of overlayfs"
	}
	return true, ""
}
