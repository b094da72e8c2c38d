package uplink

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network"
)

// Where the kernel can (nft_tproxy, nft_socket), connections end at its own
// sockets in the user's namespace, not at a stack of ours: bytes then pass from
// socket to socket by splice(2), and nobody copies or cuts them up. These sockets
// have the addresses of others (IP_TRANSPARENT): of the server that the container
// means, or of the client that a published port has.
//
// What has to be steered to them:
//
//	a connection's first packet   comes here by the uplink, as everything; sent
//	                              back into the namespace when the host's side
//	                              stands, it is given to our listener
//	all that follows              to the socket it belongs to, by a mark and a
//	                              routing table that calls every address local

// steerTable holds the rules. The helper makes it anew at its start: its
// listeners have other ports each time.
var steerTable = netlink.Table{Family: unix.NFPROTO_INET, Name: "isle-uplink"}

// steerMark and steerRoutes are the mark and the number of the routing table,
// both the user's namespace's own.
const (
	steerMark   = 0x151e
	steerRoutes = 5150
)

// tcpFlags are those that tell a connection's first packet (FIN, SYN, RST, ACK).
const (
	tcpFlags = 0x17
	tcpSYN   = 0x02
)

// steer sets up the namespace's side for listeners on the two ports; port6 is 0
// where there is no IPv6.
func steer(router *os.File, port4, port6 int) error {
	c, err := netlink.DialIn(router, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	for _, fam := range [...]byte{unix.AF_INET, unix.AF_INET6} {
		if fam == unix.AF_INET6 && port6 == 0 {
			continue
		}
		b := netlink.NewBatch()
		b.LocalByMark(fam, steerMark, steerRoutes)
		if err := c.Try(b, unix.EEXIST); err != nil {
			return err
		}
	}
	nf, err := netlink.DialIn(router, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer nf.Close() //nolint:errcheck // nothing to lose
	b := netlink.NewBatch()
	b.BeginTransaction()
	steerTable.Add(b) // so that it can be deleted
	steerTable.Delete(b)
	steerTable.Add(b)
	steerRules(b, port4, port6)
	b.EndTransaction()
	return nf.DoTransaction(b)
}

// unsteer removes the rules, so that all packets reach the stack.
func unsteer(router *os.File) {
	nf, err := netlink.DialIn(router, unix.NETLINK_NETFILTER)
	if err != nil {
		return
	}
	defer nf.Close() //nolint:errcheck // nothing to lose
	b := netlink.NewBatch()
	b.BeginTransaction()
	steerTable.Delete(b)
	b.EndTransaction()
	_ = nf.DoTransaction(b) // most often there is none
}

func steerRules(b *netlink.Batch, port4, port6 int) {
	const mangle = -150 // after connection tracking
	steerTable.Chain(b, "prerouting", "filter", unix.NF_INET_PRE_ROUTING, mangle)
	r := netlink.R
	uplink := netlink.Ifname(network.UplinkDevice)
	first := []netlink.Expr{netlink.Transport(13, 1, r(8)), netlink.Mask(r(8), []byte{tcpFlags}), netlink.Equal(r(8), []byte{tcpSYN})}
	later := []netlink.Expr{netlink.Transport(13, 1, r(8)), netlink.Mask(r(8), []byte{tcpFlags}), netlink.NotEqual(r(8), []byte{tcpSYN})}
	proto := func(p byte) []netlink.Expr {
		return []netlink.Expr{netlink.Meta(unix.NFT_META_L4PROTO, r(9)), netlink.Equal(r(9), []byte{p})}
	}
	mark := []netlink.Expr{netlink.Load(r(8), netlink.Host32(steerMark)), netlink.SetMark(r(8)), netlink.Verdict(netlink.Accept)}
	rule := func(parts ...[]netlink.Expr) {
		var all []netlink.Expr
		for _, p := range parts {
			all = append(all, p...)
		}
		steerTable.Rule(b, "prerouting", all...)
	}
	for _, l := range [...]struct {
		family byte
		addr   string
		port   int
	}{{unix.NFPROTO_IPV4, network.UplinkRouter, port4}, {unix.NFPROTO_IPV6, network.UplinkRouter6, port6}} {
		if l.port == 0 {
			continue
		}
		addr := netip.MustParseAddr(l.addr).AsSlice()
		rule([]netlink.Expr{
			netlink.Meta(unix.NFT_META_IIFNAME, r(0)), netlink.Equal(r(0), uplink),
			netlink.Meta(unix.NFT_META_NFPROTO, r(9)), netlink.Equal(r(9), []byte{l.family}),
		}, proto(unix.IPPROTO_TCP), first, []netlink.Expr{
			netlink.Load(r(4), addr), netlink.Load(r(10), binary.BigEndian.AppendUint16(nil, uint16(l.port))),
			netlink.ToListener(uint32(l.family), r(4), r(10)),
		}, mark)
	}
	ours := []netlink.Expr{netlink.TransparentSocket(r(8)), netlink.Equal(r(8), []byte{1})}
	// A first packet never: its socket may be one of the past (TIME_WAIT).
	rule(proto(unix.IPPROTO_TCP), later, ours, mark)
	rule(proto(unix.IPPROTO_UDP), ours, mark)
}

// maker makes sockets in the user's network namespace.
type maker chan func()

// newMaker starts a thread that is in the namespace for ever.
func newMaker(router *os.File) (maker, error) {
	m := make(maker)
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(router.Fd()), unix.CLONE_NEWNET)
		ready <- os.NewSyscallError("setns net", err)
		if err != nil {
			return // and the thread with it
		}
		for f := range m {
			f()
		}
	}()
	return m, <-ready
}

