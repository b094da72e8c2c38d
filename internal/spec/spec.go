package spec

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// Input is all that Build looks at.
type Input struct {
	Record *container.Record
	Facts  Facts
	User   User
	// Rootfs is root.path; "" where the runtime is given the mount itself.
	Rootfs string
	// Volumes are the host directories of volume and image mounts, by target.
	Volumes map[string]string
	// Joined are the namespace files of the containers that Record.Joined names,
	// by its keys: "network" → /proc/PID/ns/net.
	Joined map[string]string
	// PeerHostname is the host name of the container whose network is joined.
	PeerHostname string
	// ShmPath is the host path of the /dev/shm of the container whose IPC
	// namespace is joined.
	ShmPath string
	// EtcFiles are the host paths of the files that isle writes for the
	// container; an empty one is not mounted.
	EtcFiles EtcFiles
	// CgroupPath is linux.cgroupsPath.
	CgroupPath string
	// UIDMappings and GIDMappings, when not empty, give the container a user
	// namespace of its own; HostID is relative to the caller's namespace.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	// Devices are what ResolveDevices found.
	Devices Devices
}

// EtcFiles are files of a container that isle keeps.
type EtcFiles struct{ Hostname, Hosts, Resolv string }

// Facts are what Build has to know of the machine and of the calling process,
// which is the one that will start the container.
type Facts struct {
	// Rootless: the user is not the host's root; the caller is uid 0 in that
	// user's namespace.
	Rootless bool
	// InUserNS: the caller is not in the initial user namespace, because of
	// Rootless or because isle itself runs in a container.
	InUserNS bool
	// UIDs and GIDs are the maps of the caller's namespace; nil: every id exists.
	UIDs, GIDs []specs.LinuxIDMapping
	// Hostname is the host's.
	Hostname string
	CgroupV2 bool // the only hierarchy is v2; asked where it matters
	// Bounding are the capabilities that the caller can give.
	Bounding caps.Set
	// SysResource: the caller may raise hard limits and lower oom_score_adj.
	SysResource bool
	// HardLimits are the caller's hard limits by RLIMIT_ number. Only looked at
	// for resources that the record limits.
	HardLimits [16]uint64
	// MaxFiles is fs.nr_open, above which nobody may set nofile; 0: not known.
	MaxFiles uint64
	// OOMScoreAdj is the caller's.
	OOMScoreAdj int
	CPUs        int    // processors online; 0: not known
	CPUList     string // their numbers, as "0-3"
	NoSeccomp   bool   // the kernel has no seccomp filters
	AppArmor    bool
	// SELinux contexts of a container's processes and files, as the policy names
	// them; "" where SELinux is off.
	SELinuxProcess, SELinuxFile string
	// HostMqueue: /dev/mqueue is there to be bound.
	HostMqueue bool
}

// build is one run of Build: everything that usually is in a spec, in one piece
// of memory.
type build struct {
	in       *Input
	cfg      *container.Config
	img      *container.ImageConfig
	warnings []string

	spec      specs.Spec
	process   specs.Process
	root      specs.Root
	linux     specs.Linux
	caps      specs.LinuxCapabilities
	resources specs.LinuxResources
	memory    specs.LinuxMemory
	cpu       specs.LinuxCPU
	pids      specs.LinuxPids
	blockIO   specs.LinuxBlockIO
	box       specs.Box
	oomAdj    int
	ns        [8]specs.LinuxNamespace

	// Decided early, used by later steps.
	ownUser      bool // a user namespace of its own, or another container's
	netPrivate   bool
	netHost      bool
	netForeign   bool // joined, and perhaps of another user namespace
	ipcHost      bool
	ipcPrivate   bool
	pidHost      bool
	utsPrivate   bool
	uids, gids   []specs.LinuxIDMapping // that exist inside; nil: all
	noSetgroups  bool
	capabilities caps.Set
}

