package why

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/trace"
)

// power is the capability that a call asks for.
type power struct {
	cap     int
	machine bool   // the kernel wants it over the machine (capable), not over a user namespace (ns_capable)
	vm      string // why a virtual machine is the right answer; "" where it is not
}

const (
	vmKernel = "it concerns the kernel, which a container shares with the machine and all others; a virtual machine has its own"
	vmClock  = "there is one clock for the whole machine; a virtual machine has its own (a time namespace shifts only the clocks since boot: --time-offset)"
)

// powerFor is the capability that the kernel asks a call for; ok: there is one.
func powerFor(name string, c *trace.Call, path string) (p power, ok bool) {
	own := func(n int) (power, bool) { return power{cap: n}, true }
	machine := func(n int, vm string) (power, bool) { return power{n, true, vm}, true }
	switch name {
	case "mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
		"unshare", "setns", "clone", "sethostname", "setdomainname":
		return own(unix.CAP_SYS_ADMIN)
	case "chroot":
		return own(unix.CAP_SYS_CHROOT)
	case "mknod", "mknodat":
		return machine(unix.CAP_MKNOD, "")
	case "chown", "lchown", "fchown", "fchownat":
		return own(unix.CAP_CHOWN)
	case "chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat", "utimes":
		return own(unix.CAP_FOWNER)
	case "setuid", "setreuid", "setresuid", "setfsuid":
		return own(unix.CAP_SETUID)
	case "setgid", "setregid", "setresgid", "setgroups", "setfsgid":
		return own(unix.CAP_SETGID)
	case "kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_send_signal":
		return own(unix.CAP_KILL)
	case "bind":
		return own(unix.CAP_NET_BIND_SERVICE)
	case "socket":
		return own(unix.CAP_NET_RAW)
	case "setsockopt":
		return own(unix.CAP_NET_ADMIN)
	case "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise":
		return own(unix.CAP_SYS_PTRACE)
	case "init_module", "finit_module", "delete_module":
		return machine(unix.CAP_SYS_MODULE, vmKernel)
	case "reboot":
		return own(unix.CAP_SYS_BOOT)
	case "kexec_load", "kexec_file_load":
		return machine(unix.CAP_SYS_BOOT, vmKernel)
	case "clock_settime", "settimeofday", "adjtimex", "clock_adjtime":
		return machine(unix.CAP_SYS_TIME, vmClock)
	case "iopl", "ioperm":
		return machine(unix.CAP_SYS_RAWIO, "it talks to hardware past the kernel; a virtual machine has hardware of its own")
	case "syslog":
		return machine(unix.CAP_SYSLOG, "")
	case "swapon", "swapoff":
		return machine(unix.CAP_SYS_ADMIN, vmKernel)
	case "acct":
		return machine(unix.CAP_SYS_PACCT, "")
	case "quotactl", "quotactl_fd":
		return machine(unix.CAP_SYS_ADMIN, "")
	case "perf_event_open":
		return machine(unix.CAP_PERFMON, "")
	case "bpf":
		return machine(unix.CAP_BPF, "")
	case "fanotify_init", "fanotify_mark":
		return machine(unix.CAP_SYS_ADMIN, "")
	case "userfaultfd":
		return own(unix.CAP_SYS_PTRACE)
	case "setpriority", "nice", "sched_setscheduler", "sched_setparam", "sched_setattr", "ioprio_set":
		return machine(unix.CAP_SYS_NICE, "")
	case "setrlimit", "prlimit64":
		return machine(unix.CAP_SYS_RESOURCE, "")
	case "open_by_handle_at":
		return machine(unix.CAP_DAC_READ_SEARCH, "")
	case "vhangup":
		return machine(unix.CAP_SYS_TTY_CONFIG, "")
	case "capset":
		return own(unix.CAP_SETPCAP)
	case "prctl":
		switch c.Args[0] {
		case unix.PR_CAPBSET_DROP, unix.PR_CAP_AMBIENT, unix.PR_SET_SECUREBITS:
			return own(unix.CAP_SETPCAP)
		case unix.PR_SET_MM:
			return machine(unix.CAP_SYS_RESOURCE, "")
		}
	case "setxattr", "lsetxattr", "fsetxattr":
		return own(unix.CAP_SYS_ADMIN)
	case "ioctl":
		switch c.Args[1] {
		case unix.FS_IOC_SETFLAGS:
			return machine(unix.CAP_LINUX_IMMUTABLE, "")
		case unix.TIOCSTI:
			return machine(unix.CAP_SYS_ADMIN, "")
		case unix.RTC_SET_TIME:
			return machine(unix.CAP_SYS_TIME, vmClock)
		}
		if c.Args[1]>>8 == 0x89 { // SIOC…
			return own(unix.CAP_NET_ADMIN)
		}
	case "write", "openat", "open":
		if strings.HasPrefix(path, "/proc/sys/net/") {
			return own(unix.CAP_NET_ADMIN)
		}
	}
	return power{}, false
}

// costs says what a flag gives away.
func costs(what string) string {
	switch what {
	case "CAP_SYS_ADMIN":
		return "most of root's power: mounts, namespaces, many ways to attack the kernel; a container with it is hardly one any more"
	case "CAP_NET_ADMIN":
		return "it may change its own interfaces, routes and firewall; with --network host the machine's"
	case "CAP_NET_RAW":
		return "it may send packets under any address of its network"
	case "CAP_SYS_PTRACE":
		return "it may read and change all processes that it sees; with --pid host those of the machine"
	case "CAP_SYS_MODULE":
		return "whoever can load a module is the kernel: no isolation is left"
	case "CAP_SYS_BOOT":
		return "it may ask for a reboot; in a pid namespace of its own that ends the container only, but kexec replaces the machine's kernel"
	case "CAP_SYS_TIME":
		return "it may set the clock of the whole machine"
	case "CAP_SYS_RAWIO":
		return "it may talk to hardware and so read all memory: no isolation is left"
	case "CAP_SYSLOG":
		return "it may read the kernel's log and addresses, which help an attack"
	case "CAP_PERFMON":
		return "it may measure the whole machine, which tells much about others"
	case "CAP_BPF":
		return "it may load programs into the kernel; a bug in their checker is a way out"
	case "CAP_SYS_NICE":
		return "it may take CPU time from others"
	case "CAP_SYS_RESOURCE":
		return "it may lift its own limits and fill up disks and memory"
	case "CAP_MKNOD":
		return "it may make device nodes; the device rules still say which can be opened"
	case "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH":
		return "file permissions do not count for it; DAC_READ_SEARCH also opens files outside by handle"
	case "CAP_CHOWN", "CAP_FOWNER":
		return "little: it may take over files that it can reach"
	case "CAP_SETUID", "CAP_SETGID":
		return "it may become any user that the container has"
	case "CAP_SETPCAP":
		return "little: it may give up capabilities, and pass on those it has"
	case "CAP_KILL":
		return "it may end all processes that it sees"
	case "CAP_SYS_CHROOT":
		return "little by itself; with other rights a way out of directories"
	case "CAP_NET_BIND_SERVICE":
		return "little: ports below 1024 of its network"
	case "CAP_LINUX_IMMUTABLE":
		return "little: it may make files unchangeable"
	case "CAP_IPC_LOCK":
		return "it may take memory that is never swapped out"
	case "CAP_SYS_PACCT", "CAP_SYS_TTY_CONFIG":
		return "little, but the machine's accounting and terminals are everybody's"
	case "seccomp":
		return "the kernel's whole surface is open to attack again; a profile that allows just this call is better"
	}
	return ""
}
