package cgroup

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stats is what a container uses. Figures that the kernel does not have for it
// are zero; limits that are not set are -1.
type Stats struct {
	Memory MemoryStats
	CPU    CPUStats
	Pids   PidsStats
	IO     []DeviceStats
}

// MemoryStats are in bytes.
type MemoryStats struct {
	// Usage is what is charged to the container without file pages that have not
	// been used lately, which the kernel takes back when memory is short: what
	// docker stats shows.
	Usage     int64
	Inactive  int64 // those file pages
	Limit     int64 // the lowest of the container and its ancestors
	Peak      int64
	Swap      int64
	SwapLimit int64
	// Estimated: the container has no memory group; Usage is the sum of what its
	// processes have in memory that is not of files.
	Estimated bool
}

// CPUStats are in nanoseconds and counts.
type CPUStats struct {
	Usage, User, System int64
	Periods, Throttled  int64 // of the limit's periods, and those in which it was reached
	ThrottledTime       int64
}

// PidsStats counts tasks.
type PidsStats struct{ Current, Limit int64 }

// DeviceStats is the traffic of one block device.
type DeviceStats struct {
	Major, Minor          int64
	ReadBytes, WriteBytes int64
	Reads, Writes         int64
}

// PressureStats tells how much work waited (PSI, Documentation/accounting/psi.rst).
type PressureStats struct{ CPU, Memory, IO Pressure }

// Pressure is one resource's: the share of time in percent, and microseconds.
type Pressure struct {
	SomeAvg10, SomeAvg60, SomeAvg300 float64
	FullAvg10, FullAvg60, FullAvg300 float64
	SomeTotal, FullTotal             int64
}

// Stats reads the group's figures. A group that is gone, as after the
// container's end, gives zeros.
func (g *Group) Stats() (Stats, error) {
	s := Stats{Memory: MemoryStats{Limit: -1, SwapLimit: -1}, Pids: PidsStats{Limit: -1}}
	v2 := dir(g.paths.V2)
	if g.seen == nil {
		g.seen = &seen{}
		if v2 != "" {
			*g.seen = seen{v2.exists("memory.current"), v2.exists("io.stat"), v2.exists("pids.current")}
		}
	}
	var pids []int
	memory, counter := dir(g.paths.V1["memory"]), dir(g.paths.V1["pids"])
	if counter == "" && g.seen.pids {
		counter = v2
	}
	if memory == "" && !g.seen.memory || counter == "" { // nobody counts but we ourselves
		var err error
		if pids, err = g.Procs(); err != nil {
			return s, err
		}
	}
	switch {
	case memory != "":
		s.Memory.fromV1(memory)
	case g.seen.memory:
		s.Memory.fromV2(v2, g.limitAbove(v2))
	default:
		s.Memory.estimate(pids)
	}

	// Hybrid hosts: cpu.stat of the v2 group is there without the controller.
	if v2 != "" {
		s.CPU.fromV2(v2)
	} else if d := dir(g.paths.V1["cpuacct"]); d != "" {
		s.CPU.Usage, _ = d.readInt("cpuacct.usage")
		s.CPU.User, _ = d.readInt("cpuacct.usage_user")
		s.CPU.System, _ = d.readInt("cpuacct.usage_sys")
	}
	if d := dir(g.paths.V1["cpu"]); d != "" {
		text, _ := d.read("cpu.stat")
		keyValues(text, func(key string, n int64) {
			switch key {
			case "nr_periods":
				s.CPU.Periods = n
			case "nr_throttled":
				s.CPU.Throttled = n
			case "throttled_time":
				s.CPU.ThrottledTime = n
			}
		})
	}

	if counter != "" {
		s.Pids.Current, _ = counter.readInt("pids.current")
		if limit, err := counter.readInt("pids.max"); err == nil && limit != unlimited {
			s.Pids.Limit = limit
		}
	} else {
		for _, pid := range pids {
			s.Pids.Current += threads(pid)
		}
	}

	if d := dir(g.paths.V1["blkio"]); d != "" {
		s.IO = ioFromV1(d)
	} else if g.seen.io {
		s.IO = ioFromV2(v2)
	}
	return s, nil
}

// seen is what a v2 group was found to have when it was first looked at. A controller
// that is turned on later is noticed by who opens the group again.
type seen struct{ memory, io, pids bool }

// Pressure reads how much the group's processes wait for resources; all is zero
// where the kernel does not say.
func (g *Group) Pressure() (p PressureStats) {
	if v2 := dir(g.paths.V2); v2 != "" {
		p = PressureStats{pressure(v2, "cpu"), pressure(v2, "memory"), pressure(v2, "io")}
	}
	return p
}

