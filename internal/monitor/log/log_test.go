package log

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/errs"
)

var at = time.Date(2026, 3, 4, 5, 6, 7, 120_000_000, time.UTC)

func mustOptions(t testing.TB, driver string, opts map[string]string) Options {
	t.Helper()
	o, err := ParseOptions(driver, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func readAll(t testing.TB, dir, driver string, o ReadOptions) (lines []string) {
	t.Helper()
	err := Read(t.Context(), dir, "c", driver, o, func(e *Entry) error {
		lines = append(lines, string(e.Line))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestFormat pins the bytes: other programs read these files.
func TestFormat(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "c", mustOptions(t, "", nil))
	out, errOut := w.Stream("stdout"), w.Stream("stderr")
	out.Write([]byte("hello\nta\tb \"q\" \\ <a&b> \x00\x1b[0m\r\nünï€ \xff\xe2\x80\xa8.\n\nrest"), at)
	errOut.Write([]byte("oops\n"), at.Add(time.Nanosecond))
	out.Close(at)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dir + "/c-json.log")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"log":"hello\n","stream":"stdout","time":"2026-03-04T05:06:07.12Z"}
{"log":"ta\u0009b \"q\" \\ \u003ca\u0026b\u003e \u0000\u001b[0m\r\n","stream":"stdout","time":"2026-03-04T05:06:07.12Z"}
{"log":"ünï€ \ufffd\u2028.\n","stream":"stdout","time":"2026-03-04T05:06:07.12Z"}
{"log":"\n","stream":"stdout","time":"2026-03-04T05:06:07.12Z"}
{"log":"oops\n","stream":"stderr","time":"2026-03-04T05:06:07.120000001Z"}
{"log":"rest","stream":"stdout","time":"2026-03-04T05:06:07.12Z"}
`
	if string(got) != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	for line := range strings.Lines(string(got)) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestAttributes(t *testing.T) {
	about := &About{
		ID: strings.Repeat("ab", 32), Name: "web", Image: "nginx", ImageID: "sha256:" + strings.Repeat("cd", 32),
		Labels: map[string]string{"tier": "front", "x": "y"}, Env: []string{"A=1", "B=<2>"},
	}
	o, err := ParseOptions(JSONFile, map[string]string{"labels": "tier,none", "env": "B", "tag": "{{.Name}}/{{.ID}}/{{.ImageID}}"}, about)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := NewWriter(dir, "c", o)
	w.Stream("stdout").Write([]byte("x\n"), at)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(dir + "/c-json.log")
	want := `{"log":"x\n","stream":"stdout","attrs":{"B":"\u003c2\u003e","tag":"web/abababababab/cdcdcdcdcdcd","tier":"front"},"time":"2026-03-04T05:06:07.12Z"}` + "\n"
	if string(got) != want {
		t.Errorf("got %swant %s", got, want)
	}
	err = Read(t.Context(), dir, "c", JSONFile, ReadOptions{Tail: -1}, func(e *Entry) error {
		if e.Attrs["B"] != "<2>" || e.Attrs["tier"] != "front" {
			t.Errorf("attributes %v", e.Attrs)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		driver string
		opts   m
		size   int64
		files  int
		gz     bool
	}{
		{"", nil, 10_000_000, 3, false},
		{"json-file", m{"max-size": "1m"}, 1_000_000, 3, false},
		{"json-file", m{"max-size": "2kb", "max-file": "1"}, 2000, 1, false},
		{"json-file", m{"max-size": "-1"}, 0, 3, false},
		{"json-file", m{"compress": "true", "mode": "non-blocking", "max-buffer-size": "4m"}, 10_000_000, 3, true},
		{"local", nil, 20 << 20, 5, true},
		{"local", m{"max-size": "1.5k"}, 1536, 5, true},
		{"none", nil, 0, 0, false},
	} {
		o, err := ParseOptions(c.driver, c.opts, nil)
		if err != nil || o.MaxSize != c.size || o.MaxFiles != c.files || o.Compress != c.gz {
			t.Errorf("%s %v: %+v, %v", c.driver, c.opts, o, err)
		}
	}
	for _, c := range []struct {
		driver string
		opts   m
		kind   errs.Kind
	}{
		{"syslog", nil, errs.Unsupported},
		{"journald", m{"max-size": "1m"}, errs.Invalid},
		{"json-file", m{"max-sise": "1"}, errs.Invalid},
		{"none", m{"max-size": "1"}, errs.Invalid},
		{"json-file", m{"max-size": "much"}, errs.Invalid},
		{"json-file", m{"max-size": "-5m"}, errs.Invalid},
		{"json-file", m{"max-size": "0"}, errs.Invalid},
		{"json-file", m{"max-size": "nan"}, errs.Invalid},
		{"json-file", m{"max-size": ""}, errs.Invalid},
		{"json-file", m{"max-size": "9999999p"}, errs.Invalid},
		{"json-file", m{"max-file": "0"}, errs.Invalid},
		{"json-file", m{"max-file": "x"}, errs.Invalid},
		{"json-file", m{"max-size": "-1", "max-file": "2"}, errs.Invalid},
		{"json-file", m{"compress": "true", "max-file": "1"}, errs.Invalid},
		{"json-file", m{"compress": "maybe"}, errs.Invalid},
		{"json-file", m{"mode": "lossy"}, errs.Invalid},
		{"json-file", m{"tag": "{{.Nope}}"}, errs.Invalid},
		{"local", m{"labels": "x"}, errs.Invalid},
	} {
		if _, err := ParseOptions(c.driver, c.opts, nil); errs.KindOf(err) != c.kind {
			t.Errorf("%s %v: %v, want %v", c.driver, c.opts, err, c.kind)
		}
	}
}

// TestPiecesJoinToTheInput writes random output in random chunks: the entries
// together are the input, lines are whole, and long ones are cut at 16 KiB.
func TestPiecesJoinToTheInput(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		for seed := range 20 {
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			var in bytes.Buffer
			for range 40 {
				n := rnd.IntN(200)
				if rnd.IntN(5) == 0 {
					n = maxPiece - 2 + rnd.IntN(5)
				}
				if rnd.IntN(10) == 0 {
					n = 3*maxPiece - 1 + rnd.IntN(3)
				}
				for range n {
					in.WriteByte(" abc\\\"\t€"[rnd.IntN(7)])
				}
				in.WriteByte('\n')
			}
			in.WriteString("the end")
			want := in.String()
			dir := t.TempDir()
			w := NewWriter(dir, "c", mustOptions(t, driver, nil))
			s := w.Stream("stdout")
			for b := in.Bytes(); len(b) > 0; {
				n := min(len(b), 1+rnd.IntN(20000))
				s.Write(b[:n], at.Add(time.Duration(len(b))))
				b = b[n:]
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			s.Close(at)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			lines := readAll(t, dir, driver, ReadOptions{Tail: -1})
			got := strings.Join(lines, "")
			if driver == Local {
				// The partial flag says "goes on"; for the last line too, as with Docker.
				got = strings.TrimSuffix(got, "\n")
			}
			if got != want {
				t.Fatalf("%s, seed %d: %d bytes in, %d out", driver, seed, len(want), len(got))
			}
			for _, l := range lines {
				if strings.Count(l, "\n") > 1 || len(l) > maxPiece+1 {
					t.Fatalf("entry of %d bytes with %d newlines", len(l), strings.Count(l, "\n"))
				}
				if !strings.HasSuffix(l, "\n") && len(l) != maxPiece && l != "the end" {
					t.Fatalf("cut after %d bytes", len(l))
				}
			}
		}
	}
}

func TestRotationBoundsAndTail(t *testing.T) {
	for _, c := range []struct {
		name, driver string
		opts         map[string]string
	}{
		{"plain", JSONFile, map[string]string{"max-size": "4k", "max-file": "3"}},
		{"compressed", JSONFile, map[string]string{"max-size": "4k", "max-file": "4", "compress": "true"}},
		{"one file", JSONFile, map[string]string{"max-size": "4k", "max-file": "1"}},
		{"local", Local, map[string]string{"max-size": "4k", "max-file": "3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := mustOptions(t, c.driver, c.opts)
			const n = 1000
			// A new writer now and then, as after a restart of the container.
			for i := 0; i < n; {
				w := NewWriter(dir, "c", o)
				s := w.Stream("stdout")
				for end := i + 137; i < end && i < n; i++ {
					s.Write(fmt.Appendf(nil, "line %d\n", i), at.Add(time.Duration(i)*time.Second))
					if i%3 == 0 {
						if err := w.Flush(); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			files, _ := os.ReadDir(filepath.Dir(Path(dir, "c", c.driver)))
			if len(files) != o.MaxFiles {
				t.Errorf("%d files, want %d: %v", len(files), o.MaxFiles, files)
			}
			for _, f := range files {
				if fi, _ := f.Info(); fi.Size() > o.MaxSize {
					t.Errorf("%s has %d bytes, bound %d", f.Name(), fi.Size(), o.MaxSize)
				}
			}
			all := readAll(t, dir, c.driver, ReadOptions{Tail: -1})
			if len(all) < 20 && o.MaxFiles > 1 || all[len(all)-1] != fmt.Sprintf("line %d\n", n-1) {
				t.Fatalf("%d lines, the last %q", len(all), all[len(all)-1])
			}
			for i, l := range all {
				if l != fmt.Sprintf("line %d\n", n-len(all)+i) {
					t.Fatalf("entry %d of %d is %q", i, len(all), l)
				}
			}
			for _, tail := range []int{0, 1, 2, 40, 60, len(all) - 1, len(all), len(all) + 1, 5000} {
				got := readAll(t, dir, c.driver, ReadOptions{Tail: tail})
				if want := all[max(0, len(all)-tail):]; strings.Join(got, "") != strings.Join(want, "") {
					t.Errorf("tail %d: %d entries, want %d", tail, len(got), len(want))
				}
			}
			if o.MaxFiles == 1 {
				return // may have just begun anew
			}
			since := readAll(t, dir, c.driver, ReadOptions{Tail: -1, Since: at.Add(990 * time.Second)})
			if len(since) != 10 || since[0] != "line 990\n" {
				t.Errorf("since: %q", since)
			}
			until := readAll(t, dir, c.driver, ReadOptions{Tail: 20, Until: at.Add(985 * time.Second)})
			if len(until) != 6 || until[5] != "line 985\n" {
				t.Errorf("tail 20 until 985: %q", until)
			}
		})
	}
}

// TestLongLineBeyondMaxSize: an entry larger than a file still is kept, alone.
func TestLongLineBeyondMaxSize(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "c", mustOptions(t, "", map[string]string{"max-size": "1k"}))
	s := w.Stream("stdout")
	s.Write([]byte("a\n"+strings.Repeat("x", 5000)+"\nb\n"), at)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, dir, JSONFile, ReadOptions{Tail: -1}); len(got) != 3 || len(got[1]) != 5001 || got[2] != "b\n" {
		t.Errorf("%d entries", len(got))
	}
}

// TestCutOffEntry: a writer was killed in the middle of an entry.
func TestCutOffEntry(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		dir := t.TempDir()
		o := mustOptions(t, driver, nil)
		w := NewWriter(dir, "c", o)
		s := w.Stream("stdout")
		s.Write([]byte("one\ntwo\n"), at)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		path := Path(dir, "c", driver)
		fi, _ := os.Stat(path)
		if err := os.Truncate(path, fi.Size()-5); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(readAll(t, dir, driver, ReadOptions{Tail: 5}), ""); got != "one\n" {
			t.Errorf("%s: before the next writer: %q", driver, got)
		}
		w = NewWriter(dir, "c", o)
		w.Stream("stdout").Write([]byte("three\n"), at)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, tail := range []int{-1, 5} {
			if got := strings.Join(readAll(t, dir, driver, ReadOptions{Tail: tail}), ""); got != "one\nthree\n" {
				t.Errorf("%s: tail %d: %q", driver, tail, got)
			}
		}
	}
}

func TestDamagedFilesAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("c-json.log.3.gz", "no gzip at all")
	write("c-json.log.2", strings.Repeat("x", 3<<20)+"\n"+`{"log":"a\n","stream":"stdout","time":"2026-03-04T05:06:07Z"}`+"\n")
	write("c-json.log.1", `{"log":"a\ud83d\ude00\/\b\n","stream":"stdout","time":"2026-03-04T05:06:07Z"}`+"\n{}garbage\n\n"+`{"log":"b\n","str`)
	if got := strings.Join(readAll(t, dir, JSONFile, ReadOptions{Tail: -1}), ""); got != "a\na😀/\b\n" {
		t.Errorf("got %q", got)
	}
	if err := os.MkdirAll(dir+"/local-logs", 0o700); err != nil {
		t.Fatal(err)
	}
	good := appendLocal(nil, []byte("ok"), true, "stderr", at)
	write("local-logs/container.log", string(good)+"\xff\xff\xff\xff rubbish")
	for _, tail := range []int{-1, 1, 3} {
		if got := strings.Join(readAll(t, dir, Local, ReadOptions{Tail: tail}), ""); got != "ok\n" {
			t.Errorf("local, tail %d: %q", tail, got)
		}
	}
	if err := Read(t.Context(), dir, "c", None, ReadOptions{}, nil); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("driver none: %v", err)
	}
	if err := Read(t.Context(), dir+"/none", "c", JSONFile, ReadOptions{Tail: -1}, nil); err != nil {
		t.Errorf("no log: %v", err)
	}
}

// TestFollowAcrossRotation follows a log that is rotated hundreds of times.
// The writer is held to less than the files can hold ahead of the reader, so
// no entry may be missing, doubled or out of order.
func TestFollowAcrossRotation(t *testing.T) {
	for _, c := range []struct {
		name, driver string
		opts         map[string]string
	}{
		{"plain", JSONFile, map[string]string{"max-size": "2k", "max-file": "5"}},
		{"compressed", JSONFile, map[string]string{"max-size": "2k", "max-file": "5", "compress": "true"}},
		{"local", Local, map[string]string{"max-size": "2k", "max-file": "5", "compress": "false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			const n = 3000
			var read, running atomic.Int64
			running.Store(1)
			writerErr := make(chan error, 1)
			go func() {
				writerErr <- func() error {
					w := NewWriter(dir, "c", mustOptions(t, c.driver, c.opts))
					s := w.Stream("stdout")
					for i := range n {
						for int64(i)-read.Load() > 40 {
							time.Sleep(50 * time.Microsecond)
						}
						s.Write(fmt.Appendf(nil, "line %d\n", i), time.Now())
						if err := w.Flush(); err != nil {
							return err
						}
					}
					return w.Close()
				}()
				running.Store(0)
			}()
			next := 0
			err := Read(t.Context(), dir, "c", c.driver, ReadOptions{Tail: -1, Follow: true, Running: func() bool { return running.Load() == 1 }},
				func(e *Entry) error {
					if string(e.Line) != fmt.Sprintf("line %d\n", next) {
						return fmt.Errorf("got %q, want line %d", e.Line, next)
					}
					next++
					read.Store(int64(next))
					return nil
				})
			if err != nil {
				read.Store(n)
				t.Error(err)
			}
			if werr := <-writerErr; werr != nil {
				t.Error(werr)
			}
			if err == nil && next != n {
				t.Errorf("%d entries, want %d", next, n)
			}
		})
	}
}

func TestFollowEnds(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "c", mustOptions(t, "", nil))
	s := w.Stream("stdout")
	s.Write([]byte("one\n"), time.Now())
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	n := 0
	if err := Read(ctx, dir, "c", JSONFile, ReadOptions{Tail: 0, Follow: true}, func(*Entry) error { n++; return nil }); err != nil || n != 0 {
		t.Errorf("tail 0, context ends: %d entries, %v", n, err)
	}
	start := time.Now()
	if err := Read(t.Context(), dir, "c", JSONFile, ReadOptions{Tail: -1, Follow: true, Until: start.Add(120 * time.Millisecond)}, func(*Entry) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("until: %d entries, %v", n, err)
	}
	if d := time.Since(start); d < 120*time.Millisecond || d > 2*time.Second {
		t.Errorf("until took %s", d)
	}
	stop := errors.New("enough")
	if err := Read(t.Context(), dir, "c", JSONFile, ReadOptions{Tail: -1}, func(*Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("emit's error: %v", err)
	}
	_ = w.Close()
}

// TestFullDisk: what cannot be written is lost, said once, and the file stays readable.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, "c", mustOptions(t, "", nil))
	s := w.Stream("stdout")
	s.Write([]byte("one\n"), at)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/c-json.log", dir+"/kept"); err != nil {
		t.Fatal(err)
	}
	_ = w.file.close()
	if err := os.Symlink("/dev/full", dir+"/c-json.log"); err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("two\n"), at)
	if err := w.Flush(); err == nil {
		t.Error("no error through a symbolic link")
	}
	if err := os.Remove(dir + "/c-json.log"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/kept", dir+"/c-json.log"); err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("three\n"), at)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(readAll(t, dir, JSONFile, ReadOptions{Tail: -1}), ""); got != "one\nthree\n" {
		t.Errorf("got %q", got)
	}
}

