package page

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/explain/view"
)

// Row is one fact.
type Row struct {
	Label        string
	Inside, Host string
	Command      string // the plain command that shows the same
	Differs      bool
}

// Section is facts of one subject.
type Section struct {
	Name  string // for --section
	Title string
	Intro string // one sentence: what this is
	Rows  []Row
}

// Names are the sections there can be.
func Names() []string {
	return []string{"end", "differences", "process", "users", "namespaces", "cgroup", "layers", "mounts", "credentials", "seccomp", "network"}
}

// Sections puts v into words.
func Sections(v *view.View) []Section {
	all := []Section{
		ending(v), differences(v), process(v), users(v), namespaces(v), cgroups(v), layers(v), mounts(v), credentials(v), filter(v), networks(v),
	}
	return slices.DeleteFunc(all, func(s Section) bool { return len(s.Rows) == 0 })
}

func initPid(v *view.View) string {
	if len(v.Processes) == 0 {
		return "PID"
	}
	return strconv.Itoa(v.Processes[0].Host)
}

// enter is the plain command that runs another inside one of the container's
// namespaces. An ordinary user needs the rights of the user namespace for it.
func enter(v *view.View, flag string) string {
	if v.Rootless {
		return "nsenter -t " + initPid(v) + " -U --preserve-credentials " + flag + " "
	}
	return "nsenter -t " + initPid(v) + " " + flag + " "
}

func ending(v *view.View) Section {
	s := Section{Name: "end", Title: "How it ended"}
	if v.Ended != "" {
		s.Rows = append(s.Rows, Row{Label: "end", Inside: v.Ended, Command: "isle inspect " + v.Name})
	} else if !v.Live {
		s.Rows = append(s.Rows, Row{Label: "state", Inside: string(v.Status) + ": there is no process, so there are no namespaces, no cgroup and no mounts", Command: "isle ps -a"})
	}
	return s
}

func differences(v *view.View) Section {
	s := Section{Name: "differences", Title: "Not as asked", Intro: "What the kernel says otherwise than the container's configuration."}
	for _, d := range v.Differences {
		s.Rows = append(s.Rows, Row{Label: d.What, Inside: "is: " + d.Is, Host: "asked: " + d.Asked, Differs: true})
	}
	for _, u := range v.Unseen {
		s.Rows = append(s.Rows, Row{Label: "not seen", Inside: u})
	}
	return s
}

func process(v *view.View) Section {
	s := Section{Name: "process", Title: "Processes", Intro: "A container is ordinary processes of this machine; the pid namespace gives them a second number."}
	for i, p := range v.Processes {
		if i == maxRows {
			s.Rows = append(s.Rows, Row{Label: "…", Inside: strconv.Itoa(len(v.Processes)-i) + " more"})
			break
		}
		s.Rows = append(s.Rows, Row{
			Label:   clip(strings.Join(p.Command, " "), 60),
			Inside:  "pid " + strconv.Itoa(p.Inside) + ", user " + id(p.User.Inside),
			Host:    "pid " + strconv.Itoa(p.Host) + ", uid " + id(p.User.Host) + ", " + state(p.State) + ", " + size(p.Memory) + plural(p.Threads),
			Command: "ps -o pid,ppid,user,stat,rss,args -p " + strconv.Itoa(p.Host) + "; grep NSpid /proc/" + strconv.Itoa(p.Host) + "/status",
		})
	}
	if v.Live && v.Host != nil {
		s.Rows = append(s.Rows, Row{Label: "host name", Inside: v.Host.Inside, Host: v.Host.Host, Command: enter(v, "-u") + "hostname"})
	}
	if v.Live && !v.Started.IsZero() {
		s.Rows = append(s.Rows, Row{Label: "running for", Inside: v.Taken.Sub(v.Started).Round(time.Second).String(), Command: "ps -o lstart,etime -p " + initPid(v)})
	}
	return s
}

const maxRows = 40

func plural(threads int) string {
	if threads > 1 {
		return ", " + strconv.Itoa(threads) + " threads"
	}
	return ""
}

func state(s string) string {
	switch s {
	case "R":
		return "running"
	case "S":
		return "sleeping"
	case "D":
		return "waiting in the kernel"
	case "T", "t":
		return "stopped"
	case "Z":
		return "dead, not reaped"
	case "I":
		return "idle"
	}
	return s
}

func id(n int64) string {
	if n < 0 {
		return "not mapped (shown as 65534)"
	}
	return strconv.FormatInt(n, 10)
}

