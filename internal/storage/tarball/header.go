package tarball

import (
	"bytes"
	"encoding/binary"
)

// format is what the magic of a header says.
type format uint8

const (
	formatV7 format = iota
	formatUSTAR
	formatSTAR
	formatGNU
)

// Fields of a header block: name, offset, length.
//
//	  0 name 100    100 mode 8      108 uid 8      116 gid 8
//	124 size 12     136 mtime 12    148 chksum 8   156 typeflag 1
//	157 linkname 100                257 magic 6    263 version 2
//	265 uname 32    297 gname 32    329 devmajor 8 337 devminor 8
//	345 prefix 155 (star: 131, then atime 12, ctime 12, and "tar\0" at 508)
//	GNU: 345 atime 12  357 ctime 12  386 sparse 4×24  482 isextended 1  483 realsize 12

// parse fills r.hdr from a header block.
func (r *Reader) parse(b []byte) (format, error) {
	if !checksumOK(b) {
		return 0, r.corrupt("wrong checksum: %w", errHeader)
	}
	h := &r.hdr
	xattrs := h.Xattrs[:0]
	*h = Header{Type: b[156], Xattrs: xattrs}
	ok := true
	num := func(p []byte) int64 {
		n, good := number(p)
		ok = ok && good
		return n
	}
	h.Size = num(b[124:136])
	h.Mode = num(b[100:108])
	h.UID = num(b[108:116])
	h.GID = num(b[116:124])
	h.ModSec = num(b[136:148])
	h.Linkname = cString(b[157:257])
	name := b[:100]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}

	f := formatV7
	var prefix []byte
	switch {
	case string(b[257:263]) == "ustar\x00":
		f = formatUSTAR
		prefix = b[345:500]
		if string(b[508:512]) == "tar\x00" {
			f = formatSTAR
			prefix = b[345:476]
			num(b[476:488])
			num(b[488:500])
		}
	case string(b[257:265]) == "ustar  \x00":
		f = formatGNU
		// Some writers (archive/tar before Go 1.8) put a prefix where GNU has
		// atime and ctime. Then these are no numbers.
		if !gnuTime(b[345:357]) || !gnuTime(b[357:369]) {
			if p := b[345:500]; isASCII(p) {
				prefix = p
			}
		}
	}
	if f != formatV7 {
		h.Major = num(b[329:337])
		h.Minor = num(b[337:345])
	}
	if !ok {
		return 0, r.corrupt("not a number: %w", errHeader)
	}
	if i := bytes.IndexByte(prefix, 0); i >= 0 {
		prefix = prefix[:i]
	}
	if len(prefix) > 0 {
		var full [256]byte
		n := copy(full[:], prefix)
		full[n] = '/'
		n++
		n += copy(full[n:], name)
		h.Name = string(full[:n])
	} else {
		h.Name = string(name)
	}
	return f, nil
}

// gnuTime reports whether an optional number of the GNU header is sound.
func gnuTime(p []byte) bool {
	if p[0] == 0 {
		return true
	}
	_, ok := number(p)
	return ok
}

// isASCII looks at the bytes before the first NUL.
func isASCII(p []byte) bool {
	for _, c := range p {
		if c == 0 {
			return true
		}
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// checksumOK compares the checksum with the sum of the header's bytes, where
// the checksum itself counts as spaces. POSIX sums unsigned bytes; Sun's tar
// summed signed ones.
func checksumOK(b []byte) bool {
	want, ok := octal(b[148:156])
	if !ok {
		return false
	}
	// Four lanes of 16 bits in one word: 64 words of bytes never overflow them.
	const lanes = 0x00ff00ff00ff00ff
	var even, odd, high uint64
	for i := 0; i < blockSize; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		even += w & lanes
		odd += w >> 8 & lanes
		high += w >> 7 & 0x0101010101010101
	}
	fold := func(w uint64) int64 {
		return int64(w&0xffff + w>>16&0xffff + w>>32&0xffff + w>>48)
	}
	sum := fold(even) + fold(odd)
	negative := fold(high&lanes) + fold(high>>8&lanes)
	for _, c := range b[148:156] {
		sum += ' ' - int64(c)
		negative -= int64(c >> 7)
	}
	return want == sum || want == sum-256*negative
}

func isZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
	}
	return true
}

// cString returns the bytes before the first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// number reads a field that is octal, or base-256 when its first bit is set
// (two's complement, big-endian, the first bit not counted).
func number(b []byte) (int64, bool) {
	if b[0]&0x80 == 0 {
		return octal(b)
	}
	negative := b[0]&0x40 != 0
	var flip byte
	if negative {
		flip = 0xff
	}
	var x uint64
	for i, c := range b {
		c ^= flip
		if i == 0 {
			c &= 0x7f
		}
		if x>>56 != 0 {
			return 0, false
		}
		x = x<<8 | uint64(c)
	}
	if x>>63 != 0 {
		return 0, false
	}
	if negative {
		return ^int64(x), true
	}
	return int64(x), true
}

// octal reads octal digits between any spaces and NULs; none is 0.
func octal(b []byte) (int64, bool) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == 0) {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	var x uint64
	for _, c := range b {
		if c == 0 {
			break
		}
		// 12 digits are the longest field: no overflow.
		if c < '0' || c > '7' {
			return 0, false
		}
		x = x<<3 | uint64(c-'0')
	}
	return int64(x), true
}
