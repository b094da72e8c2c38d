package monitor

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

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
	m.st.OOM = &container.OOM{Kills: info.Kills, Limit: info.Limit, Peak: info.Peak, Text: oomText(info.Kills, info.Limit, info.Peak), Victim: m.victim()}
}

// victim names what the kernel killed, from its log, which only root of the machine
// may read; else the init where that is what died.
func (m *monitor) victim() string {
	if name := loggedVictim(m.id); name != "" {
		return name
	}
	if m.st.Signal == int(unix.SIGKILL) && m.st.EndedBy == "" {
		return "its main process (pid " + strconv.Itoa(m.proc.pid) + ")"
	}
	return ""
}

// loggedVictim looks for the last line about a kill in the container's group:
// oom-kill:constraint=CONSTRAINT_MEMCG,…,task_memcg=/…/isle-ID,task=NAME,pid=N,uid=N.
func loggedVictim(id string) string {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	found := ""
	var buf [8192]byte // a record is read whole, or not at all
	for {
		n, err := unix.Read(fd, buf[:])
		if err == unix.EPIPE || err == unix.EINTR {
			continue // overwritten meanwhile
		}
		if err != nil || n <= 0 {
			return found
		}
		line := string(buf[:n])
		if !strings.Contains(line, "oom-kill:") || !strings.Contains(line, id) {
			continue
		}
		_, rest, _ := strings.Cut(line, ",task=")
		name, rest, ok := strings.Cut(rest, ",pid=")
		pid, _, _ := strings.Cut(rest, ",")
		if ok {
			found = name + " (pid " + strings.TrimSpace(pid) + ")"
		}
	}
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
