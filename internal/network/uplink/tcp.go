package uplink

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"github.com/isle-engine/isle/internal/network"
)

// kernelTCP makes the containers' connections by sockets of the kernel (see
// steer.go). The host's side is made first: a port that is closed is refused by
// the answer to the container's first packet, which is kept until then.
type kernelTCP struct {
	u    *uplink
	make maker

	mu    sync.Mutex
	calls map[flowKey]*call
}

type flowKey struct{ from, to netip.AddrPort }

// call is a connection that is being made.
type call struct {
	out net.Conn // to the host's network; nil until it stands
	dns bool     // for the name server of ours; there is no host's side
	up  bool     // the container's side may be accepted
}

// acceptTime is how long the container's side may take: it is in the same machine.
const acceptTime = 30 * time.Second

// newKernelTCP sets the namespace up for it; an error says that the kernel
// cannot (it is older, or built without nft_tproxy or nft_socket).
func newKernelTCP(u *uplink) (*kernelTCP, error) {
	m, err := newMaker(u.router)
	if err != nil {
		return nil, err
	}
	k := &kernelTCP{u: u, make: m, calls: map[flowKey]*call{}}
	ln4, port4, err := m.listen(network.UplinkRouter)
	if err != nil {
		return nil, err
	}
	ln6, port6, err6 := m.listen(network.UplinkRouter6)
	if err6 != nil {
		port6 = 0 // this kernel has no IPv6
	}
	if err := steer(u.router, port4, port6); err != nil {
		_ = ln4.Close()
		if ln6 != nil {
			_ = ln6.Close()
		}
		return nil, err
	}
	go k.accept(ln4)
	if ln6 != nil {
		go k.accept(ln6)
	}
	return k, nil
}

// take handles the first packet of a connection: b is a whole IP packet.
func (k *kernelTCP) take(proto tcpip.NetworkProtocolNumber, b []byte) bool {
	var key flowKey
	var seg header.TCP
	switch proto {
	case ipv4.ProtocolNumber:
		h := header.IPv4(b)
		if !h.IsValid(len(b)) || h.TransportProtocol() != header.TCPProtocolNumber || h.FragmentOffset() != 0 || h.More() {
			return false
		}
		seg = header.TCP(h.Payload())
		key.from, key.to = addrPort(h.SourceAddress(), 0), addrPort(h.DestinationAddress(), 0)
	case ipv6.ProtocolNumber:
		h := header.IPv6(b)
		if !h.IsValid(len(b)) || h.NextHeader() != uint8(header.TCPProtocolNumber) {
			return false
		}
		seg = header.TCP(h.Payload())
		key.from, key.to = addrPort(h.SourceAddress(), 0), addrPort(h.DestinationAddress(), 0)
	default:
		return false
	}
	if len(seg) < header.TCPMinimumSize || seg.Flags()&tcpFlags != tcpSYN {
		return false
	}
	key.from = netip.AddrPortFrom(key.from.Addr(), seg.SourcePort())
	key.to = netip.AddrPortFrom(key.to.Addr(), seg.DestinationPort())
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.calls[key]; c != nil {
		if c.up {
			k.sendBack(proto, b) // sent again: the first one was lost
		}
		return true
	}
	if len(k.calls) >= waiting {
		return true // it will be sent again
	}
	c := &call{}
	k.calls[key] = c
	go k.dial(key, c, proto, append([]byte(nil), b...))
	return true
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	i, _ := netip.AddrFromSlice(a.AsSlice()) // has 4 or 16 bytes
	return netip.AddrPortFrom(i, port)
}

// dial makes the host's side, then lets the container's first packet pass.
func (k *kernelTCP) dial(key flowKey, c *call, proto tcpip.NetworkProtocolNumber, first []byte) {
	dns := key.to.Port() == 53 && key.to.Addr().String() == network.UplinkDNS
	var out net.Conn
	if !dns {
		to := target(tcpip.AddrFromSlice(key.to.Addr().AsSlice()))
		var err error = unix.ECONNREFUSED
		if to != nil {
			out, err = (&net.Dialer{Timeout: dialTime}).DialContext(background(), "tcp", (&net.TCPAddr{IP: to, Port: int(key.to.Port())}).String())
		}
		if err != nil {
			k.forget(key)
			k.refuse(key, proto, first)
			return
		}
	}
	k.mu.Lock()
	c.out, c.dns, c.up = out, dns, true
	k.mu.Unlock()
	time.AfterFunc(acceptTime, func() {
		k.mu.Lock()
		late := k.calls[key] == c
		if late {
			delete(k.calls, key)
		}
		k.mu.Unlock()
		if late && out != nil {
			_ = out.Close() // nobody to talk to
		}
	})
	k.sendBack(proto, first)
}

