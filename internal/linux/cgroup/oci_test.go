package cgroup

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

// ociGroup makes a group as an OCI runtime does; the test removes it.
func ociGroup(t *testing.T, o OCI) *Group {
	t.Helper()
	testenv.Need(t, testenv.Root)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.CreateOCI(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
		for _, d := range g.all() {
			if d.exists("") {
				t.Errorf("%s is left", d)
			}
		}
	})
	return g
}

// file reads a file of the group, with the name that it has on the version of
// cgroups that the controller is on.
func file(t *testing.T, g *Group, controller, v1, v2 string) string {
	t.Helper()
	d, name := dir(g.paths.V1[controller]), v1
	if d == "" {
		d, name = dir(g.paths.V2), v2
	}
	text, err := d.read(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOCIEveryHierarchyIsJoined(t *testing.T) {
	testenv.Need(t, testenv.Root)
	name := testName(t)
	var g *Group
	t.Cleanup(func() { // after the group's own
		for _, d := range g.all() {
			if err := unix.Rmdir(string(d.up())); err != nil {
				t.Errorf("%s: %v", d.up(), err)
			}
		}
	})
	g = ociGroup(t, OCI{Path: "/isle-oci-" + name + "/" + name, ID: name})
	p := start(t, g, "sleep")
	p.line(t)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(strings.TrimSpace(line), ":/isle-oci-"+name+"/"+name) {
			t.Errorf("%q", line)
		}
	}
	if names, dirs := g.Hierarchies(); len(names) != len(g.v1dirs()) || len(dirs) != len(names) {
		t.Errorf("hierarchies: %v %v", names, dirs)
	}
}

func TestOCIPathThatIsRelative(t *testing.T) {
	name := testName(t)
	g := ociGroup(t, OCI{Path: "../../" + name, ID: "x"})
	for _, d := range g.all() {
		if d.base() != name {
			t.Errorf("%s", d)
		}
	}
}

func TestOCIGroupInUse(t *testing.T) {
	name := testName(t)
	g := ociGroup(t, OCI{Path: "/" + name, ID: name})
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if !g.Frozen() {
		t.Error("is not frozen")
	}
	if _, err := h.CreateOCI(OCI{Path: "/" + name, ID: "other"}); err == nil || !strings.Contains(err.Error(), "container's cgroup unexpectedly frozen") {
		t.Errorf("frozen: %v", err)
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	start(t, g, "sleep").line(t)
	if _, err := h.CreateOCI(OCI{Path: "/" + name, ID: "other"}); err == nil || !strings.Contains(err.Error(), "container's cgroup is not empty") {
		t.Errorf("in use: %v", err)
	}
	for _, d := range g.all() {
		if !d.exists("cgroup.procs") {
			t.Errorf("%s was taken away by a create that failed", d)
		}
	}
}

func TestOCIFrozenGroupIsKilled(t *testing.T) {
	name := testName(t)
	g := ociGroup(t, OCI{Path: "/" + name, ID: name})
	p := start(t, g, "sleep")
	p.line(t)
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil {
		t.Error("ended well")
	}
}

func TestOCILimits(t *testing.T) {
	name := testName(t)
	mem, res, pids, quota := int64(64<<20), int64(32<<20), int64(20), int64(500000)
	shares, period := uint64(100), uint64(1000000)
	g := ociGroup(t, OCI{Path: "/" + name, ID: name, Resources: &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &mem, Reservation: &res},
		CPU:    &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period, Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}})
	check := func(controller, v1, v2, want1, want2 string) {
		t.Helper()
		want := want1
		if g.paths.V1[controller] == "" {
			want = want2
		}
		if got := file(t, g, controller, v1, v2); got != want {
			t.Errorf("%s: %q, want %q", v1, got, want)
		}
	}
	check("memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864")
	check("memory", "memory.soft_limit_in_bytes", "memory.low", "33554432", "33554432")
	check("pids", "pids.max", "pids.max", "20", "20")
	check("cpu", "cpu.cfs_quota_us", "cpu.max", "500000", "500000 1000000")
	check("cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0")

	update := func(r specs.LinuxResources) {
		t.Helper()
		if err := g.UpdateOCI(&r); err != nil {
			t.Fatal(err)
		}
	}
	update(specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(-1)), Period: new(uint64(100000))}, Pids: &specs.LinuxPids{Limit: new(int64(-1))}})
	check("cpu", "cpu.cfs_quota_us", "cpu.max", "-1", "max 100000")
	check("pids", "pids.max", "pids.max", "max", "max")
	update(specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(0))}})
	check("pids", "pids.max", "pids.max", "1", "1")
	update(specs.LinuxResources{CPU: &specs.LinuxCPU{Period: new(uint64(900000)), Quota: new(int64(600000)), Burst: new(uint64(500000))}})
	check("cpu", "cpu.cfs_burst_us", "cpu.max.burst", "500000", "500000")
	update(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(128 << 20))}})
	check("cpu", "cpu.cfs_burst_us", "cpu.max.burst", "500000", "500000")
	update(specs.LinuxResources{CPU: &specs.LinuxCPU{Burst: new(uint64(0))}})
	check("cpu", "cpu.cfs_burst_us", "cpu.max.burst", "0", "0")
	if err := g.UpdateOCI(&specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(3))}}); err == nil {
		t.Error("an idle of 3 was accepted")
	}

	var out struct {
		Memory struct{ Usage struct{ Limit uint64 } }
		Pids   struct{ Limit uint64 }
	}
	b, err := json.Marshal(g.Figures())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if out.Memory.Usage.Limit != 128<<20 || out.Pids.Limit != 1 || !strings.Contains(string(b), `"network_interfaces":null`) {
		t.Errorf("figures: %s", b)
	}
}

