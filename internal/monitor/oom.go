package monitor

import (
	"fmt"

	"github.com/isle-engine/isle/internal/container"
)

// noteOOM records what the kernel's out-of-memory killer did in the container,
// before its cgroup is removed.
func (m *monitor) noteOOM() {
	info, err := m.proc.group.OOM()
	if err != nil || info.Kills == 0 {
		return // a cgroup that has gone away tells nothing
	}
	m.st.OOMKilled = true
	m.st.OOM = &container.OOM{Kills: info.Kills, Limit: info.Limit, Peak: info.Peak, Text: oomText(info.Kills, info.Limit, info.Peak)}
}

// oomText says it in one line, for people.
func oomText(kills, limit, peak int64) string {
	text := "out of memory: the kernel killed 1 process"
	if kills != 1 {
		text = fmt.Sprintf("out of memory: the kernel killed %d processes", kills)
	}
	if limit > 0 {
		text += "; limit " + size(limit)
	}
	if peak > 0 {
		text += ", peak " + size(peak)
	}
	return text
}

// size prints bytes in binary units, as they are typed.
func size(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if v == float64(int64(v)) {
		return fmt.Sprintf("%d %ciB", int64(v), units[u])
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}
