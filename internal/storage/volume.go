package storage

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage/tree"
)

// Volumes is a directory of named volumes. Its methods may be called from
// several goroutines and processes at once.
type Volumes struct{ dir string }

// OpenVolumes returns the volumes in dir. It does no I/O.
func OpenVolumes(dir string) *Volumes { return &Volumes{dir: dir} }

// Volume is a named volume.
type Volume struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// Names in a volume's directory.
const (
	dataDir        = "_data"
	volumeFile     = "volume.json"
	populatedFile  = "populated"
	populatingFile = "populating"
)

// AnonymousName returns a name for a volume that nobody named: 64 hex digits.
func AnonymousName() string { return state.NewID() }

// checkVolumeName allows what Docker allows, which is no path.
func checkVolumeName(unsafeName string) error {
	ok := len(unsafeName) >= 2 && len(unsafeName) <= 255
	for i := 0; ok && i < len(unsafeName); i++ {
		c := unsafeName[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && (c == '_' || c == '.' || c == '-')
	}
	if !ok {
		return errs.Hint(errs.New(errs.Invalid, "volume name %.100q: not valid", unsafeName),
			"a volume's name has two or more of letters, digits, and behind the first of them also _ . -")
	}
	return nil
}

// checkVolumeOptions knows the options of Docker's driver "local": what is to be
// mounted in place of a directory of our own.
func checkVolumeOptions(opts map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		switch k {
		case "type", "device", "o":
		default:
			return errs.New(errs.Invalid, "invalid option: %q", k)
		}
	}
	for _, k := range [...]string{"device", "type"} {
		if len(opts) > 0 && opts[k] == "" {
			return errs.New(errs.Invalid, "missing required option: %q", k)
		}
	}
	return nil
}

// Device says what is mounted in place of the volume's own directory: a file
// system of type fs, or with bind a directory of the host. Its options are as for
// mount(8). ok is false for a volume that is a directory.
func (v *Volume) Device() (device, fs string, options []string, bind, ok bool) {
	device, fs = v.Options["device"], v.Options["type"]
	for o := range strings.SplitSeq(v.Options["o"], ",") {
		switch o {
		case "":
		case "bind", "rbind":
			bind = true
			options = append(options, o)
		default:
			options = append(options, o)
		}
	}
	return device, fs, options, bind, device != ""
}

// Dir returns the directory that has a volume's files, where one has: not that of
// a file system that is mounted only while a container uses it.
func (v *Volumes) Dir(name string) (string, error) {
	vol, err := v.Get(name)
	if err != nil {
		return "", err
	}
	switch device, fs, _, bind, ok := vol.Device(); {
	case !ok:
		return v.Path(name), nil
	case bind:
		return device, nil
	default:
		return "", errs.New(errs.Unsupported, "volume %q: its files, of type %s, are there only while a container uses them", name, fs)
	}
}

// Create makes a volume; an empty name stands for a new anonymous one. As with
// Docker a volume that is there already is returned as it is, unless it was made
// with other options. The volume is on disk when Create returns.
func (v *Volumes) Create(name string, labels, opts map[string]string) (Volume, error) {
	if name == "" {
		name = AnonymousName()
	}
	if err := checkVolumeName(name); err != nil {
		return Volume{}, err
	}
	if err := checkVolumeOptions(opts); err != nil {
		return Volume{}, errs.New(errs.Invalid, "create %s: %w", name, err)
	}
	if old, err := v.Get(name); err == nil {
		if len(opts) > 0 && !maps.Equal(old.Options, opts) {
			return Volume{}, errs.New(errs.Conflict, "volume %q: exists with other options", name)
		}
		return old, nil
	}
	vol := Volume{Name: name, Created: time.Now().UTC(), Labels: labels, Options: opts}
	subject := func(err error) error { return errs.New(errs.KindOf(err), "volume %q: %w", name, err) }
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return Volume{}, subject(err)
	}
	_, _ = v.Sweep() // what others left who were killed; the next one tries again
	// 0711: others cannot list, but a container's users pass to what is theirs.
	tmp, lock, err := makeStage(v.dir, "", 0o711)
	if err != nil {
		return Volume{}, subject(err)
	}
	defer lock.Close()
	defer func() { _ = tree.Remove(tmp) }() // nothing after the rename; else a sweep does it again
	data := filepath.Join(tmp, dataDir)
	if err := os.Mkdir(data, 0o755); err != nil {
		return Volume{}, subject(err)
	}
	if err := os.Chmod(data, 0o755); err != nil { // whatever the umask
		return Volume{}, subject(err)
	}
	if err := state.WriteJSON(filepath.Join(tmp, volumeFile), vol, true); err != nil {
		return Volume{}, subject(err)
	}
	err = renameNew(tmp, filepath.Join(v.dir, name))
	if err == unix.EEXIST {
		// Somebody was faster: theirs is as good, if it is the same.
		return v.Create(name, labels, opts)
	}
	if err != nil {
		return Volume{}, subject(err)
	}
	return vol, state.SyncDir(v.dir)
}

// Get returns a volume.
func (v *Volumes) Get(name string) (Volume, error) {
	var vol Volume
	if checkVolumeName(name) != nil {
		return vol, errs.New(errs.NotFound, "volume %q: %w", name, errs.NotFound)
	}
	err := state.ReadJSON(filepath.Join(v.dir, name, volumeFile), &vol)
	if err != nil && errors.Is(err, unix.ENOENT) {
		return vol, errs.New(errs.NotFound, "volume %q: %w", name, errs.NotFound)
	}
	if err != nil {
		return vol, errs.New(errs.KindOf(err), "volume %q: %w", name, err)
	}
	vol.Name = name
	return vol, nil
}

