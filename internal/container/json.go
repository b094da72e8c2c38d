package container

//go:generate go run ./jsongen

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Records are read and written at every start, and the first use of a large
// struct costs encoding/json half a millisecond of reflection: a tenth of the
// start. So Record and State have an encoder and a decoder made from their
// declarations, in json_gen.go. Whoever changes a field runs go generate; tests
// see to that, and hold the code to encoding/json's results.
//
// The encoder gives the same bytes as encoding/json. The decoder is stricter:
// names of fields count as they are written.

// AppendJSON appends the record as JSON.
func (v *Record) AppendJSON(b []byte) []byte { return v.appendJSON(b) }

// ParseJSON fills the record from JSON.
func (v *Record) ParseJSON(data []byte) error { return parseAll(data, v.parseJSON) }

// AppendJSON appends the state as JSON.
func (v *State) AppendJSON(b []byte) []byte { return v.appendJSON(b) }

// ParseJSON fills the state from JSON.
func (v *State) ParseJSON(data []byte) error { return parseAll(data, v.parseJSON) }

func parseAll(data []byte, parse func(*lexer)) error {
	l := &lexer{b: data}
	parse(l)
	l.space()
	if l.err == nil && l.i < len(l.b) {
		l.fail("data after the end")
	}
	return l.err
}

// appendKey appends a member's name, with a comma unless it is the first of the
// object that began at start.
func appendKey(b []byte, start int, key string) []byte {
	if len(b) > start {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendBool(b []byte, v bool) []byte { return strconv.AppendBool(b, v) }

func appendInt[T ~int | ~int64](b []byte, v T) []byte { return strconv.AppendInt(b, int64(v), 10) }

func appendUint[T ~uint | ~uint16 | ~uint32 | ~uint64](b []byte, v T) []byte {
	return strconv.AppendUint(b, uint64(v), 10)
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

func appendStrings(b []byte, list []string) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

// appendMap appends a map with its keys sorted.
func appendMap[V any](b []byte, m map[string]V, value func([]byte, V) []byte) []byte {
	if m == nil {
		return append(b, "null"...)
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, k)
		b = append(b, ':')
		b = value(b, m[k])
	}
	return append(b, '}')
}

func appendNothing(b []byte, _ struct{}) []byte { return append(b, "{}"...) }

const hexDigits = "0123456789abcdef"

// appendString appends s as encoding/json does.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, `\b`...)
			case '\f':
				b = append(b, `\f`...)
			case '\n':
				b = append(b, `\n`...)
			case '\r':
				b = append(b, `\r`...)
			case '\t':
				b = append(b, `\t`...)
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + n
		case r == '\u2028' || r == '\u2029':
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hexDigits[r&0xf])
			start = i + n
		}
		i += n
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// lexer reads JSON. After the first error it stands still and every method
// returns zero values.
type lexer struct {
	b     []byte
	i     int
	depth int
	err   error
}

// maxDepth bounds nesting in what is skipped.
const maxDepth = 100

func (l *lexer) fail(what string) {
	if l.err == nil {
		l.err = errors.New(what + " at byte " + strconv.Itoa(l.i))
	}
	l.i = len(l.b)
}

func (l *lexer) space() {
	for l.i < len(l.b) {
		switch l.b[l.i] {
		case ' ', '\t', '\n', '\r':
			l.i++
		default:
			return
		}
	}
}

// peek returns the next byte that is no space; 0 at the end.
func (l *lexer) peek() byte {
	l.space()
	if l.i >= len(l.b) {
		return 0
	}
	return l.b[l.i]
}

// take consumes c or fails.
func (l *lexer) take(c byte) bool {
	if l.peek() != c || l.err != nil {
		l.fail("no " + string(rune(c)))
		return false
	}
	l.i++
	return true
}

// word consumes w if it comes next.
func (l *lexer) word(w string) bool {
	l.space()
	if len(l.b)-l.i >= len(w) && string(l.b[l.i:l.i+len(w)]) == w {
		l.i += len(w)
		return true
	}
	return false
}

func (l *lexer) null() bool { return l.peek() == 'n' && l.word("null") }

// open begins an object or a list; false for null, which leaves a value as it is.
func (l *lexer) open(c byte) bool {
	if l.null() {
		return false
	}
	if l.depth++; l.depth > maxDepth {
		l.fail("too deep")
	}
	return l.take(c)
}

// more reports whether an object or list goes on; n counts what came before.
func (l *lexer) more(end byte, n int) bool {
	if l.err != nil {
		return false
	}
	if l.peek() == end {
		l.i++
		l.depth--
		return false
	}
	if n > 0 {
		return l.take(',')
	}
	return true
}

// key reads a member's name and the colon.
func (l *lexer) key() string {
	k := l.str()
	l.take(':')
	return k
}

