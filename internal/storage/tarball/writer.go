package tarball

import (
	"io"
	"strconv"

	"github.com/isle-engine/isle/internal/errs"
)

// Writer writes an archive: ustar headers, with pax records for whatever they
// cannot hold (pax(1), "pax Interchange Format").
type Writer struct {
	w    io.Writer
	left int64 // of the current entry's data
	pad  int64
	n    int64
	buf  []byte
}

// NewWriter returns a Writer to w, which had better be buffered.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Size returns the bytes written.
func (t *Writer) Size() int64 { return t.n }

var zeroBlock [blockSize]byte

// Next begins an entry. h.Size bytes of Write follow for a regular file.
func (t *Writer) Next(h *Header) error {
	if err := t.end(); err != nil {
		return err
	}
	size := h.Size
	if h.Type != Regular {
		size = 0
	}
	t.buf = t.buf[:0]
	rec := func(key, value string) {
		// "LENGTH KEY=VALUE\n", where the length counts itself.
		n := len(key) + len(value) + 3
		for d := n + len(strconv.Itoa(n)); ; d++ {
			if n+len(strconv.Itoa(d)) == d {
				n = d
				break
			}
		}
		t.buf = strconv.AppendInt(t.buf, int64(n), 10)
		t.buf = append(append(append(append(append(t.buf, ' '), key...), '='), value...), '\n')
	}
	var b [blockSize]byte
	text := func(key string, to []byte, s string) {
		if len(s) > len(to) || !isASCII([]byte(s)) {
			rec(key, s)
		}
		copy(to, s)
	}
	text("path", b[:100], h.Name)
	text("linkpath", b[157:257], h.Linkname)
	number := func(key string, to []byte, v int64) {
		digits := strconv.FormatInt(v, 8)
		if v < 0 || len(digits) > len(to)-1 {
			rec(key, strconv.FormatInt(v, 10))
			digits = "0"
		}
		for i := range to[:len(to)-1] {
			to[i] = '0'
		}
		copy(to[len(to)-1-len(digits):], digits)
	}
	number("mode", b[100:108], h.Mode&0o7777)
	number("uid", b[108:116], h.UID)
	number("gid", b[116:124], h.GID)
	number("size", b[124:136], size)
	if h.ModNsec != 0 && h.ModSec >= 0 {
		frac := strconv.FormatInt(1e9+h.ModNsec, 10)[1:]
		rec("mtime", strconv.FormatInt(h.ModSec, 10)+"."+frac)
		number("", b[136:148], min(h.ModSec, 1<<33-1))
	} else {
		number("mtime", b[136:148], h.ModSec)
	}
	b[156] = h.Type
	copy(b[257:], "ustar\x0000")
	if h.Type == Char || h.Type == Block {
		number("SCHILY.devmajor", b[329:337], h.Major)
		number("SCHILY.devminor", b[337:345], h.Minor)
	}
	for _, x := range h.Xattrs {
		rec("SCHILY.xattr."+x.Name, x.Value)
	}
	if len(t.buf) > 0 {
		var p [blockSize]byte
		copy(p[:], "PaxHeaders/"+h.Name[max(0, len(h.Name)-80):])
		for i, c := range p[:100] {
			if c >= 0x80 {
				p[i] = '_'
			}
		}
		copy(p[100:], "0000644\x000000000\x000000000\x00")
		number("", p[124:136], int64(len(t.buf)))
		copy(p[136:], "00000000000\x00")
		p[156] = typePAX
		copy(p[257:], "ustar\x0000")
		checksum(&p)
		if err := t.write(p[:]); err != nil {
			return err
		}
		n := len(t.buf)
		if err := t.write(t.buf); err != nil {
			return err
		}
		if err := t.write(zeroBlock[:padding(int64(n))]); err != nil {
			return err
		}
	}
	checksum(&b)
	t.left, t.pad = size, padding(size)
	return t.write(b[:])
}

// checksum fills in the header's sum, taken with blanks in its own place.
func checksum(b *[blockSize]byte) {
	copy(b[148:156], "        ")
	sum := int64(0)
	for _, c := range b {
		sum += int64(c)
	}
	digits := strconv.FormatInt(sum, 8)
	copy(b[148:154], "000000")
	copy(b[154-len(digits):154], digits)
	b[154], b[155] = 0, ' '
}

func padding(n int64) int64 { return -n & (blockSize - 1) }

func (t *Writer) write(p []byte) error {
	n, err := t.w.Write(p)
	t.n += int64(n)
	return err
}

// Write writes data of the current entry.
func (t *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > t.left {
		return 0, errs.New(errs.Invalid, "tar: more data than the header says")
	}
	n, err := t.w.Write(p)
	t.n += int64(n)
	t.left -= int64(n)
	return n, err
}

// end completes the current entry; a file that became shorter is filled up.
func (t *Writer) end() error {
	for t.left > 0 {
		n := min(t.left, blockSize)
		if err := t.write(zeroBlock[:n]); err != nil {
			return err
		}
		t.left -= n
	}
	pad := t.pad
	t.pad = 0
	if pad == 0 {
		return nil
	}
	return t.write(zeroBlock[:pad])
}

// Close ends the archive; it does not close what is written to.
func (t *Writer) Close() error {
	if err := t.end(); err != nil {
		return err
	}
	if err := t.write(zeroBlock[:]); err != nil {
		return err
	}
	return t.write(zeroBlock[:])
}
