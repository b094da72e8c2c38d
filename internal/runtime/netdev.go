package runtime

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/linux/program"
)

// netDevices moves devices of the host into the container's network namespace,
// with the addresses they have (runtime-spec, Network Devices). They are not
// brought back: who owns the namespace decides what becomes of them.
func (c *compiler) netDevices() error {
	list := c.s.Linux.NetDevices
	for name, d := range list {
		for _, n := range []string{name, d.Name} {
			if len(n) >= unix.IFNAMSIZ || n == "." || n == ".." {
				return invalid("invalid network device name %q", n)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	c.p.Step(program.Step{Verb: "network devices"})
	c.p.Sync(program.Null, 0, func(pid int, _ []byte) error {
		ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
		if err != nil {
			return err
		}
		defer ns.Close()
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if err := moveDevice(ns, name, list[name]); err != nil {
				return errs.New(errs.Unknown, "network device %q: %w", name, err)
			}
		}
		return nil
	})
	return nil
}

func moveDevice(ns *os.File, name string, d specs.LinuxNetDevice) (err error) {
	host, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	inside, err := netlink.DialIn(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inside.Close()) }()
	index, err := host.Index(name)
	if err != nil {
		return err
	}
	if index == 0 {
		return errs.New(errs.NotFound, "not found")
	}
	addrs, err := host.Addrs(index)
	if err != nil {
		return err
	}
	as := name
	if d.Name != "" {
		as = d.Name
	}
	b := netlink.NewBatch()
	b.MoveLink(index, ns, as)
	if err := host.Do(b); err != nil {
		return err
	}
	if index, err = inside.Index(as); err != nil {
		return err
	}
	b = netlink.NewBatch()
	for _, a := range addrs {
		b.AddAddr(index, a.IP, a.Bits)
	}
	b.SetUp(index)
	return inside.Do(b)
}
