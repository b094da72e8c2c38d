package host

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/userns"
)

// Machine answers questions about this machine and the calling process. The zero
// value is ready; it may be used by several goroutines.
type Machine struct {
	// root stands before every path: a tree in tests.
	root string

	kernel    once[[2]int]
	inUserNS  once[bool]
	uids      once[[]specs.LinuxIDMapping]
	gids      once[[]specs.LinuxIDMapping]
	cgroup    once[CgroupMode]
	lsms      once[[]string]
	permitted once[caps.Set]
	cpuList   once[string]
	container once[string]
}

// once is a fact, looked at when it is first asked for.
type once[T any] struct {
	sync.Once
	v T
}

func (o *once[T]) get(look func() T) T {
	o.Do(func() { o.v = look() })
	return o.v
}

// MinKernel is the oldest kernel that isle supports.
var MinKernel = [2]int{5, 14}

// Kernel returns the kernel's version, for instance 6, 1.
func (m *Machine) Kernel() (major, minor int) {
	v := m.kernel.get(func() [2]int {
		var u unix.Utsname
		if unix.Uname(&u) != nil {
			return [2]int{}
		}
		return parseRelease(unix.ByteSliceToString(u.Release[:]))
	})
	return v[0], v[1]
}

// parseRelease reads the first two numbers of "6.1.0-18-amd64".
func parseRelease(s string) (v [2]int) {
	for i := range v {
		end := 0
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(s[:end])
		if err != nil {
			return [2]int{}
		}
		v[i] = n
		s = strings.TrimPrefix(s[end:], ".")
	}
	return v
}

// KernelAtLeast reports whether the kernel is of that version or newer.
func (m *Machine) KernelAtLeast(major, minor int) bool {
	a, b := m.Kernel()
	return a > major || a == major && b >= minor
}

// initUserNS is the inode number of the first user namespace (PROC_USER_INIT_INO
// in the kernel's include/linux/proc_ns.h).
const initUserNS = 0xEFFFFFFD

// InUserNS reports whether the caller is in a user namespace other than the
// first: rootless, or isle itself in a container.
func (m *Machine) InUserNS() bool {
	return m.inUserNS.get(func() bool {
		var st unix.Stat_t
		if unix.Stat(m.root+"/proc/self/ns/user", &st) != nil {
			return false // a kernel without user namespaces
		}
		return st.Ino != initUserNS
	})
}

// UIDs returns the uid map of the caller's user namespace.
func (m *Machine) UIDs() []specs.LinuxIDMapping {
	return m.uids.get(func() []specs.LinuxIDMapping { return m.idMap("/proc/self/uid_map") })
}

// GIDs returns the gid map of the caller's user namespace.
func (m *Machine) GIDs() []specs.LinuxIDMapping {
	return m.gids.get(func() []specs.LinuxIDMapping { return m.idMap("/proc/self/gid_map") })
}

func (m *Machine) idMap(name string) []specs.LinuxIDMapping {
	ids, err := userns.ReadMap(m.root + name)
	if err != nil {
		return nil
	}
	return ids
}

// LSMs are the active security modules.
func (m *Machine) LSMs() []string {
	return m.lsms.get(func() []string {
		return strings.FieldsFunc(m.line("/sys/kernel/security/lsm"), func(r rune) bool { return r == ',' })
	})
}

func (m *Machine) hasLSM(name string) bool {
	return slices.Contains(m.LSMs(), name)
}

// AppArmor reports whether AppArmor confines processes here.
func (m *Machine) AppArmor() bool {
	// securityfs may not be mounted, or not be readable in a container.
	return m.line("/sys/module/apparmor/parameters/enabled") == "Y" || m.hasLSM("apparmor")
}

// SELinux returns the contexts that the policy names for containers' processes
// and files; both are "" where SELinux is off or knows no containers.
func (m *Machine) SELinux() (process, file string) {
	if m.line("/sys/fs/selinux/enforce") == "" {
		return "", ""
	}
	policy := "targeted"
	for line := range strings.Lines(m.text("/etc/selinux/config")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); ok {
			policy = strings.TrimSpace(v)
		}
	}
	if strings.ContainsRune(policy, '/') {
		return "", ""
	}
	// lxc_contexts(5): process = "system_u:system_r:container_t:s0"
	for line := range strings.Lines(m.text("/etc/selinux/" + policy + "/contexts/lxc_contexts")) {
		key, val, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		val = strings.Trim(strings.TrimSpace(val), `"`)
		switch strings.TrimSpace(key) {
		case "process":
			process = val
		case "file":
			file = val
		}
	}
	if process == "" || file == "" {
		return "", ""
	}
	return process, file
}

