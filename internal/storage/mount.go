package storage

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// MountOptions say how layers are stacked.
type MountOptions struct {
	// UserXattr reads whiteouts as a user namespace makes them; it must agree
	// with how the layers were unpacked.
	UserXattr bool
	ReadOnly  bool
	// Volatile gives up what was written when the machine stops, and with it
	// the syncs that overlayfs does at umount and fsync(2). The upper directory
	// cannot be mounted again.
	Volatile bool
	// UIDs and GIDs, when not empty, are the maps of the container's own user
	// namespace, HostID as the caller sees it: the layers' files then belong to
	// the container's ids (shift.go). Upper is for the caller to own rightly.
	UIDs, GIDs []specs.LinuxIDMapping
	// Places puts a layer below all others that holds the empty directories and
	// files which every container has something mounted on: they need not be made
	// in each upper directory.
	Places bool
	// Warn, if set, is told what takes longer or more room than it should.
	Warn func(text string)
}

// rung is a way to hand a stack of layers to the kernel.
type rung int

const (
	// rungAppend hands the layers over one by one ("lowerdir+"; documented since
	// Linux 6.8).
	rungAppend rung = iota
	// rungString joins them into one option of fsconfig(2), which takes 255 bytes.
	rungString
	// rungMount is mount(2), which takes a page of options.
	rungMount
)

// appendOption adds a layer below those there are.
const appendOption = "lowerdir+"

// maxLayers is overlayfs's own limit (OVL_MAX_STACK).
const maxLayers = 500

// maxValue is the length of a string that fsconfig(2) takes.
const maxValue = 255

// Mount stacks layers (diff ids, lowest first) under the directories upper and
// work, which are on one file system and not in use by another mount. Without
// upper, and with o.ReadOnly, the result cannot be written to. The mount is
// attached nowhere: the file is its root, to be closed by the caller, who has
// CAP_SYS_ADMIN in its user and mount namespace.
func (s *Store) Mount(layers []string, upper, work string, o MountOptions) (*os.File, error) {
	// Without that layer the places are made in upper.
	o.Places = o.Places && s.makePlaces() == nil
	st, err := s.stack(layers, upper, work, o)
	if err != nil {
		return nil, err
	}
	if !keeps(o.UIDs) || !keeps(o.GIDs) {
		return s.mountShifted(st)
	}
	return s.mount(st)
}

// mount tries one rung after the other.
func (s *Store) mount(st *stack) (*os.File, error) {
	var first, told error // the first failure, and the first with a reason from the kernel
	for r := s.rung; r <= rungMount; r++ {
		var f *os.File
		var err error
		switch r {
		case rungAppend:
			f, err = st.mountAppend()
		case rungString:
			f, err = st.mountString()
		case rungMount:
			f, err = st.mountClassic()
		}
		if err == nil {
			return f, nil
		}
		// A rung that this kernel does not have fails with EINVAL, but a real
		// failure may look the same, and on some kernels a missing rung looks like
		// a missing directory. So every rung is asked; what is really wrong they
		// all say.
		if first == nil || errors.Is(first, errTooLong) {
			first = err
		}
		var why *refusal
		if told == nil && errors.As(err, &why) && !why.ofAppend {
			told = err
		}
		if errors.Is(err, unix.ENODEV) {
			break
		}
	}
	if told != nil {
		first = told
	}
	return nil, st.explain(first)
}

// errTooLong is a stack that does not fit into one option.
var errTooLong error = unix.E2BIG

// stack is what is to be mounted.
type stack struct {
	lower       []string // directories, highest first, as overlayfs has them
	upper, work string
	o           MountOptions
	userNS      *os.File // whose map the lower directories are seen through; nil: none
}

