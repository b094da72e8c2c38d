package pull

import (
	"io"
	"os"
	"sync"

	"github.com/isle-engine/isle/internal/image"
)

// growing is a blob that is being fetched: a writer into the store, and the
// signal to its follower that there is more.
type growing struct {
	w    *image.BlobWriter
	grew func(n int64) // tells the progress

	mu   sync.Mutex
	more sync.Cond
	size int64 // bytes that may be read
	end  bool
	err  error // why there will be no more
}

func newGrowing(w *image.BlobWriter, grew func(int64)) *growing {
	g := &growing{w: w, grew: grew}
	g.more.L = &g.mu
	return g
}

// Write implements io.Writer.
func (g *growing) Write(p []byte) (int, error) {
	n, err := g.w.Write(p)
	g.add(int64(n))
	return n, err
}

// add lets the follower read n bytes more.
func (g *growing) add(n int64) {
	g.mu.Lock()
	g.size += n
	size := g.size
	g.mu.Unlock()
	g.more.Broadcast()
	g.grew(size)
}

// finish tells the follower that there is no more, and why if it is not the end.
func (g *growing) finish(err error) {
	g.mu.Lock()
	g.end, g.err = true, err
	g.mu.Unlock()
	g.more.Broadcast()
}

// failed reports whether the blob is known not to come.
func (g *growing) failed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err != nil
}

// ended reports whether all of the blob is there.
func (g *growing) ended() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.end
}

// wait returns err when the blob has come whole and verified, and nil when it
// has not: then that is what went wrong.
func (g *growing) wait(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.end {
		g.more.Wait()
	}
	if g.err != nil {
		return nil
	}
	return err
}

// follower reads a growing blob up to its end, waiting for more where needed.
type follower struct {
	g    *growing
	f    *os.File
	at   int64
	read func(n int64) // tells the progress
}

// Read implements io.Reader.
func (r *follower) Read(p []byte) (int, error) {
	g := r.g
	g.mu.Lock()
	for g.size == r.at && !g.end {
		g.more.Wait()
	}
	left, err := g.size-r.at, g.err
	g.mu.Unlock()
	if err != nil {
		return 0, err // at once: whatever is left is of no use
	}
	if left == 0 {
		return 0, io.EOF
	}
	n, err := r.f.ReadAt(p[:min(int64(len(p)), left)], r.at)
	if err == io.EOF {
		err = nil // the file is as long as we were told, or an I/O error says so
		if n == 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	r.at += int64(n)
	r.read(r.at)
	return n, err
}