// Seccomp reports whether the kernel has seccomp filters.
func (m *Machine) Seccomp() bool {
	// EFAULT: there is something that would have read the filter.
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0)
	return err != unix.EINVAL
}

// Permitted are the capabilities that the caller has, and so can give.
func (m *Machine) Permitted() caps.Set {
	return m.permitted.get(func() caps.Set {
		s, err := caps.Permitted()
		if err != nil {
			return 0
		}
		return s
	})
}

// SysResource reports whether the caller may raise hard limits and lower
// oom_score_adj, which takes CAP_SYS_RESOURCE in the first user namespace.
func (m *Machine) SysResource() bool {
	return m.Permitted().Has(unix.CAP_SYS_RESOURCE) && !m.InUserNS()
}

// HardLimit returns the caller's hard limit of a resource of setrlimit(2).
func (m *Machine) HardLimit(resource int) uint64 {
	var r unix.Rlimit
	if unix.Getrlimit(resource, &r) != nil {
		return 0
	}
	return r.Max
}

// MaxFiles returns fs.nr_open: above it nobody may set the limit of open files.
// 0 means not known.
func (m *Machine) MaxFiles() uint64 {
	n, err := strconv.ParseUint(m.line("/proc/sys/fs/nr_open"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// OOMScoreAdj returns the caller's own.
func (m *Machine) OOMScoreAdj() int {
	n, err := strconv.Atoi(m.line("/proc/self/oom_score_adj"))
	if err != nil {
		return 0
	}
	return n
}

// Memory returns the bytes of memory and of swap.
func (m *Machine) Memory() (memory, swap uint64) {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0, 0
	}
	return s.Totalram * uint64(s.Unit), s.Totalswap * uint64(s.Unit)
}

// CPUList returns the processors online, as "0-3".
func (m *Machine) CPUList() string {
	return m.cpuList.get(func() string { return m.line("/sys/devices/system/cpu/online") })
}

// CPUs returns the number of processors online, or 0 when it is not known.
func (m *Machine) CPUs() int {
	n := 0
	for part := range strings.SplitSeq(m.CPUList(), ",") {
		from, to, two := strings.Cut(part, "-")
		lo, err := strconv.Atoi(from)
		if err != nil {
			return 0
		}
		hi := lo
		if two {
			if hi, err = strconv.Atoi(to); err != nil {
				return 0
			}
		}
		n += hi - lo + 1
	}
	return n
}

// Hostname returns the host's name as this process sees it.
func (m *Machine) Hostname() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Nodename[:])
}

// Container returns the kind of container that isle runs in: "docker", "podman",
// "systemd-nspawn", "lxc", …, or "" for none.
func (m *Machine) Container() string {
	return m.container.get(func() string {
		if m.exists("/.dockerenv") {
			return "docker"
		}
		if m.exists("/run/.containerenv") {
			return "podman"
		}
		if c := m.line("/run/systemd/container"); c != "" {
			return c
		}
		for kv := range bytes.SplitSeq([]byte(m.text("/proc/1/environ")), []byte{0}) {
			if c, ok := bytes.CutPrefix(kv, []byte("container=")); ok && len(c) > 0 {
				return string(c)
			}
		}
		return ""
	})
}

// Overlay reports whether overlayfs is there, or can be loaded by root.
func (m *Machine) Overlay() bool {
	for line := range strings.Lines(m.text("/proc/filesystems")) {
		if strings.HasSuffix(strings.TrimSpace(line), "\toverlay") {
			return true
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	found, err := filepath.Glob(m.root + "/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/kernel/fs/overlayfs/overlay.ko*")
	return err == nil && len(found) > 0
}

// textMax bounds what is read of any file here.
const textMax = 1 << 20

// text returns a small file, or "".
func (m *Machine) text(name string) string {
	f, err := os.Open(m.root + name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, textMax))
	if err != nil {
		return ""
	}
	return string(b)
}

// line returns a file of one line, or "".
func (m *Machine) line(name string) string {
	var buf [4096]byte
	fd, err := unix.Open(m.root+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	n, err := unix.Read(fd, buf[:])
	_ = unix.Close(fd)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(buf[:n]))
}

func (m *Machine) exists(name string) bool {
	return unix.Access(m.root+name, unix.F_OK) == nil
}
