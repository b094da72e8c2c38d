package host

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// CgroupMode is how the cgroup hierarchies are laid out.
type CgroupMode uint8

// The layouts.
const (
	CgroupNone   CgroupMode = iota // nothing is mounted
	CgroupV1                       // controllers on v1 hierarchies, no v2
	CgroupHybrid                   // controllers on v1, and a v2 hierarchy without
	CgroupV2                       // one hierarchy
)

// String returns the layout in words.
func (c CgroupMode) String() string {
	return [...]string{"none", "v1", "hybrid", "v2"}[c]
}

// Cgroup returns the layout of the cgroup hierarchies.
func (m *Machine) Cgroup() CgroupMode {
	return m.cgroup.get(func() CgroupMode {
		is := func(dir string, magic int64) bool {
			var st unix.Statfs_t
			return unix.Statfs(m.root+dir, &st) == nil && st.Type == magic
		}
		switch {
		case is("/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC):
			return CgroupV2
		case is("/sys/fs/cgroup/unified", unix.CGROUP2_SUPER_MAGIC), is("/sys/fs/cgroup/cgroup2", unix.CGROUP2_SUPER_MAGIC):
			return CgroupHybrid
		}
		mode := CgroupNone
		for line := range strings.Lines(m.text("/proc/self/mountinfo")) {
			switch _, rest, _ := strings.Cut(line, " - "); {
			case strings.HasPrefix(rest, "cgroup2 "):
				if mode == CgroupV1 {
					return CgroupHybrid
				}
				mode = CgroupHybrid
			case strings.HasPrefix(rest, "cgroup "):
				if mode == CgroupHybrid {
					return CgroupHybrid
				}
				mode = CgroupV1
			}
		}
		return mode
	})
}

// Controllers returns the cgroup controllers that the caller's own cgroup can
// hand on to containers: on v2 those delegated to it, on v1 those enabled.
func (m *Machine) Controllers() []string {
	if m.Cgroup() == CgroupV2 {
		return strings.Fields(m.line("/sys/fs/cgroup" + m.ownV2() + "/cgroup.controllers"))
	}
	var all []string
	// #subsys_name hierarchy num_cgroups enabled
	for line := range strings.Lines(m.text("/proc/cgroups")) {
		if f := strings.Fields(line); len(f) == 4 && f[0][0] != '#' && f[3] == "1" {
			all = append(all, f[0])
		}
	}
	return all
}

// ownV2 returns the caller's path in the v2 hierarchy.
func (m *Machine) ownV2() string {
	for line := range strings.Lines(m.text("/proc/self/cgroup")) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return strings.TrimSuffix(p, "/")
		}
	}
	return ""
}

func (m *Machine) lacks(controllers ...string) []string {
	have := m.Controllers()
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	return missing
}
