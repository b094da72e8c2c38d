package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/userns"
)

// Check is one thing that was looked at.
type Check struct {
	Name  string // what: a few words
	Found string // how it is, in short
	// Advice is what is amiss; its Problem is "" when nothing is.
	Advice
}

// Checkup looks at everything that containers need, in the order in which they
// need it.
func (m *Machine) Checkup(w Who) []Check {
	all := []Check{m.checkKernel()}
	if w.UID != 0 {
		all = append(all, checkUserns(), checkIDs(w))
	}
	all = append(all, m.checkOverlay(), checkStorage(w.Data), checkDisk(w.Data), m.checkSeccomp(), m.checkLimits(w))
	if w.UID != 0 {
		all = append(all, m.checkSession(w), m.checkPorts(), m.checkPing(w))
	} else {
		all = append(all, m.checkRaise())
	}
	return append(all, m.checkInotify(), checkTun())
}

func (m *Machine) checkKernel() Check {
	major, minor := m.Kernel()
	c := Check{Name: "kernel", Found: fmt.Sprintf("Linux %d.%d", major, minor)}
	if !m.KernelAtLeast(MinKernel[0], MinKernel[1]) {
		c.Advice = Advice{Problem: fmt.Sprintf("this kernel is %d.%d; isle needs %d.%d", major, minor, MinKernel[0], MinKernel[1]), Blocks: true}
	}
	return c
}

func checkUserns() Check {
	c := Check{Name: "user namespaces", Found: "ordinary users may make them"}
	if hints := userns.Obstacles(nil); len(hints) > 0 {
		c.Advice = Advice{"an ordinary user cannot make containers here", hints, true}
	}
	return c
}

// checkIDs looks at subuid, subgid and the programs that give them.
func checkIDs(w Who) Check {
	c := Check{Name: "subordinate ids", Found: "newuidmap and newgidmap give this user a range"}
	if lines := userns.Advice(w.UID, w.GID); len(lines) > 0 {
		c.Advice = Advice{Problem: lines[0], Remedy: lines[1:]}
	}
	return c
}

func (m *Machine) checkOverlay() Check {
	c := Check{Name: "overlayfs", Found: "there"}
	if !m.Overlay() {
		c.Advice = Advice{"the kernel has no overlayfs, which puts image layers together", []string{"as root: modprobe overlay"}, true}
	}
	return c
}

func checkStorage(dir string) Check {
	c := Check{Name: "storage", Found: dir}
	if fs, err := FileSystem(existing(dir)); err == nil {
		c.Found += " on " + fs
	}
	c.Problem, c.Remedy = Storage(dir)
	c.Blocks = c.Problem != ""
	return c
}

