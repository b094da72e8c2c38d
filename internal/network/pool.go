package network

import (
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network/ip"
)

// fillSubnets checks the subnets that were asked for, chooses those that were
// not, and gives each a gateway.
func (s *Store) fillSubnets(n *Network, all []*Network, noIPv4 bool) error {
	for i := range n.Subnets {
		p := &n.Subnets[i]
		if !p.Subnet.IsValid() {
			return errs.New(errs.Invalid, "every ip-range or gateway must have a corresponding subnet")
		}
		p.Subnet = p.Subnet.Masked()
		if p.Subnet.Addr().Is6() {
			n.IPv6 = true
		} else if noIPv4 {
			return errs.New(errs.Invalid, "subnet %s: IPv4 is turned off for this network", p.Subnet)
		}
		if p.Subnet.Size() < 4 {
			return errs.New(errs.Invalid, "subnet %s: too small", p.Subnet)
		}
		if p.Range.IsValid() && (!p.Subnet.Contains(p.Range.First()) || !p.Subnet.Contains(p.Range.Last())) {
			return errs.New(errs.Invalid, "no matching subnet for range %s", p.Range)
		}
		if p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) {
			return errs.New(errs.Invalid, "no matching subnet for gateway %s", p.Gateway)
		}
		for _, o := range all {
			for _, q := range o.Subnets {
				if n.Driver == DriverBridge && o.Driver == DriverBridge && q.Subnet.Overlaps(p.Subnet) {
					return errs.New(errs.Denied, "invalid pool request: Pool overlaps with other one on this address space: %s of network %s", q.Subnet, o.Name)
				}
			}
		}
		for k := range i {
			if n.Subnets[k].Subnet.Overlaps(p.Subnet) {
				return errs.New(errs.Invalid, "multiple overlapping subnet configuration is not supported")
			}
		}
	}
	if n.subnet(false) == nil && !noIPv4 {
		p, err := s.freeSubnet(all)
		if err != nil {
			return err
		}
		n.Subnets = append([]Subnet{{Subnet: p}}, n.Subnets...)
	}
	if n.IPv6 && n.subnet(true) == nil {
		// A unique local prefix (RFC 4193) of random bits: the network's id is random.
		var b [16]byte
		b[0] = 0xfd
		for i := range 7 {
			b[1+i] = hexByte(n.ID[2*i:])
		}
		n.Subnets = append(n.Subnets, Subnet{Subnet: ip.PrefixFrom(ip.From(b[:]), 64)})
	}
	if len(n.Subnets) == 0 {
		return errs.New(errs.Invalid, "network %s: has neither IPv4 nor IPv6", n.Name)
	}
	for i := range n.Subnets {
		p := &n.Subnets[i]
		if !p.Gateway.IsValid() {
			p.Gateway = p.Subnet.First().Next()
		}
	}
	return nil
}

func hexByte(s string) byte {
	v := byte(0)
	for i := range 2 {
		c := s[i]
		if c >= 'a' {
			c -= 'a' - 10
		} else {
			c -= '0'
		}
		v = v<<4 | c
	}
	return v
}

// freeSubnet chooses an IPv4 subnet that no other network has and no route of
// the host leads to: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and on,
// as Docker does.
func (s *Store) freeSubnet(all []*Network) (ip.Prefix, error) {
	var taken []ip.Prefix
	for _, n := range all {
		for _, p := range n.Subnets {
			taken = append(taken, p.Subnet)
		}
	}
	// Rootless too: what the host reaches there the containers shall reach.
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return ip.Prefix{}, err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	if err := c.Routes(func(dst []byte, bits, _ int) {
		if bits > 0 {
			taken = append(taken, ip.PrefixFrom(ip.From(dst), bits))
		}
	}); err != nil {
		return ip.Prefix{}, err
	}
	free := func(p ip.Prefix) bool {
		for _, t := range taken {
			if t.Overlaps(p) {
				return false
			}
		}
		return true
	}
	for i := range 15 {
		if p := ip.PrefixFrom(ip.From([]byte{172, byte(17 + i), 0, 0}), 16); free(p) {
			return p, nil
		}
	}
	for i := range 16 {
		if p := ip.PrefixFrom(ip.From([]byte{192, 168, byte(16 * i), 0}), 20); free(p) {
			return p, nil
		}
	}
	// Many small ones, for who makes hundreds.
	for i := range 1 << 16 {
		if p := ip.PrefixFrom(ip.From([]byte{10, byte(200 + i>>8&31), byte(i), 0}), 24); i>>8 < 32 && free(p) {
			return p, nil
		}
	}
	return ip.Prefix{}, errs.Hint(errs.New(errs.Unavailable, "all predefined address pools have been fully subnetted"), "choose one with --subnet")
}
