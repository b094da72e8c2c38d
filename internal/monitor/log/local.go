package log

import (
	"encoding/binary"
	"time"
)

// The local driver's entry is a protocol-buffer message with its length before
// and after it (so that a file can be read backwards), as Docker writes it:
//
//	length  4 bytes, big endian
//	1       source     string
//	2       time_nano  varint
//	3       line       bytes, without newline
//	4       partial    bool
//	5       partial metadata: 1 last (bool), 2 id (string), 3 ordinal (varint)
//	length  again
const (
	tagSource  = 1<<3 | 2
	tagTime    = 2 << 3
	tagLine    = 3<<3 | 2
	tagPartial = 4 << 3
)

// maxLocal bounds the length that a damaged file may claim.
const maxLocal = 1 << 20

// appendLocal appends one entry of the local driver.
func appendLocal(dst, line []byte, whole bool, stream string, t time.Time) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, tagSource, byte(len(stream)))
	dst = append(dst, stream...)
	dst = append(dst, tagTime)
	dst = binary.AppendUvarint(dst, uint64(t.UnixNano()))
	if len(line) > 0 {
		dst = append(dst, tagLine)
		dst = binary.AppendUvarint(dst, uint64(len(line)))
		dst = append(dst, line...)
	}
	if !whole {
		dst = append(dst, tagPartial, 1)
	}
	n := uint32(len(dst) - start - 4)
	binary.BigEndian.PutUint32(dst[start:], n)
	return binary.BigEndian.AppendUint32(dst, n)
}

// localLen returns the size of the whole entry at the beginning of p: 0 when p is
// too short to tell or to hold it, -1 when it is damaged.
func localLen(p []byte) int {
	if len(p) < 4 {
		return 0
	}
	n := binary.BigEndian.Uint32(p)
	if n > maxLocal {
		return -1
	}
	if uint32(len(p)) < n+8 {
		return 0
	}
	if binary.BigEndian.Uint32(p[4+n:]) != n {
		return -1
	}
	return int(n) + 8
}

// decodeLocal reads the entry that fills p; false when it is damaged.
func decodeLocal(p []byte, e *Entry) bool {
	p = p[4 : len(p)-4]
	e.Line, e.Stream, e.Attrs = e.Line[:0], "", nil
	partial := false
	for len(p) > 0 {
		tag, n := binary.Uvarint(p)
		if n <= 0 {
			return false
		}
		v, m := binary.Uvarint(p[n:])
		if m <= 0 {
			return false
		}
		p = p[n+m:]
		var field []byte
		switch tag & 7 {
		case 0:
		case 2:
			if v > uint64(len(p)) {
				return false
			}
			field, p = p[:v], p[v:]
		default:
			return false
		}
		switch tag {
		case tagSource:
			e.Stream = string(field)
		case tagTime:
			e.Time = time.Unix(0, int64(v)).UTC()
		case tagLine:
			e.Line = append(e.Line, field...)
		case tagPartial:
			partial = v != 0
		}
	}
	if !partial {
		e.Line = append(e.Line, '\n')
	}
	return e.Stream != ""
}
