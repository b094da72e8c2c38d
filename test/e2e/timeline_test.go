package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestTimeline: every process of a start has its say, the times fit together, and
// the container's output is its own.
func TestTimelineAsRoot(t *testing.T) {
	if !asRoot(t) {
		return
	}
	testTimeline(t)
}

func TestTimelineAsUser(t *testing.T) {
	if !asUser(t) {
		return
	}
	testTimeline(t)
}

func testTimeline(t *testing.T) {
	h := newHost(t)
	r := h.run("isle run --rm --network none --timeline --format json isle/base sh -c 'echo out; exit 3'")
	if r.code != 3 || r.stdout != "out\n" {
		t.Fatalf("exit code %d, output %q, %s", r.code, r.stdout, r.stderr)
	}
	line := r.stderr[strings.LastIndex(strings.TrimSpace(r.stderr), "\n")+1:] // after the messages of a first pull
	var tl struct {
		Phases []struct {
			Who, What       string
			StartUs, TookUs float64
		}
		ReadyUs, TotalUs float64
	}
	if err := json.Unmarshal([]byte(line), &tl); err != nil {
		t.Fatalf("%v: %s", err, r.stderr)
	}
	who := map[string]int{}
	for _, p := range tl.Phases {
		who[p.Who]++
		if p.TookUs < 0 || p.StartUs < 0 || p.StartUs+p.TookUs > tl.TotalUs+1 {
			t.Errorf("phase out of the run: %+v of %v", p, tl.TotalUs)
		}
	}
	if who["isle"] < 4 || who["monitor"] < 8 || who["child"] < 8 {
		t.Errorf("phases by process: %v", who)
	}
	if tl.ReadyUs <= 0 || tl.ReadyUs > tl.TotalUs {
		t.Errorf("ready after %v of %v", tl.ReadyUs, tl.TotalUs)
	}
	if text := h.run("isle run --rm --network none --timeline isle/base true").stderr; !strings.Contains(text, "until the command ran") || !strings.Contains(text, "change the root (pivot_root)") {
		t.Errorf("in words: %s", text)
	}
	if out := h.ok("isle run --rm --network none isle/base env"); strings.Contains(out, "_ISLE") {
		t.Errorf("the container's environment: %s", out)
	}
}
