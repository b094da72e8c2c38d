package tree

import (
	"os"

	"golang.org/x/sys/unix"
)

// Chown gives path and everything below it to uid and gid: links themselves, not
// what they lead to (but for path), and nothing on other file systems. What has
// that owner already is left alone, so that a second time costs no writes. All
// is tried; the error tells of the first that failed.
func Chown(path string, uid, gid int) error {
	top, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer closeFD(top)
	var root unix.Stat_t
	if err := unix.Fstat(top, &root); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(root.Uid) != uid || int(root.Gid) != gid {
		if err := unix.Fchownat(top, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "chown", Path: path, Err: err}
		}
	}
	if root.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	w := &walker{top: path, op: "chown"}
	w.entry = func(dir int, name string, _ byte) (bool, error) {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Dev != root.Dev {
			return false, nil
		}
		if err == nil && (int(st.Uid) != uid || int(st.Gid) != gid) {
			err = unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err == unix.ENOENT {
			return false, nil // gone meanwhile
		}
		return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR, err
	}
	// "." of the directory itself: it may be a mount point.
	return w.walk(top, ".")
}
