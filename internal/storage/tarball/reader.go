package tarball

import (
	"errors"
	"fmt"
	"io"

	"github.com/isle-engine/isle/internal/errs"
)

// A Source hands out a stream piece by piece.
type Source interface {
	// Next returns the next piece, never empty, which stays valid until the
	// following call. At the end it returns io.EOF, for ever.
	Next() ([]byte, error)
}

// FromReader makes a Source of r that reads into buf.
func FromReader(r io.Reader, buf []byte) Source { return &readerSource{r: r, buf: buf} }

type readerSource struct {
	r   io.Reader
	buf []byte
	err error
}

func (s *readerSource) Next() ([]byte, error) {
	for s.err == nil {
		var n int
		n, s.err = s.r.Read(s.buf)
		if n > 0 {
			return s.buf[:n], nil
		}
	}
	return nil, s.err
}

// The types of an entry. Others may occur; their data can be read or skipped.
const (
	Regular  = '0'
	HardLink = '1'
	Symlink  = '2'
	Char     = '3'
	Block    = '4'
	Dir      = '5'
	FIFO     = '6'
	Global   = 'g' // a pax header for the whole archive; its records are not applied
)

// Types that never leave the Reader.
const (
	typeRegA      = 0
	typePAX       = 'x'
	typeLongName  = 'L'
	typeLongLink  = 'K'
	typeGNUSparse = 'S'
)

const blockSize = 512

// Header describes an entry.
type Header struct {
	Type     byte
	Name     string
	Linkname string
	Mode     int64
	UID, GID int64
	Size     int64 // of the file, holes included
	ModSec   int64 // modification time
	ModNsec  int64 // 0 to 999,999,999
	Major    int64
	Minor    int64
	Xattrs   []Xattr
	// Sparse is set when the file has holes; Data skips them.
	Sparse bool
}

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// Limits bound what one entry may claim. Zero means the default.
type Limits struct {
	// ExtHeader bounds the bytes of one pax header or long name.
	ExtHeader int64
	// SparseEntries bounds the number of data regions of a sparse file.
	SparseEntries int
}

// Default limits.
const (
	DefaultExtHeader     = 1 << 20
	DefaultSparseEntries = 1 << 20
)

// errHeader is the cause of every refusal that has no better words.
var errHeader = errors.New("invalid tar header")

// extent is a region of a sparse file that has data.
type extent struct{ off, len int64 }

// Reader reads an archive.
type Reader struct {
	src    Source
	lim    Limits
	cur    []byte // rest of the current piece
	pos    int64  // bytes consumed of the stream
	srcErr error

	hdr     Header
	phys    int64 // bytes of the entry's data still in the stream
	pad     int64 // and the padding behind them
	off     int64 // where in the file the next byte belongs
	extents []extent
	sparse  bool

	blk     [blockSize]byte // for a block that straddles two pieces
	scratch []byte          // for extended headers
	pax     paxRecords
}

// New returns a Reader of the archive in src.
func New(src Source, lim Limits) *Reader {
	if lim.ExtHeader == 0 {
		lim.ExtHeader = DefaultExtHeader
	}
	if lim.SparseEntries == 0 {
		lim.SparseEntries = DefaultSparseEntries
	}
	return &Reader{src: src, lim: lim}
}

// Offset returns the number of bytes consumed so far.
func (r *Reader) Offset() int64 { return r.pos }

// fill makes sure that cur is not empty.
func (r *Reader) fill() error {
	for len(r.cur) == 0 {
		if r.srcErr != nil {
			return r.srcErr
		}
		if r.cur, r.srcErr = r.src.Next(); r.srcErr != nil {
			r.cur = nil
		}
	}
	return nil
}

// take consumes n bytes of cur.
func (r *Reader) take(n int) []byte {
	p := r.cur[:n]
	r.cur = r.cur[n:]
	r.pos += int64(n)
	return p
}

// truncated turns the end of the source into an error that says so.
func (r *Reader) truncated(err error) error {
	if err == io.EOF {
		return errs.New(errs.Corrupt, "archive ends at byte %d in the middle of an entry: %w", r.pos, io.ErrUnexpectedEOF)
	}
	return err
}

// corrupt is an error about the archive itself.
func (r *Reader) corrupt(format string, args ...any) error {
	return errs.New(errs.Corrupt, "archive at byte %d: %w", r.pos, fmt.Errorf(format, args...))
}

// block returns the next 512 bytes. It returns io.EOF only at a clean end.
func (r *Reader) block() ([]byte, error) {
	if len(r.cur) >= blockSize {
		return r.take(blockSize), nil
	}
	for n := 0; n < blockSize; {
		if err := r.fill(); err != nil {
			if err == io.EOF && n > 0 {
				return nil, r.truncated(err)
			}
			return nil, err
		}
		n += copy(r.blk[n:], r.take(min(len(r.cur), blockSize-n)))
	}
	return r.blk[:], nil
}

