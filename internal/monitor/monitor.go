package monitor

import (
	"encoding/binary"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/monitor/log"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/state"
)

// monitor is the process's state. It belongs to the loop's goroutine.
type monitor struct {
	env  config.Env
	id   string
	dir  string // DATA/containers/ID
	rec  container.Record
	st   container.State
	lock *state.Lock
	maps idmap    // of the container's own user namespace
	root *os.File // of the first start, where the client has mounted it

	log        *log.Writer
	logOptions log.Options
	logErr     string
	outs       []*output
	in         input
	// console is the master of the container's terminal, consolePeer its other end.
	console, consolePeer *os.File
	sent                 sent // the last signal that isle sent
	buf                  []byte

	machine   host.Machine
	proc      *process // nil while no container process exists
	net       *network.Attachment
	netFDs    []*os.File    // after an execve: the sockets that hold the published ports
	netHelper *os.File      // after an execve: the connection to the network helper
	netWatch  *os.File      // after an execve: what tells that the packet filter has lost rules
	dead      *cgroup.Group // of the process that has just ended
	ran       time.Duration
	listener  int
	waker     int // eventfd: a goroutine has news for the loop
	peers     []*peer
	msg       [maxMessage]byte

	timers [timerCount]time.Time // zero: not set

	checking *check        // a health check under way
	doubted  *check        // one that was killed, perhaps with the container
	news     []state.Event // not yet told
	stopping bool          // a stop is what ends the container

	size    [2]uint16     // of the terminal at the start: rows, columns
	once    bool          // the first client's input was the container's; there is no other
	backoff time.Duration // before the next restart
	quit    bool          // the machine or the session ends; no restarts
	vague   bool          // rec and st have yet to be read (see know)
	term    atomic.Bool   // SIGTERM came
	ended   bool          // there will be no further start
	exit    []byte        // 'X' of the final end

	polled []unix.PollFd
	roles  []role
}

// process is a container that runs.
type process struct {
	pid     int
	pidfd   *os.File
	start   uint64 // start time in clock ticks
	group   *cgroup.Group
	started time.Time
}

// The loop's timers.
const (
	timerStop     = iota // kill what did not stop
	timerRestart         // start again
	timerDrain           // do not wait longer for output after the end
	timerShrink          // give back memory
	timerAnnounce        // make known that the container runs
	timerHelper          // start the network helper again
	timerHealth          // probe the container's health
	timerProbe           // do not wait longer for the probe
	timerCount
)

// helperRetry is the pause before a network helper that could not be started is
// tried again.
const helperRetry = time.Second

// role says what a polled descriptor is.
type role struct {
	kind byte
	i    int
}

const (
	roleWake = iota
	roleListen
	roleProcess
	rolePeer
	roleOutput
	roleStdin
	roleInput
	roleHelper
	roleFilter
	roleProbe
	roleProbeOutput
)

func (m *monitor) watch(fd int, events int16, kind byte, i int) {
	m.polled = append(m.polled, unix.PollFd{Fd: int32(fd), Events: events})
	m.roles = append(m.roles, role{kind, i})
}

// loop runs the container's life from its first start to the end of the monitor.
func (m *monitor) loop() {
	for !m.over() {
		m.polled, m.roles = m.polled[:0], m.roles[:0]
		m.watch(m.waker, unix.POLLIN, roleWake, 0)
		if m.listener >= 0 {
			m.watch(m.listener, unix.POLLIN, roleListen, 0)
		}
		if m.proc != nil {
			m.watch(int(m.proc.pidfd.Fd()), unix.POLLIN, roleProcess, 0)
		}
		if f := m.helperFile(); f != nil && m.proc != nil {
			m.watch(int(f.Fd()), unix.POLLIN, roleHelper, 0)
		}
		if f := m.watchFile(); f != nil && m.proc != nil {
			m.watch(int(f.Fd()), unix.POLLIN, roleFilter, 0)
		}
		m.watchProbe()
		takeInput := m.in.fd >= 0 && len(m.in.pending) == 0
		for i, p := range m.peers {
			m.watch(p.fd, unix.POLLIN, rolePeer, i)
			if p.stdin >= 0 && takeInput {
				m.watch(p.stdin, unix.POLLIN, roleStdin, i)
			}
		}
		if !m.blocked() {
			for i, o := range m.outs {
				if o.fd >= 0 {
					m.watch(o.fd, unix.POLLIN, roleOutput, i)
				}
			}
		}
		switch {
		case m.in.fd < 0:
		case len(m.in.pending) > 0:
			m.watch(m.in.fd, unix.POLLOUT, roleInput, 0)
		case !m.in.tty:
			m.watch(m.in.fd, 0, roleInput, 0) // POLLERR: nobody reads it any more
		}
		n, err := unix.Poll(m.polled, m.timeout())
		if err != nil && err != unix.EINTR {
			// EFAULT, EINVAL and ENOMEM are what is left (poll(2)).
			panic("monitor: poll: " + err.Error())
		}
		if n > 0 {
			m.dispatch()
		}
		m.fire()
		if m.listener >= 0 {
			m.tell()
		}
		m.settle()
	}
}

