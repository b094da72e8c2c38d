package state

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Event is one thing that happened to an object.
type Event struct {
	Time       time.Time
	Type       string // container, image, network, volume
	Action     string // Docker's word for it
	ID         string
	Attributes map[string]string
}

// The event log is text, an event a line:
//
//	NANOSECONDS TYPE ID "ACTION" "KEY"="VALUE" …
//
// Whoever has something to tell appends it by one write(2) with O_APPEND, which
// the kernel keeps whole and apart from others' on a local file system. Each
// write begins with a newline as well, so that one that a power loss or a full
// disk has cut does not spoil the next. Nothing is fsynced: of what events tell,
// the records are the truth.

// maxEventLog is the size at which the log is renamed to its name and ".1", in
// place of the one before: some four thousand events are kept, and twice that
// at most.
const maxEventLog = 1 << 20

// AppendEvents adds events to the log at path.
func AppendEvents(path string, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	b := make([]byte, 1, 512)
	b[0] = '\n'
	for i := range events {
		b = appendEvent(b, &events[i])
	}
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW
	fd, err := openRetry(path, flags, 0o600)
	if err == unix.ENOENT {
		if err = unix.Mkdir(filepath.Dir(path), 0o700); err == nil || err == unix.EEXIST {
			fd, err = openRetry(path, flags, 0o600)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // written, or the error is known
	for {
		_, err = unix.Write(fd, b)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	if end, err := unix.Seek(fd, 0, unix.SEEK_CUR); err == nil && end > maxEventLog {
		rotateEvents(path, fd)
	}
	return nil
}

// rotateEvents renames the log, which is open as fd, unless somebody else has
// done so or is about to.
func rotateEvents(path string, fd int) {
	l, err := TryLock(path + ".lock")
	if err != nil {
		return // the next event tries again
	}
	defer l.Close() //nolint:errcheck // nothing written
	if same(fd, path) {
		_ = unix.Rename(path, path+".1") // the next event tries again
	}
}

func appendEvent(b []byte, e *Event) []byte {
	b = strconv.AppendInt(b, e.Time.UnixNano(), 10)
	b = append(b, ' ')
	b = append(b, e.Type...)
	b = append(b, ' ')
	b = append(b, e.ID...)
	b = append(b, ' ')
	b = strconv.AppendQuote(b, e.Action)
	for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
		b = append(b, ' ')
		b = strconv.AppendQuote(b, k)
		b = append(b, '=')
		b = strconv.AppendQuote(b, e.Attributes[k])
	}
	return append(b, '\n')
}

// parseEvent reads one line; false when it is damaged.
func parseEvent(line string) (e Event, ok bool) {
	at, rest, _ := strings.Cut(line, " ")
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return e, false
	}
	e.Time = time.Unix(0, n)
	e.Type, rest, _ = strings.Cut(rest, " ")
	e.ID, rest, _ = strings.Cut(rest, " ")
	if e.Action, rest, ok = quoted(rest); !ok {
		return e, false
	}
	e.Attributes = map[string]string{}
	for rest != "" {
		var k, v string
		if k, rest, ok = quoted(strings.TrimPrefix(rest, " ")); !ok {
			return e, false
		}
		if v, rest, ok = quoted(strings.TrimPrefix(rest, "=")); !ok {
			return e, false
		}
		e.Attributes[k] = v
	}
	return e, true
}

func quoted(s string) (text, rest string, ok bool) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil || q[0] != '"' {
		return "", s, false
	}
	if text, err = strconv.Unquote(q); err != nil {
		return "", s, false
	}
	return text, s[len(q):], true
}

// EventReader reads the event log from its beginning, and on as it grows.
type EventReader struct {
	path string
	// old is the file that was the log before; somebody who had it open may still
	// write to it.
	old, now *eventFile
}

type eventFile struct {
	fd   int
	rest []byte // of a line that is not complete
}

// OpenEvents opens the log at path, which need not exist yet.
func OpenEvents(path string) (*EventReader, error) {
	r := &EventReader{path: path}
	var err error
	if r.now, err = openEvents(path); err != nil {
		return nil, err
	}
	if r.old, err = openEvents(path + ".1"); err != nil {
		r.Close()
		return nil, err
	}
	if r.old != nil && r.now != nil && sameFile(r.old.fd, r.now.fd) { // renamed meanwhile
		r.now.close()
		r.now = nil
	}
	return r, nil
}

// Close closes the files.
func (r *EventReader) Close() {
	r.old.close()
	r.now.close()
}

// Skip steps over what is there, so that Next returns only what comes.
func (r *EventReader) Skip() {
	for _, f := range [...]*eventFile{r.old, r.now} {
		if f != nil {
			_, _ = unix.Seek(f.fd, 0, unix.SEEK_END) // a regular file
		}
	}
}

// Next returns the events that have been added since the last call, oldest
// first; none when there are none.
func (r *EventReader) Next() ([]Event, error) {
	var out []Event
	for {
		for _, f := range [...]*eventFile{r.old, r.now} {
			var err error
			if out, err = f.read(out); err != nil {
				return nil, &fs.PathError{Op: "read", Path: r.path, Err: err}
			}
		}
		if r.now != nil && same(r.now.fd, r.path) {
			break
		}
		if err := r.advance(); err != nil {
			return nil, err
		}
		if r.now == nil {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return out, nil
}

// advance goes on to the file that is the log now. Where it was renamed twice
// since the last look, the one in between is the old one now; more than that is
// lost to a reader that is so slow.
func (r *EventReader) advance() error {
	next, err := openEvents(r.path)
	if err != nil {
		return err
	}
	before, err := openEvents(r.path + ".1")
	if err != nil {
		next.close()
		return err
	}
	last := r.now
	if before != nil && (last == nil || !sameFile(before.fd, last.fd)) && (r.old == nil || !sameFile(before.fd, r.old.fd)) && (next == nil || !sameFile(before.fd, next.fd)) {
		last.close()
		last = before
	} else {
		before.close()
	}
	if last != nil {
		r.old.close()
		r.old = last
	}
	r.now = next
	return nil
}

// openEvents opens one file of the log; nil when there is none.
func openEvents(path string) (*eventFile, error) {
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil //nolint:nilnil // none is an answer
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &eventFile{fd: fd}, nil
}

func (f *eventFile) close() {
	if f != nil {
		_ = unix.Close(f.fd) // read only; nothing to lose
	}
}

// read adds to out what the file holds beyond what was read before. Lines that
// are damaged are left out.
func (f *eventFile) read(out []Event) ([]Event, error) {
	if f == nil {
		return out, nil
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(f.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return out, err
		}
		if n == 0 {
			return out, nil
		}
		text := string(f.rest) + string(buf[:n])
		for {
			line, rest, whole := strings.Cut(text, "\n")
			if !whole {
				break
			}
			if e, ok := parseEvent(line); ok {
				out = append(out, e)
			}
			text = rest
		}
		f.rest = append(f.rest[:0], text...)
	}
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Ino == y.Ino && x.Dev == y.Dev
}
