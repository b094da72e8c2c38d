package uplink

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	gv4 "gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	gv6 "gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/network"
)

// published is one port of the host that leads into a container.
type published struct {
	u     *uplink // nil for root, whose containers the host reaches itself
	addr  netip.AddrPort
	to    tcpip.FullAddress
	proto tcpip.NetworkProtocolNumber
	ln    net.Listener
	pc    *net.UDPConn

	mu    sync.Mutex
	flows map[string]*clientFlow // by client
}

// publish serves the socket f, which the monitor has bound. It owns f.
func publish(u *uplink, p *container.Published, f *os.File) (*published, error) {
	defer f.Close()
	ip := net.ParseIP(p.To)
	if ip == nil {
		return nil, errs.New(errs.Invalid, "published port %d: leads to %q", p.HostPort, p.To)
	}
	q := &published{u: u, to: tcpip.FullAddress{NIC: nic, Addr: address(ip), Port: p.Port}, proto: gv6.ProtocolNumber, flows: map[string]*clientFlow{}}
	q.addr = addrPort(q.to.Addr, q.to.Port)
	if ip.To4() != nil {
		q.proto = gv4.ProtocolNumber
	}
	switch p.Proto {
	case "tcp":
		// Until now it only held the port.
		if err := unix.Listen(int(f.Fd()), 1024); err != nil {
			return nil, os.NewSyscallError("listen", err)
		}
		ln, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		q.ln = ln
		go q.acceptAll()
	case "udp":
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		uc, ok := pc.(*net.UDPConn)
		if !ok {
			return nil, errs.New(errs.Invalid, "published port %d: not a UDP socket", p.HostPort)
		}
		q.pc = uc
		go q.receiveAll()
	default:
		return nil, errs.New(errs.Unsupported, "publish %d/%s: an ordinary user can publish tcp and udp", p.Port, p.Proto)
	}
	return q, nil
}

func (q *published) close() {
	if q.ln != nil {
		_ = q.ln.Close() // only listened
	}
	if q.pc != nil {
		_ = q.pc.Close() // what is on its way is lost, as on any network
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.flows {
		_ = f.c.Close() // ends its goroutine
	}
}

// source is how a client appears inside. A loopback address would be the
// container's own there.
func (q *published) source(ip net.IP, port int) tcpip.FullAddress {
	if ip.IsLoopback() || (ip.To4() == nil) != (q.proto == gv6.ProtocolNumber) {
		own := network.UplinkHost
		if q.proto == gv6.ProtocolNumber {
			own = network.UplinkHost6
		}
		return tcpip.FullAddress{NIC: nic, Addr: address(net.ParseIP(own))}
	}
	return tcpip.FullAddress{NIC: nic, Addr: address(ip), Port: uint16(port)}
}

func (q *published) acceptAll() {
	for {
		c, err := q.ln.Accept()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // as package net documents it
				continue
			}
			if isTemporary(err) {
				time.Sleep(10 * time.Millisecond) // out of descriptors or memory: later
				continue
			}
			return
		}
		go q.connect(c)
	}
}

func isTemporary(err error) bool {
	for _, e := range [...]unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errsIs(err, e) {
			return true
		}
	}
	return false
}

func (q *published) connect(c net.Conn) {
	ctx, cancel := context.WithTimeout(background(), dialTime)
	defer cancel()
	if q.u == nil {
		in, err := new(net.Dialer).DialContext(ctx, "tcp", q.addr.String())
		if err != nil {
			reset(c)
			return
		}
		join(c, in)
		return
	}
	from := tcpip.FullAddress{}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		from = q.source(a.IP, a.Port)
	}
	if q.u.tcp != nil {
		q.connectKernel(c, from)
		return
	}
	in, err := gonet.DialTCPWithBind(ctx, q.u.stack, from, q.to, q.proto)
	if err != nil && from.Port != 0 && ctx.Err() == nil {
		// The client has used this port for this container a moment ago.
		from.Port = 0
		in, err = gonet.DialTCPWithBind(ctx, q.u.stack, from, q.to, q.proto)
	}
	if err != nil {
		reset(c)
		return
	}
	splice(c, in)
}

// reset refuses a client as the helper was.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // a plain end then
	}
	_ = c.Close()
}

