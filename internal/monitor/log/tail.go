package log

import (
	"encoding/binary"
	"io"
	"slices"
)

// findTail moves the files so that the last Tail entries are what is left to be
// read, and returns the index of the file to begin with.
func (r *reader) findTail(files []*source) int {
	need := r.o.Tail
	for i, s := range slices.Backward(files) {
		if need == 0 {
			// Entries that come later, when following, are read on from here.
			if i == len(files)-1 && !s.gz {
				_, _ = s.f.Seek(s.size, io.SeekStart) // a regular file
			}
			return min(i+1, len(files)-1)
		}
		switch {
		case s.gz:
			n := r.count(s)
			s.skip = max(0, n-need)
			need = max(0, need-n)
		default:
			var off int64
			off, need = r.back(s, need)
			_, _ = s.f.Seek(off, io.SeekStart) // a regular file
		}
		if need == 0 {
			return i
		}
	}
	return 0
}

// count returns the number of entries of a compressed file and opens it anew.
func (r *reader) count(s *source) int {
	r.sc.reset(s)
	n := 0
	for {
		if _, err := r.sc.next(); err != nil {
			break
		}
		n++
	}
	again, err := openSource(s.f.Name(), true)
	if err != nil {
		return 0 // rotated away just now
	}
	s.close()
	*s = *again
	r.sc.src = nil
	return n
}

// back returns the offset of the last need entries of a plain file, and how
// many are missing.
func (r *reader) back(s *source, need int) (off int64, missing int) {
	if r.sc.local {
		return backLocal(s, need)
	}
	buf := make([]byte, 64<<10)
	end := s.size
	seen := 0 // newlines
	for pos := end; pos > 0; {
		n := min(pos, int64(len(buf)))
		pos -= n
		if _, err := s.f.ReadAt(buf[:n], pos); err != nil {
			return 0, 0
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] != '\n' {
				continue
			}
			if seen++; seen > need {
				return pos + i + 1, 0
			}
		}
	}
	return 0, need - seen
}

// backLocal goes back by the lengths behind the entries. Where the end is no
// entry's end, because one is being written, it counts forward instead.
func backLocal(s *source, need int) (off int64, missing int) {
	var b [4]byte
	off = s.size
	for n := need; n > 0; n-- {
		if off == 0 {
			return 0, n
		}
		if _, err := s.f.ReadAt(b[:], off-4); err != nil {
			return forwardLocal(s, need)
		}
		l := int64(binary.BigEndian.Uint32(b[:]))
		off -= l + 8
		if l > maxLocal || off < 0 {
			return forwardLocal(s, need)
		}
		if _, err := s.f.ReadAt(b[:], off); err != nil || int64(binary.BigEndian.Uint32(b[:])) != l {
			return forwardLocal(s, need)
		}
	}
	return off, 0
}

func forwardLocal(s *source, need int) (off int64, missing int) {
	var starts []int64
	var b [4]byte
	for pos := int64(0); pos < s.size; {
		if _, err := s.f.ReadAt(b[:], pos); err != nil {
			break
		}
		l := int64(binary.BigEndian.Uint32(b[:]))
		if l > maxLocal || pos+l+8 > s.size {
			break
		}
		starts = append(starts, pos)
		pos += l + 8
	}
	if len(starts) <= need {
		return 0, need - len(starts)
	}
	return starts[len(starts)-need], 0
}
