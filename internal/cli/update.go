package cli

import (
	"context"
	"fmt"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// updater is the part of the engine that changes limits.
type updater interface {
	Update(ctx context.Context, ref string, change container.Resources, restart *container.RestartPolicy) (warnings []string, err error)
}

func cmdUpdate(c *call) func() error {
	var r container.Resources
	restart := ""
	c.flags = []flag{
		{name: "blkio-weight", v: (*uint16Var)(&r.BlkioWeight), help: "Block IO weight between 10 and 1000, or 0 to leave it", def: "0"},
		{name: "cgroup-conf", v: (*mapVar)(&r.Unified), help: "Write a cgroup v2 file (file=value)", def: "map[]"},
		{name: "cpu-period", v: (*int64Var)(&r.CPUPeriod), help: "CPU scheduler (CFS) period in microseconds"},
		{name: "cpu-quota", v: (*int64Var)(&r.CPUQuota), help: "CPU scheduler (CFS) quota in microseconds a period"},
		{name: "cpu-rt-period", v: (*int64Var)(&r.CPURTPeriod), help: "Real-time CPU period in microseconds"},
		{name: "cpu-rt-runtime", v: (*int64Var)(&r.CPURTRuntime), help: "Real-time CPU time in microseconds a period"},
		{name: "cpu-shares", short: 'c', v: (*int64Var)(&r.CPUShares), help: "CPU shares (relative weight)"},
		{name: "cpus", v: funcVar{"decimal", func(s string) (err error) { r.NanoCPUs, err = container.ParseCPUs(s); return }}, help: "Number of CPUs"},
		{name: "cpuset-cpus", v: (*stringVar)(&r.CpusetCPUs), help: "CPUs to run on (0-3, 0,1)"},
		{name: "cpuset-mems", v: (*stringVar)(&r.CpusetMems), help: "Memory nodes to use (0-3, 0,1)"},
		{name: "memory", short: 'm', v: (*bytesVar)(&r.Memory), help: "Memory limit"},
		{name: "memory-reservation", v: (*bytesVar)(&r.MemoryReservation), help: "Memory soft limit"},
		{name: "memory-swap", v: funcVar{"bytes", func(s string) (err error) { r.MemorySwap, err = container.ParseMemorySwap(s); return }}, help: "Limit of memory plus swap; -1 for unlimited swap"},
		{name: "pids-limit", v: (*int64Var)(&r.PidsLimit), help: "Limit of processes (-1 for unlimited)"},
		{name: "restart", v: (*stringVar)(&restart), help: "What to do when the container exits"},
	}
	return func() error {
		any := false
		for i := range c.flags {
			any = any || c.flags[i].set
		}
		if !any {
			return errs.New(errs.Invalid, "you must provide one or more flags when using this command")
		}
		var policy *container.RestartPolicy
		if restart != "" {
			p, err := container.ParseRestartPolicy(restart)
			if err != nil {
				return err
			}
			policy = &p
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		u, ok := eng.(updater)
		if !ok {
			return errs.New(errs.Unsupported, "update: this engine cannot")
		}
		return c.each(func(ref string) error {
			warnings, err := u.Update(c.ctx, ref, r, policy)
			for _, w := range warnings {
				fmt.Fprintln(c.err, "WARNING: "+oneLine(w))
			}
			if err == nil {
				_, err = fmt.Fprintln(c.stdout(), ref)
			}
			return err
		})
	}
}
