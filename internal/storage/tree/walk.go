package tree

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// maxOpen is how many levels above the current one keep their descriptor.
const maxOpen = 32

// level is a directory between the top and where the walk stands.
type level struct {
	name     string
	fd       int // -1: closed to save descriptors
	dev, ino uint64
	subdirs  []string // still to be walked
	listed   bool
	rounds   int // times it was listed
}

// walker goes through a tree depth first, a directory's files before its
// subdirectories.
type walker struct {
	// entry is called for each entry; it returns true for a directory that
	// shall be walked.
	entry func(dir int, name string, typ byte) (descend bool, err error)
	// leave is called when all of a directory has been seen. It returns true to
	// have it listed once more.
	leave func(parent int, l *level) (again bool, err error)
	// repair is called when a directory cannot be opened, and says whether to
	// try again.
	repair func(dir int, name string) bool

	op    string // for messages: "remove", "stat"
	top   string
	stack []level
	buf   []byte
	errs  []error // the first few; the walk goes on
	count int     // of all errors
}

// fail keeps the first errors and counts the rest.
func (w *walker) fail(op, name string, err error) {
	w.count++
	if len(w.errs) < 3 {
		w.errs = append(w.errs, &os.PathError{Op: op, Path: w.path(name), Err: err})
	}
}

// err is the outcome of the walk.
func (w *walker) err() error {
	err := errors.Join(w.errs...)
	if len(w.errs) == 1 {
		err = w.errs[0]
	}
	return err
}

// path is a name in the current directory as the user would write it.
func (w *walker) path(name string) string {
	var b strings.Builder
	b.WriteString(w.top)
	for i := 1; i < len(w.stack); i++ {
		b.WriteByte('/')
		b.WriteString(w.stack[i].name)
	}
	if name != "" {
		b.WriteByte('/')
		b.WriteString(name)
	}
	return b.String()
}

func (w *walker) close() {
	for i := range w.stack {
		if fd := w.stack[i].fd; fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	w.stack = nil
}

// closeFD closes a descriptor. What was written to it is for a sync to answer for.
func closeFD(fd int) { _ = unix.Close(fd) }

// openDirAt opens a directory by one name, never through a link or onto a mount.
func openDirAt(dir int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOATIME,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN:
		case err == unix.EPERM && how.Flags&unix.O_NOATIME != 0:
			how.Flags &^= unix.O_NOATIME // not the owner
		default:
			return fd, err
		}
	}
}

// push opens a directory and makes it the current one.
func (w *walker) push(dir int, name string) error {
	fd, err := openDirAt(dir, name)
	if err == unix.EACCES && w.repair != nil && w.repair(dir, name) {
		fd, err = openDirAt(dir, name)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	w.stack = append(w.stack, level{name: name, fd: fd, dev: st.Dev, ino: st.Ino})
	if i := len(w.stack) - 1 - maxOpen; i > 0 {
		_ = unix.Close(w.stack[i].fd)
		w.stack[i].fd = -1
	}
	return nil
}

// reopen makes sure that the directory above the current one has a descriptor.
func (w *walker) reopen() error {
	l, up := &w.stack[len(w.stack)-1], &w.stack[len(w.stack)-2]
	if up.fd >= 0 {
		return nil
	}
	fd, err := unix.Openat(l.fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Dev != up.dev || st.Ino != up.ino) {
		// Somebody moved the directory while we were in it: up is elsewhere,
		// perhaps outside.
		err = errs.New(errs.Conflict, "directory was moved away: %w", unix.ESTALE)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	up.fd = fd
	return nil
}

// walk goes through the directory name below parent.
func (w *walker) walk(parent int, name string) error {
	defer w.close()
	if err := w.push(parent, name); err != nil {
		if err == unix.EXDEV {
			err = errs.New(errs.Conflict, "is a mount point: %w", unix.EBUSY)
		}
		return &os.PathError{Op: "open", Path: w.top, Err: err}
	}
	for len(w.stack) > 0 {
		l := &w.stack[len(w.stack)-1]
		if !l.listed {
			w.list(l)
		}
		if n := len(l.subdirs); n > 0 {
			sub := l.subdirs[n-1]
			l.subdirs = l.subdirs[:n-1]
			switch err := w.push(l.fd, sub); {
			case err == unix.ENOENT: // gone meanwhile
			case err == unix.ENOTDIR, err == unix.ELOOP:
				// Something else meanwhile.
				if _, err := w.entry(l.fd, sub, unix.DT_UNKNOWN); err != nil {
					w.fail(w.op, sub, err)
				}
			case err == unix.EXDEV:
				w.fail("open", sub, errs.New(errs.Conflict, "is a mount point: %w", unix.EBUSY))
			case err != nil:
				w.fail("open", sub, err)
			}
			continue
		}
		up := parent
		if len(w.stack) > 1 {
			if err := w.reopen(); err != nil {
				w.fail("open", "..", err)
				return w.err()
			}
			up = w.stack[len(w.stack)-2].fd
		}
		if w.leave != nil {
			again, err := w.leave(up, l)
			if again {
				l.listed = false
				if _, err := unix.Seek(l.fd, 0, 0); err == nil {
					continue
				}
			}
			if err != nil {
				w.fail(w.op, "", err)
			}
		}
		_ = unix.Close(l.fd)
		w.stack = w.stack[:len(w.stack)-1]
	}
	return w.err()
}

// list reads the directory and calls entry for each name in it.
func (w *walker) list(l *level) {
	l.listed = true
	l.rounds++
	if w.buf == nil {
		w.buf = make([]byte, 32<<10)
	}
	for {
		n, err := unix.Getdents(l.fd, w.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			w.fail("read", "", err)
			return
		}
		if n == 0 {
			return
		}
		for b := w.buf[:n]; len(b) > 0; {
			var name string
			var typ byte
			name, typ, b = dirent(b)
			if name == "." || name == ".." {
				continue
			}
			descend, err := w.entry(l.fd, name, typ)
			if err != nil {
				w.fail(w.op, name, err)
			}
			if descend {
				l.subdirs = append(l.subdirs, name)
			}
		}
	}
}

// dirent takes the first struct linux_dirent64 off b: inode 8, offset 8, record
// length 2, type 1, name and NUL.
func dirent(b []byte) (name string, typ byte, rest []byte) {
	n := int(binary.NativeEndian.Uint16(b[16:]))
	s := b[19:n]
	for i, c := range s {
		if c == 0 {
			s = s[:i]
			break
		}
	}
	return string(s), b[18], b[n:]
}
