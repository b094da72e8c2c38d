package timeline

import (
	"bytes"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/linux/lap"
)

func TestTimeline(t *testing.T) {
	us := func(n int64) int64 { return 5e9 + n*1000 }
	tl := New([]lap.Note{
		{At: us(0), Who: lap.Command, What: "find the image"},
		{At: us(100), Who: lap.Command, What: "wait for the monitor"},
		{At: us(200), Who: lap.Monitor, What: "clone"},
		// Records of two processes can be written in another order than they were taken.
		{At: us(330), Who: lap.Child, What: "mount /proc"},
		{At: us(300), Who: lap.Child, What: "mount /dev"},
		{At: us(350), Who: lap.Child, What: "device /dev/null"},
		{At: us(400), Who: lap.Monitor, What: "the command runs"},
		{At: us(10400), Who: lap.Monitor, What: "tell the exit code"},
		{At: us(10500), Who: lap.Command, What: "end"},
	})
	if tl.Ready != 400 || tl.Total != 10500 {
		t.Errorf("ready after %v, all in %v", tl.Ready, tl.Total)
	}
	want := []Phase{
		{"isle", "find the image", 0, 100, 0},
		{"isle", "wait for the monitor", 100, 10400, 0},
		{"monitor", "clone", 200, 200, 0},
		{"child", "mounts", 300, 50, 2},
		{"child", "devices", 350, 50, 0},
		{"monitor", "the command runs", 400, 10000, 0},
	}
	if len(tl.Phases) != len(want) {
		t.Fatalf("%+v", tl.Phases)
	}
	for i, p := range tl.Phases {
		if p != want[i] {
			t.Errorf("phase %d: %+v, want %+v", i, p, want[i])
		}
	}
	var out bytes.Buffer
	if err := tl.WriteText(&out, 100); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(line)); n > 101 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(out.String(), "mounts (2)") || !strings.Contains(out.String(), "█") {
		t.Errorf("%s", out.String())
	}
}
