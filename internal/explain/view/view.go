package view

import (
	"time"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/program"
)

// Subject is the container to look at.
type Subject struct {
	Env    config.Env
	Record *container.Record
	State  *container.State
	Dir    string
	// Peers are other containers that run, with whom namespaces may be shared.
	Peers []Peer
	// Join enters the user's own namespaces; nil for root.
	Join []program.Join
	// History is the image's, oldest first, with the layer that each step made.
	History []Step
}

// Peer is another container that runs.
type Peer struct {
	Name string
	Pid  int
}

// Step is one line of the image's history.
type Step struct {
	CreatedBy string
	DiffID    string // of the layer; "" when it made none
}

// View is what was seen.
type View struct {
	ID       string           `json:"id"`
	Name     string           `json:"name"`
	Image    string           `json:"image"`
	Command  []string         `json:"command"`
	Status   container.Status `json:"status"`
	Live     bool             `json:"live"`
	Rootless bool             `json:"rootless"`
	Taken    time.Time        `json:"taken"`
	Started  time.Time        `json:"started,omitzero"`
	Ended    string           `json:"ended,omitempty"` // how, in words

	Processes   []Process    `json:"processes,omitempty"` // the first is the container's init
	Users       *Users       `json:"users,omitempty"`
	Host        *HostName    `json:"hostName,omitempty"`
	Namespaces  []Namespace  `json:"namespaces,omitempty"`
	Cgroup      *Cgroup      `json:"cgroup,omitempty"`
	Root        *Root        `json:"root,omitempty"`
	Mounts      []Mount      `json:"mounts,omitempty"`
	Credentials *Credentials `json:"credentials,omitempty"`
	Network     *Network     `json:"network,omitempty"`
	Differences []Difference `json:"differences,omitempty"`
	// Unseen are things that could not be looked at, and why.
	Unseen []string `json:"unseen,omitempty"`
}

// Process is one process under both its numbers.
type Process struct {
	Inside  int      `json:"inside"` // pid in the container's pid namespace
	Host    int      `json:"host"`
	Parent  int      `json:"parent"` // pid on the host
	User    ID       `json:"user"`
	Group   ID       `json:"group"`
	State   string   `json:"state"`
	Threads int      `json:"threads"`
	Memory  int64    `json:"memory"` // resident bytes
	Command []string `json:"command"`
}

// ID is a user or a group under both its numbers; Inside is -1 when the
// container's user namespace does not map it.
type ID struct {
	Inside int64 `json:"inside"`
	Host   int64 `json:"host"`
}

// Users are the id maps.
type Users struct {
	UIDs       []Range `json:"uids"`
	GIDs       []Range `json:"gids"`
	Same       bool    `json:"same"` // every id means the same inside and outside
	NoSetgroup bool    `json:"noSetgroups,omitempty"`
	HostName   string  `json:"rootIs"` // who the container's root is on the host, by name
}

// Range is one line of uid_map or gid_map.
type Range struct {
	Inside int64 `json:"inside"`
	Host   int64 `json:"host"`
	Count  int64 `json:"count"`
}

// HostName is the container's and the machine's.
type HostName struct {
	Inside string `json:"inside"`
	Host   string `json:"host"`
	Domain string `json:"domain,omitempty"`
}

// Namespace is one of the container's.
type Namespace struct {
	Kind   string   `json:"kind"`
	Inode  uint64   `json:"inode"`
	Host   uint64   `json:"host"` // the caller's
	Shared bool     `json:"shared"`
	With   []string `json:"with,omitempty"` // whom it is shared with
	Owner  uint64   `json:"owner,omitempty"`
	Hides  string   `json:"hides"`
}

// Cgroup is where it is counted and limited.
type Cgroup struct {
	Paths    []Path    `json:"paths"`
	Limits   []Limit   `json:"limits"`
	Pressure []PSI     `json:"pressure,omitempty"`
	Events   []Counter `json:"events,omitempty"`
	Frozen   bool      `json:"frozen"`
	CPU      struct {
		UsageNs   int64 `json:"usageNs"`
		UserNs    int64 `json:"userNs"`
		SystemNs  int64 `json:"systemNs"`
		Periods   int64 `json:"periods,omitempty"`
		Throttled int64 `json:"throttled,omitempty"`
	} `json:"cpu"`
}

// Path is the container's group in one hierarchy.
type Path struct {
	Hierarchy string `json:"hierarchy"` // "v2", or the v1 controllers
	Inside    string `json:"inside"`    // as the container sees it
	Host      string `json:"host"`      // directory on the host
}

// Limit is one resource.
type Limit struct {
	Name  string `json:"name"` // memory, swap, pids, cpu …
	Unit  string `json:"unit"` // bytes, tasks, cpus
	Max   int64  `json:"max"`  // -1: no limit
	Now   int64  `json:"now"`  // -1: not counted
	Peak  int64  `json:"peak,omitempty"`
	File  string `json:"file,omitempty"` // that holds the limit
	Text  string `json:"text,omitempty"` // what the file says
	Whose string `json:"whose,omitempty"`
}

