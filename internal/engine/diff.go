package engine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/pack"
)

// Change is one difference between a container's files and its image's.
type Change struct {
	Kind byte // 'A' added, 'C' changed, 'D' deleted
	Path string
}

// Diff tells what a container has changed in its file system, sorted by path.
func (e *Engine) Diff(ctx context.Context, ref string) ([]Change, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	done := make(chan error, 1)
	go func() { //nolint:contextcheck // a mount is not cancelled; the streams end the rest
		done <- e.files(fileWork{Op: filesDiff, ID: c.ID}, nil, w)
		_ = w.Close() // a pipe end of ours
	}()
	b, err := io.ReadAll(r)
	if werr := <-done; werr != nil {
		return nil, werr
	}
	if err != nil {
		return nil, err
	}
	var all []Change
	for line := range strings.SplitSeq(string(b), "\x00") {
		if line != "" {
			all = append(all, Change{line[0], line[1:]})
		}
	}
	return all, nil
}

func (v *view) diff(out io.Writer) error {
	w := bufio.NewWriter(out)
	err := v.changes(func(ch Change, _ *os.File, _ string) error {
		if err := w.WriteByte(ch.Kind); err != nil {
			return err
		}
		_, err := w.WriteString(ch.Path + "\x00")
		return err
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

// layer writes the changes as a layer: deleted names as whiteouts.
func (v *view) layer(out io.Writer) error {
	w := bufio.NewWriterSize(out, 1<<20)
	p := pack.New(w, v.options())
	err := v.changes(func(ch Change, dir *os.File, name string) error {
		as := strings.TrimPrefix(ch.Path, "/")
		if ch.Kind == 'D' {
			return p.Whiteout(path.Join(path.Dir(as), ".wh."+path.Base(as)))
		}
		return p.AddOne(dir, name, as)
	})
	if err == nil {
		err = p.Close()
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

// differ walks the writable layer beside the image.
type differ struct {
	emit func(ch Change, dir *os.File, name string) error
	made map[string]bool // what isle itself makes in a root file system
}

// changes calls emit for every change, parents first; dir and name are where
// the changed file is.
func (v *view) changes(emit func(ch Change, dir *os.File, name string) error) error {
	upper, err := os.OpenFile(v.c.Dir+"/upper", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer upper.Close()
	lower, err := v.lower()
	if err != nil {
		return err
	}
	defer lower.Close()
	d := &differ{emit: emit, made: map[string]bool{"/dev": true, "/proc": true, "/sys": true, "/etc/hosts": true, "/etc/hostname": true, "/etc/resolv.conf": true, "/etc/mtab": true, "/.dockerenv": true}}
	for i := range v.c.Config.Mounts {
		for p := path.Clean(v.c.Config.Mounts[i].Target); p != "/" && p != "."; p = path.Dir(p) {
			d.made[p] = true
		}
	}
	low, err := openSub(lower, ".")
	if err != nil {
		return err
	}
	defer low.Close()
	return d.dir(upper, low, "", func() error { return nil })
}

// openSub opens a directory by one name that is no link; nil when there is none.
func openSub(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// dir reports the changes in a directory of the upper layer. low is the image's
// directory of the same name, or nil. tell reports the directory itself, when
// it was not reported: something in it has changed.
func (d *differ) dir(up, low *os.File, at string, tell func() error) error {
	names, err := up.Readdirnames(-1)
	if err != nil {
		return &os.PathError{Op: "read", Path: at, Err: err}
	}
	if low != nil && isOpaque(up) {
		// All that the image has here is gone, but for what is here again.
		old, err := low.Readdirnames(-1)
		if err != nil {
			return &os.PathError{Op: "read", Path: at, Err: err}
		}
		for _, n := range old {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	changed := false
	report := func(ch Change, name string) error {
		if !changed {
			changed = true
			if err := tell(); err != nil {
				return err
			}
		}
		return d.emit(ch, up, name)
	}
	for _, n := range names {
		if err := d.entry(up, low, n, at+"/"+n, report); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) entry(up, low *os.File, name, p string, report func(Change, string) error) error {
	var st, old unix.Stat_t
	err := unix.Fstatat(int(up.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	gone := errors.Is(err, unix.ENOENT)
	if err != nil && !gone {
		return &os.PathError{Op: "stat", Path: p, Err: err}
	}
	there := low != nil && unix.Fstatat(int(low.Fd()), name, &old, unix.AT_SYMLINK_NOFOLLOW) == nil
	if gone || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		if !there {
			return nil
		}
		return report(Change{'D', p}, name)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !there && !isDir && d.made[p] && st.Size == 0 {
		return nil // the place of a mount
	}
	if !isDir {
		kind := byte('A')
		if there {
			kind = 'C'
		}
		return report(Change{kind, p}, name)
	}
	sub, err := openSub(up, name)
	if err != nil {
		return err
	}
	defer sub.Close()
	var below *os.File
	told := false
	tell := func() error {
		if told {
			return nil
		}
		told = true
		if !there {
			return report(Change{'A', p}, name)
		}
		return report(Change{'C', p}, name)
	}
	if there && old.Mode&unix.S_IFMT == unix.S_IFDIR {
		if below, err = openSub(low, name); err != nil {
			return err
		}
		defer below.Close()
		same := st.Mode == old.Mode && st.Uid == old.Uid && st.Gid == old.Gid && st.Mtim == old.Mtim
		if !same && !d.made[p] {
			if err := tell(); err != nil {
				return err
			}
		}
	} else if !d.made[p] {
		if err := tell(); err != nil {
			return err
		}
	}
	return d.dir(sub, below, p, tell)
}

// isOpaque reports whether an upper directory hides the one below it.
func isOpaque(dir *os.File) bool {
	var b [2]byte
	for _, name := range [...]string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(int(dir.Fd()), name, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

// Export writes a container's file system, without what is mounted in it, as a
// tar archive.
func (e *Engine) Export(ctx context.Context, ref string, out *os.File) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if c.State.Status == "dead" {
		return errs.New(errs.Conflict, "container %s: is dead and cannot be exported", c.ID)
	}
	return e.files(fileWork{Op: filesExport, ID: c.ID}, nil, out) //nolint:contextcheck // a mount is not cancelled; the streams end the rest
}

func (v *view) export(out io.Writer) error {
	root, err := v.bare()
	if err != nil {
		return err
	}
	defer root.Close()
	w := bufio.NewWriterSize(out, 1<<20)
	o := v.options()
	o.OneFS = true
	p := pack.New(w, o)
	if err := p.AddContent(root, ""); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	return w.Flush()
}
