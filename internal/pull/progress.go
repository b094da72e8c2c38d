package pull

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress says how progress is shown.
type Progress string

// The ways: Auto is TTY on a terminal and Plain elsewhere.
const (
	Auto  Progress = "auto"
	TTY   Progress = "tty"
	Plain Progress = "plain"
	Quiet Progress = "none"
)

// display shows progress as Docker does: on a terminal one line for each
// layer, redrawn in place; elsewhere a line for each thing that happened.
type display struct {
	out io.Writer
	tty bool

	mu    sync.Mutex
	lines []*line
	drawn int // lines of the last drawing
	dirty bool
	size  func() (width, height int)
	stop  chan struct{}
	done  chan struct{}
}

// line is the progress of one layer.
type line struct {
	d       *display
	id      string
	what    string
	n, size int64 // of a bar; size 0: none
	ended   bool
}

// newDisplay returns a display on f; nil for none.
func newDisplay(f *os.File, how Progress) *display {
	d := &display{out: f}
	if f == nil || how == Quiet {
		d.out = io.Discard
		return d
	}
	d.tty = how == TTY || how == Auto && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	d.size = func() (int, int) {
		w, h, err := term.GetSize(int(f.Fd()))
		if err != nil || w <= 0 || h <= 0 {
			return 80, 24
		}
		return w, h
	}
	if d.tty {
		d.stop, d.done = make(chan struct{}), make(chan struct{})
		go d.run()
	}
	return d
}

// printf prints a whole line above whatever is redrawn.
func (d *display) printf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	fmt.Fprintf(d.out, format+"\n", args...)
	d.dirty = true
}

// add adds a layer, shown by its digest as Docker shows it.
func (d *display) add(digest, what string) *line {
	l := &line{d: d, id: short(digest), what: what}
	d.mu.Lock()
	d.lines = append(d.lines, l)
	d.mu.Unlock()
	l.set(what)
	return l
}

// set says what is being done with the layer.
func (l *line) set(what string) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.what, l.size, l.d.dirty = what, 0, true
	if !l.d.tty {
		fmt.Fprintf(l.d.out, "%s: %s\n", l.id, what)
	}
}

// end is set for the last time.
func (l *line) end(what string) {
	l.set(what)
	l.over()
}

// over says that what was said last is the last.
func (l *line) over() {
	l.d.mu.Lock()
	l.ended = true
	l.d.mu.Unlock()
}

// bar shows how far what is being done has come.
func (l *line) bar(what string, n, size int64) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if !l.ended {
		l.what, l.n, l.size, l.d.dirty = what, n, size, true
	}
}

func (d *display) run() {
	defer close(d.done)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-d.stop:
			return
		}
		d.mu.Lock()
		if d.dirty {
			d.draw()
		}
		d.mu.Unlock()
	}
}

// flush draws the last state and leaves it there; later lines come below.
func (d *display) flush() {
	if d.stop != nil {
		close(d.stop)
		<-d.done
		d.stop = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tty {
		d.draw()
	}
	d.lines, d.drawn = nil, 0
}

// erase moves to the first drawn line and clears what is below.
func (d *display) erase() {
	if d.drawn > 0 {
		fmt.Fprintf(d.out, "\x1b[%dA\r\x1b[J", d.drawn)
		d.drawn = 0
	}
}

func (d *display) draw() {
	width, height := d.size()
	shown := d.lines
	left := ""
	if len(shown) > height-1 {
		// More than fits, and what has scrolled away cannot be redrawn: only
		// those that something happens to.
		shown = nil
		ended := 0
		for _, l := range d.lines {
			switch {
			case l.ended:
				ended++
			case l.size > 0 && len(shown) < height-2:
				shown = append(shown, l)
			}
		}
		left = fmt.Sprintf("%d of %d layers complete", ended, len(d.lines))
	}
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn)
	}
	for _, l := range shown {
		b.WriteString("\r\x1b[K" + l.text(width-1) + "\n")
	}
	n := len(shown)
	if left != "" {
		b.WriteString("\r\x1b[K" + left + "\n")
		n++
	}
	if n < d.drawn {
		b.WriteString("\x1b[J")
	}
	d.drawn, d.dirty = n, false
	_, _ = io.WriteString(d.out, b.String()) // progress that nobody sees stops nothing
}

func (l *line) text(width int) string {
	s := l.id + ": " + l.what
	if l.size > 0 {
		part := bytesText(l.n) + "/" + bytesText(l.size)
		if w := min(50, width-len(s)-len(part)-6); w > 5 {
			full := int(min(l.n, l.size) * int64(w) / l.size)
			bar := strings.Repeat("=", full)
			if full < w {
				bar += ">" + strings.Repeat(" ", w-full-1)
			}
			s += " [" + bar + "]  " + part
		} else {
			s += " " + part
		}
	}
	if len(s) > width {
		s = s[:max(width, 0)]
	}
	return s
}

// bytesText writes a size as Docker's progress does: 1.234kB, 12.34MB.
func bytesText(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return strconv.FormatInt(n, 10) + "B"
	}
	v := float64(n)
	u := -1
	for v >= 1000 && u < len(units)-1 {
		v /= 1000
		u++
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + units[u:u+1] + "B"
}

func short(digest string) string {
	_, h, _ := strings.Cut(digest, ":")
	return h[:min(12, len(h))]
}
