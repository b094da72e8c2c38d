package why

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/explain/view"
	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// judge finds the cause, in the order in which the kernel asks.
func (k *clue) judge() {
	if k.bySeccomp() {
		return
	}
	switch k.c.Err { //nolint:exhaustive // refusal lets no others through
	case unix.EROFS:
		k.byMount()
	case unix.EMFILE:
		k.byRlimit(unix.RLIMIT_NOFILE, "nofile", "open files")
	case unix.ENFILE:
		k.is(Limit, "the whole machine has no room for more open files (fs.file-max)")
	case unix.EFBIG:
		k.byRlimit(unix.RLIMIT_FSIZE, "fsize", "bytes in a file")
	case unix.ENOSPC, unix.EDQUOT:
		k.bySpace()
	case unix.EAGAIN:
		k.byProcesses()
	case unix.ENOMEM:
		k.byMemory()
	case unix.ENOSYS:
		k.is(Kernel, "this kernel has no such call, or was built without it")
		k.r.VM = "a virtual machine can have another kernel"
	case unix.EAFNOSUPPORT:
		k.is(Kernel, "this kernel has no such kind of socket (or its module is not loaded)")
		k.r.VM = "a virtual machine can have another kernel"
	case unix.EINVAL:
		k.byMap()
	case unix.ENOENT:
		k.byMissingDevice()
	case unix.EPERM, unix.EACCES:
		k.byRights()
	}
}

func (k *clue) is(cause, format string, args ...any) {
	k.r.Cause, k.r.Text = cause, fmt.Sprintf(format, args...)
}

// verdict is what the filter says of the call, and the errno that it gives.
func verdict(f *seccomp.Filter, k *clue) (refused bool, errno unix.Errno) {
	if f == nil {
		return false, 0
	}
	v := f.Run(uint32(k.c.Nr), k.c.Args)
	switch v & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG:
		return false, 0
	case unix.SECCOMP_RET_ERRNO:
		return true, unix.Errno(v & unix.SECCOMP_RET_DATA)
	}
	return true, k.c.Err
}

// bySeccomp: the filter is asked before the kernel's own checks. Rules of the
// default profile go with capabilities, so that one flag opens both.
func (k *clue) bySeccomp() bool {
	refused, errno := verdict(k.filter, k)
	if !refused || errno != k.c.Err {
		return false
	}
	k.is(Seccomp, "the container's filter refuses %s before the kernel looks at it", k.name)
	p, has := powerFor(k.name, k.c, "")
	without := k.again(nil, k.effective)
	var opens []string
	for n := range caps.Last + 1 {
		if k.bounding.Has(n) {
			continue
		}
		more := k.bounding | 1<<n
		if no, _ := verdict(view.FilterOf(k.d.s.Record.Config.Seccomp, more.Names()), k); !no {
			opens = append(opens, caps.Name(n))
		}
	}
	switch {
	case has && slices.Contains(opens, caps.Name(p.cap)):
		k.flagCap(p.cap)
	case len(opens) > 0 && !(has && k.effective.Has(p.cap)):
		k.r.Flag, k.r.Cost = "--cap-add "+strings.TrimPrefix(opens[0], "CAP_"), costs(opens[0])
	default:
		k.r.Flag, k.r.Cost = "--security-opt seccomp=unconfined (or a profile that allows "+k.name+")", costs("seccomp")
	}
	if has && p.vm != "" {
		k.r.VM = p.vm
	}
	switch {
	case without.tried && without.errno == 0:
		k.prove("the same call without the filter", "succeeded")
	case without.tried && (without.errno == unix.EPERM || without.errno == unix.EACCES):
		k.r.Proof, k.r.Proven = "the same call without the filter: "+unix.ErrnoName(without.errno)+" from the kernel itself", true
		if has && !k.effective.Has(p.cap) {
			k.r.Behind = "then the kernel misses " + caps.Name(p.cap)
			if both := k.again(nil, k.effective|1<<p.cap); both.tried && both.errno == 0 {
				k.r.Proof += "; with " + caps.Name(p.cap) + " too: it succeeded"
			} else if both.tried {
				k.r.Proof += "; with " + caps.Name(p.cap) + " too: " + unix.ErrnoName(both.errno)
			}
			if k.own && p.machine {
				k.r.Behind += " over the machine itself, which no user namespace gives"
			}
		}
	case without.tried:
		k.r.Proof, k.r.Proven = "the same call without the filter: the kernel answers "+unix.ErrnoName(without.errno)+" instead", true
	default:
		k.r.Proof, k.r.Proven = "the container's filter was run on the call and returns "+unix.ErrnoName(errno), true
	}
	return true
}

