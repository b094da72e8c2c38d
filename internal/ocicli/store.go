package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/runtime"
	"github.com/isle-engine/isle/internal/state"
)

// What callers know these by.
var (
	errExists     = errors.New("container with given ID already exists")
	errNotExist   = errors.New("container does not exist")
	errInvalidID  = errors.New("invalid container ID format")
	errEmptyID    = errors.New("container id cannot be empty")
	errNotRunning = errors.New("container not running")
)

// Files of a container's directory.
const (
	stateFile  = "state.json"
	configFile = "config.json"
	fifoFile   = "exec.fifo"
)

// record is state.json.
type record struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"init_process_pid"`
	StartTime   uint64            `json:"init_process_start"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroup      cgroup.Paths      `json:"cgroup"`
	// PrivatePID: the end of the process is the end of all processes.
	PrivatePID bool `json:"private_pid"`
	Rootless   bool `json:"rootless,omitempty"`
	// Limits are those that update has set, to be completed by the next.
	Limits *specs.LinuxResources `json:"limits,omitempty"`
}

// container is one that is there.
type container struct {
	dir string
	record
	lock *os.File
	spec *specs.Spec // loaded when it is asked for
}

// The statuses.
const (
	creating = "creating"
	created  = "created"
	running  = "running"
	paused   = "paused"
	stopped  = "stopped"
)

func checkID(id string) error {
	if id == "" {
		return errEmptyID
	}
	if id == "." || id == ".." || len(id) > 1024 {
		return errInvalidID
	}
	for _, r := range id {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+-.", r)) {
			return errInvalidID
		}
	}
	return nil
}

// newContainer makes the directory of a container and locks it.
func newContainer(root, id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, id)
	err := os.Mkdir(dir, 0o711)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(root, 0o700); err != nil {
			return nil, err
		}
		err = os.Mkdir(dir, 0o711)
	}
	if errors.Is(err, os.ErrExist) {
		return nil, errExists
	}
	if err != nil {
		return nil, err
	}
	ct := &container{dir: dir, record: record{ID: id}}
	if err := ct.locked(); err != nil {
		_ = os.Remove(dir) // nothing in it
		return nil, err
	}
	return ct, nil
}

// load reads the state of a container.
func load(root, id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	ct := &container{dir: filepath.Join(root, id)}
	if err := ct.read(); err != nil {
		return nil, err
	}
	return ct, nil
}

func (ct *container) read() error {
	data, err := state.ReadFile(ct.dir + "/" + stateFile)
	if errors.Is(err, os.ErrNotExist) {
		return errNotExist
	}
	if err == nil {
		err = json.Unmarshal(data, &ct.record)
	}
	if err == nil && ct.ID != filepath.Base(ct.dir) {
		err = fmt.Errorf("state of %q in directory %q", ct.ID, ct.dir)
	}
	return err
}

// change is load for those who change the container: one at a time.
func change(root, id string) (*container, error) {
	ct, err := load(root, id)
	if err != nil {
		return nil, err
	}
	if err := ct.locked(); err != nil {
		return nil, err
	}
	// What has been read before may be old by now, or gone.
	if err := ct.read(); err != nil {
		ct.close()
		return nil, err
	}
	return ct, nil
}

// locked takes the lock on the directory: until close, or the end of this process.
func (ct *container) locked() error {
	fd, err := unix.Open(ct.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return errNotExist
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: ct.dir, Err: err}
	}
	for {
		err = unix.Flock(fd, unix.LOCK_EX)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			_ = unix.Close(fd) // read only
			return &os.PathError{Op: "lock", Path: ct.dir, Err: err}
		}
	}
	ct.lock = os.NewFile(uintptr(fd), ct.dir)
	return nil
}

func (ct *container) close() {
	if ct.lock != nil {
		_ = ct.lock.Close() // read only
		ct.lock = nil
	}
}

// save writes the state. It is not synced: it must not survive a reboot.
func (ct *container) save() error {
	data, err := json.Marshal(&ct.record)
	if err != nil {
		return err
	}
	return state.WriteFile(ct.dir+"/"+stateFile, data, false)
}

// config is the bundle's configuration as it was at creation.
func (ct *container) config() (*specs.Spec, error) {
	if ct.spec != nil {
		return ct.spec, nil
	}
	s, err := readSpec(ct.dir + "/" + configFile)
	ct.spec = s
	return s, err
}

func (ct *container) fifo() string { return ct.dir + "/" + fifoFile }

func (ct *container) group() *cgroup.Group { return cgroup.Open(ct.Cgroup) }

// alive reports whether the container's process is there and no zombie.
func (ct *container) alive() bool {
	if ct.Pid <= 0 {
		return false
	}
	st, err := runtime.StartTime(ct.Pid)
	return err == nil && st == ct.StartTime && !zombie(ct.Pid)
}

func (ct *container) status() string {
	switch {
	case !ct.alive():
		return stopped
	case ct.group().Frozen():
		return paused
	case ct.waits():
		return created
	}
	return running
}

// waits reports whether the process has not been started yet.
func (ct *container) waits() bool {
	_, err := os.Lstat(ct.fifo())
	return err == nil
}

// ociState is what hooks and seccomp agents are told.
func (ct *container) ociState(status string) *specs.State {
	s := &specs.State{
		Version: specs.Version, ID: ct.ID, Status: specs.ContainerState(status), Pid: ct.Pid,
		Bundle: ct.Bundle, Annotations: ct.Annotations,
	}
	if status == stopped {
		s.Pid = 0
	}
	return s
}

// zombie reports whether pid has ended: then it is only there for its parent.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	rest := string(b[strings.LastIndexByte(string(b), ')')+1:])
	return strings.HasPrefix(rest, " Z") || strings.HasPrefix(rest, " X")
}

func inUserNS() bool {
	link, err := os.Readlink("/proc/self/ns/user")
	return err == nil && link != "user:[4026531837]"
}
