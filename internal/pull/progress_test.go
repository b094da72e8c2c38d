package pull

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// screen plays the few control sequences that a display uses.
type screen struct {
	rows []string
	at   int
}

func (s *screen) write(data string) {
	for data != "" {
		switch {
		case strings.HasPrefix(data, "\x1b["):
			end := strings.IndexAny(data, "AJK")
			switch n := 0; data[end] {
			case 'A':
				_, _ = fmt.Sscanf(data[2:end], "%d", &n) // else 0
				s.at -= n
			case 'J':
				s.rows = s.rows[:s.at]
			case 'K':
				s.put("")
			}
			data = data[end+1:]
		case data[0] == '\r':
			data = data[1:]
		case data[0] == '\n':
			s.at++
			data = data[1:]
		default:
			end := strings.IndexAny(data, "\n\r\x1b")
			if end < 0 {
				end = len(data)
			}
			s.put(data[:end])
			data = data[end:]
		}
	}
}

func (s *screen) put(text string) {
	for len(s.rows) <= s.at {
		s.rows = append(s.rows, "")
	}
	s.rows[s.at] = text
}

func TestDisplayOnATerminal(t *testing.T) {
	var out bytes.Buffer
	width, height := 80, 24
	d := &display{out: &out, tty: true, size: func() (int, int) { return width, height }}
	s := &screen{}
	look := func() string {
		d.mu.Lock()
		d.draw()
		d.mu.Unlock()
		s.write(out.String())
		out.Reset()
		return strings.Join(s.rows, "\n")
	}
	d.printf("3.20: Pulling from x")
	a := d.add("sha256:aaaaaaaaaaaabbbb", "Pulling fs layer")
	b := d.add("sha256:bbbbbbbbbbbbcccc", "Pulling fs layer")
	if got, want := look(), "3.20: Pulling from x\naaaaaaaaaaaa: Pulling fs layer\nbbbbbbbbbbbb: Pulling fs layer"; got != want {
		t.Errorf("%q", got)
	}
	a.bar("Downloading", 1_500_000, 3_000_000)
	b.end("Pull complete")
	if got := look(); !strings.Contains(got, "\naaaaaaaaaaaa: Downloading [=") || !strings.Contains(got, ">  ") || !strings.Contains(got, "]  1.5MB/3MB\nbbbbbbbbbbbb: Pull complete") {
		t.Errorf("%s", got)
	}
	for _, row := range s.rows {
		if len(row) >= width {
			t.Errorf("row of %d columns: %q", len(row), row)
		}
	}
	b.bar("Downloading", 1, 2) // too late
	a.end("Pull complete")
	if got, want := look(), "3.20: Pulling from x\naaaaaaaaaaaa: Pull complete\nbbbbbbbbbbbb: Pull complete"; got != want {
		t.Errorf("%q", got)
	}
	d.printf("warning")
	if got, want := look(), "3.20: Pulling from x\nwarning\naaaaaaaaaaaa: Pull complete\nbbbbbbbbbbbb: Pull complete"; got != want {
		t.Errorf("%q", got)
	}
	// More layers than rows: what happens, and how many are done.
	height = 6
	var more []*line
	for i := range 20 {
		more = append(more, d.add(fmt.Sprintf("sha256:%012d", i), "Pulling fs layer"))
	}
	more[7].bar("Extracting", 5, 10)
	if got := look(); !strings.Contains(got, "000000000007: Extracting [") || !strings.HasSuffix(got, "\n2 of 22 layers complete") || strings.Contains(got, "000000000008") {
		t.Errorf("%s", got)
	}
	width = 10
	look() // must not panic
	d.flush()
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 1536: "1.536kB", 123_456_789: "123.5MB", 2_800_000_000: "2.8GB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}