func (k *clue) prove(what, result string) { k.r.Proof, k.r.Proven = what+": "+result, true }

func (k *clue) flagCap(n int) {
	name := caps.Name(n)
	k.r.Flag, k.r.Cost = "--cap-add "+strings.TrimPrefix(name, "CAP_"), costs(name)
}

// byRights is EPERM and EACCES of the kernel's own checks.
func (k *clue) byRights() {
	path, at := k.path()
	switch {
	case k.name == "execve" || k.name == "execveat":
		k.byExec(path, at)
		return
	case opens(k.name) && at != nil:
		defer at.close()
		k.byFile(path, at)
		return
	case at != nil:
		defer at.close()
	}
	switch k.name {
	case "setgroups":
		if text, err := os.ReadFile(k.proc("setgroups")); err == nil && strings.TrimSpace(string(text)) == "deny" {
			k.is(UserNS, "setgroups(2) is switched off for good in this user namespace: its map was written without privilege")
			k.r.Proof, k.r.Proven = "/proc/PID/setgroups says deny", true
			k.r.Flag, k.r.Cost = "subordinate ids for the user (/etc/subgid), or run as root", "none"
			return
		}
	case "kill", "tgkill", "tkill":
		if k.effective.Has(unix.CAP_KILL) {
			k.is(Permission, "the process belongs to a user namespace that this one has no power over")
			return
		}
	case "setpriority", "nice", "sched_setscheduler", "sched_setattr":
		k.byRank()
		return
	case "setrlimit", "prlimit64":
		k.r.Proof = "only CAP_SYS_RESOURCE over the machine raises a hard limit"
	case "mlock", "mlockall", "mlock2":
		k.byRlimit(unix.RLIMIT_MEMLOCK, "memlock", "bytes of locked memory")
		return
	case "bind":
		k.byPort()
		return
	case "mknod", "mknodat":
		k.byNode(path)
		return
	case "io_uring_setup":
		if v := sysctl("kernel/io_uring_disabled"); v != "" && v != "0" {
			k.is(Kernel, "io_uring is switched off on this machine (kernel.io_uring_disabled=%s)", v)
			return
		}
	case "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "truncate", "creat":
		if at != nil {
			k.byDirectory(path, at)
			return
		}
	case "setxattr", "lsetxattr", "fsetxattr":
		if k.own {
			k.is(UserNS, "attributes of the trusted and security kinds belong to root of the machine")
			k.r.Flag, k.r.Cost = "run as root (sudo isle run …)", "root inside is then root outside, less what is dropped"
			return
		}
	}
	p, has := powerFor(k.name, k.c, path)
	if !has {
		if lsm := k.lsm(); lsm != "" {
			k.is(LSM, "no rule of the kernel's own explains it, and the process is confined by %s", lsm)
			k.r.Flag, k.r.Cost = "--security-opt apparmor=unconfined or label=disable", "the second line of defence is gone"
			return
		}
		k.is(Kernel, "the kernel does not allow it here, whoever asks")
		return
	}
	k.byPower(p)
}

// byPower: a capability is missing, or does not count.
func (k *clue) byPower(p power) {
	name := caps.Name(p.cap)
	k.r.VM = p.vm
	switch {
	case k.own && p.machine:
		k.is(UserNS, "the kernel asks for %s over the machine itself, which no user namespace gives", name)
		k.r.Flag, k.r.Cost = "run as root with --cap-add "+strings.TrimPrefix(name, "CAP_")+" (sudo isle run …)", costs(name)
		if k.own {
			k.r.Proof, k.r.Proven = "/proc/PID/ns/user is not the machine's first", true
		}
		if r := k.again(k.filter, k.effective|1<<p.cap); r.tried && r.errno == k.c.Err {
			k.prove("the same call with "+name, "refused all the same")
		}
		return
	case k.effective.Has(p.cap):
		if lsm := k.lsm(); lsm != "" {
			k.is(LSM, "the process holds %s, but is confined by %s", name, lsm)
			k.r.Flag, k.r.Cost = "--security-opt apparmor=unconfined or label=disable", "the second line of defence is gone"
			return
		}
		if k.own {
			k.is(UserNS, "the process holds %s in its user namespace, but this needs it over another one", name)
			k.r.Flag, k.r.Cost = "run as root (sudo isle run …)", "root inside is then root outside, less what is dropped"
			return
		}
		k.is(Kernel, "the process holds %s; the kernel refuses for another reason", name)
		return
	}
	k.is(Capability, "%s is missing", name)
	k.flagCap(p.cap)
	switch {
	case k.bounding.Has(p.cap) && k.uid != 0:
		k.r.Text += ": the process is user " + strconv.Itoa(int(k.uid)) + ", and only root's processes have capabilities at once"
		k.r.Flag, k.r.Cost = "--user 0, or a file capability (setcap) on the program", "it is root of the container then"
		if k.nnp {
			k.r.Text += "; no_new_privs keeps set-uid programs from helping"
		}
	case k.nnp && k.uid != 0:
		k.r.Text += "; no_new_privs keeps set-uid programs from helping"
	}
	if filter, _ := verdict(k.filter, k); !filter {
		if r := k.again(k.filter, k.effective|1<<p.cap); r.tried {
			if r.errno == 0 {
				k.prove("the same call with "+name+", all else as it was", "succeeded")
			} else {
				k.r.Proof = "the same call with " + name + ": " + unix.ErrnoName(r.errno)
				k.r.Proven = r.errno != k.c.Err
			}
		}
	}
}