func (m *MemoryStats) fromV1(d dir) {
	text, _ := d.read("memory.stat")
	keyValues(text, func(key string, n int64) {
		switch key {
		case "total_inactive_file":
			m.Inactive = n
		case "total_swap":
			m.Swap = n
		case "hierarchical_memory_limit":
			m.Limit = limitOf(n)
		case "hierarchical_memsw_limit":
			m.SwapLimit = limitOf(n)
		}
	})
	if m.SwapLimit >= 0 && m.Limit >= 0 {
		m.SwapLimit -= m.Limit
	}
	usage, _ := d.readInt("memory.usage_in_bytes")
	m.Usage = max(usage-m.Inactive, 0)
	m.Peak, _ = d.readInt("memory.max_usage_in_bytes")
}

func (m *MemoryStats) fromV2(d dir, above int64) {
	text, _ := d.read("memory.stat")
	keyValues(text, func(key string, n int64) {
		if key == "inactive_file" {
			m.Inactive = n
		}
	})
	usage, _ := d.readInt("memory.current")
	m.Usage = max(usage-m.Inactive, 0)
	m.Peak, _ = d.readInt("memory.peak") // Linux 5.19
	m.Swap, _ = d.readInt("memory.swap.current")
	if n, err := d.readInt("memory.swap.max"); err == nil {
		m.SwapLimit = limitOf(n)
	}
	m.Limit = above
	if n, err := d.readInt("memory.max"); err == nil && n != unlimited && (above < 0 || n < above) {
		m.Limit = n
	}
}

// limitAbove is the lowest memory limit above the group; -1: none. It is looked
// for once: whoever takes many samples would pay for all ancestors each time.
func (g *Group) limitAbove(v2 dir) int64 {
	if g.above == nil {
		limit := int64(-1)
		if n, owner := lowest(location{v2.up(), mountOf(v2)}, func(d dir) (float64, bool) { return whole(d, "memory.max") }); owner != "" {
			limit = int64(n)
		}
		g.above = &limit
	}
	return *g.above
}

// mountOf returns how far up the v2 directories above d can be read.
func mountOf(d dir) dir {
	for d.up().exists("cgroup.procs") {
		d = d.up()
	}
	return d
}

func limitOf(n int64) int64 {
	if n == unlimited {
		return -1
	}
	return n
}

func (m *MemoryStats) estimate(pids []int) {
	m.Estimated = true
	for _, pid := range pids {
		text, _ := procDir(pid).read("status")
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(line, ":")
			if key != "RssAnon" && key != "RssShmem" {
				continue
			}
			if n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64); err == nil {
				m.Usage += n * 1024
			}
		}
	}
}

// EstimateStats is Stats for a container without groups, whose processes are pids:
// what they use themselves, as far as the kernel counts it for a process.
func EstimateStats(pids []int) Stats {
	s := Stats{Memory: MemoryStats{Limit: -1, SwapLimit: -1}, Pids: PidsStats{Limit: -1}}
	s.Memory.estimate(pids)
	for _, pid := range pids {
		s.Pids.Current += threads(pid)
		text, err := procDir(pid).read("stat")
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // from field 3 on (proc_pid_stat(5))
		if len(f) < 15 {
			continue
		}
		ticks := func(field int) int64 {
			n, _ := strconv.ParseInt(f[field-3], 10, 64) // the kernel writes numbers
			return n * (1e9 / 100)                       // USER_HZ
		}
		s.CPU.User += ticks(14) + ticks(16) // with children that it has reaped
		s.CPU.System += ticks(15) + ticks(17)
	}
	s.CPU.Usage = s.CPU.User + s.CPU.System
	return s
}

func procDir(pid int) dir { return dir("/proc/" + strconv.Itoa(pid)) }

func threads(pid int) int64 {
	var st unix.Stat_t
	if unix.Stat(procDir(pid).file("task"), &st) != nil || st.Nlink < 3 {
		return 1
	}
	return int64(st.Nlink) - 2
}

func (c *CPUStats) fromV2(d dir) {
	text, _ := d.read("cpu.stat")
	keyValues(text, func(key string, n int64) {
		switch key {
		case "usage_usec":
			c.Usage = n * 1000
		case "user_usec":
			c.User = n * 1000
		case "system_usec":
			c.System = n * 1000
		case "nr_periods":
			c.Periods = n
		case "nr_throttled":
			c.Throttled = n
		case "throttled_usec":
			c.ThrottledTime = n * 1000
		}
	})
}

