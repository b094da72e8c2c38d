package cgroup

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// usual is where every distribution mounts the hierarchies.
const usual = "/sys/fs/cgroup"

// Host is what a process needs to know of the machine's cgroups to make one:
// which hierarchies there are, and where it is in them itself.
type Host struct {
	own     []membership
	v2mount dir // "" if no v2 hierarchy is mounted
	mode    string
}

// membership is one line of /proc/PID/cgroup.
type membership struct {
	controllers string // comma-separated; empty for v2; "name=…" for a hierarchy without
	path        string // from the root of the hierarchy, as far as the cgroup namespace shows it
}

// Detect looks at the machine. It costs a few system calls; what is needed later
// is looked up later.
func Detect() (*Host, error) {
	own, err := memberships("self")
	if err != nil {
		return nil, err
	}
	h := &Host{own: own}
	v1 := false
	for _, m := range own {
		v1 = v1 || m.controllers != "" && !strings.HasPrefix(m.controllers, "name=")
	}
	switch {
	case fsType(usual) == unix.CGROUP2_SUPER_MAGIC:
		h.v2mount = usual
	case fsType(usual+"/unified") == unix.CGROUP2_SUPER_MAGIC:
		h.v2mount = usual + "/unified"
	default:
		if m, _, err := findMount("cgroup2", ""); err == nil {
			h.v2mount = m
		}
	}
	switch {
	case h.v2mount == usual, h.v2mount != "" && !v1:
		h.mode = "v2"
	case h.v2mount != "":
		h.mode = "hybrid"
	case v1:
		h.mode = "v1"
	}
	return h, nil
}

// Mode is "v1", "hybrid" or "v2"; "" where no cgroup file system is mounted.
func (h *Host) Mode() string { return h.mode }

func memberships(pid string) ([]membership, error) {
	text, err := dir("/proc/" + pid).read("cgroup")
	if err != nil {
		return nil, err
	}
	var out []membership
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if ok {
			out = append(out, membership{controllers, path})
		}
	}
	return out, nil
}

// on returns the membership in the hierarchy of controller, "" for v2.
func on(list []membership, controller string) (membership, bool) {
	for _, m := range list {
		if m.controllers == controller {
			return m, true
		}
		for c := range strings.SplitSeq(m.controllers, ",") {
			if c == controller {
				return m, true
			}
		}
	}
	return membership{}, false
}

// isV1 reports whether controller is on a v1 hierarchy.
func (h *Host) isV1(controller string) bool {
	_, ok := on(h.own, controller)
	return ok && controller != "" && h.mode != "v2"
}

// location is a directory and the mount point that it lies below: how far up one
// can look.
type location struct{ dir, mount dir }

// ancestors calls f for the location's directory and all above it, until f
// returns false.
func (l location) ancestors(f func(dir) bool) {
	for d := l.dir; f(d) && len(d) > len(l.mount); d = d.up() {
	}
}

// ownIn returns the calling process's directory in the hierarchy of controller,
// "" for v2.
func (h *Host) ownIn(controller string) (location, error) {
	return h.locate(h.own, controller)
}

// locate finds where the process with these memberships is.
func (h *Host) locate(list []membership, controller string) (location, error) {
	m, ok := on(list, controller)
	if !ok || controller == "" && h.v2mount == "" {
		return location{}, errs.New(errs.Unsupported, "cgroup: this machine has no %s controller", controller)
	}
	mount := h.v2mount
	if controller != "" {
		mount = ""
		for _, name := range []string{m.controllers, strings.TrimPrefix(controller, "name=")} {
			if fsType(usual+"/"+name) == unix.CGROUP_SUPER_MAGIC {
				mount = dir(usual + "/" + name)
				break
			}
		}
	}
	if mount != "" && !strings.HasPrefix(m.path, "/..") {
		if d := mount.join(strings.Trim(m.path, "/")); m.path == "/" {
			return location{mount, mount}, nil
		} else if d.exists("cgroup.procs") {
			return location{d, mount}, nil
		}
	}
	// Mounted elsewhere, or a container was given only its own part of the
	// hierarchy without a cgroup namespace: then the mount's root is not "/".
	fs := "cgroup"
	if controller == "" {
		fs = "cgroup2"
	}
	mount, root, err := findMount(fs, controller)
	if err != nil {
		return location{}, err
	}
	rest, ok := strings.CutPrefix(m.path, strings.TrimSuffix(root, "/"))
	if !ok || strings.HasPrefix(m.path, "/..") {
		return location{}, errs.New(errs.Unsupported, "cgroup %s: lies outside of what is mounted at %s", m.path, mount)
	}
	if rest = strings.Trim(rest, "/"); rest == "" {
		return location{mount, mount}, nil
	}
	return location{mount.join(rest), mount}, nil
}

// fsType returns the type of the file system at path, 0 if there is none.
func fsType(path string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Type) //nolint:unconvert // not int64 on all architectures
}

// findMount looks in mountinfo for a hierarchy that shows the most, and returns
// its mount point and which directory of the hierarchy that is.
func findMount(fs, controller string) (mount dir, root string, err error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(data)) {
		// id parent major:minor root mountpoint options … - type source options
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 || g[0] != fs {
			continue
		}
		if controller != "" && !hasWord(g[2], controller) {
			continue
		}
		if mount == "" || len(f[3]) < len(root) {
			mount, root = dir(unescape(f[4])), unescape(f[3])
		}
	}
	if mount == "" {
		return "", "", errs.New(errs.Unsupported, "cgroup: no file system of type %s %s is mounted", fs, controller)
	}
	return mount, root, nil
}

func hasWord(list, word string) bool {
	for w := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		if w == word {
			return true
		}
	}
	return false
}

// unescape undoes the octal escapes of mountinfo (proc(5)).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
