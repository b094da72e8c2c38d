package e2e

import (
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

// TestEndsAreExplained: why a container stopped, in words, where people look.
func TestEndsAreExplainedAsRoot(t *testing.T) {
	if !asRoot(t) {
		return
	}
	testEndsAreExplained(t)
}

func TestEndsAreExplainedAsUser(t *testing.T) {
	if !asUser(t) {
		return
	}
	testEndsAreExplained(t)
}

func testEndsAreExplained(t *testing.T) {
	h := newHost(t)
	run := "isle run --network none "
	for name, cmd := range map[string]string{
		"missing": run + "--name missing isle/base sh -c 'exit 127' || :",
		"typo":    run + "--name typo isle/base nosuch || :",
		"stopped": run + "-d --name stopped isle/base sh -c 'trap : TERM; sleep 1000; sleep 1000'; isle stop -t 1 stopped",
		"killed":  run + "-d --name killed isle/base sleep 1000; isle kill killed",
		// PID 1 gets only the signals it has asked for; from outside SIGKILL ends it.
		"stranger": run + "-d --name stranger isle/base sleep 1000; " +
			`kill -9 $(isle inspect --format '{{.State.Pid}}' stranger) && isle wait stranger`,
	} {
		h.ok(cmd)
		want := map[string]string{
			"missing": "a command was not found", "typo": "did not start: exec: \"nosuch\"", "stopped": "isle stop", "killed": "sent by isle kill", "stranger": "not sent by isle",
		}[name]
		for _, where := range []string{"isle inspect --format '{{.State.Ended}}' " + name, "isle explain " + name} {
			if got := h.ok(where); !strings.Contains(strings.Join(strings.Fields(got), " "), want) {
				t.Errorf("%s: %q, want %q in it", where, got, want)
			}
		}
	}
	list := h.ok("isle ps -a --no-trunc --format '{{.Names}} {{.Status}}'")
	for _, want := range []string{"did not start", "SIGKILL by isle kill"} {
		if !strings.Contains(list, want) {
			t.Errorf("ps: %q is not in\n%s", want, list)
		}
	}
}

// TestOutOfMemoryIsExplained: the limit, the peak and the victim.
func TestOutOfMemoryIsExplained(t *testing.T) {
	testenv.Need(t, testenv.CgroupV1Memory)
	if !asRoot(t) {
		return
	}
	h := newHost(t)
	r := h.run("isle run --network none --name oom -m 16m isle/base sh -c 'head -c 100000000 /dev/zero | tail'")
	if !strings.Contains(r.stderr, "limit of 16 MiB") {
		t.Errorf("run: exit code %d: %s", r.code, r.stderr)
	}
	got := h.ok("isle inspect --format '{{.State.Ended}}' oom")
	for _, want := range []string{"out of memory", "limit of 16 MiB", "peak"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}
