package plan

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/runtime"
)

// Facts are what a look at the start has found out; see monitor.Preview, which
// has the same fields.
type Facts struct {
	Spec        *specs.Spec
	Layers      []string
	Upper, Work string
	Userxattr   bool
	Root        []string
	Cgroup      cgroup.Paths
	Writes      []cgroup.Write
	Calls       []runtime.Call
	UIDs, GIDs  []specs.LinuxIDMapping
	Warnings    []string
	Filter      []byte
}

// Input is what a plan is made of.
type Input struct {
	Record  *container.Record
	Env     config.Env
	Facts   Facts
	Network *network.Network // that the container joins; nil: none of its own
}

// Plan is a container that does not exist yet.
type Plan struct {
	Image    string   `json:"image"`
	Command  []string `json:"command"`
	Rootless bool     `json:"rootless"`
	Calls    []Call   `json:"calls"`
	Warnings []string `json:"warnings,omitempty"`

	in Input
}

// Call is one call of the plan.
type Call struct {
	N     int    `json:"n"`
	Group string `json:"group"`
	By    string `json:"by"` // monitor: the process that stays; child: what becomes the container
	Step  string `json:"step,omitempty"`
	Text  string `json:"call"`
	Why   string `json:"why"`
	Man   string `json:"man"`
	// Fallback: it is made only where a call before it is refused.
	Fallback bool `json:"fallback,omitempty"`
}

// The groups, which are what a container is made of.
const (
	gNamespaces  = "namespaces"
	gUsers       = "users"
	gRoot        = "root file system"
	gMounts      = "mounts"
	gDevices     = "devices"
	gLimits      = "limits"
	gNetwork     = "network"
	gCredentials = "credentials"
	gFilter      = "filter"
	gExec        = "exec"
)

// New makes the plan.
func New(in Input) *Plan {
	sp := in.Facts.Spec
	p := &Plan{Image: in.Record.Image.Ref, Command: sp.Process.Args, Rootless: in.Env.Rootless, Warnings: in.Facts.Warnings, in: in}
	add := func(c Call) {
		c.N = len(p.Calls) + 1
		c.Text, c.Step = strings.ReplaceAll(c.Text, in.Record.ID, "<id>"), strings.ReplaceAll(c.Step, in.Record.ID, "<id>")
		p.Calls = append(p.Calls, c)
	}
	outer := func(group, step, text, why, man string) {
		add(Call{Group: group, By: "monitor", Step: step, Text: text, Why: why, Man: man})
	}
	if in.Env.Rootless {
		outer(gUsers, "your own user namespace", `setns(‹user namespace of uid `+strconv.Itoa(in.Env.UID)+`›, CLONE_NEWUSER)`,
			"an ordinary user may do the rest only as root of a user namespace; uid_map: "+mapText(in.Facts.UIDs), "user_namespaces(7)")
		outer(gUsers, "your own user namespace", "setns(‹mount namespace of uid "+strconv.Itoa(in.Env.UID)+"›, CLONE_NEWNS)",
			"mounts need a mount namespace that this user namespace owns", "mount_namespaces(7)")
	}
	for i, text := range in.Facts.Root {
		why := "an option of overlayfs"
		switch {
		case i == 0:
			why = "begin a mount of overlayfs, which shows layers as one tree"
		case strings.Contains(text, `"lowerdir+"`):
			why = "a layer of the image, read-only; the first one named is on top"
		case strings.Contains(text, `"upperdir"`):
			why = "where all that the container writes goes; `isle diff` reads it"
		case strings.Contains(text, `"workdir"`):
			why = "where overlayfs prepares a file before it appears"
		case strings.Contains(text, `"volatile"`):
			why = "--rm: what is written need not survive a power loss"
		case strings.Contains(text, `"userxattr"`):
			why = "a user namespace may not set trusted.* attributes; user.* marks deleted files"
		case strings.Contains(text, `"source"`):
			why = "the name that mount tables show"
		case strings.Contains(text, "CMD_CREATE"):
			why = "the kernel checks it all and makes the file system"
		case strings.HasPrefix(text, "fsmount"):
			why = "a mount of it that is attached nowhere yet: only its descriptor leads to it"
		}
		man := "fsconfig(2)"
		if i == 0 || strings.HasPrefix(text, "fsmount") {
			man = text[:strings.IndexByte(text, '(')] + "(2)"
		}
		outer(gRoot, "stack the layers", text, why, man)
	}
	p.limits(outer)
	network := p.network()
	for i := range in.Facts.Calls {
		c := &in.Facts.Calls[i]
		if c.Do.Verb == "" && c.Text == "" || !c.System {
			continue
		}
		text := explain(c)
		by := "monitor"
		if c.Child {
			by = "child"
		}
		add(Call{Group: text.group, By: by, Step: c.Step(), Text: c.Text, Why: text.why, Man: text.man, Fallback: !c.Straight || unknownCap(c)})
		if c.Do.Verb == "clone" {
			p.meanwhile(outer)
			for _, n := range network {
				add(n)
			}
		}
	}
	return p
}

