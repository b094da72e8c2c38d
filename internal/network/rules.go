package network

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network/ip"
	"github.com/isle-engine/isle/internal/state"
)

// Names of its sets.
const (
	setBridges  = "bridges"
	setInternal = "internal"
	setMasq     = "masq"
	setSame     = "same"
	setAny4     = "any4"
	setAny6     = "any6"
	setAddr4    = "addr4"
	setAddr6    = "addr6"
	setSelf4    = "self4"
	setSelf6    = "self6"
	setUplink   = "uplink"
)

// Connection states and status (linux/netfilter/nf_conntrack_common.h).
const (
	ctInvalid            = 1 << 0
	ctEstablishedRelated = 1<<1 | 1<<2
	ctStatusDNAT         = 1 << 5
)

// ruleCount is the number of rules that writeRules makes.
const ruleCount = 22

// writeRules fills a fresh table: sets, chains and rules, without elements.
//
//	guard        what is published on the host's loopback is for the host alone
//	forward      who may talk to whom
//	prerouting   published ports, seen from outside
//	output       published ports, seen from the host itself
//	postrouting  addresses that the answer must come back to
func (s *Store) writeRules(b *netlink.Batch) {
	t := s.table
	const name = netlink.TypeIfname
	port := netlink.Concat(netlink.TypeProto, netlink.TypePort)
	for i, set := range [...]netlink.Set{
		{Name: setBridges, KeyType: name, KeyLen: 16},
		{Name: setInternal, KeyType: name, KeyLen: 16},
		{Name: setMasq, KeyType: name, KeyLen: 16},
		{Name: setUplink, KeyType: name, KeyLen: 16},
		{Name: setSame, KeyType: netlink.Concat(name, name), KeyLen: 32},
		{Name: setAny4, KeyType: port, KeyLen: 8, DataType: netlink.Concat(netlink.TypeIPv4, netlink.TypePort), DataLen: 8},
		{Name: setAny6, KeyType: port, KeyLen: 8, DataType: netlink.Concat(netlink.TypeIPv6, netlink.TypePort), DataLen: 20},
		{Name: setAddr4, KeyType: netlink.Concat(netlink.TypeIPv4, netlink.TypeProto, netlink.TypePort), KeyLen: 12, DataType: netlink.Concat(netlink.TypeIPv4, netlink.TypePort), DataLen: 8},
		{Name: setAddr6, KeyType: netlink.Concat(netlink.TypeIPv6, netlink.TypeProto, netlink.TypePort), KeyLen: 24, DataType: netlink.Concat(netlink.TypeIPv6, netlink.TypePort), DataLen: 20},
		{Name: setSelf4, KeyType: netlink.Concat(netlink.TypeIPv4, netlink.TypeIPv4), KeyLen: 8},
		{Name: setSelf6, KeyType: netlink.Concat(netlink.TypeIPv6, netlink.TypeIPv6), KeyLen: 32},
	} {
		t.AddSet(b, &set, uint32(i+1))
	}
	t.Chain(b, "guard", "filter", unix.NF_INET_PRE_ROUTING, -300)
	t.Chain(b, "forward", "filter", unix.NF_INET_FORWARD, 0)
	t.Chain(b, "prerouting", "nat", unix.NF_INET_PRE_ROUTING, -100)
	t.Chain(b, "output", "nat", unix.NF_INET_LOCAL_OUT, -100)
	t.Chain(b, "postrouting", "nat", unix.NF_INET_POST_ROUTING, 100)

	r := netlink.R
	in := netlink.Meta(unix.NFT_META_IIFNAME, r(0))
	out := netlink.Meta(unix.NFT_META_OIFNAME, r(4))
	v4 := []netlink.Expr{netlink.Meta(unix.NFT_META_NFPROTO, r(0)), netlink.Equal(r(0), []byte{unix.NFPROTO_IPV4})}
	v6 := []netlink.Expr{netlink.Meta(unix.NFT_META_NFPROTO, r(0)), netlink.Equal(r(0), []byte{unix.NFPROTO_IPV6})}
	rule := func(chain string, parts ...[]netlink.Expr) {
		var all []netlink.Expr
		for _, p := range parts {
			all = append(all, p...)
		}
		t.Rule(b, chain, all...)
	}
	x := func(e ...netlink.Expr) []netlink.Expr { return e }
	accept, drop := x(netlink.Verdict(netlink.Accept)), x(netlink.Verdict(netlink.Drop))
	status := func(key, mask uint32) []netlink.Expr {
		m := netlink.Host32(mask)
		return x(netlink.CT(key, r(8)), netlink.Mask(r(8), m), netlink.NotEqual(r(8), netlink.Host32(0)))
	}

	// route_localnet lets the host itself use ports published on 127.0.0.1; it
	// must not let containers reach the host's loopback (CVE-2020-8558).
	rule("guard", v4, x(in, netlink.InSet(setBridges, r(0)), netlink.Network(16, 4, r(4)), netlink.Mask(r(4), []byte{255, 0, 0, 0}), netlink.Equal(r(4), []byte{127, 0, 0, 0})), drop)

	// A bridge's own traffic comes here where br_netfilter is on.
	rule("forward", x(in, out, netlink.InSet(setSame, r(0))), accept)
	rule("forward", x(in, netlink.InSet(setInternal, r(0))), drop)
	rule("forward", x(out, netlink.InSet(setInternal, r(4))), drop)
	// What belongs to no connection would go out as it is, with the container's address.
	rule("forward", x(in, netlink.InSet(setBridges, r(0))), status(unix.NFT_CT_STATE, ctInvalid), drop)
	rule("forward", status(unix.NFT_CT_STATE, ctEstablishedRelated), accept)
	rule("forward", x(out, netlink.InSet(setBridges, r(4))), status(unix.NFT_CT_STATUS, ctStatusDNAT), accept)
	// What the helper of an ordinary user forwards has been published.
	rule("forward", x(in, netlink.InSet(setUplink, r(0))), accept)
	// From another network, or routed here by a neighbour of the host.
	rule("forward", x(out, netlink.InSet(setBridges, r(4))), drop)

	local := x(netlink.DestinationType(r(0)), netlink.Equal(r(0), netlink.Host32(unix.RTN_LOCAL)))
	key := func(at int) []netlink.Expr {
		return x(netlink.Meta(unix.NFT_META_L4PROTO, r(at)), netlink.Transport(2, 2, r(at+1)))
	}
	for _, chain := range [...]string{"prerouting", "output"} {
		rule(chain, v4, x(netlink.Network(16, 4, r(0))), key(1), x(netlink.Map(setAddr4, r(0), r(8)), netlink.DNAT(unix.NFPROTO_IPV4, r(8), r(9))))
		rule(chain, v6, x(netlink.Network(24, 16, r(0))), key(4), x(netlink.Map(setAddr6, r(0), r(8)), netlink.DNAT(unix.NFPROTO_IPV6, r(8), r(12))))
		rule(chain, v4, local, key(0), x(netlink.Map(setAny4, r(0), r(8)), netlink.DNAT(unix.NFPROTO_IPV4, r(8), r(9))))
	}
	rule("prerouting", v6, local, key(0), x(netlink.Map(setAny6, r(0), r(8)), netlink.DNAT(unix.NFPROTO_IPV6, r(8), r(12))))
	// IPv6 has no route_localnet: what begins at ::1 cannot leave, and is left to
	// the helper (see relayed).
	rule("output", v6, x(netlink.Network(24, 16, r(0)), netlink.NotEqual(r(0), ip.MustParse("::1").Bytes())), local, key(0), x(netlink.Map(setAny6, r(0), r(8)), netlink.DNAT(unix.NFPROTO_IPV6, r(8), r(12))))

	// The host's own loopback address means nothing inside.
	rule("postrouting", v4, x(netlink.Network(12, 4, r(0)), netlink.Mask(r(0), []byte{255, 0, 0, 0}), netlink.Equal(r(0), []byte{127, 0, 0, 0}), out, netlink.InSet(setBridges, r(4)), netlink.Masquerade()))
	// A container that uses its own published port, where br_netfilter sends the
	// packet back before it has been routed, and does not say where it came from.
	rule("postrouting", v4, x(netlink.Network(12, 8, r(0)), netlink.InSet(setSelf4, r(0)), netlink.Masquerade()))
	rule("postrouting", v6, x(netlink.Network(8, 32, r(0)), netlink.InSet(setSelf6, r(0)), netlink.Masquerade()))
	// One that uses a port published by a neighbour: the answer shall come this way too.
	rule("postrouting", x(in, out, netlink.InSet(setSame, r(0))), status(unix.NFT_CT_STATUS, ctStatusDNAT), x(netlink.Masquerade()))
}

