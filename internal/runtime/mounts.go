package runtime

import (
	"path"
	"sort"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/linux/program"
)

// mount is one mount of the spec on its way to being made.
type mount struct {
	spec *specs.Mount
	dst  string // clean, absolute
	typ  string // "bind" for every bind mount
	opt  mountOptions
	fd   program.Arg // the detached mount, when it exists before its turn
	host program.Slot
	// inner is the source of a bind mount in the container's own tree.
	inner string
	mode  program.Arg // of a tmpfs, as text that the child writes
	// late: becomes read-only when all is in its place (devices, other mounts).
	late bool
}

func (m *mount) cgroup() bool { return m.typ == "cgroup" || m.typ == "cgroup2" }

func (m *mount) step(verb string) program.Step {
	return program.Step{Verb: verb, Type: m.typ, Src: m.spec.Source, Dst: m.dst, Flags: strings.Join(m.spec.Options, ",")}
}

func (c *compiler) parseMounts() ([]mount, error) {
	mounts := make([]mount, len(c.s.Mounts))
	for i := range c.s.Mounts {
		s := &c.s.Mounts[i]
		m := &mounts[i]
		m.spec, m.typ, m.opt = s, s.Type, parseOptions(s.Options)
		// A relative destination is relative to the root (runtime-spec, Mounts).
		m.dst = path.Clean("/" + s.Destination)
		if inner, ok := c.inRoot(m.dst); ok {
			m.dst = inner // as runc: a place in the root, named by its path on the host
		}
		if m.opt.bind {
			m.typ = "bind"
		}
		mapped := m.opt.idmap || len(s.UIDMappings) > 0 || len(s.GIDMappings) > 0
		switch {
		case s.Destination == "" || m.dst == "/":
			return nil, invalid("mount %q: cannot be the root", s.Destination)
		case m.typ == "" || m.typ == "none" && !m.opt.remount:
			return nil, invalid("mount %q: has no type", m.dst)
		case m.opt.remount && len(m.opt.data) > 0:
			return nil, unsupported("mount %q: option %q cannot be changed by a remount", m.dst, m.opt.data[0])
		case m.opt.remount:
		case m.typ == "bind" && s.Source == "" && c.o.Binds[s.Destination] == nil:
			return nil, invalid("mount %q: has no source", m.dst)
		case mapped && m.typ != "bind":
			return nil, invalid("invalid mount %q: id-mapped mounts are only supported for bind-mounts", m.dst)
		case len(s.UIDMappings) > 0 != (len(s.GIDMappings) > 0):
			return nil, invalid("invalid mount %q: id-mapped mounts must have both uid and gid mappings specified", m.dst)
		case m.opt.copyUp && m.typ != "tmpfs":
			return nil, invalid("mount %q: option tmpcopyup is for tmpfs only", m.dst)
		case m.typ == "bind" && len(m.opt.data) > 0:
			return nil, invalid("invalid mount %q: bind mounts cannot have any filesystem-specific options applied: %q", m.dst, m.opt.data[0])
		}
		if m.typ == "bind" {
			m.opt.bind = true
		}
		for _, o := range m.opt.ofFS {
			if m.typ != "bind" && o != "iversion" && o != "noiversion" && o != "acl" && o != "noacl" {
				m.opt.data = append(m.opt.data, o)
				continue
			}
			c.warnings = append(c.warnings, errs.New(errs.Unsupported, "mount %q: option %s has no effect here: it is decided where the file system is mounted first", m.dst, o))
		}
	}
	return mounts, nil
}

// inRoot returns where in the container name is that names a place below its
// root on the host.
func (c *compiler) inRoot(name string) (string, bool) {
	if c.o.Rootfs != nil || c.s.Root == nil || !path.IsAbs(c.s.Root.Path) {
		return "", false
	}
	inner, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(path.Clean(c.s.Root.Path), "/"))
	return inner, ok && path.Clean(c.s.Root.Path) != "/" && strings.HasPrefix(inner, "/")
}

