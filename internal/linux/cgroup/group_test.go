package cgroup

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

// needLimits skips a test unless limits can be set here, on whichever version.
// It tries: where systemd can be asked for a place, no other sign tells.
func needLimits(t *testing.T) {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	r := memory(64 << 20)
	r.Pids = &specs.LinuxPids{Limit: new(int64(100))}
	g, err := h.Create(Request{Name: testName(t), Resources: r, Rootless: os.Getuid() != 0})
	if err == nil {
		if err := g.Delete(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if h.isV1("memory") {
		testenv.Need(t, testenv.CgroupV1Memory)
	} else {
		testenv.Need(t, testenv.CgroupV2Delegated)
	}
	t.Fatal(err)
}

// needV2Limits is needLimits for tests of v2 files.
func needV2Limits(t *testing.T) {
	t.Helper()
	if h, err := Detect(); err != nil {
		t.Fatal(err)
	} else if h.isV1("memory") {
		testenv.Need(t, testenv.CgroupV2Delegated)
	}
	needLimits(t)
}

func TestMemoryLimitKillsAndIsReported(t *testing.T) {
	needLimits(t)
	const limit = 64 << 20
	g := makeGroup(t, memory(limit))
	small := start(t, g, "hog 20")
	small.line(t)
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Limit != limit || s.Memory.Usage < 20<<20 || s.Memory.Usage > limit || s.Memory.Estimated {
		t.Errorf("memory: %+v", s.Memory)
	}
	if s.CPU.Usage == 0 || s.Pids.Current < 1 {
		t.Errorf("stats: %+v", s)
	}
	if o, err := g.OOM(); err != nil || o.Kills != 0 {
		t.Errorf("before: %+v, %v", o, err)
	}
	big := start(t, g, "hog 200")
	if err := big.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("200 MiB in a group of 64: %v", err)
	}
	o, err := g.OOM()
	if err != nil {
		t.Fatal(err)
	}
	if o.Kills < 1 || o.Limit != limit {
		t.Errorf("after: %+v", o)
	}
	// A kernel counts a charge before it takes it back.
	if d := g.all(); o.Peak < limit/2 || o.Peak > limit+1<<20 {
		if o.Peak != 0 || slices.ContainsFunc(d, func(d dir) bool { return d.exists("memory.peak") || d.exists("memory.max_usage_in_bytes") }) {
			t.Errorf("peak %d, limit %d", o.Peak, limit)
		}
	}
}

func TestPidsLimit(t *testing.T) {
	needLimits(t)
	g := makeGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(20))}})
	p := start(t, g, "forks 50")
	n, err := strconv.Atoi(p.line(t))
	if err != nil || n >= 20 || n < 5 {
		t.Errorf("%d processes could be started in a group of 20 (%v)", n, err)
	}
	s, err := g.Stats()
	if err != nil || s.Pids.Limit != 20 || s.Pids.Current > 20 || s.Pids.Current < int64(n) {
		t.Errorf("%+v, %v", s.Pids, err)
	}
	pids, err := g.Procs()
	if err != nil || len(pids) != n+1 {
		t.Errorf("%d processes, want %d (%v)", len(pids), n+1, err)
	}
}

func TestCPUQuota(t *testing.T) {
	needLimits(t)
	g := makeGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(20000)), Period: new(uint64(100000))}})
	p := start(t, g, "spin 1000")
	got, err := strconv.Atoi(p.line(t))
	if err != nil || got > 400 {
		t.Errorf("a process with 0.2 CPUs got %d ms of a second (%v)", got, err)
	}
	s, err := g.Stats()
	// On a busy machine it may never have come to the end of its share.
	if busy := got < 180; err != nil || s.CPU.Periods == 0 || !busy && (s.CPU.Throttled == 0 || s.CPU.ThrottledTime == 0) {
		t.Errorf("%+v, %v", s.CPU, err)
	}
}