// unknownCap reports whether c drops a capability that only newer kernels have.
func unknownCap(c *runtime.Call) bool {
	return c.Name == "prctl" && strings.HasPrefix(c.Text, "prctl(PR_CAPBSET_DROP, ") && !strings.Contains(c.Text, "_CAP_") && !strings.Contains(c.Text, " CAP_")
}

// limits are the cgroup's directories and files, which are there before the child.
func (p *Plan) limits(outer func(group, step, text, why, man string)) {
	f := &p.in.Facts
	seen := map[string]bool{}
	mkdir := func(dir, why string) {
		if dir != "" && !seen[dir] {
			seen[dir] = true
			outer(gLimits, "cgroup", "mkdir("+strconv.Quote(dir)+", 0755)", why, "cgroups(7)")
		}
	}
	if f.Cgroup.V2 != "" {
		mkdir(f.Cgroup.V2, "a group of processes that can be counted, limited, frozen and killed together")
	}
	for _, c := range sortedKeys(f.Cgroup.V1) {
		mkdir(f.Cgroup.V1[c], "cgroup v1 has a tree for each controller; this one is for "+c)
	}
	if r := p.in.Facts.Spec.Linux.Resources; f.Cgroup.V2 != "" && !p.in.Env.Rootless && r != nil && len(r.Devices) > 0 && !r.Devices[0].Allow {
		outer(gDevices, "device rules", "bpf(BPF_PROG_ATTACH, {"+strconv.Quote(f.Cgroup.V2)+", BPF_CGROUP_DEVICE, …})",
			"the kernel asks this program before it opens or makes a device node for the group", "bpf(2)")
	}
	for _, w := range f.Writes {
		name := w.File[strings.LastIndexByte(w.File, '/')+1:]
		outer(gLimits, "cgroup", "write("+strconv.Quote(w.File)+", "+strconv.Quote(w.Value)+")", limitWhy(name), "cgroups(7)")
	}
}

func limitWhy(file string) string {
	switch file {
	case "memory.max", "memory.limit_in_bytes":
		return "above it the kernel reclaims, then kills a process of the group"
	case "memory.swap.max", "memory.memsw.limit_in_bytes":
		return "how much may be swapped out"
	case "memory.low", "memory.soft_limit_in_bytes":
		return "memory that is left alone while others have some to spare"
	case "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us":
		return "microseconds of CPU time in each period; used up, the group waits"
	case "cpu.weight", "cpu.shares":
		return "its share when CPUs are short; no limit while they are idle"
	case "cpuset.cpus":
		return "the CPUs it may run on"
	case "cpuset.mems":
		return "the memory nodes it may use"
	case "pids.max":
		return "fork(2) fails with EAGAIN above it"
	}
	return "a limit of the group"
}

