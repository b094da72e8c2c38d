package cgroup

import (
	"math"
	"os"
	"strconv"
	"strings"
)

// Figures are what a container uses, in the form that the events command of OCI
// runtimes prints (runc-events(8)) and that their callers parse.
type Figures struct {
	CPU       CPUFigures                `json:"cpu"`
	CPUSet    CPUSetFigures             `json:"cpuset"`
	Memory    MemoryFigures             `json:"memory"`
	Pids      PidsFigures               `json:"pids"`
	BlockIO   BlockIOFigures            `json:"blkio"`
	Hugetlb   map[string]HugetlbFigures `json:"hugetlb"`
	IntelRdt  struct{}                  `json:"intel_rdt"`          // no container has a group of its own there
	Interface []struct{}                `json:"network_interfaces"` // null, as with runtimes that make none
}

// CPUFigures are in nanoseconds.
type CPUFigures struct {
	Usage struct {
		Total        uint64   `json:"total,omitempty"`
		Percpu       []uint64 `json:"percpu,omitempty"`
		PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
		PercpuUser   []uint64 `json:"percpu_user,omitempty"`
		Kernel       uint64   `json:"kernel"`
		User         uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods   uint64 `json:"periods,omitempty"`
		Throttled uint64 `json:"throttledPeriods,omitempty"`
		Time      uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
	PSI *PSI `json:"psi,omitempty"`
}

// CPUSetFigures are the files of a v1 cpuset; v2 has the two lists.
type CPUSetFigures struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// MemoryFigures are in bytes.
type MemoryFigures struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage"`
	Swap      MemoryEntry       `json:"swap"` // memory and swap together, as on v1
	Kernel    MemoryEntry       `json:"kernel"`
	KernelTCP MemoryEntry       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *PSI              `json:"psi,omitempty"`
}

// MemoryEntry is one kind of memory.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PidsFigures count tasks; a limit of 0 is none.
type PidsFigures struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlockIOFigures are counters of block devices.
type BlockIOFigures struct {
	ServiceBytes []BlockIOEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlockIOEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []BlockIOEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []BlockIOEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []BlockIOEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []BlockIOEntry `json:"ioMergedRecursive,omitempty"`
	Time         []BlockIOEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []BlockIOEntry `json:"sectorsRecursive,omitempty"`
	PSI          *PSI           `json:"psi,omitempty"`
}

// BlockIOEntry is one counter of one device.
type BlockIOEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// HugetlbFigures are of one page size.
type HugetlbFigures struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PSI is the pressure on one resource (Documentation/accounting/psi.rst).
type PSI struct {
	Some PSIData `json:"some,omitzero"`
	Full PSIData `json:"full,omitzero"`
}

// PSIData is in percent of the last seconds, and in microseconds.
type PSIData struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// Figures reads the group's figures. What the kernel does not have is zero.
func (g *Group) Figures() Figures {
	f := Figures{Hugetlb: map[string]HugetlbFigures{}}
	if len(g.paths.V1) > 0 {
		f.fromV1(g.paths.V1)
	} else if g.paths.V2 != "" {
		f.fromV2(dir(g.paths.V2))
	}
	return f
}

// number reads a counter; "max" is the largest there is.
func (d dir) number(name string) uint64 {
	text, err := d.read(name)
	if err == nil && text == "max" {
		return math.MaxUint64
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func (d dir) table(name string, f func(key string, n uint64)) {
	text, _ := d.read(name)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			f(key, n)
		}
	}
}

func (d dir) list(name string) []uint16 {
	text, err := d.read(name)
	if err != nil {
		return nil
	}
	set, _ := parseSet(text)
	var out []uint16
	for n := range 1 << 13 {
		if set[n] {
			out = append(out, uint16(n))
		}
		if len(out) == len(set) {
			break
		}
	}
	return out
}

