package network

import (
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network/ip"
)

// The interfaces in a container's namespace.

// enter opens the container's namespace and a socket in it.
func (a *Attachment) enter(pid int) (*netlink.Conn, *os.File, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/ns/net"
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	ns := os.NewFile(uintptr(fd), name)
	six := slices.ContainsFunc(a.State.Endpoints, func(e container.NetEndpoint) bool { return e.IP6 != "" })
	var c *netlink.Conn
	err = netlink.In(ns, func() (err error) {
		if !six {
			// No address of IPv6's own making either, and none of its traffic.
			// Best effort: a kernel without IPv6 has no such file.
			_ = enableSysctl("net/ipv6/conf/default/disable_ipv6")
		}
		c, err = netlink.Dial(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		_ = ns.Close() // a namespace's handle
		return nil, nil, err
	}
	return c, ns, nil
}

// plug makes the interface of one network.
func (a *Attachment) plug(outer, inner *netlink.Conn, ns *os.File, i int) error {
	n, e := a.networks[i], &a.State.Endpoints[i]
	master, warnings, err := a.s.ensureDevice(outer, a.router, n)
	if err != nil {
		return err
	}
	a.Warnings = append(a.Warnings, warnings...)
	peer := &netlink.Peer{Name: e.Interface, MAC: parseMAC(e.MAC), PidNS: ns, MTU: n.MTU}
	b := netlink.NewBatch()
	if n.routed() {
		b.AddVeth(e.HostDevice, [6]byte{}, n.MTU, master, peer)
	} else {
		mode, err := vlanMode(n)
		if err != nil {
			return err
		}
		if n.Driver == DriverIPvlan {
			peer.MAC, e.MAC = [6]byte{}, "" // it is the parent's
		}
		b.AddVlan(n.Driver, master, mode, peer)
	}
	err = outer.Do(b)
	if errors.Is(err, unix.EEXIST) && n.routed() {
		// The last run's, whose namespace the kernel has not cleaned up yet.
		if err = removeLink(outer, e.HostDevice); err == nil {
			err = outer.Do(b)
		}
	}
	if err != nil {
		return err
	}
	index, err := inner.Index(e.Interface)
	if err != nil {
		return err
	}
	b = netlink.NewBatch()
	b.SetUp(index)
	if e.IP != "" {
		b.AddAddr(index, ip.MustParse(e.IP).Bytes(), e.Bits)
	}
	if e.IP6 != "" {
		b.AddAddr(index, ip.MustParse(e.IP6).Bytes(), e.Bits6)
	}
	if err := inner.Do(b); err != nil {
		return err
	}
	if len(a.State.Ports) > 0 && n.routed() && !a.s.env.Rootless {
		// A container that uses its own published port, where br_netfilter
		// rewrites the packet while it is still on the bridge.
		if port, err := outer.Index(e.HostDevice); err == nil && port > 0 {
			h := netlink.NewBatch()
			h.Hairpin(port)
			return outer.Do(h)
		}
	}
	return nil
}

// vlanMode is the mode of a macvlan (bridge, private, vepa, passthru) or ipvlan
// (l2, l3, l3s) network; see if_link.h.
func vlanMode(n *Network) (uint32, error) {
	mode := n.Options["macvlan_mode"] + n.Options["ipvlan_mode"] + n.Options["mode"]
	switch n.Driver + " " + mode {
	case "macvlan ", "macvlan bridge":
		return 4, nil
	case "macvlan private":
		return 1, nil
	case "macvlan vepa":
		return 2, nil
	case "macvlan passthru":
		return 8, nil
	case "ipvlan ", "ipvlan l2":
		return 0, nil
	case "ipvlan l3":
		return 1, nil
	case "ipvlan l3s":
		return 2, nil
	}
	return 0, errs.New(errs.Invalid, "network %s: unknown %s mode %q", n.Name, n.Driver, mode)
}

// defaultRoutes sets the route of each IP version by the gateway with the
// highest priority, the first one among equals.
func (a *Attachment) defaultRoutes(inner *netlink.Conn) error {
	b := netlink.NewBatch()
	for _, six := range [...]bool{false, true} {
		best, gw := -1, ""
		for i, e := range a.State.Endpoints {
			g := e.Gateway
			if six {
				g = e.Gateway6
			}
			if g != "" && (best < 0 || e.Priority > a.State.Endpoints[best].Priority) {
				best, gw = i, g
			}
		}
		if best < 0 {
			continue
		}
		index, err := inner.Index(a.State.Endpoints[best].Interface)
		if err != nil {
			return err
		}
		b.AddRoute(index, nil, 0, ip.MustParse(gw).Bytes())
	}
	return inner.Do(b)
}