// PSI is how long work has waited for one resource: percent of the last 10 s.
type PSI struct {
	Resource string  `json:"resource"`
	Some     float64 `json:"some"`
	Full     float64 `json:"full"`
	Total    int64   `json:"totalUs"`
}

// Counter is one line of an events file.
type Counter struct {
	Name string `json:"name"`
	N    int64  `json:"n"`
}

// Root is the root file system.
type Root struct {
	ReadOnly bool    `json:"readOnly"`
	Type     string  `json:"type"`
	Layers   []Layer `json:"layers"` // highest first
	Upper    string  `json:"upper,omitempty"`
	Written  int64   `json:"writtenBytes"`
	Files    int     `json:"writtenFiles"`
	More     bool    `json:"more,omitempty"` // not everything was counted
}

// Layer is one layer under the container.
type Layer struct {
	Dir       string `json:"dir"`
	DiffID    string `json:"diffId,omitempty"`
	Bytes     int64  `json:"bytes"`
	CreatedBy string `json:"createdBy,omitempty"`
}

// Mount is one mount in the container.
type Mount struct {
	Point   string `json:"point"`
	Type    string `json:"type"`
	Options string `json:"options"`
	From    string `json:"from"` // where it comes from, on the host
	Kind    string `json:"kind"` // root, kernel, memory, host, volume, isle, masked, readonly, device
	Why     string `json:"why"`
}

// Credentials are what the init may do.
type Credentials struct {
	Effective   []string `json:"effective"`
	Kept        []string `json:"kept"`    // the bounding set
	Dropped     []string `json:"dropped"` // what root of the machine has besides
	Bounding    string   `json:"bounding"`
	NoNewPrivs  bool     `json:"noNewPrivs"`
	Groups      []int64  `json:"groups"`
	LSM         string   `json:"lsm"` // the label, or that there is none
	Seccomp     Seccomp  `json:"seccomp"`
	OOMScoreAdj int      `json:"oomScoreAdj"`
	Rlimits     []Rlimit `json:"rlimits"`
}

// Rlimit is a limit of the init that differs from the caller's.
type Rlimit struct {
	Name string `json:"name"`
	Soft string `json:"soft"`
	Hard string `json:"hard"`
	Mine string `json:"mine"` // the caller's
}

// Seccomp is the filter.
type Seccomp struct {
	Mode    int     `json:"mode"`    // 0 none, 1 strict, 2 filter
	Filters int     `json:"filters"` // how many are on top of one another
	Known   bool    `json:"known"`   // the filter is the one that isle compiles
	Allowed int     `json:"allowed"`
	Refused []Group `json:"refused,omitempty"`
}

// Group is refused system calls of one subject.
type Group struct {
	Name  string   `json:"name"`
	Calls []string `json:"calls"`
}

// Network is its way to the wire.
type Network struct {
	Mode        string       `json:"mode"`
	Interfaces  []Interface  `json:"interfaces"`
	Hops        []Hop        `json:"hops"`
	Ports       []Port       `json:"ports,omitempty"`
	Connections []Connection `json:"connections,omitempty"`
	Sockets     int          `json:"unixSockets,omitempty"`
}

// Interface is one inside.
type Interface struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind,omitempty"`
	MAC       string   `json:"mac,omitempty"`
	MTU       int      `json:"mtu"`
	Up        bool     `json:"up"`
	Addresses []string `json:"addresses,omitempty"`
	Peer      string   `json:"peer,omitempty"` // the other end, on the host
	Received  uint64   `json:"received"`
	Sent      uint64   `json:"sent"`
}

// Hop is one station between the process and the wire.
type Hop struct {
	Where   string `json:"where"` // inside, host, yours
	What    string `json:"what"`
	Command string `json:"command"`
}

// Port is a published port.
type Port struct {
	Host      string `json:"host"`
	Inside    string `json:"inside"`
	Listening bool   `json:"listening"` // somebody inside takes connections
}

// Connection is a socket of the container's network namespace.
type Connection struct {
	Proto  string `json:"proto"`
	Local  string `json:"local"`
	Remote string `json:"remote,omitempty"`
	State  string `json:"state"`
}

// Difference is something that the kernel says otherwise than the record.
type Difference struct {
	What  string `json:"what"`
	Asked string `json:"asked"`
	Is    string `json:"is"`
}

func (v *View) differ(what, asked, is string) {
	if asked != is {
		v.Differences = append(v.Differences, Difference{what, asked, is})
	}
}

func (v *View) unseen(what string, err error) {
	if err != nil {
		v.Unseen = append(v.Unseen, what+": "+err.Error())
	}
}
