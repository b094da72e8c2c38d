package log

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

// ReadOptions select entries.
type ReadOptions struct {
	Since, Until time.Time // zero: no bound
	Tail         int       // the last so many entries; negative: all
	// Follow waits for further entries until the context ends, Until has
	// passed, or Running says that nobody will write any more. Running is
	// asked before the last look at the file, so nothing is missed.
	Follow  bool
	Running func() bool
}

// Read gives the entries of a container's log to emit, oldest first, until emit
// fails. What is damaged is left out. A log that does not exist is empty.
func Read(ctx context.Context, dir, id, driver string, o ReadOptions, emit func(*Entry) error) error {
	if driver == None || driver == Journald { // the journal is read by its own program
		return errs.New(errs.Unsupported, "configured logging driver does not support reading")
	}
	path := Path(dir, id, driver)
	r := &reader{o: o, emit: emit, sc: scanner{local: driver == Local}}
	files, err := snapshot(path)
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	first := 0
	if o.Tail >= 0 {
		first = r.findTail(files)
	}
	if !o.Follow {
		return r.readBounded(ctx, files[first:])
	}
	w := state.NewWatch(path)
	defer w.Close()
	files = files[first:]
	for {
		alive := o.Running == nil || o.Running()
		for len(files) > 0 {
			if err := r.readOne(ctx, files[0]); err != nil || r.done {
				return err
			}
			if len(files) == 1 {
				break
			}
			files[0].close()
			files = files[1:]
		}
		// Was the file that has been read to its end put aside meanwhile?
		newer, err := after(path, files)
		if err != nil {
			return err
		}
		if len(newer) > 0 {
			if len(files) > 0 {
				// Its writer may have added to it between our last read and the rotation.
				if err := r.readOne(ctx, files[0]); err != nil || r.done {
					closeAll(newer)
					return err
				}
			}
			closeAll(files)
			files = newer
			continue
		}
		if !alive {
			return nil
		}
		if !o.Until.IsZero() && time.Now().After(o.Until) {
			return nil
		}
		if err := w.Wait(ctx, o.Until); err != nil {
			return nil // the caller has had enough
		}
	}
}