// existing is dir, or the nearest directory above it that is there.
func existing(dir string) string {
	for dir != "/" && dir != "." {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// Room that a small image and its container need.
const (
	minRoom   = 512 << 20
	minInodes = 10_000
)

func checkDisk(dir string) Check {
	c := Check{Name: "disk", Found: "not known"}
	var st unix.Statfs_t
	if unix.Statfs(existing(dir), &st) != nil {
		return c
	}
	free := st.Bavail * uint64(st.Bsize)
	c.Found = fmt.Sprintf("%d MB free", free>>20)
	switch {
	case free < minRoom:
		c.Problem = fmt.Sprintf("the disk of %s is almost full: %d MB are free", dir, free>>20)
	case st.Files > 0 && st.Ffree < minInodes: // file systems without a table of inodes say 0
		c.Problem = fmt.Sprintf("the disk of %s has almost no room for more files: %d inodes are free", dir, st.Ffree)
	default:
		return c
	}
	c.Remedy = []string{"isle container prune and isle image prune remove what is not used", "or set ISLE_ROOT to a directory on another disk"}
	return c
}

func (m *Machine) checkSeccomp() Check {
	c := Check{Name: "seccomp", Found: "there"}
	if !m.Seccomp() {
		c.Problem = "the kernel has no seccomp filters: system calls of containers are not restricted"
	}
	return c
}

func (m *Machine) checkLimits(w Who) Check {
	c := Check{Name: "limits", Found: "cgroup " + m.Cgroup().String() + " with " + strings.Join(m.Controllers(), " ")}
	c.Problem, c.Remedy = m.Limits(w, "memory", "pids", "cpu", "cpuset", "io")
	return c
}

func (m *Machine) checkSession(w Who) Check {
	c := Check{Name: "session", Found: "no systemd here, none needed"}
	if m.exists("/run/systemd/system") {
		c.Found = "a session of systemd"
	}
	c.Problem, c.Remedy = m.Session(w)
	if c.Problem == "" && m.exists("/run/systemd/system") && w.Name != "" && !m.exists("/var/lib/systemd/linger/"+w.Name) {
		c.Problem = "the session of this user ends with its last login, and its containers with it"
		c.Remedy = []string{"loginctl enable-linger " + w.Name}
	}
	return c
}

// checkRaise is for root: a container around us, or a service manager, may have
// taken the capability away.
func (m *Machine) checkRaise() Check {
	c := Check{Name: "resource limits", Found: "root may raise them"}
	if !m.SysResource() {
		c.Problem = "root may not raise resource limits here (no CAP_SYS_RESOURCE): --ulimit and --oom-score-adj are bounded by isle's own"
	}
	return c
}

// FirstPort is the first port that an ordinary user may listen on.
func (m *Machine) FirstPort() int {
	n, err := strconv.Atoi(m.line("/proc/sys/net/ipv4/ip_unprivileged_port_start"))
	if err != nil {
		return 1024
	}
	return n
}

// OpenPorts is the line that lets ordinary users listen on port and all above it.
func OpenPorts(port int) string {
	return fmt.Sprintf("as root: sysctl net.ipv4.ip_unprivileged_port_start=%d", port)
}

func (m *Machine) checkPorts() Check {
	first := m.FirstPort()
	c := Check{Name: "ports", Found: fmt.Sprintf("from %d up can be published", first)}
	if first > 80 {
		c.Problem = fmt.Sprintf("ordinary users cannot publish ports below %d", first)
		c.Remedy = []string{OpenPorts(80)}
	}
	return c
}

func (m *Machine) checkPing(w Who) Check {
	c := Check{Name: "ping", Found: "reaches the outside"}
	f := strings.Fields(m.line("/proc/sys/net/ipv4/ping_group_range"))
	if len(f) != 2 {
		return c
	}
	lo, err1 := strconv.Atoi(f[0])
	hi, err2 := strconv.Atoi(f[1])
	if err1 != nil || err2 != nil || w.GID >= lo && w.GID <= hi {
		return c
	}
	c.Problem = "ping from containers gets no answer from outside: net.ipv4.ping_group_range leaves this user out"
	c.Remedy = []string{"as root: sysctl net.ipv4.ping_group_range='0 2147483647'"}
	return c
}

// minInstances is what a user with a few dozen containers and a desktop needs.
const minInstances = 512

func (m *Machine) checkInotify() Check {
	n, err := strconv.Atoi(m.line("/proc/sys/fs/inotify/max_user_instances"))
	c := Check{Name: "inotify", Found: fmt.Sprintf("%d instances a user", n)}
	if err == nil && n < minInstances {
		c.Problem = fmt.Sprintf("a user may have only %d inotify instances, which programs in many containers soon need", n)
		c.Remedy = []string{"as root: sysctl fs.inotify.max_user_instances=8192"}
	}
	return c
}

// checkTun: isle itself does not need the device; containers with VPNs do.
func checkTun() Check {
	c := Check{Name: "/dev/net/tun", Found: "there"}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch err {
	case nil:
		_ = unix.Close(fd) // no interface was made
	case unix.ENOENT, unix.ENXIO, unix.ENODEV:
		c.Found = "not there; isle does not need it, containers with --device /dev/net/tun do"
	default:
		c.Found = "closed to this user; isle does not need it, containers with --device /dev/net/tun do"
	}
	return c
}
