package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// tmpPrefix starts the names of files that are being written. Whoever lists a
// directory of records skips names that start with a dot.
const tmpPrefix = ".tmp-"

// maxRecord bounds what is read as a record: a damaged or hostile file must not
// eat the memory of whoever lists it.
const maxRecord = 32 << 20

// tmpCount makes the names of temporary files differ within this process.
var tmpCount atomic.Uint64

// WriteFile replaces the file path with data, mode 0600. A reader, at any time
// and after any crash of the writer, finds the old content or the new one.
// durable says that the new content must also survive a power loss once
// WriteFile has returned.
//
// Raw descriptors, not os.File: this is on the path of every start, and os.File
// would set up the runtime's poller for a regular file, which cannot be polled.
func WriteFile(path string, data []byte, durable bool) (Err error) {
	dir := filepath.Dir(path)
	var tmp string
	var fd int
	for {
		// The pid makes the name ours; a leftover of an earlier process with
		// the same pid, or of one in another pid namespace, is stepped over.
		tmp = dir + "/" + tmpPrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(tmpCount.Add(1), 36)
		var err error
		fd, err = openRetry(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err == unix.EEXIST {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		break
	}
	defer func() {
		if fd >= 0 {
			_ = unix.Close(fd) // only after another failure, which is reported
		}
		if Err != nil {
			_ = unix.Unlink(tmp) // a leftover is harmless and swept later
		}
	}()
	for b := data; len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		b = b[n:]
	}
	if durable {
		if err := unix.Fsync(fd); err != nil {
			return &fs.PathError{Op: "fsync", Path: path, Err: err}
		}
	}
	// NFS reports a full disk at close only.
	err := unix.Close(fd)
	fd = -1
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	if err := unix.Rename(tmp, path); err != nil {
		return &fs.PathError{Op: "rename", Path: path, Err: err}
	}
	if durable {
		return SyncDir(dir)
	}
	return nil
}

// SyncDir makes the entries of a directory (files created, renamed or removed
// there) survive a power loss.
func SyncDir(dir string) error {
	fd, err := openRetry(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	err = unix.Fsync(fd)
	_ = unix.Close(fd) // read only; nothing to lose
	if err != nil && err != unix.EINVAL {
		// EINVAL: a file system that cannot sync a directory and needs no such call (fsync(2)).
		return &fs.PathError{Op: "fsync", Path: dir, Err: err}
	}
	return nil
}

// ReadFile reads a whole record. A file larger than any record can be is Corrupt.
func ReadFile(path string) ([]byte, error) { return readFile(path, make([]byte, 0, readSize)) }

// readSize is the room for a file that is read: most records fit.
const readSize = 4096

// buffers are used again by ReadJSON: who lists a thousand containers would
// otherwise have the kernel clear a thousand pages.
var buffers sync.Pool

// readFile is ReadFile into buf, or where that leads when it is too small.
func readFile(path string, buf []byte) ([]byte, error) {
	// O_NONBLOCK: a FIFO in a record's place must not hang whoever lists it.
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // read only; nothing to lose
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN || err == unix.EISDIR:
			return nil, errs.New(errs.Corrupt, "record %q: not a regular file", path)
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return buf, nil
		}
		buf = buf[:len(buf)+n]
		if len(buf) > maxRecord {
			return nil, errs.New(errs.Corrupt, "record %q: larger than %d bytes", path, maxRecord)
		}
	}
}

// Records that know how to do it themselves are spared encoding/json, whose
// first use of a large type takes longer than writing the file.
type (
	appender interface{ AppendJSON(b []byte) []byte }
	parser   interface{ ParseJSON(data []byte) error }
)

// WriteJSON replaces path with v as JSON, as [WriteFile] does.
func WriteJSON(path string, v any, durable bool) error {
	if a, ok := v.(appender); ok {
		return WriteFile(path, append(a.AppendJSON(make([]byte, 0, 4096)), '\n'), durable)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return errs.New(errs.Invalid, "record %q: %w", path, err)
	}
	return WriteFile(path, append(data, '\n'), durable)
}

// ReadJSON fills v from the record at path. A missing file is NotFound; one that
// is empty, cut off, followed by other data or of another shape is Corrupt.
func ReadJSON(path string, v any) error {
	room, ok := buffers.Get().(*[]byte)
	if !ok {
		b := make([]byte, 0, readSize)
		room = &b
	}
	data, err := readFile(path, *room)
	defer buffers.Put(room) // both parsers copy what they keep
	if errors.Is(err, fs.ErrNotExist) {
		return errs.As(errs.NotFound, err)
	}
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return errs.New(errs.Corrupt, "record %q: empty", path)
	}
	if p, ok := v.(parser); ok {
		err = p.ParseJSON(data)
	} else {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return errs.New(errs.Corrupt, "record %q: %w", path, err)
	}
	return nil
}

// Sweep removes what writers that were killed left in dir. The caller holds
// the lock of whatever dir describes, so that nobody is writing there.
func Sweep(dir string) error {
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, tmpPrefix) {
			if err := unix.Unlink(dir + "/" + n); err != nil && err != unix.ENOENT {
				return &fs.PathError{Op: "remove", Path: dir + "/" + n, Err: err}
			}
		}
	}
	return nil
}

// readNames returns the entries of a directory, unsorted; none when it does not exist.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return names, nil
}

// openRetry is open(2) that is not stopped by a signal.
func openRetry(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
