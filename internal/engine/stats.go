package engine

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/linux/cgroup"
)

// Sample is what a container has used up to a moment.
type Sample struct {
	Taken   time.Time
	Running bool
	cgroup.Stats
	NetReceived, NetSent int64
}

// Sampler takes samples of a container; it is for one goroutine.
type Sampler struct {
	ID, Name string
	c        *Container
	g        *cgroup.Group
	total    int64 // memory of the machine
}

// Sampler returns one for a container, running or not.
func (e *Engine) Sampler(ctx context.Context, ref string) (*Sampler, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	s := &Sampler{ID: c.ID, Name: c.Config.Name, c: c}
	if live(c.State.Status) {
		s.g = cgroup.Open(cgroup.Paths(c.State.Cgroup))
	}
	var m host.Machine
	mem, _ := m.Memory()
	s.total = int64(mem)
	return s, nil
}

// Close lets go of the container.
func (s *Sampler) Close() error {
	if s.g == nil {
		return nil
	}
	return s.g.Close()
}

// Sample reads the kernel's counters. A container that does not run any more
// has zeros.
func (s *Sampler) Sample() (Sample, error) {
	out := Sample{Taken: time.Now()}
	if s.g == nil {
		return out, nil
	}
	st, err := s.g.Stats()
	if err != nil {
		return out, err
	}
	if st.Pids.Current == 0 {
		return out, nil // it has ended
	}
	out.Running, out.Stats = true, st
	if l := out.Memory.Limit; l < 0 || s.total > 0 && l > s.total {
		out.Memory.Limit = s.total
	}
	if n := s.c.Config.Network; n != "host" && n != "none" {
		out.NetReceived, out.NetSent = traffic(s.c.State.Pid)
	}
	return out, nil
}

// traffic sums what the interfaces of a process's network namespace have
// passed, but for lo.
func traffic(pid int) (received, sent int64) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		in, err1 := strconv.ParseInt(f[0], 10, 64)
		out, err2 := strconv.ParseInt(f[8], 10, 64)
		if err1 == nil && err2 == nil {
			received, sent = received+in, sent+out
		}
	}
	return received, sent
}
