package engine

import (
	"errors"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/monitor/log"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/state"
)

// load reads a container and makes its state true: a record that says running
// without a living monitor is what kill -9 or a power loss left, and its story
// is finished here.
func (e *Engine) load(id string) (*Container, error) {
	dir := e.env.Container(id)
	c := &Container{Dir: dir}
	if err := state.ReadRecord(dir, &c.Record); errors.Is(err, errs.NotFound) {
		return nil, errs.New(errs.NotFound, "No such container: %s", id) // removed since its name was looked up
	} else if err != nil {
		return nil, err
	}
	c.LogPath = log.Path(dir, id, c.Config.LogDriver)
	c.State.Status = container.Created // until a monitor writes the first state
	if err := state.ReadState(dir, &c.State); err != nil && !errors.Is(err, errs.NotFound) {
		return nil, err
	}
	if live(c.State.Status) && !monitor.Alive(e.env, id) {
		if err := e.finish(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// live reports whether a status needs a monitor.
func live(s container.Status) bool {
	return s == container.Running || s == container.Paused || s == container.Restarting
}

// finish ends the story of a container whose monitor is dead: what is left of
// it is killed, its cgroups removed, and the record says so. Its processes got
// SIGKILL when the monitor died, so the exit code is 137.
func (e *Engine) finish(c *Container) error {
	lock, err := monitor.Lock(e.env, c.ID)
	if errors.Is(err, errs.Conflict) {
		return nil // somebody else is at it
	}
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing is written to it
	var st container.State
	if err := state.ReadState(c.Dir, &st); err != nil {
		return err
	}
	if !live(st.Status) {
		c.State = st
		return nil
	}
	killLeftover(&st)
	network.Open(e.env).Release(c.ID, st.Network)
	st.Status, st.ExitCode, st.Signal, st.Pid, st.MonitorPid = container.Exited, 137, 9, 0, 0
	st.Error = "the monitor of the container was killed, or the machine stopped"
	st.FinishedAt = time.Now().UTC()
	st.Cgroup = container.Cgroup{}
	e.tellContainer(&c.Record, "die", "exitCode", "137")
	if c.Config.AutoRemove {
		c.State = st
		return e.discard(c, true)
	}
	if err := state.WriteState(c.Dir, &st, true); err != nil {
		return err
	}
	c.State = st
	return nil
}

// killLeftover kills and removes the cgroups that a state names. After a reboot
// they are not there, which is as good.
func killLeftover(st *container.State) {
	if st.Cgroup.V2 == "" && len(st.Cgroup.V1) == 0 {
		return
	}
	g := cgroup.Open(cgroup.Paths(st.Cgroup))
	_ = g.Kill()   // Delete reports what is still there
	_ = g.Delete() // best effort: an empty cgroup left behind holds nothing
}
