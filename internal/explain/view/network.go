package view

import (
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/linux/ns"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/network/ip"
)

// network follows a packet from the process to the wire.
func (l *looker) network() {
	st := l.s.State.Network
	if st == nil {
		st = &container.Network{Mode: l.s.Record.Config.Network}
	}
	n := &Network{Mode: st.Mode}
	l.v.Network = n
	pid := strconv.Itoa(l.pid)
	shared := ns.Inode(pid, "net") == ns.Inode("self", "net")
	links, routes := l.interfaces(n)
	outer := l.outer(shared)
	for i := range n.Interfaces {
		f := &n.Interfaces[i]
		for _, h := range outer.links {
			if f.Kind == "veth" && h.Index == links[i].Peer && h.Kind == "veth" {
				f.Peer = h.Name
			}
		}
	}
	l.hops(n, links, routes, &outer, shared, st.Uplink)
	l.connections(n)
	for _, p := range st.Ports {
		port := Port{Host: p.HostIP + ":" + strconv.Itoa(int(p.HostPort)) + "/" + p.Proto, Inside: p.To + ":" + strconv.Itoa(int(p.Port)) + "/" + p.Proto}
		for _, c := range n.Connections {
			if strings.HasPrefix(c.Proto, p.Proto) && (c.State == "LISTEN" || p.Proto == "udp") && strings.HasSuffix(c.Local, ":"+strconv.Itoa(int(p.Port))) {
				port.Listening = true
			}
		}
		n.Ports = append(n.Ports, port)
	}
	for _, e := range st.Endpoints {
		found := false
		for _, f := range n.Interfaces {
			found = found || f.Name == e.Interface
			if f.Name == e.Interface && e.IP != "" {
				is := strings.Join(f.Addresses, " ")
				if !strings.Contains(" "+is+" ", " "+e.IP+"/") {
					l.v.differ("address of "+e.Interface, e.IP, is)
				}
			}
		}
		if !found {
			l.v.differ("interface "+e.Interface, "there", "gone")
		}
	}
}

// interfaces lists those inside, beside them as netlink has them, and the routes.
func (l *looker) interfaces(n *Network) ([]netlink.Link, []netlink.Route) {
	if l.inside.Route == nil {
		return nil, nil
	}
	conn, err := netlink.FromFile(l.inside.Route)
	if err != nil {
		l.v.unseen("network", err)
		return nil, nil
	}
	defer conn.Close() //nolint:errcheck // nothing to lose
	links, err := conn.Links()
	l.v.unseen("interfaces", err)
	addrs, err := conn.Addresses()
	l.v.unseen("addresses", err)
	routes, err := conn.RouteList()
	l.v.unseen("routes", err)
	for i := range links {
		x := &links[i]
		f := Interface{Name: x.Name, Kind: x.Kind, MTU: x.MTU, Up: x.Up, Received: x.RxBytes, Sent: x.TxBytes}
		if len(x.MAC) == 6 && x.Name != "lo" {
			f.MAC = mac(x.MAC)
		}
		for _, a := range addrs {
			if a.Index == x.Index {
				f.Addresses = append(f.Addresses, ip.From(a.Addr).String()+"/"+strconv.Itoa(a.Bits))
			}
		}
		n.Interfaces = append(n.Interfaces, f)
	}
	return links, routes
}

func mac(b []byte) string {
	s := hex.EncodeToString(b)
	return s[0:2] + ":" + s[2:4] + ":" + s[4:6] + ":" + s[6:8] + ":" + s[8:10] + ":" + s[10:12]
}

// outside is the network namespace that the container's cable leads to.
type outside struct {
	links  []netlink.Link
	addrs  []netlink.Address
	routes []netlink.Route
}

func (o *outside) byIndex(i int) *netlink.Link {
	for k := range o.links {
		if o.links[k].Index == i {
			return &o.links[k]
		}
	}
	return nil
}

func (o *outside) addresses(i int) string {
	var all []string
	for _, a := range o.addrs {
		if a.Index == i && len(a.Addr) == 4 {
			all = append(all, ip.From(a.Addr).String()+"/"+strconv.Itoa(a.Bits))
		}
	}
	return strings.Join(all, " ")
}

// outer looks at the other side: the host, or an ordinary user's own network
// namespace, where the bridges are.
func (l *looker) outer(shared bool) outside {
	var o outside
	var conn *netlink.Conn
	var err error
	if l.s.Env.Rootless && !shared {
		in, lerr := ns.LookIn(network.Open(l.s.Env).RouterPath(), l.s.Join)
		if lerr != nil || in.Route == nil {
			return o // there is none yet
		}
		defer in.Close()
		conn, err = netlink.FromFile(in.Route)
	} else {
		conn, err = netlink.Dial(unix.NETLINK_ROUTE)
	}
	if err != nil {
		l.v.unseen("network outside", err)
		return o
	}
	defer conn.Close() //nolint:errcheck // nothing to lose
	o.links, err = conn.Links()
	l.v.unseen("interfaces outside", err)
	o.addrs, err = conn.Addresses()
	l.v.unseen("addresses outside", err)
	o.routes, err = conn.RouteList()
	l.v.unseen("routes outside", err)
	return o
}

