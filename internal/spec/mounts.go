package spec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// defaultShm is the size of /dev/shm.
const defaultShm = 64 << 20

// Options of the default mounts. They are shared: nobody changes them.
var (
	optProc     = []string{"nosuid", "noexec", "nodev"}
	optDev      = []string{"nosuid", "strictatime", "mode=755", "size=65536k"}
	optPts      = []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}
	optPtsNoTTY = []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	optSys      = []string{"nosuid", "noexec", "nodev", "ro"}
	optSysRW    = []string{"nosuid", "noexec", "nodev"}
	optCgroup   = []string{"ro", "nosuid", "noexec", "nodev"}
	optCgroupRW = []string{"nosuid", "noexec", "nodev"}
	optMqueue   = []string{"nosuid", "noexec", "nodev"}
	optShm      = []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}
	optBind     = []string{"rbind", "rprivate"}
	optHostKern = []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}
	optHostSys  = []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"}
)

// mounts lists what is mounted on the root file system, in the order in which it
// must be mounted: first the kernel's own file systems, then the rest by depth,
// so that a mount never covers one made before it.
func (b *build) mounts() error {
	c := b.cfg
	list := make([]specs.Mount, 0, 12+len(c.Mounts))
	list = b.kernelMounts(list)
	first := len(list)
	list = b.etcMounts(list)
	for i := range c.Mounts {
		m, err := b.userMount(&c.Mounts[i])
		if err != nil {
			return err
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list[first:], func(x, y specs.Mount) int { return depth(x.Destination) - depth(y.Destination) })
	if c.ReadOnly {
		// What isle itself mounts is read-only with the root, where that leaves
		// the container usable; what the user mounts is as the user said.
		for i := range list {
			switch list[i].Destination {
			case "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue":
				continue
			}
			if !b.userMounted(list[i].Destination) && !slices.Contains(list[i].Options, "ro") {
				list[i].Options = append(slices.Clip(list[i].Options), "ro")
			}
		}
	}
	b.linux.RootfsPropagation = b.rootPropagation()
	b.spec.Mounts = list
	return nil
}

func depth(p string) int { return strings.Count(p, "/") }

// userMounted reports whether the user mounts something on target.
func (b *build) userMounted(target string) bool {
	for i := range b.cfg.Mounts {
		if t := b.cfg.Mounts[i].Target; t == target || path.Clean(t) == target {
			return true
		}
	}
	return false
}

// kernelMounts are the mounts that every container has, without those that the
// user replaces, or covers by a /dev of one's own.
func (b *build) kernelMounts(list []specs.Mount) []specs.Mount {
	c, f := b.cfg, &b.in.Facts
	ownDev := b.userMounted("/dev")
	add := func(m specs.Mount) {
		if b.userMounted(m.Destination) || ownDev && strings.HasPrefix(m.Destination, "/dev/") {
			return
		}
		list = append(list, m)
	}
	inUser := f.InUserNS || b.ownUser

	proc := specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: optProc}
	if b.pidHost && inUser {
		// Only the owner of the pid namespace may mount its proc.
		proc = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: optHostKern}
	}
	add(proc)
	add(specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: optDev})
	pts := optPts
	if !mapped(b.gids, 5) {
		pts = optPtsNoTTY // devpts refuses a group that does not exist inside
	}
	add(specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts})

	sys := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: optSys}
	if inUser && (b.netHost || b.netForeign) {
		// sysfs shows a network namespace, whose owner alone may mount it.
		sys.Type, sys.Source, sys.Options = "bind", "/sys", optHostSys
	} else if c.Privileged && !c.ReadOnly {
		sys.Options = optSysRW
	}
	add(sys)
	cgroup := specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: optCgroup}
	if c.Privileged || c.WritableCgroups != nil && *c.WritableCgroups {
		cgroup.Options = optCgroupRW
	}
	add(cgroup)

	mqueue := specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: optMqueue}
	if b.ipcHost && inUser {
		mqueue.Type, mqueue.Source, mqueue.Options = "bind", "/dev/mqueue", optHostKern
	}
	if mqueue.Type != "bind" || f.HostMqueue {
		add(mqueue)
	}
	switch {
	case c.IPC == "none":
		// No shared memory was asked for, so there is no place for it.
	case b.ipcHost:
		add(specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: optBind})
	case !b.ipcPrivate && b.in.ShmPath != "":
		add(specs.Mount{Destination: "/dev/shm", Type: "bind", Source: b.in.ShmPath, Options: optBind})
	default:
		opts := optShm
		if c.ShmSize > 0 && c.ShmSize != defaultShm {
			opts = []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(c.ShmSize, 10)}
		}
		add(specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: opts})
	}
	return list
}

