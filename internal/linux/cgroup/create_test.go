package cgroup

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

// parentGroup makes a group with limits to be the parent of others, and returns
// it as --cgroup-parent names it: from the root of every hierarchy.
func parentGroup(t *testing.T, r *specs.LinuxResources) (*Group, func(controller string) string) {
	t.Helper()
	g := makeGroup(t, r)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	return g, func(controller string) string {
		d := g.paths.V1[controller]
		if !h.isV1(controller) {
			d, controller = g.paths.V2, ""
		}
		own, err := h.ownIn(controller)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(d, string(own.mount))
	}
}

func TestLimitsAboveTheParents(t *testing.T) {
	needLimits(t)
	_, path := parentGroup(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20))},
		Pids:   &specs.LinuxPids{Limit: new(int64(30))},
		CPU:    &specs.LinuxCPU{Quota: new(int64(50000)), Period: new(uint64(100000)), Cpus: "0"},
	})
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		controller, want string
		r                specs.LinuxResources
	}{
		{"memory", "memory limit 128 MiB: is above the 64 MiB of cgroup /", *memory(128 << 20)},
		{"pids", "pids limit 31: is above the 30 of cgroup /", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(31))}}},
		{"cpu", "cpu limit 0.75: is above the 0.5 of cgroup /", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(75000))}}},
		{"cpuset", "cpuset cpus 0-1: not available, cgroup /", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1"}}},
		{"cpuset", "cpuset cpus 77: not available, cgroup /", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "77"}}},
		{"cpuset", "cpuset mems 9: not available, cgroup /", specs.LinuxResources{CPU: &specs.LinuxCPU{Mems: "9"}}},
		{"cpuset", "cpuset cpus none: want a list", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "none"}}},
	} {
		g, err := h.Create(Request{Name: testName(t), Parent: path(c.controller), Resources: &c.r, Rootless: os.Getuid() != 0})
		if err == nil {
			t.Errorf("%s: allowed", c.want)
			_ = g.Delete()
			continue
		}
		if !strings.HasPrefix(err.Error(), c.want) || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: got %v (%v)", c.want, err, errs.KindOf(err))
		}
	}
	// As much as the parent has is fine.
	g, err := h.Create(Request{Name: testName(t), Parent: path("memory"), Resources: memory(64 << 20), Rootless: os.Getuid() != 0})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
}

// TestNamedParent: --cgroup-parent is made on demand and goes with the last
// container that lives there; one that was there before stays.
func TestNamedParent(t *testing.T) {
	needLimits(t)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	parent := "parent-" + testName(t) + "/inner"
	var groups []*Group
	for range 2 {
		g, err := h.Create(Request{Name: testName(t), Parent: parent, Resources: memory(64 << 20), Rootless: os.Getuid() != 0})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range g.all() {
			if !strings.HasSuffix(string(d.up()), "/"+parent) {
				t.Errorf("made at %s", d)
			}
		}
		groups = append(groups, g)
	}
	big := start(t, groups[0], "hog 200")
	if err := big.Wait(); err == nil {
		t.Error("the limit does not hold below a named parent")
	}
	for i, g := range groups {
		d := g.all()[0].up()
		if err := g.Delete(); err != nil {
			t.Fatal(err)
		}
		if there := d.exists(""); there != (i == 0) {
			t.Errorf("after %d of 2 containers: parent is there: %v", i+1, there)
		}
	}
	out, err := exec.Command("find", usual, "-path", "*/"+strings.TrimSuffix(parent, "/inner")).Output()
	if err != nil || len(out) != 0 {
		t.Errorf("left: %s (%v)", out, err)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	needLimits(t)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	r := memory(64 << 20)
	r.Pids = &specs.LinuxPids{Limit: new(int64(10))}
	r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "3MB", Limit: 1}}
	name := testName(t)
	if _, err := h.Create(Request{Name: name, Resources: r, Rootless: os.Getuid() != 0}); err == nil {
		t.Fatal("huge pages of 3 MB exist")
	} else if errs.KindOf(err) != errs.Unsupported && errs.KindOf(err) != errs.Denied || !strings.HasPrefix(err.Error(), "huge page limit") {
		t.Errorf("%v", err)
	}
	out, err := exec.Command("find", usual, "-name", prefix+name).Output()
	if err != nil || len(out) != 0 {
		t.Errorf("left: %s (%v)", out, err)
	}
}

