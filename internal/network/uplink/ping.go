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

	"github.com/isle-engine/isle/internal/network"
)

// errsIs is errors.Is, under a name that does not hide package errs.
func errsIs(err, target error) bool { return errors.Is(err, target) }

// pings forwards echo requests by the host's unprivileged ICMP sockets (icmp(7)),
// which the sysctl net.ipv4.ping_group_range opens to users. Each container's
// process that pings somebody has one socket.
type pings struct {
	u     *uplink
	mu    sync.Mutex
	flows map[pingKey]*os.File
}

type pingKey struct {
	from, to [4]byte
	ident    uint16
}

// pingTime is how long a socket waits for further requests and answers.
const pingTime = 30 * time.Second

func newPings(u *uplink) *pings { return &pings{u: u, flows: map[pingKey]*os.File{}} }

// take handles an IPv4 echo request that is for somebody beyond the host: b is a
// whole IP packet.
func (p *pings) take(proto tcpip.NetworkProtocolNumber, b []byte) bool {
	if proto != ipv4.ProtocolNumber {
		return false
	}
	h := header.IPv4(b)
	if !h.IsValid(len(b)) || h.TransportProtocol() != header.ICMPv4ProtocolNumber || h.FragmentOffset() != 0 || h.More() {
		return false
	}
	m := header.ICMPv4(h.Payload())
	if len(m) < header.ICMPv4MinimumSize || m.Type() != header.ICMPv4Echo {
		return false
	}
	to := target(h.DestinationAddress())
	if to.To4() == nil {
		return h.DestinationAddress().String() != network.UplinkDNS // nobody answers, but the stack for its own
	}
	if h.DestinationAddress().String() == network.UplinkHost || ofHost(to) {
		return false // the stack answers for the host
	}
	key := pingKey{h.SourceAddress().As4(), h.DestinationAddress().As4(), m.Ident()}
	p.send(key, to, m)
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

func (p *pings) send(key pingKey, to net.IP, m header.ICMPv4) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.flows[key]
	if f == nil {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
		if err != nil {
			return // ping_group_range is closed: no answer
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte(to.To4())}); err != nil {
			_ = unix.Close(fd) // no route
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
		m := header.ICMPv4(buf[:n])
		if n < header.ICMPv4MinimumSize || m.Type() != header.ICMPv4EchoReply {
			continue
		}
		m.SetIdent(key.ident)
		m.SetChecksum(0)
		m.SetChecksum(^checksum.Checksum(m, 0))
		p.inject(key, m)
	}
	p.mu.Lock()
	delete(p.flows, key)
	p.mu.Unlock()
	_ = f.Close() // at its end
}

// inject sends an answer into the user's network.
func (p *pings) inject(key pingKey, m []byte) {
	pkt := make(header.IPv4, header.IPv4MinimumSize+len(m))
	pkt.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(pkt)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: tcpip.AddrFrom4(key.to), DstAddr: tcpip.AddrFrom4(key.from),
	})
	pkt.SetChecksum(^pkt.CalculateChecksum())
	copy(pkt[header.IPv4MinimumSize:], m)
	p.u.inject(ipv4.ProtocolNumber, pkt)
}
