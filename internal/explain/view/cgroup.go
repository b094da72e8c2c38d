package view

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/linux/cgroup"
)

// cgroup reads where the container is, what its limits are and what it uses.
func (l *looker) cgroup() {
	c := &Cgroup{}
	st := l.s.State.Cgroup
	inside := map[string]string{} // by controllers, "" for v2: as the container's own namespace shows it
	host := map[string]string{}
	for _, m := range memberships(l.dir + "/cgroup") {
		host[m[0]] = m[1]
	}
	// The caller sees the path from its own root; from within, the namespace's
	// root is what was its group when it was made.
	for k := range host {
		inside[k] = "/"
	}
	for _, n := range l.v.Namespaces {
		if n.Kind == "cgroup" && n.Inode == n.Host {
			inside = host
		}
	}
	if st.V2 != "" {
		c.Paths = append(c.Paths, Path{"v2", inside[""], st.V2})
		l.placed("v2", st.V2, host[""])
	}
	for _, name := range sortedKeys(st.V1) {
		dir := st.V1[name]
		c.Paths = append(c.Paths, Path{name, "/", dir})
		for k, p := range host {
			for part := range strings.SplitSeq(k, ",") {
				if part == name {
					l.placed(name, dir, p)
				}
			}
		}
	}
	if len(c.Paths) == 0 {
		// None of its own: it is where its parent was.
		c.Paths = append(c.Paths, Path{"none of its own", inside[""], host[""]})
	}
	g := cgroup.Open(cgroup.Paths(st))
	defer g.Close() //nolint:errcheck // its directory's descriptor
	stats, err := g.Stats()
	if err != nil {
		l.v.unseen("cgroup", err)
	}
	c.CPU.UsageNs, c.CPU.UserNs, c.CPU.SystemNs = stats.CPU.Usage, stats.CPU.User, stats.CPU.System
	c.CPU.Periods, c.CPU.Throttled = stats.CPU.Periods, stats.CPU.Throttled
	own := func(controller, v2file, v1file string) (file, text string) {
		if d := st.V1[controller]; d != "" {
			file = d + "/" + v1file
		} else if st.V2 != "" {
			file = st.V2 + "/" + v2file
		} else {
			return "", ""
		}
		text, ok := readLine(file)
		if !ok {
			return "", ""
		}
		return file, text
	}
	mem := Limit{Name: "memory", Unit: "bytes", Max: -1, Now: stats.Memory.Usage, Peak: stats.Memory.Peak}
	mem.File, mem.Text = own("memory", "memory.max", "memory.limit_in_bytes")
	mem.Max = limitOf(mem.Text)
	if mem.Max < 0 && stats.Memory.Limit > 0 {
		mem.Max, mem.Whose = stats.Memory.Limit, "of a group above it"
	}
	if stats.Memory.Estimated {
		mem.Whose = "no memory group of its own: the sum of its processes"
	}
	c.Limits = append(c.Limits, mem)
	if f, text := own("memory", "memory.swap.max", "memory.memsw.limit_in_bytes"); f != "" {
		c.Limits = append(c.Limits, Limit{Name: "swap", Unit: "bytes", Max: stats.Memory.SwapLimit, Now: stats.Memory.Swap, File: f, Text: text})
	}
	pids := Limit{Name: "pids", Unit: "tasks", Now: stats.Pids.Current}
	pids.File, pids.Text = own("pids", "pids.max", "pids.max")
	pids.Max = limitOf(pids.Text)
	if f, text := own("pids", "pids.peak", "pids.peak"); f != "" {
		pids.Peak, _ = strconv.ParseInt(text, 10, 64)
	}
	c.Limits = append(c.Limits, pids)
	cpu := Limit{Name: "cpu", Unit: "millicpus", Max: -1, Now: -1}
	if f, text := own("cpu", "cpu.max", "cpu.cfs_quota_us"); f != "" {
		cpu.File, cpu.Text = f, text
		period := "100000"
		quota, p, ok := strings.Cut(text, " ")
		if ok {
			period = p
		} else if t, ok := readLine(filepath.Dir(f) + "/cpu.cfs_period_us"); ok {
			period = t
		}
		q, qerr := strconv.ParseInt(quota, 10, 64)
		p64, perr := strconv.ParseInt(period, 10, 64)
		if qerr == nil && perr == nil && q > 0 && p64 > 0 {
			cpu.Max = q * 1000 / p64
		}
	}
	c.Limits = append(c.Limits, cpu)
	if f, text := own("cpuset", "cpuset.cpus", "cpuset.cpus"); f != "" && text != "" {
		c.Limits = append(c.Limits, Limit{Name: "cpuset", Unit: "cpus", Max: -1, Now: -1, File: f, Text: text})
	}
	pressure := g.Pressure()
	for _, x := range [...]struct {
		name       string
		some, full float64
		total      int64
	}{
		{"cpu", pressure.CPU.SomeAvg10, pressure.CPU.FullAvg10, pressure.CPU.SomeTotal},
		{"memory", pressure.Memory.SomeAvg10, pressure.Memory.FullAvg10, pressure.Memory.SomeTotal},
		{"io", pressure.IO.SomeAvg10, pressure.IO.FullAvg10, pressure.IO.SomeTotal},
	} {
		if st.V2 != "" && exists(st.V2+"/"+x.name+".pressure") {
			c.Pressure = append(c.Pressure, PSI{x.name, x.some, x.full, x.total})
		}
	}
	c.Events = append(c.Events, counters(st.V2, "memory.events", "memory.")...)
	c.Events = append(c.Events, counters(st.V1["memory"], "memory.oom_control", "memory.")...)
	for _, d := range [...]string{st.V1["pids"], st.V2} {
		if d != "" {
			c.Events = append(c.Events, counters(d, "pids.events", "pids.")...)
		}
	}
	if st.V2 != "" {
		for _, e := range counters(st.V2, "cgroup.events", "") {
			c.Frozen = c.Frozen || e.Name == "frozen" && e.N == 1
		}
	}
	if d := st.V1["freezer"]; d != "" {
		text, _ := readLine(d + "/freezer.state")
		c.Frozen = c.Frozen || text == "FROZEN"
	}
	l.v.Cgroup = c
	r := &l.s.Record.Config.Resources
	if r.Memory > 0 {
		l.v.differ("memory limit", strconv.FormatInt(r.Memory, 10), limitText(mem.Max))
	}
	if r.PidsLimit > 0 {
		l.v.differ("pids limit", strconv.FormatInt(r.PidsLimit, 10), limitText(pids.Max))
	}
	if r.NanoCPUs > 0 {
		l.v.differ("cpus", strconv.FormatInt(r.NanoCPUs/1e6, 10)+"m", limitText(cpu.Max)+"m")
	}
}

