package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rounds of a storm; ISLE_STORM_ROUNDS changes it.
func rounds(t *testing.T) int {
	t.Helper()
	s := os.Getenv("ISLE_STORM_ROUNDS")
	if s == "" {
		return 200
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStormAsRoot(t *testing.T) {
	needImages(t)
	if asRoot(t) {
		storm(t)
	}
}

func TestStormAsUser(t *testing.T) {
	needImages(t)
	if asUser(t) {
		storm(t)
	}
}

// storm kills the client or the monitor at a random moment of a container's life,
// round after round. After each the store opens, ps is right and rm works;
// NoLeaks and the cgroups of the test say at the end whether anything stayed.
func storm(t *testing.T) {
	h := newHost(t)
	h.ok("isle pull -q alpine:3.20")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	killed := map[string]int{}
	for i := range rounds(t) {
		name := fmt.Sprintf("s%d", i)
		args := []string{"isle", "run", "--name", name, "alpine:3.20", "sleep", "0.05"}
		switch rnd.IntN(3) {
		case 0:
			args = append([]string{"isle", "run", "-d"}, args[2:]...)
		case 1:
			args = append([]string{"isle", "run", "--rm"}, args[2:]...)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := h.command(ctx, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Most of a start is over after 5 ms, all of the life after 80.
		time.Sleep(time.Duration(rnd.ExpFloat64() * float64(8*time.Millisecond)))
		if rnd.IntN(2) == 0 {
			if cmd.Process.Kill() == nil {
				killed["client"]++
			}
		} else if pid := h.monitor(); pid != 0 {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed["monitor"]++
			}
		}
		_ = cmd.Wait() // killed, or its container was: any exit code will do
		cancel()
		h.afterCrash(name)
		if t.Failed() {
			t.Fatalf("round %d: %q", i, args)
		}
	}
	t.Logf("killed: %v", killed)
	if killed["client"] == 0 || killed["monitor"] == 0 {
		t.Errorf("the storm missed: %v", killed)
	}
	// What a killed removal left in tmp is swept by a later one, once it has lain
	// for ten seconds and so is nobody's work any more.
	time.Sleep(11 * time.Second)
	h.ok("isle run --rm --network none alpine:3.20 true")
	if left := h.ok("isle ps -aq"); left != "" {
		t.Errorf("still listed: %s", left)
	}
	// What --rm leaves to a background process is gone in a moment.
	left := h.files()
	for end := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(end); left = h.files() {
		time.Sleep(50 * time.Millisecond)
	}
	for _, name := range left {
		t.Errorf("left behind: %s", name)
	}
}

// afterCrash checks that the store opens, that ps tells the truth about the
// container, and removes it.
func (h *host) afterCrash(name string) {
	h.t.Helper()
	line := h.ok("isle", "ps", "-a", "--filter", "name=^"+name+"$", "--format", "{{.ID}} {{.State}}")
	if line == "" {
		return
	}
	id, state, _ := strings.Cut(line, " ")
	if state == "running" {
		// It may have ended by itself between the two commands, and be gone.
		pid, err := strconv.Atoi(strings.TrimSpace(h.run("isle", "inspect", "-f", "{{.State.Pid}}", id).stdout))
		if err == nil && pid != 0 && syscall.Kill(pid, 0) != nil {
			if again := h.ok("isle", "ps", "-a", "--filter", "name=^"+name+"$", "--format", "{{.State}}"); again == "running" {
				h.t.Errorf("%s is listed as running, and its process %d is not there", name, pid)
			}
		}
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r := h.run("isle", "rm", "-f", id)
		if r.code == 0 || strings.Contains(r.stderr, "No such container") {
			return
		}
		// The container that --rm or a failed start takes away is not ours to remove.
		if !strings.Contains(r.stderr, "already in progress") || time.Now().After(end) {
			h.t.Errorf("rm -f %s: exit code %d: %s", id, r.code, r.stderr)
			return
		}
	}
}

// monitor returns the pid of a monitor of this host, or 0.
func (h *host) monitor() int {
	if all := h.processes("isle-monitor"); len(all) > 0 {
		return all[0]
	}
	return 0
}