func (s *Store) stack(layers []string, upper, work string, o MountOptions) (*stack, error) {
	opaqueRoots, err := s.checkFormat(o.UserXattr)
	if err != nil {
		return nil, err
	}
	st := &stack{lower: make([]string, 0, len(layers)+1), upper: upper, work: work, o: o}
	for _, id := range slices.Backward(layers) {
		h, err := hexOf(id)
		if err != nil {
			return nil, err
		}
		dir := s.dir + "/" + h + "/" + diffDir
		st.lower = append(st.lower, dir)
		if opaqueRoots && isOpaque(dir, o.UserXattr) {
			break
		}
	}
	// overlayfs wants a lower directory, and two of them without an upper one.
	if len(st.lower) == 0 || len(st.lower) == 1 && upper == "" {
		empty := filepath.Join(s.dir, emptyLayer)
		if err := os.MkdirAll(empty, 0o755); err != nil {
			return nil, err
		}
		st.lower = append(st.lower, empty)
		if len(st.lower) == 1 && upper == "" {
			if err := os.MkdirAll(empty+"2", 0o755); err != nil {
				return nil, err
			}
			st.lower = append(st.lower, empty+"2")
		}
	}
	if o.Places && len(o.UIDs) == 0 && len(st.lower) < maxLayers {
		st.lower = append(st.lower, s.dir+"/"+placesLayer)
	}
	if len(st.lower) > maxLayers {
		return nil, errs.New(errs.Unsupported, "mount overlay: %d layers are more than the kernel stacks (%d)", len(st.lower), maxLayers)
	}
	return st, nil
}