func users(v *view.View) Section {
	s := Section{Name: "users", Title: "Users"}
	u := v.Users
	if u == nil {
		return s
	}
	pid := initPid(v)
	if u.Same {
		s.Intro = "No user namespace of its own: every id means the same inside and outside."
		s.Rows = append(s.Rows, Row{Label: "root", Inside: "uid 0", Host: "uid 0: root of this machine, less the capabilities below", Command: "cat /proc/" + pid + "/uid_map"})
		return s
	}
	s.Intro = "Root inside is somebody else outside: a file that it makes belongs to that id."
	for i, set := range [][]view.Range{u.UIDs, u.GIDs} {
		kind := [...]string{"uid", "gid"}[i]
		for _, r := range set {
			inside, host := span(r.Inside, r.Count), span(r.Host, r.Count)
			if kind == "uid" && r.Inside == 0 && u.HostName != "" && r.Count == 1 {
				host += " (" + u.HostName + ")"
			}
			s.Rows = append(s.Rows, Row{Label: kind + " map", Inside: kind + " " + inside, Host: kind + " " + host, Command: "cat /proc/" + pid + "/" + kind + "_map"})
		}
	}
	if u.NoSetgroup {
		s.Rows = append(s.Rows, Row{Label: "setgroups", Inside: "denied", Host: "the map was written without privilege", Command: "cat /proc/" + pid + "/setgroups"})
	}
	return s
}

func span(from, n int64) string {
	if n == 1 {
		return strconv.FormatInt(from, 10)
	}
	return strconv.FormatInt(from, 10) + "–" + strconv.FormatInt(from+n-1, 10)
}

func namespaces(v *view.View) Section {
	s := Section{Name: "namespaces", Title: "Namespaces", Intro: "What it cannot see. Two processes with the same number share the namespace."}
	pid := initPid(v)
	for _, n := range v.Namespaces {
		r := Row{Label: n.Kind, Command: "readlink /proc/" + pid + "/ns/" + n.Kind}
		switch {
		case n.Inode == n.Host:
			r.Inside, r.Host = "shared with the host", "hides "+n.Hides
		case len(n.With) > 0:
			r.Inside, r.Host = "shared with "+strings.Join(n.With, ", "), "hides "+n.Hides
		default:
			r.Inside, r.Host = "private", "hides "+n.Hides
		}
		r.Inside += fmt.Sprintf(" [%d]", n.Inode)
		if n.Inode != n.Host {
			r.Host += fmt.Sprintf(" [host's: %d]", n.Host)
		}
		s.Rows = append(s.Rows, r)
	}
	if len(s.Rows) > 0 {
		s.Rows[0].Command = "lsns -p " + pid + "; " + s.Rows[0].Command
	}
	return s
}

func cgroups(v *view.View) Section {
	s := Section{Name: "cgroup", Title: "Control group", Intro: "All its processes together: counted, limited, frozen and killed as one."}
	c := v.Cgroup
	if c == nil {
		return s
	}
	for _, p := range c.Paths {
		s.Rows = append(s.Rows, Row{Label: "group (" + p.Hierarchy + ")", Inside: p.Inside, Host: p.Host, Command: "cat /proc/" + initPid(v) + "/cgroup"})
	}
	if c.Frozen {
		s.Rows = append(s.Rows, Row{Label: "paused", Inside: "all its processes stand still, and do not know", Host: "frozen", Command: "cat " + c.Paths[0].Host + "/cgroup.freeze"})
	}
	for _, l := range c.Limits {
		r := Row{Label: l.Name}
		switch l.Unit {
		case "bytes":
			r.Inside = size(max(l.Now, 0)) + " used"
			if l.Peak > 0 {
				r.Inside += ", peak " + size(l.Peak)
			}
			r.Host = "no limit"
			if l.Max >= 0 {
				r.Host = "limit " + size(l.Max)
				if l.Max > 0 && l.Now >= 0 {
					r.Host += fmt.Sprintf(" (%d%% used)", l.Now*100/l.Max)
				}
			}
		case "millicpus":
			r.Inside = "used " + time.Duration(c.CPU.UsageNs).Round(time.Millisecond).String() + " (user " + time.Duration(c.CPU.UserNs).Round(time.Millisecond).String() + ", kernel " + time.Duration(c.CPU.SystemNs).Round(time.Millisecond).String() + ")"
			r.Host = "no limit"
			if l.Max >= 0 {
				r.Host = fmt.Sprintf("limit %g CPUs", float64(l.Max)/1000)
				if c.CPU.Periods > 0 {
					r.Host += fmt.Sprintf("; held back in %d of %d periods", c.CPU.Throttled, c.CPU.Periods)
				}
			}
		case "cpus":
			r.Inside, r.Host = "may run on CPUs "+l.Text, ""
		default:
			r.Inside = strconv.FormatInt(l.Now, 10) + " now"
			if l.Peak > 0 {
				r.Inside += ", peak " + strconv.FormatInt(l.Peak, 10)
			}
			r.Host = "no limit"
			if l.Max >= 0 {
				r.Host = "limit " + strconv.FormatInt(l.Max, 10)
			}
		}
		if l.Whose != "" {
			r.Host += " (" + l.Whose + ")"
		}
		if l.File != "" {
			r.Command = "cat " + l.File
		} else if l.Name == "cpu" && c.Paths[0].Hierarchy == "v2" {
			r.Command = "cat " + c.Paths[0].Host + "/cpu.stat"
		}
		s.Rows = append(s.Rows, r)
	}
	for _, p := range c.Pressure {
		s.Rows = append(s.Rows, Row{
			Label:   p.Resource + " pressure",
			Inside:  fmt.Sprintf("some waited %.1f%% of the last 10 s, all %.1f%%", p.Some, p.Full),
			Host:    time.Duration(p.Total*1000).Round(time.Microsecond).String() + " since its start",
			Command: "cat " + c.Paths[0].Host + "/" + p.Resource + ".pressure",
		})
	}
	for _, e := range c.Events {
		s.Rows = append(s.Rows, Row{Label: "event", Inside: e.Name + " " + strconv.FormatInt(e.N, 10), Host: event(e.Name)})
	}
	return s
}

