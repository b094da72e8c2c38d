package uplink

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network"
)

// The name server of user-defined networks: one socket for UDP and one for TCP
// on each network's gateway address. It answers for the names, aliases and ids
// of the containers on the networks that the client is on; the rest it asks the
// client's own servers (--dns), or the host's. Questions from a network that is
// internal never leave.

// ttl is how long an answer about a container may be kept: one that is started
// again may have another address.
const ttl = 5

// names knows who is on which network.
type names struct {
	s        *server
	upstream *upstream

	mu        sync.Mutex
	listeners map[string]*dnsListener // by network id
}

type dnsListener struct {
	n    *network.Network
	pcs  []net.PacketConn
	lns  []net.Listener
	name string
}

func (l *dnsListener) close() {
	for _, c := range l.pcs {
		_ = c.Close() // who has asked asks again
	}
	for _, c := range l.lns {
		_ = c.Close() // only listened
	}
}

// serve listens on the network's gateway addresses, if nobody does yet.
func (d *names) serve(n *network.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listeners[n.ID] != nil {
		return nil
	}
	l := &dnsListener{n: n, name: n.Name}
	for _, sub := range n.Subnets {
		if !sub.Gateway.IsValid() {
			continue
		}
		if err := d.listen(l, sub.Gateway.Bytes()); err != nil {
			l.close()
			return err
		}
	}
	d.listeners[n.ID] = l
	for _, c := range l.pcs {
		go d.udp(l, c)
	}
	for _, c := range l.lns {
		go d.tcp(l, c)
	}
	return nil
}

// listen opens the sockets in the namespace of the bridges. The bridge need not
// be there yet (IP_FREEBIND).
func (d *names) listen(l *dnsListener, addr []byte) error {
	var router *os.File
	if d.s.up != nil {
		router = d.s.up.router
	}
	for _, typ := range [...]int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		var fd int
		err := netlink.In(router, func() (err error) {
			family, level, free := unix.AF_INET, unix.IPPROTO_IP, unix.IP_FREEBIND
			if len(addr) == 16 {
				family, level, free = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
			}
			if fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
				return os.NewSyscallError("socket", err)
			}
			_ = unix.SetsockoptInt(fd, level, free, 1)                        // else bind says what is wrong
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // the last helper's connections
			var sa unix.Sockaddr
			if len(addr) == 4 {
				sa = &unix.SockaddrInet4{Port: 53, Addr: [4]byte(addr)}
			} else {
				sa = &unix.SockaddrInet6{Port: 53, Addr: [16]byte(addr)}
			}
			if err = unix.Bind(fd, sa); err == nil && typ == unix.SOCK_STREAM {
				err = unix.Listen(fd, 64)
			}
			if err != nil {
				_ = unix.Close(fd) // never used
				return os.NewSyscallError("bind "+net.JoinHostPort(net.IP(addr).String(), "53"), err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "name server")
		if typ == unix.SOCK_DGRAM {
			c, err := net.FilePacketConn(f)
			_ = f.Close() // package net has made a copy
			if err != nil {
				return err
			}
			l.pcs = append(l.pcs, c)
			continue
		}
		c, err := net.FileListener(f)
		_ = f.Close() // package net has made a copy
		if err != nil {
			return err
		}
		l.lns = append(l.lns, c)
	}
	return nil
}

// sweep closes what serves networks that nobody is on any more.
func (d *names) sweep() {
	used := map[string]bool{}
	d.s.mu.Lock()
	for c := range d.s.clients {
		for _, e := range c.reg.Endpoints {
			used[e.NetworkID] = true
		}
	}
	d.s.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, l := range d.listeners {
		if !used[id] {
			l.close()
			delete(d.listeners, id)
		}
	}
}

func (d *names) udp(l *dnsListener, c net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an error of an earlier answer
		}
		q := append([]byte(nil), buf[:n]...)
		go func() {
			if a := d.answer(l, hostOf(from), q, "udp"); a != nil {
				_, _ = c.WriteTo(a, from) // lost, as on any network
			}
		}()
	}
}

func (d *names) tcp(l *dnsListener, ln net.Listener) {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: later
			continue
		}
		go serveStream(c, func(q []byte) []byte { return d.answer(l, hostOf(c.RemoteAddr()), q, "tcp") })
	}
}

