// Package engine is the conductor: it holds isle's use cases (create, start,
// stop, remove, pull, list ...), that is, the order of steps, the locks and the
// undo. It decides; front doors only translate, and subsystems know nothing of
// one another.
package engine

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/image"
)

// Engine gives the use cases for one user's containers. It holds no state of
// its own; the truth is on disk. Methods may be called from several goroutines.
type Engine struct {
	env config.Env
}

// Open returns the engine for env. It does no I/O beyond what every command needs.
func Open(env config.Env) (*Engine, error) { return &Engine{env: env}, nil }

// Container is a container as listed or inspected: the request and the state,
// checked against the machine (a record that says running is verified).
type Container struct {
	container.Record
	State container.State
	// LogPath, Dir are host paths.
	LogPath string
	Dir     string
}

// CreateOptions are what create needs beside the Config.
type CreateOptions struct {
	Pull     string    // "missing" (default), "always", "never"
	Progress *os.File  // where pull progress goes (stderr); nil: silent
	Quiet    bool      // no pull progress
	Out      io.Writer // unused by the engine; front doors may set it
}

// IO is what a foreground run, start -a or attach connects to the container.
// The monitor writes to Stdout and Stderr itself, so they are files.
type IO struct {
	Stdin  io.Reader // nil: not attached
	Stdout *os.File
	Stderr *os.File
	// DetachKeys is the sequence that ends the attachment ("ctrl-p,ctrl-q").
	DetachKeys string
	Logs       bool // also replay what was logged before
	NoStdin    bool
}

// Exit is how a container or an exec ended.
type Exit struct {
	Code      int
	OOMKilled bool
	OOM       *container.OOM
	Detached  bool   // the user typed the detach keys; Code means nothing
	Error     string // start failure
}

// Session is a container or exec process that the caller is attached to.
type Session interface {
	// Wait returns when the process has ended or the user has detached.
	Wait(ctx context.Context) (Exit, error)
	// Signal sends a signal to the container's init (proxying).
	Signal(sig os.Signal) error
	// Resize tells the terminal's new size.
	Resize(rows, cols uint16) error
}

// Filter is a parsed --filter: key to values (any may match), as Docker's.
type Filter map[string][]string

// ListOptions select containers for List.
type ListOptions struct {
	All    bool
	Last   int // -n; 0: no limit
	Latest bool
	Size   bool
	Filter Filter
}

// RemoveOptions of rm.
type RemoveOptions struct {
	Force   bool
	Volumes bool
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
	Progress *os.File
	All      bool // all tags
}

// Version of the engine's own build; filled by the linker in releases.
var Version = "0.1.0-dev"

var _ = image.Image{}
