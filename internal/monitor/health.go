package monitor

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/monitor/inside"
	"github.com/isle-engine/isle/internal/runtime"
)

// Health checks, as Docker has them: every interval a process inside, which is
// made as exec makes one, but forked by the monitor itself, whose loop then waits
// for its output and its end as for those of the container.

const (
	maxProbes      = 5    // kept in the state
	maxProbeOutput = 4096 // bytes of one probe's output that are kept
)

// checkGC is the collector's target for a monitor that runs health checks: each
// leaves some garbage, and with a low target the heap stays below a megabyte.
const checkGC = 20

// check is one probe under way.
type check struct {
	life    int  // pid of the container's init: which life of the container it belongs to
	stale   bool // the container was paused meanwhile: says nothing
	late    bool // its time is over; it has been killed
	timeout time.Duration
	proc    *runtime.Process
	out     int // reading end of its output; -1 at the end
	kept    []byte
	cut     bool // there was more than is kept
	probe   container.HealthProbe
}

// beginHealth starts the checks of a container that has just been started. What
// is known of its last life is in log.
func (m *monitor) beginHealth(last *container.Health) {
	h := m.rec.Checks()
	if h == nil {
		return
	}
	m.st.Health = &container.Health{Status: container.HealthStarting}
	if last != nil {
		m.st.Health.Log = last.Log
	}
	m.scheduleCheck(h)
}

// endHealth stops the checks of a container that has ended. As with Docker, one
// that does not run is not healthy.
func (m *monitor) endHealth() {
	m.timers[timerHealth] = time.Time{}
	m.doubted = nil
	if m.st.Health != nil {
		m.st.Health.Status = container.Unhealthy
	}
}

// pauseHealth stops the checks of a container that is frozen, or goes on.
func (m *monitor) pauseHealth(on bool) {
	if on {
		m.timers[timerHealth] = time.Time{}
		if m.checking != nil {
			m.checking.stale = true
		}
		return
	}
	if h := m.rec.Checks(); h != nil && m.st.Health != nil {
		m.scheduleCheck(h)
	}
}

func (m *monitor) scheduleCheck(h *container.Healthcheck) {
	after := h.Interval
	if m.st.Health.Status == container.HealthStarting && h.StartPeriod > 0 && time.Since(m.st.StartedAt) < h.StartPeriod {
		after = h.StartInterval
	}
	m.set(timerHealth, after)
}

// check begins a probe.
func (m *monitor) check() {
	h := m.rec.Checks()
	if h == nil || m.proc == nil || m.st.Health == nil || m.st.Status != container.Running {
		return
	}
	if m.checking != nil || m.doubted != nil { // of the container's last life
		m.scheduleCheck(h)
		return
	}
	debug.SetGCPercent(checkGC)
	c := &check{life: m.proc.pid, timeout: h.Timeout, out: -1}
	c.probe.Start = now()
	if err := m.probe(c, m.rec.CheckCommand(h)); err != nil {
		c.probe.End, c.probe.ExitCode, c.probe.Output = now(), -1, err.Error()
		m.conclude(h, c)
		return
	}
	m.checking = c
	m.set(timerProbe, h.Timeout)
}

// probe starts the process of c.
func (m *monitor) probe(c *check, command []string) error {
	pr, filter, err := inside.Process(m.env, &m.rec, m.proc.pid, &container.ExecConfig{Cmd: command})
	if err != nil {
		return err
	}
	r, w, err := pipe()
	if err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	out := os.NewFile(uintptr(w), "pipe")
	t := runtime.Target{Pid: m.proc.pid, Pidfd: m.proc.pidfd, Cgroup: m.proc.group}
	c.proc, err = runtime.Exec(t, pr, runtime.ExecOptions{Stdio: runtime.Stdio{Out: out, Err: out}, Seccomp: filter})
	_ = out.Close() // the probe has its own
	if err != nil {
		_ = unix.Close(r) // a reading end
		return err
	}
	_ = unix.SetNonblock(r, true)
	c.out = r
	return nil
}

// watchProbe has the loop look at a probe's output and end.
func (m *monitor) watchProbe() {
	if c := m.checking; c != nil {
		m.watch(raw(c.proc.Pidfd), unix.POLLIN, roleProbe, 0)
		if c.out >= 0 {
			m.watch(c.out, unix.POLLIN, roleProbeOutput, 0)
		}
	}
}

// probeLate ends a probe whose time is over, with what it has started: it leads a
// session of its own.
func (m *monitor) probeLate() {
	if c := m.doubted; c != nil {
		m.doubted = nil
		m.judged(c)
		return
	}
	if c := m.checking; c != nil {
		c.late = true
		_ = unix.Kill(-c.proc.Pid, unix.SIGKILL)
		_ = unix.PidfdSendSignal(raw(c.proc.Pidfd), unix.SIGKILL, nil, 0)
	}
}