// openSources makes, in the caller's thread, the detached mounts of everything
// that comes from the host: by its names, with its rights, and in its peer
// groups, so that shared and slave propagation mean what they say.
func (c *compiler) openSources(mounts []mount) error {
	p := c.p
	for i := range mounts {
		m := &mounts[i]
		if m.opt.remount {
			continue
		}
		if m.typ == "bind" {
			if err := c.openBind(m); err != nil {
				return err
			}
			continue
		}
		if from := c.hostTwin(m); from != "" {
			// Where the kernel refuses a new instance to a user namespace that
			// does not own what it shows, the host's own is shown instead.
			p.Step(program.Step{Verb: "open host's", Type: m.typ, Src: from})
			m.host = p.Slot("host's " + from)
			p.Call(unix.SYS_OPEN_TREE, program.CWD, p.String(from), program.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)).To(m.host).Ignore(unix.ENOENT)
			p.SetMountAttr(m.host.Arg(), unix.MountAttr{Attr_set: m.opt.set, Propagation: unix.MS_PRIVATE}, true).Ignore(unix.EBADF)
		}
		if m.typ == "cgroup" && len(c.o.CgroupV1) > 0 {
			c.openHierarchies(m)
		}
	}
	return nil
}

// openBind makes the detached mount of a bind mount, unless its source lies in
// the container's own tree: that is what it will be when the mount's turn comes.
func (c *compiler) openBind(m *mount) error {
	p := c.p
	p.Step(m.step("mount"))
	if f := c.o.Binds[m.spec.Destination]; f != nil {
		m.fd = p.File(f)
		c.setAttrs(m.fd, &m.opt)
		return nil
	}
	if inner, ok := c.inRoot(m.spec.Source); ok {
		m.inner = inner
		return nil
	}
	m.fd = c.openTree(m.spec.Source, m.openFlags()).Arg()
	if err := c.mapIDs(m); err != nil {
		return err
	}
	c.setAttrs(m.fd, &m.opt)
	return nil
}

func (m *mount) openFlags() int {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if m.opt.rec {
		flags |= unix.AT_RECURSIVE
	}
	return flags
}

// openInner makes the detached mount of a bind mount from the container's tree.
func (c *compiler) openInner(m *mount) error {
	p := c.p
	at, fd := p.Slot(m.inner), p.Slot(m.spec.Source)
	p.Openat2(c.root, m.inner, unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}).To(at)
	p.Call(unix.SYS_OPEN_TREE, at.Arg(), p.Empty(), program.Int(m.openFlags()|unix.AT_EMPTY_PATH)).To(fd)
	m.fd = fd.Arg()
	if err := c.mapIDs(m); err != nil {
		return err
	}
	c.setAttrs(m.fd, &m.opt)
	return nil
}

func (c *compiler) openTree(src string, flags int) program.Slot {
	s := c.p.Slot(src)
	c.p.Call(unix.SYS_OPEN_TREE, program.CWD, c.p.String(src), program.Int(flags)).To(s)
	return s
}

// hostTwin is the host's mount that can stand in for m, "" where m cannot be
// refused: root of the first user namespace may mount anything, and so may the
// owner of the namespace that the file system shows.
func (c *compiler) hostTwin(m *mount) string {
	if !c.userNS {
		return ""
	}
	switch m.typ {
	case "sysfs":
		if c.ns.new&unix.CLONE_NEWNET == 0 {
			return "/sys"
		}
	case "proc":
		if c.ns.new&unix.CLONE_NEWPID == 0 {
			return "/proc"
		}
	case "mqueue":
		if c.ns.new&unix.CLONE_NEWIPC == 0 {
			return "/dev/mqueue"
		}
	case "cgroup", "cgroup2":
		if !c.ns.newCgroup && len(c.o.CgroupV1) == 0 {
			return "/sys/fs/cgroup"
		}
	}
	return ""
}

