package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// OCI says which group to make for a container of an OCI runtime: one at the
// place that the spec names, in every hierarchy there is, as other runtimes make
// it and as those who call them expect to find it.
type OCI struct {
	// Path is linux.cgroupsPath. Absolute: from the root of each hierarchy;
	// relative: below the caller's own group, on v2 beside it; "": as the
	// relative path ID. With Systemd it is slice:prefix:name.
	Path string
	ID   string
	// Resources are the limits; nil for none, but devices are filtered anyhow.
	Resources *specs.LinuxResources
	// Systemd asks for a scope unit. It is made by Attach, as systemd makes no
	// unit without a process.
	Systemd bool
	// Properties of the unit, from the annotations org.systemd.property.NAME.
	Properties map[string]string
	// Rootless: what needs no limit and has no Path may be left out where the
	// caller may not make groups; devices are not filtered.
	Rootless bool
	// Owner, if set, is given the v2 group (Documentation/admin-guide/cgroup-v2.rst,
	// Delegation): a uid as the caller's user namespace has it.
	Owner *int
}

// CreateOCI makes the group and writes its limits. A group that is there already
// is used if no process is in it. An error leaves nothing behind.
func (h *Host) CreateOCI(o OCI) (_ *Group, Err error) {
	o.Resources = atLeastOneTask(o.Resources)
	g := &Group{paths: Paths{Manager: Cgroupfs}}
	m := maker{host: h, group: g, request: Request{Name: o.ID, Resources: o.Resources, Rootless: o.Rootless}}
	defer func() {
		if Err != nil {
			_ = g.Close() // no data in it
			Err = errors.Join(Err, m.undo())
		}
	}()
	if err := g.outdated(o.Resources); err != nil {
		return nil, err
	}
	for _, n := range needs(o.Resources, true) {
		if h.isV1(n.controller) {
			m.v1 = append(m.v1, n)
		} else {
			m.v2 = append(m.v2, n)
		}
	}
	if o.Resources != nil && len(o.Resources.Unified) > 0 {
		if h.mode != "v2" {
			return nil, errs.New(errs.Invalid, "invalid configuration: cannot use unified on cgroup v1")
		}
		for name := range o.Resources.Unified {
			if err := checkUnified(name); err != nil {
				return nil, err
			}
		}
	}
	if o.Systemd {
		return g, m.prepareUnit(o)
	}
	inner := o.Path
	if inner == "" {
		inner = o.ID
	}
	if strings.ContainsRune(inner, 0) {
		return nil, errs.New(errs.Invalid, "cgroupsPath %q: holds a NUL byte", inner)
	}
	absolute := strings.HasPrefix(inner, "/")
	// As if it were from the root: no ".." leads out of the hierarchy.
	inner = path.Clean("/" + inner)
	if inner == "/" {
		return nil, errs.New(errs.Invalid, "cgroupsPath %q: names the root of the hierarchies", o.Path)
	}
	if err := m.ociV1(o, absolute, inner); err != nil {
		return nil, err
	}
	if err := m.ociV2(o, absolute, inner); err != nil {
		return nil, err
	}
	return g, m.ociDevices(o)
}

// outdated tells of limits that no kernel has any more.
func (g *Group) outdated(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if m := r.Memory; m != nil && (m.Kernel != nil || m.KernelTCP != nil) { //nolint:staticcheck // deprecated, and given
		g.warn("Kernel memory settings are ignored and will be removed")
	}
	if b := r.BlockIO; b != nil {
		leaf := b.LeafWeight != nil && *b.LeafWeight != 0
		for _, d := range b.WeightDevice {
			leaf = leaf || d.LeafWeight != nil && *d.LeafWeight != 0
		}
		if leaf {
			return errs.New(errs.Unsupported, "block I/O leaf weight: belonged to CFQ, which the kernel has no more")
		}
	}
	return nil
}