// etcMounts are the files that isle keeps for a container.
func (b *build) etcMounts(list []specs.Mount) []specs.Mount {
	e := &b.in.EtcFiles
	for _, f := range [...]struct{ target, source string }{
		{"/etc/resolv.conf", e.Resolv}, {"/etc/hostname", e.Hostname}, {"/etc/hosts", e.Hosts},
	} {
		if f.source != "" && !b.userMounted(f.target) {
			list = append(list, specs.Mount{Destination: f.target, Type: "bind", Source: f.source, Options: optBind})
		}
	}
	return list
}

// userMount is one mount that the user asked for.
func (b *build) userMount(m *container.Mount) (specs.Mount, error) {
	target := m.Target
	if target == "" || target[0] != '/' || path.Clean(target) == "/" {
		return specs.Mount{}, errs.New(errs.Invalid, "invalid mount target %q: want an absolute path other than /", target)
	}
	if clean := path.Clean(target); clean != target {
		target = clean
	}
	if err := checkProc(target, m); err != nil {
		return specs.Mount{}, err
	}
	switch m.Type {
	case "tmpfs":
		return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: tmpfsOptions(m)}, nil
	case "bind":
		if m.Source == "" || m.Source[0] != '/' {
			return specs.Mount{}, errs.New(errs.Invalid, "mount %s: source %q is not an absolute path", target, m.Source)
		}
		return specs.Mount{Destination: target, Type: "bind", Source: m.Source, Options: bindOptions(m)}, nil
	case "volume", "image":
		source := b.in.Volumes[target]
		if source == "" {
			return specs.Mount{}, errs.New(errs.NotFound, "mount %s: %s %q has no directory", target, m.Type, m.Source)
		}
		return specs.Mount{Destination: target, Type: "bind", Source: source, Options: bindOptions(m)}, nil
	}
	return specs.Mount{}, errs.New(errs.Invalid, "mount type unknown: %q", m.Type)
}

// checkProc refuses mounts that would stand in for the kernel's answers in /proc
// (CVE-2019-16884), but for the files that resource views replace, and for the
// host's own /proc as a whole.
func checkProc(target string, m *container.Mount) error {
	if target == "/proc" {
		if m.Type == "bind" && path.Clean(m.Source) == "/proc" {
			return nil
		}
		return errs.New(errs.Invalid, "%q cannot be mounted on \"/proc\": it is not of type proc", m.Source)
	}
	rest, ok := strings.CutPrefix(target, "/proc/")
	if !ok {
		return nil
	}
	switch rest {
	case "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled":
		return nil
	}
	return errs.New(errs.Invalid, "%q cannot be mounted because it is inside /proc", target)
}

// bindOptions are the options of a bind, volume or image mount.
func bindOptions(m *container.Mount) []string {
	readOnly := m.ReadOnly || m.Type == "image"
	recursion := "rbind"
	if m.NonRecursive {
		recursion = "bind"
	}
	if !readOnly && !m.NonRecursive && m.Propagation == "" && len(m.Options) == 0 {
		return optBind
	}
	opts := append(make([]string, 0, 4+len(m.Options)), recursion)
	switch {
	case readOnly && m.Recursive != "writable" && !m.NonRecursive:
		// The mounts below are read-only as well; without that, "read-only" would
		// hold for the first file system only.
		opts = append(opts, "ro", "rro")
	case readOnly:
		opts = append(opts, "ro")
	}
	opts = append(opts, m.Options...)
	if m.Propagation == "" {
		return append(opts, "rprivate")
	}
	return append(opts, m.Propagation)
}

// tmpfsOptions are Docker's defaults, changed by those of the mount: of each
// pair (exec and noexec …) the one given last holds.
func tmpfsOptions(m *container.Mount) []string {
	opts := make([]string, 0, 6+len(m.Options))
	for _, d := range [...]string{"noexec", "nosuid", "nodev"} {
		if !slices.Contains(m.Options, d[2:]) {
			opts = append(opts, d)
		}
	}
	opts = append(opts, "rprivate")
	for _, o := range m.Options {
		switch o {
		case "noexec", "nosuid", "nodev", "rprivate", "defaults", "rw":
		default:
			opts = append(opts, o)
		}
	}
	if m.TmpfsSize > 0 {
		opts = append(opts, "size="+strconv.FormatInt(m.TmpfsSize, 10))
	}
	if m.TmpfsMode != nil {
		opts = append(opts, "mode="+strconv.FormatUint(uint64(*m.TmpfsMode), 8))
	}
	if m.ReadOnly {
		opts = append(opts, "ro")
	}
	return opts
}

// rootPropagation is what the root must be for a mount in it to propagate.
func (b *build) rootPropagation() string {
	prop := ""
	for i := range b.cfg.Mounts {
		switch b.cfg.Mounts[i].Propagation {
		case "shared", "rshared":
			return "shared"
		case "slave", "rslave":
			prop = "rslave"
		}
	}
	return prop
}