// mustBlock is block where the archive may not end.
func (r *Reader) mustBlock() ([]byte, error) {
	b, err := r.block()
	return b, r.truncated(err)
}

// skip consumes n bytes.
func (r *Reader) skip(n int64) error {
	for n > 0 {
		if err := r.fill(); err != nil {
			return err
		}
		k := min(int64(len(r.cur)), n)
		r.take(int(k))
		n -= k
	}
	return nil
}

// Data returns the next piece of the entry's data and its place in the file.
// It returns io.EOF after the last one; bytes of the file that no piece covers
// are holes.
func (r *Reader) Data() (piece []byte, off int64, err error) {
	for r.sparse && len(r.extents) > 0 && r.extents[0].len == 0 {
		r.extents = r.extents[1:]
		if len(r.extents) > 0 {
			r.off = r.extents[0].off
		}
	}
	if r.phys == 0 {
		return nil, 0, io.EOF
	}
	if err := r.fill(); err != nil {
		return nil, 0, r.truncated(err)
	}
	n := min(int64(len(r.cur)), r.phys)
	if r.sparse {
		// Next has checked that the regions add up to phys.
		n = min(n, r.extents[0].len)
		r.extents[0].off += n
		r.extents[0].len -= n
	}
	off = r.off
	r.off += n
	r.phys -= n
	return r.take(int(n)), off, nil
}

// Rest consumes the source to its end. Layers may have any bytes behind the end
// of the archive, and they count for the digest.
func (r *Reader) Rest() error {
	for {
		if err := r.fill(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		r.take(len(r.cur))
	}
}

// Next skips what is left of the current entry and returns the header of the
// next one, or io.EOF at the end of the archive.
func (r *Reader) Next() (*Header, error) {
	var longName, longLink string
	r.pax.reset()
	for {
		if err := r.skip(r.phys); err != nil {
			return nil, r.truncated(err)
		}
		// The padding of the last entry may be missing.
		if err := r.skip(r.pad); err != nil && err != io.EOF {
			return nil, err
		}
		r.phys, r.pad = 0, 0
		b, err := r.block()
		if err != nil {
			return nil, err
		}
		if isZero(b) {
			if b, err = r.block(); err != nil {
				return nil, err
			}
			if isZero(b) {
				return nil, io.EOF
			}
			return nil, r.corrupt("data behind a lone zero block: %w", errHeader)
		}
		format, err := r.parse(b)
		if err != nil {
			return nil, err
		}
		h := &r.hdr
		if err := r.setData(h.Size); err != nil {
			return nil, err
		}
		switch h.Type {
		case typePAX, Global:
			text, err := r.special()
			if err != nil {
				return nil, err
			}
			r.pax.reset()
			if err := r.pax.parse(text); err != nil {
				return nil, r.corrupt("%w", err)
			}
			if h.Type == Global {
				var ignored Header
				if err := r.pax.merge(&ignored); err != nil {
					return nil, r.corrupt("%w", err)
				}
				*h = Header{Type: Global, Name: h.Name}
				return h, nil
			}
			continue
		case typeLongName, typeLongLink:
			text, err := r.special()
			if err != nil {
				return nil, err
			}
			if h.Type == typeLongName {
				longName = cString(text)
			} else {
				longLink = cString(text)
			}
			continue
		}
		if err := r.pax.merge(h); err != nil {
			return nil, r.corrupt("%w", err)
		}
		if longName != "" {
			h.Name = longName
		}
		if longLink != "" {
			h.Linkname = longLink
		}
		if h.Type == typeRegA {
			h.Type = Regular
			if n := len(h.Name); n > 0 && h.Name[n-1] == '/' {
				h.Type = Dir
			}
		}
		// Again: the pax header may have set another size.
		if err := r.setData(h.Size); err != nil {
			return nil, err
		}
		if err := r.readSparse(b, format); err != nil {
			return nil, err
		}
		return h, nil
	}
}

// setData notes how much data follows the header just read.
func (r *Reader) setData(n int64) error {
	r.sparse, r.extents, r.off = false, nil, 0
	switch r.hdr.Type {
	case HardLink, Symlink, Char, Block, Dir, FIFO:
		n = 0
	}
	if n < 0 {
		return r.corrupt("negative size: %w", errHeader)
	}
	r.phys, r.pad = n, -n&(blockSize-1)
	return nil
}

// special reads the data of an extended header.
func (r *Reader) special() ([]byte, error) {
	if r.phys > r.lim.ExtHeader {
		return nil, r.corrupt("extended header of %d bytes: more than the limit of %d", r.phys, r.lim.ExtHeader)
	}
	r.scratch = r.scratch[:0]
	for {
		p, _, err := r.Data()
		if err == io.EOF {
			return r.scratch, nil
		}
		if err != nil {
			return nil, err
		}
		r.scratch = append(r.scratch, p...)
	}
}
