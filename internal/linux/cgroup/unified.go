package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// callers is the leaf that the processes of a delegated group move into, so that
// the group can hand out controllers.
const callers = "isle-callers"

// makeV2 makes the container's group in the v2 hierarchy and writes the limits
// whose controllers are there.
func (m *maker) makeV2() error {
	if m.host.v2mount == "" {
		if len(m.v2) > 0 {
			return errs.New(errs.Unsupported, "%s: this machine has no %s controller", m.v2[0].what, m.v2[0].controller)
		}
		return nil
	}
	var want []string
	for _, n := range m.v2 {
		c := v2name(n.controller)
		if c == "" {
			return errs.New(errs.Unsupported, "%s: cgroup v2 has none", n.what)
		}
		if text, err := m.host.v2mount.read("cgroup.controllers"); err == nil && !hasWord(text, c) && m.host.visibleRoot() {
			return errs.Hint(errs.New(errs.Unsupported, "%s: this machine has no %s controller", n.what, c),
				"it may be switched off on the kernel's command line (cgroup_disable, cgroup_no_v1), or be missing in the kernel")
		}
		want = append(want, c)
	}
	if len(m.v2) == 0 && !m.request.Systemd {
		if err := m.makeUnlimited(); err != nil || m.request.Resources == nil || len(m.request.Resources.Unified) == 0 {
			return err
		}
		// Files that need no controller.
		if m.group.paths.V2 == "" {
			return errs.New(errs.Denied, "cgroup files: this user may not make cgroups here")
		}
		return unified(dir(m.group.paths.V2), m.request.Resources.Unified)
	}
	var base location
	var err error
	if strings.HasPrefix(m.request.Parent, "/") && !m.request.Systemd {
		base = location{m.host.v2mount, m.host.v2mount}
	} else if base, err = m.base(); err != nil {
		return fmt.Errorf("%s: %w", m.reason(), err)
	}
	parent, d, err := m.place(base)
	if err != nil {
		return fmt.Errorf("%s: %w", m.reason(), err)
	}
	for _, n := range m.v2 {
		if err := checkAncestors(parent, n.controller, true, m.request.Resources); err != nil {
			return err
		}
	}
	// Every directory on the way down must hand the controllers on.
	for up := base.dir; ; {
		if err := m.enable(up, want); err != nil {
			return err
		}
		if up == parent.dir {
			break
		}
		next, _, _ := strings.Cut(strings.TrimPrefix(string(parent.dir[len(up):]), "/"), "/")
		up = up.join(next)
	}
	if kind, err := d.read("cgroup.type"); err == nil && kind != "domain" {
		return errs.New(errs.Unsupported, "%s: cgroup %s is in threaded mode, where containers cannot live", m.reason(), parent.dir)
	}
	m.group.paths.V2 = string(d)
	for _, n := range m.v2 {
		if strings.HasPrefix(n.what, "cgroup file ") {
			continue // all of them below, after the limits that they may refine
		}
		if err := m.group.apply(d, n.controller, true, m.request.Resources); err != nil {
			return err
		}
	}
	if m.request.Resources == nil {
		return nil
	}
	return unified(d, m.request.Resources.Unified)
}

// reason is what the v2 group is needed for, in messages.
func (m *maker) reason() string {
	if len(m.v2) > 0 {
		return m.v2[0].what
	}
	return "cgroup of a systemd unit"
}

// makeUnlimited makes a group without controllers where the caller may, and none
// where it may not: it is good for kill, freeze and statistics only.
func (m *maker) makeUnlimited() error {
	named := m.request.Parent != ""
	own, err := m.host.ownIn("")
	if err != nil {
		if named {
			return fmt.Errorf("cgroup parent %s: %w", m.request.Parent, err)
		}
		return nil
	}
	base := own
	if own.dir.base() == callers {
		base.dir = own.dir.up()
	}
	_, d, err := m.place(base)
	if err == nil {
		err = mayJoin(own.dir, d)
	}
	switch {
	case err == nil:
	case !named && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)):
		m.noGroup = err
		return m.undo()
	case named:
		return fmt.Errorf("cgroup parent %s: %w", m.request.Parent, err)
	default:
		return err
	}
	if kind, err := d.read("cgroup.type"); err == nil && kind != "domain" {
		// Below a threaded group a process cannot be put without more ado.
		m.noGroup = errs.New(errs.Unsupported, "cgroup %s: is in threaded mode, or has processes and hands out controllers", own.dir)
		return m.undo()
	}
	m.group.paths.V2 = string(d)
	return nil
}

// mayJoin reports whether a process may be moved from one group to below
// another: that takes write access to cgroup.procs of their common ancestor
// (cgroups(7), delegation containment).
func mayJoin(from, to dir) error {
	common := to
	for !within(from, common) {
		common = common.up()
	}
	if !common.writable("cgroup.procs") {
		return &os.PathError{Op: "move to", Path: string(to), Err: unix.EACCES}
	}
	return nil
}

// within reports whether d is above or the same as ancestor's subtree.
func within(d, ancestor dir) bool {
	return d == ancestor || strings.HasPrefix(string(d), strings.TrimSuffix(string(ancestor), "/")+"/")
}

// visibleRoot reports whether the mount shows the true root of the hierarchy,
// which alone has no type.
func (h *Host) visibleRoot() bool { return !h.v2mount.exists("cgroup.type") }

