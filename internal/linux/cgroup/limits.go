package cgroup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// need is one controller that a request cannot do without.
type need struct {
	controller string // its name on v1
	what       string // the limit, for messages: "memory limit 64 MiB"
}

// v2name is the controller's name on v2, "" if there is none.
func v2name(controller string) string {
	switch controller {
	case "blkio":
		return "io"
	case "net_cls", "net_prio":
		return ""
	}
	return controller
}

// needs lists the controllers that r asks for, each with the limit that stands
// for it in messages. Values that mean "no limit" need nothing in a new group
// but must be written in an update.
func needs(r *specs.LinuxResources, update bool) []need {
	if r == nil {
		return nil
	}
	var out []need
	set := func(n *int64) bool { return n != nil && (*n > 0 || update && *n != 0) }
	if m := r.Memory; m != nil {
		switch {
		case set(m.Limit):
			out = append(out, need{"memory", "memory limit " + size(*m.Limit)})
		case set(m.Swap):
			out = append(out, need{"memory", "memory and swap limit " + size(*m.Swap)})
		case set(m.Reservation):
			out = append(out, need{"memory", "memory reservation " + size(*m.Reservation)})
		case m.Swappiness != nil:
			out = append(out, need{"memory", "memory swappiness"})
		case m.DisableOOMKiller != nil && *m.DisableOOMKiller:
			out = append(out, need{"memory", "disabling the OOM killer"})
		}
	}
	if c := r.CPU; c != nil {
		switch {
		case set(c.Quota):
			out = append(out, need{"cpu", "cpu limit " + cpus(cpuRatio(*c.Quota, c.Period))})
		case c.Shares != nil && *c.Shares != 0:
			out = append(out, need{"cpu", "cpu shares " + strconv.FormatUint(*c.Shares, 10)})
		case c.Period != nil && *c.Period != 0:
			out = append(out, need{"cpu", "cpu period"})
		case c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 || c.RealtimePeriod != nil && *c.RealtimePeriod != 0:
			out = append(out, need{"cpu", "cpu realtime limit"})
		case c.Burst != nil && (*c.Burst != 0 || update):
			out = append(out, need{"cpu", "cpu burst"})
		case c.Idle != nil && (*c.Idle != 0 || update):
			out = append(out, need{"cpu", "cpu idle"})
		}
		switch {
		case c.Cpus != "":
			out = append(out, need{"cpuset", "cpuset cpus " + c.Cpus})
		case c.Mems != "":
			out = append(out, need{"cpuset", "cpuset mems " + c.Mems})
		}
	}
	if p := r.Pids; p != nil && set(p.Limit) {
		out = append(out, need{"pids", "pids limit " + strconv.FormatInt(*p.Limit, 10)})
	}
	if b := r.BlockIO; b != nil {
		n := len(b.WeightDevice) + len(b.ThrottleReadBpsDevice) + len(b.ThrottleWriteBpsDevice) +
			len(b.ThrottleReadIOPSDevice) + len(b.ThrottleWriteIOPSDevice)
		if b.Weight != nil && *b.Weight != 0 || n > 0 {
			out = append(out, need{"blkio", "block I/O limit"})
		}
	}
	if len(r.HugepageLimits) > 0 {
		out = append(out, need{"hugetlb", "huge page limit"})
	}
	if len(r.Rdma) > 0 {
		out = append(out, need{"rdma", "rdma limit"})
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil && *n.ClassID != 0 {
			out = append(out, need{"net_cls", "network class"})
		}
		if len(n.Priorities) > 0 {
			out = append(out, need{"net_prio", "network priorities"})
		}
	}
	return out
}

// apply writes the limits of r that controller is for.
func (g *Group) apply(d dir, controller string, v2 bool, r *specs.LinuxResources) error {
	switch controller {
	case "memory":
		if v2 {
			return g.memoryV2(d, r.Memory)
		}
		return g.memoryV1(d, r.Memory)
	case "cpu":
		if v2 {
			return cpuV2(d, r.CPU)
		}
		return cpuV1(d, r.CPU)
	case "cpuset":
		return cpuset(d, r.CPU)
	case "pids":
		return pids(d, *r.Pids.Limit)
	case "blkio":
		if v2 {
			return g.ioV2(d, r.BlockIO)
		}
		return g.blkioV1(d, r.BlockIO)
	case "hugetlb":
		return hugetlb(d, v2, r.HugepageLimits)
	case "rdma":
		return rdma(d, r.Rdma)
	case "net_cls":
		return fail("network class", d.write("net_cls.classid", strconv.FormatUint(uint64(*r.Network.ClassID), 10)))
	case "net_prio":
		for _, p := range r.Network.Priorities {
			if err := d.write("net_prio.ifpriomap", p.Name+" "+strconv.FormatUint(uint64(p.Priority), 10)); err != nil {
				return fail("network priority of "+p.Name, err)
			}
		}
	}
	return nil
}

