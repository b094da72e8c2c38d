package engine

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
)

// Sample is what a container has used up to a moment.
type Sample struct {
	Taken   time.Time
	Running bool
	cgroup.Stats
	Pressure             cgroup.PressureStats
	NetReceived, NetSent int64
}

// Sampler takes samples of a container; it is for one goroutine.
type Sampler struct {
	ID, Name string
	Created  time.Time
	// Pressure says that samples shall tell how much is waited for (PSI).
	Pressure bool
	c        *Container
	g        *cgroup.Group
	scan     *procScan // where there is no cgroup
	total    int64     // memory of the machine
}

// SampleIDs returns the ids of the containers that have a monitor, or of all, in no
// order. It reads no record, so that it can be asked every second.
func (e *Engine) SampleIDs(_ context.Context, all bool) ([]string, error) {
	ids, err := state.IDs(e.env.Containers())
	if err != nil || all {
		return ids, err
	}
	return slices.DeleteFunc(ids, func(id string) bool { return !monitor.Alive(e.env, id) }), nil
}

// Sampler returns one for a container, running or not.
func (e *Engine) Sampler(ctx context.Context, ref string) (*Sampler, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	s := &Sampler{ID: c.ID, Name: c.Config.Name, Created: c.Created, c: c}
	switch {
	case !live(c.State.Status):
	case c.State.Cgroup.V2 != "" || len(c.State.Cgroup.V1) > 0:
		s.g = cgroup.Open(cgroup.Paths(c.State.Cgroup))
	case c.Config.PID == "" || c.Config.PID == "private":
		s.scan = &e.scan
	}
	var m host.Machine
	mem, _ := m.Memory()
	s.total = int64(mem)
	return s, nil
}

// procScan tells which processes are in which pid namespace. The samples of many
// containers share one look at /proc.
type procScan struct {
	mu    sync.Mutex
	taken time.Time
	found map[string][]int
}

// scanAge is how old a look may be.
const scanAge = 300 * time.Millisecond

// pids returns the processes in a pid namespace, as readlink(2) names it.
func (p *procScan) pids(ns string) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil || time.Since(p.taken) > scanAge {
		p.taken, p.found = time.Now(), map[string][]int{}
		for _, name := range entries("/proc") {
			pid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			if in, err := os.Readlink("/proc/" + name + "/ns/pid"); err == nil {
				p.found[in] = append(p.found[in], pid)
			}
		}
	}
	return p.found[ns]
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
	var st cgroup.Stats
	switch {
	case s.g != nil:
		var err error
		if st, err = s.g.Stats(); err != nil {
			return out, err
		}
	case s.scan != nil: // an ordinary user's may have no cgroup
		if ns, err := os.Readlink("/proc/" + strconv.Itoa(s.c.State.Pid) + "/ns/pid"); err == nil { // it has not ended
			st = cgroup.EstimateStats(s.scan.pids(ns))
		}
	}
	if st.Pids.Current == 0 {
		return out, nil // it has ended
	}
	out.Running, out.Stats = true, st
	if s.Pressure {
		out.Pressure = s.g.Pressure()
	}
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