// Meta(IIFNAME) fills r(0) to r(3), so masq compares all four.
func (s *Store) writeMasq(b *netlink.Batch) {
	r := netlink.R
	s.table.Rule(b, "postrouting", netlink.Meta(unix.NFT_META_IIFNAME, r(0)), netlink.InSet(setMasq, r(0)),
		netlink.Meta(unix.NFT_META_OIFNAME, r(4)), netlink.NotInSet(setBridges, r(4)), netlink.Masquerade())
}

// networkElems adds a network's device to the sets.
func (s *Store) networkElems(b *netlink.Batch, n *Network) {
	name := netlink.Ifname(n.Device)
	s.table.AddElems(b, setBridges, netlink.Elem{Key: name})
	s.table.AddElems(b, setSame, netlink.Elem{Key: append(netlink.Ifname(n.Device), name...)})
	if n.Internal {
		s.table.AddElems(b, setInternal, netlink.Elem{Key: name})
	}
	if n.masked() && !s.env.Rootless { // the helper's sockets do it
		s.table.AddElems(b, setMasq, netlink.Elem{Key: name})
	}
}

// portElem is the element of a published port, and its set.
func portElem(p *container.Published) (set string, e netlink.Elem, ok bool) {
	at, ok1 := ip.Parse(p.HostIP)
	to, ok2 := ip.Parse(p.To)
	if !ok1 || !ok2 || at.Is6() != to.Is6() || at == ip.MustParse("::1") {
		return "", e, false // see relayed
	}
	proto := byte(unix.IPPROTO_TCP)
	switch p.Proto {
	case "udp":
		proto = unix.IPPROTO_UDP
	case "sctp":
		proto = unix.IPPROTO_SCTP
	}
	if at.IsUnspecified() {
		set = setAny4
		if at.Is6() {
			set = setAny6
		}
	} else {
		set = setAddr4
		if at.Is6() {
			set = setAddr6
		}
		e.Key = at.Bytes()
	}
	// Each field begins at a multiple of four bytes.
	e.Key = append(e.Key, proto, 0, 0, 0)
	e.Key = append(binary.BigEndian.AppendUint16(e.Key, p.HostPort), 0, 0)
	e.Data = append(binary.BigEndian.AppendUint16(to.Bytes(), p.Port), 0, 0)
	return set, e, true
}

