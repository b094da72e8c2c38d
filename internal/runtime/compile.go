package runtime

import (
	"encoding/binary"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/lap"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// compiler is the state of one Compile.
type compiler struct {
	p       *program.Program
	s       *specs.Spec // nil for a process that joins a container
	o       *Options
	process *specs.Process

	ns          namespaces
	userNS      bool // the container's root is not the host's
	hostMounts  bool // the container has no mount namespace of its own
	root        program.Arg
	hierarchies []program.Slot // detached mounts of Options.CgroupV1
	dev, pts    program.Slot   // the mounts at /dev and /dev/pts, when they are new ones
	devices     []device
	slave       program.Slot // of the terminal
	lsm         program.Slot
	cwd         program.Slot
	rescores    bool     // oom_score_adj is not what it is born with
	agent       *agent   // for the calls that the filter leaves to somebody
	emptyDev    bool     // /dev is a new tmpfs: no device can be there already
	late        []*mount // become read-only at the end
	// parentMounts: the caller's thread makes the mounts that come from the host.
	parentMounts bool
	shield       *os.File
	lateShield   bool // the child makes it, behind its gate
	madeShield   program.Slot
	joined       *os.File   // an eventfd: the child has joined its v1 hierarchies
	opened       []*os.File // needed until the program has started
	joinedLinux  *specs.Linux
	path         string // of the file to execute, where that is not the first argument
	warnings     []error
}

// Compile turns s into a program. It validates what the program relies on and
// makes no change to the machine.
func Compile(s *specs.Spec, o Options) (*Program, error) {
	if s == nil || s.Process == nil || s.Linux == nil {
		return nil, invalid("spec: has no process or no linux section")
	}
	c := &compiler{p: program.New(), s: s, o: &o, process: s.Process}
	if err := c.checkProcess(s.Process); err != nil {
		return nil, err
	}
	filter, err := seccompFilter(s.Linux.Seccomp, o.Seccomp)
	if err != nil {
		return nil, err
	}
	if err := c.ns.parse(s.Linux.Namespaces, o.Netns); err != nil {
		return nil, err
	}
	// Without a mount namespace of its own the container's mounts are made in the
	// caller's or in the one that it joins, where they stay, and its root is one by
	// chroot(2) only.
	switch c.hostMounts = c.ns.new&unix.CLONE_NEWNS == 0; {
	case o.HostMounts:
	case !c.ns.has(unix.CLONE_NEWNS):
		return nil, unsupported("namespace \"mount\": a container needs its own")
	default:
		c.hostMounts = false // the namespace is a container's, with its root
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.userNS = c.ns.has(unix.CLONE_NEWUSER) || !inInitialUserNS()
	mounts, err := c.parseMounts()
	if err != nil {
		return nil, err
	}
	p := c.p
	p.LegacyClone = o.legacyClone
	p.Laps(lap.File())
	newRoot := c.ns.new&unix.CLONE_NEWNS != 0 || c.hostMounts
	// The root is changed last where something still needs the old one: hooks, or
	// the kernel's look for a whole proc before it gives a user namespace another.
	late := newRoot && (o.Hooks != nil || o.NoPivot || c.hostMounts || c.userNS && o.Rootfs == nil)

	// The caller's thread: everything that is named in the host's terms. A
	// caller without privilege leaves mounts to the child, which is root of the
	// user namespace they make; propagation from the host then ends there.
	c.ns.open(p)
	var rootfs program.Arg
	sources := func() error {
		if rootfs, err = c.openRoot(); err != nil {
			return err
		}
		if err := c.openSources(mounts); err != nil {
			return err
		}
		c.findDevices()
		return nil
	}
	mayMount, err := c.mayMount()
	if err != nil {
		return nil, err
	}
	c.parentMounts = mayMount
	if newRoot && mayMount {
		if err := sources(); err != nil {
			return nil, err
		}
	}
	out := &Program{p: p, command: s.Process.Args[0], terminal: s.Process.Terminal, start: new(uint64), restarted: c.ns.stages}
	stdio := standardFiles(p, s.Process.Terminal, o.Stdio)
	if err := c.connectAgent(filter); err != nil {
		return nil, err
	}

	// The child.
	c.fork()
	if err := c.join(); err != nil {
		return nil, err
	}
	p.Meanwhile(c.meanwhile(out))
	attached := func() { p.Await() }
	c.findScore()
	if c.ns.stages || c.rescores {
		// The second child inherits what the first one was given.
		attached()
		attached = func() {}
	}
	c.enter()
	if o.Network != nil && c.ns.unshares() {
		// The namespace is here only now.
		p.Step(program.Step{Verb: "network"})
		p.Sync(program.Null, 0, func(pid int, _ []byte) error { return o.Network(pid) })
	}
	if err := c.netDevices(); err != nil {
		return nil, err
	}
	c.openLSM(s.Process)

	if newRoot && !mayMount {
		if err := sources(); err != nil {
			return nil, err
		}
	}
	if newRoot {
		if !c.hostMounts {
			p.Step(program.Step{Verb: "make mounts private"})
			p.Call(unix.SYS_MOUNT, program.Null, p.String("/"), program.Null, program.Int(unix.MS_REC|unix.MS_PRIVATE), program.Null)
		}
		c.prepareVisible(mounts, late)
		if err := c.sysctls(mounts); err != nil {
			return nil, err
		}
		if late {
			c.attachRoot(rootfs)
		} else {
			c.pivot(rootfs)
		}
		c.root = rootfs
		p.Call(unix.SYS_UMASK, program.Int(0)) // modes below are meant as written
		for i := range mounts {
			if mounts[i].cgroup() {
				continue
			}
			if err := c.mount(&mounts[i]); err != nil {
				return nil, err
			}
		}
		if c.dev == 0 && !c.devIsBound(mounts) {
			c.devInRoot()
		}
		if s.Process.Terminal {
			if c.pts == 0 {
				return nil, invalid("terminal: the spec has no devpts at /dev/pts")
			}
			c.openTerminal()
			c.bindConsole()
		}
	} else {
		c.root = program.CWD // / after setns
		if s.Process.Terminal {
			c.openTerminalInside()
		}
	}

	attached()
	c.allCPUs()
	if c.ns.newCgroup {
		// After the process is where it shall be: that place becomes the root
		// of the namespace (cgroup_namespaces(7)).
		p.Step(program.Step{Verb: "new namespace", Object: "cgroup"})
		p.Call(unix.SYS_UNSHARE, program.Int(unix.CLONE_NEWCGROUP))
	}
	if newRoot {
		for i := range mounts {
			if mounts[i].cgroup() {
				if err := c.mount(&mounts[i]); err != nil {
					return nil, err
				}
			}
		}
		if o.Hooks != nil {
			p.Step(program.Step{Verb: "hooks"})
			p.Sync(program.Null, 0, func(pid int, _ []byte) error { return o.Hooks(pid) })
		}
		if late {
			c.leave()
		}
		c.mask(s.Linux.MaskedPaths)
		c.readonlyPaths(s.Linux.ReadonlyPaths)
	}
	c.openCwd(s.Process, true)
	if newRoot {
		c.finishRoot()
	}
	c.names()
	if err := c.raiseShield(out); err != nil {
		return nil, err
	}
	if err := c.finish(s.Process, stdio, filter); err != nil {
		return nil, err
	}
	if err := p.Err(); err != nil {
		return nil, errs.WithExit(err, errs.ExitEngine)
	}
	out.warnings, out.opened = c.warnings, c.opened
	return out, nil
}

// checkProcess refuses what would only be noticed in the child.
func (c *compiler) checkProcess(pr *specs.Process) error {
	if len(pr.Args) == 0 || pr.Args[0] == "" {
		return invalid("process: no command")
	}
	if pr.Cwd != "" && !path.IsAbs(pr.Cwd) {
		return invalid("working directory %q: not an absolute path", pr.Cwd)
	}
	if pr.User.UID == ^uint32(0) || pr.User.GID == ^uint32(0) {
		return invalid("user %d:%d: id out of range", pr.User.UID, pr.User.GID) // -1 means "leave it" to setresuid
	}
	if err := checkLSM(pr); err != nil {
		return err
	}
	for _, g := range pr.User.AdditionalGids {
		if g == ^uint32(0) {
			return invalid("group %d: id out of range", g)
		}
	}
	return nil
}

func seccompFilter(s *specs.LinuxSeccomp, ready *seccomp.Filter) (*seccomp.Filter, error) {
	if ready != nil {
		return ready, nil
	}
	f, err := seccomp.Compile(s)
	if err != nil {
		return nil, errs.WithExit(err, errs.ExitEngine)
	}
	return f, nil
}

// Filter is the seccomp program of s, as an array of struct sock_filter; nil: none.
func Filter(s *specs.Spec) ([]byte, error) {
	f, err := seccompFilter(s.Linux.Seccomp, nil)
	if err != nil || f == nil {
		return nil, err
	}
	var b []byte
	for _, i := range f.Prog {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b, nil
}

// mayMount reports whether the caller itself may make mounts: always, unless an
// ordinary user wants a container in a new user namespace.
func (c *compiler) mayMount() (bool, error) {
	if c.ns.new&unix.CLONE_NEWUSER == 0 {
		return true, nil
	}
	have, err := caps.Permitted()
	if err != nil {
		return false, errs.WithExit(err, errs.ExitEngine)
	}
	return have.Has(unix.CAP_SYS_ADMIN), nil
}

// openRoot returns the detached mount that becomes the container's root.
func (c *compiler) openRoot() (program.Arg, error) {
	p := c.p
	if c.o.Rootfs != nil {
		return p.File(c.o.Rootfs), nil
	}
	if c.s.Root == nil || c.s.Root.Path == "" {
		return program.Null, invalid("spec: has no root")
	}
	root := p.Slot("rootfs")
	p.Step(program.Step{Verb: "root", Src: c.s.Root.Path})
	p.Call(unix.SYS_OPEN_TREE, program.CWD, p.String(c.s.Root.Path), program.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)).To(root)
	p.SetMountAttr(root.Arg(), unix.MountAttr{Propagation: unix.MS_PRIVATE}, true)
	return root.Arg(), nil
}

// pivot makes rootfs the root of the mount namespace and gets rid of the host's.
//
// The new root is mounted on top of the old one: a place that always exists.
// pivot_root(".", ".") then stacks the old root on top of the new one, where
// the unmount finds it (pivot_root(2), NOTES).
func (c *compiler) pivot(rootfs program.Arg) {
	p := c.p
	dot := p.String(".")
	p.Step(program.Step{Verb: "change root"})
	p.Call(unix.SYS_MOVE_MOUNT, rootfs, p.Empty(), program.CWD, p.String("/"), program.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	p.Call(unix.SYS_FCHDIR, rootfs)
	p.Call(unix.SYS_PIVOT_ROOT, dot, dot)
	p.Call(unix.SYS_UMOUNT2, dot, program.Int(unix.MNT_DETACH))
}

// attachRoot puts the root into the host's tree: where it comes from, for hooks
// that look for it there. Without hooks a directory is taken that root of a user
// namespace can get at, whoever may enter the others on the way.
func (c *compiler) attachRoot(rootfs program.Arg) {
	p := c.p
	at := c.s.Root.Path
	if c.o.Hooks == nil && c.userNS && !c.hostMounts {
		first, _, _ := strings.Cut(strings.TrimPrefix(path.Clean(at), "/"), "/")
		at = "/" + first
	}
	p.Step(program.Step{Verb: "root", Dst: at})
	p.Call(unix.SYS_MOVE_MOUNT, rootfs, p.Empty(), program.CWD, p.String(at), program.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// leave makes an attached root the root of the container.
func (c *compiler) leave() {
	p := c.p
	dot := p.String(".")
	p.Step(program.Step{Verb: "change root"})
	p.Call(unix.SYS_FCHDIR, c.root)
	if c.hostMounts {
		p.Call(unix.SYS_CHROOT, dot)
		return
	}
	if c.o.NoPivot {
		c.coverHost()
		p.Call(unix.SYS_MOUNT, dot, p.String("/"), program.Null, program.Int(unix.MS_MOVE), program.Null)
		p.Call(unix.SYS_CHROOT, dot)
		p.Call(unix.SYS_CHDIR, p.String("/"))
		return
	}
	p.Call(unix.SYS_PIVOT_ROOT, dot, dot)
	p.Call(unix.SYS_UMOUNT2, dot, program.Int(unix.MNT_DETACH))
}

// coverHost takes the host's proc and sysfs mounts out of a namespace whose root
// is left by chroot only. Where a whole one is to be found anywhere in the
// namespace, the kernel gives a user namespace inside a new one, without what is
// masked in the container's own (mount_too_revealing).
func (c *compiler) coverHost() {
	p := c.p
	for _, m := range fullMounts(c.s.Root.Path) {
		p.Step(program.Step{Verb: "unmount", Dst: m})
		refused, done := p.NewLabel(), p.NewLabel()
		name := p.String(m)
		p.Call(unix.SYS_UMOUNT2, name, program.Int(unix.MNT_DETACH)).Ignore(unix.ENOENT).Catch(unix.EPERM, refused).Catch(unix.EINVAL, refused)
		p.Jump(done)
		p.Place(refused) // a mount that belongs to the host's user namespace
		p.Call(unix.SYS_MOUNT, p.String("tmpfs"), name, p.String("tmpfs"), program.Int(0), program.Null)
		p.Place(done)
	}
}

// fullMounts are the places of the caller's proc and sysfs mounts that show all
// of the file system, but for those below root.
func fullMounts(root string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		sep := slices.Index(f, "-")
		if len(f) < 5 || sep < 0 || sep+1 >= len(f) || f[3] != "/" || f[sep+1] != "proc" && f[sep+1] != "sysfs" {
			continue
		}
		if at := f[4]; at != root && !strings.HasPrefix(at, root+"/") {
			out = append(out, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(at))
		}
	}
	slices.Reverse(out) // what is mounted on others first
	return out
}

// finishRoot sets what the root mount itself shall be, once nothing has to be
// created in it any more.
func (c *compiler) finishRoot() {
	for _, m := range c.late {
		c.p.Step(program.Step{Verb: "remount", Dst: m.dst, Flags: "ro"})
		c.p.SetMountAttr(m.fd, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false)
	}
	var attr unix.MountAttr
	recursive := false
	flags := ""
	if c.s.Root != nil && c.s.Root.Readonly {
		attr.Attr_set = unix.MOUNT_ATTR_RDONLY
		flags = "ro"
	}
	if prop, rec, ok := propagation(c.s.Linux.RootfsPropagation); ok && prop != unix.MS_PRIVATE {
		// A private mount cannot become a slave of anything: the wish is then
		// about what is mounted later, as with runc.
		attr.Propagation = prop
		recursive = rec
		flags = strings.TrimPrefix(flags+","+c.s.Linux.RootfsPropagation, ",")
	}
	if attr == (unix.MountAttr{}) {
		return
	}
	c.p.Step(program.Step{Verb: "remount", Dst: "/", Flags: flags})
	if recursive && attr.Attr_set != 0 {
		c.p.SetMountAttr(c.root, unix.MountAttr{Attr_set: attr.Attr_set}, false)
		attr.Attr_set = 0
	}
	c.p.SetMountAttr(c.root, attr, recursive)
}

// names sets the names of the container's UTS namespace.
func (c *compiler) names() {
	p := c.p
	if n := c.s.Hostname; n != "" {
		p.Step(program.Step{Verb: "host name", Object: n})
		p.Call(unix.SYS_SETHOSTNAME, p.String(n), program.Int(len(n)))
	}
	if n := c.s.Domainname; n != "" {
		p.Step(program.Step{Verb: "domain name", Object: n})
		p.Call(unix.SYS_SETDOMAINNAME, p.String(n), program.Int(len(n)))
	}
}
