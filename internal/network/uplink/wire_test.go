package uplink

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/testenv"
)

// The wire tests have a host of their own, whose only neighbour is the client; what
// comes to the client from the host is recorded.
//
//	client 10.99.0.2 ══ 10.99.0.1 host ── bridges ── containers
//	       fd99::2      fd99::1
//
// With root the packets go through the host's packet filter, for a user through
// the helper, a process of its own. What is seen outside must be the same.

const (
	hostV4, clientV4 = "10.99.0.1", "10.99.0.2"
	hostV6, clientV6 = "fd99::1", "fd99::2"
)

type lab struct {
	*rig
	client *os.File
	tap    int // packet socket at the client

	mu   sync.Mutex
	seen [][]byte
}

func newLab(t *testing.T, rootless bool) *lab {
	t.Helper()
	testenv.Need(t, testenv.Root)
	// The thread is in another namespace for good: it ends with the test's goroutine.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	l := &lab{rig: newRig(t)}
	l.env.Rootless = rootless
	l.st = network.Open(l.env)
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var err error
	if l.client, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.client.Close() })
	l.addresses(nil, hostV4, hostV6, clientV4, clientV6)
	l.addresses(l.client, clientV4, clientV6, hostV4, hostV6)
	l.capture()
	l.resolver("192.0.2.53") // nobody
	l.startProcess()
	return l
}

// addresses sets one end of the wire up; the client's end is made with the host's.
func (l *lab) addresses(ns *os.File, v4, v6, via4, via6 string) {
	l.t.Helper()
	c, err := netlink.DialIn(ns, unix.NETLINK_ROUTE)
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // at the function's end
	b := netlink.NewBatch()
	b.SetUp(1)
	if ns == nil {
		b.AddVeth("ext", [6]byte{}, 0, 0, &netlink.Peer{Name: "ext", PidNS: l.client})
	}
	if err := c.Do(b); err != nil {
		l.t.Fatal(err)
	}
	i, err := c.Index("ext")
	if err != nil || i == 0 {
		l.t.Fatal(i, err)
	}
	b = netlink.NewBatch()
	b.SetUp(i)
	for _, a := range [...]struct {
		own, via string
		bits     int
	}{{v4, via4, 24}, {v6, via6, 64}} {
		b.AddAddr(i, netip.MustParseAddr(a.own).AsSlice(), a.bits)
		if ns == nil {
			b.AddRoute(i, nil, 0, netip.MustParseAddr(a.via).AsSlice())
		}
	}
	if err := c.Do(b); err != nil {
		l.t.Fatal(err)
	}
}

// capture records what comes to the client.
func (l *lab) capture() {
	l.t.Helper()
	if err := netlink.In(l.client, func() (err error) {
		l.tap, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(unix.ETH_P_ALL<<8|unix.ETH_P_ALL>>8))
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(l.tap, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := unix.Recvfrom(l.tap, buf, 0)
			ll, ok := from.(*unix.SockaddrLinklayer)
			if err == nil && ok && ll.Pkttype != unix.PACKET_OUTGOING && ll.Hatype != unix.ARPHRD_LOOPBACK {
				l.mu.Lock()
				l.seen = append(l.seen, bytes.Clone(buf[:n]))
				l.mu.Unlock()
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	l.t.Cleanup(func() {
		close(stop)
		<-done
		_ = unix.Close(l.tap)
	})
}

// clean reports what the client has seen that it must not: a source that is not
// the host's, or one of the words.
func (l *lab) clean(words ...string) {
	l.t.Helper()
	time.Sleep(200 * time.Millisecond) // for what is still on its way; more would only find more
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, p := range l.seen {
		var src netip.Addr
		switch {
		case len(p) >= 20 && p[0]>>4 == 4:
			src, _ = netip.AddrFromSlice(p[12:16])
		case len(p) >= 40 && p[0]>>4 == 6:
			src, _ = netip.AddrFromSlice(p[8:24])
		default:
			continue // ARP
		}
		n++
		if s := src.String(); s != hostV4 && s != hostV6 && !src.IsLinkLocalUnicast() && !src.IsUnspecified() {
			l.t.Errorf("a packet from %s on the wire: %x", src, p[:min(len(p), 64)])
		}
		for _, w := range words {
			if bytes.Contains(p, []byte(w)) {
				l.t.Errorf("%q on the wire, from %s", w, src)
			}
		}
	}
	if n == 0 {
		l.t.Error("nothing was recorded")
	}
}

// resolver makes server what the host's resolv.conf names.
func (l *lab) resolver(server string) {
	l.t.Helper()
	name := filepath.Dir(l.env.Data) + "/resolv.conf"
	if err := os.WriteFile(name+".new", []byte("nameserver "+server+"\n"), 0o644); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		l.t.Fatal(err)
	}
}

// bigAnswer is how many addresses dnsServer has for "big": more than a datagram takes.
const bigAnswer = 60

// dnsServer answers at the client: 192.0.2.1 for every name, bigAnswer times for
// big.example, which is cut over UDP.
func (l *lab) dnsServer() {
	l.t.Helper()
	var pc net.PacketConn
	var ln net.Listener
	if err := netlink.In(l.client, func() (err error) {
		if pc, err = net.ListenPacket("udp", clientV4+":53"); err == nil {
			ln, err = net.Listen("tcp", clientV4+":53")
		}
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _, _ = pc.Close(), ln.Close() })
	answer := func(q []byte, cut bool) []byte {
		var m dnsmessage.Message
		if m.Unpack(q) != nil || len(m.Questions) != 1 {
			return nil
		}
		m.Response = true
		n := 1
		if strings.HasPrefix(m.Questions[0].Name.String(), "big.") {
			n = bigAnswer
			m.Truncated = cut
		}
		if !m.Truncated {
			for i := range n {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
					Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, byte(1 + i)}},
				})
			}
		}
		m.Additionals = nil
		out, err := m.Pack()
		if err != nil {
			return nil
		}
		return out
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(answer(buf[:n], true), from)
		}
	}()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serveStream(c, func(q []byte) []byte { return answer(q, false) })
		}
	}()
}

