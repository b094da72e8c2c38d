package engine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/monitor/inside"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/storage/pack"
	"github.com/isle-engine/isle/internal/storage/tarball"
)

// CopyOptions of cp.
type CopyOptions struct {
	Archive bool // keep owners (out), or give the files to the container's user (in)
	Follow  bool // the link that the source may be
}

// source describes what is copied, as far as its destination depends on it.
type source struct {
	Stream  bool   `json:"stream,omitempty"` // an archive as it is, for an existing directory
	Name    string `json:"name,omitempty"`   // base name
	Dir     bool   `json:"dir,omitempty"`
	Content bool   `json:"content,omitempty"` // of the directory: the path ended in /.
}

// place is a path of one file system: a directory and a name in it, "." for the
// directory itself.
type place struct {
	dir     *os.File
	name    string
	path    string // of dir, below the root
	isDir   bool
	exists  bool
	content bool // the path ended in /.
}

// hops is how many links are followed in one path, as by the kernel.
const hops = 40

// find resolves unsafePath in root; a link at its end is followed when asked
// for, or when the path says that it is a directory.
func find(root *os.File, unsafePath string, follow bool) (*place, error) {
	pl := &place{}
	p := "/" + unsafePath
	slash := strings.HasSuffix(p, "/")
	if strings.HasSuffix(p, "/.") {
		pl.content, slash = true, true
	}
	follow = follow || slash
	for range hops {
		dir, base := path.Split(strings.TrimRight(strings.TrimSuffix(p, "/."), "/"))
		if base == "" || base == ".." || base == "." {
			dir, base = p, "."
		}
		fd, err := openat2In(root, dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fd), dir)
		var st unix.Stat_t
		err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			_ = f.Close() // O_PATH; nothing to lose
			return nil, &os.PathError{Op: "stat", Path: unsafePath, Err: err}
		}
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK && follow {
			b := make([]byte, unix.PathMax)
			n, err := unix.Readlinkat(fd, base, b)
			_ = f.Close() // O_PATH; nothing to lose
			if err != nil {
				return nil, &os.PathError{Op: "readlink", Path: unsafePath, Err: err}
			}
			if p = string(b[:n]); !strings.HasPrefix(p, "/") {
				p = dir + p
			}
			continue
		}
		pl.dir, pl.name, pl.path = f, base, strings.Trim(dir, "/")
		pl.exists, pl.isDir = err == nil, err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
		if pl.exists && !pl.isDir && slash {
			_ = f.Close() // O_PATH; nothing to lose
			return nil, &os.PathError{Op: "open", Path: unsafePath, Err: unix.ENOTDIR}
		}
		return pl, nil
	}
	return nil, &os.PathError{Op: "open", Path: unsafePath, Err: unix.ELOOP}
}

func openat2In(root *os.File, p string, flags uint64) (int, error) {
	rel := strings.TrimLeft(p, "/")
	if rel == "" {
		rel = "."
	}
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: defence.Resolve(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS)}
	for {
		fd, err := unix.Openat2(int(root.Fd()), rel, how)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN: // something was renamed meanwhile
		default:
			return -1, &os.PathError{Op: "open", Path: p, Err: err}
		}
	}
}

// inTop is what the archives between the two sides call their top.
const inTop = "x"

// packPlace writes what is at pl; as is its name in the archive.
func packPlace(pl *place, as string, o pack.Options, out io.Writer) error {
	w := bufio.NewWriterSize(out, 1<<20)
	p := pack.New(w, o)
	if err := p.Add(pl.dir, pl.name, as); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	return w.Flush()
}

