package why

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/ns"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/linux/trace"
)

// clue is one refused call, with what the kernel knew of its thread.
type clue struct {
	d    *detective
	c    *trace.Call
	name string
	pid  int
	r    *Refusal

	status              map[string]string
	effective, bounding caps.Set
	uid, gid            uint32 // as the container sees them
	own                 bool   // it has a user namespace that is not the machine's
	filter              *seccomp.Filter
	nnp                 bool
}

func (k *clue) proc(file string) string { return "/proc/" + strconv.Itoa(k.pid) + "/" + file }

// look reads what there is to know about the thread.
func (k *clue) look() bool {
	text, err := os.ReadFile(k.proc("status"))
	if err != nil {
		return false
	}
	k.status = map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, v, ok := strings.Cut(line, ":"); ok {
			k.status[key] = strings.TrimSpace(v)
		}
	}
	mask := func(name string) caps.Set {
		n, _ := strconv.ParseUint(k.status[name], 16, 64) // the kernel writes a mask
		return caps.Set(n)
	}
	k.effective, k.bounding = mask("CapEff"), mask("CapBnd")
	k.nnp = k.status["NoNewPrivs"] == "1"
	k.uid, k.gid = k.inside("uid_map", "Uid"), k.inside("gid_map", "Gid")
	user := ns.Inode(strconv.Itoa(k.pid), "user")
	k.own = user != 0 && user != initialUserNS
	if k.status["Seccomp"] == "2" {
		k.filter = k.d.filter(uint64(k.bounding), k.bounding.Names())
	}
	return true
}

// initialUserNS is the number that the kernel gives the first user namespace
// (PROC_USER_INIT_INO).
const initialUserNS = 4026531837

// inside is an id of the thread in the container's numbers.
func (k *clue) inside(file, field string) uint32 {
	f := strings.Fields(k.status[field])
	if len(f) < 2 {
		return 0
	}
	id, _ := strconv.ParseUint(f[1], 10, 32) // the effective one
	for _, m := range k.maps(file) {
		if id >= m[1] && id < m[1]+m[2] {
			return uint32(m[0] + id - m[1])
		}
	}
	return 65534
}

// maps reads an id map: inside, outside, count.
func (k *clue) maps(file string) [][3]uint64 {
	text, err := os.ReadFile(k.proc(file))
	if err != nil {
		return nil
	}
	var out [][3]uint64
	for line := range strings.Lines(string(text)) {
		var m [3]uint64
		if n, _ := fmt.Sscan(line, &m[0], &m[1], &m[2]); n == 3 {
			out = append(out, m)
		}
	}
	return out
}

// mapped reports whether an id exists in the container.
func (k *clue) mapped(file string, id uint64) bool {
	for _, m := range k.maps(file) {
		if id >= m[0] && id < m[0]+m[2] {
			return true
		}
	}
	return false
}

// isleItself reports whether the thread still is one of isle's own, on its way to
// the command.
func (k *clue) isleItself() bool {
	exe, err := os.Readlink(k.proc("exe"))
	return err == nil && strings.HasPrefix(exe, "/memfd:")
}

// layout is how the arguments of a call are printed: s string, f descriptor, d
// number, u unsigned number, x hexadecimal, o octal, p address, D directory.
func layout(name string) string {
	switch name {
	case "mount":
		return "sssxp"
	case "umount2", "chroot", "swapoff", "acct", "chdir", "rmdir", "unlink":
		return "s"
	case "open":
		return "sOo"
	case "openat":
		return "DsOo"
	case "openat2":
		return "Dspd"
	case "creat", "chmod", "mkdir":
		return "so"
	case "mkdirat", "fchmodat":
		return "Dso"
	case "mknod":
		return "sox"
	case "mknodat":
		return "Dsox"
	case "chown", "lchown":
		return "sdd"
	case "fchownat":
		return "Dsddx"
	case "fchown", "fchmod":
		return "fdd"
	case "execve":
		return "spp"
	case "execveat":
		return "Dsppx"
	case "unlinkat":
		return "Dsx"
	case "rename", "link", "symlink", "pivot_root":
		return "ss"
	case "renameat", "linkat":
		return "DsDsx"
	case "renameat2":
		return "DsDsx"
	case "symlinkat":
		return "sDs"
	case "truncate", "utimes", "access":
		return "sd"
	case "faccessat", "faccessat2", "utimensat":
		return "Dsd"
	case "setxattr", "lsetxattr":
		return "sspdx"
	case "sethostname", "setdomainname":
		return "Nd"
	case "bind", "connect":
		return "fAd"
	case "socket":
		return "ddd"
	case "ptrace":
		return "ddxx"
	case "kill", "setpriority", "nice", "personality", "syslog", "setuid", "setgid", "setresuid", "setresgid", "setgroups", "tgkill", "prlimit64", "setrlimit", "iopl", "ioperm":
		return "dddd"
	case "unshare":
		return "x"
	case "setns":
		return "fx"
	case "keyctl", "bpf", "perf_event_open", "reboot":
		return "xxxxx"
	case "add_key", "request_key":
		return "sspdd"
	case "init_module":
		return "pds"
	case "finit_module":
		return "fsx"
	case "delete_module":
		return "sx"
	case "swapon":
		return "sx"
	case "ioctl":
		return "fxx"
	case "write", "pwrite64":
		return "fSd"
	case "clock_settime", "settimeofday", "adjtimex", "clock_adjtime":
		return "dp"
	case "io_uring_setup":
		return "dp"
	case "userfaultfd", "memfd_secret", "fanotify_init":
		return "xx"
	case "open_by_handle_at":
		return "fpx"
	case "clone":
		return "x"
	case "fork", "vfork", "vhangup":
		return ""
	case "sched_setaffinity":
		return "ddp"
	case "ftruncate", "fallocate":
		return "fd"
	}
	return "xxx"
}

