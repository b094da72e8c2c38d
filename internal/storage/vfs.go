package storage

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/tree"
)

// MountCopy is the last resort where the kernel has no overlayfs for us: it
// copies the layers into upper, the first time, and returns a detached mount of
// that directory. It takes the time and the disk space of a whole copy for every
// container; the caller says so loudly.
func (s *Store) MountCopy(ctx context.Context, layers []string, upper string, o MountOptions) (*os.File, error) {
	opaqueRoots, err := s.checkFormat(o.UserXattr)
	if err != nil {
		return nil, err
	}
	_ = opaqueRoots // tree.Copy honours an opaque root by itself
	top, err := os.OpenFile(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	// Beside upper, not in it: the container must not see or make it.
	done := upper + ".copied"
	if err := unix.Access(done, unix.F_OK); err != nil {
		for _, id := range layers {
			if err := s.copyLayer(ctx, top, id); err != nil {
				return nil, s.explain(errs.New(errs.KindOf(err), "copy layer %s: %w", short(id), err))
			}
		}
		f, err := os.OpenFile(done, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		_ = f.Close()
	}
	fd, err := unix.OpenTree(int(top.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree "+upper, err)
	}
	if o.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			_ = unix.Close(fd)
			return nil, os.NewSyscallError("mount_setattr "+upper, err)
		}
	}
	return os.NewFile(uintptr(fd), "copy"), nil
}

func (s *Store) copyLayer(ctx context.Context, to *os.File, diffID string) error {
	p, err := s.Path(diffID)
	if err != nil {
		return err
	}
	from, err := os.OpenFile(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = tree.Copy(ctx, to, from, tree.CopyOptions{Overlay: true})
	return err
}
