package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/state"
)

// actions lists what was told of a container, in order.
func (r *rig) actions(id string) (list []string) {
	r.t.Helper()
	rd, err := state.OpenEvents(r.env.EventLog())
	if err != nil {
		r.t.Fatal(err)
	}
	defer rd.Close()
	all, err := rd.Next()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range all {
		if e.ID == id {
			list = append(list, e.Action)
		}
	}
	return list
}

// health asks the container's monitor.
func (r *rig) health(id string) *container.Health {
	r.t.Helper()
	c := r.dial(id)
	defer c.Close() //nolint:errcheck // all has been said
	h, err := c.Health(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func probed(test ...string) *container.Healthcheck {
	return &container.Healthcheck{Test: test, Interval: 50 * time.Millisecond, Retries: 2}
}

func TestHealthFollowsTheProbes(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("touch /ok; sleep 100")
		cfg.Health = probed("CMD-SHELL", "echo looked; [ -e /ok ]")
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		if h := r.state(id).Health; h == nil || h.Status != container.HealthStarting {
			t.Errorf("at the start: %+v", h)
		}
		recorded := func(status string) func() bool {
			return func() bool { h := r.state(id).Health; return h != nil && h.Status == status }
		}
		eventually(t, "it is healthy", recorded(container.Healthy))
		// The monitor that has executed itself again goes on with it.
		r.shrunk(id)
		if err := os.Remove(fmt.Sprintf("/proc/%d/root/ok", r.state(id).Pid)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is unhealthy", recorded(container.Unhealthy))
		eventually(t, "five probes are kept", func() bool { return len(r.health(id).Log) == 5 })
		h := r.health(id)
		last := h.Log[4]
		if h.FailingStreak < 2 || last.ExitCode != 1 || last.Output != "looked\n" || last.End.Before(last.Start) {
			t.Errorf("%+v", h)
		}
		r.kill(id)
		if h := r.state(id).Health; h == nil || h.Status != container.Unhealthy || len(h.Log) != 5 {
			t.Errorf("at the end: %+v", h)
		}
		got := strings.Join(r.actions(id), " ")
		if !strings.Contains(got, "start health_status: healthy health_status: unhealthy kill die") {
			t.Errorf("events: %s", got)
		}
	})
}

// TestProbeIsConfinedAsExec: a probe has what the container's init has, and
// nothing of the monitor's.
func TestProbeIsConfinedAsExec(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		const look = "cat /proc/self/status | grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' >%s; ls /proc/self/fd | wc -l >>%[1]s; cat /proc/self/cgroup >>%[1]s"
		cfg := sh(fmt.Sprintf(look, "/init") + "; sleep 100")
		cfg.CapDrop, cfg.Seccomp = []string{"ALL"}, `{"defaultAction":"SCMP_ACT_ALLOW"}`
		yes := true
		cfg.NoNewPrivileges = &yes
		cfg.Health = probed("CMD-SHELL", fmt.Sprintf(look, "/probe"))
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is healthy", func() bool { h := r.state(id).Health; return h != nil && h.Status == container.Healthy })
		root := fmt.Sprintf("/proc/%d/root", r.state(id).Pid)
		init, err := os.ReadFile(root + "/init")
		if err != nil {
			t.Fatal(err)
		}
		var probe []byte
		eventually(t, "the probe has written all", func() bool {
			probe, _ = os.ReadFile(root + "/probe")
			return len(probe) >= len(init)
		})
		if string(init) != string(probe) {
			t.Errorf("init has:\n%sa probe:\n%s", init, probe)
		}
		r.kill(id)
	})
}

func TestProbeThatHangsIsKilledWithItsChildren(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("sleep 100")
		cfg.Health = probed("CMD-SHELL", "echo begun; sleep 77; echo never")
		cfg.Health.Timeout = 100 * time.Millisecond
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is unhealthy", func() bool { h := r.state(id).Health; return h != nil && h.Status == container.Unhealthy })
		p := r.health(id).Log[0]
		if p.ExitCode != -1 || p.Output != "Health check exceeded timeout (100ms): begun\n" {
			t.Errorf("%+v", p)
		}
		if n := sleepers(r.state(id).Pid); n > 1 {
			t.Errorf("%d children of probes are left", n)
		}
		r.kill(id)
		// What cannot be executed is a failure like another.
		cfg = sh("sleep 100")
		cfg.Health = probed("CMD", "/no/such")
		id = r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is unhealthy", func() bool { h := r.state(id).Health; return h != nil && h.Status == container.Unhealthy })
		if p := r.health(id).Log[0]; p.ExitCode != -1 || !strings.Contains(p.Output, "no such file") {
			t.Errorf("%+v", p)
		}
		r.kill(id)
	})
}

// sleepers counts the processes "sleep 77" in the pid namespace of a process.
func sleepers(pid int) int {
	ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	all, _ := filepath.Glob("/proc/[0-9]*")
	n := 0
	for _, dir := range all {
		theirs, _ := os.Readlink(dir + "/ns/pid")
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		if theirs == ns && string(cmdline) == "sleep\x0077\x00" {
			n++
		}
	}
	return n
}

func TestFailuresInTheStartPeriodDoNotCount(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("sleep 100")
		cfg.Health = probed("CMD-SHELL", "[ -e /ok ]")
		cfg.Health.StartPeriod, cfg.Health.StartInterval, cfg.Health.Interval = time.Hour, 30*time.Millisecond, 40*time.Millisecond
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it was probed", func() bool { return len(r.health(id).Log) >= 4 })
		if h := r.health(id); h.Status != container.HealthStarting || h.FailingStreak != 0 {
			t.Errorf("%+v", h)
		}
		if r.state(id).Cgroup.V2 != "" {
			r.notProbedWhilePaused(id)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/ok", r.state(id).Pid), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is healthy", func() bool { return r.health(id).Status == container.Healthy })
		r.kill(id)
	})
}

func (r *rig) notProbedWhilePaused(id string) {
	r.t.Helper()
	c := r.dial(id)
	defer c.Close() //nolint:errcheck // all has been said
	if err := c.Pause(r.t.Context(), true); err != nil {
		r.t.Fatal(err)
	}
	before := r.health(id).Log
	time.Sleep(200 * time.Millisecond) // nothing is to happen meanwhile
	if after := r.health(id).Log; after[len(after)-1].Start != before[len(before)-1].Start {
		r.t.Error("probed while frozen")
	}
	if err := c.Pause(r.t.Context(), false); err != nil {
		r.t.Fatal(err)
	}
}

// TestProbeThatDiesWithTheContainerIsNoFailure ends containers in the middle of a
// probe.
func TestProbeThatDiesWithTheContainerIsNoFailure(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("sleep 100")
		cfg.Health = probed("CMD-SHELL", "echo >/probed; sleep 50")
		cfg.Health.Retries = 1
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		root := fmt.Sprintf("/proc/%d/root", r.state(id).Pid)
		eventually(t, "a probe is under way", func() bool { _, err := os.Stat(root + "/probed"); return err == nil })
		r.kill(id)
		if got := strings.Join(r.actions(id), " "); strings.Contains(got, "health_status") {
			t.Errorf("events: %s", got)
		}
	})
}