func TestBadRequests(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Request{
		{Name: ""},
		{Name: "."},
		{Name: ".."},
		{Name: "a/b"},
		{Name: "a\x00"},
		{Name: "a", Parent: "../x"},
		{Name: "a", Parent: "/x/../../y"},
		{Name: "a", Parent: "/x", Systemd: true},
		{Name: "a", Parent: "x/y.slice", Systemd: true},
		{Name: "a", Resources: &specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}},
		{Name: "a", Resources: &specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}},
		{Name: "a", Resources: &specs.LinuxResources{Unified: map[string]string{"memory": "1"}}},
	} {
		g, err := h.Create(r)
		if errs.KindOf(err) != errs.Invalid {
			t.Errorf("%+v: %v", r, err)
		}
		if err == nil {
			_ = g.Delete()
		}
	}
}

// TestOrdinaryUser: without limits a container runs anywhere; with limits it
// either really has them or the error says what to do.
func TestOrdinaryUser(t *testing.T) {
	if !testenv.AsUser(t) {
		return
	}
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create(Request{Name: testName(t), Rootless: true})
	if err != nil {
		t.Fatal(err)
	}
	start(t, g, "sleep").line(t)
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if g.Empty() {
		t.Log("without limits: no group")
	} else if err := g.Delete(); err != nil {
		t.Error(err)
	}

	g, err = h.Create(Request{Name: testName(t), Resources: memory(64 << 20), Rootless: true})
	if err != nil {
		if hints := errs.Hints(err); len(hints) == 0 || !strings.HasPrefix(err.Error(), "memory limit 64 MiB: ") {
			t.Errorf("not helpful: %v %q", err, hints)
		} else {
			t.Logf("%v\n%s", err, strings.Join(hints, "\n"))
		}
		return
	}
	t.Logf("%+v", g.Paths())
	if err := start(t, g, "hog 200").Wait(); err == nil {
		t.Error("the limit does not hold")
	}
	if o, err := g.OOM(); err != nil || o.Kills == 0 {
		t.Errorf("%+v, %v", o, err)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
}

// TestManyAtOnce makes groups from several processes that may all have to make
// room in, or get a unit for, the same place.
func TestManyAtOnce(t *testing.T) {
	needLimits(t)
	const n = 8
	type maker struct {
		*exec.Cmd
		in  interface{ Close() error }
		out *strings.Builder
	}
	var all []maker
	for range n {
		arg, err := json.Marshal(Request{Name: testName(t), Resources: memory(64 << 20), Rootless: os.Getuid() != 0})
		if err != nil {
			t.Fatal(err)
		}
		m := maker{Cmd: exec.Command("/proc/self/exe"), out: &strings.Builder{}}
		m.Env = append(os.Environ(), workVar+"=create "+string(arg))
		m.Stdout, m.Stderr = m.out, os.Stderr
		m.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if m.in, err = m.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	for i, m := range all {
		if err := m.in.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Wait(); err != nil || strings.Contains(m.out.String(), "error") || !strings.Contains(m.out.String(), "Manager") {
			t.Errorf("%d: %v: %s", i, err, m.out)
		}
	}
}

// TestSystemdScope: the process that asks is moved, so another one asks.
func TestSystemdScope(t *testing.T) {
	testenv.Need(t, testenv.CgroupV2)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Name: testName(t), Systemd: true, Rootless: os.Getuid() != 0}
	arg, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workVar+"=create "+string(arg))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(out))
	switch {
	case h.mode != "v2": // without meaning there
		if !strings.Contains(text, `"Manager":"cgroupfs"`) {
			t.Error(text)
		}
	case !booted():
		if !strings.HasPrefix(text, "error: cgroup of a systemd unit: ") {
			t.Error(text)
		}
	default:
		var p Paths
		unit := prefix + r.Name + ".scope"
		if err := json.Unmarshal([]byte(text), &p); err != nil || p.Unit != unit || p.Manager != Systemd ||
			!strings.HasSuffix(p.V2, "/isle.slice/"+unit+"/"+prefix+r.Name) {
			t.Errorf("%v: %s", err, text)
		}
		if dir(p.V2).exists("") {
			t.Error("the group is left")
		}
	}
}

func BenchmarkDetect(b *testing.B) {
	for b.Loop() {
		if _, err := Detect(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate is the cost at a container's start and end together.
func BenchmarkCreate(b *testing.B) {
	h, err := Detect()
	if err != nil {
		b.Fatal(err)
	}
	for name, r := range map[string]*specs.LinuxResources{"none": nil, "memory": memory(64 << 20)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				g, err := h.Create(Request{Name: "bench", Resources: r, Rootless: os.Getuid() != 0})
				if err != nil {
					b.Fatal(err)
				}
				if err := g.Delete(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