// Build returns the runtime-spec of a container, and warnings about wishes that
// this machine cannot grant and that the container can do without.
func Build(in Input) (*specs.Spec, []string, error) {
	b := &build{in: &in, cfg: &in.Record.Config, img: &in.Record.Image.Config}
	b.spec.Version = specs.Version
	b.spec.Process, b.spec.Root, b.spec.Linux = &b.process, &b.root, &b.linux
	b.spec.Annotations = b.cfg.Annotations
	b.root.Path, b.root.Readonly = in.Rootfs, b.cfg.ReadOnly
	if b.root.Path == "" {
		b.root.Path = "rootfs"
	}
	b.linux.CgroupsPath = in.CgroupPath

	// The namespaces come first: mounts, sysctls and ids depend on them.
	for _, step := range [...]func(*build) error{
		(*build).namespaces, (*build).identity, (*build).command, (*build).user, (*build).setCapabilities,
		(*build).security, (*build).mounts, (*build).limits, (*build).sysctls, (*build).devices, (*build).setResources,
	} {
		if err := step(b); err != nil {
			return nil, nil, errs.As(errs.Invalid, err)
		}
	}
	return &b.spec, b.warnings, nil
}

func (b *build) warn(text string) { b.warnings = append(b.warnings, text) }

// namespaces decides on each namespace: private, the host's, or another's.
func (b *build) namespaces() error {
	c, in := b.cfg, b.in
	list := b.ns[:0]
	add := func(t specs.LinuxNamespaceType, path string) {
		list = append(list, specs.LinuxNamespace{Type: t, Path: path})
	}
	add(specs.MountNamespace, "")

	// add1 adds a namespace by its mode; "host" adds none.
	add1 := func(t specs.LinuxNamespaceType, key, mode string) (private, host bool, err error) {
		word, arg, _ := strings.Cut(mode, ":")
		switch word {
		case "host":
			return false, true, nil
		case "container":
			path := in.Joined[key]
			if path == "" {
				return false, false, errs.New(errs.Conflict, "cannot join %s of a non running container: %s", key, arg)
			}
			add(t, path)
			return false, false, nil
		case "ns":
			add(t, arg)
			return false, false, nil
		}
		add(t, "")
		return true, false, nil
	}
	var err error
	switch {
	case strings.HasPrefix(c.Userns, "container:") || strings.HasPrefix(c.Userns, "ns:"):
		if _, _, err = add1(specs.UserNamespace, "user", c.Userns); err != nil {
			return err
		}
		b.ownUser = true
	case len(in.UIDMappings) > 0:
		add(specs.UserNamespace, "")
		b.linux.UIDMappings, b.linux.GIDMappings = in.UIDMappings, in.GIDMappings
		b.ownUser = true
		b.uids, b.gids = in.UIDMappings, in.GIDMappings
		b.noSetgroups = in.Facts.Rootless && idCount(in.Facts.GIDs) == 1
	case in.Facts.InUserNS:
		// Rootless, the container shares the user's own namespace: the user is
		// its root already.
		b.uids, b.gids = in.Facts.UIDs, in.Facts.GIDs
		b.noSetgroups = in.Facts.Rootless && idCount(b.gids) == 1
	}
	if b.netPrivate, b.netHost, err = add1(specs.NetworkNamespace, "network", c.Network); err != nil {
		return err
	}
	b.netForeign = !b.netPrivate && !b.netHost && (b.ownUser || strings.HasPrefix(c.Network, "ns:"))
	if b.utsPrivate, _, err = add1(specs.UTSNamespace, "uts", c.UTS); err != nil {
		return err
	}
	if _, b.pidHost, err = add1(specs.PIDNamespace, "pid", c.PID); err != nil {
		return err
	}
	if b.ipcPrivate, b.ipcHost, err = add1(specs.IPCNamespace, "ipc", c.IPC); err != nil {
		return err
	}
	// Docker makes the cgroup namespace private on v2 only. Private everywhere
	// keeps the host's paths out of /proc/self/cgroup.
	if _, _, err = add1(specs.CgroupNamespace, "cgroup", c.Cgroupns); err != nil {
		return err
	}
	if c.Time != "" && c.Time != "host" || len(c.TimeOffsets) > 0 {
		mode := c.Time
		if mode == "host" {
			return errs.New(errs.Invalid, "conflicting options: time offsets and the host's time namespace")
		}
		private, _, err := add1(specs.TimeNamespace, "time", mode)
		if err != nil {
			return err
		}
		if len(c.TimeOffsets) > 0 {
			if !private {
				return errs.New(errs.Invalid, "conflicting options: time offsets and another's time namespace")
			}
			b.linux.TimeOffsets = make(map[string]specs.LinuxTimeOffset, len(c.TimeOffsets))
			for clock, secs := range c.TimeOffsets {
				b.linux.TimeOffsets[clock] = specs.LinuxTimeOffset{Secs: secs}
			}
		}
	}
	b.linux.Namespaces = list
	return nil
}

