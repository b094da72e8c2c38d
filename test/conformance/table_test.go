package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// variation is one way in which a bundle differs from base.
type variation struct {
	name   string
	change func(*specs.Spec)
	fails  bool // compared by exit code only, and that there is a message
}

// variations are all that are run in the foreground.
func variations() []variation {
	var out []variation
	for _, list := range [][]variation{
		namespaceTable(), capabilityTable(), rlimitTable(), mountTable(), userTable(), processTable(), seccompTable(),
		sysctlTable(), pathTable(), deviceTable(), mistakes(),
	} {
		out = append(out, list...)
	}
	return out
}

// namespaceTable has every set of namespaces.
func namespaceTable() []variation {
	types := []string{"pid", "network", "ipc", "uts", "cgroup", "user"}
	var out []variation
	for set := range 1 << len(types) {
		chosen := []string{"mount"}
		for i, t := range types {
			if set&(1<<i) != 0 {
				chosen = append(chosen, t)
			}
		}
		out = append(out, variation{name: "ns/" + strings.Join(chosen, "+"), change: func(s *specs.Spec) {
			s.Linux.Namespaces = namespaces(chosen...)
			if !slices.Contains(chosen, "uts") {
				s.Hostname = ""
				s.Process.Args[2] = strings.Replace(probe, `$(hostname)`, "", 1)
			}
			if slices.Contains(chosen, "user") {
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				if !slices.Contains(chosen, "network") {
					s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/sys" })
				}
				if !slices.Contains(chosen, "ipc") {
					s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/mqueue" })
				}
				if !slices.Contains(chosen, "pid") {
					for i := range s.Mounts {
						if s.Mounts[i].Destination == "/proc" {
							s.Mounts[i] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind", "nosuid", "nodev", "noexec"}}
						}
					}
				}
			}
			if !slices.Contains(chosen, "pid") {
				// The host's other mounts below /proc are not ours to compare.
				s.Process.Args[2] = strings.Replace(s.Process.Args[2], `done </proc/self/mountinfo`, `done </proc/self/mountinfo | grep -v ' /proc/'`, 1)
			}
		}})
	}
	return out
}

// capabilityTable gives one capability in each way that it can be held.
func capabilityTable() []variation {
	var out []variation
	for _, name := range []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
		"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
		"AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	} {
		one := []string{"CAP_" + name}
		out = append(out, variation{name: "cap/" + name, change: func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one}
		}})
	}
	chown := []string{"CAP_CHOWN"}
	for _, c := range []struct {
		name string
		caps *specs.LinuxCapabilities
		uid  uint32
	}{
		{"none", &specs.LinuxCapabilities{}, 0},
		{"bounding-only", &specs.LinuxCapabilities{Bounding: chown}, 0},
		{"permitted-only", &specs.LinuxCapabilities{Bounding: chown, Permitted: chown}, 0},
		{"ambient", &specs.LinuxCapabilities{Bounding: chown, Effective: chown, Permitted: chown, Inheritable: chown, Ambient: chown}, 0},
		{"ambient-user", &specs.LinuxCapabilities{Bounding: chown, Effective: chown, Permitted: chown, Inheritable: chown, Ambient: chown}, 1000},
		{"user", &specs.LinuxCapabilities{Bounding: chown, Effective: chown, Permitted: chown}, 1000},
		{"unknown", &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_NONSENSE"}, Effective: chown, Permitted: chown}, 0},
	} {
		out = append(out, variation{name: "cap/" + c.name, change: func(s *specs.Spec) {
			s.Process.Capabilities, s.Process.User.UID = c.caps, c.uid
		}})
	}
	return out
}

func rlimitTable() []variation {
	var out []variation
	for _, l := range []struct {
		name       string
		soft, hard uint64
	}{
		{"AS", 1 << 30, 1 << 31},
		{"CORE", 0, 1 << 20},
		{"CPU", 50, 100},
		{"DATA", 1 << 30, 1 << 31},
		{"FSIZE", 1 << 20, 1 << 21},
		{"LOCKS", 10, 20},
		{"MEMLOCK", 4096, 8192},
		{"MSGQUEUE", 1000, 2000},
		{"NICE", 0, 0},
		{"NOFILE", 100, 200},
		{"NPROC", 500, 600},
		{"RSS", 1 << 30, 1 << 31},
		{"RTPRIO", 0, 0},
		{"RTTIME", 1000, 2000},
		{"SIGPENDING", 100, 200},
		{"STACK", 1 << 20, 8 << 20},
	} {
		out = append(out, variation{name: "rlimit/" + l.name, change: func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_" + l.name, Soft: l.soft, Hard: l.hard}}
		}})
	}
	return out
}

