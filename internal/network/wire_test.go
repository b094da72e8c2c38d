package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network/ip"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/testenv"
)

// The wire tests have a host of their own: the test's thread is in a new network
// namespace, whose neighbour on 10.99.0.0/24 is the client.
//
//	client 10.99.0.2 ── 10.99.0.1 host ── bridges ── containers
//
// A container is a process that sleeps in a namespace.

type wire struct {
	t      *testing.T
	s      *Store
	client *os.File
}

func newWire(t *testing.T) *wire {
	t.Helper()
	testenv.Need(t, testenv.Root)
	// The thread is in another namespace for good: it ends with the test's goroutine.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	dir := testenv.Dir(t)
	env := config.Env{Data: dir + "/data", Run: dir + "/run"}
	if err := env.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, s: Open(env)}
	pid := w.sleeper()
	w.client = w.ns(pid)
	c := w.dial(nil)
	b := netlink.NewBatch()
	b.SetUp(1)
	b.AddVeth("ext0", [6]byte{}, 0, 0, &netlink.Peer{Name: "ext1", PidNS: w.client})
	w.do(c, b)
	b = netlink.NewBatch()
	b.AddAddr(w.index(c, "ext0"), addrBytes("10.99.0.1"), 24)
	w.do(c, b)
	c = w.dial(w.client)
	b = netlink.NewBatch()
	b.SetUp(1)
	b.SetUp(w.index(c, "ext1"))
	b.AddAddr(w.index(c, "ext1"), addrBytes("10.99.0.2"), 24)
	w.do(c, b)
	return w
}

func (w *wire) dial(ns *os.File) *netlink.Conn {
	w.t.Helper()
	c, err := netlink.DialIn(ns, unix.NETLINK_ROUTE)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *wire) do(c *netlink.Conn, b *netlink.Batch) {
	w.t.Helper()
	if err := c.Do(b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) index(c *netlink.Conn, name string) int {
	w.t.Helper()
	i, err := c.Index(name)
	if err != nil || i == 0 {
		w.t.Fatalf("device %s: %d %v", name, i, err)
	}
	return i
}

// sleeper starts a process in a new network namespace.
func (w *wire) sleeper() int {
	w.t.Helper()
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func (w *wire) ns(pid int) *os.File {
	w.t.Helper()
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = f.Close() })
	return f
}

// box is a container.
type box struct {
	a  *Attachment
	ns *os.File
	ip string
}

func (w *wire) box(c container.Config) *box {
	w.t.Helper()
	rec := &container.Record{ID: state.NewID(), Config: c}
	lock, err := state.LockObject(w.s.env.Run+"/locks", rec.ID, state.NoWait)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = lock.Close() })
	a, err := w.s.Prepare(rec)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = a.Detach() })
	pid := w.sleeper()
	if err := a.Connect(pid); err != nil {
		w.t.Fatal(err)
	}
	b := &box{a: a, ns: w.ns(pid), ip: a.Addr()}
	b.serve(w)
	return b
}

// serve answers on port 80, TCP and UDP, with the address of whoever asks.
func (b *box) serve(w *wire) {
	w.t.Helper()
	var lns []net.Listener
	var pc net.PacketConn
	err := netlink.In(b.ns, func() (err error) {
		for _, n := range [...]string{"tcp4", "tcp6"} {
			ln, err := net.Listen(n, ":80")
			if err != nil && n == "tcp4" {
				return err
			}
			if err == nil {
				lns = append(lns, ln)
			}
		}
		pc, err = net.ListenPacket("udp4", ":80")
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = pc.Close() })
	for _, ln := range lns {
		w.t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintln(c, host)
				_ = c.Close()
			}
		}()
	}
	go func() {
		buf := make([]byte, 10)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = pc.WriteTo([]byte(host+"\n"), from)
		}
	}()
}

