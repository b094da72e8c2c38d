package monitor

import (
	"maps"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/state"
)

// ContainerEvent is an event of a container, with what Docker tells beside it:
// its image, name and labels, and extra, which are keys and values in turn.
func ContainerEvent(rec *container.Record, at time.Time, action string, extra ...string) state.Event {
	attrs := make(map[string]string, 2+len(rec.Config.Labels)+len(rec.Image.Config.Labels)+len(extra)/2)
	maps.Copy(attrs, rec.Image.Config.Labels)
	maps.Copy(attrs, rec.Config.Labels)
	attrs["image"], attrs["name"] = rec.Config.Image, rec.Config.Name
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	return state.Event{Time: at, Type: "container", Action: action, ID: rec.ID, Attributes: attrs}
}

// note remembers an event of the container until tell.
func (m *monitor) note(action string, extra ...string) {
	m.news = append(m.news, ContainerEvent(&m.rec, time.Now(), action, extra...))
}

// noteNetworks remembers that the container was connected to its networks, or
// disconnected.
func (m *monitor) noteNetworks(action string) {
	if m.st.Network == nil {
		return
	}
	for _, e := range m.st.Network.Endpoints {
		m.news = append(m.news, state.Event{Time: time.Now(), Type: "network", Action: action, ID: e.NetworkID, Attributes: map[string]string{
			"container": m.id, "name": e.Network, "type": "bridge",
		}})
	}
}

// noteStarted remembers the start of the container.
func (m *monitor) noteStarted() {
	m.noteNetworks("connect")
	m.note("start")
}

// noteDied remembers its end.
func (m *monitor) noteDied() {
	if m.st.OOMKilled {
		m.note("oom")
	}
	m.note("die", "execDuration", strconv.Itoa(int(m.ran.Seconds())), "exitCode", strconv.Itoa(m.st.ExitCode))
	m.noteNetworks("disconnect")
	if m.stopping {
		m.note("stop")
	}
}

// noteSignal remembers a signal that somebody has sent on purpose.
func (m *monitor) noteSignal(sig unix.Signal) { m.note("kill", "signal", strconv.Itoa(int(sig))) }

// tell writes down the events that were noted. Those of a container that nobody
// can see yet wait: with a container that ends at once all of them are one write.
func (m *monitor) tell() {
	if len(m.news) > 0 {
		_ = state.AppendEvents(m.env.EventLog(), m.news...) // the records are the truth
		m.news = nil
	}
}