// dispatch handles what poll(2) found. Clients that are gone are removed after
// the round, so that indices stay right.
func (m *monitor) dispatch() {
	died := false
	for k, f := range m.polled {
		if f.Revents == 0 {
			continue
		}
		switch r := m.roles[k]; r.kind {
		case roleWake:
			var b [8]byte
			_, _ = unix.Read(m.waker, b[:]) // only to clear it
			if m.term.Swap(false) {
				m.terminate()
			}
		case roleHelper:
			m.helperDied() // it says nothing unasked
		case roleFilter:
			m.restoreFilter()
		case roleProbe:
			m.reapProbe()
		case roleProbeOutput:
			m.readProbe()
		case roleListen:
			m.accept()
		case roleProcess:
			died = true
		case rolePeer:
			if p := m.peers[r.i]; !m.hear(p) {
				p.leave()
			}
		case roleStdin:
			if p := m.peers[r.i]; p.stdin >= 0 {
				m.typed(p)
			}
		case roleOutput:
			if o := m.outs[r.i]; o.fd >= 0 {
				m.read(o)
			}
		case roleInput:
			if f.Revents&(unix.POLLERR|unix.POLLNVAL) != 0 && !m.in.tty {
				m.endInput()
			} else if f.Revents&unix.POLLOUT != 0 {
				m.feed()
			}
		}
	}
	gone := false
	for _, p := range m.peers {
		gone = gone || p.fd < 0
	}
	if gone {
		m.forget(func(p *peer) bool { return p.fd < 0 })
	}
	if died {
		m.reap()
	}
}

// forget drops the clients that cond picks.
func (m *monitor) forget(cond func(*peer) bool) {
	kept := m.peers[:0]
	for _, p := range m.peers {
		if !cond(p) {
			kept = append(kept, p)
		}
	}
	clear(m.peers[len(kept):])
	m.peers = kept
}

// settle sends last messages that were waiting for their client's output.
func (m *monitor) settle() {
	any := false
	for _, p := range m.peers {
		if p.settle() {
			p.leave()
			any = true
		}
	}
	if any {
		m.forget(func(p *peer) bool { return p.fd < 0 })
	}
}

// over reports whether there is nothing left to do.
func (m *monitor) over() bool { return m.ended && len(m.peers) == 0 }

// poke makes the loop look again. Any goroutine may call it.
func (m *monitor) poke() {
	b := binary.NativeEndian.AppendUint64(nil, 1)
	_, _ = unix.Write(m.waker, b) // EAGAIN: it is awake already
}

// set sets a timer.
func (m *monitor) set(timer int, after time.Duration) { m.timers[timer] = time.Now().Add(after) }

