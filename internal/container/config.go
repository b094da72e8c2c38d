package container

import "time"

// Config is what the user asked for. The zero value of every field means "as
// Docker's default"; pointers are used only where zero is itself a request.
//
// After a change to a field here or in state.go: go generate ./internal/container.
type Config struct {
	Name  string `json:"name"`
	Image string `json:"image"` // the reference as it was typed

	// Process.
	Cmd        []string `json:"cmd,omitempty"`        // replaces the image's Cmd when not empty
	Entrypoint []string `json:"entrypoint,omitempty"` // replaces the image's Entrypoint when EntrypointSet
	// EntrypointSet tells "--entrypoint ''" (clear it) from no --entrypoint.
	EntrypointSet bool     `json:"entrypointSet,omitempty"`
	Env           []string `json:"env,omitempty"` // KEY=VALUE, over the image's; "KEY" alone removes it
	WorkingDir    string   `json:"workingDir,omitempty"`
	User          string   `json:"user,omitempty"`     // user[:group], names or numbers, as typed
	GroupAdd      []string `json:"groupAdd,omitempty"` // names or numbers
	TTY           bool     `json:"tty,omitempty"`
	OpenStdin     bool     `json:"openStdin,omitempty"` // -i
	Init          bool     `json:"init,omitempty"`      // --init: a reaping PID 1 before the command
	StopSignal    string   `json:"stopSignal,omitempty"`
	StopTimeout   *int     `json:"stopTimeout,omitempty"` // seconds; nil: 10; -1: wait for ever
	ConsoleSize   [2]uint  `json:"consoleSize,omitzero"`  // rows, columns at the start

	// Identity.
	Hostname    string            `json:"hostname,omitempty"`
	Domainname  string            `json:"domainname,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    string            `json:"platform,omitempty"` // os/arch[/variant]

	// Namespaces: "" (private by default), "host", "private", "container:NAME",
	// "ns:PATH"; network also "none", "bridge" and network names; userns also
	// "auto" and "keep-id[:uid=N,gid=N]"; ipc also "shareable" and "none".
	Network  string `json:"network,omitempty"`
	PID      string `json:"pid,omitempty"`
	IPC      string `json:"ipc,omitempty"`
	UTS      string `json:"uts,omitempty"`
	Userns   string `json:"userns,omitempty"`
	Cgroupns string `json:"cgroupns,omitempty"`
	Time     string `json:"time,omitempty"` // "", "host", "private", "container:NAME", "ns:PATH"
	// TimeOffsets are the seconds added to the monotonic and the boot-time clock
	// of a private time namespace.
	TimeOffsets map[string]int64 `json:"timeOffsets,omitempty"`

	// Security.
	Privileged bool     `json:"privileged,omitempty"`
	CapAdd     []string `json:"capAdd,omitempty"` // upper case, with or without CAP_, or ALL
	CapDrop    []string `json:"capDrop,omitempty"`
	// Seccomp is "" (the default profile), "unconfined", or the JSON text of a
	// profile (the front door has read the file).
	Seccomp         string   `json:"seccomp,omitempty"`
	NoNewPrivileges *bool    `json:"noNewPrivileges,omitempty"`
	AppArmor        string   `json:"apparmor,omitempty"`
	SELinuxLabels   []string `json:"selinuxLabels,omitempty"` // user:..., role:..., type:..., level:..., disable
	// UnmaskPaths: "ALL", or paths that are taken off the masked and read-only lists.
	UnmaskPaths []string `json:"unmaskPaths,omitempty"`
	MaskPaths   []string `json:"maskPaths,omitempty"` // further masked paths
	// WritableCgroups mounts /sys/fs/cgroup read-write without --privileged.
	WritableCgroups *bool `json:"writableCgroups,omitempty"`

	// Files.
	ReadOnly    bool     `json:"readOnly,omitempty"`
	Mounts      []Mount  `json:"mounts,omitempty"`
	VolumesFrom []string `json:"volumesFrom,omitempty"` // NAME[:ro|rw]
	ShmSize     int64    `json:"shmSize,omitempty"`     // bytes; 0: 64 MiB

	// Devices and limits.
	Devices           []Device          `json:"devices,omitempty"`
	DeviceCgroupRules []string          `json:"deviceCgroupRules,omitempty"`
	DeviceRequests    []DeviceRequest   `json:"deviceRequests,omitempty"` // --gpus and CDI names
	Ulimits           []Ulimit          `json:"ulimits,omitempty"`
	Sysctls           map[string]string `json:"sysctls,omitempty"`
	OOMScoreAdj       *int              `json:"oomScoreAdj,omitempty"`
	Resources         Resources         `json:"resources,omitzero"`
	CgroupParent      string            `json:"cgroupParent,omitempty"`

	// Network details, kept for the network subsystem.
	Publish      []string `json:"publish,omitempty"` // as typed after -p, validated
	PublishAll   bool     `json:"publishAll,omitempty"`
	Expose       []string `json:"expose,omitempty"`
	DNS          []string `json:"dns,omitempty"`
	DNSSearch    []string `json:"dnsSearch,omitempty"`
	DNSOptions   []string `json:"dnsOptions,omitempty"`
	ExtraHosts   []string `json:"extraHosts,omitempty"` // NAME:IP
	MacAddress   string   `json:"macAddress,omitempty"`
	IPAddress    string   `json:"ipAddress,omitempty"`
	IP6Address   string   `json:"ip6Address,omitempty"`
	NetworkAlias []string `json:"networkAlias,omitempty"`
	Links        []string `json:"links,omitempty"`
	LinkLocalIPs []string `json:"linkLocalIPs,omitempty"`
	// DriverOpts and GwPriority belong to Network; MoreNetworks are the second and
	// later --network.
	DriverOpts   map[string]string `json:"driverOpts,omitempty"`
	GwPriority   int               `json:"gwPriority,omitempty"`
	MoreNetworks []Endpoint        `json:"moreNetworks,omitempty"`

	// Life.
	AutoRemove  bool              `json:"autoRemove,omitempty"`
	Restart     RestartPolicy     `json:"restart,omitzero"`
	LogDriver   string            `json:"logDriver,omitempty"` // "" = json-file
	LogOpts     map[string]string `json:"logOpts,omitempty"`
	StorageOpts map[string]string `json:"storageOpts,omitempty"`
	Runtime     string            `json:"runtime,omitempty"`   // "" = isle's own
	VolumeDrv   string            `json:"volumeDrv,omitempty"` // --volume-driver, for volumes that name none
	// Attach are the streams of -a, in lower case; the front door acts on them.
	Attach  []string `json:"attach,omitempty"`
	CidFile string   `json:"cidFile,omitempty"`
	// Health is the health check asked for; nil: the image's.
	Health *Healthcheck `json:"health,omitempty"`
}

// Mount is one mount that the user asked for.
type Mount struct {
	Type string `json:"type"` // "bind", "volume", "tmpfs", "image"
	// Source is an absolute host path (bind), a volume's name ("" = anonymous),
	// or an image reference.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"` // absolute path inside
	ReadOnly bool   `json:"readOnly,omitempty"`
	// CreateSource makes a missing bind source as a directory, as -v does and
	// --mount does not.
	CreateSource bool   `json:"createSource,omitempty"`
	Propagation  string `json:"propagation,omitempty"` // rprivate (default), private, rshared, shared, rslave, slave
	NonRecursive bool   `json:"nonRecursive,omitempty"`
	// Recursive is what read-only means for mounts below a bind source: "" (read-only
	// where the kernel can, 5.12), "writable" (they stay as they are) or "readonly" (or fail).
	Recursive    string            `json:"recursive,omitempty"`
	NoCopy       bool              `json:"noCopy,omitempty"`  // do not fill an empty volume from the image
	Chown        bool              `json:"chown,omitempty"`   // :U
	Relabel      string            `json:"relabel,omitempty"` // "z" or "Z"
	Subpath      string            `json:"subpath,omitempty"` // within a volume or image
	TmpfsSize    int64             `json:"tmpfsSize,omitempty"`
	TmpfsMode    *uint32           `json:"tmpfsMode,omitempty"`
	Options      []string          `json:"options,omitempty"` // further mount options, e.g. noexec
	VolumeDriver string            `json:"volumeDriver,omitempty"`
	VolumeOpts   map[string]string `json:"volumeOpts,omitempty"`
	VolumeLabels map[string]string `json:"volumeLabels,omitempty"`
	// Typed is the argument of -v or --tmpfs that this mount came from, "" for
	// --mount; only inspect looks at it.
	Typed string `json:"typed,omitempty"`
}

