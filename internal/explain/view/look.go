package view

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/ns"
	"github.com/isle-engine/isle/internal/spec"
)

// looker is one look.
type looker struct {
	s   *Subject
	v   *View
	pid int
	dir string // /proc/PID
	// status is the init's /proc/PID/status.
	status map[string]string
	inside *ns.Inside
}

// Look looks at s. What cannot be seen is named in View.Unseen; an error means
// that there was nothing to look at.
func Look(s *Subject) (*View, error) {
	c := &s.Record.Config
	v := &View{
		ID: s.Record.ID, Name: c.Name, Image: c.Image, Command: spec.Args(c, &s.Record.Image.Config),
		Status: s.State.Status, Rootless: s.Env.Rootless, Taken: time.Now(), Started: s.State.StartedAt,
	}
	l := &looker{s: s, v: v, pid: s.State.Pid}
	v.Live = (s.State.Status == container.Running || s.State.Status == container.Paused) && l.pid != 0
	if !v.Live {
		v.Ended = s.State.Ended()
		l.deadRoot()
		return v, nil
	}
	l.dir = "/proc/" + strconv.Itoa(l.pid)
	if err := l.readStatus(); err != nil {
		return nil, errs.New(errs.Conflict, "container %s: its process %d has just ended", c.Name, l.pid)
	}
	var err error
	if l.inside, err = ns.Look(l.pid, s.Join); err != nil {
		v.unseen("host name and network from within", err)
		l.inside = &ns.Inside{}
	}
	defer l.inside.Close()
	l.processes()
	l.users()
	l.hostName()
	l.namespaces()
	l.cgroup()
	l.mounts()
	l.credentials()
	l.network()
	// What was read of a process that ended meanwhile may be another's.
	if start := startTime(l.pid); start != s.State.PidStart {
		return nil, errs.New(errs.Conflict, "container %s: its process %d ended during the look", c.Name, l.pid)
	}
	return v, nil
}

// readStatus reads the init's status, and makes sure that it is the init.
func (l *looker) readStatus() error {
	text, err := os.ReadFile(l.dir + "/status")
	if err != nil {
		return err
	}
	l.status = statusOf(text)
	return nil
}

func statusOf(text []byte) map[string]string {
	m := make(map[string]string, 64)
	for line := range bytes.Lines(text) {
		if k, v, ok := strings.Cut(string(line), ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m
}

// startTime is field 22 of /proc/PID/stat; 0 when there is no such process.
func startTime(pid int) uint64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(f[19], 10, 64) // the kernel writes a number
	return n
}

// processes lists those of the container's cgroup, or of its pid namespace where
// it has none; the init first.
func (l *looker) processes() {
	var pids []int
	g := cgroup.Open(cgroup.Paths(l.s.State.Cgroup))
	if !g.Empty() {
		pids, _ = g.Procs()
		_ = g.Close() // its directory's descriptor
	}
	if len(pids) == 0 {
		own := ns.Inode(strconv.Itoa(l.pid), "pid")
		names, _ := os.ReadDir("/proc")
		for _, d := range names {
			if pid, err := strconv.Atoi(d.Name()); err == nil && own != 0 && ns.Inode(d.Name(), "pid") == own {
				pids = append(pids, pid)
			}
		}
		if !l.ownPIDs() {
			pids = []int{l.pid}
		}
	}
	slices.Sort(pids)
	if i := slices.Index(pids, l.pid); i > 0 {
		pids = append([]int{l.pid}, slices.Delete(pids, i, i+1)...)
	}
	for _, pid := range pids {
		if p, ok := l.process(pid); ok {
			l.v.Processes = append(l.v.Processes, p)
		}
	}
}

// ownPIDs reports whether the container has a pid namespace that is not the caller's.
func (l *looker) ownPIDs() bool {
	return ns.Inode(strconv.Itoa(l.pid), "pid") != ns.Inode("self", "pid")
}

func (l *looker) process(pid int) (Process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Process{}, false // it has ended
	}
	st := statusOf(text)
	p := Process{Host: pid, Inside: last(st["NSpid"]), Parent: last(st["PPid"]), Threads: last(st["Threads"])}
	p.State, _, _ = strings.Cut(st["State"], " ")
	if kb, err := strconv.ParseInt(strings.TrimSuffix(st["VmRSS"], " kB"), 10, 64); err == nil {
		p.Memory = kb << 10
	}
	uids, gids := ranges(dir+"/uid_map"), ranges(dir+"/gid_map")
	p.User, p.Group = both(uids, first(st["Uid"])), both(gids, first(st["Gid"]))
	if text, err := os.ReadFile(dir + "/cmdline"); err == nil && len(text) > 0 {
		p.Command = strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	} else {
		p.Command = []string{"[" + st["Name"] + "]"}
	}
	return p, true
}

// both gives an id its number inside.
func both(maps []Range, host int64) ID {
	for _, r := range maps {
		if host >= r.Host && host < r.Host+r.Count {
			return ID{r.Inside + host - r.Host, host}
		}
	}
	return ID{-1, host}
}

func first(fields string) int64 {
	f := strings.Fields(fields)
	if len(f) == 0 {
		return -1
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func last(fields string) int {
	f := strings.Fields(fields)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(f[len(f)-1]) // the kernel writes a number
	return n
}

// ranges reads uid_map or gid_map.
func ranges(file string) []Range {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var out []Range
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		var n [3]int64
		for i := range n {
			n[i], _ = strconv.ParseInt(f[i], 10, 64) // the kernel writes numbers
		}
		out = append(out, Range{n[0], n[1], n[2]})
	}
	return out
}

func (l *looker) users() {
	u := &Users{UIDs: ranges(l.dir + "/uid_map"), GIDs: ranges(l.dir + "/gid_map")}
	u.Same = len(u.UIDs) == 1 && u.UIDs[0] == Range{0, 0, 1<<32 - 1}
	if text, err := os.ReadFile(l.dir + "/setgroups"); err == nil {
		u.NoSetgroup = strings.TrimSpace(string(text)) == "deny"
	}
	for _, r := range u.UIDs {
		if r.Inside == 0 {
			u.HostName = userName(r.Host)
		}
	}
	l.v.Users = u
}

// userName looks a uid up in the host's /etc/passwd.
func userName(uid int64) string {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return ""
	}
	want := strconv.FormatInt(uid, 10)
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == want {
			return f[0]
		}
	}
	return ""
}

func (l *looker) hostName() {
	h := &HostName{Inside: l.inside.Hostname, Domain: l.inside.Domainname}
	h.Host, _ = os.Hostname() // "" is an answer
	l.v.Host = h
	if want := l.s.Record.Config.Hostname; want != "" && h.Inside != "" {
		l.v.differ("host name", want, h.Inside)
	}
}