// List returns all volumes by name. One whose record is damaged is there with
// its name alone.
func (v *Volumes) List() ([]Volume, error) {
	entries, err := os.ReadDir(v.dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Volume
	for _, e := range entries {
		if !e.IsDir() || checkVolumeName(e.Name()) != nil {
			continue
		}
		vol, err := v.Get(e.Name())
		if errs.KindOf(err) == errs.NotFound {
			continue
		}
		if err != nil {
			vol = Volume{Name: e.Name()}
		}
		all = append(all, vol)
	}
	return all, nil
}

// Path returns the directory of a volume's files, whether or not it exists.
func (v *Volumes) Path(name string) string { return filepath.Join(v.dir, name, dataDir) }

// Remove removes a volume and its files. That no container uses it is for the
// caller to know.
func (v *Volumes) Remove(name string) error {
	if checkVolumeName(name) != nil {
		return errs.New(errs.NotFound, "volume %q: %w", name, errs.NotFound)
	}
	gone := filepath.Join(v.dir, gonePrefix+random())
	err := os.Rename(filepath.Join(v.dir, name), gone)
	if os.IsNotExist(err) {
		return errs.New(errs.NotFound, "volume %q: %w", name, errs.NotFound)
	}
	if err != nil {
		return errs.New(errs.KindOf(err), "volume %q: %w", name, err)
	}
	if err := tree.Remove(gone); err != nil {
		return errs.New(errs.KindOf(err), "volume %q: %w", name, err)
	}
	return nil
}

// Sweep removes what makers and removers of volumes that died have left.
func (v *Volumes) Sweep() (int, error) { return (&Store{dir: v.dir}).Sweep() }

// Populate fills a volume that has never been used with what the image has at
// target, and gives it that directory's owner and mode, as Docker does. rootfs
// is the root of the container's files; target is resolved in it as the
// container would. A volume that holds anything is left alone. When Populate is
// interrupted, the next one does it again.
func (v *Volumes) Populate(ctx context.Context, name string, rootfs *os.File, target string) error {
	dir := filepath.Join(v.dir, name)
	if unix.Access(dir+"/"+populatedFile, unix.F_OK) == nil {
		return nil
	}
	if err := v.populate(ctx, dir, rootfs, target); err != nil {
		if errors.Is(err, unix.ENOENT) && unix.Access(dir, unix.F_OK) != nil {
			return errs.New(errs.NotFound, "volume %q: %w", name, errs.NotFound)
		}
		return errs.New(errs.KindOf(err), "volume %q: fill from the image: %w", name, err)
	}
	return nil
}

func (v *Volumes) populate(ctx context.Context, dir string, rootfs *os.File, target string) error {
	vol, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer vol.Close()
	fd := int(vol.Fd())
	// Two containers may start on it at once: the second waits for the files.
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			if err != nil {
				return &os.PathError{Op: "lock", Path: dir, Err: err}
			}
			break
		}
	}
	there := func(name string) bool { return unix.Faccessat(fd, name, unix.F_OK, 0) == nil }
	mark := func(name string) error {
		m, err := unix.Openat(fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return &os.PathError{Op: "create", Path: dir + "/" + name, Err: err}
		}
		return unix.Close(m)
	}
	if there(populatedFile) {
		return nil
	}
	data, err := os.OpenFile(dir+"/"+dataDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer data.Close()
	if empty, err := isEmpty(data); err != nil {
		return err
	} else if !empty && !there(populatingFile) {
		return mark(populatedFile)
	}
	from, err := openInRoot(rootfs, target)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return mark(populatedFile) // the image has nothing there
	case err != nil:
		return err
	}
	defer from.Close()
	nothing, err := isEmpty(from)
	if err != nil {
		return err
	}
	if !nothing {
		// On disk before the first file, or a crash would leave a part of them that
		// looks like a user's.
		if err := mark(populatingFile); err != nil {
			return err
		}
		if err := vol.Sync(); err != nil {
			return err
		}
	}
	if _, err := tree.Copy(ctx, data, from, tree.CopyOptions{}); err != nil {
		return err
	}
	if !nothing {
		if err := unix.Syncfs(fd); err != nil {
			return &os.PathError{Op: "sync", Path: dir, Err: err}
		}
	}
	if err := mark(populatedFile); err != nil {
		return err
	}
	if err := unix.Unlinkat(fd, populatingFile, 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: dir + "/" + populatingFile, Err: err}
	}
	return nil
}

func isEmpty(dir *os.File) (bool, error) {
	names, err := dir.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	if err != nil && err != io.EOF {
		return false, err
	}
	return true, nil
}

// openInRoot opens a directory of a container as the container would find it.
func openInRoot(root *os.File, unsafePath string) (*os.File, error) {
	p := strings.TrimLeft(unsafePath, "/")
	if p == "" {
		p = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: defence.Resolve(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV),
	}
	for {
		fd, err := unix.Openat2(int(root.Fd()), p, &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), unsafePath), nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return nil, &os.PathError{Op: "open", Path: unsafePath, Err: err}
		}
	}
}

// renameNew renames a directory to a name that is not taken, else EEXIST.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != unix.EINVAL {
		return err
	}
	// NFS and older FUSE know no flags. A directory that has something in it, as
	// any that was made here, is never replaced (rename(2)).
	err = unix.Rename(from, to)
	if err == unix.ENOTEMPTY {
		return unix.EEXIST
	}
	return err
}
