package uplink

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	gv4 "gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	gv6 "gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"github.com/isle-engine/isle/internal/network"
)

// kernelUDP makes the containers' flows of datagrams by sockets of the kernel (see
// steer.go). The first datagram of a flow comes by the uplink; once the flow's
// socket is there, which has the address that the container sends to, the kernel
// gives it the others.
type kernelUDP struct {
	make maker

	mu    sync.Mutex
	flows map[flowKey]*udpFlow
}

type udpFlow struct {
	early [][]byte // came before the sockets were there
	out   net.Conn
}

const (
	// flowsMax bounds the flows of datagrams of all containers.
	flowsMax = 8192
	// earlyMax bounds the datagrams that wait for a flow's sockets.
	earlyMax = 64
)

func newKernelUDP(m maker) *kernelUDP { return &kernelUDP{make: m, flows: map[flowKey]*udpFlow{}} }

// take handles a datagram that no socket has as yet: b is a whole IP packet.
func (k *kernelUDP) take(proto tcpip.NetworkProtocolNumber, b []byte) bool {
	var key flowKey
	var d header.UDP
	switch proto {
	case gv4.ProtocolNumber:
		h := header.IPv4(b)
		if !h.IsValid(len(b)) || h.TransportProtocol() != header.UDPProtocolNumber || h.FragmentOffset() != 0 || h.More() {
			return false
		}
		d = header.UDP(h.Payload())
		key.from, key.to = addrPort(h.SourceAddress(), 0), addrPort(h.DestinationAddress(), 0)
	case gv6.ProtocolNumber:
		h := header.IPv6(b)
		if !h.IsValid(len(b)) || h.NextHeader() != uint8(header.UDPProtocolNumber) {
			return false
		}
		d = header.UDP(h.Payload())
		key.from, key.to = addrPort(h.SourceAddress(), 0), addrPort(h.DestinationAddress(), 0)
	default:
		return false
	}
	if len(d) < header.UDPMinimumSize || int(d.Length()) < header.UDPMinimumSize || int(d.Length()) > len(d) {
		return false
	}
	key.from = netip.AddrPortFrom(key.from.Addr(), d.SourcePort())
	key.to = netip.AddrPortFrom(key.to.Addr(), d.DestinationPort())
	if key.to.Addr().String() == network.UplinkDNS {
		return false
	}
	to := target(tcpip.AddrFromSlice(key.to.Addr().AsSlice()))
	if to == nil {
		return false // the stack answers that the port is closed
	}
	data := append([]byte(nil), d[header.UDPMinimumSize:d.Length()]...)
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.flows[key]
	switch {
	case f == nil && len(k.flows) >= flowsMax:
	case f == nil:
		f = &udpFlow{early: [][]byte{data}}
		k.flows[key] = f
		go k.open(key, f, to)
	case f.out != nil:
		_, _ = f.out.Write(data) // lost, as on any network
	case len(f.early) < earlyMax:
		f.early = append(f.early, data)
	}
	return true
}

// open makes the flow's sockets and serves it to its end.
func (k *kernelUDP) open(key flowKey, f *udpFlow, to net.IP) {
	defer func() {
		k.mu.Lock()
		delete(k.flows, key)
		k.mu.Unlock()
	}()
	out, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: to, Port: int(key.to.Port())})
	if err != nil {
		return // no route: lost, as on any network
	}
	in, err := k.make.flow(key.to, key.from)
	if err != nil {
		_ = out.Close() // never used
		return
	}
	k.mu.Lock()
	for _, d := range f.early {
		_, _ = out.Write(d) // lost, as on any network
	}
	f.early, f.out = nil, out
	k.mu.Unlock()
	idle := flowTime
	if key.to.Port() == 53 {
		idle = dnsFlowTime
	}
	relayBatches(in, out, idle)
}

// flow makes a socket in the user's namespace for datagrams between from, which
// need not be this machine's address, and to.
func (m maker) flow(from, to netip.AddrPort) (*net.UDPConn, error) {
	fd, err := m.socket(unix.SOCK_DGRAM, from)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), to.String())
	defer f.Close()
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	// From now on the socket is the flow's alone (see refuseAll).
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		return nil, os.NewSyscallError("detach filter", err)
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		return nil, errors.New("not a UDP socket")
	}
	return u, nil
}

// refuseAll keeps a socket that is bound, but not connected as yet, from taking
// what others send to the same address.
func refuseAll(fd int) error {
	none := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none})
}