func mountTable() []variation {
	var out []variation
	add := func(name string, m specs.Mount) {
		out = append(out, variation{name: "mount/" + name, change: func(s *specs.Spec) {
			if m.Type == "bind" {
				m.Source = s.Root.Path + "/data"
			}
			s.Mounts = append(s.Mounts, m)
		}})
	}
	options := []string{
		"", "ro", "rw", "nosuid", "nodev", "noexec", "noatime", "relatime", "strictatime", "nodiratime", "nosuid,nodev", "ro,noexec", "suid", "dev", "exec", "diratime",
		"nosuid,nodev,noexec,ro", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable",
	}
	for _, o := range options {
		list := strings.FieldsFunc(o, func(r rune) bool { return r == ',' })
		name := strings.ReplaceAll(o, ",", "+")
		add("tmpfs/"+name, specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: list})
		add("bind/"+name, specs.Mount{Destination: "/mnt", Type: "bind", Options: append([]string{"bind"}, list...)})
		add("rbind/"+name, specs.Mount{Destination: "/mnt", Type: "bind", Options: append([]string{"rbind"}, list...)})
	}
	for _, o := range []string{"size=1m", "mode=700", "mode=1777", "nr_inodes=100", "uid=1000,gid=1000"} {
		add("tmpfs/"+o, specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: strings.Split(o, ",")})
	}
	for _, at := range []string{"/new", "/new/dir/below", "/tmp/../mnt", "/data"} {
		add("at"+strings.ReplaceAll(at, "/", "-"), specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs"})
	}
	return out
}

func userTable() []variation {
	var out []variation
	for _, u := range []specs.User{
		{UID: 1000},
		{UID: 1000, GID: 1000},
		{GID: 1000},
		{UID: 12345, GID: 54321},
		{UID: 1000, GID: 1000, AdditionalGids: []uint32{5, 7}},
		{AdditionalGids: []uint32{10, 20, 30}},
		{UID: 65534, GID: 65534},
		{Umask: new(uint32(0o77))},
		{UID: 1000, Umask: new(uint32(0))},
	} {
		name := fmt.Sprintf("user/%d:%d+%d", u.UID, u.GID, len(u.AdditionalGids))
		if u.Umask != nil {
			name += fmt.Sprintf("~%o", *u.Umask)
		}
		out = append(out, variation{name: name, change: func(s *specs.Spec) { s.Process.User = u }})
	}
	return out
}

func processTable() []variation {
	var out []variation
	add := func(name string, change func(*specs.Process)) {
		out = append(out, variation{name: "process/" + name, change: func(s *specs.Spec) { change(s.Process) }})
	}
	for _, code := range []string{"0", "1", "2", "42", "125", "126", "127", "128", "200", "255"} {
		add("exit-"+code, func(p *specs.Process) { p.Args = []string{"sh", "-c", "exit " + code} })
	}
	for _, sig := range []string{"TERM", "KILL", "HUP", "SEGV", "ABRT"} {
		add("dies-"+sig, func(p *specs.Process) { p.Args = []string{"sh", "-c", "sh -c 'kill -" + sig + " $$'; echo $?"} })
	}
	for _, dir := range []string{"/tmp", "/home/u", "/new/dir", "/proc", "/data/"} {
		add("cwd"+strings.ReplaceAll(dir, "/", "-"), func(p *specs.Process) { p.Cwd = dir })
	}
	for name, env := range map[string][]string{
		"none": nil, "home": {"PATH=/bin", "HOME=/tmp"}, "twice": {"PATH=/bin", "A=1", "A=2"}, "empty-value": {"PATH=/bin", "A="},
		"blank": {"PATH=/bin", "A=b c"}, "equals": {"PATH=/bin", "A=b=c"}, "path": {"PATH=/nowhere:/bin"},
	} {
		add("env-"+name, func(p *specs.Process) {
			p.Env = env
			if env == nil {
				p.Args[0] = "/bin/sh"
				p.Args[2] = "/bin/busybox env"
			}
		})
	}
	for _, n := range []int{0, 100, 500, 1000} {
		add(fmt.Sprintf("oom-%d", n), func(p *specs.Process) { p.OOMScoreAdj = new(n) })
	}
	add("new-privileges", func(p *specs.Process) { p.NoNewPrivileges = false })
	add("user-home", func(p *specs.Process) { p.User.UID, p.Env = 1000, []string{"PATH=/bin"} })
	return out
}