// prepareVisible makes the proc and sysfs mounts while the host's are still in
// sight (see the package's theory of operation). Where they are in sight until the
// end, or need not be, the mounts are made in their turn: mountinfo lists mounts
// in the order in which they were made (Linux 6.8), and that of the spec is
// expected there. A proc that the kernel parameters are written through is early.
func (c *compiler) prepareVisible(mounts []mount, late bool) {
	for i := range mounts {
		m := &mounts[i]
		early := m.typ == "sysfs" && c.userNS && !late || m.typ == "proc" && (c.userNS && !late || len(c.s.Linux.Sysctl) > 0)
		if early {
			c.p.Step(m.step("mount"))
			m.fd = c.newMount(m).Arg()
		}
	}
}

// newMount makes a detached mount of a new file system instance.
func (c *compiler) newMount(m *mount) program.Slot {
	p := c.p
	fs, mnt := p.Slot(m.typ+" context"), p.Slot(m.typ)
	refused, done := program.Label(0), program.Label(0)
	if m.host != 0 {
		refused, done = p.NewLabel(), p.NewLabel()
	}
	guard := func(o program.Op) program.Op {
		if m.host != 0 {
			o.Catch(unix.EPERM, refused)
		}
		return o
	}
	typ := m.typ
	if typ == "cgroup" {
		typ = "cgroup2"
	}
	create := func(data []string) {
		guard(p.Call(unix.SYS_FSOPEN, p.String(typ), program.Int(unix.FSOPEN_CLOEXEC)).To(fs))
		if m.spec.Source != "" {
			p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_STRING), p.String("source"), p.String(m.spec.Source), program.Int(0))
		}
		c.fsconfig(fs, data)
		if m.mode != program.Null {
			p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_STRING), p.String("mode"), m.mode, program.Int(0))
		}
	}
	if _, gids := splitOption(m.opt.data, "gid"); typ == "devpts" && gids != "" && c.userNS {
		// The group of terminals is usually 5, which a map of a single id does
		// not have. They then belong to whoever opens them.
		without, _ := splitOption(m.opt.data, "gid")
		unmapped, ok := p.NewLabel(), p.NewLabel()
		p.Call(unix.SYS_FSOPEN, p.String(typ), program.Int(unix.FSOPEN_CLOEXEC)).To(fs)
		if m.spec.Source != "" {
			p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_STRING), p.String("source"), p.String(m.spec.Source), program.Int(0))
		}
		p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_STRING), p.String("gid"), p.String(gids), program.Int(0)).Catch(unix.EINVAL, unmapped)
		c.fsconfig(fs, without)
		p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_CMD_CREATE), program.Null, program.Null, program.Int(0)).Catch(unix.EINVAL, unmapped)
		p.Jump(ok)
		p.Place(unmapped)
		create(without)
		p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_CMD_CREATE), program.Null, program.Null, program.Int(0))
		p.Place(ok)
	} else {
		create(m.opt.data)
		guard(p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_CMD_CREATE), program.Null, program.Null, program.Int(0)))
	}
	attrs := m.opt.set | m.opt.rset | m.opt.atime
	if m.late {
		attrs &^= unix.MOUNT_ATTR_RDONLY
	}
	guard(p.Call(unix.SYS_FSMOUNT, fs.Arg(), program.Int(unix.FSMOUNT_CLOEXEC), program.Uint(attrs)).To(mnt))
	if m.opt.prop != 0 && m.opt.prop != unix.MS_PRIVATE {
		p.SetMountAttr(mnt.Arg(), unix.MountAttr{Propagation: m.opt.prop}, false)
	}
	if m.host != 0 {
		p.Jump(done)
		p.Place(refused)
		p.Set(mnt, m.host.Arg())
		p.Place(done)
	}
	return mnt
}

func (c *compiler) fsconfig(fs program.Slot, data []string) {
	p := c.p
	for _, kv := range data {
		k, v, hasValue := strings.Cut(kv, "=")
		if !hasValue {
			p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_FLAG), p.String(k), program.Null, program.Int(0))
			continue
		}
		p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_STRING), p.String(k), p.String(v), program.Int(0))
	}
}

