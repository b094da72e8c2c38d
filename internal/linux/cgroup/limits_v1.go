package cgroup

import (
	"errors"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Docker's words, which scripts look for.
const (
	warnNoSwap       = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
	warnNoSwappiness = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
	warnNoOOMControl = "Your kernel does not support OomKillDisable. OomKillDisable discarded."
	warnNoWeight     = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
)

func (g *Group) memoryV1(d dir, m *specs.LinuxMemory) error {
	const limit, memsw = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	have := func(n *int64) bool { return n != nil && *n != 0 }
	setLimit := func() error {
		if !have(m.Limit) {
			return nil
		}
		err := d.write(limit, strconv.FormatInt(*m.Limit, 10))
		if errors.Is(err, unix.EINVAL) {
			if now, merr := d.readInt(memsw); merr == nil && *m.Limit > now {
				return errs.New(errs.Invalid, "memory limit %s: is above the memory and swap limit %s; change both", size(*m.Limit), size(now))
			}
		}
		if errors.Is(err, unix.EBUSY) {
			usage, _ := d.readInt("memory.usage_in_bytes") // only to say more
			return errs.New(errs.Conflict, "memory limit %s: the container uses %s that cannot be reclaimed", size(*m.Limit), size(usage))
		}
		return fail("memory limit "+size(*m.Limit), err)
	}
	swap := int64(0)
	if have(m.Swap) {
		swap = *m.Swap
	} else if have(m.Limit) && *m.Limit == -1 {
		swap = -1 // no limit on memory means none on memory and swap either, which could not be smaller
	}
	if swap != 0 && !d.exists(memsw) {
		// Booted with swapaccount=0, or built without it.
		if swap > 0 {
			g.warn(warnNoSwap)
		}
		swap = 0
	}
	setSwap := func() error {
		if swap == 0 {
			return nil
		}
		return fail("memory and swap limit "+size(swap), d.write(memsw, strconv.FormatInt(swap, 10)))
	}
	// The kernel keeps memory ≤ memory+swap at every step: what grows past the
	// other must be written after it.
	first, second := setLimit, setSwap
	if swap != 0 {
		current, err := d.readInt(memsw)
		if err != nil {
			return fail("memory and swap limit", err)
		}
		if swap == -1 || swap > current {
			first, second = setSwap, setLimit
		}
	}
	if err := first(); err != nil {
		return err
	}
	if err := second(); err != nil {
		return err
	}
	if have(m.Reservation) {
		if err := d.write("memory.soft_limit_in_bytes", strconv.FormatInt(*m.Reservation, 10)); err != nil {
			return fail("memory reservation "+size(*m.Reservation), err)
		}
	}
	if m.Swappiness != nil && *m.Swappiness > 100 && int64(*m.Swappiness) != -1 { // -1: leave it
		return errs.New(errs.Invalid, "invalid memory swappiness value: %d (valid range is 0-100)", *m.Swappiness)
	}
	if m.Swappiness != nil && *m.Swappiness <= 100 {
		if err := d.write("memory.swappiness", strconv.FormatUint(*m.Swappiness, 10)); err != nil {
			return fail("memory swappiness", err)
		}
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		if err := d.write("memory.oom_control", "1"); err != nil {
			return fail("disabling the OOM killer", err)
		}
	}
	return nil
}

func cpuV1(d dir, c *specs.LinuxCPU) error {
	if c.Shares != nil && *c.Shares != 0 {
		if err := d.write("cpu.shares", strconv.FormatUint(*c.Shares, 10)); err != nil {
			return fail("cpu shares", err)
		}
	}
	period := func() error {
		if c.Period == nil || *c.Period == 0 {
			return nil
		}
		return d.write("cpu.cfs_period_us", strconv.FormatUint(*c.Period, 10))
	}
	quota := func() error {
		if c.Quota == nil || *c.Quota == 0 {
			return nil
		}
		return d.write("cpu.cfs_quota_us", strconv.FormatInt(*c.Quota, 10))
	}
	// A shorter period before a smaller quota can pass the parent's share for a
	// moment, which the kernel refuses (EINVAL): then the other order works.
	err := period()
	late := errors.Is(err, unix.EINVAL)
	if err != nil && !late {
		return fail("cpu period", err)
	}
	if err := quota(); err != nil {
		return fail("cpu quota "+strconv.FormatInt(*c.Quota, 10), err)
	}
	if late {
		if err := period(); err != nil {
			return fail("cpu period "+strconv.FormatUint(*c.Period, 10), err)
		}
	}
	if err := cpuBurst(d, "cpu.cfs_burst_us", c.Burst); err != nil {
		return err
	}
	if c.Idle != nil {
		if err := d.write("cpu.idle", strconv.FormatInt(*c.Idle, 10)); err != nil {
			return fail("cpu idle", err)
		}
	}
	return cpuRealtime(d, c)
}

// cpuRealtime: Docker's --cpu-rt-period and --cpu-rt-runtime, for kernels built
// with CONFIG_RT_GROUP_SCHED. Every ancestor must have been given as much.
func cpuRealtime(d dir, c *specs.LinuxCPU) error {
	period := func() error {
		if c.RealtimePeriod == nil || *c.RealtimePeriod == 0 {
			return nil
		}
		return d.write("cpu.rt_period_us", strconv.FormatUint(*c.RealtimePeriod, 10))
	}
	err := period()
	late := errors.Is(err, unix.EINVAL) // as above
	if err != nil && !late {
		return fail("cpu realtime period", err)
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		err := d.write("cpu.rt_runtime_us", strconv.FormatInt(*c.RealtimeRuntime, 10))
		if errors.Is(err, unix.EINVAL) {
			if parent, perr := d.up().readInt("cpu.rt_runtime_us"); perr == nil && *c.RealtimeRuntime > parent {
				return errs.New(errs.Invalid, "cpu realtime runtime %d: is above the %d of cgroup %s", *c.RealtimeRuntime, parent, d.up())
			}
		}
		if err != nil {
			return fail("cpu realtime runtime", err)
		}
	}
	if late {
		return fail("cpu realtime period", period())
	}
	return nil
}

func (g *Group) blkioV1(d dir, b *specs.LinuxBlockIO) error {
	if b.Weight != nil && *b.Weight != 0 {
		// Only BFQ has weights; blkio.weight belonged to CFQ, which is gone since 5.0.
		if err := d.write("blkio.bfq.weight", strconv.FormatUint(uint64(*b.Weight), 10)); errors.Is(err, unix.ENOENT) {
			g.warn(warnNoWeight)
		} else if err != nil {
			return fail("block I/O weight", err)
		}
	}
	for _, w := range b.WeightDevice {
		if w.Weight == nil {
			continue
		}
		line := device(w.Major, w.Minor) + " " + strconv.FormatUint(uint64(*w.Weight), 10)
		if err := d.write("blkio.bfq.weight_device", line); errors.Is(err, unix.ENOENT) {
			g.warn(warnNoWeight)
		} else if err != nil {
			return fail("block I/O weight of "+device(w.Major, w.Minor), err)
		}
	}
	return throttles(b, func(file, _ string, list []specs.LinuxThrottleDevice) error {
		for _, t := range list {
			if err := d.write(file, device(t.Major, t.Minor)+" "+strconv.FormatUint(t.Rate, 10)); err != nil {
				return fail("block I/O rate of "+device(t.Major, t.Minor), err)
			}
		}
		return nil
	})
}

// inheritCpuset gives a new v1 group the values of its parent where it has none:
// without both a cpuset takes no process. Parents made by name on the way are
// filled first.
func inheritCpuset(d, mount dir) error {
	if len(d) <= len(mount) {
		return nil
	}
	for _, file := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		if v, err := d.read(file); err != nil {
			return err
		} else if v != "" {
			continue
		}
		if err := inheritCpuset(d.up(), mount); err != nil {
			return err
		}
		v, err := d.up().read(file)
		if err != nil {
			return err
		}
		if err := d.write(file, v); err != nil {
			return err
		}
	}
	return nil
}