func (f *Figures) fromV1(paths map[string]string) {
	if d := dir(paths["cpuacct"]); d != "" {
		u := &f.CPU.Usage
		u.Total = d.number("cpuacct.usage")
		d.table("cpuacct.stat", func(key string, n uint64) {
			n *= uint64(1e9 / 100) // USER_HZ is 100 on every machine that Linux runs on
			if key == "user" {
				u.User = n
			} else {
				u.Kernel = n
			}
		})
		text, _ := d.read("cpuacct.usage_percpu")
		for v := range strings.FieldsSeq(text) {
			n, _ := strconv.ParseUint(v, 10, 64)
			u.Percpu = append(u.Percpu, n)
		}
		text, _ = d.read("cpuacct.usage_all")
		for line := range strings.Lines(text) {
			v := strings.Fields(line) // cpu user system
			if len(v) != 3 || v[0] == "cpu" {
				continue
			}
			user, _ := strconv.ParseUint(v[1], 10, 64)
			kernel, _ := strconv.ParseUint(v[2], 10, 64)
			u.PercpuUser, u.PercpuKernel = append(u.PercpuUser, user), append(u.PercpuKernel, kernel)
		}
	}
	if d := dir(paths["cpu"]); d != "" {
		d.table("cpu.stat", func(key string, n uint64) {
			switch key {
			case "nr_periods":
				f.CPU.Throttling.Periods = n
			case "nr_throttled":
				f.CPU.Throttling.Throttled = n
			case "throttled_time":
				f.CPU.Throttling.Time = n
			}
		})
	}
	if d := dir(paths["cpuset"]); d != "" {
		s := &f.CPUSet
		s.CPUs, s.Mems = d.list("cpuset.cpus"), d.list("cpuset.mems")
		s.CPUExclusive, s.MemHardwall, s.MemExclusive = d.number("cpuset.cpu_exclusive"), d.number("cpuset.mem_hardwall"), d.number("cpuset.mem_exclusive")
		s.MemoryMigrate, s.MemorySpreadPage, s.MemorySpreadSlab = d.number("cpuset.memory_migrate"), d.number("cpuset.memory_spread_page"), d.number("cpuset.memory_spread_slab")
		s.MemoryPressure, s.SchedLoadBalance = d.number("cpuset.memory_pressure"), d.number("cpuset.sched_load_balance")
		s.SchedRelaxDomainLevel, _ = d.readInt("cpuset.sched_relax_domain_level")
	}
	if d := dir(paths["memory"]); d != "" {
		m := &f.Memory
		m.Raw = map[string]uint64{}
		d.table("memory.stat", func(key string, n uint64) { m.Raw[key] = n })
		m.Cache = m.Raw["cache"]
		entry := func(prefix string) MemoryEntry {
			return MemoryEntry{d.number(prefix + ".limit_in_bytes"), d.number(prefix + ".usage_in_bytes"), d.number(prefix + ".max_usage_in_bytes"), d.number(prefix + ".failcnt")}
		}
		m.Usage, m.Swap, m.Kernel, m.KernelTCP = entry("memory"), entry("memory.memsw"), entry("memory.kmem"), entry("memory.kmem.tcp")
	}
	if d := dir(paths["pids"]); d != "" {
		f.Pids.fromDir(d)
	}
	if d := dir(paths["blkio"]); d != "" {
		b := &f.BlockIO
		for _, prefix := range [...]string{"blkio.bfq.", "blkio.throttle."} {
			if b.Serviced = blockIO(d, prefix+"io_serviced_recursive"); b.Serviced == nil {
				continue
			}
			b.ServiceBytes = blockIO(d, prefix+"io_service_bytes_recursive")
			b.Queued, b.ServiceTime = blockIO(d, prefix+"io_queued_recursive"), blockIO(d, prefix+"io_service_time_recursive")
			b.WaitTime, b.Merged = blockIO(d, prefix+"io_wait_time_recursive"), blockIO(d, prefix+"io_merged_recursive")
			b.Time, b.Sectors = blockIO(d, prefix+"time_recursive"), blockIO(d, prefix+"sectors_recursive")
			break
		}
	}
	if d := dir(paths["hugetlb"]); d != "" {
		for _, size := range hugePageSizes() {
			prefix := "hugetlb." + size
			if d.exists(prefix + ".rsvd.usage_in_bytes") {
				prefix += ".rsvd"
			}
			f.Hugetlb[size] = HugetlbFigures{d.number(prefix + ".usage_in_bytes"), d.number(prefix + ".max_usage_in_bytes"), d.number(prefix + ".failcnt")}
		}
	}
}