// splitOption returns data without the option key, and its value.
func splitOption(data []string, key string) (rest []string, value string) {
	for _, kv := range data {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			value = v
			continue
		}
		rest = append(rest, kv)
	}
	return rest, value
}

// mount puts one mount into the container's tree.
func (c *compiler) mount(m *mount) error {
	p := c.p
	p.Step(m.step("mount"))
	if m.opt.remount {
		c.remount(m)
		return nil
	}
	if m.typ == "cgroup" && len(c.o.CgroupV1) > 0 {
		c.mountHierarchies(m)
		return nil
	}
	if m.inner != "" {
		if err := c.openInner(m); err != nil {
			return err
		}
	}
	var source program.Arg // whose type a missing target gets; none: a directory
	if m.typ == "bind" {
		source = m.fd
	}
	t, missing := c.target(m.dst, source)
	m.late = m.opt.set&unix.MOUNT_ATTR_RDONLY != 0 && (m.typ == "tmpfs" || m.dst == "/dev" && m.typ != "bind")
	if m.fd == program.Null {
		if label := c.s.Linux.MountLabel; label != "" && (m.typ == "tmpfs" || m.typ == "mqueue" || m.typ == "devpts") {
			m.opt.data = append(m.opt.data, "context="+label)
		}
		c.newMountOn(m, t, missing)
	}
	move := p.MoveMount(m.fd, t.Arg())
	if m.typ == "bind" {
		c.explainMismatch(move, m.fd, t.Arg())
	}
	if m.typ == "mqueue" && m.host != 0 {
		move.Ignore(unix.EBADF) // the host has none either, and its queues are what is asked for
	}
	if m.late {
		c.late = append(c.late, m)
	}
	switch {
	case m.dst == "/dev" && m.typ != "bind":
		c.dev = p.Slot("/dev")
		p.Set(c.dev, m.fd)
		c.emptyDev = m.typ == "tmpfs" && !m.opt.copyUp
		c.makeDevices(m.fd)
	case m.dst == "/dev/pts" && m.typ == "devpts":
		c.pts = p.Slot("/dev/pts")
		p.Set(c.pts, m.fd)
	}
	return nil
}

// newMountOn makes the mount for target t. As runc: a tmpfs without a mode of
// its own has that of the directory it covers, one whose target was missing the
// kernel's 1777.
func (c *compiler) newMountOn(m *mount, t, missing program.Slot) {
	p := c.p
	_, mode := splitOption(m.opt.data, "mode")
	switch {
	case m.opt.copyUp:
		m.fd = c.copyUp(m, t)
	case m.typ != "tmpfs" || mode != "":
		m.fd = c.newMount(m).Arg()
	default:
		made, fresh, done := p.Slot("tmpfs"), p.NewLabel(), p.NewLabel()
		p.IfSet(missing, fresh)
		perm := p.Slot("mode")
		m.mode = p.Buffer(8)
		st, _ := p.Fstat(t.Arg())
		p.LoadMode(perm, st)
		p.Octal(m.mode, perm.Arg())
		p.Set(made, c.newMount(m).Arg())
		p.Jump(done)
		p.Place(fresh)
		m.mode = program.Null
		p.Set(made, c.newMount(m).Arg())
		p.Place(done)
		m.fd = made.Arg()
	}
}

// remount changes the attributes of what is mounted at the target.
func (c *compiler) remount(m *mount) {
	t, _ := c.target(m.dst, program.Null)
	o := m.opt
	attr := unix.MountAttr{Attr_set: o.set, Attr_clr: plain &^ o.set, Propagation: o.prop}
	if o.atimes {
		attr.Attr_set |= o.atime
		attr.Attr_clr |= unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME&^o.atime
	}
	c.p.SetMountAttr(t.Arg(), attr, false)
	if o.rset|o.rclr != 0 {
		c.p.SetMountAttr(t.Arg(), unix.MountAttr{Attr_set: o.rset, Attr_clr: o.rclr}, true)
	}
}

