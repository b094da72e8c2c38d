package monitor

import (
	"time"

	"github.com/isle-engine/isle/internal/errs"
)

// The back-off between restarts, as Docker has it.
const (
	firstPause = 100 * time.Millisecond
	longPause  = time.Minute
	// A run of this length counts as a success: the next pause is short again.
	goodRun = 10 * time.Second
)

// restarts decides whether a container that has ended is started again, and
// sets the pause before that.
func (m *monitor) restarts() bool {
	if m.st.StoppedByUser || m.quit {
		return false
	}
	p := m.rec.Config.Restart
	switch p.Name {
	case "always", "unless-stopped":
	case "on-failure":
		if m.st.ExitCode == 0 || p.MaxRetries > 0 && m.st.RestartCount >= p.MaxRetries {
			return false
		}
	default:
		return false
	}
	switch {
	case m.backoff == 0 || m.ran >= goodRun:
		m.backoff = firstPause
	default:
		m.backoff = min(2*m.backoff, longPause)
	}
	return true
}

// restart starts the container again.
func (m *monitor) restart() {
	m.st.RestartCount++
	m.st.OOMKilled, m.st.OOM, m.st.Error = false, nil, ""
	_, err := m.launch(nil)
	if err == nil {
		if err = m.save(m.durable()); err != nil {
			m.kill()
			m.discard()
		}
	}
	if err != nil {
		m.st.Error = err.Error()
		m.st.ExitCode = errs.ExitEngine
		if errs.HasExit(err) {
			m.st.ExitCode = errs.ExitCode(err)
		}
		m.st.FinishedAt = now()
		m.end()
	}
}
