package network

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/network/ip"
)

// The helper is one process for each user, `isled network`: the name server of
// user-defined networks and, for an ordinary user, the uplink. The first
// container that needs it starts it; each one's monitor keeps a connection to it,
// and when the last is gone it ends. What a container has there (names, published
// ports) lives as long as its connection; when the helper dies, the monitors start
// it again and tell it once more.
//
//	monitor                                helper
//	Registration + sockets of ports ────▶
//	                                ◀──── Reply
//	end of file: the container has ended / the helper has died

// Registration is what a monitor tells the helper about its container.
type Registration struct {
	ID        string                  `json:"id"`
	Name      string                  `json:"name"`
	Endpoints []container.NetEndpoint `json:"endpoints"`
	// Networks are the records of Endpoints.
	Networks []*Network `json:"networks"`
	// DNS are servers of the container's own, to be asked instead of the host's.
	DNS []string `json:"dns,omitempty"`
	// Ports come with a listening socket each, in this order.
	Ports []container.Published `json:"ports,omitempty"`
	// More: further ports follow in another message.
	More bool `json:"more,omitempty"`
}

// Reply is the helper's answer.
type Reply struct {
	Error    *errs.Wire `json:"error,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
}

// HelperSocket is where the helper listens.
func (s *Store) HelperSocket() string { return s.env.Run + "/net/sock" }

// portsAtOnce is how many sockets go with one message (the kernel takes 253).
const portsAtOnce = 200

// helperTime is how many seconds the helper has for an answer.
const helperTime = 20

// MaxRegistration bounds a message.
const MaxRegistration = 64 << 10

// needsHelper reports whether the container needs the helper at all.
func (a *Attachment) needsHelper() bool {
	if a.s.env.Rootless {
		return true
	}
	for _, n := range a.networks {
		if n.User() && n.routed() {
			return true
		}
	}
	return slices.ContainsFunc(a.State.Ports, func(p container.Published) bool { return relayed(&p) })
}

// served are the ports that the helper serves, with their sockets: all of an
// ordinary user's.
func (a *Attachment) served() (ports []container.Published, files []*os.File) {
	all := a.Files()
	for i := range a.State.Ports {
		p := &a.State.Ports[i]
		if i < len(all) && all[i] != nil && (a.s.env.Rootless || relayed(p)) {
			ports, files = append(ports, *p), append(files, all[i])
		}
	}
	return ports, files
}

// callHelper makes the connection to the helper, which is started if it does not run.
func (a *Attachment) callHelper() error {
	fd, err := a.s.dialHelper()
	if err != nil {
		return errs.New(errs.Unavailable, "network helper: %w", err)
	}
	// One that hangs must not keep a container from starting, or failing, for ever.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: helperTime}) // only a safeguard
	a.helper = os.NewFile(uintptr(fd), "network helper")
	return nil
}

// register tells the helper about the container and waits for the answer.
func (a *Attachment) register() error {
	if a.helper == nil {
		return nil
	}
	all := Registration{ID: a.id, Name: a.name, Endpoints: a.State.Endpoints, Networks: a.networks, DNS: a.dns}
	ports, files := a.served()
	for {
		n := min(len(ports), portsAtOnce)
		all.Ports, all.More = ports[:n], n < len(ports)
		b, err := json.Marshal(&all)
		if err != nil {
			return err
		}
		if len(b) > MaxRegistration {
			return errs.New(errs.Invalid, "network helper: too much to register: %d bytes", len(b))
		}
		var oob []byte
		if n > 0 {
			fds := make([]int, n)
			for i, f := range files[:n] {
				fds[i] = int(f.Fd())
			}
			oob = unix.UnixRights(fds...)
		}
		if err := unix.Sendmsg(int(a.helper.Fd()), b, oob, nil, unix.MSG_NOSIGNAL); err != nil {
			return errs.New(errs.Unavailable, "network helper: %w", err)
		}
		ports, files = ports[n:], files[n:]
		if len(ports) == 0 {
			break
		}
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(int(a.helper.Fd()), buf)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EPIPE
		}
		if err != nil {
			return errs.New(errs.Unavailable, "network helper: ended early (%s/net/log may tell more): %w", a.s.env.Run, err)
		}
		var r Reply
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			return errs.New(errs.Corrupt, "network helper: %w", err)
		}
		a.Warnings = append(a.Warnings, r.Warnings...)
		return r.Error.Err()
	}
}

// Helper is the connection to the helper; nil for none. When it ends, Revive.
func (a *Attachment) Helper() *os.File { return a.helper }

// Revive starts the helper again, or finds the one that another monitor has
// started, and tells it what it has to know.
func (a *Attachment) Revive() error {
	if a.helper != nil {
		_ = a.helper.Close() // it has ended
		a.helper = nil
	}
	if err := a.load(); err != nil {
		return err
	}
	if err := a.callHelper(); err != nil {
		return err
	}
	err := a.register()
	if err != nil {
		_ = a.helper.Close() // of no use
		a.helper = nil
	}
	return err
}

func (s *Store) dialHelper() (int, error) {
	fd, err := s.connect()
	if err == nil {
		return fd, nil
	}
	if err := os.MkdirAll(s.env.Run+"/net", 0o700); err != nil {
		return -1, err
	}
	l, err := s.lock()
	if err != nil {
		return -1, err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	if fd, err = s.connect(); err == nil {
		return fd, nil // somebody else was faster
	}
	if err := s.startHelper(); err != nil {
		return -1, err
	}
	return s.connect()
}

func (s *Store) connect() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	name, done, err := shortPath(s.HelperSocket())
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		done()
	}
	if err != nil {
		_ = unix.Close(fd) // never connected
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// startHelper starts the helper with a socket that already listens, so that
// nobody has to wait for it to come up. The caller holds the lock.
func (s *Store) startHelper() error {
	exe, err := config.Isled()
	if err != nil {
		return err
	}
	path := s.HelperSocket()
	_ = unix.Unlink(path) // that of a dead one
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	listener := os.NewFile(uintptr(fd), path)
	defer listener.Close()
	name, done, err := shortPath(path)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return os.NewSyscallError("bind "+path, err)
	}
	if err := unix.Listen(fd, 256); err != nil {
		return os.NewSyscallError("listen "+path, err)
	}
	log, err := os.OpenFile(s.env.Run+"/net/log", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := program.Command{
		Path: exe, Args: []string{"isled", "network"}, Env: s.env.Environ(os.Environ()),
		Files: []*os.File{nil, log, log, listener}, Setsid: true, Dir: "/",
	}
	child, err := cmd.Start()
	if err != nil {
		return err
	}
	_ = child.Pidfd.Close() // not used
	// It starts itself once more and ends: nobody's child, nobody's zombie.
	for {
		if _, err := unix.Wait4(child.Pid, nil, 0, nil); err != unix.EINTR {
			return nil
		}
	}
}

// shortPath returns a name for a socket that fits sockaddr_un (unix(7)).
func shortPath(path string) (name string, done func(), err error) {
	if len(path) < 108 {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + filepath.Base(path), func() { _ = unix.Close(fd) }, nil
}

// DNS are the name servers of ours that the container is to ask; none: the host's.
func (a *Attachment) DNS() []string {
	for i, n := range a.networks {
		if !n.User() || !n.routed() {
			continue
		}
		e := &a.State.Endpoints[i]
		var servers []string
		if sub := n.subnet(false); sub != nil && e.IP != "" {
			servers = append(servers, sub.Gateway.String())
		}
		if sub := n.subnet(true); sub != nil && e.IP6 != "" && servers == nil {
			servers = append(servers, sub.Gateway.String())
		}
		return servers
	}
	if name, _ := container.Outside(a.State.Mode); name == "slirp4netns" && len(a.dns) == 0 {
		return []string{slirpDNS}
	}
	if a.s.env.Rootless && len(a.dns) == 0 {
		return []string{UplinkDNS}
	}
	return nil
}

func addrBytes(s string) []byte { return ip.MustParse(s).Bytes() }