// explainMismatch turns the EINVAL of a move_mount, which has many causes, into
// ENOTDIR or EISDIR where the cause is a file on a directory or the other way
// round.
func (c *compiler) explainMismatch(move program.Op, from, to program.Arg) {
	p := c.p
	why, file, other, done := p.NewLabel(), p.NewLabel(), p.NewLabel(), p.NewLabel()
	move.Catch(unix.EINVAL, why)
	p.Jump(done)
	p.Place(why)
	src, _ := p.Fstat(from)
	dst, _ := p.Fstat(to)
	p.ExpectType(src, unix.S_IFDIR, unix.ENOTDIR).Catch(unix.ENOTDIR, file)
	p.ExpectType(dst, unix.S_IFDIR, unix.ENOTDIR)
	p.Jump(other)
	p.Place(file)
	p.ExpectType(dst, unix.S_IFDIR, unix.ENOTDIR).Catch(unix.ENOTDIR, other)
	p.Fail(program.Int(int(unix.EISDIR)))
	p.Place(other)
	p.Fail(program.Int(int(unix.EINVAL)))
	p.Place(done)
}

// strict reports whether dst lies where the container's isolation depends on
// it: there a symbolic link in the image is refused, not followed.
func strict(dst string) bool {
	for _, d := range [...]string{"/proc", "/sys", "/dev"} {
		if rest, ok := strings.CutPrefix(dst, d); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// target opens the place of a mount, or makes it: a directory, or the type that
// source has. made is 1 if it was missing.
func (c *compiler) target(dst string, source program.Arg) (t, made program.Slot) {
	p := c.p
	t, made = p.Slot(dst), p.Slot("made")
	missing, done := p.NewLabel(), p.NewLabel()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if strict(dst) {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	p.Openat2(c.root, dst, how).To(t).Catch(unix.ENOENT, missing)
	p.Jump(done)
	p.Place(missing)
	p.Set(made, program.Int(1))
	if source != program.Null {
		file := p.NewLabel()
		st, _ := p.Fstat(source)
		p.ExpectType(st, unix.S_IFDIR, unix.ENOTDIR).Catch(unix.ENOTDIR, file)
		p.Mkpath(c.root, dst, true, -1, -1).To(t)
		p.Jump(done)
		p.Place(file)
		p.Mkpath(c.root, dst, false, -1, -1).To(t)
	} else {
		p.Mkpath(c.root, dst, true, -1, -1).To(t)
	}
	p.Place(done)
	return t, made
}

// openHierarchies makes detached mounts of the container's own v1 cgroups.
func (c *compiler) openHierarchies(m *mount) {
	c.hierarchies = make([]program.Slot, len(c.o.CgroupV1))
	for i, h := range c.o.CgroupV1 {
		c.p.Step(program.Step{Verb: "mount", Type: "bind", Src: h.Source, Dst: m.dst + "/" + h.Name})
		c.hierarchies[i] = c.openTree(h.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		attr := unix.MountAttr{Attr_set: m.opt.set | m.opt.rset, Propagation: unix.MS_PRIVATE}
		c.p.SetMountAttr(c.hierarchies[i].Arg(), attr, false)
	}
}

// mountHierarchies mounts a tmpfs with a directory for each v1 hierarchy.
func (c *compiler) mountHierarchies(m *mount) {
	p := c.p
	t, _ := c.target(m.dst, program.Null)
	tmpfs := mount{spec: &specs.Mount{Source: "tmpfs"}, typ: "tmpfs", opt: mountOptions{data: []string{"mode=755"}}}
	tmpfs.opt.set = m.opt.set &^ unix.MOUNT_ATTR_RDONLY
	fd := c.newMount(&tmpfs)
	p.MoveMount(fd.Arg(), t.Arg())
	for i, h := range c.o.CgroupV1 {
		name := p.String(h.Name)
		p.Call(unix.SYS_MKDIRAT, fd.Arg(), name, program.Int(0o755))
		p.Call(unix.SYS_MOVE_MOUNT, c.hierarchies[i].Arg(), p.Empty(), fd.Arg(), name, program.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
		if parts := strings.Split(h.Name, ","); len(parts) > 1 {
			for _, part := range parts {
				p.Call(unix.SYS_SYMLINKAT, name, fd.Arg(), p.String(part))
			}
		}
	}
	if m.opt.set&unix.MOUNT_ATTR_RDONLY != 0 {
		p.SetMountAttr(fd.Arg(), unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false)
	}
}

// sysctls writes through a proc of the container's own that is attached
// nowhere: nothing the image or a volume holds can stand in its way.
func (c *compiler) sysctls(mounts []mount) error {
	if len(c.s.Linux.Sysctl) == 0 {
		return nil
	}
	p := c.p
	keys := make([]string, 0, len(c.s.Linux.Sysctl))
	for k := range c.s.Linux.Sysctl {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	proc := program.Null
	for i := range mounts {
		// The host's own does as well: what is below sys is that of the
		// namespaces of whoever opens it. It is all there is where the kernel
		// refuses a new one (the host's pid namespace, without its root).
		m := &mounts[i]
		hosts := m.typ == "bind" && m.dst == "/proc" && m.spec.Source == "/proc" && (m.opt.set|m.opt.rset)&unix.MOUNT_ATTR_RDONLY == 0
		if m.typ == "proc" || hosts {
			proc = m.fd
		}
	}
	if proc == program.Null {
		p.Step(program.Step{Verb: "proc for sysctls"})
		proc = c.newMount(&mount{spec: &specs.Mount{}, typ: "proc"}).Arg()
	}
	for _, k := range keys {
		file, err := c.sysctlFile(k)
		if err != nil {
			return err
		}
		v := c.s.Linux.Sysctl[k]
		f := p.Slot(k)
		p.Step(program.Step{Verb: "sysctl", Object: k + "=" + v})
		p.Call(unix.SYS_OPENAT, proc, p.String("sys/"+file), program.Int(unix.O_WRONLY|unix.O_CLOEXEC)).To(f)
		p.Call(unix.SYS_WRITE, f.Arg(), p.String(v), program.Int(len(v))).Want(len(v))
	}
	return nil
}

// sysctlFile returns the file of a sysctl below /proc/sys and refuses one that
// is not the container's own: it would be changed for the whole machine.
func (c *compiler) sysctlFile(key string) (string, error) {
	file := key
	if i := strings.IndexAny(key, "./"); i < 0 {
		return "", invalid("sysctl %q: unknown", key)
	} else if key[i] == '.' {
		// The first separator decides; the other is then part of a name
		// (sysctl.d(5)), as in net.ipv4.conf.eth0/100.forwarding.
		file = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	for part := range strings.SplitSeq(file, "/") {
		if part == "" || part == "." || part == ".." {
			return "", invalid("sysctl %q: not a name", key)
		}
	}
	dotted := strings.NewReplacer("/", ".", ".", "/").Replace(file)
	switch {
	case strings.HasPrefix(file, "net/"):
		if !c.ns.has(unix.CLONE_NEWNET) || c.ns.ownNet() {
			return "", invalid("sysctl %q not allowed in host network namespace", dotted)
		}
	case strings.HasPrefix(file, "fs/mqueue/"), strings.HasPrefix(file, "kernel/msg"), strings.HasPrefix(file, "kernel/shm"), file == "kernel/sem":
		if !c.ns.has(unix.CLONE_NEWIPC) {
			return "", invalid("sysctl %q is not allowed in the hosts ipc namespace", dotted)
		}
	case file == "kernel/hostname" && c.ns.has(unix.CLONE_NEWUTS):
		return "", invalid("sysctl %q is not allowed as it conflicts with the OCI %q field", dotted, "hostname")
	case file == "kernel/domainname" && c.ns.has(unix.CLONE_NEWUTS):
	case defence.Removed("sysctl"):
		return file, nil
	default:
		return "", invalid("sysctl %q is not in a separate kernel namespace", dotted)
	}
	return file, nil
}