// base returns a directory below which groups with controllers can be made: one
// without processes, or the root.
func (m *maker) base() (location, error) {
	own, err := m.host.ownIn("")
	if err != nil {
		return location{}, err
	}
	switch {
	case m.request.Systemd:
		mgr, err := dial(m.request.Rootless)
		if err != nil {
			return location{}, noManager(err, m.request.Rootless)
		}
		defer mgr.close()
		if m.request.Parent != "" {
			return m.ownScope(mgr, m.request.Parent)
		}
		return m.ownScope(mgr, sharedSlice)
	case own.dir.base() == callers && own.dir.up().writable("cgroup.subtree_control"):
		// Not one that root's isle made and that su brought this user into.
		own.dir = own.dir.up()
		return own, nil
	case own.dir == own.mount && m.host.visibleRoot() && own.dir.writable("cgroup.procs"):
		return own, nil
	}
	mine := own.dir.writable("cgroup.procs") && own.dir.writable("cgroup.subtree_control")
	if !booted() {
		if !mine {
			return location{}, errs.Hint(errs.New(errs.Denied, "cgroup %s: does not belong to this user", own.dir),
				"as root: chown -R USER "+string(own.dir),
				"or run the container without limits")
		}
		return own, evacuate(own.dir)
	}
	mgr, err := dial(m.request.Rootless)
	if err != nil {
		if mine {
			return own, evacuate(own.dir)
		}
		return location{}, noManager(err, m.request.Rootless)
	}
	defer mgr.close()
	if mine && mgr.delegated(own.dir.base()) {
		return own, evacuate(own.dir)
	}
	return m.sharedScope(mgr)
}

// evacuate moves all processes of a group into a leaf below it. Processes can
// fork meanwhile, so it looks until there is none.
func evacuate(d dir) error {
	leaf := d.join(callers)
	if err := unix.Mkdir(string(leaf), 0o755); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "mkdir", Path: string(leaf), Err: err}
	}
	for range 20 {
		text, err := d.read("cgroup.procs")
		if err != nil {
			return err
		}
		if text == "" {
			return nil
		}
		for pid := range strings.FieldsSeq(text) {
			if pid == "0" {
				return errs.New(errs.Denied, "cgroup %s: holds processes of another pid namespace, which keep it from handing out controllers", d)
			}
			if err := leaf.write("cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("make room in cgroup %s: %w", d, err)
			}
		}
	}
	return errs.New(errs.Unavailable, "cgroup %s: new processes appear faster than they can be moved into %s", d, callers)
}

// useful are the controllers that are switched on along with the wanted ones,
// for statistics and later limits.
var useful = [...]string{"memory", "cpu", "pids", "io", "cpuset"}

// enable makes d hand controllers to the groups below it.
func (m *maker) enable(d dir, want []string) error {
	available, err := d.read("cgroup.controllers")
	if err != nil {
		return fmt.Errorf("%s: %w", m.reason(), err)
	}
	enabled, err := d.read("cgroup.subtree_control")
	if err != nil {
		return fmt.Errorf("%s: %w", m.reason(), err)
	}
	must, all := "", ""
	for i, c := range want {
		if !hasWord(available, c) {
			return m.notDelegated(m.v2[i], c, d, available)
		}
		if !hasWord(enabled, c) && !hasWord(must, "+"+c) {
			must += " +" + c
		}
	}
	if must == "" {
		return nil
	}
	all = must
	for _, c := range useful {
		if hasWord(available, c) && !hasWord(enabled, c) && !hasWord(all, "+"+c) {
			all += " +" + c
		}
	}
	if d.write("cgroup.subtree_control", all[1:]) == nil {
		return nil
	}
	var last error
	// A process that starts another isle at this moment may just be on its way
	// from here to the leaf.
	ok, _ := await(func() (bool, error) {
		last = d.write("cgroup.subtree_control", must[1:])
		return !errors.Is(last, unix.EBUSY), nil
	})
	if !ok {
		pids, _ := d.read("cgroup.procs") // only to say more
		return errs.New(errs.Conflict, "%s: cgroup %s cannot hand out controllers while processes are in it: %s",
			m.reason(), d, strings.Join(strings.Fields(pids), " "))
	}
	if last != nil {
		return fmt.Errorf("%s: %w", m.reason(), last)
	}
	return nil
}

// notDelegated says that a controller does not reach d.
func (m *maker) notDelegated(n need, controller string, d dir, available string) error {
	if available == "" {
		available = "none"
	}
	err := errs.New(errs.Denied, "%s: the %s controller is not available in cgroup %s (available: %s)", n.what, controller, d, available)
	if booted() && m.request.Rootless {
		return errs.Hint(err, delegationHints()...)
	}
	return errs.Hint(err, "whoever made that cgroup must write +"+controller+" to cgroup.subtree_control of its parent")
}

// delegationHints is how root gives controllers to users.
func delegationHints() []string {
	return []string{
		`as root: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload`,
		"then end all sessions of this user and log in again, or reboot",
	}
}

// noManager explains why there is no systemd to ask.
func noManager(err error, rootless bool) error {
	if !rootless {
		return errs.As(errs.Unavailable, fmt.Errorf("systemd: %w", err))
	}
	err = errs.As(errs.Denied, fmt.Errorf("the cgroups of this session belong to root, and the user's own systemd does not answer: %w", err))
	return errs.Hint(err,
		"as root: loginctl enable-linger "+strconv.Itoa(hostUID()),
		"and set XDG_RUNTIME_DIR=/run/user/"+strconv.Itoa(hostUID()))
}

// booted reports whether systemd is the init of this system (sd_booted(3)).
func booted() bool { return unix.Access("/run/systemd/system", unix.F_OK) == nil }

// hostUID returns the effective uid as the initial user namespace has it, as far
// as that can be seen.
func hostUID() int {
	uid := os.Geteuid()
	text, err := dir("/proc/self").read("uid_map")
	if err != nil {
		return uid
	}
	for line := range strings.Lines(text) {
		var inside, outside, count int
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && uid >= inside && uid < inside+count {
			return outside + uid - inside
		}
	}
	return uid
}