// addPort adds to the sets what a published port needs.
func (s *Store) addPort(b *netlink.Batch, p *container.Published) {
	if set, e, ok := portElem(p); ok {
		s.table.AddElems(b, set, e)
		s.selfElem(b, p)
	}
}

// delPort removes it, except the element of selfElem: other ports of the
// container share it, and it does no harm to the address's next owner.
func (s *Store) delPort(b *netlink.Batch, p *container.Published) {
	if set, e, ok := portElem(p); ok {
		s.table.DelElems(b, set, e)
	}
}

// selfElem lets the host's answer to a container that uses its own port come back.
func (s *Store) selfElem(b *netlink.Batch, p *container.Published) {
	to, ok := ip.Parse(p.To)
	if !ok {
		return
	}
	set := setSelf4
	if to.Is6() {
		set = setSelf6
	}
	s.table.AddElems(b, set, netlink.Elem{Key: append(to.Bytes(), to.Bytes()...)})
}

// ensureRules makes sure that the table is there, whole, and knows the network.
// It says whether it had to be made.
func (s *Store) ensureRules(c *netlink.Conn, n *Network) error {
	whole, err := s.rulesWhole(c, n)
	if err != nil || whole {
		return err
	}
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	count, err := s.table.Rules(c)
	if err != nil {
		return err
	}
	if count != ruleCount {
		return s.rebuild(c, n)
	}
	if known, err := s.table.Has(c, setBridges, netlink.Ifname(n.Device)); err != nil || known {
		return err // somebody else was faster
	}
	// A new network. The table is not made anew for it, which would wake all that
	// watch over it.
	b := netlink.NewBatch()
	b.BeginTransaction()
	s.networkElems(b, n)
	b.EndTransaction()
	return c.DoTransaction(b)
}

func (s *Store) rulesWhole(c *netlink.Conn, n *Network) (bool, error) {
	count, err := s.table.Rules(c)
	if err != nil || count != ruleCount {
		return false, err
	}
	return s.table.Has(c, setBridges, netlink.Ifname(n.Device))
}