// seccompTable has filters; what they forbid is tried.
func seccompTable() []variation {
	var out []variation
	add := func(name string, nnp bool, change func(*specs.LinuxSeccomp), script string) {
		out = append(out, variation{name: "seccomp/" + name, change: func(s *specs.Spec) {
			s.Process.NoNewPrivileges = nnp
			s.Process.Args = []string{"sh", "-c", script + "; echo $?; grep Seccomp /proc/self/status"}
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
			change(s.Linux.Seccomp)
		}})
	}
	deny := func(action specs.LinuxSeccompAction, errno *uint, calls ...string) func(*specs.LinuxSeccomp) {
		return func(f *specs.LinuxSeccomp) {
			f.Syscalls = []specs.LinuxSyscall{{Names: calls, Action: action, ErrnoRet: errno}}
		}
	}
	mkdir := "mkdir /tmp/x 2>&1; rmdir /tmp/x 2>/dev/null"
	for _, nnp := range []bool{true, false} {
		suffix := map[bool]string{true: "", false: "-new-privileges"}[nnp]
		add("errno"+suffix, nnp, deny(specs.ActErrno, nil, "mkdir", "mkdirat"), mkdir)
		add("errno-2"+suffix, nnp, deny(specs.ActErrno, new(uint(2)), "mkdir", "mkdirat"), mkdir)
		add("errno-38"+suffix, nnp, deny(specs.ActErrno, new(uint(38)), "mkdir", "mkdirat"), mkdir)
		add("kill"+suffix, nnp, deny(specs.ActKill, nil, "mkdir", "mkdirat"), mkdir)
		add("kill-process"+suffix, nnp, deny(specs.ActKillProcess, nil, "mkdir", "mkdirat"), mkdir)
		add("trap"+suffix, nnp, deny(specs.ActTrap, nil, "mkdir", "mkdirat"), mkdir)
		add("log"+suffix, nnp, deny(specs.ActLog, nil, "mkdir", "mkdirat"), mkdir)
		add("unknown-call"+suffix, nnp, deny(specs.ActErrno, nil, "no_such_call", "mkdir"), mkdir)
	}
	add("argument", true, func(f *specs.LinuxSeccomp) {
		f.Syscalls = []specs.LinuxSyscall{{Names: []string{"chmod", "fchmodat"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 0o700, Op: specs.OpEqualTo}}}}
	}, "touch /tmp/x; chmod 700 /tmp/x 2>&1; chmod 755 /tmp/x; rm /tmp/x")
	return out
}

func sysctlTable() []variation {
	var out []variation
	for _, kv := range []string{
		"net.ipv4.ip_forward=1", "net.ipv4.ping_group_range=0 100", "kernel.msgmax=5000", "kernel.shmmni=500", "fs.mqueue.msg_max=20", "net/ipv4/ip_default_ttl=70",
	} {
		key, value, _ := strings.Cut(kv, "=")
		file := key
		if strings.Contains(key, ".") {
			file = strings.ReplaceAll(key, ".", "/")
		}
		out = append(out, variation{name: "sysctl/" + strings.ReplaceAll(key, "/", "-"), change: func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{key: value}
			s.Process.Args = []string{"cat", "/proc/sys/" + file}
		}})
	}
	return out
}