func event(name string) string {
	switch name {
	case "memory.oom_kill":
		return "processes killed because the memory limit was reached"
	case "memory.oom":
		return "times that an allocation failed at the limit"
	case "memory.max":
		return "times that the limit was hit"
	case "memory.high":
		return "times that it was slowed down"
	case "memory.under_oom":
		return "it is out of memory now"
	case "pids.max":
		return "forks that were refused"
	}
	return ""
}

func layers(v *view.View) Section {
	s := Section{Name: "layers", Title: "Root file system", Intro: "Layers seen as one tree. The image's are read-only and shared; what the container writes is in a directory of its own."}
	r := v.Root
	if r == nil {
		return s
	}
	mode := "writable"
	if r.ReadOnly {
		mode = "read-only"
	}
	find := "findmnt -N " + initPid(v) + " /"
	if !v.Live {
		find = "ls " + r.Upper
	}
	s.Rows = append(s.Rows, Row{Label: "/", Inside: mode + ", " + r.Type, Host: count(len(r.Layers), "layer") + " and what is written", Command: find})
	written := size(r.Written) + " in " + count(r.Files, "file")
	if r.More {
		written = "at least " + written
	}
	s.Rows = append(s.Rows, Row{Label: "written", Inside: written, Host: r.Upper, Command: "du -sh " + r.Upper + "; isle diff " + v.Name})
	for i, l := range r.Layers {
		made := l.CreatedBy
		if made == "" {
			made = "(the image does not say what made it)"
		}
		s.Rows = append(s.Rows, Row{Label: "layer " + strconv.Itoa(len(r.Layers)-i), Inside: clip(made, 160), Host: size(l.Bytes) + ", " + l.Dir, Command: "ls " + l.Dir})
	}
	return s
}

func mounts(v *view.View) Section {
	s := Section{Name: "mounts", Title: "Mounts", Intro: "What it sees at which path, and where that comes from."}
	for i, m := range v.Mounts {
		r := Row{Label: m.Point, Inside: m.Type + " " + m.Options, Host: m.From + ": " + m.Why}
		if i == 0 {
			r.Command = "findmnt -N " + initPid(v) + "; cat /proc/" + initPid(v) + "/mountinfo"
		}
		s.Rows = append(s.Rows, r)
	}
	return s
}