func hostOf(a net.Addr) net.IP {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.IP
	case *net.TCPAddr:
		return a.IP
	}
	return nil
}

// serveStream answers questions that have their length in front (RFC 1035, 4.2.2).
func serveStream(c net.Conn, answer func([]byte) []byte) {
	defer c.Close()
	for {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // a closed one fails below
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		q := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, q); err != nil {
			return
		}
		a := answer(q)
		if a == nil || len(a) > 65535 {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
			return
		}
	}
}

// answer returns the reply to a question that client asks on network l; nil for
// what is no question.
func (d *names) answer(l *dnsListener, client net.IP, q []byte, proto string) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(q)
	if err != nil || h.Response {
		return nil
	}
	question, err := p.Question()
	if err != nil || question.Class != dnsmessage.ClassINET {
		return reply(h, dnsmessage.Question{}, dnsmessage.RCodeNotImplemented, nil)
	}
	if question.Type == dnsmessage.TypePTR {
		if name := d.reverse(l, client, question.Name.String()); name != "" {
			return reply(h, question, dnsmessage.RCodeSuccess, func(b *dnsmessage.Builder, rh dnsmessage.ResourceHeader) error {
				ptr, err := dnsmessage.NewName(name + ".")
				if err != nil {
					return err
				}
				return b.PTRResource(rh, dnsmessage.PTRResource{PTR: ptr})
			})
		}
	}
	found, ips := d.lookup(l, client, question.Name.String(), question.Type)
	if found {
		return reply(h, question, dnsmessage.RCodeSuccess, func(b *dnsmessage.Builder, rh dnsmessage.ResourceHeader) error {
			for _, ip := range ips {
				var err error
				if four := ip.To4(); four != nil {
					err = b.AResource(rh, dnsmessage.AResource{A: [4]byte(four)})
				} else {
					err = b.AAAAResource(rh, dnsmessage.AAAAResource{AAAA: [16]byte(ip)})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	servers, outside := d.servers(l, client)
	if !outside {
		return reply(h, question, dnsmessage.RCodeNameError, nil)
	}
	a := d.upstream.ask(q, servers, proto)
	if a == nil {
		return reply(h, question, dnsmessage.RCodeServerFailure, nil)
	}
	return a
}

// reply makes an answer of our own.
func reply(h dnsmessage.Header, q dnsmessage.Question, code dnsmessage.RCode, fill func(*dnsmessage.Builder, dnsmessage.ResourceHeader) error) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: code})
	b.EnableCompression()
	err := b.StartQuestions()
	if err == nil && q.Class != 0 {
		err = b.Question(q)
	}
	if err == nil {
		err = b.StartAnswers()
	}
	if err == nil && fill != nil {
		err = fill(&b, dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl})
	}
	if err != nil {
		return nil
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

// lookup finds a container by a name of its own among those that client can
// reach; found without addresses means that it has none of the asked version.
func (d *names) lookup(l *dnsListener, client net.IP, name string, typ dnsmessage.Type) (found bool, ips []net.IP) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	on := d.networksOf(l, client)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for c := range d.s.clients {
		for _, e := range c.reg.Endpoints {
			n := strings.TrimSuffix(name, "."+strings.ToLower(e.Network)) // web.mynet means web on mynet
			if !on[e.NetworkID] || !called(&c.reg, e.Aliases, n) {
				continue
			}
			found = true
			text := e.IP
			if typ == dnsmessage.TypeAAAA {
				text = e.IP6
			}
			if ip := net.ParseIP(text); ip != nil && (typ == dnsmessage.TypeA || typ == dnsmessage.TypeAAAA) {
				ips = append(ips, ip)
			}
		}
	}
	return found, ips
}

func called(r *network.Registration, aliases []string, name string) bool {
	if name == "" {
		return false
	}
	if strings.ToLower(r.Name) == name || r.ID[:12] == name || r.ID == name {
		return true
	}
	for _, a := range aliases {
		if strings.ToLower(a) == name {
			return true
		}
	}
	return false
}

// networksOf returns the networks that client is on, at least l's own.
func (d *names) networksOf(l *dnsListener, client net.IP) map[string]bool {
	on := map[string]bool{l.n.ID: true}
	if c := d.client(l, client); c != nil {
		for _, e := range c.reg.Endpoints {
			on[e.NetworkID] = true
		}
	}
	return on
}

// client finds whose address on l's network it is.
func (d *names) client(l *dnsListener, ip net.IP) *client {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for c := range d.s.clients {
		for _, e := range c.reg.Endpoints {
			if e.NetworkID == l.n.ID && (ip.Equal(net.ParseIP(e.IP)) || ip.Equal(net.ParseIP(e.IP6))) {
				return c
			}
		}
	}
	return nil
}

// servers are whom to ask for client; outside is false when nobody may be asked.
func (d *names) servers(l *dnsListener, client net.IP) (own []string, outside bool) {
	c := d.client(l, client)
	if c == nil {
		return nil, !l.n.Internal
	}
	for _, n := range c.reg.Networks {
		outside = outside || !n.Internal
	}
	return c.reg.DNS, outside
}

// reverse is the name of the container with the address that an in-addr.arpa
// name spells.
func (d *names) reverse(l *dnsListener, client net.IP, name string) string {
	rev, ok := strings.CutSuffix(strings.ToLower(name), ".in-addr.arpa.")
	part := strings.Split(rev, ".")
	if !ok || len(part) != 4 {
		return ""
	}
	ip := part[3] + "." + part[2] + "." + part[1] + "." + part[0]
	on := d.networksOf(l, client)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for c := range d.s.clients {
		for _, e := range c.reg.Endpoints {
			if on[e.NetworkID] && e.IP == ip {
				return c.reg.Name + "." + e.Network
			}
		}
	}
	return ""
}

// upstream asks the name servers of the host, which it reads anew when
// resolv.conf has changed (a VPN that comes or goes).
type upstream struct {
	path string

	mu      sync.Mutex
	read    time.Time // modification time of what was read
	servers []string
}

// resolvConf is the host's.
const resolvConf = "/etc/resolv.conf"

func (u *upstream) list() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	fi, err := os.Stat(u.path)
	if err != nil {
		return u.servers
	}
	if fi.ModTime().Equal(u.read) {
		return u.servers
	}
	text, err := os.ReadFile(u.path)
	if err != nil {
		return u.servers
	}
	u.servers, u.read = nil, fi.ModTime()
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			u.servers = append(u.servers, f[1])
		}
	}
	return u.servers
}

