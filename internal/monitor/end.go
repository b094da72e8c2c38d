package monitor

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/lap"
)

// drainTime bounds the wait for output of a container whose init is dead. Its
// processes are dead too, so the end of file comes at once, except where a
// process that was never in the cgroup (a pid namespace shared with others) has
// the pipe open.
const drainTime = 500 * time.Millisecond

// reap takes the exit status of the container's init.
func (m *monitor) reap() {
	m.know()
	var ws unix.WaitStatus
	pid := m.proc.pid
	for {
		got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err == nil && got != pid {
			return // the pidfd was readable for another reason
		}
		break
	}
	lap.Mark("read the last output")
	m.st.FinishedAt = now()
	m.st.ExitCode, m.st.Signal = ws.ExitStatus(), 0
	if ws.Signaled() {
		m.st.Signal = int(ws.Signal())
		m.st.ExitCode = 128 + m.st.Signal
	}
	m.st.EndedBy = ""
	if m.sent.by != "" && (!ws.Signaled() || ws.Signal() == m.sent.sig) {
		m.st.EndedBy = m.sent.by
	}
	m.sent = sent{}
	m.timers[timerStop], m.timers[timerShrink], m.timers[timerAnnounce] = time.Time{}, time.Time{}, time.Time{}
	m.noteOOM()
	m.endHealth()
	if pid := m.rec.Config.PID; pid != "" && pid != "private" {
		// Its init was not the init of a pid namespace, whose death is the death
		// of all in it. Delete reports what stays.
		_ = m.proc.group.Kill()
	}
	_ = m.proc.pidfd.Close()
	ran := time.Since(m.proc.started)
	g := m.proc.group
	m.proc = nil
	m.dead = g
	m.ran = ran
	if m.consolePeer != nil {
		_ = m.consolePeer.Close() // so that the terminal's end can be seen
		m.consolePeer = nil
	}
	if m.in.fd >= 0 {
		m.in.eof = true
		m.endInput()
	}
	m.set(timerDrain, drainTime)
	m.drain()
}

// drain reads what the container has left in its streams. With slow clients
// the loop goes on with it; otherwise it is over here.
func (m *monitor) drain() {
	for _, o := range m.outs {
		for o.fd >= 0 && !m.blocked() && m.read(o) {
		}
	}
	for _, o := range m.outs {
		if o.fd >= 0 {
			return // the loop, or timerDrain, goes on
		}
	}
	m.timers[timerDrain] = time.Time{}
	m.finish()
}

// finish is called once all output of a dead container has been read.
func (m *monitor) finish() {
	for _, o := range m.outs {
		if o.fd >= 0 {
			m.endOutput(o)
		}
	}
	m.closeStreams()
	m.noteDied()
	m.cleanup()
	e := Exit{Code: m.st.ExitCode, Signal: m.st.Signal, OOMKilled: m.st.OOMKilled, OOM: m.st.OOM, By: m.st.EndedBy}
	again := m.restarts()
	if again {
		m.st.Status = container.Restarting
		m.st.Pid, m.st.PidStart, m.st.Cgroup = 0, 0, container.Cgroup{}
		_ = m.save(false) // true again in a moment
		if m.listener < 0 {
			// Too short for an announcement; but it must be possible to stop it.
			m.listener, _ = listen(sockPath(m.env, m.id))
		}
		m.set(timerRestart, m.backoff)
	} else {
		m.end()
	}
	// A client of this run learns of its end, also when there will be another.
	x := encodeExit(e)
	for _, p := range m.peers {
		if p.attached {
			p.last = x
		}
	}
}

// cleanup removes what one run of the container had.
func (m *monitor) cleanup() {
	lap.Mark("remove cgroup and network")
	if m.dead != nil {
		if err := m.dead.Delete(); err != nil && m.st.Error == "" {
			m.st.Error = err.Error()
		}
		m.dead = nil
	}
	if err := m.disconnect(); err != nil && m.st.Error == "" {
		m.st.Error = err.Error()
	}
}

// end makes the container's end known: the record, then the lock, then those
// who wait.
func (m *monitor) end() {
	lap.Mark("write the state, or remove all (--rm)")
	m.ended = true
	e := Exit{Code: m.st.ExitCode, Signal: m.st.Signal, OOMKilled: m.st.OOMKilled, OOM: m.st.OOM, Error: m.st.Error, By: m.st.EndedBy}
	if err := m.log.Close(); err != nil && m.logErr == "" {
		m.logErr = err.Error()
	}
	m.st.Status = container.Exited
	m.st.Pid, m.st.PidStart, m.st.MonitorPid, m.st.Cgroup = 0, 0, 0, container.Cgroup{}
	m.st.Network = m.networkState()
	if m.st.Error == "" {
		m.st.Error = m.logErr
	}
	var grave *Grave
	m.removeSocket()
	if m.rec.Config.AutoRemove {
		if grave, _ = Bury(m.env, &m.rec, true); grave != nil { // else the next removal finds it
			m.note("destroy")
			_ = grave.RemoveVolumes(Directly(m.env)) // the sweep does it again
		}
	} else {
		// The next look at the record finds the lock free and says the same,
		// if this cannot be written.
		_ = m.save(true)
	}
	m.tell()
	if m.lock != nil && grave == nil {
		_ = m.lock.Close() // everything is written
		m.lock = nil
	}
	lap.Mark("tell the exit code")
	m.exit = encodeExit(e)
	for _, p := range m.peers {
		switch {
		case p.attached || p.waits:
			p.last = m.exit
		case p.stops:
			p.last = []byte{msgAck}
		default:
			p.last = m.exit // nothing else will ever be said on this connection
		}
	}
	m.settle()
	if grave != nil {
		// Under the lock, which the end of this process releases: nobody sweeps
		// what is being removed.
		_ = grave.Clear(Directly(m.env)) // what stays is swept by the next removal
	}
}

// removeSocket removes what announce made. A leftover would refuse connections.
func (m *monitor) removeSocket() {
	if m.listener >= 0 {
		_ = unix.Close(m.listener) // whoever is in its queue looks at the record
		m.listener = -1
		_ = unix.Unlink(sockPath(m.env, m.id))
		_ = unix.Rmdir(m.env.RunContainer(m.id))
	}
}