// noRights reports whether err says that the caller may not make groups.
func noRights(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// without decides what a rootless caller without rights gets: a container
// without a group, if nothing asked for one.
func (m *maker) without(o OCI, err error) error {
	switch {
	case !o.Rootless || !noRights(err):
		return fmt.Errorf("unable to apply cgroup configuration: %w", err)
	case o.Path != "":
		return fmt.Errorf("unable to apply cgroup configuration: %w", err)
	case len(m.v1) > 0 || len(m.v2) > 0 || o.Resources != nil && len(o.Resources.Unified) > 0:
		return fmt.Errorf("unable to apply cgroup configuration: rootless needs no limits + no cgrouppath when no permission is granted for cgroups: %w", err)
	}
	return nil
}

// ociV1 makes a group in each v1 hierarchy, those without a controller included,
// and writes its limits.
func (m *maker) ociV1(o OCI, absolute bool, inner string) error {
	if m.host.mode == "v2" {
		return nil
	}
	for _, own := range m.host.own {
		if own.controllers == "" {
			continue
		}
		first, _, _ := strings.Cut(own.controllers, ",")
		at, err := m.host.locate(m.host.own, first)
		if err != nil {
			continue // not mounted: then it has no limits either (below)
		}
		if absolute {
			at.dir = at.mount
		}
		d, err := m.mkdirs(at, inner, func(d dir) error {
			if hasWord(own.controllers, "cpuset") {
				return inheritCpuset(d, at.mount)
			}
			return nil
		})
		if err != nil {
			if err = m.without(o, err); err == nil {
				continue
			}
			return err
		}
		if err := vacant(d, hasWord(own.controllers, "freezer")); err != nil {
			return err
		}
		if m.group.paths.V1 == nil {
			m.group.paths.V1 = map[string]string{}
		}
		for c := range strings.SplitSeq(own.controllers, ",") {
			m.group.paths.V1[c] = string(d)
		}
	}
	for _, n := range m.v1 {
		d := dir(m.group.paths.V1[n.controller])
		if d == "" {
			return errs.New(errs.Unsupported, "cannot set %s limit: container could not join or create cgroup", n.controller)
		}
		if err := m.group.apply(d, n.controller, false, m.request.Resources); err != nil {
			return err
		}
	}
	return nil
}

// ociV2 makes the group in the v2 hierarchy. On hybrid hosts it has no limits.
func (m *maker) ociV2(o OCI, absolute bool, inner string) error {
	if m.host.v2mount == "" {
		if len(m.v2) > 0 {
			return errs.New(errs.Unsupported, "cannot set %s limit: this machine has no %s controller", m.v2[0].controller, m.v2[0].controller)
		}
		return nil
	}
	at, err := m.host.ownIn("")
	if err != nil {
		return err
	}
	switch {
	case absolute:
		at.dir = at.mount
	case m.host.mode == "v2" && at.dir != at.mount:
		// The caller's group has processes, and so cannot hand out controllers.
		at.dir = at.dir.up()
	}
	made := len(m.made)
	d, err := m.mkdirs(at, inner, m.fit)
	if err == nil {
		err = m.mayHold(d)
	}
	if err != nil {
		if err = m.without(o, err); err == nil {
			for _, d := range slices.Backward(m.made[made:]) {
				_ = unix.Rmdir(string(d)) // empty; what is in use stays
			}
			m.made = m.made[:made]
		}
		return err
	}
	if err := vacant(d, true); err != nil {
		return err
	}
	m.group.paths.V2 = string(d)
	return m.limitOCI(d, o)
}

// limitOCI writes the limits of a v2 group and gives it to its owner.
func (m *maker) limitOCI(d dir, o OCI) error {
	for _, n := range m.v2 {
		c := v2name(n.controller)
		if c == "" {
			return errs.New(errs.Unsupported, "%s: cgroup v2 has none", n.what)
		}
		if text, err := d.read("cgroup.controllers"); err == nil && !hasWord(text, c) {
			return errs.New(errs.Unsupported, "cannot set %s limit: controller %q not available in cgroup %s (available: %s)", n.controller, c, d, text)
		}
		if err := m.group.apply(d, n.controller, true, m.request.Resources); err != nil {
			return err
		}
	}
	if m.request.Resources != nil {
		if err := unified(d, m.request.Resources.Unified); err != nil {
			return err
		}
	}
	if o.Owner != nil && m.host.mode == "v2" {
		return delegate(d, *o.Owner)
	}
	return nil
}

// mayHold reports whether the caller may put a process into d.
func (m *maker) mayHold(d dir) error {
	own, err := m.host.ownIn("")
	if err != nil || !m.request.Rootless {
		return err
	}
	return mayJoin(own.dir, d)
}

// fit makes a new group on the way fit for the container: its parent hands on
// every controller it has, and it is a domain, or a thread domain where nothing
// but that is possible and the limits allow it.
func (m *maker) fit(d dir) error {
	if m.host.mode == "v2" {
		parent := d.up()
		if text, err := parent.read("cgroup.controllers"); err == nil && text != "" {
			all := "+" + strings.Join(strings.Fields(text), " +")
			if parent.write("cgroup.subtree_control", all) != nil {
				for c := range strings.FieldsSeq(all) {
					_ = parent.write("cgroup.subtree_control", c) // a limit that needs it says so
				}
			}
		}
	}
	kind, err := d.read("cgroup.type")
	if err != nil || kind == "domain" {
		return nil //nolint:nilerr // the root, or a kernel older than thread mode
	}
	for _, n := range m.v2 {
		switch n.controller {
		case "memory", "blkio", "hugetlb", "rdma":
			return errs.New(errs.Unsupported, "cannot enter cgroupv2 %q with domain controllers -- it is in %s mode", d, kind)
		}
	}
	if kind == "domain invalid" {
		return d.write("cgroup.type", "threaded")
	}
	return nil
}

// mkdirs makes inner below at, and calls each for every directory on the way.
func (m *maker) mkdirs(at location, inner string, each func(dir) error) (dir, error) {
	d := at.dir
	for part := range strings.SplitSeq(strings.Trim(inner, "/"), "/") {
		d = d.join(part)
		if err := m.mkdir(d); err != nil && !errors.Is(err, unix.EEXIST) {
			return "", err
		}
		if err := each(d); err != nil {
			return "", err
		}
	}
	return d, nil
}

// vacant refuses a group that has processes, which would be killed and counted
// with the container's, or that is frozen, where the container would hang.
func vacant(d dir, freezer bool) error {
	pids, err := procs(d)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return errs.New(errs.Conflict, "container's cgroup is not empty: %d process(es) found in %s", len(pids), d)
	}
	if freezer && frozen(d) {
		return errs.New(errs.Conflict, "container's cgroup unexpectedly frozen: %s", d)
	}
	return nil
}