// rebuild makes the table anew, for all networks (also extra) and all ports of
// containers that live. The caller holds the lock.
func (s *Store) rebuild(c *netlink.Conn, extra *Network) error {
	all, err := s.records()
	if err != nil {
		return err
	}
	b := netlink.NewBatch()
	b.BeginTransaction()
	s.table.Add(b) // so that it can be deleted
	s.table.Delete(b)
	s.table.Add(b)
	s.writeRules(b)
	s.writeMasq(b)
	seen := false
	for _, n := range all {
		if n.routed() {
			s.networkElems(b, n)
			seen = seen || n.Name == extra.Name
		}
	}
	if !seen {
		s.networkElems(b, extra)
	}
	if s.env.Rootless {
		s.table.AddElems(b, setUplink, netlink.Elem{Key: netlink.Ifname(UplinkDevice)})
	} else {
		if err := s.livePorts(func(p *container.Published) {
			s.addPort(b, p)
		}); err != nil {
			return err
		}
	}
	b.EndTransaction()
	if err := c.DoTransaction(b); err != nil {
		return errs.New(errs.Unknown, "packet filter table isle: %w", err)
	}
	return nil
}

// livePorts calls f with every published port of a container that lives.
func (s *Store) livePorts(f func(*container.Published)) error {
	files, err := os.ReadDir(s.env.Run + "/net")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range files {
		id, ok := strings.CutSuffix(d.Name(), ".json")
		if !ok || !state.IsID(id) {
			continue
		}
		if !s.lives(id) {
			_ = os.Remove(s.netFile(id)) // a killed monitor's
			continue
		}
		var st container.Network
		if state.ReadJSON(s.netFile(id), &st) != nil {
			continue // it has just ended
		}
		for i := range st.Ports {
			f(&st.Ports[i])
		}
	}
	return nil
}

// netFile tells what a container publishes, from before its rules are made.
func (s *Store) netFile(id string) string { return s.env.Run + "/net/" + id + ".json" }

// openPorts puts the rules of published ports in place. What it says was written
// to netFile first, so that a rebuild by somebody else has it as well.
func (s *Store) openPorts(c *netlink.Conn, ports []container.Published) error {
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	err = change(c, ports, s.addPort)
	if errors.Is(err, unix.EEXIST) {
		// A killed monitor's, whose port has become free: ours is bound.
		if err := s.removeEach(ports); err != nil {
			return err
		}
		d, derr := netlink.Dial(unix.NETLINK_NETFILTER)
		if derr != nil {
			return derr
		}
		defer d.Close() //nolint:errcheck // nothing to lose
		err = change(d, ports, s.addPort)
	}
	return err
}

func change(c *netlink.Conn, ports []container.Published, f func(*netlink.Batch, *container.Published)) error {
	b := netlink.NewBatch()
	b.BeginTransaction()
	n := b.Len()
	for i := range ports {
		f(b, &ports[i])
	}
	if b.Len() == n {
		return nil
	}
	b.EndTransaction()
	return c.DoTransaction(b)
}

// removeEach removes what of the ports' rules is there. One transaction for each:
// an element that is missing would undo all.
func (s *Store) removeEach(ports []container.Published) error {
	for i := range ports {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		err = change(c, ports[i:i+1], s.delPort)
		_ = c.Close() // nothing to lose
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// closePorts removes the rules of published ports.
func (s *Store) closePorts(ports []container.Published) error {
	if len(ports) == 0 {
		return nil
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	err = change(c, ports, s.delPort)
	_ = c.Close() // nothing to lose
	if errors.Is(err, unix.ENOENT) {
		return s.removeEach(ports)
	}
	return err
}

// foreignDrop reports whether another table keeps the network's packets from being
// forwarded: the chain FORWARD that Docker and ufw give a policy of drop, if it
// says nothing about the device.
func foreignDrop(c *netlink.Conn, n *Network) (bool, error) {
	drop := false
	for _, f := range [...]struct {
		family byte
		six    bool
	}{{unix.NFPROTO_IPV4, false}, {unix.NFPROTO_IPV6, true}} {
		if n.subnet(f.six) == nil {
			continue
		}
		t := netlink.Table{Family: f.family, Name: "filter"}
		policy, ok, err := t.Policy(c, "FORWARD")
		if err != nil {
			return false, err
		}
		if !ok || policy != netlink.Drop {
			continue
		}
		told, err := t.Mentions(c, append([]byte(n.Device), 0))
		if err != nil {
			return false, err
		}
		drop = drop || !told
	}
	return drop, nil
}