// socket makes a socket that may have any address, bound to at.
func (m maker) socket(typ int, at netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	done := make(chan struct{})
	m <- func() {
		fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		close(done)
	}
	<-done
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	level, opt := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) // else bind says what is wrong
	}
	if err = unix.SetsockoptInt(fd, level, opt, 1); err != nil {
		err = os.NewSyscallError("setsockopt IP_TRANSPARENT", err)
	}
	if err == nil && typ == unix.SOCK_DGRAM {
		err = refuseAll(fd)
	}
	if err == nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // else bind says what is wrong
		if at.Port() == 0 && typ == unix.SOCK_STREAM {
			// The port is chosen for the pair of addresses, not for one.
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // fewer ports then
		}
		if err = unix.Bind(fd, sockaddr(at)); err != nil {
			err = os.NewSyscallError("bind "+at.String(), err)
		}
	}
	if err != nil {
		_ = unix.Close(fd) // never used
		return -1, err
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// listen makes the listener of an IP version.
func (m maker) listen(addr string) (*net.TCPListener, int, error) {
	fd, err := m.socket(unix.SOCK_STREAM, netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
	if err != nil {
		return nil, 0, err
	}
	f := os.NewFile(uintptr(fd), "uplink")
	defer f.Close()
	if err := unix.Listen(fd, waiting); err != nil {
		return nil, 0, os.NewSyscallError("listen", err)
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, 0, err
	}
	tcp, ok := ln.(*net.TCPListener)
	at, ok2 := ln.Addr().(*net.TCPAddr)
	if !ok || !ok2 {
		return nil, 0, errors.New("not a TCP listener")
	}
	return tcp, at.Port, nil
}

// connection makes a connection in the user's namespace, from an address that
// need not be this machine's.
func (m maker) connection(from, to netip.AddrPort) (net.Conn, error) {
	fd, err := m.socket(unix.SOCK_STREAM, from)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), to.String())
	defer f.Close()
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		return nil, os.NewSyscallError("connect", err)
	}
	c, err := net.FileConn(f) // of a copy
	if err != nil {
		return nil, err
	}
	if err := connected(c); err != nil {
		_ = c.Close() // of no use
		return nil, err
	}
	return c, nil
}