func TestCpuset(t *testing.T) {
	needLimits(t)
	for _, c := range []*specs.LinuxCPU{{Cpus: "0"}, {Cpus: "0", Mems: "0"}} {
		g := makeGroup(t, &specs.LinuxResources{CPU: c})
		if got := start(t, g, "affinity").line(t); got != "0" {
			t.Errorf("%+v: runs on %s", c, got)
		}
	}
	// Only mems: the CPUs are the parent's.
	g := makeGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Mems: "0"}})
	start(t, g, "sleep").line(t)
}

func TestNoLimitsNoV1(t *testing.T) {
	testenv.Need(t, testenv.CgroupV2)
	for _, r := range []*specs.LinuxResources{nil, {}, {Memory: &specs.LinuxMemory{Limit: new(int64(0))}, Pids: &specs.LinuxPids{Limit: new(int64(-1))}}} {
		g := makeGroup(t, r)
		if len(g.paths.V1) != 0 {
			t.Errorf("%+v: joined %v", r, g.paths.V1)
		}
		if os.Getuid() == 0 && g.paths.V2 == "" {
			t.Errorf("%+v: root got no group", r)
		}
		p := start(t, g, "hog 10")
		p.line(t)
		if g.Empty() {
			continue
		}
		s, err := g.Stats()
		if err != nil || s.Pids.Current < 1 || s.CPU.Usage == 0 || s.Memory.Usage < 10<<20 || s.Memory.Limit == 0 {
			t.Errorf("%+v, %v", s, err)
		}
		if o, err := g.OOM(); err != nil || o != (OOMInfo{}) {
			t.Errorf("%+v, %v", o, err)
		}
	}
}

// inGroup makes a group with a workload that has children, for tests of what
// can be done to it.
func inGroup(t *testing.T) (*Group, *proc) {
	t.Helper()
	testenv.Need(t, testenv.CgroupV2)
	var r *specs.LinuxResources
	if os.Getuid() != 0 {
		// Without limits an ordinary user may get no group.
		needV2Limits(t)
		r = memory(64 << 20)
	}
	g := makeGroup(t, r)
	p := start(t, g, "forks 5")
	p.line(t)
	return g, p
}

