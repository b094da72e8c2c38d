package network

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/netlink"
)

// Somebody may empty the packet filter while containers run (nft flush ruleset, a
// reload of a firewall). Each monitor of a container on a bridge listens for
// removals; the kernel wakes nobody for what containers' starts and ends do. Who
// is awake first puts the table back, the others find it there.

// Watch is a socket that becomes readable when rules, chains or tables of the
// packet filter have been removed; then Restore. It is nil where nobody but the
// user could remove them.
func (a *Attachment) Watch() *os.File { return a.watch }

// listen opens it. The rules are checked afterwards, so that no removal is missed.
func (a *Attachment) listen() {
	if a.watch == nil && !a.s.env.Rootless {
		a.watch, _ = netlink.WatchRemovals() // without it, the next start looks
	}
}

// Restore reads what woke the caller, and puts the packet filter in order.
func (a *Attachment) Restore() error {
	var b [4096]byte
	for {
		// ENOBUFS: there was more than it holds, and all of it means the same.
		if _, err := unix.Read(int(a.watch.Fd()), b[:]); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			break
		}
	}
	if err := a.load(); err != nil {
		return err
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	for _, n := range a.networks {
		if !n.routed() {
			continue
		}
		if err := a.s.ensureRules(c, n); err != nil {
			return err
		}
	}
	return nil
}
