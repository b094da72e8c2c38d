package uplink

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/link/nested"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network"
)

// nic is the stack's only interface.
const nic = 1

// uplink is the stack and the way into it.
type uplink struct {
	stack   *stack.Stack
	router  *os.File   // the user's network namespace
	tcp     *kernelTCP // nil where the kernel cannot: then the stack does it
	udp     *kernelUDP // the same
	pings   *pings
	resolve *upstream
}

// openUplink connects a stack to the user's network namespace.
func openUplink(st *network.Store, resolve *upstream, stackOnly bool) (*uplink, error) {
	router, err := st.Router()
	if err != nil {
		return nil, err
	}
	fd, index, err := packetSocket(router)
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", network.UplinkPeer, err)
	}
	mac := network.UplinkMAC()
	ep, err := fdbased.New(&fdbased.Options{
		FDs: []int{fd}, MTU: network.UplinkMTU, EthernetHeader: true, Address: tcpip.LinkAddress(mac[:]),
		PacketDispatchMode: fdbased.RecvMMsg, RXChecksumOffload: true, GSOMaxSize: 65535, InterfaceIndex: index,
	})
	if err != nil {
		return nil, err
	}
	u := &uplink{router: router, resolve: resolve}
	if stackOnly {
		unsteer(router)
	} else if u.tcp, err = newKernelTCP(u); err != nil {
		unsteer(router)
		fmt.Fprintln(os.Stderr, "isled network: connections by the user-mode stack, which is slower:", err)
	} else {
		u.udp = newKernelUDP(u.tcp.make)
	}
	u.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:        false,
	})
	u.pings = newPings(u)
	tap := &tap{u: u}
	tap.Init(ep, tap)
	if err := u.configure(tap); err != nil {
		return nil, err
	}
	u.forward()
	return u, nil
}

// configure makes the stack take every address for its own, send from any, and
// reach the containers by the user's namespace.
func (u *uplink) configure(link stack.LinkEndpoint) error {
	s := u.stack
	if err := s.CreateNIC(nic, link); err != nil {
		return errors.New("create interface: " + err.String())
	}
	for _, a := range [...]struct {
		addr  string
		bits  int
		proto tcpip.NetworkProtocolNumber
	}{{network.UplinkHost, network.UplinkBits, ipv4.ProtocolNumber}, {network.UplinkDNS, network.UplinkBits, ipv4.ProtocolNumber}, {network.UplinkHost6, network.UplinkBits6, ipv6.ProtocolNumber}} {
		pa := tcpip.ProtocolAddress{Protocol: a.proto, AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(net.ParseIP(a.addr)), PrefixLen: a.bits}}
		if err := s.AddProtocolAddress(nic, pa, stack.AddressProperties{}); err != nil {
			return errors.New("address " + a.addr + ": " + err.String())
		}
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: subnet(network.UplinkHost, network.UplinkBits), NIC: nic},
		{Destination: subnet(network.UplinkHost6, network.UplinkBits6), NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: address(net.ParseIP(network.UplinkRouter)), NIC: nic},
		{Destination: header.IPv6EmptySubnet, Gateway: address(net.ParseIP(network.UplinkRouter6)), NIC: nic},
	})
	if err := s.SetPromiscuousMode(nic, true); err != nil {
		return errors.New("promiscuous mode: " + err.String())
	}
	if err := s.SetSpoofing(nic, true); err != nil {
		return errors.New("spoofing: " + err.String())
	}
	sack := tcpip.TCPSACKEnabled(true)
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &moderate)
	// Without RACK: with it, 3 s of one inbound stream on a busy machine had 130
	// segments sent twice, without it none (TCPDSACKOldSent), and half as much again came through.
	recovery := tcpip.TCPRecovery(0)
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &recovery)
	// The path is one machine long: the host's own TCP minds the rest.
	control := tcpip.CongestionControlOption("cubic")
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &control)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &rcv)
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 4 << 20, Max: 8 << 20}
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &snd)
	return nil
}

func subnet(addr string, bits int) tcpip.Subnet {
	a := tcpip.AddressWithPrefix{Address: address(net.ParseIP(addr)), PrefixLen: bits}
	return a.Subnet()
}

// address is an address as the stack has it.
func address(i net.IP) tcpip.Address {
	if four := i.To4(); four != nil {
		return tcpip.AddrFromSlice(four)
	}
	return tcpip.AddrFromSlice(i.To16())
}

// packetSocket opens a packet socket on the far end of the link.
func packetSocket(router *os.File) (fd, index int, err error) {
	err = netlink.In(router, func() error {
		c, err := netlink.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // nothing to lose
		if index, err = c.Index(network.UplinkPeer); err != nil {
			return err
		}
		// Protocol 0: nothing is received before it is bound.
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("socket", err)
		}
		return nil
	})
	if err != nil {
		return -1, 0, err
	}
	steps := []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) },
		func() error {
			mreq := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
			return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq)
		},
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) },
		func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: index})
		},
	}
	for _, f := range steps {
		if err := f(); err != nil {
			_ = unix.Close(fd) // of no use
			return -1, 0, err
		}
	}
	// Best effort: the limits of the host may be lower.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<20)
	return fd, index, nil
}

// tap looks at what the stack receives before the stack does: it would answer
// echo requests for all the world.
type tap struct {
	nested.Endpoint
	u *uplink
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (t *tap) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	v := pkt.ToView()
	b := v.AsSlice()
	// The link header is still in front where the endpoint has not cut it off.
	if n := len(pkt.LinkHeader().Slice()); n > 0 && len(b) > n {
		b = b[n:]
	}
	taken := t.u.pings.take(proto, b) || t.u.tcp != nil && (t.u.tcp.take(proto, b) || t.u.udp.take(proto, b))
	v.Release()
	if !taken {
		t.Endpoint.DeliverNetworkPacket(proto, pkt)
	}
}
