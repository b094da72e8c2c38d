package monitor

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// mountAttrs are the options of mount(8) that every file system has.
func mountAttr(option string) (set, clear uint64, ok bool) {
	switch option {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, 0, true
	case "rw":
		return 0, unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, 0, true
	case "suid":
		return 0, unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, 0, true
	case "dev":
		return 0, unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, 0, true
	case "exec":
		return 0, unix.MOUNT_ATTR_NOEXEC, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, 0, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0, true
	case "defaults", "relatime", "async", "auto", "noauto", "nofail", "_netdev":
		return 0, 0, true
	}
	return 0, 0, false
}

// deviceMount makes a detached mount of what a volume names instead of having files
// of its own (volume create -o type=… -o device=… -o o=…). Two containers with the
// same device see the same file system, as the kernel keeps one superblock for it;
// a tmpfs is each one's own.
func deviceMount(device, fs string, options []string, bind bool) (_ *os.File, Err error) {
	fail := func(op string, err error) error {
		err = errs.New(errs.KindOf(err), "%s type=%s device=%s o=%s: %w", op, fs, device, strings.Join(options, ","), err)
		if errs.KindOf(err) == errs.Denied {
			return errs.Hint(err, "an ordinary user can mount directories (o=bind) and tmpfs only")
		}
		return err
	}
	attrs, rest := uint64(0), options[:0:0]
	recursive := uint(0)
	for _, o := range options {
		if set, off, ok := mountAttr(o); ok {
			attrs = attrs&^off | set
			continue
		}
		if o == "rbind" {
			recursive = unix.AT_RECURSIVE
		}
		if o != "bind" && o != "rbind" {
			rest = append(rest, o)
		}
	}
	if bind {
		fd, err := unix.OpenTree(unix.AT_FDCWD, device, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive)
		if err != nil {
			return nil, fail("bind", err)
		}
		if attrs != 0 {
			if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive, &unix.MountAttr{Attr_set: attrs}); err != nil {
				_ = unix.Close(fd) // a mount's root
				return nil, fail("mount_setattr", err)
			}
		}
		return os.NewFile(uintptr(fd), device), nil
	}
	ctx, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fail("fsopen", err)
	}
	defer unix.Close(ctx) //nolint:errcheck // a context that was used up
	err = unix.FsconfigSetString(ctx, "source", device)
	for _, o := range rest {
		if err != nil {
			break
		}
		if k, v, has := strings.Cut(o, "="); has {
			err = unix.FsconfigSetString(ctx, k, v)
		} else {
			err = unix.FsconfigSetFlag(ctx, o)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(ctx)
	}
	if err != nil {
		return nil, fail("mount", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return nil, fail("fsmount", err)
	}
	return os.NewFile(uintptr(fd), device), nil
}