func (l *lexer) bool() bool {
	switch {
	case l.word("true"):
		return true
	case l.word("false"), l.null():
	default:
		l.fail("no truth value")
	}
	return false
}

// number returns the text of a number; "" for null.
func (l *lexer) number() string {
	if l.null() {
		return ""
	}
	start := l.i
	for l.i < len(l.b) {
		c := l.b[l.i]
		if c >= '0' && c <= '9' || c == '-' && l.i == start {
			l.i++
			continue
		}
		break
	}
	text := string(l.b[start:l.i])
	if d := strings.TrimPrefix(text, "-"); d == "" || len(d) > 1 && d[0] == '0' {
		l.fail("no number")
		return ""
	}
	if l.i < len(l.b) && (l.b[l.i] == '.' || l.b[l.i]|0x20 == 'e') {
		l.fail("no whole number")
		return ""
	}
	return text
}

func (l *lexer) int() int64 {
	text := l.number()
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		l.fail("number out of range")
	}
	return n
}

func (l *lexer) uint(bits int) uint64 {
	text := l.number()
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		l.fail("number out of range")
	}
	return n
}

func (l *lexer) time() (t time.Time) {
	if l.null() {
		return t
	}
	s := l.str()
	if l.err != nil {
		return t
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		l.fail("no time")
	}
	return t
}

func (l *lexer) strings() []string {
	if !l.open('[') {
		return nil
	}
	list := []string{}
	for n := 0; l.more(']', n); n++ {
		list = append(list, l.str())
	}
	return list
}

func parseMap[V any](l *lexer, value func(*lexer) V) map[string]V {
	if !l.open('{') {
		return nil
	}
	m := map[string]V{}
	for n := 0; l.more('}', n); n++ {
		k := l.key()
		m[k] = value(l)
	}
	return m
}

func (l *lexer) nothing() struct{} { l.skip(); return struct{}{} }

func (l *lexer) int64() int64 { return l.int() }

// str reads a string; "" for null.
func (l *lexer) str() string {
	if l.null() || !l.take('"') {
		return ""
	}
	// Most strings have nothing to be translated.
	for k := l.i; k < len(l.b); k++ {
		c := l.b[k]
		if c == '"' {
			s := string(l.b[l.i:k])
			l.i = k + 1
			return s
		}
		if c == '\\' || c < 0x20 || c >= utf8.RuneSelf {
			break
		}
	}
	var out []byte
	for l.i < len(l.b) {
		c := l.b[l.i]
		switch {
		case c == '"':
			l.i++
			return string(out)
		case c < 0x20:
			l.fail("control character in a string")
			return ""
		case c == '\\':
			out = l.escape(out)
		case c < utf8.RuneSelf:
			out = append(out, c)
			l.i++
		default:
			r, n := utf8.DecodeRune(l.b[l.i:])
			out = utf8.AppendRune(out, r)
			l.i += n
		}
	}
	l.fail("string without end")
	return ""
}

func (l *lexer) escape(out []byte) []byte {
	if l.i+1 >= len(l.b) {
		l.fail("string without end")
		return out
	}
	c := l.b[l.i+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		r, ok := l.hex(l.i + 2)
		if !ok {
			l.fail("no hexadecimal number")
			return out
		}
		l.i += 6
		if utf16.IsSurrogate(r) {
			low, ok := rune(0), false
			if l.i+1 < len(l.b) && l.b[l.i] == '\\' && l.b[l.i+1] == 'u' {
				low, ok = l.hex(l.i + 2)
			}
			if both := utf16.DecodeRune(r, low); ok && both != utf8.RuneError {
				l.i += 6
				return utf8.AppendRune(out, both)
			}
			r = utf8.RuneError
		}
		return utf8.AppendRune(out, r)
	default:
		l.fail("unknown escape in a string")
		return out
	}
	l.i += 2
	return append(out, c)
}

func (l *lexer) hex(at int) (r rune, ok bool) {
	if at+4 > len(l.b) {
		return 0, false
	}
	for _, c := range l.b[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// skip steps over a value of whatever kind.
func (l *lexer) skip() {
	switch c := l.peek(); c {
	case '{':
		l.open('{')
		for n := 0; l.more('}', n); n++ {
			l.key()
			l.skip()
		}
	case '[':
		l.open('[')
		for n := 0; l.more(']', n); n++ {
			l.skip()
		}
	case '"':
		l.str()
	case 't', 'f':
		l.bool()
	case 'n':
		if !l.null() {
			l.fail("no value")
		}
	default:
		start := l.i
		for l.i < len(l.b) && (l.b[l.i] >= '0' && l.b[l.i] <= '9' || l.b[l.i] == '-' || l.b[l.i] == '+' || l.b[l.i] == '.' || l.b[l.i]|0x20 == 'e') {
			l.i++
		}
		if _, err := strconv.ParseFloat(string(l.b[start:l.i]), 64); err != nil {
			l.fail("no value")
		}
	}
}