// meanwhile is what the parent does for the child while it mounts.
func (p *Plan) meanwhile(outer func(group, step, text, why, man string)) {
	sp, f := p.in.Facts.Spec, &p.in.Facts
	for _, m := range [...]struct {
		file string
		maps []specs.LinuxIDMapping
	}{{"uid_map", sp.Linux.UIDMappings}, {"gid_map", sp.Linux.GIDMappings}} {
		if len(m.maps) > 0 {
			outer(gUsers, "new namespace user", `write("/proc/PID/`+m.file+`", `+strconv.Quote(mapText(m.maps))+")", "which id inside is which outside; only now is the child's root somebody", "user_namespaces(7)")
		}
	}
	for _, c := range sortedKeys(f.Cgroup.V1) {
		outer(gLimits, "cgroup", "write("+strconv.Quote(f.Cgroup.V1[c]+"/cgroup.procs")+`, "PID")`, "the child joins; all it forks is in it from birth", "cgroups(7)")
	}
	if adj := sp.Process.OOMScoreAdj; adj != nil {
		outer(gLimits, "out of memory", `write("/proc/PID/oom_score_adj", "`+strconv.Itoa(*adj)+`")`, "how willingly the kernel kills it when memory runs out", "proc_pid_oom_score_adj(5)")
	}
}

// network are the requests to rtnetlink that connect the container. Addresses are
// leased at the start, so the plan names the range.
func (p *Plan) network() []Call {
	n := p.in.Network
	if n == nil {
		return nil
	}
	var calls []Call
	add := func(text, why, man string) {
		calls = append(calls, Call{Group: gNetwork, By: "monitor", Step: "connect to network " + n.Name, Text: text, Why: why, Man: man})
	}
	subnet, gateway := "", ""
	for _, s := range n.Subnets {
		if s.Subnet.Addr().Is4() {
			subnet, gateway = s.Subnet.String(), s.Gateway.String()
		}
	}
	host := "veth" + p.in.Record.ID[:9] + "a"
	if n.Driver == network.DriverBridge {
		add("sendmsg(netlink, RTM_NEWLINK {"+host+", kind=veth, master="+n.Device+", peer={eth0, netns=PID}})", "a virtual cable: one end in the host's bridge, one inside, called eth0", "veth(4)")
	} else {
		add("sendmsg(netlink, RTM_NEWLINK {eth0, kind="+n.Driver+", link="+n.Device+", netns=PID})", "a further face of the host's device "+n.Device+", given to the container", "ip-link(8)")
	}
	if subnet != "" {
		add("sendmsg(netlink in the container, RTM_NEWADDR {eth0, a free address of "+subnet+"})", "leased at the start, so that no two containers have it", "ip-address(8)")
	}
	add("sendmsg(netlink in the container, RTM_NEWLINK {eth0, IFF_UP})", "", "netdevice(7)")
	calls[len(calls)-1].Why = "switch it on"
	if gateway != "" && !n.Internal {
		add("sendmsg(netlink in the container, RTM_NEWROUTE {default via "+gateway+"})", "all that is not next door goes to the bridge, and from there to the world", "ip-route(8)")
	}
	if p.in.Env.Rootless {
		add("connect(‹network helper›)", "no right to the host's network: the bridge lies in a namespace of yours, and a process of yours carries its traffic out", "network_namespaces(7)")
	} else if !n.Internal {
		add("sendmsg(netfilter, NFT_MSG_NEWRULE {masquerade "+subnet+"})", "replies find their way: packets leave with the host's address", "nft(8)")
	}
	for _, pub := range p.in.Record.Config.Publish {
		if p.in.Env.Rootless {
			add("bind(‹socket›, "+strconv.Quote(pub)+"), listen(…)", "the published port: your process accepts, and connects to the container", "bind(2)")
		} else {
			add("sendmsg(netfilter, NFT_MSG_NEWSETELEM {dnat "+strconv.Quote(pub)+"})", "the published port: its packets get the container's address", "nft(8)")
		}
	}
	return calls
}

func mapText(maps []specs.LinuxIDMapping) string {
	var b []byte
	for i, m := range maps {
		if i > 0 {
			b = append(b, ", "...)
		}
		for k, v := range [...]uint32{m.ContainerID, m.HostID, m.Size} {
			if k > 0 {
				b = append(b, ' ')
			}
			b = strconv.AppendUint(b, uint64(v), 10)
		}
	}
	return string(b)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		i := len(keys)
		keys = append(keys, k)
		for ; i > 0 && keys[i-1] > k; i-- {
			keys[i] = keys[i-1]
		}
		keys[i] = k
	}
	return keys
}