func TestKill(t *testing.T) {
	for _, file := range []string{killFile, "cgroup.no-such-kill"} {
		t.Run(file, func(t *testing.T) {
			old := killFile
			killFile = file
			defer func() { killFile = old }()
			g, p := inGroup(t)
			// A group made from inside must not hide processes.
			inner := dir(g.paths.V2).join("inner")
			if err := os.Mkdir(string(inner), 0o755); err != nil {
				t.Fatal(err)
			}
			pids, err := g.Procs()
			if err != nil || len(pids) != 6 {
				t.Fatalf("%v, %v", pids, err)
			}
			if err := inner.write("cgroup.procs", strconv.Itoa(pids[5])); err != nil {
				t.Fatal(err)
			}
			if err := g.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(); err == nil || err.Error() != "signal: killed" {
				t.Errorf("workload: %v", err)
			}
			if err := g.Delete(); err != nil {
				t.Error(err)
			}
			if dir(g.paths.V2).exists("") {
				t.Error("the group is left")
			}
			if err := g.Delete(); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func TestDeleteRefusesLivingProcesses(t *testing.T) {
	g, _ := inGroup(t)
	err := g.Delete()
	if errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), "still in use by processes [") {
		t.Errorf("%v", err)
	}
}

func TestFreeze(t *testing.T) {
	g, p := inGroup(t)
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		text, _ := procDir(p.Process.Pid).read("wchan")
		return text
	}
	frozen := state()
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	t.Logf("wchan %q, then %q", frozen, state())
	// Frozen processes die too.
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil {
		t.Error("survived")
	}
}

// TestNoV2AtAll: where no v2 hierarchy is mounted, the freezer is what pauses
// and what finds every process to kill.
func TestNoV2AtAll(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.CgroupV1)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	pure := &Host{own: h.own, mode: "v1"}
	g, err := pure.Create(Request{Name: testName(t)})
	if err != nil {
		t.Fatal(err)
	}
	if g.File() != nil || g.paths.V1["freezer"] == "" || len(g.paths.V1) != 1 {
		t.Errorf("%+v", g.paths)
	}
	p := start(t, g, "forks 5")
	p.line(t)
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if got, err := dir(g.paths.V1["freezer"]).read("freezer.state"); err != nil || got != "FROZEN" {
		t.Errorf("%q, %v", got, err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil {
		t.Error("survived")
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
}

func TestEmptyGroup(t *testing.T) {
	g := Open(Paths{})
	if !g.Empty() || g.File() != nil {
		t.Error("not empty")
	}
	for what, err := range map[string]error{
		"freeze": g.Freeze(), "thaw": g.Thaw(), "update": g.Update(memory(64 << 20)),
	} {
		if errs.KindOf(err) != errs.Unsupported {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{"kill": g.Kill(), "delete": g.Delete(), "attach": g.Attach(os.Getpid())} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if files, err := g.JoinFiles(); len(files) != 0 || err != nil {
		t.Errorf("%v, %v", files, err)
	}
}

func TestOpenFromPaths(t *testing.T) {
	g, p := inGroup(t)
	again := Open(g.Paths())
	pids, err := again.Procs()
	if err != nil || !slices.Contains(pids, p.Process.Pid) {
		t.Errorf("%v, %v", pids, err)
	}
	if err := again.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.Wait()
	if err := again.Delete(); err != nil {
		t.Error(err)
	}
	if s, err := again.Stats(); err != nil || s.Pids.Current != 0 {
		t.Errorf("of a group that is gone: %+v, %v", s, err)
	}
}

func TestAttach(t *testing.T) {
	needLimits(t)
	g := makeGroup(t, memory(64<<20))
	p := start(t, Open(Paths{}), "sleep")
	p.line(t)
	begin := time.Now()
	if err := g.Attach(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
	t.Logf("attached in %v", time.Since(begin))
	pids, err := g.Procs()
	if err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
		t.Errorf("%v, %v", pids, err)
	}
	text, err := procDir(p.Process.Pid).read("cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text, "/"+prefix+g.name()); n != len(g.all()) {
		t.Errorf("is in %d of %d groups:\n%s", n, len(g.all()), text)
	}
	if err := g.Attach(1 << 22); errs.KindOf(err) == errs.Unknown && !strings.Contains(err.Error(), "no such process") {
		t.Errorf("no such process: %v", err)
	}
}

func TestLeftOverGroupIsMadeAnew(t *testing.T) {
	needLimits(t)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Name: testName(t), Resources: memory(64 << 20), Rootless: os.Getuid() != 0}
	old, err := h.Create(r)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Delete() //nolint:errcheck // only if the test fails early
	r.Resources = memory(32 << 20)
	g, err := h.Create(r)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, g, "sleep")
	p.line(t)
	if s, err := g.Stats(); err != nil || s.Memory.Limit != 32<<20 {
		t.Errorf("%+v, %v", s.Memory, err)
	}
	// One with processes is another container's, or a bug: hands off.
	if _, err := h.Create(r); errs.KindOf(err) != errs.Conflict {
		t.Errorf("in use: %v", err)
	}
	if !procDir(p.Process.Pid).exists("") {
		t.Error("the process is gone")
	}
	_ = g.Kill()
	_ = p.Wait()
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
}

func TestUpdate(t *testing.T) {
	needLimits(t)
	g := makeGroup(t, memory(64<<20))
	p := start(t, g, "hog 10")
	p.line(t)
	limit := func() int64 {
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.Memory.Limit
	}
	// Up and down: v1 wants memory and memory+swap in another order each time.
	for _, n := range []int64{128 << 20, 32 << 20, 256 << 20, 48 << 20} {
		if err := g.Update(memory(n)); err != nil {
			t.Fatal(err)
		}
		if got := limit(); got != n {
			t.Errorf("limit %d, want %d", got, n)
		}
	}
	if err := g.Update(memory(-1)); err != nil {
		t.Fatal(err)
	}
	if got := limit(); got == 48<<20 {
		t.Error("the limit was not taken off")
	}
	// Controllers that were not asked for at the start.
	err := g.Update(&specs.LinuxResources{
		CPU:  &specs.LinuxCPU{Quota: new(int64(50000)), Period: new(uint64(100000)), Shares: new(uint64(512))},
		Pids: &specs.LinuxPids{Limit: new(int64(77))},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := g.Stats(); err != nil || s.Pids.Limit != 77 {
		t.Errorf("%+v, %v", s.Pids, err)
	}
	if pids, err := Open(g.Paths()).Procs(); err != nil || len(pids) != 1 {
		t.Errorf("%v, %v", pids, err)
	}
	for _, d := range g.all() {
		if pids, err := procs(d); err != nil || !slices.Contains(pids, p.Process.Pid) {
			t.Errorf("%s: %v, %v", d, pids, err)
		}
	}
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20)), Swap: new(int64(32 << 20))}}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("less with swap than without: %v", err)
	}
}