// target decides where a source goes, by Docker's rules.
func target(root *os.File, to string, src source) (pack.Target, error) {
	var t pack.Target
	pl, err := find(root, to, true)
	if errors.Is(err, unix.ENOENT) {
		return t, errs.New(errs.NotFound, "no such directory: %s", path.Dir(path.Clean("/"+to)))
	}
	if err != nil {
		return t, err
	}
	switch {
	case pl.isDir:
		fd, err := unix.Openat(int(pl.dir.Fd()), pl.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		_ = pl.dir.Close() // O_PATH; nothing to lose
		if err != nil {
			return t, &os.PathError{Op: "open", Path: to, Err: err}
		}
		t.Dir, t.Path = os.NewFile(uintptr(fd), to), path.Join(pl.path, pl.name)
		if src.Stream {
			return t, nil
		}
		t.Rename, t.Strip = src.Name, src.Content
		return t, nil
	case src.Stream:
		err = errs.New(errs.Invalid, "destination %q must be a directory", to)
	case pl.exists && src.Dir:
		err = errs.New(errs.Conflict, "cannot copy directory")
	case !pl.exists && !src.Dir && (strings.HasSuffix(to, "/") || pl.content):
		err = errs.New(errs.NotFound, "no such directory")
	}
	if err != nil {
		_ = pl.dir.Close() // O_PATH; nothing to lose
		return t, err
	}
	t.Dir, t.Rename, t.Path = pl.dir, pl.name, pl.path
	return t, nil
}

// in lays an archive out in the container.
func (v *view) in(w *fileWork, in io.Reader) error {
	root, err := v.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if v.c.Config.ReadOnly && !v.running && !v.inVolume(w.Path) {
		return errs.New(errs.Conflict, "container rootfs is marked read-only")
	}
	t, err := target(root, w.Path, w.Source)
	if err != nil {
		return err
	}
	defer t.Dir.Close()
	t.Root = root
	out := func(id int64, m pack.IDs) (int, error) {
		if m == nil {
			return int(id), nil
		}
		n, err := m.Out(uint32(id))
		return int(n), err
	}
	var fixed *spec.User
	if w.User != "" {
		u, err := inside.UserBelow(root, w.User, nil)
		if err != nil {
			return err
		}
		fixed = &u
	}
	t.Owner = func(uid, gid int64) (int, int, error) {
		if fixed != nil {
			uid, gid = int64(fixed.UID), int64(fixed.GID)
		}
		u, err := out(uid, v.ids[0])
		if err != nil {
			return 0, 0, err
		}
		g, err := out(gid, v.ids[1])
		return u, g, err
	}
	return pack.Extract(in, t)
}

// inVolume reports whether a path leads into a mount that can be written to.
func (v *view) inVolume(p string) bool {
	p = path.Clean("/" + p)
	for i := range v.c.Config.Mounts {
		m := &v.c.Config.Mounts[i]
		t := path.Clean(m.Target)
		if !m.ReadOnly && (p == t || strings.HasPrefix(p, t+"/")) {
			return true
		}
	}
	return false
}

// out writes a file or directory of the container as an archive.
func (v *view) out(w *fileWork, out io.Writer) error {
	root, err := v.root()
	if err != nil {
		return err
	}
	defer root.Close()
	pl, err := find(root, w.Path, w.Follow)
	if err == nil && !pl.exists {
		err = unix.ENOENT
	}
	if errors.Is(err, unix.ENOENT) {
		return errs.New(errs.NotFound, "Could not find the file %s in container %s", w.Path, v.c.Config.Name)
	}
	if err != nil {
		return err
	}
	defer pl.dir.Close()
	return packPlace(pl, w.Name, v.options(), out)
}

// baseName is what a path's last component is called, "" for a root.
func baseName(p string) string {
	b := path.Base(path.Clean("/" + p))
	if b == "/" {
		return ""
	}
	return b
}

// CopyFrom copies a file or directory of a container to the host. An open out
// gets it as a tar archive instead. It returns the bytes that were passed.
func (e *Engine) CopyFrom(ctx context.Context, ref, from, to string, out *os.File, o CopyOptions) (int64, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return 0, err
	}
	content := strings.HasSuffix(from, "/.") || from == "."
	w := fileWork{Op: filesOut, ID: c.ID, Path: from, Follow: o.Follow, Name: inTop}
	if out != nil {
		if w.Name = baseName(from); w.Name == "" || content {
			w.Name = "."
		}
		return 0, e.files(w, nil, out) //nolint:contextcheck // a mount is not cancelled; the streams end the rest
	}
	r, pw, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	done := make(chan error, 1)
	go func() { //nolint:contextcheck // a mount is not cancelled; the streams end the rest
		done <- e.files(w, nil, pw)
		_ = pw.Close() // a pipe end of ours
	}()
	in := &counter{r: bufio.NewReaderSize(r, 256<<10)}
	err = hostExtract(in, to, source{Name: baseName(from), Content: content}, o.Archive && !e.env.Rootless)
	_ = r.Close() // lets the writer end
	if werr := <-done; werr != nil && !errors.Is(werr, unix.EPIPE) {
		return 0, werr
	}
	return in.n, err
}

