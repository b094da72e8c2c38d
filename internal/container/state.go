package container

import "time"

// Status is where a container is in its life, in Docker's words.
type Status string

// The states.
const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting"
	Removing   Status = "removing"
	Exited     Status = "exited"
	Dead       Status = "dead"
)

// State is what is true of a container, as last recorded. A record that says
// Running is believed only while the monitor's lock is held (state.Locked).
type State struct {
	Status     Status `json:"status"`
	Pid        int    `json:"pid,omitempty"`      // of init, in the host's pid namespace
	PidStart   uint64 `json:"pidStart,omitempty"` // its start time in clock ticks: proves that Pid is still it
	MonitorPid int    `json:"monitorPid,omitempty"`
	ExitCode   int    `json:"exitCode"`
	Signal     int    `json:"signal,omitempty"` // that ended init, if one did
	OOMKilled  bool   `json:"oomKilled,omitempty"`
	OOM        *OOM   `json:"oom,omitempty"`
	Error      string `json:"error,omitempty"` // why the start failed
	Cause      string `json:"cause,omitempty"` // what usually is behind such an Error
	// EndedBy is who sent the signal that ended it, where that was isle.
	EndedBy    string    `json:"endedBy,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// StoppedByUser is set before a stop or kill is carried out, so that
	// restart policies know.
	StoppedByUser bool     `json:"stoppedByUser,omitempty"`
	RestartCount  int      `json:"restartCount,omitempty"`
	Cgroup        Cgroup   `json:"cgroup,omitzero"`
	Health        *Health  `json:"health,omitempty"`
	Network       *Network `json:"network,omitempty"`
}

// OOM tells of an out-of-memory kill.
type OOM struct {
	Kills int64  `json:"kills"`
	Limit int64  `json:"limit"`          // bytes
	Peak  int64  `json:"peak,omitempty"` // bytes; 0 where the kernel does not say
	Text  string `json:"text,omitempty"`
	// Victim is what was killed: a name and a pid of the host; "" where it is not known.
	Victim string `json:"victim,omitempty"`
}

// Cgroup records where the container's cgroups are, so that any later process
// can find, limit, kill and remove them.
type Cgroup struct {
	Manager string            `json:"manager,omitempty"` // "cgroupfs" or "systemd"
	Unit    string            `json:"unit,omitempty"`    // systemd scope, if any
	V2      string            `json:"v2,omitempty"`      // directory in the v2 hierarchy, absolute host path
	V1      map[string]string `json:"v1,omitempty"`      // controller to directory
}

// Health is the recorded result of health checks.
type Health struct {
	Status        string        `json:"status"` // starting, healthy, unhealthy
	FailingStreak int           `json:"failingStreak"`
	Log           []HealthProbe `json:"log,omitempty"` // the last five
}

// HealthProbe is one run of a health check.
type HealthProbe struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"`
	Output   string    `json:"output"`
}

// Network is what the network subsystem gave the container.
type Network struct {
	Mode      string        `json:"mode"` // "bridge", "none", "host", "container:ID", "ns:PATH" or the first network's name
	Endpoints []NetEndpoint `json:"endpoints,omitempty"`
	Ports     []Published   `json:"ports,omitempty"`
	Uplink    bool          `json:"uplink,omitempty"` // rootless: traffic leaves by the user's uplink process
}

// NetEndpoint is the container's place in one network.
type NetEndpoint struct {
	Network    string   `json:"network"`   // name
	NetworkID  string   `json:"networkID"` // of the network
	ID         string   `json:"id"`        // of the endpoint
	Interface  string   `json:"interface"` // inside: eth0
	HostDevice string   `json:"hostDevice,omitempty"`
	MAC        string   `json:"mac,omitempty"`
	IP         string   `json:"ip,omitempty"`
	Bits       int      `json:"bits,omitempty"`
	Gateway    string   `json:"gateway,omitempty"`
	IP6        string   `json:"ip6,omitempty"`
	Bits6      int      `json:"bits6,omitempty"`
	Gateway6   string   `json:"gateway6,omitempty"`
	Aliases    []string `json:"aliases,omitempty"`
	Priority   int      `json:"priority,omitempty"` // of its gateway
}

// Published is one port of the host that leads into the container.
type Published struct {
	HostIP   string `json:"hostIP"` // 0.0.0.0, ::, or one address
	HostPort uint16 `json:"hostPort"`
	Port     uint16 `json:"port"`
	Proto    string `json:"proto"`
	To       string `json:"to"` // the container's address that it leads to
}

// Record is the part of a container that is fixed at create: the request, and
// what was resolved from it. It is the file config.json of its directory.
type Record struct {
	ID      string    `json:"id"` // 64 hex digits
	Created time.Time `json:"created"`
	Config  Config    `json:"config"`
	Image   Image     `json:"image"`
	// Volumes tells for each volume mount, by target, which volume it got.
	Volumes map[string]string `json:"volumes,omitempty"`
	// NetnsOf, PIDOf ... are the full ids that "container:NAME" meant at create.
	Joined map[string]string `json:"joined,omitempty"` // "network", "pid", "ipc", "uts", "user" → id
}

// Image is what a container keeps of its image, so that it starts without
// looking at the image store, even after the image's name moved on.
type Image struct {
	ID     string      `json:"id"`     // sha256:… of the image configuration
	Ref    string      `json:"ref"`    // the normalized name
	Layers []string    `json:"layers"` // diff ids, lowest first
	Config ImageConfig `json:"config"`
}

// ImageConfig is the part of an image's configuration that a container uses.
// Image metadata is data, never control input: nothing else is ever read from it.
type ImageConfig struct {
	User        string              `json:"user,omitempty"`
	Env         []string            `json:"env,omitempty"`
	Entrypoint  []string            `json:"entrypoint,omitempty"`
	Cmd         []string            `json:"cmd,omitempty"`
	WorkingDir  string              `json:"workingDir,omitempty"`
	Labels      map[string]string   `json:"labels,omitempty"`
	StopSignal  string              `json:"stopSignal,omitempty"`
	Volumes     map[string]struct{} `json:"volumes,omitempty"`
	Expose      map[string]struct{} `json:"expose,omitempty"`
	Shell       []string            `json:"shell,omitempty"`
	Health      *Healthcheck        `json:"health,omitempty"`
	ArgsEscaped bool                `json:"argsEscaped,omitempty"`
}