// fail says which limit an error is about. A file that is not there means that
// the kernel was built or started without it.
func fail(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return errs.As(errs.Unsupported, fmt.Errorf("%s: not supported by this kernel: %w", what, err))
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return errs.As(errs.Invalid, fmt.Errorf("%s: %w", what, err))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// cpuset is the same on v1 and v2, but that a v1 group is of no use before both
// files have a value.
func cpuset(d dir, c *specs.LinuxCPU) error {
	for _, f := range [...]struct{ file, what, value string }{{"cpuset.cpus", "cpuset cpus ", c.Cpus}, {"cpuset.mems", "cpuset mems ", c.Mems}} {
		if f.value == "" {
			continue
		}
		if err := d.write(f.file, f.value); err != nil {
			return fail(f.what+f.value, err)
		}
	}
	return nil
}

func pids(d dir, limit int64) error {
	value := "max"
	if limit > 0 {
		value = strconv.FormatInt(limit, 10)
	}
	return fail("pids limit "+value, d.write("pids.max", value))
}

// hugetlb limits reservations where the kernel can (5.7), which fail in mmap(2)
// where an exceeded usage kills by SIGBUS, and usage always.
func hugetlb(d dir, v2 bool, limits []specs.LinuxHugepageLimit) error {
	for _, l := range limits {
		if strings.ContainsAny(l.Pagesize, "/.") {
			return errs.New(errs.Invalid, "huge page limit: bad page size %q", l.Pagesize)
		}
		suffix := ".limit_in_bytes"
		if v2 {
			suffix = ".max"
		}
		value := strconv.FormatUint(l.Limit, 10)
		what := "huge page limit of " + l.Pagesize
		if err := d.write("hugetlb."+l.Pagesize+suffix, value); err != nil {
			return fail(what, err)
		}
		if err := d.write("hugetlb."+l.Pagesize+".rsvd"+suffix, value); err != nil && !errors.Is(err, unix.ENOENT) {
			return fail(what, err)
		}
	}
	return nil
}

func rdma(d dir, limits map[string]specs.LinuxRdma) error {
	for device, l := range limits {
		line := device
		if l.HcaHandles != nil {
			line += " hca_handle=" + strconv.FormatUint(uint64(*l.HcaHandles), 10)
		}
		if l.HcaObjects != nil {
			line += " hca_object=" + strconv.FormatUint(uint64(*l.HcaObjects), 10)
		}
		if err := d.write("rdma.max", line); err != nil {
			return fail("rdma limit of "+device, err)
		}
	}
	return nil
}

// throttles calls f for each of the four kinds of block I/O rates.
func throttles(b *specs.LinuxBlockIO, f func(v1file, v2key string, list []specs.LinuxThrottleDevice) error) error {
	return errors.Join(
		f("blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice),
		f("blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice),
		f("blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice),
		f("blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice),
	)
}

func device(major, minor int64) string {
	return strconv.FormatInt(major, 10) + ":" + strconv.FormatInt(minor, 10)
}

// defaultPeriod is the kernel's, in µs.
const defaultPeriod = 100000

// cpuRatio returns a quota as a number of CPUs.
func cpuRatio(quota int64, period *uint64) float64 {
	if quota < 0 {
		return -1
	}
	p := uint64(defaultPeriod)
	if period != nil && *period != 0 {
		p = *period
	}
	return float64(quota) / float64(p)
}

func cpus(n float64) string {
	if n < 0 {
		return "off"
	}
	return strconv.FormatFloat(n, 'g', 4, 64)
}

// size writes a number of bytes for people: exactly, with the largest unit that
// divides it.
func size(n int64) string {
	if n < 0 {
		return "off"
	}
	unit := 0
	for n != 0 && n%1024 == 0 && unit < 4 {
		n /= 1024
		unit++
	}
	return strconv.FormatInt(n, 10) + [...]string{" bytes", " KiB", " MiB", " GiB", " TiB"}[unit]
}