// isOpaque reports whether a layer hides all below it.
func isOpaque(dir string, userXattr bool) bool {
	name := "trusted.overlay.opaque"
	if userXattr {
		name = "user.overlay.opaque"
	}
	var v [2]byte
	n, err := unix.Lgetxattr(dir, name, v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

// options calls set for every option but the directories. They are what Docker
// and containerd mount with: no index, no redirects (a directory of a lower
// layer is renamed by copying, EXDEV says so to mv), no metadata-only copies;
// so an upper directory holds whole files and can be read as a diff.
func (st *stack) options(set func(key, value string) error) error {
	o := [...]struct {
		key, value string
		on         bool
	}{
		{"source", "overlay", true},
		{"userxattr", "", st.o.UserXattr},
		{"index", "off", true},
		// With userxattr the kernel has these two off and refuses other values
		// (and, before 6.x, some equal ones).
		{"redirect_dir", "nofollow", !st.o.UserXattr},
		{"metacopy", "off", !st.o.UserXattr},
		{"volatile", "", st.o.Volatile && st.upper != ""},
	}
	for _, e := range o {
		if e.on {
			if err := set(e.key, e.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// handles opens directories so that each has a short name without any of the
// characters that options give a meaning: a number in /proc/self/fd.
type handles []int

func (h *handles) open(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	*h = append(*h, fd)
	return strconv.Itoa(fd), nil
}

func (h handles) close() {
	for _, fd := range h {
		_ = unix.Close(fd)
	}
}

// lower opens a lower directory, through the map of a user namespace if there is one.
func (h *handles) lower(dir string, userNS *os.File) (string, error) {
	if userNS == nil {
		return h.open(dir)
	}
	fd, err := idmapped(dir, userNS)
	if err != nil {
		return "", err
	}
	*h = append(*h, fd)
	return strconv.Itoa(fd), nil
}

// name returns dir itself where the option can hold it.
func (h *handles) name(dir string) (string, error) {
	if len(dir) <= maxValue && !strings.ContainsAny(dir, `\:,`) {
		return dir, nil
	}
	n, err := h.open(dir)
	return "/proc/self/fd/" + n, err
}

// fsContext is a mount in the making.
type fsContext struct{ fd int }

func newContext() (fsContext, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fsContext{-1}, os.NewSyscallError("fsopen overlay", err)
	}
	return fsContext{fd}, nil
}

func (c fsContext) close() { _ = unix.Close(c.fd) }

func (c fsContext) set(key, value string) error {
	var err error
	if value == "" {
		err = unix.FsconfigSetFlag(c.fd, key)
	} else {
		err = unix.FsconfigSetString(c.fd, key, value)
	}
	if err != nil {
		return c.fail("fsconfig "+key+"="+value, err)
	}
	return nil
}

// fail adds what the kernel has to say (since 6.5 overlayfs says it here; before,
// only in the kernel log).
func (c fsContext) fail(call string, err error) error {
	var buf [512]byte
	n, e := unix.Read(c.fd, buf[:])
	if e != nil || n <= 2 {
		return os.NewSyscallError(call, err)
	}
	// "e overlay: text": a letter for the kind.
	text := strings.TrimPrefix(strings.TrimSpace(string(buf[2:n])), "overlay: ")
	return &refusal{call: call, text: text, err: err, ofAppend: strings.HasPrefix(call, "fsconfig "+appendOption)}
}

// refusal is a failed call with what the kernel says about it.
type refusal struct {
	call, text string
	err        error
	ofAppend   bool // says perhaps only that the kernel has no such option
}

func (r *refusal) Error() string { return r.call + ": " + r.text + ": " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func (c fsContext) mount(o MountOptions) (*os.File, error) {
	if err := unix.FsconfigCreate(c.fd); err != nil {
		return nil, c.fail("fsconfig create", err)
	}
	attr := 0
	if o.ReadOnly {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, c.fail("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "overlay"), nil
}

func (st *stack) mountAppend() (*os.File, error) {
	c, err := newContext()
	if err != nil {
		return nil, err
	}
	defer c.close()
	var h handles
	defer func() { h.close() }()
	dir := func(key, dir string) error {
		name, err := h.name(dir)
		if err != nil {
			return err
		}
		return c.set(key, name)
	}
	if err := st.options(c.set); err != nil {
		return nil, err
	}
	for _, l := range st.lower {
		if st.userNS != nil {
			n, err := h.lower(l, st.userNS)
			if err != nil {
				return nil, err
			}
			l = "/proc/self/fd/" + n
		}
		if err := dir(appendOption, l); err != nil {
			return nil, err
		}
	}
	if st.upper != "" {
		if err := dir("upperdir", st.upper); err != nil {
			return nil, err
		}
		if err := dir("workdir", st.work); err != nil {
			return nil, err
		}
	}
	return c.mount(st.o)
}

// numbered opens all directories and returns their names below /proc/self/fd.
func (st *stack) numbered(h *handles) (lower, upper, work string, err error) {
	names := make([]string, len(st.lower))
	for i, l := range st.lower {
		if names[i], err = h.lower(l, st.userNS); err != nil {
			return
		}
	}
	if st.upper != "" {
		if upper, err = h.open(st.upper); err != nil {
			return
		}
		if work, err = h.open(st.work); err != nil {
			return
		}
	}
	return strings.Join(names, ":"), upper, work, nil
}

// inFD runs f in a thread of its own whose working directory is /proc/self/fd,
// so that numbers are paths. The thread is never given back: it ends.
func inFD(unshare int, f func() (*os.File, error)) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		var r result
		if r.err = unix.Unshare(unshare | unix.CLONE_FS); r.err != nil {
			r.err = os.NewSyscallError("unshare", r.err)
		} else if r.err = unix.Chdir("/proc/self/fd"); r.err == nil {
			r.f, r.err = f()
		}
		done <- r
	}()
	r := <-done
	return r.f, r.err
}

func (st *stack) mountString() (*os.File, error) {
	var h handles
	defer func() { h.close() }()
	lower, upper, work, err := st.numbered(&h)
	if err != nil {
		return nil, err
	}
	if len(lower) > maxValue {
		return nil, errTooLong
	}
	return inFD(0, func() (*os.File, error) {
		c, err := newContext()
		if err != nil {
			return nil, err
		}
		defer c.close()
		if err := st.options(c.set); err != nil {
			return nil, err
		}
		if err := c.set("lowerdir", lower); err != nil {
			return nil, err
		}
		if st.upper != "" {
			if err := c.set("upperdir", upper); err != nil {
				return nil, err
			}
			if err := c.set("workdir", work); err != nil {
				return nil, err
			}
		}
		return c.mount(st.o)
	})
}

// mountClassic mounts with mount(2) in a mount namespace of its own thread, on
// any directory, and takes a detached copy from there. Nobody else sees the
// mount, and it goes with the thread.
func (st *stack) mountClassic() (*os.File, error) {
	return inFD(unix.CLONE_NEWNS, func() (*os.File, error) {
		// Or the mount would show in the namespace we came from.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return nil, os.NewSyscallError("mount / private", err)
		}
		// Opened here: overlayfs takes directories of its own mount namespace only.
		var h handles
		defer func() { h.close() }()
		data, err := st.classicOptions(&h)
		if err != nil {
			return nil, err
		}
		on := st.lower[0]
		if st.userNS != nil {
			// Before Linux 6.15 a layer has to be attached somewhere.
			for i, l := range st.lower {
				if err := unix.MoveMount(h[i], "", unix.AT_FDCWD, l, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
					return nil, os.NewSyscallError("move_mount", err)
				}
			}
			on = "/proc"
		}
		var flags uintptr
		if st.o.ReadOnly {
			flags = unix.MS_RDONLY
		}
		if err := unix.Mount("overlay", on, "overlay", flags, data); err != nil {
			return nil, os.NewSyscallError("mount overlay", err)
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, on, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("open_tree", err)
		}
		// The first thread of a process does not end, nor does its namespace.
		_ = unix.Unmount(on, unix.MNT_DETACH) // the copy is what counts
		if st.userNS != nil {
			for _, l := range st.lower {
				_ = unix.Unmount(l, unix.MNT_DETACH) // overlayfs has its own copies
			}
		}
		return os.NewFile(uintptr(fd), "overlay"), nil
	})
}

// classicOptions is the option string of mount(2).
func (st *stack) classicOptions(h *handles) (string, error) {
	lower, upper, work, err := st.numbered(h)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("lowerdir=" + lower)
	if st.upper != "" {
		b.WriteString(",upperdir=" + upper + ",workdir=" + work)
	}
	_ = st.options(func(key, value string) error {
		if key == "source" {
			return nil
		}
		b.WriteString("," + key)
		if value != "" {
			b.WriteString("=" + value)
		}
		return nil
	})
	const page = 4096
	if b.Len() >= page {
		return "", errs.New(errs.Unsupported, "%d layers are more than mount(2) takes: %w", len(st.lower), errTooLong)
	}
	return b.String(), nil
}

// explain finds out why a stack cannot be mounted.
func (st *stack) explain(err error) error {
	what := func(kind errs.Kind) error {
		plural := "s"
		if len(st.lower) == 1 {
			plural = ""
		}
		return errs.New(kind, "mount overlay of %d layer%s: %w", len(st.lower), plural, err)
	}
	for _, l := range st.lower {
		if _, e := os.Stat(l); os.IsNotExist(e) {
			return errs.New(errs.NotFound, "layer %s: not unpacked: %w", short(filepath.Base(filepath.Dir(l))), e)
		}
	}
	if errors.Is(err, unix.ENODEV) {
		return errs.Hint(what(errs.Unsupported), "this kernel has no overlayfs; try, as root: modprobe overlay")
	}
	if st.upper != "" && !errors.Is(err, unix.EBUSY) {
		var fs unix.Statfs_t
		if e := unix.Statfs(st.upper, &fs); e != nil {
			return errs.New(errs.KindOf(e), "mount overlay: upper directory %q: %w", st.upper, e)
		}
		if named := noLayers(st.upper, what(errs.Unsupported)); len(errs.Hints(named)) > 0 {
			return named
		}
	}
	if errors.Is(err, unix.EPERM) && st.o.UserXattr {
		return errs.Hint(what(errs.Unsupported), "an ordinary user can mount overlayfs since Linux 5.11")
	}
	return what(errs.KindOf(err))
}