func limitText(n int64) string {
	if n < 0 {
		return "none"
	}
	return strconv.FormatInt(n, 10)
}

// placed notes a container that has been moved to another group than isle's.
func (l *looker) placed(hierarchy, dir, path string) {
	if path != "" && !strings.HasSuffix(dir, strings.TrimSuffix(path, "/")) && !strings.Contains(path, "/../") {
		l.v.differ("cgroup ("+hierarchy+")", dir, path)
	}
}

// memberships are the lines of /proc/PID/cgroup: controllers and path.
func memberships(file string) [][2]string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var out [][2]string
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if controllers, path, ok := strings.Cut(rest, ":"); ok {
			out = append(out, [2]string{controllers, path})
		}
	}
	return out
}

func readLine(file string) (string, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", false
	}
	return strings.TrimSpace(string(text)), true
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// limitOf reads what a file of a limit says; -1: no limit.
func limitOf(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n >= 1<<62 {
		return -1 // "max"; v1 has the largest number of pages
	}
	return n
}

// counters are the lines of an events file that are not zero.
func counters(dir, file, prefix string) []Counter {
	if dir == "" {
		return nil
	}
	text, err := os.ReadFile(dir + "/" + file)
	if err != nil {
		return nil
	}
	var out []Counter
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		if n, err := strconv.ParseInt(f[1], 10, 64); err == nil && n != 0 && f[0] != "oom_kill_disable" {
			out = append(out, Counter{prefix + f[0], n})
		}
	}
	return out
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		i := len(keys)
		keys = append(keys, k)
		for ; i > 0 && keys[i-1] > k; i-- {
			keys[i] = keys[i-1]
		}
		keys[i] = k
	}
	return keys
}
