package cli

// The shapes of Docker's inspect JSON: field names and order are Docker's (API
// 1.50). The Go names are those of Docker's API where they differ from the JSON
// ones, because templates of `docker inspect -f` may use either.

type containerJSON struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           *stateJSON
	Image           string
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      *hostConfigJSON
	GraphDriver     graphDriver
	SizeRw          *int64 `json:",omitempty"`
	SizeRootFs      *int64 `json:",omitempty"`
	Mounts          []mountPointJSON
	Config          *configJSON
	NetworkSettings *networkSettingsJSON
}

type stateJSON struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	Ended      string `json:",omitempty"` // in words; not in Docker
	StartedAt  string
	FinishedAt string
	Health     *healthJSON `json:",omitempty"`
}

type healthJSON struct {
	Status        string
	FailingStreak int
	Log           []probeJSON
}

type probeJSON struct {
	Start    string
	End      string
	ExitCode int
	Output   string
}

type graphDriver struct {
	Data map[string]string
	Name string
}

type hostConfigJSON struct {
	Binds           []string
	ContainerIDFile string
	LogConfig       logConfigJSON
	NetworkMode     string
	PortBindings    map[string][]bindingJSON
	RestartPolicy   restartJSON
	AutoRemove      bool
	VolumeDriver    string
	VolumesFrom     []string
	ConsoleSize     [2]uint
	Annotations     map[string]string `json:",omitempty"`
	CapAdd          []string
	CapDrop         []string
	CgroupnsMode    string
	DNS             []string `json:"Dns"`
	DNSOptions      []string `json:"DnsOptions"`
	DNSSearch       []string `json:"DnsSearch"`
	ExtraHosts      []string
	GroupAdd        []string
	IpcMode         string
	Cgroup          string
	Links           []string
	OomScoreAdj     int
	PidMode         string
	Privileged      bool
	PublishAllPorts bool
	ReadonlyRootfs  bool
	SecurityOpt     []string
	StorageOpt      map[string]string `json:",omitempty"`
	Tmpfs           map[string]string `json:",omitempty"`
	UTSMode         string
	UsernsMode      string
	ShmSize         int64
	Sysctls         map[string]string `json:",omitempty"`
	Runtime         string
	Isolation       string

	CPUShares            int64 `json:"CpuShares"`
	Memory               int64
	NanoCPUs             int64 `json:"NanoCpus"`
	CgroupParent         string
	BlkioWeight          uint16
	BlkioWeightDevice    []weightJSON
	BlkioDeviceReadBps   []rateJSON
	BlkioDeviceWriteBps  []rateJSON
	BlkioDeviceReadIOps  []rateJSON
	BlkioDeviceWriteIOps []rateJSON
	CPUPeriod            int64 `json:"CpuPeriod"`
	CPUQuota             int64 `json:"CpuQuota"`
	CPURealtimePeriod    int64 `json:"CpuRealtimePeriod"`
	CPURealtimeRuntime   int64 `json:"CpuRealtimeRuntime"`
	CpusetCpus           string
	CpusetMems           string
	Devices              []deviceJSON
	DeviceCgroupRules    []string
	DeviceRequests       []deviceRequestJSON
	MemoryReservation    int64
	MemorySwap           int64
	MemorySwappiness     *int64
	OomKillDisable       bool
	PidsLimit            *int64
	Ulimits              []ulimitJSON
	CPUCount             int64 `json:"CpuCount"`
	CPUPercent           int64 `json:"CpuPercent"`
	IOMaximumIOps        uint64
	IOMaximumBandwidth   uint64
	Mounts               []mountJSON `json:",omitempty"`
	MaskedPaths          []string
	ReadonlyPaths        []string
	Init                 *bool `json:",omitempty"`
}

type logConfigJSON struct {
	Type   string
	Config map[string]string
}

type bindingJSON struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

type restartJSON struct {
	Name              string
	MaximumRetryCount int
}

type weightJSON struct {
	Path   string
	Weight uint64
}

type rateJSON struct {
	Path string
	Rate uint64
}

type deviceJSON struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

type deviceRequestJSON struct {
	Driver       string
	Count        int
	DeviceIDs    []string
	Capabilities [][]string
	Options      map[string]string
}

type ulimitJSON struct {
	Name string
	Hard int64
	Soft int64
}

type mountJSON struct {
	Type          string             `json:",omitempty"`
	Source        string             `json:",omitempty"`
	Target        string             `json:",omitempty"`
	ReadOnly      bool               `json:",omitempty"`
	BindOptions   *bindOptionsJSON   `json:",omitempty"`
	VolumeOptions *volumeOptionsJSON `json:",omitempty"`
	ImageOptions  *imageOptionsJSON  `json:",omitempty"`
	TmpfsOptions  *tmpfsOptionsJSON  `json:",omitempty"`
}

type bindOptionsJSON struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

type volumeOptionsJSON struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *driverConfigJSON `json:",omitempty"`
}

type driverConfigJSON struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

type imageOptionsJSON struct {
	Subpath string `json:",omitempty"`
}

type tmpfsOptionsJSON struct {
	SizeBytes int64  `json:",omitempty"`
	Mode      uint32 `json:",omitempty"`
}

type mountPointJSON struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

type configJSON struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Healthcheck  *healthcheckJSON `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	MacAddress   string `json:",omitempty"`
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	StopTimeout  *int     `json:",omitempty"`
	Shell        []string `json:",omitempty"`
}

type healthcheckJSON struct {
	Test          []string `json:",omitempty"`
	Interval      int64    `json:",omitempty"`
	Timeout       int64    `json:",omitempty"`
	StartPeriod   int64    `json:",omitempty"`
	StartInterval int64    `json:",omitempty"`
	Retries       int      `json:",omitempty"`
}

type networkSettingsJSON struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  map[string][]bindingJSON
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]*endpointJSON
}

type endpointJSON struct {
	IPAMConfig          *ipamJSON
	Links               []string
	Aliases             []string
	MacAddress          string
	DriverOpts          map[string]string
	GwPriority          int
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	DNSNames            []string
}

type ipamJSON struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}

type imageJSON struct {
	ID            string `json:"Id"`
	RepoTags      []string
	RepoDigests   []string
	Parent        string
	Comment       string
	Created       string
	DockerVersion string
	Author        string
	Architecture  string
	Variant       string `json:",omitempty"`
	Os            string
	Size          int64
	GraphDriver   graphDriver
	RootFS        rootFSJSON
	Metadata      metadataJSON
	Config        *imageConfigJSON
}

type rootFSJSON struct {
	Type   string
	Layers []string `json:",omitempty"`
}

type metadataJSON struct {
	LastTagTime string
}

type imageConfigJSON struct {
	User         string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	ArgsEscaped  bool                `json:",omitempty"`
	Healthcheck  *healthcheckJSON    `json:",omitempty"`
	Shell        []string            `json:",omitempty"`
}
