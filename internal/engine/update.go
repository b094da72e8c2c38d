package engine

import (
	"context"
	"maps"
	"reflect"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/state"
)

// Update changes limits, where change has any, and the restart policy of a
// container, at once when it runs. It returns warnings.
func (e *Engine) Update(ctx context.Context, ref string, change container.Resources, restart *container.RestartPolicy) ([]string, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	rec := c.Record
	if restart != nil {
		if c.Config.AutoRemove && restart.Name != "" && restart.Name != "no" {
			return nil, errs.New(errs.Conflict, "Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		rec.Config.Restart = *restart
	}
	var warnings []string
	limits := !reflect.DeepEqual(change, container.Resources{})
	if limits {
		if err := mergeResources(&rec.Config.Resources, &change); err != nil {
			return nil, err
		}
		var m host.Machine
		res, w, err := spec.Limits(change, &m, e.env.Rootless)
		if err != nil {
			return nil, err
		}
		warnings = w
		if live(c.State.Status) {
			g := cgroup.Open(cgroup.Paths(c.State.Cgroup))
			err := g.Update(res)
			warnings = append(warnings, g.Warnings()...)
			paths := g.Paths()
			_ = g.Close() // its directories stay
			if err != nil {
				return warnings, err
			}
			if !maps.Equal(paths.V1, c.State.Cgroup.V1) {
				if err := e.recordCgroups(ctx, c, container.Cgroup(paths)); err != nil {
					return warnings, err
				}
			}
		}
	}
	if err := state.WriteRecord(c.Dir, &rec, !c.Config.AutoRemove); err != nil {
		return warnings, err
	}
	e.tellContainer(&rec, "update")
	return warnings, e.tellMonitor(ctx, c)
}

// recordCgroups tells the monitor of groups that its container has joined: who
// removes the container later finds them in its state, which the monitor writes,
// too, so that it is made sure that ours is the one that stays.
func (e *Engine) recordCgroups(ctx context.Context, c *Container, paths container.Cgroup) error {
	for range 5 {
		var st container.State
		if err := state.ReadState(c.Dir, &st); err != nil {
			return err
		}
		if !live(st.Status) || maps.Equal(st.Cgroup.V1, paths.V1) {
			return nil
		}
		st.Cgroup = paths
		if err := state.WriteState(c.Dir, &st, !c.Config.AutoRemove); err != nil {
			return err
		}
		if err := e.tellMonitor(ctx, c); err != nil {
			return err
		}
	}
	return errs.New(errs.Conflict, "container %s: its state changes all the time", c.ID)
}

// mergeResources lays the limits that are asked for over those that are, and
// completes change with what it must be given together.
func mergeResources(to, change *container.Resources) error {
	switch {
	case change.NanoCPUs > 0 && (to.CPUQuota != 0 || to.CPUPeriod != 0):
		return errs.New(errs.Conflict, "Conflicting options: Nano CPUs cannot be updated as CPU Quota and CPU Period have already been set")
	case to.NanoCPUs > 0 && change.NanoCPUs == 0 && (change.CPUQuota != 0 || change.CPUPeriod != 0):
		return errs.New(errs.Conflict, "Conflicting options: CPU Quota and CPU Period cannot be updated as NanoCPUs has already been set")
	case change.Memory > 0 && change.MemorySwap == 0 && to.MemorySwap > 0 && change.Memory > to.MemorySwap:
		return errs.New(errs.Invalid, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	case change.Memory == 0 && change.MemorySwap > 0 && change.MemorySwap < to.Memory,
		change.Memory > 0 && change.MemorySwap > 0 && change.MemorySwap < change.Memory:
		return errs.New(errs.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage")
	}
	if change.Memory > 0 && change.MemorySwap == 0 {
		change.MemorySwap = to.MemorySwap
	}
	if change.MemorySwap != 0 && change.Memory == 0 {
		change.Memory = to.Memory
	}
	if change.CPUQuota != 0 && change.CPUPeriod == 0 {
		change.CPUPeriod = to.CPUPeriod
	}
	if change.CPUPeriod != 0 && change.CPUQuota == 0 {
		change.CPUQuota = to.CPUQuota
	}
	if change.Unified != nil && to.Unified != nil {
		// A copy: the record that it comes from is others' too.
		all := maps.Clone(to.Unified)
		maps.Copy(all, change.Unified)
		defer func() { to.Unified = all }()
	}
	from, into := reflect.ValueOf(change).Elem(), reflect.ValueOf(to).Elem()
	for i := range from.NumField() {
		if !from.Field(i).IsZero() {
			into.Field(i).Set(from.Field(i))
		}
	}
	return nil
}