func asRootAndUser(t *testing.T, f func(*testing.T, *lab)) {
	for _, who := range [...]string{"root", "user"} {
		t.Run(who, func(t *testing.T) { f(t, newLab(t, who == "user")) })
	}
}

func TestOnTheWire(t *testing.T) {
	asRootAndUser(t, func(t *testing.T, l *lab) {
		for _, q := range [...]network.Request{{Name: "six", IPv6: true}, {Name: "closed", Internal: true, IPv6: true}} {
			if _, err := l.st.Create(q); err != nil {
				t.Fatal(err)
			}
		}
		web := l.box(container.Config{Name: "web", Network: "six", Publish: []string{"8080:80", "8080:80/udp", hostV4 + ":8081:80", "[" + hostV6 + "]:8082:80", "127.0.0.1:8083:80", "[::1]:8084:80", "8085:81/udp"}})
		other := l.box(container.Config{Name: "other", Network: "six"})
		in := l.box(container.Config{Name: "in", Network: "closed"})
		out := tellSource(t, l.client, ":0")
		web6 := web.a.State.Endpoints[0].IP6
		for _, proto := range [...]string{"tcp", "udp"} {
			// In: the container sees the client itself.
			l.sees(l.client, proto, hostV4, 8080, clientV4)
			l.sees(l.client, proto, hostV6, 8080, clientV6)
			// Out: the client sees the host.
			l.sees(web.ns, proto, clientV4, out, hostV4)
			l.sees(web.ns, proto, clientV6, out, hostV6)
			// The host itself.
			l.sees(nil, proto, hostV4, 8080, hostV4)
			l.sees(nil, proto, hostV6, 8080, hostV6)
			l.reaches(nil, proto, "127.0.0.1", 8080)
			l.reaches(nil, proto, "::1", 8080)
			// Neighbours, and by the host's address.
			l.sees(other.ns, proto, web.a.Addr(), 80, other.a.Addr())
			l.sees(other.ns, proto, web6, 80, other.a.State.Endpoints[0].IP6)
			l.reaches(other.ns, proto, hostV4, 8080)
			l.reaches(other.ns, proto, hostV6, 8080)
			l.reaches(web.ns, proto, hostV4, 8080)
		}
		// One address only.
		l.sees(l.client, "tcp", hostV4, 8081, clientV4)
		l.sees(l.client, "tcp", hostV6, 8082, clientV6)
		l.reaches(nil, "tcp", "127.0.0.1", 8083)
		l.reaches(nil, "tcp", "::1", 8084)
		for _, no := range [...]struct {
			from *os.File
			host string
			port int
		}{
			{l.client, hostV6, 8081},
			{l.client, hostV4, 8082},
			{l.client, hostV4, 8083},
			{l.client, hostV6, 8084},
			{l.client, hostV4, 80},
			{in.ns, clientV4, out},
			{in.ns, clientV6, out},
			{in.ns, web.a.Addr(), 80},
			{in.ns, web6, 80},
			{in.ns, hostV4, 8080},
		} {
			l.refused(no.from, "tcp", no.host, no.port)
		}
		// A port that is closed is refused, not opened and then cut.
		if _, err := ask(web.ns, "tcp", clientV4, 1); !errsIs(err, unix.ECONNREFUSED) {
			t.Errorf("a closed port: %v", err)
		}
		if _, err := ask(web.ns, "tcp", clientV6, 1); !errsIs(err, unix.ECONNREFUSED) {
			t.Errorf("a closed port, IPv6: %v", err)
		}
		l.loopback(web)
		// Datagrams that are passed on many at a time keep their bounds.
		echo(t, web.ns, 81)
		echo(t, l.client, 7081)
		l.burst(l.client, hostV4, 8085)
		l.burst(l.client, hostV6, 8085)
		l.burst(web.ns, clientV4, 7081)
		l.burst(web.ns, clientV6, 7081)
		l.clean()
	})
}