func pathTable() []variation {
	var out []variation
	add := func(name string, change func(*specs.Spec)) {
		out = append(out, variation{name: "path/" + name, change: func(s *specs.Spec) {
			s.Process.Args[2] = `for f in /proc/keys /proc/acpi /data /data/file /proc/sys /nonexistent; do echo "$f: $(ls $f 2>&1 | head -1) $(cat $f/file 2>&1 | head -1) $(touch $f/x 2>&1)"; done; rm -f /data/x; touch /x 2>&1; rm -f /x`
			change(s)
		}})
	}
	for _, p := range []string{"/proc/keys", "/proc/acpi", "/data", "/data/file", "/nonexistent", "/proc/sys"} {
		name := strings.ReplaceAll(p, "/", "-")
		add("masked"+name, func(s *specs.Spec) { s.Linux.MaskedPaths = []string{p} })
		add("readonly"+name, func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{p} })
	}
	add("readonly-root", func(s *specs.Spec) { s.Root.Readonly = true })
	for _, p := range []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"} {
		out = append(out, variation{name: "propagation/" + p, change: func(s *specs.Spec) { s.Linux.RootfsPropagation = p }})
	}
	return out
}

func deviceTable() []variation {
	var out []variation
	for _, d := range []specs.LinuxDevice{
		{Path: "/dev/a", Type: "c", Major: 1, Minor: 3},
		{Path: "/dev/b", Type: "b", Major: 7, Minor: 0, FileMode: new(specsMode(0o600))},
		{Path: "/dev/owned", Type: "c", Major: 1, Minor: 5, UID: new(uint32(1000)), GID: new(uint32(5))},
		{Path: "/dev/p", Type: "p", FileMode: new(specsMode(0o640))},
		{Path: "/dev/u", Type: "u", Major: 1, Minor: 7},
		{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: new(specsMode(0o600))},
	} {
		out = append(out, variation{name: "device/" + strings.TrimPrefix(d.Path, "/dev/"), change: func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{d} }})
	}
	for name, rule := range map[string]specs.LinuxDeviceCgroup{
		"allow-kmsg": {Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(11)), Access: "rw"},
		"deny-zero":  {Allow: false, Type: "c", Major: new(int64(1)), Minor: new(int64(5)), Access: "rwm"},
	} {
		out = append(out, variation{name: "device/" + name, change: func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, rule)
			s.Process.Args[2] = `head -c1 /dev/kmsg >/dev/null 2>&1; echo $?; head -c1 /dev/zero >/dev/null; echo $?; : >/dev/null; echo $?`
		}})
	}
	return out
}

// mistakes are bundles that no runtime shall run.
func mistakes() []variation {
	var out []variation
	add := func(name string, change func(*specs.Spec)) {
		out = append(out, variation{name: "mistake/" + name, change: change, fails: true})
	}
	add("no-args", func(s *specs.Spec) { s.Process.Args = nil })
	add("no-cwd", func(s *specs.Spec) { s.Process.Cwd = "" })
	add("relative-cwd", func(s *specs.Spec) { s.Process.Cwd = "tmp" })
	add("cwd-is-file", func(s *specs.Spec) { s.Process.Cwd = "/data/file" })
	add("no-process", func(s *specs.Spec) { s.Process = nil })
	add("no-root", func(s *specs.Spec) { s.Root = nil })
	add("root-missing", func(s *specs.Spec) { s.Root.Path = "/nonexistent" })
	add("no-such-command", func(s *specs.Spec) { s.Process.Args = []string{"/bin/none"} })
	add("not-in-path", func(s *specs.Spec) { s.Process.Args = []string{"none"} })
	add("not-executable", func(s *specs.Spec) { s.Process.Args = []string{"/data/file"} })
	add("directory", func(s *specs.Spec) { s.Process.Args = []string{"/bin"} })
	add("hostname-without-uts", func(s *specs.Spec) { s.Linux.Namespaces = namespaces("pid", "mount", "network", "ipc") })
	add("namespace-twice", func(s *specs.Spec) { s.Linux.Namespaces = namespaces("pid", "pid", "mount") })
	add("unknown-namespace", func(s *specs.Spec) { s.Linux.Namespaces = namespaces("pid", "mount", "nonsense") })
	add("namespace-path-missing", func(s *specs.Spec) {
		s.Linux.Namespaces = append(namespaces("pid", "mount", "uts", "ipc"), specs.LinuxNamespace{Type: "network", Path: "/nonexistent"})
	})
	add("user-namespace-without-maps", func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, namespaces("user")...) })
	add("maps-without-user-namespace", func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} })
	add("unknown-rlimit", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE"}} })
	add("sysctl-of-host", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "10"} })
	add("sysctl-net-of-host", func(s *specs.Spec) {
		s.Linux.Namespaces = namespaces("pid", "mount", "uts", "ipc")
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	})
	add("sysctl-hostname", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.hostname": "x"} })
	add("sysctl-value", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "nonsense"} })
	add("bind-source-missing", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "/nonexistent", Options: []string{"bind"}})
	})
	add("unknown-filesystem", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "nonsense", Source: "none"})
	})
	add("tmpfs-option", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: []string{"nonsense=1"}})
	})
	add("seccomp-action", func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NONSENSE"} })
	add("seccomp-architecture", func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_NONSENSE"}}
	})
	add("device-type", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} })
	add("propagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "nonsense" })
	add("env", func(s *specs.Spec) { s.Process.Env = []string{"PATH=/bin", "nonsense"} })
	add("apparmor", func(s *specs.Spec) { s.Process.ApparmorProfile = "no-such-profile" })
	add("selinux", func(s *specs.Spec) { s.Process.SelinuxLabel = "system_u:system_r:svirt_lxc_net_t:s0" })
	add("memory-limit", func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(int64(1024))} })
	add("cpuset", func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "9999"} })
	add("proc-is-file", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/self", Type: "tmpfs", Source: "tmpfs"})
	})
	return out
}

