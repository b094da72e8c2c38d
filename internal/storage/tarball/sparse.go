package tarball

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// readSparse reads the map of a sparse file, in whichever of the four formats,
// and checks that it is in order and describes exactly the data that follows.
func (r *Reader) readSparse(block []byte, f format) error {
	h, p := &r.hdr, &r.pax
	var err error
	if h.Type == typeGNUSparse {
		if f != formatGNU {
			return r.corrupt("sparse file in a format without sparse files: %w", errHeader)
		}
		err = r.sparseOldGNU(block)
	} else {
		if !p.any {
			return nil
		}
		inData := false
		switch v := p.sparseMajor + "." + p.sparseMinor; {
		case v == "0.0", v == "0.1":
		case v == "1.0":
			inData = true
		case v != ".":
			return nil // a version that nobody has defined: plain data
		case p.sparseMap != "":
		default:
			return nil
		}
		if p.sparseName != "" {
			h.Name = p.sparseName
		}
		size := p.sparseSize
		if size == "" {
			size = p.sparseRealSize
		}
		if size != "" {
			if h.Size, err = strconv.ParseInt(size, 10, 64); err != nil {
				return r.corrupt("sparse size %.40q: %w", size, errHeader)
			}
		}
		if inData {
			err = r.sparseInData()
		} else {
			err = r.sparseInHeader()
		}
	}
	if err != nil {
		return err
	}
	switch h.Type {
	case typeGNUSparse:
		h.Type = Regular
	case HardLink, Symlink, Char, Block, Dir, FIFO:
		return r.corrupt("sparse map on an entry without data: %w", errHeader)
	}
	var end, sum int64
	for _, e := range r.extents {
		if e.off < end || e.len < 0 || e.off > math.MaxInt64-e.len || e.off+e.len > h.Size {
			return r.corrupt("sparse map is not in order: %w", errHeader)
		}
		end = e.off + e.len
		sum += e.len
	}
	if h.Size < 0 || sum != r.phys {
		return r.corrupt("sparse map of %d bytes for %d bytes of data: %w", sum, r.phys, errHeader)
	}
	h.Sparse, r.sparse = true, true
	if len(r.extents) > 0 {
		r.off = r.extents[0].off
	}
	return nil
}

// addExtent appends a region, within the limit.
func (r *Reader) addExtent(off, n int64) error {
	if len(r.extents) >= r.lim.SparseEntries {
		return r.corrupt("sparse map of more regions than the limit of %d", r.lim.SparseEntries)
	}
	r.extents = append(r.extents, extent{off, n})
	return nil
}

// sparseOldGNU reads the map in the header block and in the extension blocks
// that follow it, before the data.
func (r *Reader) sparseOldGNU(b []byte) error {
	var ok bool
	if r.hdr.Size, ok = number(b[483:495]); !ok {
		return r.corrupt("sparse size: %w", errHeader)
	}
	const entry = 24
	first, count := 386, 4
	for {
		for i := range count {
			e := b[first+i*entry:][:entry]
			if e[0] == 0 {
				break
			}
			off, ok1 := number(e[:12])
			n, ok2 := number(e[12:])
			if !ok1 || !ok2 {
				return r.corrupt("sparse map: %w", errHeader)
			}
			if err := r.addExtent(off, n); err != nil {
				return err
			}
		}
		if b[first+count*entry] == 0 {
			return nil
		}
		var err error
		if b, err = r.mustBlock(); err != nil {
			return err
		}
		first, count = 0, 21
	}
}

// sparseInHeader reads the map of the formats 0.0 and 0.1: numbers between
// commas in the pax header.
func (r *Reader) sparseInHeader() error {
	left := r.pax.sparseMap
	count, err := strconv.ParseInt(r.pax.sparseBlocks, 10, 64)
	if err != nil || count < 0 {
		return r.corrupt("sparse map of %.40q regions: %w", r.pax.sparseBlocks, errHeader)
	}
	for more := left != ""; more; {
		var a, b string
		a, left, more = strings.Cut(left, ",")
		if !more {
			return r.corrupt("sparse map of an odd length: %w", errHeader)
		}
		b, left, more = strings.Cut(left, ",")
		off, err1 := strconv.ParseInt(a, 10, 64)
		n, err2 := strconv.ParseInt(b, 10, 64)
		if err1 != nil || err2 != nil {
			return r.corrupt("sparse map: %w", errHeader)
		}
		if err := r.addExtent(off, n); err != nil {
			return err
		}
	}
	if int64(len(r.extents)) != count {
		return r.corrupt("sparse map of %d regions instead of %d: %w", len(r.extents), count, errHeader)
	}
	return nil
}

// sparseInData reads the map of the format 1.0: lines at the beginning of the
// data, filled up to a whole block.
func (r *Reader) sparseInData() error {
	var line [32]byte
	var block []byte
	next := func() (int64, error) {
		n := 0
		for {
			if len(block) == 0 {
				var err error
				if block, err = r.dataBlock(); err != nil {
					return 0, err
				}
			}
			i := bytes.IndexByte(block, '\n')
			part := block
			if i >= 0 {
				part = block[:i]
			}
			if n+len(part) > len(line) {
				return 0, r.corrupt("sparse map: %w", errHeader)
			}
			n += copy(line[n:], part)
			if i < 0 {
				block = nil
				continue
			}
			block = block[i+1:]
			v, err := strconv.ParseInt(string(line[:n]), 10, 64)
			if err != nil {
				return 0, r.corrupt("sparse map %.40q: %w", line[:n], errHeader)
			}
			return v, nil
		}
	}
	count, err := next()
	if err != nil {
		return err
	}
	if count < 0 {
		return r.corrupt("sparse map of %d regions: %w", count, errHeader)
	}
	for range count {
		off, err := next()
		if err != nil {
			return err
		}
		n, err := next()
		if err != nil {
			return err
		}
		if err := r.addExtent(off, n); err != nil {
			return err
		}
	}
	return nil
}

// dataBlock returns the next 512 bytes of the entry's data.
func (r *Reader) dataBlock() ([]byte, error) {
	if r.phys < blockSize {
		return nil, r.corrupt("sparse map without an end: %w", fmt.Errorf("%w: %w", errHeader, io.ErrUnexpectedEOF))
	}
	b, err := r.mustBlock()
	if err == nil {
		r.phys -= blockSize
	}
	return b, err
}
