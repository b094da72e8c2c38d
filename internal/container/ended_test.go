package container

import (
	"strings"
	"testing"
	"time"
)

func TestEnded(t *testing.T) {
	started := time.Unix(1, 0)
	for _, tc := range []struct {
		name         string
		s            State
		ended, brief string // parts that must be in it
	}{
		{"success", State{Status: Exited, StartedAt: started}, "", ""},
		{"runs", State{Status: Running, StartedAt: started, ExitCode: 3}, "", ""},
		{"plain code", State{Status: Exited, StartedAt: started, ExitCode: 1}, "exit code 1", ""},
		{"not found", State{Status: Exited, StartedAt: started, ExitCode: 127}, "not found", ""},
		{"fault", State{Status: Exited, StartedAt: started, ExitCode: 139, Signal: 11}, "SIGSEGV: it used memory", "SIGSEGV"},
		{"child's fault", State{Status: Exited, StartedAt: started, ExitCode: 139}, "a child of it", ""},
		{"stopped", State{Status: Exited, StartedAt: started, ExitCode: 143, Signal: 15, EndedBy: "isle stop"}, "SIGTERM, sent by isle stop", "SIGTERM by isle stop"},
		{"stopped, went by itself", State{Status: Exited, StartedAt: started, ExitCode: 3, EndedBy: "isle stop"}, "exit code 3; after a signal by isle stop", ""},
		{"killed by a stranger", State{Status: Exited, StartedAt: started, ExitCode: 137, Signal: 9}, "not sent by isle", "SIGKILL"},
		{
			"out of memory",
			State{Status: Exited, StartedAt: started, ExitCode: 137, Signal: 9, OOMKilled: true, OOM: &OOM{Kills: 1, Limit: 64 << 20, Peak: 65 << 20, Victim: "stress (pid 7)"}},
			"the kernel killed stress (pid 7) at the limit of 64 MiB, peak 65 MiB", "out of memory at 64 MiB",
		},
		{"never started", State{Status: Created, ExitCode: 127, Error: "exec: no", Cause: "a typo"}, "did not start: exec: no (usual cause: a typo)", "did not start"},
		{"just created", State{Status: Created}, "", ""},
		{
			"sick",
			State{Status: Exited, StartedAt: started, ExitCode: 1, Health: &Health{Status: "unhealthy", FailingStreak: 3, Log: []HealthProbe{{Output: "no answer\nmore"}}}},
			`its health check had failed 3 times in a row, at last with "no answer"`, "",
		},
	} {
		if got := tc.s.Ended(); !strings.Contains(got, tc.ended) || tc.ended == "" && got != "" {
			t.Errorf("%s: %q, want %q in it", tc.name, got, tc.ended)
		}
		if got := tc.s.Short(); got != tc.brief {
			t.Errorf("%s: in a list %q, want %q", tc.name, got, tc.brief)
		}
	}
}
