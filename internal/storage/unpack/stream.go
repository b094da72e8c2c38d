package unpack

import (
	"context"
	"crypto/sha256"
	"io"
	"sync"
	"sync/atomic"

	"github.com/isle-engine/isle/internal/errs"
)

// The read-ahead of one layer: small enough to stay in a processor's cache while
// a piece is decompressed, hashed and written.
const (
	pieceSize  = 128 << 10
	pieceCount = 8
)

// piece is a buffer on its way through hash and writer.
type piece struct {
	buf   []byte
	n     int
	users atomic.Int32 // the hash and the writer
}

// stream reads ahead, hashes, and hands the pieces out as a tarball.Source.
type stream struct {
	ctx    context.Context
	free   chan *piece
	toHash chan *piece
	toTar  chan *piece
	stop   chan struct{}
	wg     sync.WaitGroup

	cur    *piece
	err    error // of the reader; valid when toTar is closed
	digest [sha256.Size]byte
	total  int64
}

func newStream(ctx context.Context, r io.Reader, limit int64) *stream {
	s := &stream{
		ctx:    ctx,
		free:   make(chan *piece, pieceCount),
		toHash: make(chan *piece, pieceCount),
		toTar:  make(chan *piece, pieceCount),
		stop:   make(chan struct{}),
	}
	for range pieceCount {
		s.free <- &piece{buf: make([]byte, pieceSize)}
	}
	s.wg.Go(func() { s.read(r, limit) })
	s.wg.Go(s.hash)
	return s
}

// read fills pieces until the reader ends. Whole pieces: decompressors return
// their few kilobytes at a time.
func (s *stream) read(r io.Reader, limit int64) {
	defer close(s.toHash)
	defer close(s.toTar)
	for s.err == nil {
		var p *piece
		select {
		case p = <-s.free:
		case <-s.stop:
			s.err = context.Canceled
			return
		case <-s.ctx.Done():
			s.err = s.ctx.Err()
			return
		}
		p.n = 0
		for p.n < len(p.buf) && s.err == nil {
			var n int
			n, s.err = r.Read(p.buf[p.n:])
			p.n += n
		}
		if p.n == 0 {
			return
		}
		s.total += int64(p.n)
		if limit > 0 && s.total > limit {
			s.err = errs.New(errs.Invalid, "archive is larger than the limit of %d bytes", limit)
			return
		}
		p.users.Store(2)
		// Both channels hold all pieces: no send blocks.
		s.toHash <- p
		s.toTar <- p
	}
}

func (s *stream) hash() {
	h := sha256.New()
	for p := range s.toHash {
		_, _ = h.Write(p.buf[:p.n]) // a hash never fails
		s.release(p)
	}
	h.Sum(s.digest[:0])
}

func (s *stream) release(p *piece) {
	if p.users.Add(-1) == 0 {
		s.free <- p
	}
}

// Next implements tarball.Source.
func (s *stream) Next() ([]byte, error) {
	if s.cur != nil {
		s.release(s.cur)
		s.cur = nil
	}
	p, ok := <-s.toTar
	if !ok {
		return nil, s.err
	}
	s.cur = p
	return p.buf[:p.n], nil
}

// close ends the goroutines. It waits for a Read that is under way. Afterwards,
// if the source was read to its end, digest and total are those of all of it.
func (s *stream) close() {
	close(s.stop)
	s.wg.Wait()
}