func credentials(v *view.View) Section {
	s := Section{Name: "credentials", Title: "What it may do", Intro: "Root's power in parts (capabilities). What is not in the bounding set no program inside can ever get."}
	c := v.Credentials
	if c == nil {
		return s
	}
	pid := initPid(v)
	kept := "none"
	if len(c.Kept) > 0 {
		kept = short(c.Kept)
	}
	dropped := "none: it may do all that its user namespace allows"
	if len(c.Dropped) > 0 {
		dropped = short(c.Dropped)
	}
	s.Rows = append(s.Rows,
		Row{Label: "kept", Inside: kept, Host: strconv.Itoa(len(c.Kept)) + " of " + strconv.Itoa(len(c.Kept)+len(c.Dropped)), Command: "getpcaps " + pid + "; capsh --decode=" + c.Bounding},
		Row{Label: "dropped", Inside: dropped, Host: strconv.Itoa(len(c.Dropped)), Command: "grep CapBnd /proc/" + pid + "/status"},
	)
	if len(c.Effective) != len(c.Kept) {
		e := "none: it is not root"
		if len(c.Effective) > 0 {
			e = short(c.Effective)
		}
		s.Rows = append(s.Rows, Row{Label: "in force now", Inside: e, Command: "grep CapEff /proc/" + pid + "/status"})
	}
	nnp := "off: a set-uid program inside can raise its rights, within the bounding set"
	if c.NoNewPrivs {
		nnp = "on: set-uid programs give nothing"
	}
	s.Rows = append(s.Rows,
		Row{Label: "no_new_privs", Inside: nnp, Command: "grep NoNewPrivs /proc/" + pid + "/status"},
		Row{Label: "LSM", Inside: c.LSM, Command: "cat /proc/" + pid + "/attr/current"},
		Row{Label: "oom_score_adj", Inside: strconv.Itoa(c.OOMScoreAdj), Command: "cat /proc/" + pid + "/oom_score_adj"},
	)
	for _, r := range c.Rlimits {
		s.Rows = append(s.Rows, Row{Label: "limit " + r.Name, Inside: r.Soft + " (hard " + r.Hard + ")", Host: "here: " + r.Mine, Command: "prlimit --pid " + pid + " --" + r.Name})
	}
	return s
}

func short(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(strings.TrimPrefix(n, "CAP_"))
	}
	return strings.Join(out, " ")
}

func filter(v *view.View) Section {
	s := Section{Name: "seccomp", Title: "System calls that are refused"}
	if v.Credentials == nil {
		return s
	}
	c := &v.Credentials.Seccomp
	row := Row{Label: "filter", Command: "grep Seccomp /proc/" + initPid(v) + "/status"}
	switch c.Mode {
	case 0:
		row.Inside = "none: every system call reaches the kernel"
	case 1:
		row.Inside = "strict: read, write and exit only"
	default:
		row.Inside = count(max(c.Filters, 1), "filter")
		row.Host = strconv.Itoa(c.Allowed) + " calls allowed"
		if !c.Known {
			row.Host = "more than isle's own: the lists below are of isle's"
		}
	}
	s.Rows = append(s.Rows, row)
	for _, g := range c.Refused {
		s.Rows = append(s.Rows, Row{Label: g.Name, Inside: strings.Join(g.Calls, separator(g.Calls))})
	}
	return s
}

// separator of a list: words are set apart by blanks, phrases by commas.
func separator(list []string) string {
	for _, s := range list {
		if strings.Contains(s, " ") {
			return ", "
		}
	}
	return " "
}

func networks(v *view.View) Section {
	s := Section{Name: "network", Title: "Network", Intro: "The way of a packet from the process to the wire."}
	n := v.Network
	if n == nil {
		return s
	}
	for i, h := range n.Hops {
		r := Row{Label: strconv.Itoa(i + 1), Command: h.Command}
		if h.Where == "inside" {
			r.Inside = h.What
		} else {
			r.Host = h.What
		}
		s.Rows = append(s.Rows, r)
	}
	for _, f := range n.Interfaces {
		up := "down"
		if f.Up {
			up = "up"
		}
		r := Row{Label: f.Name, Inside: strings.TrimSpace(up + " " + strings.Join(f.Addresses, " ") + " " + f.MAC), Command: enter(v, "-n") + "ip -s addr show " + f.Name}
		if f.Name != "lo" {
			r.Host = "received " + size(int64(f.Received)) + ", sent " + size(int64(f.Sent))
			if f.Peer != "" {
				r.Host = "cable to " + f.Peer + "; " + r.Host
			}
		}
		s.Rows = append(s.Rows, r)
	}
	for _, p := range n.Ports {
		r := Row{Label: "port", Inside: p.Inside, Host: p.Host, Command: "ss -ltn; " + enter(v, "-n") + "ss -ltn"}
		if !p.Listening {
			r.Inside += " (nobody listens there)"
		}
		s.Rows = append(s.Rows, r)
	}
	for i, c := range n.Connections {
		if i == maxRows {
			s.Rows = append(s.Rows, Row{Label: "…", Inside: strconv.Itoa(len(n.Connections)-i) + " more", Command: enter(v, "-n") + "ss -tuan"})
			break
		}
		s.Rows = append(s.Rows, Row{Label: c.Proto, Inside: c.Local + " " + strings.ToLower(c.State), Host: c.Remote, Command: enter(v, "-n") + "ss -tuan"})
	}
	return s
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// clip shortens s to n characters.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// size prints bytes in binary units.
func size(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, u := float64(n)/1024, 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	if f == float64(int64(f)) || f >= 100 {
		return fmt.Sprintf("%.0f %ciB", f, units[u])
	}
	return fmt.Sprintf("%.1f %ciB", f, units[u])
}