func (f *Figures) fromV2(d dir) {
	c := &f.CPU
	d.table("cpu.stat", func(key string, n uint64) {
		switch key {
		case "usage_usec":
			c.Usage.Total = n * 1000
		case "user_usec":
			c.Usage.User = n * 1000
		case "system_usec":
			c.Usage.Kernel = n * 1000
		case "nr_periods":
			c.Throttling.Periods = n
		case "nr_throttled":
			c.Throttling.Throttled = n
		case "throttled_usec":
			c.Throttling.Time = n * 1000
		}
	})
	c.PSI = psi(d, "cpu")
	if d.exists("memory.current") {
		m := &f.Memory
		m.Raw = map[string]uint64{}
		d.table("memory.stat", func(key string, n uint64) { m.Raw[key] = n })
		m.Cache = m.Raw["file"]
		m.Usage = MemoryEntry{Limit: d.number("memory.max"), Usage: d.number("memory.current"), Max: d.number("memory.peak")}
		if d.exists("memory.swap.current") {
			m.Swap = MemoryEntry{Limit: d.number("memory.swap.max"), Usage: d.number("memory.swap.current") + m.Usage.Usage}
			if m.Swap.Limit != math.MaxUint64 {
				m.Swap.Limit += m.Usage.Limit
			}
		} else {
			m.Swap = MemoryEntry{Limit: m.Usage.Limit, Usage: m.Usage.Usage}
		}
		m.PSI = psi(d, "memory")
	}
	f.Pids.fromDir(d)
	f.CPUSet.CPUs, f.CPUSet.Mems = d.list("cpuset.cpus"), d.list("cpuset.mems")
	text, _ := d.read("io.stat")
	for line := range strings.Lines(text) {
		v := strings.Fields(line)
		if len(v) < 2 {
			continue
		}
		a, b, _ := strings.Cut(v[0], ":")
		major, err1 := strconv.ParseUint(a, 10, 64)
		minor, err2 := strconv.ParseUint(b, 10, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		for _, kv := range v[1:] {
			key, value, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			e := BlockIOEntry{Major: major, Minor: minor, Op: "Read", Value: n}
			if key[0] == 'w' {
				e.Op = "Write"
			}
			switch key {
			case "rbytes", "wbytes":
				f.BlockIO.ServiceBytes = append(f.BlockIO.ServiceBytes, e)
			case "rios", "wios":
				f.BlockIO.Serviced = append(f.BlockIO.Serviced, e)
			}
		}
	}
	f.BlockIO.PSI = psi(d, "io")
	for _, size := range hugePageSizes() {
		prefix := "hugetlb." + size
		current := prefix + ".rsvd.current"
		if !d.exists(current) {
			current = prefix + ".current"
		}
		if !d.exists(current) {
			continue
		}
		h := HugetlbFigures{Usage: d.number(current)}
		d.table(prefix+".events", func(key string, n uint64) {
			if key == "max" {
				h.Failcnt = n
			}
		})
		f.Hugetlb[size] = h
	}
}

func (p *PidsFigures) fromDir(d dir) {
	if !d.exists("pids.current") {
		pids, _ := procs(d)
		p.Current = uint64(len(pids))
		return
	}
	p.Current = d.number("pids.current")
	if p.Limit = d.number("pids.max"); p.Limit == math.MaxUint64 {
		p.Limit = 0
	}
}

// blockIO reads a v1 file of counters by device, with or without an operation.
func blockIO(d dir, name string) []BlockIOEntry {
	text, err := d.read(name)
	if err != nil {
		return nil
	}
	out := []BlockIOEntry{}
	for line := range strings.Lines(text) {
		v := strings.FieldsFunc(line, func(r rune) bool { return r == ':' || r == ' ' || r == '\n' })
		if len(v) < 3 || v[0] == "Total" {
			continue
		}
		major, err1 := strconv.ParseUint(v[0], 10, 64)
		minor, err2 := strconv.ParseUint(v[1], 10, 64)
		n, err3 := strconv.ParseUint(v[len(v)-1], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		e := BlockIOEntry{Major: major, Minor: minor, Value: n}
		if len(v) == 4 {
			e.Op = v[2]
		}
		out = append(out, e)
	}
	return out
}

func psi(d dir, resource string) *PSI {
	text, err := d.read(resource + ".pressure")
	if err != nil || text == "" {
		return nil
	}
	p := pressure(d, resource)
	return &PSI{
		Some: PSIData{p.SomeAvg10, p.SomeAvg60, p.SomeAvg300, uint64(p.SomeTotal)},
		Full: PSIData{p.FullAvg10, p.FullAvg60, p.FullAvg300, uint64(p.FullTotal)},
	}
}

// hugePageSizes are the sizes of this machine as the files of the controller
// have them: 2MB, 1GB.
func hugePageSizes() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		unit := 0
		for kb >= 1024 {
			kb /= 1024
			unit++
		}
		out = append(out, strconv.FormatUint(kb, 10)+[...]string{"KB", "MB", "GB", "TB"}[min(unit, 3)])
	}
	return out
}