// counter counts what is read.
type counter struct {
	r *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// hostExtract lays an archive from a container out on the host.
func hostExtract(in *counter, to string, src source, owners bool) error {
	// The first header says what comes: its type is at byte 156.
	head, err := in.r.Peek(512)
	if err != nil {
		return nil // nothing came: the sender has the reason
	}
	if head[156] == 'x' {
		if head, err = in.r.Peek(4096); len(head) < 2048 {
			return err
		}
		size := 0
		for _, d := range head[124:135] {
			size = size*8 + int(d-'0')
		}
		if at := 512 + (size+511)/512*512 + 156; at < len(head) {
			src.Dir = head[at] == tarball.Dir
		}
	} else {
		src.Dir = head[156] == tarball.Dir
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	src.Content = src.Content && src.Dir
	if src.Name == "" { // the container's root has no name to go by
		src.Content = true
	}
	t, err := target(root, to, src)
	if err != nil {
		return err
	}
	defer t.Dir.Close()
	if owners {
		t.Owner = func(uid, gid int64) (int, int, error) { return int(uid), int(gid), nil }
	}
	return pack.Extract(in, t)
}

// CopyTo copies a file or directory of the host into a container. An open in is
// a tar archive to lay out there instead. It returns the bytes that were passed.
func (e *Engine) CopyTo(ctx context.Context, ref, from, to string, in *os.File, o CopyOptions) (int64, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return 0, err
	}
	w := fileWork{Op: filesIn, ID: c.ID, Path: to}
	if o.Archive {
		if w.User = c.Config.User; w.User == "" {
			w.User = c.Image.Config.User
		}
	}
	if in != nil {
		w.Source.Stream = true
		return 0, e.files(w, in, nil) //nolint:contextcheck // a mount is not cancelled; the streams end the rest
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	pl, err := find(root, from, o.Follow)
	if err == nil && !pl.exists {
		err = &os.PathError{Op: "lstat", Path: from, Err: unix.ENOENT}
	}
	if err != nil {
		return 0, err
	}
	defer pl.dir.Close()
	w.Source = source{Name: baseName(from), Dir: pl.isDir, Content: pl.content && pl.isDir}
	if w.Source.Name == "" {
		w.Source.Content = true
	}
	r, pw, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	po := pack.Options{}
	if e.env.Rootless {
		// The user's own ids are 0 in there, and others cannot be had.
		root := func(uint32) uint32 { return 0 }
		po.UID, po.GID = root, root
	}
	done := make(chan error, 1)
	var n int64
	go func() {
		out := &writeCounter{w: pw}
		err := packPlace(pl, inTop, po, out)
		n = out.n
		done <- errors.Join(err, pw.Close())
	}()
	err = e.files(w, r, nil) //nolint:contextcheck // a mount is not cancelled; the streams end the rest
	_ = r.Close()            // lets the writer end
	if werr := <-done; err == nil && !errors.Is(werr, unix.EPIPE) {
		err = werr
	}
	return n, err
}

type writeCounter struct {
	w io.Writer
	n int64
}

func (c *writeCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
