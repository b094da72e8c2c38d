package log

import (
	"bytes"
	"time"
)

// maxPiece is where a long line is cut.
const maxPiece = 16 << 10

// flushAt bounds the memory of entries that are not written yet.
const flushAt = 128 << 10

// Writer keeps the output of one container. It belongs to one goroutine.
type Writer struct {
	o    Options
	file *rotated // nil: another driver than json-file and local
	sys  *journal // driver journald
	buf  []byte   // whole entries
	err  error    // the first failure; it is reported once and does not stop later attempts

	now   time.Time
	stamp []byte // now as json-file prints it
}

// NewWriter returns a writer into the container's directory dir. The first Flush
// that has something to write opens the file.
func NewWriter(dir, id string, o Options) *Writer {
	w := &Writer{o: o}
	switch o.Driver {
	case None:
	case Journald:
		w.sys = newJournal(o.Attrs)
	default:
		w.file = &rotated{path: Path(dir, id, o.Driver), o: o}
	}
	return w
}

// Path returns the file that the driver logs to, "" for none.
func Path(dir, id, driver string) string {
	switch driver {
	case None, Journald:
		return ""
	case Local:
		return dir + "/local-logs/container.log"
	}
	return dir + "/" + id + "-json.log"
}

// Stream is the writing end of one of the container's outputs.
type Stream struct {
	w    *Writer
	name string
	mid  []byte
	rest []byte // the beginning of a line, shorter than maxPiece
}

// Stream returns the stream "stdout" or "stderr".
func (w *Writer) Stream(name string) *Stream {
	return &Stream{w: w, name: name, mid: jsonMid(name, w.o.Attrs)}
}

// Write adds output that was read at time now. Entries reach the file at the
// next Flush, or before when there are many.
func (s *Stream) Write(p []byte, now time.Time) {
	w := s.w
	if w.file == nil && w.sys == nil {
		return
	}
	w.setTime(now)
	for len(p) > 0 {
		// A piece ends at a newline or where it becomes too long.
		room := maxPiece - len(s.rest)
		cut, whole := min(room, len(p)), false
		if i := bytes.IndexByte(p[:cut], '\n'); i >= 0 {
			cut, whole = i, true
		}
		piece := p[:cut]
		if !whole && cut < room {
			s.rest = append(s.rest, piece...)
			return
		}
		if len(s.rest) > 0 {
			s.rest = append(s.rest, piece...)
			piece = s.rest
		}
		w.entry(s, piece, whole)
		s.rest = s.rest[:0]
		p = p[cut:]
		if whole {
			p = p[1:]
		}
	}
}

// Close adds the line that was not ended, if any, as it is.
func (s *Stream) Close(now time.Time) {
	if len(s.rest) > 0 && (s.w.file != nil || s.w.sys != nil) {
		s.w.setTime(now)
		s.w.entry(s, s.rest, false)
	}
	s.rest = nil
}

// Unfinished returns the beginning of a line that has not ended yet, and is
// therefore not in the file.
func (s *Stream) Unfinished() []byte { return s.rest }

func (w *Writer) setTime(now time.Time) {
	if now.Equal(w.now) && w.stamp != nil {
		return
	}
	w.now = now
	if w.o.Driver == JSONFile {
		w.stamp = now.UTC().AppendFormat(w.stamp[:0], time.RFC3339Nano)
	}
}

func (w *Writer) entry(s *Stream, piece []byte, whole bool) {
	if w.sys != nil {
		w.note(w.sys.send(s.name, piece, whole, w.now))
		return
	}
	start := len(w.buf)
	if w.o.Driver == Local {
		w.buf = appendLocal(w.buf, piece, whole, s.name, w.now)
	} else {
		w.buf = appendJSON(w.buf, piece, whole, s.mid, w.stamp)
	}
	if !w.file.fits(len(w.buf)) && (start > 0 || w.file.size > 0) {
		w.write(w.buf[:start])
		w.note(w.file.rotate())
		w.buf = append(w.buf[:0], w.buf[start:]...)
	}
	if len(w.buf) >= flushAt {
		w.write(w.buf)
		w.buf = w.buf[:0]
	}
}

// Flush writes what was added. A failure (a full disk) loses what could not be
// written and is returned once; the container is not held up by it.
func (w *Writer) Flush() error {
	if len(w.buf) > 0 {
		w.write(w.buf)
		w.buf = w.buf[:0]
	}
	err := w.err
	w.err = nil
	return err
}

// Trim gives back the memory that a flood of output took.
func (w *Writer) Trim() {
	if len(w.buf) == 0 {
		w.buf = nil
	}
}

// Close flushes and waits for a compression under way.
func (w *Writer) Close() error {
	err := w.Flush()
	if w.sys != nil {
		w.sys.close()
	}
	if w.file != nil {
		if cerr := w.file.close(); err == nil {
			err = cerr
		}
	}
	return err
}

func (w *Writer) write(p []byte) {
	if len(p) > 0 {
		w.note(w.file.write(p))
	}
}

func (w *Writer) note(err error) {
	if w.err == nil {
		w.err = err
	}
}