// readProbe takes some of a probe's output and reports whether there may be more.
func (m *monitor) readProbe() bool {
	c := m.checking
	if c == nil || c.out < 0 {
		return false
	}
	var buf [maxProbeOutput]byte
	n, err := unix.Read(c.out, buf[:])
	if err != nil {
		return err == unix.EINTR
	}
	keep := min(n, maxProbeOutput-len(c.kept))
	c.kept = append(c.kept, buf[:keep]...)
	c.cut = c.cut || keep < n
	if n == 0 { // closed by all who had it
		_ = unix.Close(c.out) // a reading end
		c.out = -1
	}
	return n > 0
}

// reapProbe takes the end of a probe.
func (m *monitor) reapProbe() {
	c := m.checking
	if c == nil {
		return
	}
	var ws unix.WaitStatus
	for {
		got, err := unix.Wait4(c.proc.Pid, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err == nil && got != c.proc.Pid {
			return
		}
		break
	}
	m.timers[timerProbe] = time.Time{}
	// What it has written is in the pipe. What its children may still write is
	// not waited for.
	for range 16 {
		if !m.readProbe() {
			break
		}
	}
	m.checking = nil
	if c.out >= 0 {
		_ = unix.Close(c.out) // a reading end
	}
	_ = c.proc.Pidfd.Close()
	text := string(c.kept)
	if c.cut {
		text += "..."
	}
	c.probe.End, c.probe.Output = now(), text
	switch {
	case c.late:
		c.probe.ExitCode, c.probe.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", c.timeout)
		if text != "" {
			c.probe.Output += ": " + text
		}
	case ws.Signaled():
		c.probe.ExitCode = 128 + int(ws.Signal())
	default:
		c.probe.ExitCode = ws.ExitStatus()
	}
	if ws.Signaled() && ws.Signal() == unix.SIGKILL && !c.late {
		// The kernel kills it too when the container's init ends, and before that
		// end can be seen.
		m.doubted = c
		m.set(timerProbe, doubt)
		return
	}
	m.judged(c)
}

// doubt is how long the end of the container is waited for before a probe that was
// killed counts as one that failed.
const doubt = 250 * time.Millisecond

// judged takes the result of a probe, if it is one of the container as it is now.
func (m *monitor) judged(c *check) {
	m.know()
	h := m.rec.Checks()
	if h == nil || m.proc == nil || m.st.Health == nil || c.life != m.proc.pid || m.st.Status != container.Running {
		return
	}
	m.conclude(h, c)
}

// conclude takes the result of a probe, and sees to the next.
func (m *monitor) conclude(h *container.Healthcheck, c *check) {
	if !c.stale {
		status, streak := m.st.Health.Status, m.st.Health.FailingStreak
		m.judge(h, c.probe)
		// Only what others decide by is written at once: a file a second would
		// cost more than the probe. The log is asked for (msgHealth).
		if status != m.st.Health.Status || streak != m.st.Health.FailingStreak {
			_ = m.save(false) // the next change says it again
		}
		if status != m.st.Health.Status {
			m.note("health_status: " + m.st.Health.Status)
		}
	}
	m.scheduleCheck(h)
}

// encodeHealth is 'h'. Output that makes it too long for a message is left out,
// that of the oldest probe first.
func encodeHealth(h *container.Health) []byte {
	st := container.State{}
	if h != nil {
		own := *h
		own.Log = append([]container.HealthProbe(nil), h.Log...)
		st.Health = &own
	}
	for i := 0; ; i++ {
		b := st.AppendJSON([]byte{msgProbes})
		if len(b) <= maxMessage || h == nil || i == len(h.Log) {
			return b
		}
		st.Health.Log[i].Output = "..."
	}
}

// judge draws the conclusion from a probe: Docker's rules.
func (m *monitor) judge(h *container.Healthcheck, p container.HealthProbe) {
	s := m.st.Health
	if len(s.Log) >= maxProbes {
		s.Log = append(s.Log[:0], s.Log[len(s.Log)-maxProbes+1:]...)
	}
	s.Log = append(s.Log, p)
	if p.ExitCode == 0 {
		s.FailingStreak = 0
		s.Status = container.Healthy
		return
	}
	if s.Status == container.HealthStarting && h.StartPeriod > 0 && p.Start.Sub(m.st.StartedAt) < h.StartPeriod {
		return // it may take that long to come up
	}
	s.FailingStreak++
	if s.FailingStreak >= h.Retries {
		s.Status = container.Unhealthy
	}
}
