package cgroup

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/errs"
)

// checkAncestors refuses limits that a group below parent could never use up,
// because an ancestor has less. The kernel accepts most of them silently.
func checkAncestors(parent location, controller string, v2 bool, r *specs.LinuxResources) error {
	switch controller {
	case "memory":
		if r.Memory == nil || r.Memory.Limit == nil || *r.Memory.Limit <= 0 {
			return nil
		}
		file := "memory.limit_in_bytes"
		if v2 {
			file = "memory.max"
		}
		limit, owner := lowest(parent, func(d dir) (float64, bool) { return whole(d, file) })
		if owner != "" && float64(*r.Memory.Limit) > limit {
			return above("memory limit", size(*r.Memory.Limit), size(int64(limit)), owner)
		}
	case "pids":
		if r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit <= 0 {
			return nil
		}
		limit, owner := lowest(parent, func(d dir) (float64, bool) { return whole(d, "pids.max") })
		if owner != "" && float64(*r.Pids.Limit) > limit {
			return above("pids limit", strconv.FormatInt(*r.Pids.Limit, 10), strconv.FormatInt(int64(limit), 10), owner)
		}
	case "cpu":
		if r.CPU == nil || r.CPU.Quota == nil || *r.CPU.Quota <= 0 {
			return nil
		}
		read := ratioV1
		if v2 {
			read = ratioV2
		}
		want := cpuRatio(*r.CPU.Quota, r.CPU.Period)
		limit, owner := lowest(parent, read)
		// A quota is in whole microseconds of its period, hence the tolerance.
		if owner != "" && want > limit+0.0005 {
			return above("cpu limit", cpus(want), cpus(limit), owner)
		}
	case "cpuset":
		if r.CPU == nil {
			return nil
		}
		for _, f := range [...]struct{ what, value, v1, v2 string }{
			{"cpuset cpus", r.CPU.Cpus, "cpuset.effective_cpus", "cpuset.cpus.effective"},
			{"cpuset mems", r.CPU.Mems, "cpuset.effective_mems", "cpuset.mems.effective"},
		} {
			if f.value == "" {
				continue
			}
			want, ok := parseSet(f.value)
			if !ok {
				return errs.New(errs.Invalid, "%s %s: want a list of numbers and ranges, as 0-2,4", f.what, f.value)
			}
			file := f.v1
			if v2 {
				file = f.v2
			}
			have, owner := "", parent.dir
			// A parent that does not have the controller on has no file; its own
			// parent's then counts.
			parent.ancestors(func(d dir) bool {
				text, err := d.read(file)
				have, owner = text, d
				return err != nil || text == ""
			})
			if set, ok := parseSet(have); ok && have != "" && !subset(want, set) {
				return errs.New(errs.Invalid, "%s %s: not available, cgroup %s has %s", f.what, f.value, owner, have)
			}
		}
	}
	return nil
}

func above(what, asked, limit string, owner dir) error {
	return errs.New(errs.Invalid, "%s %s: is above the %s of cgroup %s", what, asked, limit, owner)
}

// lowest returns the smallest limit among parent and its ancestors, and whose it
// is; "" if there is none.
func lowest(parent location, read func(dir) (float64, bool)) (limit float64, owner dir) {
	parent.ancestors(func(d dir) bool {
		if n, ok := read(d); ok && (owner == "" || n < limit) {
			limit, owner = n, d
		}
		return true
	})
	return limit, owner
}

func whole(d dir, file string) (float64, bool) {
	n, err := d.readInt(file)
	return float64(n), err == nil && n != unlimited
}

func ratioV1(d dir) (float64, bool) {
	quota, err := d.readInt("cpu.cfs_quota_us")
	if err != nil || quota < 0 {
		return 0, false
	}
	period, err := d.readInt("cpu.cfs_period_us")
	return float64(quota) / float64(max(period, 1)), err == nil
}

func ratioV2(d dir) (float64, bool) {
	text, err := d.read("cpu.max")
	if err != nil {
		return 0, false
	}
	q, p, _ := strings.Cut(text, " ")
	quota, err1 := strconv.ParseFloat(q, 64)
	period, err2 := strconv.ParseFloat(p, 64)
	return quota / max(period, 1), err1 == nil && err2 == nil
}

// parseSet reads a list as "0-2,4" (cpuset(7)).
func parseSet(text string) (map[int]bool, bool) {
	set := map[int]bool{}
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(lo, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(hi, 10, 16)
		}
		if err != nil || b < a {
			return nil, false
		}
		for ; a <= b; a++ {
			set[int(a)] = true
		}
	}
	return set, true
}

func subset(a, b map[int]bool) bool {
	for n := range a {
		if !b[n] {
			return false
		}
	}
	return true
}
