package network

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
)

// ensureDevice makes sure that the network's bridge is there and that what the
// host must allow for it is allowed; it returns the device's number and what it
// had to change. rt is a socket in the namespace of the bridges, ns.
func (s *Store) ensureDevice(rt *netlink.Conn, ns *os.File, n *Network) (index int, warnings []string, err error) {
	if index, err = rt.Index(n.Device); err != nil {
		return 0, nil, err
	}
	if !n.routed() {
		if index == 0 {
			return 0, nil, errs.New(errs.NotFound, "network %s: its parent device %s does not exist", n.Name, n.Device)
		}
		return index, nil, nil
	}
	if index == 0 {
		if index, err = s.makeBridge(rt, ns, n); err != nil {
			return 0, nil, errs.New(errs.Unknown, "network %s: %w", n.Name, err)
		}
	} else if !s.env.Rootless {
		// The bridge may be that of another store (ISLE_ROOT), which has other
		// subnets, or somebody may have taken its addresses away.
		for i := range n.Subnets {
			b := netlink.NewBatch()
			b.AddAddr(index, n.Subnets[i].Gateway.Bytes(), n.Subnets[i].Subnet.Bits())
			if err := rt.Try(b, unix.EEXIST); err != nil {
				return 0, nil, errs.New(errs.Unknown, "network %s: %w", n.Name, err)
			}
		}
	}
	if s.env.Rootless {
		return index, nil, nil // the namespace was made for it
	}
	warnings, err = s.allowForwarding(n)
	return index, warnings, err
}

// makeBridge makes a network's bridge with its addresses.
func (s *Store) makeBridge(rt *netlink.Conn, ns *os.File, n *Network) (int, error) {
	l, err := s.lock()
	if err != nil {
		return 0, err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	if index, err := rt.Index(n.Device); index != 0 || err != nil {
		return index, err // somebody else was faster
	}
	mac := [6]byte{0x02, 0x42, hexByte(n.ID), hexByte(n.ID[2:]), hexByte(n.ID[4:]), hexByte(n.ID[6:])}
	b := netlink.NewBatch()
	b.AddBridge(n.Device, mac, n.MTU)
	if !s.env.Rootless {
		b.Alias(n.Device, aliasHead+s.env.Data)
		s.sweep(rt)
	}
	if err := rt.Do(b); err != nil {
		return 0, err
	}
	index, err := rt.Index(n.Device)
	if err != nil {
		return 0, err
	}
	b = netlink.NewBatch()
	for i := range n.Subnets {
		b.AddAddr(index, n.Subnets[i].Gateway.Bytes(), n.Subnets[i].Subnet.Bits())
	}
	err = rt.Do(b)
	if err == nil && n.subnet(false) != nil && !s.env.Rootless {
		// So that the host can use what is published on its 127.0.0.1; the rule
		// of the chain guard keeps the containers from using it.
		err = netlink.In(ns, func() error { return enableSysctl("net/ipv4/conf/" + n.Device + "/route_localnet") })
	}
	if err != nil {
		d := netlink.NewBatch()
		d.DelLink(n.Device)
		return 0, errors.Join(err, rt.Do(d))
	}
	return index, nil
}

// aliasHead and the store's directory are the remark on a bridge.
const aliasHead = "isle networks of "

// sweep removes what stores that are gone (a directory of somebody's trial, a
// test's) have left: their bridges and tables. It does what can be done.
func (s *Store) sweep(rt *netlink.Conn) {
	gone := map[string]string{}
	if rt.Aliases(func(name, remark string) {
		if data, ok := strings.CutPrefix(remark, aliasHead); ok && data != s.env.Data {
			gone[name] = data
		}
	}) != nil {
		return
	}
	for name, data := range gone {
		var st unix.Stat_t
		if unix.Lstat(data, &st) != unix.ENOENT {
			continue
		}
		_ = removeLink(rt, name) // somebody else was faster
		nf, err := netlink.Dial(unix.NETLINK_NETFILTER)
		if err != nil {
			return
		}
		t := netlink.Table{Family: unix.NFPROTO_INET}
		t.Name, _ = storeNames(data, false)
		b := netlink.NewBatch()
		b.BeginTransaction()
		t.Delete(b)
		b.EndTransaction()
		_ = nf.DoTransaction(b) // it may be gone already
		_ = nf.Close()          // nothing to lose
	}
}

// dropDevice removes a network's bridge and what the packet filter has of it. The
// caller holds the lock.
func (s *Store) dropDevice(n *Network) error {
	if !n.routed() {
		return nil
	}
	ns, err := s.router(false)
	if err != nil || s.env.Rootless && ns == nil {
		return err
	}
	if ns != nil {
		defer ns.Close()
	}
	rt, err := netlink.DialIn(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer rt.Close() //nolint:errcheck // nothing to lose
	b := netlink.NewBatch()
	b.DelLink(n.Device)
	if err := rt.Try(b, unix.ENODEV); err != nil {
		return err
	}
	name := netlink.Ifname(n.Device)
	for _, set := range [...]string{setBridges, setInternal, setMasq, setSame} {
		nf, err := netlink.DialIn(ns, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		key := name
		if set == setSame {
			key = append(netlink.Ifname(n.Device), name...)
		}
		b := netlink.NewBatch()
		b.BeginTransaction()
		s.table.DelElems(b, set, netlink.Elem{Key: key})
		b.EndTransaction()
		err = nf.DoTransaction(b)
		_ = nf.Close() // nothing to lose
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// allowForwarding turns forwarding on, and says so when it was off on the host.
func (s *Store) allowForwarding(n *Network) (warnings []string, err error) {
	if n.Internal {
		return nil, nil
	}
	for _, f := range [...]struct {
		six  bool
		name string
	}{{false, "net/ipv4/ip_forward"}, {true, "net/ipv6/conf/all/forwarding"}} {
		if n.subnet(f.six) == nil || sysctlIs(f.name, '1') {
			continue
		}
		if err := enableSysctl(f.name); err != nil {
			return nil, errs.Hint(err, "containers reach other machines only where the host forwards; as root: sysctl "+strings.ReplaceAll(f.name, "/", ".")+"=1")
		}
		if !s.env.Rootless {
			warnings = append(warnings, "network "+n.Name+": turned "+strings.ReplaceAll(f.name, "/", ".")+" on: this host forwards packets from now on")
		}
	}
	return warnings, nil
}

// sysctlIs reports whether a sysctl begins with c.
func sysctlIs(name string, c byte) bool {
	fd, err := unix.Open("/proc/sys/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	var b [8]byte
	n, _ := unix.Read(fd, b[:]) // nothing read is not c
	_ = unix.Close(fd)
	return n > 0 && b[0] == c
}

// enableSysctl sets a sysctl to 1.
func enableSysctl(name string) error {
	path := "/proc/sys/" + name
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	_, err = unix.Write(fd, []byte{'1'})
	_ = unix.Close(fd) // the write has told
	if err != nil {
		return &os.PathError{Op: "write 1", Path: path, Err: err}
	}
	return nil
}

// removeLink removes a device by name, if it is there.
func removeLink(rt *netlink.Conn, name string) error {
	b := netlink.NewBatch()
	b.DelLink(name)
	return rt.Try(b, unix.ENODEV)
}
