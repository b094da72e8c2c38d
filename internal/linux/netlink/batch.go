package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Batch collects requests.
type Batch struct {
	buf   []byte
	start int      // of the request being written; -1: none
	names []string // what each request is for, for errors
}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return &Batch{buf: make([]byte, 0, 1024), start: -1} }

// Len returns the number of requests.
func (b *Batch) Len() int { return len(b.names) }

// Begin starts a request. what names it in errors: "add address 10.0.0.1/24".
// The sequence number is its place in the batch, counted from 1.
func (b *Batch) Begin(what string, typ, flags uint16) {
	b.finish()
	b.start = len(b.buf)
	b.names = append(b.names, what)
	b.buf = append(b.buf, 0, 0, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags|unix.NLM_F_REQUEST)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(len(b.names)))
	b.buf = append(b.buf, 0, 0, 0, 0)
}

// finish writes the length of the last request.
func (b *Batch) finish() {
	if b.start >= 0 {
		b.pad()
		binary.NativeEndian.PutUint32(b.buf[b.start:], uint32(len(b.buf)-b.start))
		b.start = -1
	}
}

func (b *Batch) pad() {
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

// Raw appends the fixed part of a request.
func (b *Batch) Raw(p ...byte) {
	b.buf = append(b.buf, p...)
	b.pad()
}

// Attr appends an attribute.
func (b *Batch) Attr(typ uint16, p []byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(4+len(p)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = append(b.buf, p...)
	b.pad()
}

// Str appends a string with its zero byte.
func (b *Batch) Str(typ uint16, s string) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(4+len(s)+1))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = append(append(b.buf, s...), 0)
	b.pad()
}

// U8 appends a byte.
func (b *Batch) U8(typ uint16, v uint8) { b.Attr(typ, []byte{v}) }

// U32 appends a number in the machine's byte order.
func (b *Batch) U32(typ uint16, v uint32) {
	b.Attr(typ, binary.NativeEndian.AppendUint32(make([]byte, 0, 4), v))
}

// BE32 appends a number in network byte order.
func (b *Batch) BE32(typ uint16, v uint32) {
	b.Attr(typ, binary.BigEndian.AppendUint32(make([]byte, 0, 4), v))
}

// Nest starts an attribute that holds others; End ends it.
func (b *Batch) Nest(typ uint16) (mark int) {
	mark = len(b.buf)
	b.buf = append(b.buf, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ|unix.NLA_F_NESTED)
	return mark
}

// End ends the attribute that Nest started.
func (b *Batch) End(mark int) {
	b.pad()
	binary.NativeEndian.PutUint16(b.buf[mark:], uint16(len(b.buf)-mark))
}

// Attrs calls f for each attribute in p, without the flag bits of its type, until
// f returns false. What is cut off is left out.
func Attrs(p []byte, f func(typ uint16, v []byte) bool) {
	for len(p) >= 4 {
		n := int(binary.NativeEndian.Uint16(p))
		typ := binary.NativeEndian.Uint16(p[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if n < 4 || n > len(p) || !f(typ, p[4:n]) {
			return
		}
		p = p[min(len(p), (n+3)&^3):]
	}
}