// loopback: the host's own is not reached, whatever a container tries.
func (l *lab) loopback(b *box) {
	l.t.Helper()
	four, six := tellSource(l.t, nil, "127.0.0.1:0"), tellSource(l.t, nil, "[::1]:0")
	for _, host := range [...]string{"127.0.0.1", hostV4, b.a.HostAddr(), network.UplinkHost, network.UplinkRouter} {
		l.refused(b.ns, "tcp", host, four)
		l.refused(b.ns, "udp", host, four)
	}
	for _, host := range [...]string{"::1", hostV6, network.UplinkHost6, network.UplinkRouter6} {
		l.refused(b.ns, "tcp", host, six)
		l.refused(b.ns, "udp", host, six)
	}
}

// echo sends datagrams back.
func echo(t *testing.T, ns *os.File, port int) {
	t.Helper()
	for _, v := range [...]string{"udp4", "udp6"} {
		var pc net.PacketConn
		if err := netlink.In(ns, func() (err error) {
			pc, err = net.ListenPacket(v, fmt.Sprint(":", port))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		go func() {
			buf := make([]byte, 65536)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(buf[:n], from)
			}
		}()
	}
}

// burst sends datagrams of several sizes as fast as it can, and wants them back
// in any order. Some may be lost; then it sends those again.
func (l *lab) burst(ns *os.File, host string, port int) {
	l.t.Helper()
	want := map[string]bool{}
	for i, size := range [...]int{1400, 1400, 1400, 700, 1400, 1400, 1, 1, 1, 2000, 2000, 100, 9000, 40, 1200, 1200, 1200, 1200, 1200, 1199} {
		want[fmt.Sprintf("%02d", i)+strings.Repeat("x", size)] = true
	}
	var c net.Conn
	err := netlink.In(ns, func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(host, strconv.Itoa(port)))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 65536)
	for range 30 {
		for d := range want {
			_, _ = c.Write([]byte(d)) // refused once, it is written again
		}
		for len(want) > 0 {
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			delete(want, string(buf[:n]))
		}
		if len(want) == 0 {
			return
		}
	}
	l.t.Errorf("udp to %s: %d datagrams did not come back whole", host, len(want))
}

func (l *lab) reaches(ns *os.File, proto, host string, port int) {
	l.t.Helper()
	var err error
	for range 10 { // of three seconds, on a busy machine
		if _, err = ask(ns, proto, host, port); err == nil {
			return
		}
		if l.t.Failed() {
			break
		}
	}
	l.t.Errorf("%s to %s:%d: %v", proto, host, port, err)
}

func (l *lab) refused(ns *os.File, proto, host string, port int) {
	l.t.Helper()
	if got, err := askFor(ns, proto, host, port, 500*time.Millisecond); err == nil {
		l.t.Errorf("%s to %s:%d: reached, as %s", proto, host, port, got)
	}
}

