package tree

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Size returns how much dir and everything in it take on disk: blocks, not
// lengths, so that holes do not count, and each file once however many names it
// has in the tree.
func Size(dir string) (bytes, inodes int64, err error) {
	dir = filepath.Clean(dir)
	parent, err := unix.Open(filepath.Dir(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, &os.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	defer closeFD(parent)
	type inode struct{ dev, ino uint64 }
	seen := map[inode]struct{}{}
	count := func(dir int, name string) (isDir bool, err error) {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err == unix.ENOENT {
				err = nil
			}
			return false, err
		}
		isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !isDir && st.Nlink > 1 {
			key := inode{st.Dev, st.Ino}
			if _, dup := seen[key]; dup {
				return false, nil
			}
			seen[key] = struct{}{}
		}
		bytes += st.Blocks * 512
		inodes++
		return isDir, nil
	}
	w := &walker{top: dir, op: "stat"}
	w.entry = func(dir int, name string, _ byte) (bool, error) { return count(dir, name) }
	if _, err := count(parent, filepath.Base(dir)); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	err = w.walk(parent, filepath.Base(dir))
	return bytes, inodes, err
}
