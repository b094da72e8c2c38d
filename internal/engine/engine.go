package engine

import (
	"io"
	"os"
	"time"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/storage"
)

// Version of this build; releases set it with the linker's -X.
var Version = "0.1.0-dev"

// Engine gives the use cases for one user's containers. It holds no state of
// its own; the truth is on disk. Methods may be called from several goroutines.
type Engine struct {
	// Advise, if set, is told once, when the user's namespace is made, what is
	// poor about it, and the remedies. To be set before the first use.
	Advise func(why string, remedies []string)

	env    config.Env
	images *image.Store
	layers *storage.Store
	scan   procScan
}

// Open returns the engine for env. It does no I/O: directories are made by the
// first use case that needs them.
func Open(env config.Env) (*Engine, error) {
	return &Engine{env: env, images: image.Open(env.Images()), layers: storage.Open(env.Layers())}, nil
}

// Env returns where this engine keeps its things.
func (e *Engine) Env() config.Env { return e.env }

// Container is a container as listed or inspected: the request and the state,
// checked against the machine (a record that says running has been verified).
type Container struct {
	container.Record
	State      container.State
	Dir        string // its directory
	LogPath    string // its log, also when there is none yet
	SizeRw     int64  // bytes in the writable layer, when asked for
	SizeRootFs int64  // that and the image's layers
}

// CreateOptions are what create needs beside the Config.
type CreateOptions struct {
	Pull     string   // "missing" (default), "always", "never"
	Progress *os.File // where pull progress goes; nil: nowhere
	Quiet    bool     // no pull progress
}

// IO is what a foreground run, start -a, attach or exec connects to a process.
// The monitor writes to Stdout and Stderr itself, so they are files.
type IO struct {
	Stdin  io.Reader // nil: not attached
	Stdout *os.File
	Stderr *os.File
	// DetachKeys is the sequence that ends the attachment; "" is ctrl-p,ctrl-q.
	DetachKeys string
	Logs       bool // replay what was logged before
	// Starting, if set, is called once the start is under way and this process
	// has nothing to do but wait; from then on the container lives without it.
	Starting func()
}

// Exit is how a container or an exec ended.
type Exit struct {
	Code      int
	OOMKilled bool
	OOM       *container.OOM
	Signal    int    // that ended it; 0: none
	By        string // who sent the signal, where that was isle
	Detached  bool   // the user typed the detach keys; Code means nothing
}

// Filter is a parsed --filter: key to values (any may match), as Docker's.
type Filter map[string][]string

// ListOptions select containers for List.
type ListOptions struct {
	All    bool
	Last   int // -n; 0: no limit
	Size   bool
	Filter Filter
}

// RemoveOptions of rm.
type RemoveOptions struct {
	Force   bool
	Volumes bool // anonymous volumes too
}

// LogOptions of logs.
type LogOptions struct {
	Follow     bool
	Timestamps bool
	Details    bool
	Since      time.Time
	Until      time.Time
	Tail       int // -1: all
}

// PullOptions of pull.
type PullOptions struct {
	Platform string
	Quiet    bool
	Progress *os.File // nil: no progress
	All      bool     // all tags
}

// Pulled tells what a pull did.
type Pulled struct {
	Name   string `json:"name"`   // the resolved name
	Digest string `json:"digest"` // of the manifest or index that the name means
	ID     string `json:"id"`     // image id
	New    bool   `json:"new"`    // something was downloaded
}

// Info is what `isle info` tells of this engine and machine.
type Info struct {
	Version           string
	Root, RunRoot     string
	Rootless          bool
	Containers        int
	Running           int
	Paused            int
	Stopped           int
	Images            int
	Kernel            string
	OperatingSystem   string
	OSVersion         string
	Architecture      string
	NCPU              int
	MemTotal          int64
	CgroupVersion     string
	CgroupControllers []string
	SecurityOptions   []string
	Hostname          string
	ID                string
	FileSystem        string // that images and containers are on
	LogDrivers        []string
	IPv4Forwarding    bool
}
