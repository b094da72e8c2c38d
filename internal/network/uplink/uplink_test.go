package uplink

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/testenv"
)

// The tests take the whole way that an ordinary user's packets take, with root in
// the user's place: it may make the namespace without a user namespace around it.

type rig struct {
	t      *testing.T
	env    config.Env
	st     *network.Store
	stack  bool // without the kernel's sockets
	listen int
	done   chan error
	helper *exec.Cmd
}

// varHelper makes the test binary the helper of the store below the directory
// that it names.
const varHelper = "ISLE_TEST_HELPER"

// varRootful makes it root's.
const varRootful = "ISLE_TEST_ROOTFUL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(varHelper); dir != "" {
		env := testEnv(dir)
		env.Rootless = os.Getenv(varRootful) == ""
		if err := serve(env, listenFD, options{resolv: dir + "/resolv.conf"}, func() { os.Exit(0) }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func testEnv(dir string) config.Env {
	return config.Env{Data: dir + "/data", Run: dir + "/run", Rootless: true}
}

// socket listens in the helper's place.
func (r *rig) socket() int {
	r.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.Unlink(r.st.HelperSocket())
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: r.st.HelperSocket()})
	}
	if err == nil {
		err = unix.Listen(fd, 10)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return fd
}

// startProcess runs a helper that can be killed.
func (r *rig) startProcess() {
	r.t.Helper()
	l := os.NewFile(uintptr(r.socket()), "helper")
	defer l.Close()
	r.helper = exec.Command("/proc/self/exe", "-test.run=^$")
	r.helper.Env = append(os.Environ(), varHelper+"="+filepath.Dir(r.env.Data))
	if !r.env.Rootless {
		r.helper.Env = append(r.helper.Env, varRootful+"=1")
	}
	r.helper.ExtraFiles = []*os.File{l}
	r.helper.Stderr = os.Stderr
	if err := r.helper.Start(); err != nil {
		r.t.Fatal(err)
	}
	cmd := r.helper
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testenv.Need(t, testenv.Root)
	dir := testenv.Dir(t)
	r := &rig{t: t, env: testEnv(dir)}
	if err := r.env.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/run/net", 0o700); err != nil {
		t.Fatal(err)
	}
	r.st = network.Open(r.env)
	t.Cleanup(func() { _ = unix.Unmount(r.st.RouterPath(), unix.MNT_DETACH) })
	return r
}

// start runs a helper in this process.
func (r *rig) start() {
	r.t.Helper()
	fd := r.socket()
	r.listen, r.done = fd, make(chan error, 1)
	go func() {
		r.done <- serve(r.env, fd, options{resolv: filepath.Dir(r.env.Data) + "/resolv.conf", stack: r.stack}, func() {})
	}()
	r.t.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
}

type box struct {
	a   *network.Attachment
	ns  *os.File
	rec *container.Record
}

func (r *rig) box(c container.Config) *box {
	r.t.Helper()
	rec := &container.Record{ID: state.NewID(), Config: c}
	lock, err := state.LockObject(r.env.Run+"/locks", rec.ID, state.NoWait)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = lock.Close() })
	a, err := r.st.Prepare(rec)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = a.Detach() })
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := a.Connect(cmd.Process.Pid); err != nil {
		r.t.Fatal(err)
	}
	for _, w := range a.Warnings {
		r.t.Log(w)
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = ns.Close() })
	b := &box{a, ns, rec}
	tellSource(r.t, ns, ":80")
	return b
}

// tellSource answers on a port, TCP and UDP, with the address of whoever asks. An
// address without a host is one of both versions: package net would find out
// whether there are two from the first namespace it meets.
func tellSource(t *testing.T, ns *os.File, at string) (port int) {
	t.Helper()
	host, text, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	versions := []string{"4", "6"}
	if i := net.ParseIP(host); i != nil {
		versions = []string{"4"}
		if i.To4() == nil {
			versions[0] = "6"
		}
	}
	for _, v := range versions {
		var ln net.Listener
		var pc net.PacketConn
		if err := netlink.In(ns, func() (err error) {
			if ln, err = net.Listen("tcp"+v, net.JoinHostPort(host, text)); err != nil {
				return err
			}
			_, text, _ = net.SplitHostPort(ln.Addr().String())
			pc, err = net.ListenPacket("udp"+v, net.JoinHostPort(host, text))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		serveSource(t, ln, pc)
	}
	if port, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return port
}

func serveSource(t *testing.T, ln net.Listener, pc net.PacketConn) {
	t.Helper()
	t.Cleanup(func() { _, _ = ln.Close(), pc.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, hostOf(c.RemoteAddr()))
			_ = c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 10)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte(hostOf(from).String()+"\n"), from)
		}
	}()
}

// ask connects from a namespace and returns the address it is seen with.
func ask(ns *os.File, proto, host string, port int) (string, error) {
	return askFor(ns, proto, host, port, 3*time.Second)
}

