package uplink

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"github.com/isle-engine/isle/internal/network"
)

// errsIs is errors.Is, under a name that does not hide package errs.
func errsIs(err, target error) bool { return errors.Is(err, target) }

// pings forwards echo requests by the host's unprivileged ICMP sockets (icmp(7)),
// which the sysctl net.ipv4.ping_group_range opens to users. Each container's
// process that pings somebody has one socket. For the host itself we answer.
type pings struct {
	u     *uplink
	mu    sync.Mutex
	flows map[pingKey]*os.File
}

type pingKey struct {
	from, to tcpip.Address
	ident    uint16
}

// pingTime is how long a socket waits for further requests and answers.
const pingTime = 30 * time.Second

func newPings(u *uplink) *pings { return &pings{u: u, flows: map[pingKey]*os.File{}} }

// echoSize is the header of an echo request and its answer, of both versions:
// type, code, checksum, identifier, number.
const echoSize = 8

// take handles an echo request: b is a whole IP packet.
func (p *pings) take(proto tcpip.NetworkProtocolNumber, b []byte) bool {
	var key pingKey
	var m []byte
	switch proto {
	case ipv4.ProtocolNumber:
		h := header.IPv4(b)
		if !h.IsValid(len(b)) || h.TransportProtocol() != header.ICMPv4ProtocolNumber || h.FragmentOffset() != 0 || h.More() {
			return false
		}
		if m = h.Payload(); len(m) < echoSize || header.ICMPv4(m).Type() != header.ICMPv4Echo {
			return false
		}
		key.from, key.to = h.SourceAddress(), h.DestinationAddress()
	case ipv6.ProtocolNumber:
		h := header.IPv6(b)
		if !h.IsValid(len(b)) || h.NextHeader() != uint8(header.ICMPv6ProtocolNumber) {
			return false
		}
		if m = h.Payload(); len(m) < echoSize || header.ICMPv6(m).Type() != header.ICMPv6EchoRequest {
			return false
		}
		key.from, key.to = h.SourceAddress(), h.DestinationAddress()
	default:
		return false
	}
	key.ident = uint16(m[4])<<8 | uint16(m[5])
	switch to := target(key.to); {
	case key.to.String() == network.UplinkDNS, to != nil && ofHost(to):
		p.answer(key, append([]byte(nil), m...))
	case to != nil:
		p.send(key, to, b, m)
	}
	return true
}

// ofHost reports whether the host has the address.
func ofHost(ip net.IP) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}

func (p *pings) send(key pingKey, to net.IP, packet, m []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.flows[key]
	if f == nil {
		fd, err := echoSocket(to)
		if err != nil {
			// ping_group_range is closed, or there is no route: ping says so at once.
			p.prohibit(key, packet)
			return
		}
		f = os.NewFile(uintptr(fd), "ping")
		p.flows[key] = f
		go p.receive(key, f)
	}
	msg := append([]byte(nil), m...)
	_ = f.SetReadDeadline(time.Now().Add(pingTime)) // a closed one fails below
	_, _ = f.Write(msg)                             // lost, as on any network
}

// echoSocket makes a socket for echo requests to an address.
func echoSocket(to net.IP) (int, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	var sa unix.Sockaddr
	if four := to.To4(); four != nil {
		sa = &unix.SockaddrInet4{Addr: [4]byte(four)}
	} else {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		sa = &unix.SockaddrInet6{Addr: [16]byte(to.To16())}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sa); err != nil {
		_ = unix.Close(fd) // never used
		return -1, err
	}
	return fd, nil
}

// receive passes answers on, with the container's own identifier: the kernel
// has put the socket's in its place.
func (p *pings) receive(key pingKey, f *os.File) {
	buf := make([]byte, 65536)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) {
			continue // an earlier request's
		}
		if err != nil {
			break
		}
		if m := buf[:n]; n >= echoSize && (m[0] == byte(header.ICMPv4EchoReply) || m[0] == byte(header.ICMPv6EchoReply)) {
			p.answer(key, append([]byte(nil), m...))
		}
	}
	p.mu.Lock()
	delete(p.flows, key)
	p.mu.Unlock()
	_ = f.Close() // at its end
}

// answer sends the answer to an echo request into the user's network. m is the
// request or somebody's answer to it, and is written to.
func (p *pings) answer(key pingKey, m []byte) {
	m[4], m[5] = byte(key.ident>>8), byte(key.ident)
	m[0] = byte(header.ICMPv4EchoReply)
	if key.to.Len() == header.IPv6AddressSize {
		m[0] = byte(header.ICMPv6EchoReply)
	}
	p.inject(key.to, key.from, m)
}

// prohibit tells that a packet must not go where it would: type and code of
// "communication administratively prohibited" (RFC 1812, RFC 4443).
func (p *pings) prohibit(key pingKey, packet []byte) {
	const most = 548 // of the packet that it is about; RFC 1812 4.3.2.3
	m := append([]byte{byte(header.ICMPv4DstUnreachable), 13, 0, 0, 0, 0, 0, 0}, packet[:min(len(packet), most)]...)
	if key.to.Len() == header.IPv6AddressSize {
		m[0], m[1] = byte(header.ICMPv6DstUnreachable), 1
	}
	p.inject(key.to, key.from, m)
}

// inject sends an ICMP message into the user's network.
func (p *pings) inject(src, dst tcpip.Address, m []byte) {
	m[2], m[3] = 0, 0
	if src.Len() == header.IPv6AddressSize {
		header.ICMPv6(m).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: header.ICMPv6(m), Src: src, Dst: dst}))
		pkt := make(header.IPv6, header.IPv6MinimumSize, header.IPv6MinimumSize+len(m))
		pkt.Encode(&header.IPv6Fields{
			PayloadLength: uint16(len(m)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst,
		})
		p.u.inject(ipv6.ProtocolNumber, append(pkt, m...))
		return
	}
	header.ICMPv4(m).SetChecksum(^checksum.Checksum(m, 0))
	pkt := make(header.IPv4, header.IPv4MinimumSize, header.IPv4MinimumSize+len(m))
	pkt.Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + len(m)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber), SrcAddr: src, DstAddr: dst,
	})
	pkt.SetChecksum(^pkt.CalculateChecksum())
	p.u.inject(ipv4.ProtocolNumber, append(pkt, m...))
}