// ask connects from a namespace and returns the address it is seen with.
func (w *wire) ask(from *os.File, network, to string) (seen string, err error) {
	var c net.Conn
	err = netlink.In(from, func() error {
		// A dialer that starts no goroutine: it would be in another namespace.
		fd, sa, err := socketFor(network, to)
		if err != nil {
			return err
		}
		tv := unix.Timeval{Sec: 1}
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
		if err := unix.Connect(fd, sa); err != nil {
			_ = unix.Close(fd)
			return err
		}
		f := os.NewFile(uintptr(fd), to)
		defer f.Close()
		c, err = net.FileConn(f)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if network == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if errors.Is(err, io.EOF) && line == "" {
		return "", err
	}
	return strings.TrimSpace(line), err
}

func socketFor(network, to string) (int, unix.Sockaddr, error) {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return -1, nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return -1, nil, err
	}
	typ := unix.SOCK_STREAM
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	a := ip.MustParse(host)
	if a.Is6() {
		fd, err := unix.Socket(unix.AF_INET6, typ|unix.SOCK_CLOEXEC, 0)
		return fd, &unix.SockaddrInet6{Port: n, Addr: [16]byte(a.Bytes())}, err
	}
	fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
	return fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte(a.Bytes())}, err
}

// patience is how many seconds a busy machine has for an answer.
const patience = 20

func (w *wire) sees(from *os.File, network, to, want string) {
	w.t.Helper()
	var got string
	var err error
	for range patience {
		if got, err = w.ask(from, network, to); err == nil {
			break
		}
	}
	if err != nil || got != want {
		w.t.Errorf("%s to %s: seen as %q (%v), want %q", network, to, got, err, want)
	}
}

// reaches asks as often as it takes.
func (w *wire) reaches(from *os.File, network, to string) (err error) {
	for range patience {
		if _, err = w.ask(from, network, to); err == nil {
			return nil
		}
	}
	return err
}

func (w *wire) refused(from *os.File, network, to string) {
	w.t.Helper()
	if got, err := w.ask(from, network, to); err == nil {
		w.t.Errorf("%s to %s: reached, seen as %q", network, to, got)
	}
}

func TestPublishedPorts(t *testing.T) {
	w := newWire(t)
	web := w.box(container.Config{Name: "web", Publish: []string{"8080:80", "8080:80/udp", "127.0.0.1:8081:80", "10.99.0.1:8082:80"}})
	for _, proto := range []string{"tcp", "udp"} {
		w.sees(w.client, proto, "10.99.0.1:8080", "10.99.0.2") // the client's own address
		w.sees(nil, proto, "127.0.0.1:8080", "172.17.0.1")
		w.sees(nil, proto, "10.99.0.1:8080", "10.99.0.1")
	}
	w.sees(nil, "tcp", "127.0.0.1:8081", "172.17.0.1")
	w.sees(w.client, "tcp", "10.99.0.1:8082", "10.99.0.2")
	w.refused(w.client, "tcp", "10.99.0.1:8081")
	w.refused(nil, "tcp", "127.0.0.1:8082")

	// From inside: a neighbour, and the container itself.
	other := w.box(container.Config{Name: "other"})
	if err := w.reaches(other.ns, "tcp", "10.99.0.1:8080"); err != nil {
		t.Errorf("neighbour by the host's address: %v", err)
	}
	if err := w.reaches(web.ns, "tcp", "10.99.0.1:8080"); err != nil {
		t.Errorf("itself by the host's address: %v", err)
	}
	w.sees(other.ns, "tcp", web.ip+":80", other.ip)

	// A neighbour of the host that routes to the container reaches nothing.
	c := w.dial(w.client)
	b := netlink.NewBatch()
	b.AddRoute(w.index(c, "ext1"), addrBytes("172.17.0.0"), 16, addrBytes("10.99.0.1"))
	w.do(c, b)
	w.refused(w.client, "tcp", web.ip+":80")

	// The port is taken: by us, and then by nobody.
	rec := &container.Record{ID: state.NewID(), Config: container.Config{Publish: []string{"8080:80"}}}
	if _, err := w.s.Prepare(rec); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "0.0.0.0:8080/tcp") {
		t.Errorf("a port twice: %v", err)
	}
	if err := web.a.Detach(); err != nil {
		t.Error(err)
	}
	w.refused(w.client, "tcp", "10.99.0.1:8080")
	if left, _ := os.ReadDir(w.s.leases(Default)); len(left) != 2 { // .last and other's
		t.Errorf("leases left: %v", left)
	}
}

