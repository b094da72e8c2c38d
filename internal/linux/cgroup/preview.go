package cgroup

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Write is one file that Create writes, and what.
type Write struct{ File, Value string }

// Preview tells what Create would make and write for r, without doing any of it:
// the directories by hierarchy, and the writes in order. Limits that need a look
// at the new group (realtime, weights of block devices) are left out, and so is
// what systemd has to say about the place: the caller's own group stands for it.
func (h *Host) Preview(r Request) (Paths, []Write) {
	p := Paths{Manager: Cgroupfs}
	var writes []Write
	place := func(controller string) dir {
		own, err := h.ownIn(controller)
		if err != nil {
			return ""
		}
		d := own.dir
		if d.base() == callers {
			d = d.up()
		}
		if strings.HasPrefix(r.Parent, "/") {
			d = own.mount
		}
		if parent := strings.Trim(r.Parent, "/"); parent != "" {
			d = d.join(parent)
		}
		return d.join(prefix + r.Name)
	}
	if d := place(""); h.v2mount != "" && d != "" {
		p.V2 = string(d)
		limited := slices.ContainsFunc(needs(r.Resources, false), func(n need) bool { return !h.isV1(n.controller) })
		if own, err := h.ownIn(""); err == nil && limited && booted() && !r.Rootless && r.Parent == "" && own.dir != own.mount && own.dir.base() != callers {
			// systemd gives root a scope for all containers (sharedScope).
			p.V2 = string(own.mount.join(sharedSlice).join(sharedUnit).join(prefix + r.Name))
		}
		if own, err := h.ownIn(""); err == nil && !limited && r.Parent == "" && (unix.Access(string(d.up()), unix.W_OK) != nil || mayJoin(own.dir, d.up()) != nil) {
			p.V2 = "" // without limits it is not worth a failure
		}
	}
	for _, n := range needs(r.Resources, false) {
		d, v2 := dir(p.V2), !h.isV1(n.controller)
		if !v2 {
			d = place(n.controller)
			if p.V1 == nil {
				p.V1 = map[string]string{}
			}
			p.V1[n.controller] = string(d)
		}
		if d == "" {
			continue
		}
		for _, w := range values(n.controller, v2, r.Resources) {
			writes = append(writes, Write{d.file(w.File), w.Value})
		}
	}
	if p.V2 == "" && !r.Rootless && r.Resources != nil && len(r.Resources.Devices) > 0 && h.isV1("devices") {
		if d := place("devices"); d != "" {
			if p.V1 == nil {
				p.V1 = map[string]string{}
			}
			p.V1["devices"] = string(d)
		}
	}
	if r.Resources != nil {
		names := make([]string, 0, len(r.Resources.Unified))
		for name := range r.Resources.Unified {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			writes = append(writes, Write{dir(p.V2).file(name), r.Resources.Unified[name]})
		}
	}
	return p, writes
}

// values are the files of one controller and what r writes into them.
func values(controller string, v2 bool, r *specs.LinuxResources) (out []Write) {
	num := func(n int64) string { return strconv.FormatInt(n, 10) }
	add := func(file, value string) { out = append(out, Write{file, value}) }
	switch controller {
	case "memory":
		m := r.Memory
		limit, swap := int64(0), int64(0)
		if m.Limit != nil {
			limit = *m.Limit
		}
		if m.Swap != nil {
			swap = *m.Swap
		}
		switch {
		case v2:
			if s, err := swapV2("", limit, swap); err == nil && s != "" {
				add("memory.swap.max", s)
			}
			if limit != 0 {
				add("memory.max", v2value(limit))
			}
			if m.Reservation != nil && *m.Reservation != 0 {
				add("memory.low", v2value(*m.Reservation))
			}
		default:
			if limit != 0 {
				add("memory.limit_in_bytes", num(limit))
			}
			if swap != 0 {
				add("memory.memsw.limit_in_bytes", num(swap))
			}
			if m.Reservation != nil && *m.Reservation != 0 {
				add("memory.soft_limit_in_bytes", num(*m.Reservation))
			}
		}
	case "cpu":
		c := r.CPU
		period := "100000"
		if c.Period != nil && *c.Period != 0 {
			period = strconv.FormatUint(*c.Period, 10)
		}
		shares := c.Shares != nil && *c.Shares != 0
		quota := c.Quota != nil && *c.Quota != 0
		switch {
		case v2:
			if shares {
				add("cpu.weight", strconv.FormatUint(weight(*c.Shares), 10))
			}
			if quota {
				add("cpu.max", v2value(*c.Quota)+" "+period)
			}
		default:
			if shares {
				add("cpu.shares", strconv.FormatUint(*c.Shares, 10))
			}
			if quota {
				add("cpu.cfs_period_us", period)
				add("cpu.cfs_quota_us", num(*c.Quota))
			}
		}
	case "cpuset":
		if r.CPU.Cpus != "" {
			add("cpuset.cpus", r.CPU.Cpus)
		}
		if r.CPU.Mems != "" {
			add("cpuset.mems", r.CPU.Mems)
		}
	case "pids":
		add("pids.max", v2value(*r.Pids.Limit))
	}
	return out
}