func askFor(ns *os.File, proto, host string, port int, patience time.Duration) (string, error) {
	var c net.Conn
	err := netlink.In(ns, func() error {
		typ := unix.SOCK_STREAM
		if proto == "udp" {
			typ = unix.SOCK_DGRAM
		}
		at := netip.MustParseAddrPort(net.JoinHostPort(host, strconv.Itoa(port)))
		family := unix.AF_INET
		if at.Addr().Is6() {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), host)
		defer f.Close()
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: int64(patience / time.Second), Usec: int64(patience % time.Second / time.Microsecond)})
		if err := unix.Connect(fd, sockaddr(at)); err != nil {
			return err
		}
		c, err = net.FileConn(f)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if proto == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (r *rig) sees(ns *os.File, proto, host string, port int, want string) {
	r.t.Helper()
	var got string
	var err error
	for range 10 { // of three seconds, on a busy machine; less once something has failed
		if got, err = ask(ns, proto, host, port); err == nil || r.t.Failed() {
			break
		}
	}
	if err != nil || got != want {
		r.t.Errorf("%s to %s:%d: seen as %q (%v), want %q", proto, host, port, got, err, want)
	}
}

func TestBothWays(t *testing.T) {
	for _, stack := range []bool{false, true} {
		t.Run(fmt.Sprint("stack=", stack), func(t *testing.T) {
			r := newRig(t)
			r.stack = stack
			bothWays(t, r)
		})
	}
}

func bothWays(t *testing.T, r *rig) {
	r.start()
	b := r.box(container.Config{Name: "web", Publish: []string{"80", "80/udp"}})
	own := hostAddr(false)
	if own == nil {
		t.Skip("this host has no address but the loopback's")
	}
	ports := map[string]int{}
	for _, p := range b.a.State.Ports {
		ports[p.Proto] = int(p.HostPort)
	}
	atHost := tellSource(t, nil, own.String()+":0")
	atLoopback := tellSource(t, nil, "127.0.0.1:0")
	for _, proto := range []string{"tcp", "udp"} {
		// In: the client's address is kept, but the loopback's.
		r.sees(nil, proto, own.String(), ports[proto], own.String())
		r.sees(nil, proto, "127.0.0.1", ports[proto], network.UplinkHost)
		// Out: as the host; the host itself by either name.
		r.sees(b.ns, proto, own.String(), atHost, own.String())
		r.sees(b.ns, proto, network.UplinkHost, atHost, own.String())
		if got, err := ask(b.ns, proto, network.UplinkHost, atLoopback); err == nil {
			t.Errorf("%s reached the host's loopback, as %s", proto, got)
		}
	}
	if _, err := ask(b.ns, "tcp", own.String(), 1); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a closed port: %v, want a refusal", err)
	}
}

func TestNames(t *testing.T) {
	r := newRig(t)
	r.start()
	for _, q := range []network.Request{{Name: "one"}, {Name: "two"}, {Name: "closed", Internal: true}} {
		if _, err := r.st.Create(q); err != nil {
			t.Fatal(err)
		}
	}
	web := r.box(container.Config{Name: "web", Network: "one", NetworkAlias: []string{"www"}})
	cli := r.box(container.Config{Name: "cli", Network: "one", DNS: []string{"127.0.0.1"}})
	far := r.box(container.Config{Name: "far", Network: "two"})
	in := r.box(container.Config{Name: "in", Network: "closed"})
	ip := net.ParseIP(web.a.Addr())
	for _, name := range []string{"web", "WWW", "web.one", web.rec.ID[:12]} {
		for _, proto := range []string{"udp", "tcp"} {
			if got, code := r.resolve(cli, proto, name); !got.Equal(ip) {
				t.Errorf("%s over %s: %v, %v; want %v", name, proto, got, code, ip)
			}
		}
	}
	if got, code := r.resolve(web, "udp", "far"); got != nil || code == dnsmessage.RCodeSuccess {
		t.Errorf("a name of another network: %v %v", got, code)
	}
	if got, _ := r.resolve(far, "udp", "far"); !got.Equal(net.ParseIP(far.a.Addr())) {
		t.Errorf("own name: %v", got)
	}
	start := time.Now()
	if got, code := r.resolve(in, "udp", "example.com"); got != nil || code != dnsmessage.RCodeNameError || time.Since(start) > time.Second {
		t.Errorf("from an internal network: %v %v after %s", got, code, time.Since(start))
	}
}

// resolve asks the name server of a container's network.
func (r *rig) resolve(b *box, proto, name string) (net.IP, dnsmessage.RCode) {
	r.t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
	}}
	q, err := m.Pack()
	if err != nil {
		r.t.Fatal(err)
	}
	var a []byte
	if err := netlink.In(b.ns, func() error {
		a, err = exchange(q, b.a.DNS()[0], proto)
		return err
	}); err != nil {
		r.t.Fatalf("%s over %s: %v", name, proto, err)
	}
	var got dnsmessage.Message
	if err := got.Unpack(a); err != nil {
		r.t.Fatal(err)
	}
	for _, x := range got.Answers {
		if v, ok := x.Body.(*dnsmessage.AResource); ok {
			return v.A[:], got.RCode
		}
	}
	return nil, got.RCode
}
