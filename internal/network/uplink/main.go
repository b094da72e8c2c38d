package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/network"
)

// listenFD is the descriptor of the socket that monitors connect to.
const listenFD = 3

// grace is how long the helper outlives its last container: the next one often
// comes at once.
const grace = 3 * time.Second

// detached marks the second process (see Main).
const detached = "_ISLE_NETWORK_DETACHED"

// Main is the role. The first process starts a second one and ends, so that the
// helper is not the child of the monitor that happened to need it first.
func Main() int {
	if os.Getenv(detached) == "" {
		return detach()
	}
	if err := os.Unsetenv(detached); err != nil {
		return 1
	}
	env, err := config.Load()
	if err == nil {
		unix.CloseOnExec(listenFD)
		debug.SetGCPercent(50) // it shall stay small; it does not make much garbage
		err = serve(env, listenFD, options{resolv: resolvConf}, func() { os.Exit(0) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "isled network:", err)
		return 1
	}
	return 0
}

func detach() int {
	_, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), detached+"=1"), Files: []uintptr{0, 1, 2, listenFD},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "isled network:", err)
		return 1
	}
	return 0
}

// server is the helper.
type server struct {
	env config.Env
	up  *uplink // nil for root, who has the kernel's routing

	mu      sync.Mutex
	clients map[*client]bool
	names   *names
	idle    *time.Timer
	quit    func()
}

// options are what tests have otherwise.
type options struct {
	resolv string // the host's resolv.conf
	stack  bool   // keep off the kernel's sockets, as on one that cannot
}

// client is the monitor of one container.
type client struct {
	fd    int
	reg   network.Registration
	ports []*published
}

// serve answers monitors that connect to the socket listen, until that is shut
// down; idle is called when the last one has been gone for a while.
func serve(env config.Env, listen int, o options, idle func()) error {
	s := &server{env: env, quit: idle, clients: map[*client]bool{}, idle: time.AfterFunc(grace, func() {})}
	s.idle.Stop()
	s.names = &names{s: s, listeners: map[string]*dnsListener{}, upstream: &upstream{path: o.resolv}}
	if env.Rootless {
		var err error
		if s.up, err = openUplink(network.Open(env), s.names.upstream, o.stack); err != nil {
			return err
		}
	}
	s.setIdle()
	for {
		fd, _, err := unix.Accept4(listen, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EINVAL: // shut down
			return nil
		default:
			return os.NewSyscallError("accept", err)
		}
		if !mine(fd) {
			_ = unix.Close(fd) // another user's
			continue
		}
		c := &client{fd: fd}
		s.mu.Lock()
		s.clients[c] = true
		s.idle.Stop()
		s.mu.Unlock()
		go s.talk(c)
	}
}

// mine reports whether the peer has the helper's own user id.
func mine(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(cred.Uid) == os.Getuid()
}

// setIdle ends the process when nobody has come back after the grace time.
func (s *server) setIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) > 0 {
		return
	}
	s.idle = time.AfterFunc(grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.clients) > 0 {
			return
		}
		// Who connects from now on finds nobody and starts another helper; who
		// is in the queue already sees its connection end.
		_ = unix.Unlink(network.Open(s.env).HelperSocket()) // replaced by the next anyway
		s.quit()
	})
}

// talk serves one monitor until its connection ends.
func (s *server) talk(c *client) {
	buf := make([]byte, network.MaxRegistration)
	oob := make([]byte, unix.CmsgSpace(256*4))
	var pending *network.Registration
	var files []*os.File
	for {
		n, oobn, _, _, err := unix.Recvmsg(c.fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		var r network.Registration
		jerr := json.Unmarshal(buf[:n], &r)
		got := rights(oob[:oobn])
		if jerr != nil {
			closeAll(got)
			s.answer(c, network.Reply{Error: errs.ToWire(errs.As(errs.Corrupt, jerr))})
			continue
		}
		files = append(files, got...)
		if pending != nil {
			r.Ports = append(pending.Ports, r.Ports...)
		}
		if r.More {
			pending = &r
			continue
		}
		pending = nil
		warnings, err := s.register(c, r, files)
		files = nil
		s.answer(c, network.Reply{Error: errs.ToWire(err), Warnings: warnings})
	}
	closeAll(files)
	s.forget(c)
	_ = unix.Close(c.fd)
	s.setIdle()
}

func (s *server) answer(c *client, r network.Reply) {
	b, err := json.Marshal(r)
	if err == nil {
		_ = unix.Sendto(c.fd, b, unix.MSG_NOSIGNAL, nil) // one that is gone needs no answer
	}
}

func rights(oob []byte) (files []*os.File) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "published port"))
		}
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // not used
	}
}

// register takes what a monitor says of its container, in place of what it said
// before. It owns files.
func (s *server) register(c *client, r network.Registration, files []*os.File) (warnings []string, err error) {
	if len(files) != len(r.Ports) {
		closeAll(files)
		return nil, errs.New(errs.Invalid, "network helper: %d sockets for %d ports", len(files), len(r.Ports))
	}
	s.mu.Lock()
	old := c.ports
	c.ports, c.reg = nil, r
	s.mu.Unlock()
	for _, p := range old {
		p.close()
	}
	for i := range r.Ports {
		p, perr := s.publish(&r.Ports[i], files[i])
		if perr != nil {
			closeAll(files[i+1:])
			return nil, perr
		}
		s.mu.Lock()
		c.ports = append(c.ports, p)
		s.mu.Unlock()
	}
	for _, n := range r.Networks {
		if !n.User() || n.Driver != network.DriverBridge {
			continue
		}
		if err := s.names.serve(n); err != nil {
			warnings = append(warnings, "network "+n.Name+": containers do not find each other by name: "+err.Error())
		}
	}
	return warnings, nil
}

func (s *server) publish(p *container.Published, f *os.File) (*published, error) {
	return publish(s.up, p, f)
}

// forget ends all that a container had.
func (s *server) forget(c *client) {
	s.mu.Lock()
	delete(s.clients, c)
	ports := c.ports
	s.mu.Unlock()
	for _, p := range ports {
		p.close()
	}
	s.names.sweep()
}

// hostAddr is the address by which the host is reached in its own network.
func hostAddr(six bool) net.IP {
	network, to := "udp4", "192.0.2.1:9"
	if six {
		network, to = "udp6", "[2001:db8::1]:9"
	}
	// Nothing is sent: the kernel only chooses the address (ip(7)).
	if c, err := new(net.Dialer).DialContext(background(), network, to); err == nil {
		defer c.Close()
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsLoopback() {
			return a.IP
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && (n.IP.To4() == nil) == six && n.IP.IsGlobalUnicast() {
			return n.IP
		}
	}
	return nil
}

// background is the context of what this process does: it is a main of its own,
// and nobody can give up on its behalf.
func background() context.Context {
	return context.Background() //nolint:forbidigo // of a role, which is a main
}