// hops are the stations of a packet that leaves.
func (l *looker) hops(n *Network, links []netlink.Link, routes []netlink.Route, o *outside, shared, uplink bool) {
	pid := strconv.Itoa(l.pid)
	add := func(where, what, command string) { n.Hops = append(n.Hops, Hop{where, what, command}) }
	add("inside", "process "+pid+" opens a socket in network namespace "+strconv.FormatUint(ns.Inode(pid, "net"), 10), "readlink /proc/"+pid+"/ns/net")
	if shared {
		add("host", "it is the host's own: its interfaces are those of the machine", "ip addr")
		return
	}
	def := -1
	via := ""
	for _, r := range routes {
		if r.Bits == 0 && !r.Six {
			def = r.Index
			if r.Via != nil {
				via = ip.From(r.Via).String()
			}
		}
	}
	enter := "nsenter -t " + pid + " -n "
	if l.s.Env.Rootless {
		enter = "nsenter -t " + pid + " -U --preserve-credentials -n "
	}
	if def < 0 {
		for i := range links {
			if links[i].Kind == "veth" {
				def = links[i].Index
			}
		}
	}
	var mine *netlink.Link
	for i := range links {
		if links[i].Index == def {
			mine = &links[i]
		}
	}
	if mine == nil {
		add("inside", "no way out: lo is all there is", enter+"ip addr")
		return
	}
	what := "out by " + mine.Name
	if via != "" {
		what += ", to the gateway " + via
	}
	add("inside", what, enter+"ip route")
	where, show := "host", ""
	if l.s.Env.Rootless {
		where, show = "yours", "isle's own network namespace of yours: "
	}
	peer := o.byIndex(mine.Peer)
	if mine.Kind != "veth" || peer == nil {
		if mine.Kind != "" {
			add(where, mine.Name+" is a "+mine.Kind+" of a device of the host", "ip -d link")
		}
		return
	}
	add(where, show+"the other end of the cable is "+peer.Name, "ip link show "+peer.Name)
	bridge := o.byIndex(peer.Master)
	if bridge == nil {
		return
	}
	add(where, "it is plugged into the bridge "+bridge.Name+" ("+o.addresses(bridge.Index)+"), with all containers of this network", "bridge link show master "+bridge.Name)
	if uplink {
		add("yours", "the network helper takes the packets from "+network.UplinkDevice+" and opens sockets of yours for them", "ss -tnp")
		add("host", "from here it is traffic of an ordinary process of user "+strconv.Itoa(l.s.Env.UID), "ss -tnp")
		return
	}
	if via == "" {
		return
	}
	for _, r := range o.routes {
		if r.Bits != 0 || r.Six {
			continue
		}
		wire := o.byIndex(r.Index)
		if wire == nil {
			continue
		}
		add("host", "the packet leaves by "+wire.Name+" with the host's address in place of its own (masquerade)", "nft list ruleset; ip route get 1.1.1.1")
		break
	}
}

// connections lists sockets of the network namespace, from /proc/PID/net.
func (l *looker) connections(n *Network) {
	for _, proto := range [...]string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(l.dir + "/net/" + proto)
		if err != nil {
			continue // no IPv6, say
		}
		first := true
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if first || len(f) < 4 {
				first = false
				continue
			}
			state, _ := strconv.ParseUint(f[3], 16, 8) // the kernel writes a number
			c := Connection{Proto: proto, Local: endpoint(f[1]), State: tcpState(state)}
			if strings.HasPrefix(proto, "udp") {
				c.State = "open"
			}
			if r := endpoint(f[2]); !strings.HasSuffix(r, ":0") {
				c.Remote = r
			}
			n.Connections = append(n.Connections, c)
			if len(n.Connections) >= maxConnections {
				return
			}
		}
	}
	if text, err := os.ReadFile(l.dir + "/net/unix"); err == nil {
		n.Sockets = max(strings.Count(string(text), "\n")-1, 0)
	}
}

// maxConnections bounds what is listed.
const maxConnections = 500

// endpoint reads an address as the kernel prints it: words in the machine's own
// order, in hexadecimal.
func endpoint(s string) string {
	addr, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	p, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(b)%4 != 0 || len(b) == 0 {
		return s
	}
	for i := 0; i < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	a := ip.From(b).String()
	if len(b) == 16 {
		a = "[" + a + "]"
	}
	return fmt.Sprintf("%s:%d", a, p)
}

func tcpState(n uint64) string {
	names := [...]string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"}
	if n < uint64(len(names)) {
		return names[n]
	}
	return strconv.FormatUint(n, 10)
}
