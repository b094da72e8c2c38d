package tty

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// DefaultDetachKeys is Docker's sequence.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ErrDetached is what a [DetachReader] ends with once the sequence was typed.
var ErrDetached = errors.New("detached by the user")

// ParseDetachKeys turns Docker's notation into the bytes that a terminal sends:
// characters and ctrl-CHARACTER with a–z, @, [, \, ], ^ or _, and DEL, with
// commas between them. The empty string means [DefaultDetachKeys].
func ParseDetachKeys(keys string) ([]byte, error) {
	if keys == "" {
		keys = DefaultDetachKeys
	}
	var seq []byte
	for key := range strings.SplitSeq(keys, ",") {
		c, ok := parseKey(key)
		if !ok {
			return nil, errs.New(errs.Invalid, "Invalid detach keys (%s) provided", keys)
		}
		seq = append(seq, c)
	}
	return seq, nil
}

func parseKey(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	if key == "DEL" {
		return 127, true
	}
	name, isCtrl := strings.CutPrefix(key, "ctrl-")
	if !isCtrl || len(name) != 1 {
		return 0, false
	}
	switch c := name[0]; {
	case c >= 'a' && c <= 'z':
		return c - 'a' + 1, true
	case c == '@':
		return 0, true
	case c >= '[' && c <= '_':
		return c - '@', true
	}
	return 0, false
}

// DetachReader reads what a user types and watches for the detach keys.
type DetachReader struct {
	r    io.Reader
	seq  []byte
	held int    // this many bytes of seq have been typed and not passed on
	out  []byte // passed, but did not fit the caller's buffer
	buf  []byte
	err  error // to be returned once out is empty
}

// NewDetachReader returns a reader of r that ends with [ErrDetached] when keys
// (see [ParseDetachKeys]) have been typed.
func NewDetachReader(r io.Reader, keys string) (*DetachReader, error) {
	seq, err := ParseDetachKeys(keys)
	if err != nil {
		return nil, err
	}
	return &DetachReader{r: r, seq: seq}, nil
}

// Read implements io.Reader.
func (d *DetachReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(d.out) > 0 {
			n := copy(p, d.out)
			d.out = d.out[n:]
			return n, nil
		}
		if d.err != nil {
			return 0, d.err
		}
		if d.buf == nil {
			d.buf = make([]byte, 4096)
		}
		n, err := d.r.Read(d.buf)
		d.out = d.out[:0]
		if slices.ContainsFunc(d.buf[:n], d.push) { // up to the end of the sequence
			d.err = ErrDetached
		}
		if err != nil && d.err == nil {
			d.out = append(d.out, d.seq[:d.held]...)
			d.held = 0
			d.err = err
		}
	}
}

// push takes one typed byte and reports whether it completes the sequence.
func (d *DetachReader) push(c byte) bool {
	for c != d.seq[d.held] {
		if d.held == 0 {
			d.out = append(d.out, c)
			return false
		}
		// What is held is not the sequence from where it began; perhaps it is
		// from a later byte on. Release bytes up to there.
		typed := d.seq[:d.held]
		k := d.held - 1
		for k > 0 && string(typed[d.held-k:]) != string(d.seq[:k]) {
			k--
		}
		d.out = append(d.out, typed[:d.held-k]...)
		d.held = k
	}
	d.held++
	return d.held == len(d.seq)
}