// identity sets the host name. It is needed for the environment even where the
// UTS namespace is somebody else's.
func (b *build) identity() error {
	name := b.hostname()
	if b.utsPrivate {
		b.spec.Hostname = name
		b.spec.Domainname = b.cfg.Domainname
		return nil
	}
	if b.cfg.Hostname != "" || b.cfg.Domainname != "" {
		return errs.New(errs.Invalid, "conflicting options: hostname and the UTS mode")
	}
	return nil
}

// hostname is the name that the container goes by: its own, the host's where it
// shares the network or the UTS namespace with it, or its short id.
func (b *build) hostname() string {
	switch {
	case b.cfg.Hostname != "":
		return b.cfg.Hostname
	case b.netHost || b.cfg.UTS == "host":
		return b.in.Facts.Hostname
	case b.in.PeerHostname != "" && strings.HasPrefix(b.cfg.Network, "container:"):
		return b.in.PeerHostname
	}
	return b.in.Record.ID[:min(12, len(b.in.Record.ID))]
}

// security sets the seccomp filter, the labels of security modules, and the
// paths below /proc and /sys that are hidden or read-only.
func (b *build) security() error {
	c, f := b.cfg, &b.in.Facts
	b.process.NoNewPrivileges = c.NoNewPrivileges != nil && *c.NoNewPrivileges
	if err := b.seccomp(); err != nil {
		return err
	}
	switch {
	case c.AppArmor == "":
	case f.AppArmor:
		b.process.ApparmorProfile = c.AppArmor
	case c.AppArmor != "unconfined":
		return errs.New(errs.Unsupported, "apparmor profile %q: this machine has no AppArmor", c.AppArmor)
	}
	b.process.SelinuxLabel, b.linux.MountLabel = b.labels()
	if !c.Privileged {
		b.linux.MaskedPaths, b.linux.ReadonlyPaths = unmask(maskedPaths[:], c), unmask(readonlyPaths[:], c)
	}
	if len(c.MaskPaths) > 0 {
		b.linux.MaskedPaths = append(slices.Clip(b.linux.MaskedPaths), c.MaskPaths...)
	}
	return nil
}

func (b *build) seccomp() error {
	c, f := b.cfg, &b.in.Facts
	if c.Seccomp == "unconfined" || c.Privileged && c.Seccomp == "" {
		return nil
	}
	if f.NoSeccomp {
		if c.Seccomp != "" {
			return errs.New(errs.Unsupported, "seccomp profile: this kernel has no seccomp filters")
		}
		b.warn("this kernel has no seccomp filters: system calls are not restricted")
		return nil
	}
	names := b.caps.Bounding
	if c.Seccomp == "" {
		b.linux.Seccomp = seccomp.Default(names)
		return nil
	}
	var err error
	b.linux.Seccomp, err = seccomp.Parse([]byte(c.Seccomp), names)
	return err
}

// maskedPaths are hidden, because they tell of the host or of other containers,
// or offer what only the host's root should touch.
var maskedPaths = [...]string{
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts", // who types when: keystroke timing
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/powercap", // power draw: a side channel
	"/sys/firmware",
}

var readonlyPaths = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// unmask returns paths without those that c takes off the lists.
func unmask(paths []string, c *container.Config) []string {
	if len(c.UnmaskPaths) == 0 {
		return slices.Clip(paths)
	}
	var kept []string
	for _, p := range paths {
		keep := true
		for _, u := range c.UnmaskPaths {
			if u == "ALL" || u == p || strings.HasPrefix(p, strings.TrimSuffix(u, "/")+"/") {
				keep = false
			}
		}
		if keep {
			kept = append(kept, p)
		}
	}
	return kept
}
