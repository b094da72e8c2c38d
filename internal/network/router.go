package network

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
)

// An ordinary user's bridges are in a network namespace of the user's own, which
// is kept by a mount of it in the user's mount namespace:
//
//	container ─ bridge ─ route ─ uplink0 ═ uplink1 ─ packet socket of the helper
//
// The helper (package uplink) turns what arrives there into sockets of the host.
// It may die and come back: namespace, bridges and addresses stay.

// Devices and addresses of the link to the helper. UplinkHost stands for the host
// itself, UplinkDNS for its resolvers.
const (
	UplinkDevice  = "uplink0"
	UplinkPeer    = "uplink1"
	UplinkBits    = 29
	UplinkRouter  = "169.254.1.1"
	UplinkHost    = "169.254.1.2"
	UplinkDNS     = "169.254.1.3"
	UplinkBits6   = 64
	UplinkRouter6 = "fd69:736c:65::1"
	UplinkHost6   = "fd69:736c:65::2"
	// UplinkMTU lets a whole train of segments pass as one frame.
	UplinkMTU = 65520
)

// UplinkMAC is the hardware address of the helper's end. It is not the device's:
// the kernel leaves what is sent to it alone.
func UplinkMAC() [6]byte { return [6]byte{0x02, 0x42, 0xa9, 0xfe, 0x01, 0x02} }

// UplinkRouterMAC is the hardware address of the near end.
func UplinkRouterMAC() [6]byte { return [6]byte{0x02, 0x42, 0xa9, 0xfe, 0x01, 0x01} }

// nsfsMagic is NSFS_MAGIC of linux/magic.h.
const nsfsMagic = 0x6e736673

// RouterPath is where the user's network namespace is mounted.
func (s *Store) RouterPath() string { return s.env.Run + "/net/ns" }

// router returns the namespace that the bridges are in: nil, the caller's own,
// for root. An ordinary user's, which only a process inside the user's namespaces
// sees, is made when it is missing; without make the answer is nil then.
func (s *Store) router(make bool) (*os.File, error) {
	if !s.env.Rootless {
		return nil, nil //nolint:nilnil // the own namespace is an answer
	}
	f, err := openRouter(s.RouterPath())
	if f != nil || err != nil || !make {
		return f, err
	}
	if err := os.MkdirAll(s.env.Run+"/net", 0o700); err != nil {
		return nil, err
	}
	l, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	if f, err := openRouter(s.RouterPath()); f != nil || err != nil {
		return f, err // somebody else was faster
	}
	if f, err = makeRouter(s.RouterPath()); err != nil {
		return nil, errs.New(errs.Unknown, "network namespace of uid %d: %w", s.env.UID, err)
	}
	return f, nil
}

// Router opens the user's network namespace, which is made when it is missing. The
// caller is inside the user's namespaces.
func (s *Store) Router() (*os.File, error) { return s.router(true) }

// openRouter opens the mounted namespace; nil when none is mounted.
func openRouter(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == unix.ENOENT {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != nsfsMagic {
		_ = unix.Close(fd) // an empty file, what a mount was made on
		return nil, nil    //nolint:nilnil,nilerr // there is none
	}
	return os.NewFile(uintptr(fd), path), nil
}

// makeRouter makes the namespace and mounts it on path.
func makeRouter(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	_ = f.Close() // only made
	done := make(chan error)
	go func() {
		// The thread is in the wrong namespace afterwards: it ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("unshare net", err)
			return
		}
		if err := furnishRouter(); err != nil {
			done <- err
			return
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			done <- &os.PathError{Op: "mount", Path: path, Err: err}
			return
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	if f, err = openRouter(path); f == nil && err == nil {
		err = errs.New(errs.Unknown, "%s: the mount is not there", path)
	}
	return f, err
}

// furnishRouter makes the link to the helper in the calling thread's namespace.
func furnishRouter() error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	b := netlink.NewBatch()
	b.AddVeth(UplinkDevice, UplinkRouterMAC(), UplinkMTU, 0, &netlink.Peer{Name: UplinkPeer, MTU: UplinkMTU})
	if err := c.Do(b); err != nil {
		return err
	}
	near, err := c.Index(UplinkDevice)
	if err != nil {
		return err
	}
	far, err := c.Index(UplinkPeer)
	if err != nil {
		return err
	}
	six := enableSysctl("net/ipv6/conf/"+UplinkPeer+"/disable_ipv6") == nil
	b = netlink.NewBatch()
	b.SetUp(1) // lo
	b.SetUp(far)
	b.AddAddr(near, addrBytes(UplinkRouter), UplinkBits)
	b.AddRoute(near, nil, 0, addrBytes(UplinkHost))
	if six {
		b.AddAddr(near, addrBytes(UplinkRouter6), UplinkBits6)
		b.AddRoute(near, nil, 0, addrBytes(UplinkHost6))
	}
	if err := c.Do(b); err != nil {
		return err
	}
	err = enableSysctl("net/ipv4/ip_forward")
	if six {
		err = errors.Join(err, enableSysctl("net/ipv6/conf/all/forwarding"))
	}
	return err
}
