package ocicli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kill sends a signal to the container's process.
func (c *call) kill() error {
	ct, err := load(c.root, c.args[0])
	if err != nil {
		return err
	}
	name := "SIGTERM"
	if len(c.args) > 1 && c.args[1] != "" {
		name = c.args[1]
	}
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	err = ct.signal(sig)
	if errors.Is(err, errNotRunning) && c.flags.on("all") {
		return nil
	}
	return err
}

func parseSignal(name string) (unix.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return unix.Signal(n), nil
	}
	s := strings.ToUpper(name)
	if !strings.HasPrefix(s, "SIG") {
		s = "SIG" + s
	}
	if n := unix.SignalNum(s); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("unknown signal %q", name)
}

// signal sends sig to the container's process; SIGKILL to all processes where
// the end of the one is not the end of the others.
func (ct *container) signal(sig unix.Signal) error {
	if sig == unix.SIGKILL && !ct.PrivatePID {
		if pids, err := ct.group().Procs(); err != nil {
			return fmt.Errorf("unable to kill all processes: %w", err)
		} else if len(pids) == 0 {
			return ct.send(sig)
		}
		if err := ct.group().Kill(); err != nil {
			return fmt.Errorf("unable to kill all processes: %w", err)
		}
		_ = ct.group().Thaw() // v1: a frozen process does not die
		return nil
	}
	return ct.send(sig)
}

// send signals the container's process, which is made sure to be the one.
func (ct *container) send(sig unix.Signal) error {
	if ct.Pid <= 0 {
		return errNotRunning
	}
	fd, err := unix.PidfdOpen(ct.Pid, 0)
	if err != nil {
		return errNotRunning
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written
	// The descriptor stays with its process; the number could be another's.
	if !ct.alive() {
		return errNotRunning
	}
	ct.awaitHandler(sig)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		if err == unix.ESRCH {
			return errNotRunning
		}
		return fmt.Errorf("unable to signal init: %w", err)
	}
	if sig == unix.SIGKILL && ct.group().Frozen() {
		_ = ct.group().Thaw() // v1: a frozen process does not die
	}
	return nil
}

// youth is how long after its start a process may still be about to set up its
// signal handlers.
const youth = 100 * time.Millisecond

// awaitHandler gives the first process of a pid namespace that has just been
// started the time to set up its handler: the kernel drops signals for it that it
// has none for (pid_namespaces(7)), and a caller that stops what it has just
// started would wait for ever.
func (ct *container) awaitHandler(sig unix.Signal) {
	var st unix.Stat_t
	if !ct.PrivatePID || sig == unix.SIGKILL || sig == unix.SIGSTOP || sig <= 0 || sig > 64 || ct.waits() || unix.Stat(ct.dir, &st) != nil {
		return
	}
	// The last change of the directory is what start has done to it.
	for end := time.Unix(st.Mtim.Unix()).Add(youth); time.Now().Before(end) && !ct.catches(sig); {
		time.Sleep(time.Millisecond)
	}
}

// catches reports whether the process has a handler for sig.
func (ct *container) catches(sig unix.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", ct.Pid))
	if err != nil {
		return true // it has ended
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err != nil || n&(1<<(sig-1)) != 0
		}
	}
	return true
}

// delete removes a container that has ended, or that was never started.
func (c *call) delete() error {
	id, force := c.args[0], c.flags.on("force")
	ct, err := change(c.root, id)
	if errors.Is(err, errNotExist) {
		// What a create has left that was killed before it had recorded anything.
		if derr := removeDir(filepath.Join(c.root, id)); derr != nil {
			c.log.warn("%v", derr)
		}
		if force {
			return nil
		}
	}
	if err != nil {
		return err
	}
	defer ct.close()
	switch st := ct.status(); {
	case force, st == created:
		if err := ct.end(); err != nil {
			return err
		}
	case st != stopped:
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, st)
	}
	return c.destroy(ct)
}

// endPatience bounds the wait for the end of a process that was killed.
const endPatience = 10 * time.Second

// end kills the container's processes and waits for the end of the first.
func (ct *container) end() error {
	if err := ct.signal(unix.SIGKILL); err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	for end := time.Now().Add(endPatience); ct.alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("container init still running")
		}
		if fd, err := unix.PidfdOpen(ct.Pid, 0); err == nil {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000) // alive looks again
			_ = unix.Close(fd)                                                          // nothing is written
		}
	}
	return nil
}

// destroy removes all that there is of a container without processes, and runs
// its last hooks.
func (c *call) destroy(ct *container) error {
	g := ct.group()
	if !ct.PrivatePID && !g.Empty() {
		_ = g.Kill() // leftovers that have outlived the first process; Delete tells of those that stay
	}
	if err := g.Delete(); err != nil {
		return fmt.Errorf("unable to remove container's cgroup: %w", err)
	}
	s, serr := ct.config()
	if err := removeDir(ct.dir); err != nil {
		return fmt.Errorf("unable to remove container state dir: %w", err)
	}
	if serr != nil {
		return nil //nolint:nilerr // a create that was killed early: it has run no hook either
	}
	if s.Hooks == nil {
		return nil
	}
	return runHooks("poststop", s.Hooks.Poststop, ct.ociState(stopped), onHost)
}

// removeDir removes a container's directory. The state goes last: without it the
// rest is nobody's, and it is found by the next delete otherwise.
func removeDir(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, name := range [...]string{"notify", fifoFile, configFile} {
		if err := os.RemoveAll(dir + "/" + name); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// pause freezes the container's processes.
func (c *call) pause() error {
	ct, err := change(c.root, c.args[0])
	if err != nil {
		return err
	}
	defer ct.close()
	if st := ct.status(); st != running && st != created {
		return errNotRunning
	}
	return ct.group().Freeze()
}

// resume lets them go on.
func (c *call) resume() error {
	ct, err := change(c.root, c.args[0])
	if err != nil {
		return err
	}
	defer ct.close()
	if ct.status() != paused {
		return errors.New("container not paused")
	}
	return ct.group().Thaw()
}