// readBounded reads files up to where they ended when they were opened.
func (r *reader) readBounded(ctx context.Context, files []*source) error {
	for _, s := range files {
		if r.done {
			break
		}
		if !s.gz {
			off, err := s.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			s.r = io.NewSectionReader(s.f, off, s.size-off)
		}
		if err := r.readOne(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// Past is a log as it was at one moment.
type Past struct {
	files []*source
	local bool
}

// Open returns the log as it is now. What is written or rotated later does not
// change what Each gives. The caller closes it.
func Open(dir, id, driver string) (*Past, error) {
	if driver == None || driver == Journald {
		return &Past{}, nil
	}
	files, err := snapshot(Path(dir, id, driver))
	return &Past{files: files, local: driver == Local}, err
}

// Each gives all entries to emit, oldest first, until emit fails. Once.
func (p *Past) Each(ctx context.Context, emit func(*Entry) error) error {
	r := &reader{o: ReadOptions{Tail: -1}, emit: emit, sc: scanner{local: p.local}}
	return r.readBounded(ctx, p.files)
}

// Close closes the files.
func (p *Past) Close() { closeAll(p.files) }

// source is one file of a log.
type source struct {
	f    *os.File
	gz   bool
	id   uint64 // the inode number that the entries were written under
	size int64  // when it was opened
	r    io.Reader
	skip int // entries to leave out (a gzip cannot be entered in the middle)
}

func (s *source) close() { _ = s.f.Close() } // read only; nothing to lose

func closeAll(files []*source) {
	for _, s := range files {
		s.close()
	}
}

// snapshot opens all files of a log, oldest first. They are opened newest first:
// a rotation meanwhile then shows a file twice, and never hides one.
func snapshot(path string) ([]*source, error) {
	var files []*source
	for i := 0; ; i++ {
		name := path
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		s, err := openSource(name, false)
		if os.IsNotExist(err) && i > 0 {
			s, err = openSource(name+".gz", true)
			if os.IsNotExist(err) {
				// Once more: it may have been on its way from the number before.
				if s, err = openSource(name, false); os.IsNotExist(err) {
					break
				}
			}
		}
		if os.IsNotExist(err) {
			continue // between a rotation and the first entry after it there is no current file
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		if known(files, s.id) {
			s.close()
			continue
		}
		files = append([]*source{s}, files...)
	}
	return files, nil
}

func known(files []*source, id uint64) bool {
	for _, s := range files {
		if s.id == id {
			return true
		}
	}
	return false
}

func openSource(name string, gz bool) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errs.New(errs.Corrupt, "log %q: not a regular file", name)
	}
	if err != nil {
		_ = f.Close() // read only
		return nil, err
	}
	s := &source{f: f, gz: gz, id: inode(f), size: fi.Size(), r: f}
	if gz {
		zr, err := gzip.NewReader(f)
		if err != nil {
			s.r = bytes.NewReader(nil) // damaged: nothing to be read in it
			return s, nil              //nolint:nilerr // said in Read: left out
		}
		if id, err := strconv.ParseUint(zr.Comment, 10, 64); err == nil {
			s.id = id
		}
		s.r = zr
	}
	return s, nil
}

// after returns the files that came after the one that is being read, which
// stays open: none while it is the current one.
func after(path string, reading []*source) ([]*source, error) {
	if len(reading) > 0 {
		if fi, err := os.Stat(path); err == nil {
			if cur, err := reading[0].f.Stat(); err == nil && os.SameFile(fi, cur) {
				return nil, nil
			}
		}
	}
	files, err := snapshot(path)
	if err != nil || len(reading) == 0 {
		return files, err
	}
	for i, s := range files {
		if s.id == reading[0].id {
			closeAll(files[:i+1])
			return files[i+1:], nil
		}
	}
	return files, nil // ours is gone; all of these are newer
}

// reader passes entries on.
type reader struct {
	o     ReadOptions
	emit  func(*Entry) error
	sc    scanner
	entry Entry
	done  bool // Until has passed
}

// readOne reads a file from where it is to its end.
func (r *reader) readOne(ctx context.Context, s *source) error {
	if r.sc.src != s {
		r.sc.reset(s)
	}
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		raw, err := r.sc.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "read log", Path: s.f.Name(), Err: err}
		}
		if s.skip > 0 {
			s.skip--
			continue
		}
		if !r.sc.decode(raw, &r.entry) {
			continue
		}
		if r.entry.Time.Before(r.o.Since) {
			continue
		}
		if !r.o.Until.IsZero() && r.entry.Time.After(r.o.Until) {
			r.done = true
			return nil
		}
		if err := r.emit(&r.entry); err != nil {
			return err
		}
	}
}

// scanner cuts a file into raw entries. What is incomplete at the end of the
// file stays in the buffer until there is more.
type scanner struct {
	local bool
	src   *source
	buf   []byte
	pos   int
	bad   bool // the rest of this file cannot be cut (local)
}

func (sc *scanner) reset(s *source) { sc.src, sc.buf, sc.pos, sc.bad = s, sc.buf[:0], 0, false }

// maxEntry bounds what a damaged file makes us hold; ours are below 200 KiB.
const maxEntry = 1 << 20

func (sc *scanner) next() ([]byte, error) {
	for {
		if sc.bad {
			return nil, io.EOF
		}
		have := sc.buf[sc.pos:]
		if sc.local {
			switch n := localLen(have); {
			case n < 0:
				sc.bad = true
				continue
			case n > 0:
				sc.pos += n
				return have[:n], nil
			}
		} else {
			if i := bytes.IndexByte(have, '\n'); i >= 0 {
				sc.pos += i + 1
				return have[:i], nil
			}
			if len(have) > maxEntry {
				sc.pos = len(sc.buf) // what follows up to the newline is damaged too, and will not decode
			}
		}
		sc.buf = append(sc.buf[:0], sc.buf[sc.pos:]...)
		sc.pos = 0
		if cap(sc.buf)-len(sc.buf) < 32<<10 {
			sc.buf = append(make([]byte, 0, 2*cap(sc.buf)+64<<10), sc.buf...)
		}
		n, err := sc.src.r.Read(sc.buf[len(sc.buf):cap(sc.buf)])
		sc.buf = sc.buf[:len(sc.buf)+n]
		if n == 0 {
			if err != nil && err != io.EOF && sc.src.gz {
				sc.bad = true // a damaged gzip ends where the damage is
				continue
			}
			if err == nil {
				err = io.EOF
			}
			return nil, err
		}
	}
}

func (sc *scanner) decode(raw []byte, e *Entry) bool {
	if sc.local {
		return decodeLocal(raw, e)
	}
	return decodeJSON(raw, e)
}