func TestOCIFailureLeavesNothing(t *testing.T) {
	testenv.Need(t, testenv.Root)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	name := testName(t)
	_, err = h.CreateOCI(OCI{Path: "/" + name + "/a", ID: name, Resources: &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: new(uint64(100))}}})
	if err == nil || errs.KindOf(err) != errs.Invalid {
		t.Errorf("a period of 100 µs: %v", err)
	}
	for _, m := range h.own {
		if l, err := h.ownIn(m.controllers); err == nil && l.mount.exists(name) {
			t.Errorf("%s is left", l.mount.join(name))
		}
	}
	if h.mode != "v2" {
		if _, err := h.CreateOCI(OCI{ID: name, Resources: &specs.LinuxResources{Unified: map[string]string{"memory.min": "1"}}}); err == nil || !strings.Contains(err.Error(), "invalid configuration") {
			t.Errorf("unified on v1: %v", err)
		}
	}
}

func TestOCIDevices(t *testing.T) {
	name := testName(t)
	g := ociGroup(t, OCI{Path: "/" + name, ID: name, Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Type: "c", Major: new(int64(1)), Minor: new(int64(11)), Access: "rwa"},
	}}})
	p := start(t, g, "open /dev/null,/dev/urandom,/dev/kmsg,/dev/mem")
	for _, want := range []string{"/dev/null true", "/dev/urandom true", "/dev/kmsg false", "/dev/mem false", "mknod true"} {
		if got := p.line(t); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if len(g.Warnings()) != 1 {
		t.Errorf("warnings: %v", g.Warnings())
	}
}

func TestDevicesAsExceptions(t *testing.T) {
	deny := deviceRule{false, 'a', -1, -1, allAccess}
	all := deviceRule{true, 'a', -1, -1, allAccess}
	c := func(allow bool, major, minor int64, access uint32) deviceRule {
		return deviceRule{allow, 'c', major, minor, access}
	}
	for _, x := range []struct {
		name  string
		rules []deviceRule
		base  bool
		want  []string
		err   string
	}{
		{"nothing", nil, true, nil, ""},
		{"two", []deviceRule{deny, c(true, 1, 3, allAccess), c(true, 1, 3, unix.BPF_DEVCG_ACC_READ)}, false, []string{"c 1:3 rwm"}, ""},
		{"a wider one takes narrower ones away", []deviceRule{deny, c(true, 1, 3, allAccess), c(true, 4, 1, allAccess), c(false, 1, -1, allAccess)}, false, []string{"c 4:1 rwm"}, ""},
		{"a part of the access", []deviceRule{deny, c(true, 1, 3, allAccess), c(false, 1, 3, unix.BPF_DEVCG_ACC_WRITE)}, false, []string{"c 1:3 rm"}, ""},
		{"exceptions from everything", []deviceRule{all, c(false, 1, 1, allAccess)}, true, []string{"c 1:1 rwm"}, ""},
		{"both kinds", []deviceRule{deny, {true, 'a', 8, -1, allAccess}}, false, []string{"b 8:* rwm", "c 8:* rwm"}, ""},
		{"a part of a wider one", []deviceRule{deny, c(true, 1, -1, allAccess), c(false, 1, 1, allAccess)}, false, nil, "cannot take a part"},
	} {
		base, list, err := devicesV1(x.rules)
		if err != nil || x.err != "" {
			if err == nil || x.err == "" || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%s: %v", x.name, err)
			}
			continue
		}
		var got []string
		for _, r := range list {
			got = append(got, r.lines()...)
		}
		if base != x.base || !slices.Equal(got, x.want) {
			t.Errorf("%s: %v %q", x.name, base, got)
		}
	}
}