// byRank: a higher priority takes CAP_SYS_NICE or RLIMIT_NICE, RLIMIT_RTPRIO.
func (k *clue) byRank() {
	k.byPower(power{cap: unix.CAP_SYS_NICE, machine: true})
	k.r.Text += "; a limit would do as well (RLIMIT_NICE, RLIMIT_RTPRIO)"
	k.r.Flag += " or --ulimit nice=40 (rtprio=99 for real time)"
}

// byPort: ports below net.ipv4.ip_unprivileged_port_start.
func (k *clue) byPort() {
	port := k.port(k.c.Args[1])
	start := 1024
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && k.sharesNetwork() {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			start = n
		}
	}
	if port < 0 {
		k.byPower(power{cap: unix.CAP_NET_BIND_SERVICE})
		return
	}
	k.byPower(power{cap: unix.CAP_NET_BIND_SERVICE, machine: k.own && k.sharesNetwork()})
	k.r.Text = fmt.Sprintf("port %d is below %d (net.ipv4.ip_unprivileged_port_start): %s", port, start, k.r.Text)
	if !k.sharesNetwork() {
		k.r.Flag = "--sysctl net.ipv4.ip_unprivileged_port_start=0, or " + k.r.Flag
	} else {
		k.r.Flag = "a port from " + strconv.Itoa(start) + " up, a network of its own with -p, or " + k.r.Flag
	}
}

func (k *clue) sharesNetwork() bool {
	theirs, err1 := os.Readlink(k.proc("ns/net"))
	ours, err2 := os.Readlink("/proc/self/ns/net")
	return err1 == nil && err2 == nil && theirs == ours
}

// byMap is EINVAL of a call that takes ids.
func (k *clue) byMap() {
	var uids, gids []uint64
	a := k.c.Args
	switch k.name {
	case "setuid", "setreuid", "setresuid":
		uids = a[:idCount(k.name)]
	case "setgid", "setregid", "setresgid":
		gids = a[:idCount(k.name)]
	case "chown", "lchown", "fchown":
		uids, gids = a[1:2], a[2:3]
	case "fchownat":
		uids, gids = a[2:3], a[3:4]
	case "sched_setaffinity":
		k.byCPUs()
		return
	default:
		return
	}
	for i, list := range [][]uint64{uids, gids} {
		kind := [...]string{"uid", "gid"}[i]
		for _, id := range list {
			id &= 0xffffffff
			if id == 0xffffffff || k.mapped(kind+"_map", id) {
				continue
			}
			k.is(Mapping, "%s %d does not exist in the container's user namespace", kind, id)
			var have []string
			for _, m := range k.maps(kind + "_map") {
				have = append(have, fmt.Sprintf("%d to %d", m[0], m[0]+m[2]-1))
			}
			k.r.Proof, k.r.Proven = "/proc/PID/"+kind+"_map has "+strings.Join(have, ", "), true
			k.r.Flag, k.r.Cost = "more subordinate ids (/etc/sub"+kind+"), or --userns=host as root", "none for more ids"
			return
		}
	}
}

// idCount is how many ids a call of the setuid family takes.
func idCount(name string) int {
	switch {
	case strings.HasPrefix(name, "setres"):
		return 3
	case strings.HasPrefix(name, "setre"):
		return 2
	}
	return 1
}

// byCPUs: none of the CPUs asked for is in the container's set.
func (k *clue) byCPUs() {
	k.is(Limit, "none of these CPUs is in the container's set (%s)", k.status["Cpus_allowed_list"])
	k.r.Proof, k.r.Proven = "Cpus_allowed_list of /proc/PID/status is "+k.status["Cpus_allowed_list"], true
	k.r.Flag, k.r.Cost = "--cpuset-cpus with these CPUs", "less room for others"
}