// TestLoopbackOfTheHost: route_localnet, which the host's own use of published
// ports needs, does not open the host's loopback to containers (CVE-2020-8558).
func TestLoopbackOfTheHost(t *testing.T) {
	w := newWire(t)
	ln, err := net.Listen("tcp", "127.0.0.1:9999")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // at the test's end
	go func() {
		if c, err := ln.Accept(); err == nil {
			fmt.Fprintln(c, "loopback")
			_ = c.Close()
		}
	}()
	b := w.box(container.Config{})
	c := w.dial(b.ns)
	batch := netlink.NewBatch()
	lo := netlink.NewBatch()
	lo.DelLink("nothing")
	_ = c.Try(lo, unix.ENODEV)
	batch.AddRoute(w.index(c, "eth0"), addrBytes("127.0.0.0"), 8, addrBytes("172.17.0.1"))
	w.do(c, batch)
	if err := netlink.In(b.ns, func() error { return enableSysctl("net/ipv4/conf/all/route_localnet") }); err != nil {
		t.Fatal(err)
	}
	w.refused(b.ns, "tcp", "127.0.0.1:9999")
}

func TestFlushedRulesComeBack(t *testing.T) {
	w := newWire(t)
	w.box(container.Config{Publish: []string{"8080:80"}})
	w.sees(w.client, "tcp", "10.99.0.1:8080", "10.99.0.2")
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // at the test's end
	b := netlink.NewBatch()
	b.BeginTransaction()
	w.s.table.Delete(b)
	b.EndTransaction()
	if err := c.DoTransaction(b); err != nil {
		t.Fatal(err)
	}
	w.refused(w.client, "tcp", "10.99.0.1:8080")
	w.box(container.Config{}) // any start
	w.sees(w.client, "tcp", "10.99.0.1:8080", "10.99.0.2")
	if n, err := w.s.table.Rules(c); n != ruleCount || err != nil {
		t.Errorf("%d rules, %v; want %d", n, err, ruleCount)
	}
}

func TestNetworksAreApart(t *testing.T) {
	w := newWire(t)
	for _, r := range []Request{{Name: "one", IPv6: true}, {Name: "two"}, {Name: "closed", Internal: true}} {
		if _, err := w.s.Create(r); err != nil {
			t.Fatal(err)
		}
	}
	// The helper is not what is tested here.
	mk := func(name string) *box { return w.plain(name) }
	one, one2, two, closed, closed2 := mk("one"), mk("one"), mk("two"), mk("closed"), mk("closed")
	w.sees(one.ns, "tcp", one2.ip+":80", one.ip)
	w.sees(one.ns, "tcp", "["+one2.a.State.Endpoints[0].IP6+"]:80", one.a.State.Endpoints[0].IP6)
	w.sees(closed.ns, "tcp", closed2.ip+":80", closed.ip)
	for _, from := range []*box{two, closed} {
		w.refused(from.ns, "tcp", one.ip+":80")
		w.refused(one.ns, "tcp", from.ip+":80")
	}
	// Out: to the client, with the host's address; not from an internal network.
	cl := &box{ns: w.client}
	cl.serve(w)
	w.sees(two.ns, "tcp", "10.99.0.2:80", "10.99.0.1")
	w.refused(closed.ns, "tcp", "10.99.0.2:80")
	if _, err := w.s.Remove("two"); !errors.Is(err, errs.Conflict) {
		t.Errorf("removed with a container on it: %v", err)
	}
	if err := two.a.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Remove("two"); err != nil {
		t.Error(err)
	}
}

// plain is a container on a user-defined network without the name server.
func (w *wire) plain(network string) *box {
	w.t.Helper()
	id := state.NewID()
	lock, err := state.LockObject(w.s.env.Run+"/locks", id, state.NoWait)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = lock.Close() })
	a := &Attachment{s: w.s, id: id}
	if err := a.join(&container.Endpoint{Network: network}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = a.Detach() })
	pid := w.sleeper()
	if err := a.Connect(pid); err != nil {
		w.t.Fatal(err)
	}
	b := &box{a: a, ns: w.ns(pid), ip: a.Addr()}
	b.serve(w)
	return b
}