func (k *kernelTCP) forget(key flowKey) {
	k.mu.Lock()
	delete(k.calls, key)
	k.mu.Unlock()
}

// accept gives each container's side its host's side.
func (k *kernelTCP) accept(ln *net.TCPListener) {
	for {
		c, err := ln.AcceptTCP()
		if err != nil {
			if isTemporary(err) {
				time.Sleep(10 * time.Millisecond) // out of descriptors or memory: later
				continue
			}
			return
		}
		key := flowKey{plain(c.RemoteAddr()), plain(c.LocalAddr())}
		k.mu.Lock()
		call := k.calls[key]
		delete(k.calls, key)
		k.mu.Unlock()
		switch {
		case call == nil || call.out == nil && !call.dns:
			_ = c.SetLinger(0) // a reset; nobody of ours has let it in
			_ = c.Close()
		case call.dns:
			go k.u.resolve.serveTCP(c, nil)
		default:
			go join(c, call.out)
		}
	}
}

func plain(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// sendBack sends a packet into the user's namespace by the uplink.
func (k *kernelTCP) sendBack(proto tcpip.NetworkProtocolNumber, b []byte) {
	// The kernel leaves the checksum to the last device, which is us.
	if proto == ipv4.ProtocolNumber {
		h := header.IPv4(b)
		seal(header.TCP(h.Payload()), h.SourceAddress(), h.DestinationAddress())
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
	} else {
		h := header.IPv6(b)
		seal(header.TCP(h.Payload()), h.SourceAddress(), h.DestinationAddress())
	}
	k.u.inject(proto, b)
}

// inject writes a whole packet to the uplink.
func (u *uplink) inject(proto tcpip.NetworkProtocolNumber, b []byte) {
	mac := network.UplinkRouterMAC()
	_ = u.stack.WritePacketToRemote(nic, tcpip.LinkAddress(mac[:]), proto, buffer.MakeWithData(b)) // lost, as on any network
}

func seal(t header.TCP, src, dst tcpip.Address) {
	t.SetChecksum(0)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(t)))
	t.SetChecksum(^checksum.Checksum(t, sum))
}

// refuse answers a first packet with a reset.
func (k *kernelTCP) refuse(key flowKey, proto tcpip.NetworkProtocolNumber, first []byte) {
	src, dst := tcpip.AddrFromSlice(key.to.Addr().AsSlice()), tcpip.AddrFromSlice(key.from.Addr().AsSlice())
	head, syn := header.IPv4MinimumSize, header.TCP(nil)
	if proto == ipv6.ProtocolNumber {
		head, syn = header.IPv6MinimumSize, header.TCP(header.IPv6(first).Payload())
	} else {
		syn = header.TCP(header.IPv4(first).Payload())
	}
	b := make([]byte, head+header.TCPMinimumSize)
	t := header.TCP(b[head:])
	t.Encode(&header.TCPFields{
		SrcPort: key.to.Port(), DstPort: key.from.Port(), AckNum: syn.SequenceNumber() + 1,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagRst | header.TCPFlagAck,
	})
	seal(t, src, dst)
	if proto == ipv6.ProtocolNumber {
		header.IPv6(b).Encode(&header.IPv6Fields{
			PayloadLength: header.TCPMinimumSize, TransportProtocol: header.TCPProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst,
		})
	} else {
		h := header.IPv4(b)
		h.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst})
		h.SetChecksum(^h.CalculateChecksum())
	}
	k.u.inject(proto, b)
}

// connected waits until a connection stands.
func connected(c net.Conn) error {
	raw, ok := c.(syscall.Conn)
	if !ok {
		return unix.EINVAL
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(dialTime)); err != nil {
		return err
	}
	var cerr error
	err = rc.Write(func(fd uintptr) bool {
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && n != 0 {
			err = unix.Errno(n)
		}
		if err != nil {
			cerr = os.NewSyscallError("connect", err)
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	if err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	return c.SetWriteDeadline(time.Time{})
}
