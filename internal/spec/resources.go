package spec

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// cfsPeriod is the period that --cpus is a share of, in microseconds.
const cfsPeriod = 100_000

// setResources sets the limits. Only what was asked for appears: each further
// controller costs a container start on cgroup v1.
func (b *build) setResources() error {
	if err := b.cpuLimits(); err != nil {
		return err
	}
	b.memoryLimits()
	if err := b.ioLimits(); err != nil {
		return err
	}
	r, out := &b.cfg.Resources, &b.resources
	if r.PidsLimit != 0 {
		limit := r.PidsLimit
		if limit < 0 {
			limit = -1
		}
		b.pids.Limit = &limit
		out.Pids = &b.pids
	}
	for size, limit := range r.HugetlbLimits {
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: uint64(limit)})
	}
	slices.SortFunc(out.HugepageLimits, func(x, y specs.LinuxHugepageLimit) int { return cmp.Compare(x.Pagesize, y.Pagesize) })
	if len(r.Unified) > 0 {
		if !b.in.Facts.CgroupV2 {
			return errs.New(errs.Unsupported, "cgroup-conf: this machine does not use cgroup v2 alone")
		}
		out.Unified = r.Unified
	}
	b.linux.Resources = out
	return nil
}

func (b *build) cpuLimits() error {
	r, f, cpu := &b.cfg.Resources, &b.in.Facts, &b.cpu
	used := false
	if r.NanoCPUs > 0 {
		if f.CPUs > 0 && r.NanoCPUs > int64(f.CPUs)*1e9 {
			return errs.New(errs.Invalid, "range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", f.CPUs, f.CPUs)
		}
		period, quota := uint64(cfsPeriod), r.NanoCPUs*cfsPeriod/1e9
		cpu.Period, cpu.Quota, used = &period, &quota, true
	}
	if r.CPUPeriod != 0 {
		period := uint64(r.CPUPeriod)
		cpu.Period, used = &period, true
	}
	if r.CPUQuota != 0 {
		quota := r.CPUQuota
		cpu.Quota, used = &quota, true
	}
	if r.CPUShares != 0 {
		// Docker moves shares into the kernel's range without a word.
		shares := uint64(min(max(r.CPUShares, 2), 262144))
		cpu.Shares, used = &shares, true
	}
	if r.CPURTPeriod != 0 {
		period := uint64(r.CPURTPeriod)
		cpu.RealtimePeriod, used = &period, true
	}
	if r.CPURTRuntime != 0 {
		if r.CPURTPeriod != 0 && r.CPURTRuntime > r.CPURTPeriod {
			return errs.New(errs.Invalid, "cpu real-time runtime cannot be higher than cpu real-time period")
		}
		runtime := r.CPURTRuntime
		cpu.RealtimeRuntime, used = &runtime, true
	}
	if r.CpusetCPUs != "" {
		if f.CPUList != "" && !within(r.CpusetCPUs, f.CPUList) {
			return errs.New(errs.Invalid, "requested CPUs are not available - requested %s, available: %s", r.CpusetCPUs, f.CPUList)
		}
		cpu.Cpus, used = r.CpusetCPUs, true
	}
	if r.CpusetMems != "" {
		cpu.Mems, used = r.CpusetMems, true
	}
	if used {
		b.resources.CPU = cpu
	}
	return nil
}

func (b *build) memoryLimits() {
	r, f, mem := &b.cfg.Resources, &b.in.Facts, &b.memory
	used := false
	if r.Memory > 0 {
		limit := r.Memory
		mem.Limit, used = &limit, true
	}
	swap := r.MemorySwap
	if swap == 0 && r.Memory > 0 {
		swap = 2 * r.Memory // as much swap as memory
	}
	if swap != 0 {
		mem.Swap, used = &swap, true
	}
	if r.MemoryReservation > 0 {
		limit := r.MemoryReservation
		mem.Reservation, used = &limit, true
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		if f.CgroupV2 {
			b.warn("memory swappiness: cgroup v2 has no such setting; left out")
		} else {
			swappiness := uint64(*r.MemorySwappiness)
			mem.Swappiness, used = &swappiness, true
		}
	}
	if r.OOMKillDisable {
		switch {
		case f.CgroupV2:
			b.warn("the OOM killer cannot be disabled on cgroup v2; left on")
		default:
			if r.Memory == 0 {
				b.warn("the OOM killer is disabled for a container without a memory limit: the whole machine may come to a stop")
			}
			disable := true
			mem.DisableOOMKiller, used = &disable, true
		}
	}
	if r.KernelMemory > 0 {
		b.warn("kernel memory limit: kernels since 5.16 have none; left out")
	}
	if used {
		b.resources.Memory = mem
	}
}

func (b *build) ioLimits() error {
	r, out, d := &b.cfg.Resources, &b.blockIO, &b.in.Devices
	used := false
	if r.BlkioWeight > 0 {
		weight := r.BlkioWeight
		out.Weight, used = &weight, true
	}
	for _, v := range r.BlkioWeightDevice {
		n, err := d.blockNumber(v.Path)
		if err != nil {
			return err
		}
		weight := uint16(v.Value)
		w := specs.LinuxWeightDevice{Weight: &weight}
		w.Major, w.Minor = n.Major, n.Minor
		out.WeightDevice, used = append(out.WeightDevice, w), true
	}
	for _, l := range [...]struct {
		asked []container.DeviceValue
		to    *[]specs.LinuxThrottleDevice
	}{
		{r.DeviceReadBps, &out.ThrottleReadBpsDevice},
		{r.DeviceWriteBps, &out.ThrottleWriteBpsDevice},
		{r.DeviceReadIOps, &out.ThrottleReadIOPSDevice},
		{r.DeviceWriteIOps, &out.ThrottleWriteIOPSDevice},
	} {
		for _, v := range l.asked {
			n, err := d.blockNumber(v.Path)
			if err != nil {
				return err
			}
			t := specs.LinuxThrottleDevice{Rate: v.Value}
			t.Major, t.Minor = n.Major, n.Minor
			*l.to, used = append(*l.to, t), true
		}
	}
	if used {
		b.resources.BlockIO = out
	}
	return nil
}

// within reports whether every number of the list "0-3,5" is in the list have.
func within(list, have string) bool {
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, ok := span(part)
		if !ok {
			return false
		}
		// The ends of a part lie in one part of have: lists of the kernel have
		// no neighbouring parts.
		found := false
		for p := range strings.SplitSeq(have, ",") {
			if l, h, ok := span(p); ok && l <= lo && hi <= h {
				found = true
			}
		}
		if !found {
			return false
		}
	}
	return true
}

func span(s string) (lo, hi uint64, ok bool) {
	from, to, two := strings.Cut(strings.TrimSpace(s), "-")
	lo, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return 0, 0, false
	}
	if !two {
		return lo, lo, true
	}
	hi, err = strconv.ParseUint(to, 10, 16)
	return lo, hi, err == nil && lo <= hi
}