// frozen reports whether the group of a v2 hierarchy or of the v1 freezer is
// frozen or on its way there.
func frozen(d dir) bool {
	if text, err := d.read("cgroup.freeze"); err == nil {
		return text == "1"
	}
	text, err := d.read("freezer.state")
	return err == nil && text != "THAWED"
}

// Frozen reports whether the group is frozen, by whomever.
func (g *Group) Frozen() bool {
	for _, d := range [...]string{g.paths.V1["freezer"], g.paths.V2} {
		if d != "" && frozen(dir(d)) {
			return true
		}
	}
	return false
}

// UpdateOCI changes limits of a group that CreateOCI made. Unlike Update it
// leaves it to the kernel whether a limit fits those above it, as other runtimes do.
func (g *Group) UpdateOCI(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	r = atLeastOneTask(r)
	if err := g.outdated(r); err != nil {
		return err
	}
	if g.paths.Unit != "" && (dir(g.paths.V2).base() == g.paths.Unit || dir(g.paths.V1["name=systemd"]).base() == g.paths.Unit) {
		group := dir(g.paths.V2)
		if len(g.paths.V1) > 0 {
			group = ""
		}
		props, rounded, err := unitLimits(group, r, len(g.paths.V1) == 0, g.warn)
		if err != nil {
			return err
		}
		r = rounded
		mgr, err := dial(hostUID() != 0)
		if err != nil {
			return noManager(err, hostUID() != 0)
		}
		err = mgr.setUnit(g.paths.Unit, props)
		mgr.close()
		if err != nil {
			return scopeError(g.paths.Unit, err)
		}
	}
	for _, n := range needs(r, true) {
		d, v2 := dir(g.paths.V1[n.controller]), false
		if d == "" && len(g.paths.V1) == 0 {
			d, v2 = dir(g.paths.V2), true
		}
		if d == "" {
			return errs.New(errs.Unsupported, "cannot set %s limit: container could not join or create cgroup", n.controller)
		}
		if err := g.apply(d, n.controller, v2, r); err != nil {
			return err
		}
	}
	if len(r.Unified) > 0 {
		if g.paths.V2 == "" || len(g.paths.V1) > 0 {
			return errs.New(errs.Invalid, "invalid configuration: cannot use unified on cgroup v1")
		}
		if err := unified(dir(g.paths.V2), r.Unified); err != nil {
			return err
		}
	}
	if len(r.Devices) == 0 {
		return nil
	}
	rules, err := g.ociRules(r)
	if err != nil {
		return err
	}
	if d := g.paths.V1["devices"]; d != "" {
		return writeDevicesV1(dir(d), rules)
	}
	if g.paths.V2 == "" {
		return errs.New(errs.Unsupported, "device rules: the container has no cgroup")
	}
	return setDeviceProgram(g.paths.V2, deviceProgram(rules))
}

