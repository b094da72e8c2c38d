// Package refuse makes, by name, system calls that a container refuses, each in a
// way of its own. It is for tests of what explains refusals: a test's own binary
// runs it inside a container. Where a call is allowed by mistake it does no harm.
package refuse

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Main makes the calls that are named and says which were allowed. The result is an
// exit code.
func Main(names []string) int {
	runtime.LockOSThread()
	failed := 0
	for _, name := range names {
		i := slices.IndexFunc(calls, func(c refused) bool { return c.name == name })
		if i < 0 {
			fmt.Fprintln(os.Stderr, "refuse: no such call:", name)
			return 2
		}
		if err := calls[i].do(); err == nil && calls[i].name != "oom" {
			fmt.Fprintln(os.Stderr, "refuse: was allowed:", name)
			failed = 1
		}
	}
	return failed
}

type refused struct {
	name string
	do   func() error
}

func raw(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

func str(s string) uintptr {
	b, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(b))
}

var kept []*byte // so that the collector leaves them

var zeros [4096]byte

func zero() uintptr { return uintptr(unsafe.Pointer(&zeros[0])) }

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags, 0o644)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// calls are what can be refused. They do no harm where they are allowed by mistake.
var calls = []refused{
	{"mount", func() error { return unix.Mount("refused", "/mnt", "tmpfs", 0, "") }},
	{"umount", func() error { return unix.Unmount("/proc/sys", 0) }},
	{"pivot_root", func() error { return unix.PivotRoot("/mnt", "/mnt") }},
	{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
	{"clone", func() error { return raw(unix.SYS_CLONE, unix.CLONE_NEWUTS|uintptr(unix.SIGCHLD)) }},
	{"setns", func() error {
		fd, err := unix.Open("/proc/1/ns/uts", unix.O_RDONLY, 0)
		if err != nil {
			return nil
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		return unix.Setns(fd, unix.CLONE_NEWUTS)
	}},
	{"sethostname", func() error { return unix.Sethostname([]byte("refused")) }},
	{"perf_event_open", func() error {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
		_, err := unix.PerfEventOpen(&attr, -1, 0, -1, 0)
		return err
	}},
	{"bpf", func() error { return raw(unix.SYS_BPF, 0, zero(), 72) }},
	{"io_uring_setup", func() error { return raw(unix.SYS_IO_URING_SETUP, 4, zero()) }},
	{"keyctl", func() error { return raw(unix.SYS_KEYCTL, 0, ^uintptr(2), 0) }},
	{"add_key", func() error { return raw(unix.SYS_ADD_KEY, str("user"), str("refused"), zero(), 4, ^uintptr(2)) }},
	{"clock_settime", func() error {
		var now unix.Timespec
		if unix.ClockGettime(unix.CLOCK_REALTIME, &now) != nil {
			return nil
		}
		return raw(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&now)))
	}},
	{"settimeofday", func() error { return raw(unix.SYS_SETTIMEOFDAY, str("bad"), 1) }},
	{"init_module", func() error { return raw(unix.SYS_INIT_MODULE, zero(), 4, str("")) }},
	{"finit_module", func() error { return raw(unix.SYS_FINIT_MODULE, ^uintptr(0), str(""), 0) }},
	{"delete_module", func() error { return raw(unix.SYS_DELETE_MODULE, str("refused"), 0) }},
	{"kexec_load", func() error { return raw(unix.SYS_KEXEC_LOAD, 0, 0, 0, 1<<20) }},
	{"reboot", func() error { return raw(unix.SYS_REBOOT, 1, 2, 3) }},
	{"syslog", func() error { return raw(unix.SYS_SYSLOG, 3, zero(), 16) }},
	{"swapon", func() error { return raw(unix.SYS_SWAPON, str("/refused"), 0) }},
	{"quotactl", func() error { return raw(unix.SYS_QUOTACTL, 0x80000500, str("/refused"), 0, zero()) }},
	{"open_by_handle_at", func() error { return raw(unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(99), zero(), 0) }},
	{"userfaultfd", func() error { return raw(unix.SYS_USERFAULTFD, 0) }},
	{"fanotify_init", func() error { return raw(unix.SYS_FANOTIFY_INIT, 0, 0) }},
	{"acct", func() error { return raw(unix.SYS_ACCT, str("/refused")) }},
	{"personality", func() error { return raw(unix.SYS_PERSONALITY, 0x40000) }},
	{"vsock", func() error { _, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0); return err }},
	{"alg", func() error { _, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0); return err }},
	{"newcall", func() error { return raw(999) }},
	{"oldsocket", func() error { _, err := unix.Socket(unix.AF_IUCV, unix.SOCK_STREAM, 0); return err }},

	{"device", func() error {
		_ = unix.Mknod("/tmp-log", unix.S_IFCHR|0o600, int(unix.Mkdev(10, 237)))
		return open("/tmp-log", unix.O_RDONLY)
	}},
	{"nodev", func() error {
		_ = unix.Mknod("/noexec/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
		return open("/noexec/null", unix.O_RDONLY)
	}},
	{"noexec", func() error {
		self, err := os.ReadFile("/bin/true")
		if err != nil {
			return nil
		}
		if os.WriteFile("/noexec/true", self[:min(len(self), 4096)], 0o755) != nil {
			return nil
		}
		return unix.Exec("/noexec/true", []string{"true"}, nil)
	}},
	{"notexec", func() error {
		if os.WriteFile("/plain", []byte("x"), 0o644) != nil {
			return nil
		}
		return unix.Exec("/plain", []string{"plain"}, nil)
	}},
	{"sysctl", func() error { return open("/proc/sys/kernel/shmmni", unix.O_WRONLY) }},
	{"machine-sysctl", func() error { return open("/proc/sys/vm/swappiness", unix.O_WRONLY) }},
	{"sysrq", func() error { return open("/proc/irq/default_smp_affinity", unix.O_WRONLY) }},
	{"sys", func() error { return open("/sys/kernel/uevent_seqnum", unix.O_WRONLY|unix.O_TRUNC) }},
	{"hardware", func() error { return unix.Mkdir("/sys/refused", 0o755) }},
	{"cgroup", func() error { return unix.Mkdir("/sys/fs/cgroup/refused", 0o755) }},
	{"masked", func() error { return unix.Mkdir("/sys/firmware/refused", 0o755) }},
	{"ro-volume", func() error { return open("/ro/file", unix.O_CREAT|unix.O_WRONLY) }},
	{"ro-root", func() error { return open("/file", unix.O_CREAT|unix.O_WRONLY) }},
	{"kvm", func() error { return open("/dev/kvm", unix.O_RDWR) }},

	{"fds", func() error {
		var fds []int
		defer func() {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}()
		for range 200 {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
		}
		return nil
	}},
	{"fsize", func() error {
		fd, err := unix.Open("/large", unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err != nil {
			return nil
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		return unix.Ftruncate(fd, 1<<40)
	}},
	{"pids", func() error {
		var pids []int
		defer func() {
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
				_, _ = unix.Wait4(pid, nil, 0, nil)
			}
		}()
		for range 200 {
			pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if e != 0 {
				return e
			}
			if pid == 0 {
				for {
					_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
				}
			}
			pids = append(pids, int(pid))
		}
		return nil
	}},
	{"cpuset", func() error {
		var set unix.CPUSet
		set.Set(1)
		return unix.SchedSetaffinity(0, &set)
	}},
	{"shm", func() error { return os.WriteFile("/dev/shm/x", make([]byte, 1<<20), 0o600) }},
	{"memlock", func() error { return unix.Mlock(make([]byte, 8<<20)) }},
	{"oom", func() error {
		b := make([]byte, 256<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return errors.New(string(b[:1]))
	}},

	{"chown", func() error { return unix.Chown("/", 1, 1) }},
	{"setuid", func() error { return raw(unix.SYS_SETUID, 0) }},
	{"setgid", func() error { return raw(unix.SYS_SETGID, 0) }},
	{"setgroups", func() error { return raw(unix.SYS_SETGROUPS, 1, zero()) }},
	{"chroot", func() error { return unix.Chroot("/") }},
	{"kill", func() error { return unix.Kill(1, unix.SIGURG) }},
	{"secret", func() error { return open("/root-only", unix.O_RDONLY) }},
	{"create", func() error { return open("/refused", unix.O_CREAT|unix.O_WRONLY) }},
	{"unlink", func() error { return unix.Unlink("/root-only") }},
	{"bind", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return nil
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 81, Addr: [4]byte{127, 0, 0, 77}})
	}},
	{"raw-socket", func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err }},
	{"mknod", func() error { return unix.Mknod("/dev/shm/node", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }},
	{"nice", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) }},
	{"rlimit", func() error {
		return unix.Prlimit(0, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil)
	}},
	{"ptrace", func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1, 0, 0) }},
	{"mark", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return nil
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 7)
	}},
	{"interface", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return nil
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			return nil
		}
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	}},
	{"far-chown", func() error { return unix.Chown("/", 99999999, -1) }},
	{"far-setuid", func() error { return raw(unix.SYS_SETUID, 99999999) }},
	{"far-setgid", func() error { return raw(unix.SYS_SETGID, 99999999) }},
	{"foreign", func() error { return unix.Chmod("/foreign/file", 0o600) }},
}
