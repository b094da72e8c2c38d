package state

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Watch waits until something may have happened to a file that grows. inotify
// instances are few (128 a user by default): without one it looks again every 50 ms.
type Watch struct{ f *os.File }

// Even with inotify it looks now and then: whether the container still runs is
// nothing that inotify tells.
const (
	lookAgain   = 50 * time.Millisecond
	lookAnyway  = 250 * time.Millisecond
	watchEvents = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO
)

// NewWatch watches path, and its directory for what takes its place. The
// directory exists.
func NewWatch(path string) *Watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &Watch{}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), watchEvents); err != nil {
		_ = f.Close() // of no use
		return &Watch{}
	}
	return &Watch{f}
}

// Wait returns after an event or a while; an error when ctx has ended.
func (w *Watch) Wait(ctx context.Context, until time.Time) error {
	pause := lookAgain
	if w.f != nil {
		pause = lookAnyway
	}
	if !until.IsZero() {
		pause = min(pause, max(time.Until(until), 0)+time.Millisecond)
	}
	if w.f == nil {
		t := time.NewTimer(pause)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			return nil
		}
	}
	_ = w.f.SetReadDeadline(time.Now().Add(pause))
	stop := context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [4096]byte
	_, _ = w.f.Read(buf[:]) // an event, or the deadline: either way it is time to look
	return ctx.Err()
}

// Close ends the watch.
func (w *Watch) Close() {
	if w.f != nil {
		_ = w.f.Close() // nothing to lose
	}
}