func TestUnified(t *testing.T) {
	needV2Limits(t)
	g := makeGroup(t, &specs.LinuxResources{Unified: map[string]string{"memory.high": "50331648", "pids.max": "33"}})
	if got, err := dir(g.paths.V2).readInt("memory.high"); err != nil || got != 48<<20 {
		t.Errorf("memory.high: %d, %v", got, err)
	}
	if got, err := dir(g.paths.V2).readInt("pids.max"); err != nil || got != 33 {
		t.Errorf("pids.max: %d, %v", got, err)
	}
}

func TestV2Conversion(t *testing.T) {
	needV2Limits(t)
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20)), Swap: new(int64(96 << 20)), Reservation: new(int64(16 << 20))},
		CPU:    &specs.LinuxCPU{Shares: new(uint64(1024)), Quota: new(int64(50000))},
	}
	g := makeGroup(t, r)
	for file, want := range map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "16777216", "cpu.weight": "100", "cpu.max": "50000 100000",
	} {
		got, err := dir(g.paths.V2).read(file)
		if got != want && !(file == "memory.swap.max" && slices.Contains(g.Warnings(), warnNoSwap)) {
			t.Errorf("%s: %q, want %q (%v)", file, got, want, err)
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{2: 1, 1024: 100, 262144: 10000, 1: 1, 1 << 20: 10000, 512: 59, 2048: 174} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
	for n := uint64(2); n < 262144; n++ {
		if weight(n) > weight(n+1) {
			t.Fatalf("weight falls at %d", n)
		}
	}
}

func TestKernelIsAskedOnce(t *testing.T) {
	// An order of magnitude for the start of a container, not a benchmark: the best
	// of many, since the machine may be busy.
	best := time.Hour
	for range 50 {
		begin := time.Now()
		if _, err := Detect(); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begin))
	}
	if best > 2*time.Millisecond {
		t.Errorf("Detect takes %v", best)
	}
}

func TestOutsideAnyHierarchy(t *testing.T) {
	h := &Host{own: []membership{{"", "/../elsewhere"}, {"memory", "/../x"}}, v2mount: usual, mode: "v2"}
	if _, err := h.ownIn(""); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("%v", err)
	}
	none := &Host{}
	g, err := none.Create(Request{Name: "x"})
	if err != nil || !g.Empty() {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := none.Create(Request{Name: "x", Resources: memory(64 << 20)}); errs.KindOf(err) != errs.Unsupported ||
		err.Error() != "memory limit 64 MiB: this machine has no memory controller" {
		t.Errorf("%v", err)
	}
}
