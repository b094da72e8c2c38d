package log

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// special marks the bytes that cannot stand for themselves in a log entry.
// Docker escapes <, > and & too, as encoding/json does.
const (
	specialLow  = 1<<'"' | 1<<'&' | 1<<'<' | 1<<'>' | (1<<0x20 - 1) // bytes 0–63
	specialHigh = 1 << ('\\' - 64)                                  // bytes 64–127
)

func plain(c byte) bool {
	switch c >> 6 {
	case 0:
		return specialLow>>c&1 == 0
	case 1:
		return specialHigh>>(c-64)&1 == 0
	}
	return false
}

// appendEscaped appends p as the inside of a JSON string, in Docker's spelling:
// \n, \r, \\, \" short, other control characters, <, > and & as \u00XX, bytes
// that are no UTF-8 as \ufffd.
func appendEscaped(dst, p []byte) []byte {
	start := 0
	for i := 0; i < len(p); {
		c := p[i]
		if plain(c) {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(p[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, p[start:i]...)
				dst = append(dst, `\ufffd`...)
				start = i + n
			case r == '\u2028' || r == '\u2029': // line ends in JavaScript
				dst = append(dst, p[start:i]...)
				dst = append(dst, `\u202`...)
				dst = append(dst, hexDigits[r&0xf])
				start = i + n
			}
			i += n
			continue
		}
		dst = append(dst, p[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		start = i
	}
	return append(dst, p[start:]...)
}

// appendJSON appends one json-file entry. Of line, a newline at its end is not
// part; whole says that there was one. tail is everything behind the text, up to the time.
func appendJSON(dst, line []byte, whole bool, mid, time []byte) []byte {
	dst = append(dst, `{"log":"`...)
	dst = appendEscaped(dst, line)
	if whole {
		dst = append(dst, `\n`...)
	}
	dst = append(dst, mid...)
	dst = append(dst, time...)
	return append(dst, '"', '}', '\n')
}

// jsonMid is the part of an entry between its text and its time.
func jsonMid(stream string, attrs []byte) []byte {
	mid := []byte(`","stream":"` + stream + `",`)
	if len(attrs) > 0 {
		mid = append(mid, `"attrs":`...)
		mid = append(mid, attrs...)
		mid = append(mid, ',')
	}
	return append(mid, `"time":"`...)
}

// Entry is one entry of a log.
type Entry struct {
	Line   []byte // with its newline; none when the line goes on in the next entry. Valid until the next entry is read.
	Stream string // "stdout" or "stderr"
	Time   time.Time
	Attrs  map[string]string
}

// decodeJSON reads one line of a json-file log; false when it is damaged.
func decodeJSON(line []byte, e *Entry) bool {
	if decodeOwn(line, e) {
		return true
	}
	var v struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Attrs  map[string]string `json:"attrs"`
		Time   time.Time         `json:"time"`
	}
	if json.Unmarshal(line, &v) != nil {
		return false
	}
	e.Line, e.Stream, e.Attrs, e.Time = append(e.Line[:0], v.Log...), v.Stream, v.Attrs, v.Time
	return true
}

// decodeOwn reads an entry without attributes exactly as appendJSON writes it,
// several times as fast as encoding/json.
func decodeOwn(line []byte, e *Entry) bool {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return false
	}
	out := e.Line[:0]
	for {
		i := bytes.IndexAny(rest, `"\`)
		if i < 0 {
			return false
		}
		out = append(out, rest[:i]...)
		if rest[i] == '"' {
			rest = rest[i+1:]
			break
		}
		if i+1 >= len(rest) {
			return false
		}
		switch c := rest[i+1]; c {
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case '"', '\\':
			out = append(out, c)
		case 'u':
			if i+6 > len(rest) {
				return false
			}
			var r rune
			for _, h := range rest[i+2 : i+6] {
				d := bytes.IndexByte([]byte(hexDigits), h)
				if d < 0 {
					return false
				}
				r = r<<4 | rune(d)
			}
			if r >= 0xd800 && r < 0xe000 {
				return false // a surrogate: not ours
			}
			out = utf8.AppendRune(out, r)
			rest = rest[i+6:]
			continue
		default:
			return false
		}
		rest = rest[i+2:]
	}
	stream := "stdout"
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"std`)); !ok || len(rest) < 3 {
		return false
	}
	if rest[0] == 'e' {
		stream = "stderr"
	}
	if rest, ok = bytes.CutPrefix(rest[3:], []byte(`","time":"`)); !ok {
		return false
	}
	if rest, ok = bytes.CutSuffix(rest, []byte(`"}`)); !ok {
		return false
	}
	t, err := time.Parse(time.RFC3339Nano, string(rest))
	if err != nil {
		return false
	}
	e.Line, e.Stream, e.Time, e.Attrs = out, stream, t, nil
	return true
}