// byRlimit: a limit of the process.
func (k *clue) byRlimit(resource int, flag, what string) {
	var now unix.Rlimit
	if unix.Prlimit(k.pid, resource, nil, &now) != nil {
		return
	}
	if now.Cur == unix.RLIM_INFINITY {
		return // it is not this limit
	}
	k.is(Limit, "the limit of %s is reached (%d)", what, now.Cur)
	k.r.Proof, k.r.Proven = "RLIMIT_"+strings.ToUpper(flag)+" of the process is "+strconv.FormatUint(now.Cur, 10), true
	k.r.Flag, k.r.Cost = "--ulimit "+flag+"=N", "none but the room"
}

// byProcesses: fork(2) and its kin fail with EAGAIN.
func (k *clue) byProcesses() {
	if k.name == "mlock" || k.name == "mlock2" || k.name == "mlockall" {
		k.byRlimit(unix.RLIMIT_MEMLOCK, "memlock", "bytes of locked memory")
		return
	}
	if file, limit, now := k.d.pidsNow(); limit > 0 && now >= limit-1 {
		k.is(Limit, "the container may have %d processes and threads, and has them", limit)
		k.r.Proof, k.r.Proven = file+" is "+strconv.FormatInt(limit, 10)+", pids.current "+strconv.FormatInt(now, 10), true
		k.r.Flag, k.r.Cost = "--pids-limit with more", "a fork bomb gets further"
		return
	}
	k.byRlimit(unix.RLIMIT_NPROC, "nproc", "processes of this user")
}

// byMemory: memory that the process may not have, which is not the group's limit:
// that one kills.
func (k *clue) byMemory() {
	switch k.name {
	case "mlock", "mlock2", "mlockall":
		k.byRlimit(unix.RLIMIT_MEMLOCK, "memlock", "bytes of locked memory")
	case "mmap", "mremap", "brk":
		var as, data unix.Rlimit
		_ = unix.Prlimit(k.pid, unix.RLIMIT_AS, nil, &as)     // zero: no such process any more
		_ = unix.Prlimit(k.pid, unix.RLIMIT_DATA, nil, &data) // as above
		if as.Cur != unix.RLIM_INFINITY && as.Cur != 0 {
			k.byRlimit(unix.RLIMIT_AS, "as", "bytes of address space")
		} else if data.Cur != unix.RLIM_INFINITY && data.Cur != 0 {
			k.byRlimit(unix.RLIMIT_DATA, "data", "bytes of data")
		}
	default:
		k.is(Kernel, "the kernel has no memory for it, or a pid namespace is ending")
	}
}

// lsm is what confines the process besides; "": nothing.
func (k *clue) lsm() string {
	text, err := os.ReadFile(k.proc("attr/current"))
	if err != nil {
		return ""
	}
	label := strings.TrimRight(string(text), "\x00\n")
	if label == "" || strings.HasPrefix(label, "unconfined") {
		return ""
	}
	return label
}

func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// size prints bytes in binary units.
func size(n int64) string {
	if n >= 1<<30 && n%(1<<30) == 0 {
		return strconv.FormatInt(n>>30, 10) + " GiB"
	}
	if n >= 1<<20 {
		return strconv.FormatInt(n>>20, 10) + " MiB"
	}
	return strconv.FormatInt(n, 10) + " B"
}

// pidsNow is the limit of the container's group, its file and its count.
func (d *detective) pidsNow() (file string, limit, now int64) {
	dir := d.s.State.Cgroup.V1["pids"]
	if dir == "" {
		dir = d.s.State.Cgroup.V2
	}
	if dir == "" {
		return "", 0, 0
	}
	file = dir + "/pids.max"
	limit, now = number(file), number(dir+"/pids.current")
	return file, limit, now
}

func (d *detective) pidsLimit() int64 { _, n, _ := d.pidsNow(); return n }

// oomKills counts the processes of the container that were killed for want of memory.
func (d *detective) oomKills() int64 {
	file := d.s.State.Cgroup.V1["memory"] + "/memory.oom_control"
	if d.s.State.Cgroup.V1["memory"] == "" {
		file = d.s.State.Cgroup.V2 + "/memory.events"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			v, _ := strconv.ParseInt(strings.TrimSpace(n), 10, 64) // the kernel writes a number
			return v
		}
	}
	return 0
}

func number(file string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is 0: none
	return n
}
