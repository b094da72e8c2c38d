package log

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// rotated is a log file that is put aside when it is full.
type rotated struct {
	path string
	o    Options
	fd   int // -1 or 0: not open
	open bool
	size int64
	done chan error // of a compression under way
}

// fits reports whether n more bytes may go into the current file.
func (r *rotated) fits(n int) bool { return r.o.MaxSize == 0 || r.size+int64(n) <= r.o.MaxSize }

func (r *rotated) write(p []byte) error {
	if !r.open {
		if err := r.openFile(); err != nil {
			return err
		}
	}
	for len(p) > 0 {
		n, err := unix.Write(r.fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			// A piece of an entry may be in the file. Without it the next one
			// can be read; if it cannot be cut off, readers step over it.
			_ = unix.Ftruncate(r.fd, r.size)
			return &fs.PathError{Op: "write log", Path: r.path, Err: err}
		}
		p = p[n:]
		if len(p) == 0 {
			break
		}
	}
	// O_APPEND and a single writer: the offset is the size.
	if end, err := unix.Seek(r.fd, 0, io.SeekCurrent); err == nil {
		r.size = end
	}
	return nil
}

// openFile opens the current file and repairs its end: the writer before us may
// have been killed in the middle of an entry.
func (r *rotated) openFile() error {
	if r.o.Driver == Local {
		if err := unix.Mkdir(filepath.Dir(r.path), 0o700); err != nil && err != unix.EEXIST {
			return &fs.PathError{Op: "mkdir", Path: filepath.Dir(r.path), Err: err}
		}
	}
	fd, err := unix.Open(r.path, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return &fs.PathError{Op: "open log", Path: r.path, Err: err}
	}
	r.fd, r.open = fd, true
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat log", Path: r.path, Err: err}
	}
	r.size = st.Size
	if r.size == 0 {
		return nil
	}
	if r.o.Driver == Local {
		good := wholeLocal(fd, r.size)
		if good < r.size {
			if err := unix.Ftruncate(fd, good); err != nil {
				return &fs.PathError{Op: "repair log", Path: r.path, Err: err}
			}
			r.size = good
		}
		return nil
	}
	var last [1]byte
	if n, err := unix.Pread(fd, last[:], r.size-1); err == nil && n == 1 && last[0] != '\n' {
		return r.write([]byte{'\n'})
	}
	return nil
}

// wholeLocal returns the size of a local file's part that holds whole entries.
func wholeLocal(fd int, size int64) int64 {
	var good int64
	var head [4]byte
	for good < size {
		if n, err := unix.Pread(fd, head[:], good); err != nil || n != 4 {
			break
		}
		n := int64(head[0])<<24 | int64(head[1])<<16 | int64(head[2])<<8 | int64(head[3])
		if n > maxLocal || good+n+8 > size {
			break
		}
		good += n + 8
	}
	return good
}

// rotate puts the current file aside. Each step leaves a state that readers and
// the next Writer understand: at worst a number is missing.
func (r *rotated) rotate() error {
	if !r.open {
		return nil
	}
	err := r.wait() // the rename below would take the file from under the compression
	_ = unix.Close(r.fd)
	r.open, r.size = false, 0
	if r.o.MaxFiles <= 1 {
		return errors.Join(err, remove(r.path))
	}
	oldest := r.o.MaxFiles - 1
	err = errors.Join(err, remove(r.name(oldest, false)), remove(r.name(oldest, true)))
	for i := oldest - 1; i >= 1; i-- {
		for _, gz := range [...]bool{false, true} {
			if rerr := unix.Rename(r.name(i, gz), r.name(i+1, gz)); rerr != nil && rerr != unix.ENOENT {
				err = errors.Join(err, &fs.PathError{Op: "rotate log", Path: r.name(i, gz), Err: rerr})
			}
		}
	}
	if rerr := unix.Rename(r.path, r.name(1, false)); rerr != nil {
		// The log must not grow without bound because it cannot be renamed.
		return errors.Join(err, &fs.PathError{Op: "rotate log", Path: r.path, Err: rerr}, remove(r.path))
	}
	if r.o.Compress {
		r.done = make(chan error, 1)
		go func(done chan error) { done <- compress(r.name(1, false), r.name(1, true)) }(r.done)
	}
	return err
}

func (r *rotated) name(i int, gz bool) string {
	n := r.path + "." + strconv.Itoa(i)
	if gz {
		n += ".gz"
	}
	return n
}

// wait waits for the compression under way.
func (r *rotated) wait() error {
	if r.done == nil {
		return nil
	}
	err := <-r.done
	r.done = nil
	return err
}

func (r *rotated) close() error {
	err := r.wait()
	if r.open {
		r.open = false
		err = errors.Join(err, unix.Close(r.fd))
	}
	return err
}

// compress replaces a rotated file by its gzip. The header carries the file's
// inode number, by which a reader that follows knows it again.
func compress(from, to string) (Err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp := to + ".tmp"
	dst, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if Err != nil {
			_ = os.Remove(tmp) // the plain file is still there
		}
	}()
	bw := bufio.NewWriterSize(dst, 64<<10)
	zw, err := gzip.NewWriterLevel(bw, gzip.BestSpeed)
	if err == nil {
		zw.Comment = strconv.FormatUint(inode(src), 10)
		_, err = io.Copy(zw, src)
	}
	if err == nil {
		err = zw.Close()
	}
	if err == nil {
		err = bw.Flush()
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	// A crash here leaves both; readers take the plain one.
	return os.Remove(from)
}

func inode(f *os.File) uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	return st.Ino
}

func remove(path string) error {
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "remove log", Path: path, Err: err}
	}
	return nil
}