// askTime bounds one server's answer.
const askTime = 3 * time.Second

// ask passes a question on as it is, and returns the first answer; nil for none.
func (u *upstream) ask(q []byte, servers []string, proto string) []byte {
	if len(servers) == 0 {
		servers = u.list()
	}
	for _, s := range servers {
		if a, err := exchange(q, s, proto); err == nil {
			return a
		}
	}
	return nil
}

func exchange(q []byte, server, proto string) ([]byte, error) {
	c, err := (&net.Dialer{Timeout: askTime}).DialContext(background(), proto, net.JoinHostPort(server, strconv.Itoa(53)))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(askTime)) // a closed one fails below
	if proto == "tcp" {
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
			return nil, err
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return nil, err
		}
		a := make([]byte, binary.BigEndian.Uint16(size[:]))
		_, err := io.ReadFull(c, a)
		return a, err
	}
	if _, err := c.Write(q); err != nil {
		return nil, err
	}
	a := make([]byte, 65536)
	for {
		n, err := c.Read(a)
		if err != nil {
			return nil, err
		}
		if n >= 2 && len(q) >= 2 && a[0] == q[0] && a[1] == q[1] {
			return a[:n], nil
		}
	}
}

// serveFlow answers the questions of one UDP flow to the uplink's name server.
func (u *upstream) serveFlow(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 65536)
	for {
		_ = c.SetReadDeadline(time.Now().Add(dnsFlowTime)) // a closed one fails below
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		q := append([]byte(nil), buf[:n]...)
		go func() {
			if a := u.ask(q, nil, "udp"); a != nil {
				_, _ = c.Write(a) // lost, as on any network
			}
		}()
	}
}

// serveTCP answers those of a TCP connection.
func (u *upstream) serveTCP(c net.Conn, servers []string) {
	serveStream(c, func(q []byte) []byte { return u.ask(q, servers, "tcp") })
}