// connectKernel is connect by sockets of the kernel.
func (q *published) connectKernel(c net.Conn, from tcpip.FullAddress) {
	to := addrPort(q.to.Addr, q.to.Port)
	src := addrPort(from.Addr, from.Port)
	in, err := q.u.tcp.make.connection(src, to)
	if errsIs(err, unix.EADDRINUSE) || errsIs(err, unix.EADDRNOTAVAIL) {
		// The client has used this port for this container a moment ago.
		in, err = q.u.tcp.make.connection(netip.AddrPortFrom(src.Addr(), 0), to)
	}
	if err != nil {
		reset(c)
		return
	}
	join(c, in)
}

// dialUDP makes the container's side of a flow.
func (q *published) dialUDP(from *net.UDPAddr) (net.Conn, error) {
	if q.u == nil {
		return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(q.addr))
	}
	src, to := q.source(from.IP, from.Port), q.to
	if q.u.udp != nil {
		c, err := q.u.udp.make.flow(addrPort(src.Addr, src.Port), q.addr)
		if errsIs(err, unix.EADDRINUSE) {
			c, err = q.u.udp.make.flow(addrPort(src.Addr, 0), q.addr)
		}
		return c, err
	}
	c, err := gonet.DialUDP(q.u.stack, &src, &to, q.proto)
	if err != nil {
		src.Port = 0
		c, err = gonet.DialUDP(q.u.stack, &src, &to, q.proto)
	}
	return c, err
}

// receiveAll gives each client of a UDP port a flow of its own.
func (q *published) receiveAll() {
	r := ipv4.NewPacketConn(q.pc)
	for readable(q.pc) == nil {
		q.receive(r)
	}
}

// receive passes on what is there.
func (q *published) receive(r *ipv4.PacketConn) {
	b, _ := batches.Get().(*batch)
	defer batches.Put(b)
	n, err := r.ReadBatch(b.in, unix.MSG_DONTWAIT)
	if err != nil {
		return // of an earlier answer
	}
	for in := b.in[:n]; len(in) > 0; {
		from, ok := in[0].Addr.(*net.UDPAddr)
		if !ok {
			in = in[1:]
			continue
		}
		k := 1
		for k < len(in) {
			a, ok := in[k].Addr.(*net.UDPAddr)
			if !ok || a.Port != from.Port || !a.IP.Equal(from.IP) {
				break
			}
			k++
		}
		if f := q.flow(from); f != nil {
			f.write(b, in[:k])
		}
		in = in[k:]
	}
}

// clientFlow is the container's side of a client.
type clientFlow struct {
	c net.Conn
	w *batchWriter // nil for a connection of the stack's
}

func (f *clientFlow) write(b *batch, in []ipv4.Message) {
	if f.w != nil {
		f.w.write(b, in)
		return
	}
	for i := range in {
		_, _ = f.c.Write(in[i].Buffers[0][:in[i].N]) // lost, as on any network
	}
}

func (q *published) flow(from *net.UDPAddr) *clientFlow {
	key := from.String()
	q.mu.Lock()
	defer q.mu.Unlock()
	if f := q.flows[key]; f != nil {
		return f
	}
	c, err := q.dialUDP(from)
	if err != nil {
		return nil
	}
	f := &clientFlow{c: c}
	u, kernel := c.(*net.UDPConn)
	if kernel {
		f.w = &batchWriter{to: ipv4.NewPacketConn(u)}
		_ = u.SetReadBuffer(4 << 20) // the limits of the host may be lower
	}
	q.flows[key] = f
	go func() {
		if kernel {
			q.answerBatches(u, from)
		} else {
			q.answerEach(c, from)
		}
		q.mu.Lock()
		delete(q.flows, key)
		q.mu.Unlock()
		_ = c.Close() // at its end
	}()
	return f
}

// answerBatches passes a container's answers on to the client.
func (q *published) answerBatches(c *net.UDPConn, to *net.UDPAddr) {
	r := ipv4.NewPacketConn(c)
	w := &batchWriter{to: ipv4.NewPacketConn(q.pc), addr: to}
	for {
		_ = c.SetReadDeadline(time.Now().Add(flowTime)) // a closed one fails below
		if readable(c) != nil {
			return
		}
		w.pass(r)
	}
}

// answerEach is answerBatches for a connection of the stack's.
func (q *published) answerEach(c net.Conn, to *net.UDPAddr) {
	buf := make([]byte, datagram)
	for {
		_ = c.SetReadDeadline(time.Now().Add(flowTime)) // a closed one fails below
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		_, _ = q.pc.WriteToUDP(buf[:n], to) // lost, as on any network
	}
}
