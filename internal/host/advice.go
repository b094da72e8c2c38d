package host

import (
	"path/filepath"
	"strconv"
	"strings"
)

// Advice is one thing that is amiss, and what helps.
type Advice struct {
	Problem string
	Remedy  []string
	// Blocks: without a remedy no container starts at all.
	Blocks bool
}

// Who is the user that advice is for.
type Who struct {
	UID, GID int
	Name     string // "" when not known
	Data     string // the directory of images and containers
}

// Advise asks everything and returns what is amiss, the worst first.
func (m *Machine) Advise(w Who) []Advice {
	var worst, rest []Advice
	for _, c := range m.Checkup(w) {
		switch {
		case c.Problem == "":
		case c.Blocks:
			worst = append(worst, c.Advice)
		default:
			rest = append(rest, c.Advice)
		}
	}
	return append(worst, rest...)
}

// Limits explains why the user cannot limit containers by these controllers (in
// cgroup v2's names), and what helps; "" when all of them can be used.
func (m *Machine) Limits(w Who, controllers ...string) (problem string, remedy []string) {
	mode := m.Cgroup()
	switch {
	case mode == CgroupNone:
		return "no cgroup hierarchy is mounted: containers cannot be limited", []string{"as root: mount -t cgroup2 none /sys/fs/cgroup"}
	case mode != CgroupV2 && w.UID != 0:
		return "this machine uses cgroup " + mode.String() + ", which ordinary users cannot be given: only root can limit containers",
			[]string{"as root: boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"}
	case mode != CgroupV2:
		names := controllers[:0:0]
		for _, c := range controllers {
			if c == "io" {
				c = "blkio"
			}
			names = append(names, c)
		}
		missing := m.lacks(names...)
		if len(missing) == 0 {
			return "", nil
		}
		remedy = nil
		for _, c := range missing {
			if c == "memory" {
				remedy = []string{"as root: boot with cgroup_enable=memory swapaccount=1 on the kernel's command line"}
			}
		}
		return "the kernel has these cgroup controllers turned off: " + strings.Join(missing, ", "), remedy
	}
	missing := m.lacks(controllers...)
	if len(missing) == 0 {
		return "", nil
	}
	problem = "these cgroup controllers are not delegated to this session: " + strings.Join(missing, ", ")
	if w.UID == 0 {
		return problem, nil
	}
	if !m.exists("/run/systemd/system") {
		return problem, []string{"as root: give this user a cgroup of its own, with the controllers in cgroup.subtree_control above it"}
	}
	return problem, []string{
		`as root: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload`,
		"then log out and in again",
	}
}

// Session explains what the lack of a login session means for an ordinary user.
func (m *Machine) Session(w Who) (problem string, remedy []string) {
	if w.UID == 0 || !m.exists("/run/systemd/system") || m.exists("/run/user/"+strconv.Itoa(w.UID)) {
		return "", nil
	}
	name := w.Name
	if name == "" {
		name = strconv.Itoa(w.UID)
	}
	return "this user has no session of systemd (su, cron and ssh may start without one): containers cannot be limited and may end with whatever started them",
		[]string{"as root: loginctl enable-linger " + name}
}

// Storage explains why dir cannot hold images and containers; "" when it can.
// A directory that is not there yet is judged by its parent.
func Storage(dir string) (problem string, remedy []string) {
	if dir == "" {
		return "", nil
	}
	fs, err := FileSystem(dir)
	for up := dir; err != nil && up != "/" && up != "."; {
		up = filepath.Dir(up)
		fs, err = FileSystem(up)
	}
	if err != nil {
		return "", nil
	}
	ok, why := Layers(fs)
	if ok {
		return "", nil
	}
	return dir + " is on " + fs + ": " + why, []string{"set ISLE_ROOT to a directory on a local disk"}
}
