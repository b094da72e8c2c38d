package cgroup

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// v2value writes an OCI limit as v2 has it.
func v2value(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func (g *Group) memoryV2(d dir, m *specs.LinuxMemory) error {
	limit, total := int64(0), int64(0)
	if m.Limit != nil {
		limit = *m.Limit
	}
	if m.Swap != nil {
		total = *m.Swap
	}
	if err := checkUsage(d, m); err != nil {
		return err
	}
	swap, err := swapV2(d, limit, total)
	if err != nil {
		return err
	}
	// Swap first: a limit that is lowered below the usage swaps at once.
	if swap != "" {
		err := d.write("memory.swap.max", swap)
		if errors.Is(err, unix.ENOENT) {
			// Built or booted without swap accounting: nothing to forbid or to allow.
			if swap != "max" {
				g.warn(warnNoSwap)
			}
		} else if err != nil {
			return fail("memory and swap limit "+size(total), err)
		}
	}
	if limit != 0 {
		if err := d.write("memory.max", v2value(limit)); err != nil {
			return fail("memory limit "+size(limit), err)
		}
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		if err := d.write("memory.low", v2value(*m.Reservation)); err != nil {
			return fail("memory reservation "+size(*m.Reservation), err)
		}
	}
	if m.Swappiness != nil {
		g.warn(warnNoSwappiness)
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		g.warn(warnNoOOMControl)
	}
	return nil
}

// swapV2 turns OCI's memory+swap into v2's swap alone, "" for no change.
func swapV2(d dir, limit, total int64) (string, error) {
	switch {
	case total == -1, total == 0 && limit == -1:
		// Unlimited memory without a word about swap means both, as on v1.
		return "max", nil
	case total == 0:
		return "", nil
	case limit == -1:
		return strconv.FormatInt(total, 10), nil
	case limit == 0:
		// An update of just the sum: the memory limit stays.
		now, err := d.readInt("memory.max")
		if err != nil {
			return "", fail("memory and swap limit "+size(total), err)
		}
		if now == unlimited {
			return "", errs.New(errs.Invalid, "memory and swap limit %s: needs a memory limit", size(total))
		}
		limit = now
	}
	if total < limit {
		return "", errs.New(errs.Invalid, "memory and swap limit %s: is below the memory limit %s", size(total), size(limit))
	}
	return strconv.FormatInt(total-limit, 10), nil
}

// weight turns v1 cpu shares, 2 to 262144 with 1024 the default, into a v2
// weight, 1 to 10000 with 100 the default, on the curve through these three
// points that runc and crun agreed on. The straight line that they used before
// gave the default a weight of 39.
func weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func cpuV2(d dir, c *specs.LinuxCPU) error {
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 || c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		return errs.New(errs.Unsupported, "cpu realtime limit: cgroup v2 has none")
	}
	if c.Idle != nil {
		if err := d.write("cpu.idle", strconv.FormatInt(*c.Idle, 10)); err != nil {
			return fail("cpu idle", err)
		}
	}
	if c.Shares != nil && *c.Shares != 0 {
		if err := d.write("cpu.weight", strconv.FormatUint(weight(*c.Shares), 10)); err != nil {
			return fail("cpu shares", err)
		}
	}
	quota, period := c.Quota != nil && *c.Quota != 0, c.Period != nil && *c.Period != 0
	if quota || period {
		value := "max"
		if quota && *c.Quota > 0 {
			value = strconv.FormatInt(*c.Quota, 10)
		} else if !quota {
			// An update of the period alone keeps the quota.
			now, err := d.read("cpu.max")
			if err != nil {
				return fail("cpu period", err)
			}
			value, _, _ = strings.Cut(now, " ")
		}
		if period {
			value += " " + strconv.FormatUint(*c.Period, 10)
		}
		if err := d.write("cpu.max", value); err != nil {
			return fail("cpu limit "+value, err)
		}
	}
	return cpuBurst(d, "cpu.max.burst", c.Burst)
}

// cpuBurst writes a burst. None is what a kernel older than 5.14 has anyhow.
func cpuBurst(d dir, file string, burst *uint64) error {
	if burst == nil {
		return nil
	}
	err := d.write(file, strconv.FormatUint(*burst, 10))
	if *burst == 0 && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fail("cpu burst", err)
}

func (g *Group) ioV2(d dir, b *specs.LinuxBlockIO) error {
	if b.Weight != nil && *b.Weight != 0 {
		err := d.write("io.bfq.weight", strconv.FormatUint(uint64(*b.Weight), 10))
		if errors.Is(err, unix.ENOENT) {
			// Without BFQ the weight is the cost model's, 1 to 10000 for 10 to 1000.
			err = d.write("io.weight", strconv.FormatUint(1+(uint64(*b.Weight)-10)*9999/990, 10))
		}
		if errors.Is(err, unix.ENOENT) {
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
		if err := d.write("io.bfq.weight", line); errors.Is(err, unix.ENOENT) {
			g.warn(warnNoWeight)
		} else if err != nil {
			return fail("block I/O weight of "+device(w.Major, w.Minor), err)
		}
	}
	return throttles(b, func(_, key string, list []specs.LinuxThrottleDevice) error {
		for _, t := range list {
			rate := "max"
			if t.Rate != 0 {
				rate = strconv.FormatUint(t.Rate, 10)
			}
			if err := d.write("io.max", device(t.Major, t.Minor)+" "+key+"="+rate); err != nil {
				return fail("block I/O rate of "+device(t.Major, t.Minor), err)
			}
		}
		return nil
	})
}

// unified writes raw v2 files (--cgroup-conf). The names come from the user and
// must stay in the group's directory.
func unified(d dir, files map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := checkUnified(name); err != nil {
			return err
		}
		// Files with a line for each device take one at a time.
		for line := range strings.Lines(files[name]) {
			if err := d.write(name, strings.TrimSuffix(line, "\n")); err != nil {
				return fail("cgroup file "+name, err)
			}
		}
	}
	return nil
}

func checkUnified(name string) error {
	controller, _, ok := strings.Cut(name, ".")
	switch name {
	case "cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure":
		return nil // of the files without a controller, the ones that are settings
	}
	if !ok || controller == "" || controller == "cgroup" || strings.ContainsAny(name, "/\x00") {
		return errs.New(errs.Invalid, "cgroup file %q: want CONTROLLER.FILE, as memory.high", name)
	}
	return nil
}
