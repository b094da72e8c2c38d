package state

import (
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Lock is a held lock. It is released by Close, by the end of the process, and
// by nothing else; a forked child or an executed program that inherits the
// descriptor holds it too.
type Lock struct{ f *os.File }

// Lock timeouts with a meaning of their own.
const (
	NoWait  time.Duration = 0
	Forever time.Duration = -1
)

// LockFile locks path, which is created (0600) if it is missing, and waits up
// to timeout while somebody else holds it; then the error is Unavailable (it
// is Conflict for NoWait). Shared locks exclude only exclusive ones.
//
// A lock file may be removed by whoever holds it exclusively: LockFile notices
// that it got hold of a removed file and starts again with the one that is
// there now.
func LockFile(path string, exclusive bool, timeout time.Duration) (*Lock, error) {
	l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	if exclusive {
		l.Type = unix.F_WRLCK
	}
	return lock(path, l, timeout)
}

// LockObject locks the object id exclusively, in a file that is shared by the
// locks of many: each is a lock on one byte, whose place is made from the id. It
// saves making and removing a file for each object. The file is never removed.
func LockObject(path, id string, timeout time.Duration) (*Lock, error) {
	return lock(path, unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: place(id), Len: 1}, timeout)
}

// place is the byte that stands for id: 60 of its random bits.
func place(id string) int64 {
	var n int64
	for _, c := range []byte(id[:min(len(id), 15)]) {
		d := int64(c&0xf) + int64(c>>6)*9 // of a hex digit
		n = n<<4 | d&0xf
	}
	return n
}

func lock(path string, l unix.Flock_t, timeout time.Duration) (*Lock, error) {
	deadline := time.Now().Add(timeout)
	for {
		fd, err := openRetry(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		if err := waitLock(fd, path, l, timeout, deadline); err != nil {
			_ = unix.Close(fd) // nothing written
			return nil, err
		}
		if same(fd, path) {
			return &Lock{os.NewFile(uintptr(fd), path)}, nil
		}
		_ = unix.Close(fd) // nothing written
	}
}

func waitLock(fd int, path string, l unix.Flock_t, timeout time.Duration, deadline time.Time) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		cmd := unix.F_OFD_SETLK
		if timeout < 0 {
			cmd = unix.F_OFD_SETLKW
		}
		err := unix.FcntlFlock(uintptr(fd), cmd, &l)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
			continue
		case err != unix.EAGAIN && err != unix.EACCES:
			return &fs.PathError{Op: "lock", Path: path, Err: err}
		case timeout == NoWait:
			return errs.New(errs.Conflict, "lock %q: held by another process", path)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return errs.New(errs.Unavailable, "lock %q: still held by another process after %s", path, timeout)
		}
		time.Sleep(min(pause, left))
	}
}

// same reports whether path still leads to the open file fd.
func same(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Lstat(path, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}

// TryLock locks path exclusively if nobody holds it; else the error is Conflict.
func TryLock(path string) (*Lock, error) { return LockFile(path, true, NoWait) }

// File returns the locked file, so that it can be handed to a child or kept
// over an execve. The lock lives as long as any descriptor of it.
func (l *Lock) File() *os.File { return l.f }

// Close releases the lock, unless a child still has the descriptor.
func (l *Lock) Close() error { return l.f.Close() }

// AdoptLock makes a Lock of a descriptor that was inherited locked.
func AdoptLock(f *os.File) *Lock { return &Lock{f} }

// Held reports whether some process holds the lock path exclusively, this one
// included. It takes nothing, creates nothing and disturbs nobody; a file
// that cannot be opened is not held.
func Held(path string) bool {
	return held(path, unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart})
}

// ObjectHeld is Held for a lock made by [LockObject].
func ObjectHeld(path, id string) bool {
	return held(path, unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: place(id), Len: 1})
}

func held(path string, l unix.Flock_t) bool {
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // read only; nothing to lose
	// Asking for a read lock: only an exclusive one is in its way.
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l); err != nil {
		return false
	}
	return l.Type != unix.F_UNLCK
}
