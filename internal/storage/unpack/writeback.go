package unpack

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Files of this size and more are handed to the disk as they are written, so
// that the final sync finds little to do. Small ones are not: writing one early
// makes the file system allocate its blocks one by one. They are flushed
// together, whenever writebackBatch bytes of them have come.
const (
	writebackSize  = 1 << 20
	writebackBatch = 128 << 20
)

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
	jobs  chan writebackJob
	done  chan struct{}
	root  int
	small int64 // bytes of small files since the last flush
	busy  atomic.Bool
}

func newWriteback(root int) *writeback {
	w := &writeback{jobs: make(chan writebackJob, 64), done: make(chan struct{}), root: root}
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

// addSmall counts a small file.
func (w *writeback) addSmall(n int64) {
	if w.small += n; w.small < writebackBatch || !w.busy.CompareAndSwap(false, true) {
		return
	}
	w.small = 0
	// Nobody waits for it, so that an unpacking that is given up ends at once:
	// it needs a descriptor of its own.
	fd, err := unix.FcntlInt(uintptr(w.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		w.busy.Store(false)
		return
	}
	go func() {
		// A hint again: a failed write is told to the sync at the end, too, which
		// has a descriptor that was open before.
		_ = unix.Syncfs(fd)
		_ = unix.Close(fd)
		w.busy.Store(false)
	}()
}

func (w *writeback) close() {
	close(w.jobs)
	<-w.done
}