// timeout returns poll's timeout: until the first timer, rounded up.
func (m *monitor) timeout() int {
	var first time.Time
	for _, t := range m.timers {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if first.IsZero() {
		return -1
	}
	return int(max(0, (time.Until(first)+time.Millisecond-1)/time.Millisecond))
}

// fire runs the timers that are due.
func (m *monitor) fire() {
	for i, t := range m.timers {
		if t.IsZero() || time.Now().Before(t) {
			continue
		}
		m.know()
		m.timers[i] = time.Time{}
		switch i {
		case timerStop:
			m.sent = sent{unix.SIGKILL, m.sent.by + ", because it did not end when it was asked to"}
			m.kill()
		case timerRestart:
			m.restart()
		case timerDrain:
			m.finish()
		case timerShrink:
			m.shrink()
		case timerHelper:
			if m.proc != nil {
				m.helperDied()
			}
		case timerAnnounce:
			m.announceLate()
		case timerHealth:
			m.check()
		case timerProbe:
			m.probeLate()
		}
	}
}

// signal sends the container's init a signal.
func (m *monitor) signal(sig unix.Signal) error {
	if m.proc == nil {
		return errs.New(errs.Conflict, "signal %d: the container is not running", int(sig))
	}
	err := unix.PidfdSendSignal(int(m.proc.pidfd.Fd()), sig, nil, 0)
	if err == unix.ESRCH {
		return nil // it has just ended
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// terminate ends the container because the machine or the user's session ends:
// as stop does, but by nobody's wish, so that a later boot starts it again.
func (m *monitor) terminate() {
	m.know()
	m.quit = true
	m.sent.by = "isle, because the machine or the session ends"
	sig, timeout := unix.SIGTERM, 10*time.Second
	for _, name := range [...]string{m.rec.Config.StopSignal, m.rec.Image.Config.StopSignal} {
		if s, err := container.ParseSignal(name); err == nil && name != "" {
			sig = s
			break
		}
	}
	if t := m.rec.Config.StopTimeout; t != nil {
		timeout = time.Duration(*t) * time.Second
	}
	m.halt(sig, timeout)
}

// listenForTerm makes SIGTERM end the container politely. (signalfd(2) would
// need the signal blocked, which the Go runtime does not leave it.)
func (m *monitor) listenForTerm() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTERM)
	go func() {
		for range c {
			m.term.Store(true)
			m.poke()
		}
	}()
}

// know makes sure that the record and the state are in memory: a monitor that
// has shrunk reads them when it needs them.
func (m *monitor) know() {
	if !m.vague {
		return
	}
	m.vague = false
	// A record that cannot be read any more must not keep the container from
	// ending: it then ends as one without options.
	if err := state.ReadRecord(m.dir, &m.rec); err != nil {
		m.rec.ID = m.id
	}
	if err := state.ReadState(m.dir, &m.st); err != nil {
		m.st = container.State{Status: container.Running, StartedAt: m.proc.started}
	}
	m.st.Pid, m.st.PidStart, m.st.MonitorPid = m.proc.pid, m.proc.start, os.Getpid()
	m.proc.group = cgroup.Open(cgroup.Paths(m.st.Cgroup))
}

// sent is a signal that isle sent the container, and on whose behalf.
type sent struct {
	sig unix.Signal
	by  string
}

// wished remembers that the user wants the container to end, before it does:
// restart policies, also those of a later boot, go by it.
func (m *monitor) wished() {
	if !m.st.StoppedByUser {
		m.st.StoppedByUser = true
		_ = m.save(false) // what cannot be written now is written at the end
	}
}

// stop begins the end of the container that the user wants.
func (m *monitor) stop(sig unix.Signal, timeout time.Duration) {
	m.wished()
	m.stopping = true
	m.halt(sig, timeout)
}

// halt begins the end of the container.
func (m *monitor) halt(sig unix.Signal, timeout time.Duration) {
	if m.ended {
		return
	}
	if m.proc == nil {
		// Between two starts, or draining the last output of the one before.
		if !m.timers[timerRestart].IsZero() {
			m.timers[timerRestart] = time.Time{}
			m.end()
		}
		return
	}
	m.sent.sig = sig
	if sig == unix.SIGKILL {
		m.kill()
		return
	}
	_ = m.signal(sig) // an invalid one is followed by SIGKILL
	m.noteSignal(sig)
	if m.st.Status == container.Paused {
		_ = m.pause(false) // a frozen process cannot end
	}
	if at := time.Now().Add(timeout); timeout >= 0 && (m.timers[timerStop].IsZero() || at.Before(m.timers[timerStop])) {
		m.timers[timerStop] = at
	}
}

// kill ends the container at once, with everything in it.
func (m *monitor) kill() {
	if m.proc == nil {
		return
	}
	_ = m.signal(unix.SIGKILL) // fails only if it is dead
	m.noteSignal(unix.SIGKILL)
	_ = m.proc.group.Kill() // PID 1's death kills its pid namespace; this is for containers without one
	if m.st.Status == container.Paused {
		_ = m.proc.group.Thaw() // on v1 a frozen process does not die
	}
}

// pause freezes or thaws the container.
func (m *monitor) pause(on bool) error {
	want, have := container.Running, container.Paused
	if on {
		want, have = have, want
	}
	if m.proc == nil || m.st.Status != have {
		if on {
			return errs.New(errs.Conflict, "Container %s is %s", m.id, map[bool]string{true: "already paused", false: "not running"}[m.st.Status == container.Paused])
		}
		return errs.New(errs.Conflict, "Container %s is not paused", m.id)
	}
	set := m.proc.group.Thaw
	if on {
		set = m.proc.group.Freeze
	}
	if err := set(); err != nil {
		return err
	}
	m.st.Status = want
	m.pauseHealth(on)
	m.note(map[bool]string{true: "pause", false: "unpause"}[on])
	return m.save(m.durable())
}

// reload reads the record again, and which cgroups the container has: an update
// may have brought it into more.
func (m *monitor) reload() error {
	var rec container.Record
	if err := state.ReadRecord(m.dir, &rec); err != nil {
		return err
	}
	var st container.State
	if err := state.ReadState(m.dir, &st); err != nil {
		return err
	}
	m.rec = rec
	if m.proc != nil && len(st.Cgroup.V1) > len(m.st.Cgroup.V1) {
		m.st.Cgroup = st.Cgroup
		m.proc.group = cgroup.Open(cgroup.Paths(m.st.Cgroup))
	}
	return nil
}

// durable says whether what this container's records say must survive a power
// loss. A --rm container promises nothing then.
func (m *monitor) durable() bool { return !m.rec.Config.AutoRemove }

// save writes the state.
func (m *monitor) save(durable bool) error { return state.WriteState(m.dir, &m.st, durable) }

func (m *monitor) logDriver() string {
	if m.rec.Config.LogDriver == "" {
		return log.JSONFile
	}
	return m.rec.Config.LogDriver
}
