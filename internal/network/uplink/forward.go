package uplink

import (
	"io"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/isle-engine/isle/internal/network"
)

const (
	// dialTime bounds a connection attempt; the kernel's own takes two minutes.
	dialTime = 30 * time.Second
	// flowTime is how long a UDP flow is remembered without a packet, as the
	// kernel's connection tracking does for those that were answered.
	flowTime = 120 * time.Second
	// dnsFlowTime is that of a question to a name server.
	dnsFlowTime = 15 * time.Second
	// waiting bounds the connections that are being made at one time.
	waiting = 4096
)

// forward installs the handlers for what containers send.
func (u *uplink) forward() {
	t := tcp.NewForwarder(u.stack, 0, waiting, func(r *tcp.ForwarderRequest) { go u.tcpOut(r) })
	u.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, t.HandlePacket)
	d := udp.NewForwarder(u.stack, func(r *udp.ForwarderRequest) bool { return u.udpOut(r) })
	u.stack.SetTransportProtocolHandler(udp.ProtocolNumber, d.HandlePacket)
}

// target is where a packet for an address goes on the host; nil: nowhere.
func target(a tcpip.Address) net.IP {
	i := net.IP(a.AsSlice())
	switch i.String() {
	case network.UplinkHost:
		return hostAddr(false)
	case network.UplinkHost6:
		return hostAddr(true)
	}
	// What is the host's alone is not reached by a container's packet, however
	// it is written (::ffff:127.0.0.1).
	if four := i.To4(); four != nil {
		i = four
		if four[0] == 0 || four[0] == 169 && four[1] == 254 && four[2] == 1 {
			return nil
		}
	}
	if i.IsLoopback() || i.IsUnspecified() || i.IsMulticast() || i.IsInterfaceLocalMulticast() || i.Equal(net.IPv4bcast) {
		return nil
	}
	return i
}

// tcpOut makes the host's connection, and then the container's.
func (u *uplink) tcpOut(r *tcp.ForwarderRequest) {
	id := r.ID()
	if id.LocalPort == 53 && id.LocalAddress.String() == network.UplinkDNS {
		if c := accept(r); c != nil {
			u.resolve.serveTCP(c, nil)
		}
		return
	}
	to := target(id.LocalAddress)
	if to == nil {
		r.Complete(true)
		return
	}
	out, err := (&net.Dialer{Timeout: dialTime}).DialContext(background(), "tcp", (&net.TCPAddr{IP: to, Port: int(id.LocalPort)}).String())
	if err != nil {
		r.Complete(true)
		return
	}
	in := accept(r)
	if in == nil {
		_ = out.Close() // nobody to talk to
		return
	}
	splice(in, out)
}

func accept(r *tcp.ForwarderRequest) *gonet.TCPConn {
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		r.Complete(true)
		return nil
	}
	r.Complete(false)
	ep.SocketOptions().SetKeepAlive(true)
	return gonet.NewTCPConn(&wq, ep)
}

// halfCloser is a connection whose directions end one by one.
type halfCloser interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// splice copies both ways until both have ended.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Add(2)
	one := func(to, from net.Conn) {
		defer wg.Done()
		buf, _ := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		_, err := io.CopyBuffer(onlyWriter{to}, onlyReader{from}, *buf)
		if w, ok := to.(halfCloser); ok && err == nil {
			_ = w.CloseWrite() // the other end may be gone
			return
		}
		// A reset is passed on by closing all.
		_ = to.Close()
		_ = from.Close()
	}
	go one(a, b)
	one(b, a)
	wg.Wait()
	_ = a.Close() // both have ended
	_ = b.Close()
}

// join is splice for two sockets of the kernel: bytes go from one to the other by
// splice(2), and are never seen here.
func join(a, b net.Conn) {
	x, ok1 := a.(*net.TCPConn)
	y, ok2 := b.(*net.TCPConn)
	if !ok1 || !ok2 {
		splice(a, b)
		return
	}
	var wg sync.WaitGroup
	wg.Add(2)
	one := func(to, from *net.TCPConn) {
		defer wg.Done()
		if _, err := to.ReadFrom(from); err == nil {
			_ = to.CloseWrite() // the other end may be gone
			return
		}
		// A reset is passed on.
		for _, c := range [...]*net.TCPConn{to, from} {
			_ = c.SetLinger(0) // one that is closed already
			_ = c.Close()
		}
	}
	go one(x, y)
	one(y, x)
	wg.Wait()
	_ = x.Close() // both have ended
	_ = y.Close()
}

// onlyWriter and onlyReader hide the methods that io.Copy would prefer, which
// are for pairs of kernel sockets.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// udpOut starts a flow of datagrams from a container.
func (u *uplink) udpOut(r *udp.ForwarderRequest) bool {
	id := r.ID()
	dns := id.LocalPort == 53 && id.LocalAddress.String() == network.UplinkDNS
	to := target(id.LocalAddress)
	if to == nil && !dns {
		return false // the stack answers that the port is closed
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		return true // the flow is there already
	}
	in := gonet.NewUDPConn(&wq, ep)
	go func() {
		if dns {
			u.resolve.serveFlow(in)
			return
		}
		out, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: to, Port: int(id.LocalPort)})
		if err != nil {
			_ = in.Close() // the datagram is lost, as on any network
			return
		}
		idle := flowTime
		if id.LocalPort == 53 {
			idle = dnsFlowTime
		}
		relay(in, out, idle)
	}()
	return true
}

// relay copies datagrams both ways until none has come for a while.
func relay(a, b net.Conn, idle time.Duration) {
	var wg sync.WaitGroup
	wg.Add(2)
	one := func(to, from net.Conn) {
		defer wg.Done()
		buf := make([]byte, 65536)
		for {
			_ = from.SetReadDeadline(time.Now().Add(idle)) // a closed one fails below
			n, err := from.Read(buf)
			if err != nil {
				break
			}
			_ = to.SetReadDeadline(time.Now().Add(idle)) // one direction keeps the other alive
			if _, err := to.Write(buf[:n]); err != nil {
				continue // refused once is no reason to end: the service may be starting
			}
		}
		_ = a.Close() // ends the other direction as well
		_ = b.Close()
	}
	go one(a, b)
	one(b, a)
	wg.Wait()
}