// atLeastOneTask makes a limit of no tasks one of one task, as other runtimes do:
// the group's first process is not counted against it anyhow, and systemd takes no 0.
func atLeastOneTask(r *specs.LinuxResources) *specs.LinuxResources {
	if r == nil || r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit != 0 {
		return r
	}
	one, clone := int64(1), *r
	clone.Pids = &specs.LinuxPids{Limit: &one}
	return &clone
}

// delegate gives a group to a user, who is root of the container's user
// namespace: the directory and the files that the kernel lists for this.
func delegate(d dir, uid int) error {
	text, err := dir("/sys/kernel/cgroup").read("delegate")
	if err != nil {
		text = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads" // Linux < 4.15
	}
	for _, name := range append([]string{"."}, strings.Fields(text)...) {
		// What is not there belongs to a controller that is not on.
		if err := os.Chown(d.file(name), uid, -1); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// ociDefaults are the rules after those of every spec, as other runtimes have
// them: the devices of each container, and making nodes of any kind, which
// cannot be opened.
var ociDefaults = [...]deviceRule{
	{true, 'c', -1, -1, unix.BPF_DEVCG_ACC_MKNOD},
	{true, 'b', -1, -1, unix.BPF_DEVCG_ACC_MKNOD},
	{true, 'c', 1, 3, allAccess},    // null
	{true, 'c', 1, 5, allAccess},    // zero
	{true, 'c', 1, 7, allAccess},    // full
	{true, 'c', 1, 8, allAccess},    // random
	{true, 'c', 1, 9, allAccess},    // urandom
	{true, 'c', 5, 0, allAccess},    // tty
	{true, 'c', 5, 2, allAccess},    // ptmx
	{true, 'c', 136, -1, allAccess}, // pts
	{true, 'c', 10, 200, allAccess}, // net/tun
}

// ociRules returns the device rules of a spec: all is forbidden, then come its
// own, then the defaults.
func (g *Group) ociRules(r *specs.LinuxResources) ([]deviceRule, error) {
	rules := []deviceRule{{kind: 'a', major: -1, minor: -1, access: allAccess}}
	if r != nil {
		list := slices.Clone(r.Devices)
		for i := range list {
			access := list[i].Access
			if access == "" {
				return nil, errs.New(errs.Invalid, "device access at %d field cannot be empty", i)
			}
			// As other runtimes, which look for these three only.
			list[i].Access = strings.Map(func(c rune) rune {
				if strings.ContainsRune("rwm", c) {
					return c
				}
				return -1
			}, access)
			if list[i].Access != access {
				g.warn(fmt.Sprintf("device access %q at %d field: only r, w and m have a meaning", access, i))
			}
		}
		list = slices.DeleteFunc(list, func(d specs.LinuxDeviceCgroup) bool { return d.Access == "" })
		own, err := parseDevices(list)
		if err != nil {
			return nil, err
		}
		rules = append(rules, own...)
	}
	if allowsAll(rules) {
		return nil, nil
	}
	return append(rules, ociDefaults[:]...), nil
}

func (m *maker) ociDevices(o OCI) error {
	rules, err := m.group.ociRules(o.Resources)
	if err != nil || o.Rootless {
		return err
	}
	if d := m.group.paths.V1["devices"]; d != "" {
		if rules == nil {
			return fail("device rules", dir(d).write("devices.allow", "a"))
		}
		return writeDevicesV1(dir(d), rules)
	}
	if rules == nil || m.group.paths.V2 == "" {
		return nil
	}
	if err := setDeviceProgram(m.group.paths.V2, deviceProgram(rules)); err != nil {
		return fmt.Errorf("device rules: %w", err)
	}
	return nil
}

// Hierarchies returns the v1 hierarchies that the group is in, by the names of
// their mount points, with its directory in each: what a mount of type cgroup
// shows.
func (g *Group) Hierarchies() (names, dirs []string) {
	for _, d := range g.v1dirs() {
		mount := d
		for mount.up().exists("cgroup.procs") {
			mount = mount.up()
		}
		names, dirs = append(names, mount.base()), append(dirs, string(d))
	}
	return names, dirs
}