func TestNamesOnTheWire(t *testing.T) {
	asRootAndUser(t, func(t *testing.T, l *lab) {
		for _, q := range [...]network.Request{{Name: "six", IPv6: true}, {Name: "closed", Internal: true}} {
			if _, err := l.st.Create(q); err != nil {
				t.Fatal(err)
			}
		}
		web := l.box(container.Config{Name: "web", Network: "six", NetworkAlias: []string{"www"}})
		cli := l.box(container.Config{Name: "cli", Network: "six"})
		own := l.box(container.Config{Name: "own", Network: "six", DNS: []string{clientV4}})
		in := l.box(container.Config{Name: "in", Network: "closed", DNS: []string{clientV4}})
		e := web.a.State.Endpoints[0]
		for _, proto := range [...]string{"udp", "tcp"} {
			l.answers(cli, proto, "www", dnsmessage.TypeA, e.IP)
			l.answers(cli, proto, "www.six", dnsmessage.TypeAAAA, e.IP6)
		}
		l.dnsServer()
		l.answers(own, "udp", "outside.example", dnsmessage.TypeA, "192.0.2.1") // its own server
		// The host's resolver changes, and is followed.
		l.resolver(clientV4)
		l.answers(cli, "udp", "vpn.example", dnsmessage.TypeA, "192.0.2.1")
		l.answers(cli, "tcp", "vpn.example", dnsmessage.TypeA, "192.0.2.1")
		// Too long for a datagram.
		if m := l.query(cli, "udp", "big.example", dnsmessage.TypeA); !m.Truncated {
			t.Errorf("a long answer over UDP: %d addresses, truncated %v", len(m.Answers), m.Truncated)
		}
		if m := l.query(cli, "tcp", "big.example", dnsmessage.TypeA); m.Truncated || len(m.Answers) != bigAnswer {
			t.Errorf("a long answer over TCP: %d addresses, truncated %v", len(m.Answers), m.Truncated)
		}
		// Questions of an internal network stay, even with a server of one's own.
		for _, proto := range [...]string{"udp", "tcp"} {
			if m := l.query(in, proto, "secret.example", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeNameError {
				t.Errorf("from an internal network over %s: %v", proto, m.RCode)
			}
		}
		l.clean("secret")
	})
}

// query asks the name server that the container has.
func (l *lab) query(b *box, proto, name string, typ dnsmessage.Type) (got dnsmessage.Message) {
	l.t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name + "."), Type: typ, Class: dnsmessage.ClassINET},
	}}
	q, err := m.Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	for range 10 {
		var a []byte
		if err = netlink.In(b.ns, func() (err error) {
			a, err = exchange(q, b.a.DNS()[0], proto)
			return err
		}); err == nil {
			err = got.Unpack(a)
		}
		if err == nil && got.RCode != dnsmessage.RCodeServerFailure {
			return got
		}
	}
	l.t.Errorf("%s over %s: %v %v", name, proto, got.RCode, err)
	return got
}

func (l *lab) answers(b *box, proto, name string, typ dnsmessage.Type, want string) {
	l.t.Helper()
	m := l.query(b, proto, name, typ)
	for _, x := range m.Answers {
		switch v := x.Body.(type) {
		case *dnsmessage.AResource:
			if netip.AddrFrom4(v.A).String() == want {
				return
			}
		case *dnsmessage.AAAAResource:
			if netip.AddrFrom16(v.AAAA).String() == want {
				return
			}
		}
	}
	l.t.Errorf("%s %s over %s: %v, want %s", name, typ, proto, m.Answers, want)
}

// TestSCTP: the first packet of an association reaches the container, from its
// client. The machine's kernel need not have SCTP for that.
func TestSCTP(t *testing.T) {
	l := newLab(t, false)
	web := l.box(container.Config{Publish: []string{"9000:80/sctp"}})
	var tap, raw int
	if err := netlink.In(web.ns, func() (err error) {
		tap, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tap) //nolint:errcheck // at the test's end
	_ = unix.SetsockoptTimeval(tap, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	if err := netlink.In(l.client, func() (err error) {
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw) //nolint:errcheck // at the test's end
	// RFC 9260: ports, tag 0, checksum; INIT: type, flags, length, tag, window, streams, number.
	init := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 5000), 9000)
	init = append(init, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(init[8:], crc32.Checksum(init, crc32.MakeTable(crc32.Castagnoli)))
	buf := make([]byte, 2048)
	for range 20 {
		if err := unix.Sendto(raw, init, 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr(hostV4).As4()}); err != nil {
			t.Fatal(err)
		}
		n, _, err := unix.Recvfrom(tap, buf, 0)
		if err != nil {
			continue
		}
		p := buf[:n]
		if src := netip.AddrFrom4([4]byte(p[12:16])); src.String() != clientV4 || binary.BigEndian.Uint16(p[22:]) != 80 {
			t.Errorf("seen from %s, to port %d", src, binary.BigEndian.Uint16(p[22:]))
		}
		return
	}
	t.Error("the packet did not come")
}
