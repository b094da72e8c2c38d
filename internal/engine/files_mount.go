package engine

import (
	"context"
	"errors"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// inThread runs f in a thread of its own that shares neither working directory
// nor mount namespace with others, and keeps the thread until done is closed:
// what f mounts lives as long. A nil done ends it at once.
func inThread(done <-chan struct{}, unshare int, f func() (*os.File, error)) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		var r result
		if r.err = unix.Unshare(unix.CLONE_FS | unshare); r.err != nil {
			r.err = os.NewSyscallError("unshare", r.err)
		} else {
			r.f, r.err = f()
		}
		c <- r
		if done != nil && r.err == nil {
			<-done
		}
	}()
	r := <-c
	return r.f, r.err
}

// bare opens the container's own file system without what is mounted in it.
func (v *view) bare() (*os.File, error) {
	if !v.running {
		return v.plain()
	}
	init, err := openInit(v.c)
	if err != nil {
		return nil, err
	}
	defer init.Close()
	return inThread(nil, 0, func() (*os.File, error) {
		// Only a thread in the mount namespace may copy a mount of it.
		if err := unix.Setns(int(init.Fd()), unix.CLONE_NEWNS); err != nil {
			return nil, os.NewSyscallError("setns", err)
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("open_tree", err)
		}
		return os.NewFile(uintptr(fd), "/"), nil
	})
}

// assemble mounts the layers of a container that does not run, with its volumes
// and bind mounts, in a mount namespace that nobody else sees.
func (v *view) assemble() (*os.File, error) {
	v.done = make(chan struct{})
	return inThread(v.done, unix.CLONE_NEWNS, func() (*os.File, error) {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return nil, os.NewSyscallError("mount", err)
		}
		layers, err := v.plain()
		if err != nil {
			return nil, err
		}
		defer layers.Close()
		// A mount can be mounted on once it is attached: over the container's own directory.
		if err := unix.MoveMount(int(layers.Fd()), "", unix.AT_FDCWD, v.c.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return nil, os.NewSyscallError("move_mount", err)
		}
		root, err := os.OpenFile(v.c.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		mounts := slices.Clone(v.c.Config.Mounts)
		slices.SortStableFunc(mounts, func(a, b container.Mount) int { return strings.Compare(path.Clean(a.Target), path.Clean(b.Target)) })
		for i := range mounts {
			if err := v.mountIn(root, &mounts[i]); err != nil {
				_ = root.Close() // O_PATH; nothing to lose
				return nil, err
			}
		}
		return root, nil
	})
}

// mountIn mounts a volume or a directory of the host into root. Targets that
// are not there yet, and sources that are gone, are left out.
func (v *view) mountIn(root *os.File, m *container.Mount) error {
	source := m.Source
	switch m.Type {
	case "bind":
	case "volume":
		name := v.c.Volumes[path.Clean(m.Target)]
		dir, err := v.eng.volumes().Dir(name)
		if err != nil {
			return nil // only a running container has it
		}
		source = dir
		if !m.NoCopy && dir == v.eng.volumes().Path(name) {
			if err := v.eng.volumes().Populate(context.Background(), name, root, m.Target); err != nil { //nolint:forbidigo // a role has no caller to wait for
				return err
			}
		}
	default:
		return nil
	}
	from, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil // the start will tell
	}
	defer unix.Close(from) //nolint:errcheck // a mount
	if m.Subpath != "" {
		sub, err := unix.Openat2(from, strings.TrimLeft(m.Subpath, "/"), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			return nil // the start will tell
		}
		defer unix.Close(sub) //nolint:errcheck // O_PATH
		if from, err = unix.OpenTree(sub, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH); err != nil {
			return nil // the start will tell
		}
		defer unix.Close(from) //nolint:errcheck // a mount
	}
	if m.ReadOnly {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(from, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
			return os.NewSyscallError("mount_setattr", err)
		}
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	target := strings.TrimLeft(m.Target, "/")
	to, err := unix.Openat2(int(root.Fd()), target, how)
	if errors.Is(err, unix.ENOENT) && m.Type == "volume" {
		if merr := mkdirAllIn(root, target); merr != nil {
			return merr
		}
		to, err = unix.Openat2(int(root.Fd()), target, how)
	}
	if err != nil {
		return nil // the start will tell
	}
	defer unix.Close(to) //nolint:errcheck // O_PATH
	err = unix.MoveMount(from, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil && !errors.Is(err, unix.ENOTDIR) {
		return errs.New(errs.KindOf(err), "mount %s: %w", m.Target, err)
	}
	return nil
}

// mkdirAllIn makes the directories of unsafePath in root, as a start would.
func mkdirAllIn(root *os.File, unsafePath string) error {
	done := "."
	for part := range strings.SplitSeq(path.Clean("/" + unsafePath)[1:], "/") {
		fd, err := unix.Openat2(int(root.Fd()), done, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			return &os.PathError{Op: "open", Path: "/" + done, Err: err}
		}
		err = unix.Mkdirat(fd, part, 0o755)
		_ = unix.Close(fd) // O_PATH; nothing to lose
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "mkdir", Path: "/" + done + "/" + part, Err: err}
		}
		done += "/" + part
	}
	return nil
}