// Datagrams are read many at a time, and those of one size written as one, which
// the kernel divides (UDP_SEGMENT, udp(7)).
const (
	batchSize = 64
	// trainBytes is less than the 64 KB of an IP packet by all headers.
	trainBytes = 65000
	datagram   = 65536
)

type batch struct {
	in, out []ipv4.Message
	sizes   [][]byte // the control message of each of out
}

var batches = sync.Pool{New: func() any {
	b := &batch{in: make([]ipv4.Message, batchSize), out: make([]ipv4.Message, 0, batchSize), sizes: make([][]byte, batchSize)}
	for i := range b.in {
		b.in[i].Buffers = [][]byte{make([]byte, datagram)}
		b.sizes[i] = segmentSize()
	}
	return b
}}

// segmentSize is a control message UDP_SEGMENT, without its value.
func segmentSize() []byte {
	m := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(m, uint64(unix.CmsgLen(2))) // cmsg_len
	binary.NativeEndian.PutUint32(m[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(m[12:], unix.UDP_SEGMENT)
	return m
}

// relayBatches is relay for two sockets of the kernel.
func relayBatches(a, b *net.UDPConn, idle time.Duration) {
	for _, c := range [...]*net.UDPConn{a, b} {
		_ = c.SetReadBuffer(4 << 20) // the limits of the host may be lower
		_ = c.SetWriteBuffer(4 << 20)
	}
	var wg sync.WaitGroup
	wg.Add(2)
	one := func(to, from *net.UDPConn) {
		defer wg.Done()
		w := &batchWriter{to: ipv4.NewPacketConn(to)}
		r := ipv4.NewPacketConn(from)
		for {
			_ = from.SetReadDeadline(time.Now().Add(idle)) // a closed one fails below
			if readable(from) != nil {
				break
			}
			_ = to.SetReadDeadline(time.Now().Add(idle)) // one direction keeps the other alive
			w.pass(r)
		}
		_ = a.Close() // ends the other direction as well
		_ = b.Close()
	}
	go one(a, b)
	one(b, a)
	wg.Wait()
}

// readable waits for a datagram, without a buffer: most flows are idle.
func readable(c *net.UDPConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		// Any other error is one of an earlier datagram (refused), and now read.
		return err != unix.EAGAIN && err != unix.EINTR
	})
}

// batchWriter writes what has been read.
type batchWriter struct {
	to    *ipv4.PacketConn
	addr  net.Addr // of a socket that is not connected
	plain bool     // the kernel or the device cannot divide
}

// pass reads what is there, and writes it.
func (w *batchWriter) pass(r *ipv4.PacketConn) {
	b, _ := batches.Get().(*batch)
	defer batches.Put(b)
	n, err := r.ReadBatch(b.in, syscall.MSG_DONTWAIT)
	if err != nil {
		return // of an earlier datagram
	}
	w.write(b, b.in[:n])
}

// write writes in, which is a part of b.in.
func (w *batchWriter) write(b *batch, in []ipv4.Message) {
	for len(in) > 0 {
		b.join(in, w.plain, w.addr)
		sent, err := w.to.WriteBatch(b.out, 0)
		if err == nil && sent > 0 {
			in = in[count(b.out[:sent]):]
			continue
		}
		if len(b.out[0].Buffers) > 1 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EMSGSIZE)) {
			w.plain = true
			continue
		}
		in = in[len(b.out[0].Buffers):] // lost, as on any network
	}
}

// join makes b.out of what was read: datagrams of one size, with at most the last
// one shorter, become one message.
func (b *batch) join(in []ipv4.Message, plain bool, addr net.Addr) {
	b.out = b.out[:0]
	for i := 0; i < len(in); {
		size, total, k := in[i].N, in[i].N, i+1
		for !plain && size > 0 && k < len(in) && in[k-1].N == size && in[k].N <= size && in[k].N > 0 && total+in[k].N <= trainBytes {
			total += in[k].N
			k++
		}
		m := ipv4.Message{Buffers: make([][]byte, 0, k-i), Addr: addr}
		for ; i < k; i++ {
			m.Buffers = append(m.Buffers, in[i].Buffers[0][:in[i].N])
		}
		if len(m.Buffers) > 1 {
			m.OOB = b.sizes[len(b.out)]
			binary.NativeEndian.PutUint16(m.OOB[16:], uint16(size))
		}
		b.out = append(b.out, m)
	}
}

func count(ms []ipv4.Message) (n int) {
	for i := range ms {
		n += len(ms[i].Buffers)
	}
	return n
}
