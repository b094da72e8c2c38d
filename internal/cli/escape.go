package cli

import (
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// visible returns s with everything that could steer a terminal written as an
// escape: names, status and image strings may come from an image or a registry.
func visible(s string) string { return escape(s, false) }

// oneLine is visible for messages; a line break becomes "; " and does not start
// a second line.
func oneLine(s string) string {
	if strings.ContainsAny(s, "\r\n") {
		var parts []string
		for l := range strings.Lines(s) {
			if l = strings.TrimSpace(l); l != "" {
				parts = append(parts, l)
			}
		}
		s = strings.Join(parts, "; ")
	}
	return escape(s, false)
}

// escape writes control characters (C0, DEL, C1), bytes that are no UTF-8 and
// characters that reorder text as Go does, except newline and tab with layout.
func escape(s string, layout bool) string {
	if clean(s, layout) || defence.Removed("escape") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x`)
			b.WriteString(strconv.FormatUint(uint64(s[i])+0x100, 16)[1:])
		case unsafeRune(r, layout):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func clean(s string, layout bool) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x7f || c < ' ' && (!layout || c != '\n' && c != '\t') {
			return slowClean(s, layout)
		}
	}
	return true
}

func slowClean(s string, layout bool) bool {
	for i, r := range s {
		if unsafeRune(r, layout) {
			return false
		}
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
	}
	return true
}

func unsafeRune(r rune, layout bool) bool {
	switch {
	case r == '\n' || r == '\t':
		return !layout
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x2028, r == 0x2029:
		return true
	}
	return false
}

// textOut writes what a template made: as it is to a file or pipe, escaped to a
// terminal, where a label could otherwise retitle or repaint it.
func (a *app) textOut(s string) error {
	if tty.IsTerminal(a.out) {
		s = escape(s, true)
	}
	_, err := io.WriteString(a.stdout(), s)
	return err
}
