package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/testenv"
)

func eventPath(t *testing.T) string { return filepath.Join(testenv.Dir(t), "events", "log") }

func allEvents(t *testing.T, path string) []Event {
	t.Helper()
	r, err := OpenEvents(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	list, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEventsComeBack(t *testing.T) {
	path := eventPath(t)
	if got := allEvents(t, path); len(got) != 0 {
		t.Fatalf("before the first: %v", got)
	}
	want := []Event{
		{Time: time.Unix(1, 5), Type: "container", Action: "exec_start: sh -c 'echo \"x\"'\nrm", ID: "ab", Attributes: map[string]string{"name": "web", "a=b \"c\"": "ü\x1b\xff\n=", "": ""}},
		{Time: time.Unix(2, 0), Type: "volume", Action: "prune", Attributes: map[string]string{}},
	}
	if err := AppendEvents(path, want...); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, allEvents(t, path)); d != "" {
		t.Error(d)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
}

// TestCutEventHurtsNoOther writes what a full disk or a power loss leaves.
func TestCutEventHurtsNoOther(t *testing.T) {
	path := eventPath(t)
	a, b := Event{Time: time.Unix(1, 0), Type: "container", Action: "start", ID: "a"}, Event{Time: time.Unix(3, 0), Type: "container", Action: "die", ID: "b"}
	if err := AppendEvents(path, a); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("2000000000 container cut \"sta\x00\x00"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := AppendEvents(path, b); err != nil {
		t.Fatal(err)
	}
	got := allEvents(t, path)
	if len(got) != 2 || got[0].ID != "a" || got[1].ID != "b" {
		t.Errorf("%+v", got)
	}
}

// TestManyWritersLoseNothing has several writers fill the log over two bounds
// while somebody follows it: each event comes once, and the files stay bounded.
func TestManyWritersLoseNothing(t *testing.T) {
	path := eventPath(t)
	if err := AppendEvents(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := OpenEvents(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// More than one file of the log, and not more than the two that it keeps: a reader
	// that is slower than two turns of the log misses what is gone, as it must.
	const writers, each = 4, 400
	pad := strings.Repeat("x", 1000)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := AppendEvents(path, Event{Time: time.Now(), Type: "container", Action: "start", ID: fmt.Sprintf("%d-%d", w, i), Attributes: map[string]string{"pad": pad}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	seen := map[string]int{}
	watch := NewWatch(path)
	defer watch.Close()
	for over := false; ; {
		list, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			seen[e.ID]++
		}
		if over && len(list) == 0 {
			break
		}
		select {
		case <-done:
			over = true
		default:
			if err := watch.Wait(t.Context(), time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for w := range writers {
		for i := range each {
			if n := seen[fmt.Sprintf("%d-%d", w, i)]; n != 1 {
				t.Fatalf("event %d of writer %d was seen %d times", i, w, n)
			}
		}
	}
	for _, name := range []string{path, path + ".1"} {
		if fi, err := os.Stat(name); err != nil || fi.Size() > maxEventLog+16<<10 {
			t.Errorf("%s: %v %v", name, fi, err)
		}
	}
}

func BenchmarkAppendEvents(b *testing.B) {
	path := filepath.Join(testenv.Dir(b), "events", "log")
	e := Event{Time: time.Now(), Type: "container", Action: "start", ID: NewID(), Attributes: map[string]string{"image": "alpine", "name": "web"}}
	for b.Loop() {
		if err := AppendEvents(path, e, e, e); err != nil {
			b.Fatal(err)
		}
	}
}
