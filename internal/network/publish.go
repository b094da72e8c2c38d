package network

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/network/ip"
)

// wantedPorts are the ports that a container asks to be published: -p, and with
// -P all that are exposed.
func wantedPorts(rec *container.Record) ([]container.Port, error) {
	var all []container.Port
	c := &rec.Config
	has := map[string]bool{}
	for _, s := range c.Publish {
		p, err := container.ParsePublish(s)
		if err != nil {
			return nil, err
		}
		for _, q := range p {
			has[q.Key()] = true
		}
		all = append(all, p...)
	}
	if !c.PublishAll {
		return all, nil
	}
	expose := append([]string(nil), c.Expose...)
	for s := range rec.Image.Config.Expose {
		expose = append(expose, s)
	}
	for _, s := range expose {
		ports, err := container.ParseExpose(s)
		if err != nil {
			continue // an image's; shown nowhere else either
		}
		for _, p := range ports {
			if !has[p.Key()] {
				has[p.Key()] = true
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// relayed reports whether the packet filter cannot publish p: from one version of
// IP to the other, and from ::1, whose packets cannot leave the host. The helper
// does it then, with a connection of its own. (On :: it serves those of ::1; the
// packet filter is first with all others.)
func relayed(p *container.Published) bool {
	at, ok1 := ip.Parse(p.HostIP)
	to, ok2 := ip.Parse(p.To)
	return ok1 && ok2 && p.Proto != "sctp" && (at.Is6() != to.Is6() || at == ip.MustParse("::1") || at.Is6() && at.IsUnspecified())
}

// reservation holds ports of the host: sockets bound to them, so that nobody
// else gets them and a port that somebody has is found out. Nothing is ever
// accepted on them: the packet filter sends connections elsewhere first.
type reservation struct {
	files []*os.File // of each port; nil where the kernel has no such protocol
	ports []container.Published
}

func (r *reservation) close() {
	for _, f := range r.files {
		_ = f.Close() // never used, or nil
	}
	r.files = nil
}

// drop gives up the ports that lead to an address.
func (r *reservation) drop(to func(*container.Published) bool) {
	var files []*os.File
	var ports []container.Published
	for i := range r.ports {
		if to(&r.ports[i]) {
			_ = r.files[i].Close() // never used, or nil
			continue
		}
		files, ports = append(files, r.files[i]), append(ports, r.ports[i])
	}
	r.files, r.ports = files, ports
}

// reserve binds the wanted ports, for a container with the addresses to4 and to6.
func reserve(want []container.Port, to4, to6 ip.Addr) (_ *reservation, Err error) {
	r := new(reservation)
	defer func() {
		if Err != nil {
			r.close()
		}
	}()
	for i := range want {
		if err := r.add(&want[i], to4, to6); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *reservation) add(p *container.Port, to4, to6 ip.Addr) error {
	var hosts []ip.Addr
	if p.HostIP == "" {
		if to4.IsValid() {
			hosts = append(hosts, ip.MustParse("0.0.0.0"))
		}
		if to6.IsValid() {
			hosts = append(hosts, ip.MustParse("::"))
		}
	} else {
		a, ok := ip.Parse(p.HostIP)
		if !ok {
			return errs.New(errs.Invalid, "invalid IP address: %s", p.HostIP)
		}
		if p.Proto == "sctp" && (a.Is4() && !to4.IsValid() || a.Is6() && !to6.IsValid()) {
			return errs.New(errs.Unsupported, "publish %s on %s: the container has no address of that IP version", p.Key(), a)
		}
		hosts = []ip.Addr{a}
	}
	// One number on all addresses; the first free one of a range.
	first, last := p.HostPort, max(p.HostPort, p.HostPortEnd)
	var err error
	for n := int(first); n <= int(last); n++ {
		if err = r.bind(p, hosts, uint16(n), to4, to6); err == nil {
			return nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return err
}

// bind takes one port on all hosts, or none.
func (r *reservation) bind(p *container.Port, hosts []ip.Addr, port uint16, to4, to6 ip.Addr) error {
	n, m := len(r.files), len(r.ports)
	undo := func() {
		for _, f := range r.files[n:] {
			_ = f.Close() // never used, or nil
		}
		r.files, r.ports = r.files[:n], r.ports[:m]
	}
	any := port == 0
	for try := 0; ; try++ {
		got, err := port, error(nil)
		for _, h := range hosts {
			var f *os.File
			if f, got, err = bindPort(h, got, p.Proto); err != nil {
				break
			}
			to := to4
			if h.Is6() && to6.IsValid() || !to4.IsValid() {
				to = to6
			}
			r.files = append(r.files, f)
			r.ports = append(r.ports, container.Published{HostIP: h.String(), HostPort: got, Port: p.Port, Proto: p.Proto, To: to.String()})
		}
		if err == nil {
			return nil
		}
		undo()
		if !any || try == 20 || !errors.Is(err, unix.EADDRINUSE) {
			return bindError(err, hosts[0], port, p)
		}
	}
}

// bindPort binds one port (0: any) and returns its number. SCTP that the kernel
// does not have is not bound: nobody else can either.
func bindPort(h ip.Addr, port uint16, proto string) (*os.File, uint16, error) {
	typ, num := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch proto {
	case "udp":
		typ, num = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		num = unix.IPPROTO_SCTP
	}
	family := unix.AF_INET
	if h.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, num)
	if proto == "sctp" && (err == unix.EPROTONOSUPPORT || err == unix.ESOCKTNOSUPPORT) && port != 0 {
		return nil, port, nil
	}
	if err != nil {
		return nil, 0, os.NewSyscallError("socket", err)
	}
	var sa unix.Sockaddr
	if h.Is4() {
		sa = &unix.SockaddrInet4{Port: int(port), Addr: [4]byte(h.Bytes())}
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) // else bind says what is wrong
		sa = &unix.SockaddrInet6{Port: int(port), Addr: [16]byte(h.Bytes())}
	}
	if typ == unix.SOCK_STREAM {
		// Connections that have ended must not keep the port busy; one that is
		// listened on does, which is why ours is.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // a little later then
	}
	err = unix.Bind(fd, sa)
	if err == nil && typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		_ = unix.Close(fd) // never used
		return nil, 0, err
	}
	if port == 0 {
		got, err := unix.Getsockname(fd)
		if err != nil {
			_ = unix.Close(fd) // never used
			return nil, 0, os.NewSyscallError("getsockname", err)
		}
		switch a := got.(type) {
		case *unix.SockaddrInet4:
			port = uint16(a.Port)
		case *unix.SockaddrInet6:
			port = uint16(a.Port)
		}
	}
	return os.NewFile(uintptr(fd), "published port"), port, nil
}

// bindError says why a port could not be had.
func bindError(err error, h ip.Addr, port uint16, p *container.Port) error {
	at := fmt.Sprintf("%s:%d/%s", h, port, p.Proto)
	if h.Is6() {
		at = fmt.Sprintf("[%s]:%d/%s", h, port, p.Proto)
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return errs.Hint(errs.New(errs.Conflict, "publish port %s: %w", at, unix.EADDRINUSE),
			fmt.Sprintf("ss -lnp 'sport = %d' shows by whom; isle ps shows containers", port))
	case errors.Is(err, unix.EACCES):
		e := errs.New(errs.Denied, "publish port %s: %w", at, unix.EACCES)
		if start := unprivilegedStart(); port < start {
			e = errs.Hint(e, fmt.Sprintf("ordinary users may use ports from %d on here; use -p %d:%d", start, int(port)+8000, p.Port),
				"or, "+host.OpenPorts(int(port)),
				fmt.Sprintf("or let systemd listen and pass connections on (socket activation): a socket unit with ListenStream=%d, its service systemd-socket-proxyd 127.0.0.1:%d", port, int(port)+8000))
		}
		return e
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return errs.New(errs.Invalid, "publish port %s: this host does not have that address: %w", at, unix.EADDRNOTAVAIL)
	}
	return fmt.Errorf("publish port %s: %w", at, err)
}

// unprivilegedStart is the first port that ordinary users may bind.
func unprivilegedStart() uint16 {
	var n uint16 = 1024
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err == nil {
		_, _ = fmt.Sscan(strings.TrimSpace(string(b)), &n) // the usual value then
	}
	return n
}
