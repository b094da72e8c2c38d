package runtime

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/testenv"
)

func TestMemoryPolicy(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		t.Skip("a kernel without NUMA")
	}
	root := rootfs(t)
	for _, c := range []struct {
		policy    *specs.LinuxMemoryPolicy
		want, err string
	}{
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0"}, "interleave:0", ""},
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}, "bind=static:0", ""},
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolDefault}, "default", ""},
		{&specs.LinuxMemoryPolicy{}, "", "invalid memory policy mode"},
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolDefault, Nodes: "0-7"}, "", "memory policy mode requires 0 nodes but got 8"},
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolBind}, "", "at least one node"},
		{&specs.LinuxMemoryPolicy{Mode: "INTERLEAVE", Nodes: "0"}, "", "invalid memory policy mode"},
		{&specs.LinuxMemoryPolicy{Nodes: "0-7"}, "", "invalid memory policy mode"},
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-9876543210"}, "", "invalid memory policy node"},
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"bad"}}, "", "invalid memory policy flag"},
		{&specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes, specs.MpolFRelativeNodes}}, "", "set_mempolicy: invalid argument"},
	} {
		s := docker(root, "sh", "-c", `head -n 1 /proc/self/numa_maps | sed 's/^[^ ]* \([^ ]*\).*/\1/'`)
		s.Linux.MemoryPolicy = c.policy
		r, err := tryRun(t, s, Options{})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v", c.policy, err)
			}
			continue
		}
		if got := strings.TrimSpace(r.out); err != nil || got != c.want {
			t.Errorf("%+v: %q %v, want %q", c.policy, got, err, c.want)
		}
	}
}

func TestNetworkDevices(t *testing.T) {
	testenv.Need(t, testenv.Root)
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("no ip(8)")
	}
	// The host's side of it is a namespace too, so that the machine's own
	// devices are left alone.
	if !testenv.Unshare(t, syscall.CLONE_NEWNET) {
		return
	}
	do := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(ip, args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", strings.Join(args, " "), err, out)
		}
	}
	do("link", "add", "isletest0", "type", "veth", "peer", "name", "isletest1") // not every kernel has dummy devices
	do("link", "set", "isletest0", "mtu", "1789", "address", "02:11:22:33:44:55", "up")
	do("address", "add", "192.0.2.13/24", "dev", "isletest0")
	do("address", "add", "127.0.0.33/8", "dev", "isletest0")
	do("address", "add", "2001:db8::7/64", "dev", "isletest0")
	root := rootfs(t)
	s := docker(root, "sh", "-c", "ip link show inside; ip address show inside")
	s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"isletest0": {Name: "inside"}}
	r := run(t, s, Options{})
	for _, want := range []string{"mtu 1789", "02:11:22:33:44:55", "192.0.2.13/24", "2001:db8::7/64", ",UP"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	if strings.Contains(r.out, "127.0.0.33") {
		t.Errorf("an address of the link was moved:\n%s", r.out)
	}
	for want, d := range map[string]map[string]specs.LinuxNetDevice{
		`network device "nope": not found`: {"nope": {}},
		"invalid network device name":      {"nope": {Name: "longer-than-15-bytes"}},
	} {
		s.Linux.NetDevices = d
		if _, err := tryRun(t, s, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestSchedulerIsChecked(t *testing.T) {
	for want, change := range map[string]func(*specs.Process){
		"scheduler policy is required":        func(p *specs.Process) { p.Scheduler = &specs.Scheduler{} },
		"invalid scheduler.nice: 20":          func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 20} },
		"only be specified for SchedFIFO":     func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Priority: 1} },
		"only be specified for SchedDeadline": func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Runtime: 1} },
		"invalid ioPriority.Priority: 8": func(p *specs.Process) {
			p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		},
		`invalid ioPriority.Class: "IOPRIO_X"`: func(p *specs.Process) { p.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_X"} },
	} {
		s := docker("/", "true")
		change(s.Process)
		if _, err := Compile(s, Options{unshielded: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
