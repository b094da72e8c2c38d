package network

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/network/ip"
)

// The modes pasta and slirp4netns, for ordinary users where the programs are
// installed: each such container has a process of its own, which connects its
// namespace with the host's sockets. It is on none of isle's networks.
//
// The namespace is mounted on RUN/net/ID.ns for them. pasta ends when the file
// goes; slirp4netns when the pipe ends that the monitor holds.

// slirpDNS and slirpHost are addresses that slirp4netns gives a meaning.
const (
	slirpDNS  = "10.0.2.3"
	slirpHost = "10.0.2.2"
)

// outsideTime is how many seconds the programs have to come up.
const outsideTime = 20

// outside is what Prepare does for such a mode.
func (a *Attachment) outside(rec *container.Record) error {
	name, options := container.Outside(rec.Config.Network)
	a.State.Mode = rec.Config.Network
	if !a.s.env.Rootless {
		return errs.Hint(errs.New(errs.Unsupported, "network %s: is for ordinary users", name), "root's containers have the kernel's network without it: leave --network out")
	}
	if len(rec.Config.MoreNetworks) > 0 {
		return errs.New(errs.Invalid, "network %s: cannot be one of several", name)
	}
	exe := lookPath(name)
	if exe == "" {
		return errs.Hint(errs.New(errs.NotFound, "network %s: the program is not installed", name), "the default network needs no program: leave --network out")
	}
	a.exe, a.options = exe, options
	for _, o := range options {
		if name == "slirp4netns" && !slices.Contains([]string{"mtu", "cidr", "allow_host_loopback", "enable_ipv6", "port_handler", "outbound_addr"}, before(o)) {
			return errs.New(errs.Invalid, "network slirp4netns: unknown option %q", o)
		}
	}
	want, err := wantedPorts(rec)
	if err != nil {
		return err
	}
	for i := range want {
		if want[i].Proto == "sctp" {
			return errs.New(errs.Unsupported, "publish %s: an ordinary user can publish tcp and udp", want[i].Key())
		}
	}
	// To find out what is taken, and free numbers: the program binds them anew.
	held, err := reserve(want, ip.MustParse("0.0.0.0"), ip.Addr{})
	if err != nil {
		return err
	}
	held.close()
	a.State.Ports = held.ports
	return nil
}

func before(option string) string {
	k, _, _ := strings.Cut(option, "=")
	return k
}

// lookPath finds a program; "" when it is not installed.
func lookPath(name string) string {
	for _, dir := range append(strings.Split(os.Getenv("PATH"), ":"), "/usr/local/bin", "/usr/bin", "/bin") {
		if p := dir + "/" + name; dir != "" && unix.Faccessat(unix.AT_FDCWD, p, unix.X_OK, unix.AT_EACCESS) == nil {
			return p
		}
	}
	return ""
}

func (s *Store) nsFile(id string) string { return s.env.Run + "/net/" + id + ".ns" }

// connectOutside starts the program for the namespace of pid.
func (a *Attachment) connectOutside(pid int) error {
	name, _ := container.Outside(a.State.Mode)
	path := a.s.nsFile(a.id)
	if err := os.MkdirAll(a.s.env.Run+"/net", 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	_ = f.Close() // only made
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), path, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mount", Path: path, Err: err}
	}
	logName := a.s.env.Run + "/net/" + a.id + ".log"
	log, err := os.OpenFile(logName, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		_ = log.Close()
		_ = unix.Unlink(logName) // it has been read if it says anything
	}()
	if name == "pasta" {
		err = a.startPasta(path, log)
	} else {
		err = a.startSlirp(path, log)
	}
	if err == nil {
		return nil
	}
	var said [2048]byte
	n, _ := log.ReadAt(said[:], 0) // what there is
	text := strings.Join(strings.Fields(string(said[:n])), " ")
	e := errs.New(errs.Unavailable, "network %s: %w: %s", name, err, text)
	if unix.Faccessat(unix.AT_FDCWD, "/dev/net/tun", unix.R_OK|unix.W_OK, unix.AT_EACCESS) != nil {
		e = errs.Hint(e, "it needs /dev/net/tun, which this user may not open; the default network does not")
	}
	return e
}