// Endpoint is one further network of a container and its settings there.
type Endpoint struct {
	Network      string            `json:"network"`
	Aliases      []string          `json:"aliases,omitempty"`
	Links        []string          `json:"links,omitempty"`
	IPAddress    string            `json:"ipAddress,omitempty"`
	IP6Address   string            `json:"ip6Address,omitempty"`
	LinkLocalIPs []string          `json:"linkLocalIPs,omitempty"`
	MacAddress   string            `json:"macAddress,omitempty"`
	DriverOpts   map[string]string `json:"driverOpts,omitempty"`
	GwPriority   int               `json:"gwPriority,omitempty"`
}

// DeviceRequest asks for devices by capability or by CDI name; Docker's shape.
type DeviceRequest struct {
	Driver       string            `json:"driver,omitempty"`
	Count        int               `json:"count,omitempty"` // -1: all
	DeviceIDs    []string          `json:"deviceIDs,omitempty"`
	Capabilities [][]string        `json:"capabilities,omitempty"`
	Options      map[string]string `json:"options,omitempty"`
}

// Device is a host device made available inside.
type Device struct {
	Source string `json:"source"`      // host path
	Target string `json:"target"`      // path inside
	Perms  string `json:"permissions"` // of "rwm"
}

// Ulimit is one resource limit; -1 means unlimited.
type Ulimit struct {
	Name string `json:"name"` // as in setrlimit(2), lower case without RLIMIT_
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Resources are the limits asked for. Sizes are bytes, 0 means "no limit asked".
type Resources struct {
	Memory            int64            `json:"memory,omitempty"`
	MemorySwap        int64            `json:"memorySwap,omitempty"` // memory plus swap; -1 unlimited
	MemoryReservation int64            `json:"memoryReservation,omitempty"`
	KernelMemory      int64            `json:"kernelMemory,omitempty"`
	MemorySwappiness  *int64           `json:"memorySwappiness,omitempty"`
	OOMKillDisable    bool             `json:"oomKillDisable,omitempty"`
	NanoCPUs          int64            `json:"nanoCpus,omitempty"` // --cpus × 1e9
	CPUShares         int64            `json:"cpuShares,omitempty"`
	CPUQuota          int64            `json:"cpuQuota,omitempty"`  // µs per period
	CPUPeriod         int64            `json:"cpuPeriod,omitempty"` // µs
	CPURTPeriod       int64            `json:"cpuRtPeriod,omitempty"`
	CPURTRuntime      int64            `json:"cpuRtRuntime,omitempty"`
	CpusetCPUs        string           `json:"cpusetCpus,omitempty"`
	CpusetMems        string           `json:"cpusetMems,omitempty"`
	PidsLimit         int64            `json:"pidsLimit,omitempty"` // -1 unlimited
	BlkioWeight       uint16           `json:"blkioWeight,omitempty"`
	BlkioWeightDevice []DeviceValue    `json:"blkioWeightDevice,omitempty"`
	DeviceReadBps     []DeviceValue    `json:"deviceReadBps,omitempty"`
	DeviceWriteBps    []DeviceValue    `json:"deviceWriteBps,omitempty"`
	DeviceReadIOps    []DeviceValue    `json:"deviceReadIOps,omitempty"`
	DeviceWriteIOps   []DeviceValue    `json:"deviceWriteIOps,omitempty"`
	HugetlbLimits     map[string]int64 `json:"hugetlbLimits,omitempty"`
	// Unified are raw cgroup v2 files and values (--cgroup-conf).
	Unified map[string]string `json:"unified,omitempty"`
}

// DeviceValue is a figure for one block device.
type DeviceValue struct {
	Path  string `json:"path"`
	Value uint64 `json:"value"`
}

// RestartPolicy says what the monitor does when the container ends.
type RestartPolicy struct {
	Name       string `json:"name,omitempty"` // "" or "no", "on-failure", "always", "unless-stopped"
	MaxRetries int    `json:"maxRetries,omitempty"`
}

// Healthcheck is a probe run inside at intervals.
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", argv...} or {"CMD-SHELL", line}.
	Test          []string      `json:"test,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// ExecConfig is what the user asked of one exec.
type ExecConfig struct {
	Cmd         []string `json:"cmd"`
	Env         []string `json:"env,omitempty"`
	WorkingDir  string   `json:"workingDir,omitempty"`
	User        string   `json:"user,omitempty"`
	TTY         bool     `json:"tty,omitempty"`
	Stdin       bool     `json:"stdin,omitempty"`
	Privileged  bool     `json:"privileged,omitempty"`
	Detach      bool     `json:"detach,omitempty"`
	DetachKeys  string   `json:"detachKeys,omitempty"`
	ConsoleSize [2]uint  `json:"consoleSize,omitzero"`
}