// ioFromV1 reads the counters of the throttling policy, which sees all traffic.
func ioFromV1(d dir) []DeviceStats {
	var out []DeviceStats
	count := func(file string, read, write func(*DeviceStats) *int64) {
		text, _ := d.read(file)
		for line := range strings.Lines(text) {
			f := strings.Fields(line) // 8:0 Read 4096
			if len(f) != 3 {
				continue
			}
			n, err := strconv.ParseInt(f[2], 10, 64)
			s := deviceOf(&out, f[0])
			switch {
			case err != nil || s == nil:
			case f[1] == "Read":
				*read(s) += n
			case f[1] == "Write":
				*write(s) += n
			}
		}
	}
	count("blkio.throttle.io_service_bytes_recursive", func(s *DeviceStats) *int64 { return &s.ReadBytes }, func(s *DeviceStats) *int64 { return &s.WriteBytes })
	count("blkio.throttle.io_serviced_recursive", func(s *DeviceStats) *int64 { return &s.Reads }, func(s *DeviceStats) *int64 { return &s.Writes })
	return out
}

func ioFromV2(d dir) []DeviceStats {
	var out []DeviceStats
	text, _ := d.read("io.stat")
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6
		if len(f) < 2 {
			continue
		}
		s := deviceOf(&out, f[0])
		if s == nil {
			continue
		}
		for _, kv := range f[1:] {
			key, value, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				continue
			}
			switch key {
			case "rbytes":
				s.ReadBytes = n
			case "wbytes":
				s.WriteBytes = n
			case "rios":
				s.Reads = n
			case "wios":
				s.Writes = n
			}
		}
	}
	return out
}

// deviceOf returns the entry of a device as "8:0", adding it; nil if it is none.
func deviceOf(list *[]DeviceStats, name string) *DeviceStats {
	a, b, ok := strings.Cut(name, ":")
	major, err1 := strconv.ParseInt(a, 10, 64)
	minor, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return nil
	}
	for i := range *list {
		if s := &(*list)[i]; s.Major == major && s.Minor == minor {
			return s
		}
	}
	*list = append(*list, DeviceStats{Major: major, Minor: minor})
	return &(*list)[len(*list)-1]
}

func pressure(d dir, resource string) Pressure {
	var p Pressure
	text, _ := d.read(resource + ".pressure") // not there, or EOPNOTSUPP, without PSI
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // some avg10=0.00 avg60=0.00 avg300=0.00 total=0
		if len(f) != 5 {
			continue
		}
		var avg [3]float64
		for i := range avg {
			_, value, _ := strings.Cut(f[i+1], "=")
			avg[i], _ = strconv.ParseFloat(value, 64)
		}
		_, value, _ := strings.Cut(f[4], "=")
		total, _ := strconv.ParseInt(value, 10, 64)
		switch f[0] {
		case "some":
			p.SomeAvg10, p.SomeAvg60, p.SomeAvg300, p.SomeTotal = avg[0], avg[1], avg[2], total
		case "full":
			p.FullAvg10, p.FullAvg60, p.FullAvg300, p.FullTotal = avg[0], avg[1], avg[2], total
		}
	}
	return p
}

// OOMInfo tells of kills for want of memory.
type OOMInfo struct {
	Kills int64 // processes of the group that the kernel has killed
	Limit int64 // bytes: the lowest of the group and its ancestors; 0 for none
	Peak  int64 // bytes; 0 where the kernel does not say
}

// OOM tells whether processes of the group were killed for want of memory. It
// can be asked after the container's end, until Delete. Without a memory group
// nobody counts, and the answer is none.
func (g *Group) OOM() (OOMInfo, error) {
	var info OOMInfo
	var m MemoryStats
	file, d := "memory.oom_control", dir(g.paths.V1["memory"])
	if d == "" {
		if d = dir(g.paths.V2); d == "" || !d.exists("memory.events") {
			return info, nil
		}
		file = "memory.events"
	}
	text, err := d.read(file)
	if err != nil {
		return info, err
	}
	keyValues(text, func(key string, n int64) {
		if key == "oom_kill" {
			info.Kills = n
		}
	})
	if info.Kills == 0 {
		return info, nil // the rest is for the message about them
	}
	m.Limit = -1
	if file == "memory.events" {
		m.fromV2(d, g.limitAbove(d))
	} else {
		m.fromV1(d)
	}
	info.Limit, info.Peak = max(m.Limit, 0), m.Peak
	return info, nil
}
