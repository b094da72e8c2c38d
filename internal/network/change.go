package network

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/state"
)

// What changes for a container that runs: one more network, or one less; and what
// it asks for at its next start.

// load completes an Attachment that came out of a record.
func (a *Attachment) load() error {
	if a.router == nil && a.s.env.Rootless {
		var err error
		if a.router, err = a.s.router(true); err != nil {
			return err
		}
	}
	for i := len(a.networks); i < len(a.State.Endpoints); i++ {
		n, err := a.s.get(a.State.Endpoints[i].Network)
		if err != nil {
			return err
		}
		a.networks = append(a.networks, n)
	}
	return nil
}

// Plug connects a container that runs to one more network.
func (a *Attachment) Plug(pid int, e *container.Endpoint, name string) error {
	if err := a.load(); err != nil {
		return err
	}
	n, err := a.s.Get(e.Network)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(a.State.Endpoints, func(x container.NetEndpoint) bool { return x.Network == n.Name }) {
		return errs.New(errs.Denied, "endpoint with name %s already exists in network %s", name, n.Name)
	}
	last := len(a.State.Endpoints)
	err = a.join(e)
	if err == nil {
		err = a.plugOne(pid, last)
	}
	if err != nil && len(a.State.Endpoints) > last {
		a.drop(last)
	}
	return err
}

func (a *Attachment) plugOne(pid, i int) error {
	inner, ns, err := a.enter(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer inner.Close() //nolint:errcheck // nothing to lose
	outer, err := netlink.DialIn(a.router, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer outer.Close() //nolint:errcheck // nothing to lose
	if err := a.plug(outer, inner, ns, i); err != nil {
		return errs.New(errs.Unknown, "connect to network %s: %w", a.networks[i].Name, err)
	}
	if err := a.defaultRoutes(inner); err != nil {
		return err
	}
	if err := a.filter(); err != nil {
		return err
	}
	if a.helper == nil && a.needsHelper() {
		if err := a.callHelper(); err != nil {
			return err
		}
	}
	return a.register()
}

// Unplug disconnects a container that runs from a network.
func (a *Attachment) Unplug(pid int, ref string) error {
	if err := a.load(); err != nil {
		return err
	}
	i := slices.IndexFunc(a.networks, func(n *Network) bool { return n.Name == ref || n.ID == ref })
	if i < 0 {
		return errs.New(errs.Denied, "container is not connected to network %s", ref)
	}
	e := a.State.Endpoints[i]
	inner, ns, err := a.enter(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer inner.Close() //nolint:errcheck // nothing to lose
	if err := removeLink(inner, e.Interface); err != nil {
		return err
	}
	// Ports that led to an address on it lead nowhere now.
	gone := func(p container.Published) bool { return p.To == e.IP || p.To == e.IP6 }
	if old := slices.DeleteFunc(slices.Clone(a.State.Ports), func(p container.Published) bool { return !gone(p) }); len(old) > 0 {
		if !a.s.env.Rootless {
			if err := a.s.closePorts(old); err != nil {
				return err
			}
		}
		if a.held != nil {
			a.held.drop(func(p *container.Published) bool { return gone(*p) })
		}
		a.State.Ports = slices.DeleteFunc(a.State.Ports, gone)
		if err := state.WriteJSON(a.s.netFile(a.id), &a.State, false); err != nil {
			return err
		}
	}
	a.drop(i)
	if err := a.defaultRoutes(inner); err != nil {
		return err
	}
	return a.register()
}

// drop forgets an endpoint and gives its addresses back.
func (a *Attachment) drop(i int) {
	e := a.State.Endpoints[i]
	a.State.Endpoints = slices.Delete(a.State.Endpoints, i, i+1)
	a.networks = slices.Delete(a.networks, i, i+1)
	a.s.giveBack(e.Network, e.IP, a.id)
	a.s.giveBack(e.Network, e.IP6, a.id)
}

// Add puts a network into what a container asks for.
func Add(c *container.Config, e container.Endpoint) error {
	if name, _ := container.Outside(c.Network); name != "" || !Own(c.Network) && c.Network != "none" {
		return errs.New(errs.Invalid, "a container with network %q cannot be connected to another network", c.Network)
	}
	names := []string{c.Network}
	for _, m := range c.MoreNetworks {
		names = append(names, m.Network)
	}
	for _, n := range names {
		if n == e.Network || e.Network == Default && (n == "" || n == "default") {
			return errs.New(errs.Denied, "container is already connected to network %s", e.Network)
		}
	}
	if c.Network == "none" {
		setFirst(c, e)
		return nil
	}
	c.MoreNetworks = append(c.MoreNetworks, e)
	return nil
}

func setFirst(c *container.Config, e container.Endpoint) {
	c.Network, c.NetworkAlias, c.IPAddress, c.IP6Address, c.MacAddress = e.Network, e.Aliases, e.IPAddress, e.IP6Address, e.MacAddress
	c.LinkLocalIPs, c.DriverOpts, c.GwPriority, c.Links = e.LinkLocalIPs, e.DriverOpts, e.GwPriority, e.Links
}

// Drop takes a network out of what a container asks for.
func Drop(c *container.Config, name string) error {
	for i := range c.MoreNetworks {
		if c.MoreNetworks[i].Network == name {
			c.MoreNetworks = slices.Delete(c.MoreNetworks, i, i+1)
			return nil
		}
	}
	if c.Network != name && (name != Default || c.Network != "" && c.Network != "default") {
		return errs.New(errs.Denied, "container is not connected to network %s", name)
	}
	if len(c.MoreNetworks) == 0 {
		setFirst(c, container.Endpoint{Network: "none"})
		return nil
	}
	first := c.MoreNetworks[0]
	c.MoreNetworks = c.MoreNetworks[1:]
	setFirst(c, first)
	return nil
}