// TestLeases: no two containers get one address, and the dead's are found.
func TestLeases(t *testing.T) {
	dir := testenv.Dir(t)
	env := config.Env{Data: dir + "/data", Run: dir + "/run"}
	if err := env.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	s := Open(env)
	small, _ := ip.ParsePrefix("10.77.0.0/29")
	n, err := s.Create(Request{Name: "small", Subnets: []Subnet{{Subnet: small}}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[ip.Addr]bool{}
	var ids []string
	var locks []*state.Lock
	for range 5 { // 8 less network, gateway and broadcast
		id := state.NewID()
		l, err := state.LockObject(env.Run+"/locks", id, state.NoWait)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // at the test's end
		a, err := s.lease(n, &n.Subnets[0], id, ip.Addr{})
		if err != nil || seen[a] || a == n.Subnets[0].Gateway {
			t.Fatalf("%v, %v", a, err)
		}
		seen[a] = true
		ids, locks = append(ids, id), append(locks, l)
	}
	if a, err := s.lease(n, &n.Subnets[0], state.NewID(), ip.Addr{}); !errors.Is(err, errs.Unavailable) {
		t.Errorf("a full network gave %v, %v", a, err)
	}
	_ = locks[2].Close() // its monitor is killed
	if a, err := s.lease(n, &n.Subnets[0], ids[0], ip.Addr{}); err != nil {
		t.Errorf("the address of the dead: %v, %v", a, err)
	}
	if _, err := s.Create(Request{Name: "again", Subnets: []Subnet{{Subnet: small}}}); err == nil {
		t.Error("two networks with one subnet")
	}
}

// TestRulesComeBackUnasked: whoever lives puts them back.
func TestRulesComeBackUnasked(t *testing.T) {
	w := newWire(t)
	b := w.box(container.Config{Publish: []string{"8080:80"}})
	other := w.box(container.Config{})
	// What starts and ends do wakes nobody.
	if err := w.box(container.Config{Publish: []string{"8081:80"}}).a.Detach(); err != nil {
		t.Fatal(err)
	}
	ready := func(a *Attachment) bool {
		p := []unix.PollFd{{Fd: int32(a.Watch().Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1
	}
	if ready(b.a) {
		t.Error("woken by another container's start and end")
	}
	flush(t, w)
	for _, x := range []*box{b, other} {
		if !ready(x.a) {
			t.Fatal("not woken by a flush")
		}
		if err := x.a.Restore(); err != nil {
			t.Fatal(err)
		}
		w.sees(w.client, "tcp", "10.99.0.1:8080", "10.99.0.2")
		if err := x.a.Restore(); err != nil { // reads what the first one's own work said
			t.Fatal(err)
		}
	}
	if ready(other.a) {
		t.Error("woken for ever")
	}
}

// flush empties the packet filter.
func flush(t *testing.T, w *wire) {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // at the test's end
	b := netlink.NewBatch()
	b.BeginTransaction()
	w.s.table.Delete(b)
	b.EndTransaction()
	if err := c.DoTransaction(b); err != nil {
		t.Fatal(err)
	}
}

// TestStoresAreApart: two stores of root have their own bridge, table and subnet; what is
// left of one that is gone is cleared away.
func TestStoresAreApart(t *testing.T) {
	w := newWire(t)
	a := w.box(container.Config{Publish: []string{"8080:80"}})
	first := w.s
	mk := func() config.Env {
		dir := testenv.Dir(t)
		env := config.Env{Data: dir + "/data", Run: dir + "/run"}
		if err := env.MakeDirs(); err != nil {
			t.Fatal(err)
		}
		return env
	}
	env := mk()
	w.s = Open(env)
	b := w.box(container.Config{Publish: []string{"8090:80"}})
	w.sees(w.client, "tcp", "10.99.0.1:8080", "10.99.0.2")
	w.sees(w.client, "tcp", "10.99.0.1:8090", "10.99.0.2")
	w.refused(a.ns, "tcp", b.ip+":80")
	w.refused(b.ns, "tcp", a.ip+":80")
	if err := b.a.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(env.Data); err != nil {
		t.Fatal(err)
	}
	gone := w.s
	w.s = Open(mk())
	w.box(container.Config{})
	c := w.dial(nil)
	if i, err := c.Index(gone.device); i != 0 || err != nil {
		t.Errorf("the bridge of a store that is gone: %d, %v", i, err)
	}
	nf, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer nf.Close() //nolint:errcheck // at the test's end
	if n, err := gone.table.Rules(nf); n != 0 || err != nil {
		t.Errorf("the rules of a store that is gone: %d, %v", n, err)
	}
	if n, err := first.table.Rules(nf); n != ruleCount || err != nil {
		t.Errorf("the rules of one that is not: %d, %v", n, err)
	}
}

// TestForeignPolicy: Docker's policy of drop for what is forwarded is told, once
// and not to who has let isle's packets pass.
func TestForeignPolicy(t *testing.T) {
	w := newWire(t)
	t1 := netlink.Table{Family: unix.NFPROTO_IPV4, Name: "filter"}
	change := func(f func(b *netlink.Batch)) {
		t.Helper()
		c, err := netlink.Dial(unix.NETLINK_NETFILTER)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // at the test's end
		b := netlink.NewBatch()
		b.BeginTransaction()
		f(b)
		b.EndTransaction()
		if err := c.DoTransaction(b); err != nil {
			t.Fatal(err)
		}
	}
	warned := func() bool {
		t.Helper()
		b := w.box(container.Config{})
		return strings.Contains(strings.Join(b.a.Warnings, "\n"), "another firewall")
	}
	if warned() {
		t.Error("warned without another firewall")
	}
	change(func(b *netlink.Batch) {
		t1.Add(b)
		t1.ChainWith(b, "FORWARD", "filter", unix.NF_INET_FORWARD, 0, netlink.Drop)
	})
	if !warned() {
		t.Error("no word about a policy of drop")
	}
	change(func(b *netlink.Batch) {
		for _, k := range []uint32{unix.NFT_META_IIFNAME, unix.NFT_META_OIFNAME} {
			t1.Rule(b, "FORWARD", netlink.Meta(k, netlink.R(0)), netlink.Equal(netlink.R(0), netlink.Ifname(w.s.device)), netlink.Verdict(netlink.Accept))
		}
	})
	if warned() {
		t.Error("warned where the device is let through")
	}
}

// varScale asks for the numbers of docs/networking.md instead of small ones (make scale).
const varScale = "ISLE_TEST_SCALE"

// TestScale: many networks, and many containers on one.
func TestScale(t *testing.T) {
	networks, containers := 20, 40
	if os.Getenv(varScale) != "" {
		networks, containers = 200, 500
	}
	w := newWire(t)
	if _, err := w.s.Get(Default); err != nil { // the first has the largest subnet
		t.Fatal(err)
	}
	var first, last *box
	start := time.Now()
	for i := range networks {
		name := fmt.Sprint("net", i)
		if _, err := w.s.Create(Request{Name: name}); err != nil {
			t.Fatal(err)
		}
		last = w.plain(name)
		if i == 0 {
			first = last
		}
	}
	t.Logf("%d networks with a container each: %s", networks, time.Since(start))
	w.refused(first.ns, "tcp", last.ip+":80")
	w.refused(last.ns, "tcp", first.ip+":80")
	start = time.Now()
	var boxes []*box
	seen := map[string]bool{}
	for range containers {
		b := w.box(container.Config{})
		if seen[b.ip] {
			t.Fatalf("%s twice", b.ip)
		}
		seen[b.ip] = true
		boxes = append(boxes, b)
	}
	t.Logf("%d containers on one network: %s", containers, time.Since(start))
	w.sees(boxes[0].ns, "tcp", boxes[containers-1].ip+":80", boxes[0].ip)
	w.sees(boxes[containers-1].ns, "tcp", boxes[0].ip+":80", boxes[containers-1].ip)
	flush(t, w)
	if err := boxes[containers/2].a.Restore(); err != nil {
		t.Fatal(err)
	}
	w.refused(first.ns, "tcp", last.ip+":80")
	w.sees(boxes[0].ns, "tcp", boxes[containers-1].ip+":80", boxes[0].ip)
}
