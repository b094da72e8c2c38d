package monitor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/storage"
)

// bind hands a detached mount to the runtime, in place of a source by name.
func (b *launcher) bind(target string, f *os.File) {
	if b.binds == nil {
		b.binds = map[string]*os.File{}
	}
	b.binds[target] = f
}

// volumes prepares the mounts that the user asked for and returns where volumes
// and images are, by target: volumes are filled from the image when they are new,
// missing bind sources are made where the short form of -v asks for it.
func (b *launcher) volumes(who spec.User) (map[string]string, error) {
	m := b.m
	dirs := map[string]string{}
	vols := storage.OpenVolumes(m.env.Volumes())
	for i := range m.rec.Config.Mounts {
		mt := &m.rec.Config.Mounts[i]
		target := path.Clean(mt.Target)
		switch mt.Type {
		case "bind":
			if err := bindSource(mt); err != nil {
				return nil, err
			}
			if mt.Chown {
				if err := b.chown(mt.Source, who); err != nil {
					return nil, err
				}
			}
		case "volume":
			name := m.rec.Volumes[target]
			if name == "" {
				return nil, errs.New(errs.Corrupt, "mount %s: the record names no volume", target)
			}
			vol, err := vols.Get(name)
			if err != nil {
				return nil, err
			}
			if device, fs, opts, bind, ok := vol.Device(); ok {
				f, err := deviceMount(device, fs, opts, bind)
				if err == nil && mt.Subpath != "" {
					whole := f
					f, err = openTreeIn(raw(whole), mt.Subpath)
					_ = whole.Close() // a mount's root
				}
				if err != nil {
					return nil, fmt.Errorf("volume %q: %w", name, err)
				}
				b.bind(target, f)
				dirs[target] = vols.Path(name) // shown, not opened
				continue
			}
			if !mt.NoCopy && mt.Subpath == "" {
				if err := vols.Populate(background(), name, b.rootfs, target); err != nil {
					return nil, err
				}
			}
			if err := b.giveVolume(vols.Path(name), who); err != nil {
				return nil, err
			}
			if mt.Chown {
				if err := b.chown(vols.Path(name), who); err != nil {
					return nil, err
				}
			}
			dirs[target] = vols.Path(name)
			if mt.Subpath != "" {
				f, err := openSubpath(vols.Path(name), mt.Subpath)
				if err != nil {
					return nil, fmt.Errorf("volume %q: %w", name, err)
				}
				b.bind(target, f)
			}
		case "image":
			f, err := b.imageMount(mt)
			if err != nil {
				return nil, err
			}
			b.bind(target, f)
			dirs[target] = "image " + mt.Source // shown, not opened
		}
	}
	return dirs, nil
}

// chown gives a source and all in it to the container's user (:U), as the container
// will see it.
func (b *launcher) chown(source string, who spec.User) error {
	maps := &b.m.maps
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	if systemDir(real) {
		return errs.New(errs.Invalid, "mount source %q: option U would change the owner of a directory of the system", source)
	}
	if err := storage.ChownTree(real, outside(maps.uids, who.UID), outside(maps.gids, who.GID)); err != nil {
		err = fmt.Errorf("mount source %q: option U: %w", source, err)
		if b.m.env.Rootless && errors.Is(err, unix.EPERM) {
			return errs.Hint(err, "an ordinary user can give away only files of its own and of its subordinate ids")
		}
		return err
	}
	return nil
}

// systemDir reports whether a directory belongs to the system: giving it away, with
// all that is in it, would break the machine.
func systemDir(dir string) bool {
	switch dir {
	case "/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp":
		return true
	}
	first, _, _ := strings.Cut(dir[1:], "/")
	switch first {
	case "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr":
		return true
	}
	return strings.HasPrefix(dir, "/var/lib/") && strings.Count(dir, "/") == 3 || strings.HasPrefix(dir, "/home/") && strings.Count(dir, "/") == 2
}

// bindSource makes sure that the source of a bind mount is there. What it leads
// to is the user's choice; it is opened once, later.
func bindSource(mt *container.Mount) error {
	var st unix.Stat_t
	err := unix.Stat(mt.Source, &st)
	if err == nil {
		return nil
	}
	if err != unix.ENOENT {
		return errs.New(errs.KindOf(err), "mount source %q: %w", mt.Source, err)
	}
	if mt.CreateSource {
		return os.MkdirAll(mt.Source, 0o755)
	}
	return errs.New(errs.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", mt.Source)
}

// openSubpath returns a detached mount of a directory or file in a volume. The
// volume's content is its containers', so the path is resolved inside it.
func openSubpath(dir, unsafeSub string) (*os.File, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root) //nolint:errcheck // a path
	return openTreeIn(root, unsafeSub)
}

// openTreeIn opens what a path means below root and makes a detached mount of it.
func openTreeIn(root int, unsafePath string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: defence.Resolve(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS)}
	var fd int
	var err error
	for {
		if fd, err = unix.Openat2(root, strings.TrimPrefix(unsafePath, "/"), &how); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: unsafePath, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // a path
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: unsafePath, Err: err}
	}
	return os.NewFile(uintptr(tree), unsafePath), nil
}

// openShm returns a detached mount of a running container's /dev/shm; nil when it
// has none. The container's root could have put anything there.
func openShm(pid int) (*os.File, error) {
	var f *os.File
	err := insideMounts(pid, func() error {
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("open root of container", err)
		}
		defer unix.Close(root) //nolint:errcheck // a path
		f, err = openTreeIn(root, "dev/shm")
		return err
	})
	if errs.KindOf(err) == errs.NotFound {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(raw(f), &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		_ = f.Close() // a path
		return nil, errs.New(errs.Denied, "/dev/shm of the container whose ipc namespace is joined: not a tmpfs")
	}
	return f, nil
}

// imageMount mounts an image's files, read-only.
func (b *launcher) imageMount(mt *container.Mount) (*os.File, error) {
	img, err := image.Open(b.m.env.Images()).Resolve(mt.Source)
	if err != nil {
		return nil, err
	}
	layers := make([]string, len(img.Layers))
	for i, l := range img.Layers {
		layers[i] = l.DiffID
	}
	o := b.mountOptions()
	o.ReadOnly = true
	f, err := storage.Open(b.m.env.Layers()).Mount(layers, "", "", o)
	if err != nil || mt.Subpath == "" {
		return f, err
	}
	defer f.Close()
	sub, err := openTreeIn(raw(f), mt.Subpath)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", mt.Source, err)
	}
	return sub, nil
}