// FuzzJSON compares the encoder and the fast decoder with encoding/json.
func FuzzJSON(f *testing.F) {
	f.Add([]byte("a\"\\<\xff\u2028\x00é"))
	f.Fuzz(func(t *testing.T, line []byte) {
		raw := appendJSON(nil, line, true, jsonMid("stderr", nil), at.AppendFormat(nil, time.RFC3339Nano))
		var v struct{ Log, Stream, Time string }
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if want := strings.ToValidUTF8(string(line), ""); !strings.Contains(string(line), "\ufffd") && strings.ReplaceAll(v.Log, "\ufffd", "") != want+"\n" {
			t.Errorf("%q reads back as %q", line, v.Log)
		}
		var e Entry
		if !decodeOwn(bytes.TrimSuffix(raw, []byte("\n")), &e) || string(e.Line) != v.Log || e.Stream != "stderr" || !e.Time.Equal(at) {
			t.Errorf("fast decoder of %s: %+v", raw, e)
		}
		e = Entry{}
		p := appendLocal(nil, line, true, "stdout", at)
		if localLen(p) != len(p) || !decodeLocal(p, &e) || string(e.Line) != string(line)+"\n" || !e.Time.Equal(at) {
			t.Errorf("local: %q", e.Line)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	line := []byte(strings.Repeat("a log line of an ordinary program, 100 bytes long, with \"quotes\" and a /path/to/something?x=1&y ....", 1)[:99] + "\n")
	chunk := bytes.Repeat(line, 64<<10/len(line))
	for _, driver := range []string{JSONFile, Local} {
		b.Run(driver, func(b *testing.B) {
			w := NewWriter(b.TempDir(), "c", mustOptions(b, driver, map[string]string{"compress": "false"}))
			s := w.Stream("stdout")
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				s.Write(chunk, time.Now())
				if err := w.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