// decode prints the call, as strace(1) would where it matters.
func (k *clue) decode() string {
	var args []string
	for i, kind := range layout(k.name) {
		if i > 5 {
			break
		}
		args = append(args, k.argument(kind, k.c.Args[i]))
	}
	return k.name + "(" + strings.Join(args, ", ") + ")"
}

func (k *clue) argument(kind rune, v uint64) string {
	switch kind {
	case 's':
		if v == 0 {
			return "NULL"
		}
		return clip(trace.String(k.pid, v))
	case 'S':
		return clip(string(trace.Memory(k.pid, v, 48)))
	case 'N':
		return clip(string(trace.Memory(k.pid, v, int(min(k.c.Args[1], 64)))))
	case 'O':
		return openFlags(int(v))
	case 'A':
		return k.address(v)
	case 'D', 'f':
		if int32(v) == unix.AT_FDCWD {
			return "AT_FDCWD"
		}
		s := strconv.Itoa(int(int32(v)))
		if name, err := os.Readlink(k.proc("fd/" + s)); err == nil {
			s += "<" + name + ">"
		}
		return s
	case 'd':
		return strconv.Itoa(int(int32(v)))
	case 'o':
		return "0" + strconv.FormatUint(v&0o177777, 8)
	case 'p':
		if v == 0 {
			return "NULL"
		}
		return "…"
	}
	return "0x" + strconv.FormatUint(v, 16)
}

// openFlags are those of open(2), as strace(1) prints them.
func openFlags(v int) string {
	names := []string{[...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "3"}[v&3]}
	for _, f := range [...]struct {
		bit  int
		name string
	}{{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_TRUNC, "O_TRUNC"}, {unix.O_APPEND, "O_APPEND"}, {unix.O_NONBLOCK, "O_NONBLOCK"}, {unix.O_DIRECTORY, "O_DIRECTORY"}, {unix.O_NOFOLLOW, "O_NOFOLLOW"}, {unix.O_PATH, "O_PATH"}, {unix.O_CLOEXEC, "O_CLOEXEC"}} {
		if v&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, "|")
}

func clip(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return strconv.Quote(s)
}

// address prints a socket address.
func (k *clue) address(v uint64) string {
	b := trace.Memory(k.pid, v, 28)
	if len(b) < 8 {
		return "…"
	}
	switch family := uint16(b[0]) | uint16(b[1])<<8; family {
	case unix.AF_INET:
		return fmt.Sprintf("%d.%d.%d.%d:%d", b[4], b[5], b[6], b[7], int(b[2])<<8|int(b[3]))
	case unix.AF_INET6:
		return fmt.Sprintf("[IPv6]:%d", int(b[2])<<8|int(b[3]))
	case unix.AF_UNIX:
		return "a local socket"
	}
	return "…"
}

// port is the port of a socket address; -1: none.
func (k *clue) port(v uint64) int {
	b := trace.Memory(k.pid, v, 8)
	if len(b) < 4 {
		return -1
	}
	if family := uint16(b[0]) | uint16(b[1])<<8; family != unix.AF_INET && family != unix.AF_INET6 {
		return -1
	}
	return int(b[2])<<8 | int(b[3])
}
