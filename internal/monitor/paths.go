package monitor

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

func sockPath(env config.Env, id string) string { return env.RunContainer(id) + "/sock" }

// locks is the file in which every container has its byte (state.LockObject).
func locks(env config.Env) string { return env.Run + "/locks" }

// Alive reports whether a container has a living monitor, or somebody else who
// has locked it.
func Alive(env config.Env, id string) bool { return state.ObjectHeld(locks(env), id) }

// Lock locks a container that has no monitor, so that none can start. It does
// not wait; the error is Conflict when the container is locked.
func Lock(env config.Env, id string) (*state.Lock, error) {
	l, err := state.LockObject(locks(env), id, state.NoWait)
	if errors.Is(err, unix.ENOENT) { // the first time after a boot
		if err = env.MakeDirs(); err == nil {
			l, err = state.LockObject(locks(env), id, state.NoWait)
		}
	}
	return l, err
}

// maxSun is the room for a path in sockaddr_un (unix(7)).
const maxSun = 107

// shortPath returns a name for a socket that fits sockaddr_un: a long one by
// way of a descriptor of its directory, to be closed after use.
func shortPath(path string) (name string, done func(), err error) {
	if len(path) <= maxSun {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { _ = unix.Close(fd) }, nil
}

// StartTime returns when a process started, in clock ticks since boot: with the
// pid it names a process for good.
func StartTime(pid int) (uint64, error) {
	data, err := state.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field, the name, may hold anything, also parentheses
	// (proc_pid_stat(5)).
	s := string(data)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, errs.New(errs.Corrupt, "/proc/%d/stat: %d fields", pid, len(f))
	}
	var t uint64
	if _, err := fmt.Sscan(f[19], &t); err != nil {
		return 0, errs.New(errs.Corrupt, "/proc/%d/stat: start time %q", pid, f[19])
	}
	return t, nil
}
