package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/errs"
)

// Update changes limits of a running container. Where a limit needs a v1
// hierarchy that the container has not joined, it joins it now, so that Paths
// must be recorded anew.
func (g *Group) Update(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if g.Empty() {
		return errs.Hint(errs.New(errs.Unsupported, "cgroup: the container was started without one"),
			"start it again with the limits")
	}
	for _, n := range needs(r, true) {
		if err := g.update(n, r); err != nil {
			return err
		}
	}
	if len(r.Unified) > 0 {
		if g.paths.V2 == "" {
			return errs.New(errs.Unsupported, "cgroup files: the container has no cgroup v2 group")
		}
		if err := g.unifiedControllers(r); err != nil {
			return err
		}
		if err := unified(dir(g.paths.V2), r.Unified); err != nil {
			return err
		}
	}
	return g.updateDevices(r.Devices)
}

func (g *Group) update(n need, r *specs.LinuxResources) error {
	if d := dir(g.paths.V1[n.controller]); d != "" {
		h, err := Detect()
		if err != nil {
			return err
		}
		if err := h.checkAbove(d, n, false, r); err != nil {
			return err
		}
		return g.apply(d, n.controller, false, r)
	}
	h, err := Detect()
	if err != nil {
		return err
	}
	if h.isV1(n.controller) {
		return g.joinLate(h, n, r)
	}
	d := dir(g.paths.V2)
	if d == "" {
		return errs.New(errs.Unsupported, "%s: the container has no cgroup v2 group", n.what)
	}
	c := v2name(n.controller)
	if c == "" {
		return errs.New(errs.Unsupported, "%s: cgroup v2 has none", n.what)
	}
	if err := g.require(h, n, c, r); err != nil {
		return err
	}
	if err := h.checkAbove(d, n, true, r); err != nil {
		return err
	}
	return g.apply(d, n.controller, true, r)
}

// require makes sure that the v2 group has a controller: a container that was
// started without limits may lie below a group that does not hand out any yet.
func (g *Group) require(h *Host, n need, controller string, r *specs.LinuxResources) error {
	d := dir(g.paths.V2)
	m := maker{host: h, group: g, v2: []need{n}, request: Request{Resources: r, Rootless: hostUID() != 0}}
	available, err := d.read("cgroup.controllers")
	if err != nil {
		return fmt.Errorf("%s: %w", n.what, err)
	}
	if hasWord(available, controller) {
		return nil
	}
	if err := m.enable(d.up(), []string{controller}); err != nil {
		return errs.Hint(err, "the container was started without limits; start it again with them")
	}
	return nil
}

// unifiedControllers makes sure that the group has the controllers of raw files.
func (g *Group) unifiedControllers(r *specs.LinuxResources) error {
	h, err := Detect()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(r.Unified)) {
		if err := checkUnified(name); err != nil {
			return err
		}
		controller, _, _ := strings.Cut(name, ".")
		switch {
		case controller == "cgroup":
			continue // every group has it
		case h.isV1(controller):
			return errs.New(errs.Unsupported, "cgroup file %s: the %s controller is on cgroup v1 here", name, controller)
		}
		if err := g.require(h, need{controller, "cgroup file " + name}, controller, r); err != nil {
			return err
		}
	}
	return nil
}

// checkAbove checks limits for an existing group against what is above it.
func (h *Host) checkAbove(d dir, n need, v2 bool, r *specs.LinuxResources) error {
	controller := n.controller
	if v2 {
		controller = ""
	}
	own, err := h.ownIn(controller)
	if err != nil || !within(d, own.mount) || d == own.mount {
		return nil //nolint:nilerr // only a check; the kernel has the last word
	}
	return checkAncestors(location{d.up(), own.mount}, n.controller, v2, r)
}

// joinLate makes the group of a v1 controller for a running container and moves
// its processes there.
func (g *Group) joinLate(h *Host, n need, r *specs.LinuxResources) error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return errs.New(errs.Conflict, "%s: the container is not running", n.what)
	}
	list, err := memberships(fmt.Sprint(pids[0]))
	if err != nil {
		return err
	}
	parent, err := h.locate(list, n.controller)
	if err != nil {
		return err
	}
	if err := checkAncestors(parent, n.controller, false, r); err != nil {
		return err
	}
	m := maker{host: h, group: g, request: Request{Name: g.name(), Resources: r}}
	d := parent.dir.join(prefix + m.request.Name)
	if err := m.mkgroup(d); err != nil {
		return m.refused(n, err)
	}
	err = g.limitV1(d, parent.mount, n.controller, r)
	// Processes that are forked meanwhile follow those that were moved, or are
	// found by the next look.
	for seen := -1; err == nil && seen < len(pids); {
		seen = len(pids)
		for _, pid := range pids {
			if aerr := attach(d, pid); aerr != nil && dir("/proc").exists(fmt.Sprint(pid)) {
				err = aerr
			}
		}
		if err == nil {
			pids, err = g.Procs()
		}
	}
	if err != nil {
		if rerr := remove(d); rerr != nil {
			return fmt.Errorf("%w (and %w)", err, rerr)
		}
		return err
	}
	if g.paths.V1 == nil {
		g.paths.V1 = map[string]string{}
	}
	g.paths.V1[n.controller] = string(d)
	return nil
}

// name returns the container's name, which all its directories carry.
func (g *Group) name() string {
	for _, d := range g.all() {
		return d.base()[min(len(prefix), len(d.base())):]
	}
	return ""
}