// limits are resources whose files are compared while the container runs.
func limits() []variation {
	var out []variation
	memory := func(name string, m specs.LinuxMemory) {
		out = append(out, variation{name: "memory-" + name, change: func(s *specs.Spec) { s.Linux.Resources.Memory = &m }})
	}
	cpu := func(name string, c specs.LinuxCPU) {
		out = append(out, variation{name: "cpu-" + name, change: func(s *specs.Spec) { s.Linux.Resources.CPU = &c }})
	}
	n := func(v int64) *int64 { return &v }
	u := func(v uint64) *uint64 { return &v }
	memory("limit", specs.LinuxMemory{Limit: n(64 << 20)})
	memory("unlimited", specs.LinuxMemory{Limit: n(-1)})
	memory("reservation", specs.LinuxMemory{Limit: n(64 << 20), Reservation: n(32 << 20)})
	memory("swap", specs.LinuxMemory{Limit: n(64 << 20), Swap: n(128 << 20)})
	memory("swap-unlimited", specs.LinuxMemory{Limit: n(64 << 20), Swap: n(-1)})
	memory("swappiness", specs.LinuxMemory{Swappiness: u(60)})
	cpu("shares", specs.LinuxCPU{Shares: u(512)})
	cpu("shares-low", specs.LinuxCPU{Shares: u(2)})
	cpu("shares-high", specs.LinuxCPU{Shares: u(262144)})
	cpu("quota", specs.LinuxCPU{Quota: n(50000)})
	cpu("quota-period", specs.LinuxCPU{Quota: n(20000), Period: u(50000)})
	cpu("period", specs.LinuxCPU{Period: u(50000)})
	cpu("unlimited", specs.LinuxCPU{Quota: n(-1)})
	cpu("cpus", specs.LinuxCPU{Cpus: "0"})
	cpu("cpus-mems", specs.LinuxCPU{Cpus: "0", Mems: "0"})
	for _, p := range []int64{0, 1, 20, 1000, -1} {
		out = append(out, variation{name: fmt.Sprintf("pids%d", p), change: func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &p} }})
	}
	out = append(out,
		variation{name: "none", change: func(s *specs.Spec) { s.Linux.Resources = nil }},
		variation{name: "devices-default", change: func(*specs.Spec) {}},
		variation{name: "devices-all", change: func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		}},
		variation{name: "devices-some", change: func(s *specs.Spec) {
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(10), Minor: n(229), Access: "rw"},
				specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: n(7), Access: "r"})
		}},
		variation{name: "relative-path", change: func(s *specs.Spec) { s.Linux.CgroupsPath = "isle-conformance/c" }},
	)
	return out
}