func (a *Attachment) startPasta(path string, log *os.File) error {
	ports := func(proto string) string {
		var all []string
		for i := range a.State.Ports {
			if p := &a.State.Ports[i]; p.Proto == proto {
				all = append(all, fmt.Sprintf("%s/%d:%d", p.HostIP, p.HostPort, p.Port))
			}
		}
		if len(all) == 0 {
			return "none"
		}
		return strings.Join(all, ",")
	}
	args := []string{"pasta", "--config-net", "--netns-only", "-t", ports("tcp"), "-u", ports("udp"), "-T", "none", "-U", "none", "--dns-forward", UplinkDNS}
	if !slices.Contains(a.options, "--map-gw") {
		args = append(args, "--no-map-gw") // the host's loopback is not reached unless asked for
	}
	for _, o := range a.options {
		if o != "--map-gw" {
			args = append(args, o)
		}
	}
	cmd := program.Command{Path: a.exe, Args: append(args, "--netns", path), Env: a.s.env.Environ(os.Environ()), Files: []*os.File{nil, log, log}, Dir: "/"}
	child, err := cmd.Start()
	if err != nil {
		return err
	}
	_ = child.Pidfd.Close() // waited for by number: it is ours
	// It goes on in the background when all is set up.
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(child.Pid, &ws, 0, nil); err == unix.EINTR {
			continue
		}
		if ws.ExitStatus() != 0 {
			return fmt.Errorf("exit status %d", ws.ExitStatus())
		}
		return nil
	}
}

func (a *Attachment) startSlirp(path string, log *os.File) error {
	args := []string{"slirp4netns", "--configure", "--netns-type=path", "-r", "3", "-e", "4"}
	mtu, loopback := "65520", false
	for _, o := range a.options {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "mtu":
			mtu = v
		case "cidr", "outbound_addr":
			args = append(args, "--"+strings.ReplaceAll(k, "_", "-")+"="+v)
		case "allow_host_loopback":
			loopback = v == "true"
		case "enable_ipv6":
			if v == "true" {
				args = append(args, "--enable-ipv6")
			}
		}
	}
	args = append(args, "--mtu="+mtu)
	if !loopback {
		args = append(args, "--disable-host-loopback")
	}
	sock := a.s.env.Run + "/net/" + a.id[:16] + ".api"
	if len(a.State.Ports) > 0 {
		args = append(args, "--api-socket", sock)
	}
	var ready, life [2]int
	if err := unix.Pipe2(ready[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	if err := unix.Pipe2(life[:], unix.O_CLOEXEC); err != nil {
		_, _ = unix.Close(ready[0]), unix.Close(ready[1]) // never used
		return os.NewSyscallError("pipe2", err)
	}
	readyR, readyW := os.NewFile(uintptr(ready[0]), "ready"), os.NewFile(uintptr(ready[1]), "ready")
	lifeR, lifeW := os.NewFile(uintptr(life[0]), "slirp4netns"), os.NewFile(uintptr(life[1]), "slirp4netns")
	defer readyR.Close()
	cmd := program.Command{Path: a.exe, Args: append(args, path, "tap0"), Env: a.s.env.Environ(os.Environ()), Files: []*os.File{nil, log, log, readyW, lifeR}, Dir: "/", PdeathSig: unix.SIGKILL}
	child, err := cmd.Start()
	_ = readyW.Close() // the child's now
	_ = lifeR.Close()  // the child's now
	if err != nil {
		_ = lifeW.Close() // never used
		return err
	}
	_ = child.Pidfd.Close() // it ends with the pipe
	// Detach closes it, and it is carried over the monitor's own execve, as the
	// sockets of published ports are elsewhere.
	a.held = &reservation{files: []*os.File{lifeW}, ports: a.State.Ports}
	p := []unix.PollFd{{Fd: int32(ready[0]), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, outsideTime*1000); n != 1 || err != nil {
		return errors.Join(errors.New("does not come up"), err)
	}
	var b [1]byte
	if n, err := unix.Read(ready[0], b[:]); n != 1 {
		return errors.Join(errors.New("ended early"), err)
	}
	for i := range a.State.Ports {
		if err := slirpForward(sock, &a.State.Ports[i]); err != nil {
			return err
		}
	}
	return nil
}

// slirpForward asks slirp4netns to publish a port.
func slirpForward(sock string, p *container.Published) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing to lose
	name, done, err := shortPath(sock)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	q := fmt.Sprintf(`{"execute":"add_hostfwd","arguments":{"proto":%q,"host_addr":%q,"host_port":%d,"guest_port":%d}}`, p.Proto, p.HostIP, p.HostPort, p.Port)
	if _, err := unix.Write(fd, []byte(q)); err != nil {
		return os.NewSyscallError("write", err)
	}
	_ = unix.Shutdown(fd, unix.SHUT_WR) // the answer says what became of it
	var b [1024]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return os.NewSyscallError("read", err)
	}
	if strings.Contains(string(b[:n]), `"error"`) {
		return fmt.Errorf("publish port %s:%d/%s: %s", p.HostIP, p.HostPort, p.Proto, strings.TrimSpace(string(b[:n])))
	}
	return nil
}

// dropOutside ends the program of a container that has ended.
func (s *Store) dropOutside(id string) {
	path := s.nsFile(id)
	_ = unix.Unmount(path, unix.MNT_DETACH) // there may be none, after a boot
	_ = unix.Unlink(path)                   // pasta sees it go
	_ = unix.Unlink(s.env.Run + "/net/" + id[:16] + ".api")
}
