package unpack

import (
	"golang.org/x/sys/unix"
)

// Files of this size and more are handed to the disk as they are written, so
// that the final sync finds little to do. Small ones are cheaper to leave to it:
// writing one early makes the file system allocate its blocks one by one.
const writebackSize = 1 << 20

// writebackStep is how much of a file is written between two calls.
const writebackStep = 8 << 20

type writebackJob struct {
	fd     int
	off, n int64
	close  bool
}

// writeback starts the disk on ranges of files, and closes files, in its own
// goroutine: sync_file_range(2) blocks when the device's queue is full.
type writeback struct {
	jobs chan writebackJob
	done chan struct{}
}

func newWriteback() *writeback {
	w := &writeback{jobs: make(chan writebackJob, 64), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for j := range w.jobs {
			if j.n > 0 {
				// Only a hint: the sync at the end reports what went wrong.
				_ = unix.SyncFileRange(j.fd, j.off, j.n, unix.SYNC_FILE_RANGE_WRITE)
			}
			if j.close {
				_ = unix.Close(j.fd)
			}
		}
	}()
	return w
}

func (w *writeback) add(j writebackJob) { w.jobs <- j }

func (w *writeback) close() {
	close(w.jobs)
	<-w.done
}