func TestUnitNames(t *testing.T) {
	for _, x := range []struct{ path, slice, name string }{
		{"", "system.slice", "isle-c1.scope"},
		{"machine.slice:runc:abc", "machine.slice", "runc-abc.scope"},
		{":crio:abc", "system.slice", "crio-abc.scope"},
		{"a-b.slice::abc", "a-b.slice", "abc.scope"},
		{"a.slice:p:pod.slice", "a.slice", "pod.slice"},
		{"machine.slice:abc", "", ""},
		{"machine:runc:abc", "", ""},
		{"a.slice:../x:abc", "", ""},
	} {
		u, err := parseUnit(OCI{Path: x.path, ID: "c1"})
		if x.name == "" {
			if err == nil {
				t.Errorf("%q: %v", x.path, u)
			}
			continue
		}
		if err != nil || u.slice != x.slice || u.name != x.name {
			t.Errorf("%q: %v %v", x.path, u, err)
		}
	}
}

func TestUnitProperties(t *testing.T) {
	for _, x := range []struct{ name, value, signature, wire, err string }{
		{"TimeoutStopUSec", "uint64 123456789", "t", "\x15\xcd\x5b\x07\x00\x00\x00\x00", ""},
		{"TimeoutStopSec", "10", "t", "\x80\x96\x98\x00\x00\x00\x00\x00", ""},
		{"CollectMode", "'inactive-or-failed'", "s", "\x12\x00\x00\x00inactive-or-failed\x00", ""},
		{"After", "['a.service','b.target']", "as", "", ""},
		{"MemoryHigh", "true", "b", "\x01\x00\x00\x00", ""},
		{"X", "1", "", "", "too short"},
		{"Na-me", "1", "", "", "non-alphabetic"},
		{"TimeoutStopSec", "'x'", "", "", "not a number"},
		{"Name", "uint64 x", "", "", "parse error"},
	} {
		props, err := customProperties(map[string]string{x.name: x.value})
		if x.err != "" {
			if err == nil || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%s=%s: %v", x.name, x.value, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s=%s: %v", x.name, x.value, err)
			continue
		}
		var m marshal
		props[0].value(&m)
		if props[0].signature != x.signature || x.wire != "" && string(m.b) != x.wire {
			t.Errorf("%s=%s: %q %q", x.name, x.value, props[0].signature, m.b)
		}
	}
}

// A unit of its own is made when there is a process, by the systemd of the
// system or of the user; where there is none, the caller is told before.
func TestOCISystemdUnit(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	name := testName(t)
	limit, pids, quota, period := int64(64<<20), int64(20), int64(501000), uint64(1000000)
	g, err := h.CreateOCI(OCI{
		Path: "isletest.slice:pre:" + name, ID: name, Systemd: true, Rootless: os.Getuid() != 0,
		Properties: map[string]string{"TimeoutStopSec": "7"},
		Resources: &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids}, CPU: &specs.LinuxCPU{Quota: &quota, Period: &period},
		},
	})
	if !booted() {
		if err == nil || err.Error() != "systemd not running on this host, cannot use systemd cgroups manager" {
			t.Errorf("%v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(os.Getuid() != 0); err != nil {
		return // no systemd of this user's; other tests say what is said then
	}
	p := start(t, g, "sleep")
	p.line(t)
	if err := g.Attach(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
	unit := "pre-" + name + ".scope"
	if g.Paths().Unit != unit || !strings.HasSuffix(g.Paths().V2, "/isletest.slice/"+unit) {
		t.Fatalf("%+v", g.Paths())
	}
	show := func() string {
		args := []string{"show", unit, "-p", "TasksMax,CPUQuotaPerSecUSec,TimeoutStopUSec,Delegate"}
		if os.Getuid() != 0 {
			args = append([]string{"--user"}, args...)
		}
		out, err := exec.Command("systemctl", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, want := range []string{"TasksMax=20\n", "TimeoutStopUSec=7s\n", "Delegate=yes\n"} {
		if !strings.Contains(show(), want) {
			t.Errorf("no %q in\n%s", want, show())
		}
	}
	if got := file(t, g, "memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory limit %s", got)
	}
	if err := g.UpdateOCI(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(10))}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(show(), "TasksMax=10\n") || file(t, g, "pids", "pids.max", "pids.max") != "10" {
		t.Errorf("after the update: %s", show())
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	if err := g.Delete(); err != nil {
		t.Fatal(err)
	}
	if dir(g.Paths().V2).exists("") {
		t.Error("the group is left")
	}
}
