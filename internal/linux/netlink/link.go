package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Attributes of veth(4) and of bridges that x/sys does not name
// (include/uapi/linux/veth.h, if_link.h).
const (
	vethInfoPeer   = 1
	brportMode     = 4 // IFLA_BRPORT_MODE: hairpin
	macvlanMode    = 1 // IFLA_MACVLAN_MODE
	ipvlanMode     = 1 // IFLA_IPVLAN_MODE
	infoSlaveKind  = 4
	infoSlaveData  = 5
	brForwardDelay = 1
)

// newFlags of requests that create.
const newFlags = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func (b *Batch) ifinfo(index int, flags, change uint32) {
	b.Raw(ifinfo(index, flags, change)...)
}

func ifinfo(index int, flags, change uint32) []byte {
	p := make([]byte, 4, 16) // struct ifinfomsg: family, pad, type
	p = binary.NativeEndian.AppendUint32(p, uint32(index))
	p = binary.NativeEndian.AppendUint32(p, flags)
	return binary.NativeEndian.AppendUint32(p, change)
}

// Peer is the end of a pair of devices that is in a container.
type Peer struct {
	Name  string
	MAC   [6]byte
	Pid   int // a process in its network namespace
	PidNS *os.File
	MTU   int
}

func (b *Batch) peer(p *Peer) {
	b.Str(unix.IFLA_IFNAME, p.Name)
	if p.MAC != [6]byte{} {
		b.Attr(unix.IFLA_ADDRESS, p.MAC[:])
	}
	if p.PidNS != nil {
		b.U32(unix.IFLA_NET_NS_FD, uint32(p.PidNS.Fd()))
	} else if p.Pid > 0 {
		b.U32(unix.IFLA_NET_NS_PID, uint32(p.Pid))
	}
	if p.MTU > 0 {
		b.U32(unix.IFLA_MTU, uint32(p.MTU))
	}
}

// AddVeth makes a pair of devices: one here, a port of the bridge master (0:
// none), and its peer, born in the other namespace: a device that is moved there
// would cost an RCU grace period. This end is up; the peer cannot be as yet
// (ENOTCONN: the driver opens it before it has joined the two).
func (b *Batch) AddVeth(name string, mac [6]byte, mtu, master int, peer *Peer) {
	b.Begin("create device "+name, unix.RTM_NEWLINK, newFlags)
	b.ifinfo(0, unix.IFF_UP, unix.IFF_UP)
	b.Str(unix.IFLA_IFNAME, name)
	if mac != [6]byte{} {
		b.Attr(unix.IFLA_ADDRESS, mac[:])
	}
	if mtu > 0 {
		b.U32(unix.IFLA_MTU, uint32(mtu))
	}
	if master > 0 {
		b.U32(unix.IFLA_MASTER, uint32(master))
	}
	info := b.Nest(unix.IFLA_LINKINFO)
	b.Str(unix.IFLA_INFO_KIND, "veth")
	data := b.Nest(unix.IFLA_INFO_DATA)
	p := b.Nest(vethInfoPeer)
	b.ifinfo(0, 0, 0)
	b.peer(peer)
	b.End(p)
	b.End(data)
	b.End(info)
}

// AddVlan makes a macvlan or ipvlan device (kind) on the device parent, in the
// peer's namespace.
func (b *Batch) AddVlan(kind string, parent int, mode uint32, peer *Peer) {
	b.Begin("create "+kind+" "+peer.Name, unix.RTM_NEWLINK, newFlags)
	b.ifinfo(0, unix.IFF_UP, unix.IFF_UP)
	b.peer(peer)
	b.U32(unix.IFLA_LINK, uint32(parent))
	info := b.Nest(unix.IFLA_LINKINFO)
	b.Str(unix.IFLA_INFO_KIND, kind)
	data := b.Nest(unix.IFLA_INFO_DATA)
	if kind == "ipvlan" {
		b.Attr(ipvlanMode, binary.NativeEndian.AppendUint16(nil, uint16(mode)))
	} else {
		b.U32(macvlanMode, mode)
	}
	b.End(data)
	b.End(info)
}

// AddBridge makes a bridge that forwards at once, and brings it up. The address
// is fixed: a bridge without one takes its lowest port's, and changes with them.
func (b *Batch) AddBridge(name string, mac [6]byte, mtu int) {
	b.Begin("create bridge "+name, unix.RTM_NEWLINK, newFlags)
	b.ifinfo(0, unix.IFF_UP, unix.IFF_UP)
	b.Str(unix.IFLA_IFNAME, name)
	b.Attr(unix.IFLA_ADDRESS, mac[:])
	if mtu > 0 {
		b.U32(unix.IFLA_MTU, uint32(mtu))
	}
	info := b.Nest(unix.IFLA_LINKINFO)
	b.Str(unix.IFLA_INFO_KIND, "bridge")
	data := b.Nest(unix.IFLA_INFO_DATA)
	b.U32(brForwardDelay, 0)
	b.End(data)
	b.End(info)
}

// Hairpin lets a port of a bridge send back what came from it.
func (b *Batch) Hairpin(index int) {
	b.Begin("hairpin mode", unix.RTM_NEWLINK, 0)
	b.ifinfo(index, 0, 0)
	info := b.Nest(unix.IFLA_LINKINFO)
	b.Str(infoSlaveKind, "bridge")
	data := b.Nest(infoSlaveData)
	b.U8(brportMode, 1)
	b.End(data)
	b.End(info)
}

// maxAlias is IFALIASZ without its last byte (linux/if.h).
const maxAlias = 255

// Alias writes a remark on a device; one that is too long is left out.
func (b *Batch) Alias(name, remark string) {
	if len(remark) > maxAlias {
		return
	}
	b.Begin("set alias", unix.RTM_NEWLINK, 0)
	b.ifinfo(0, 0, 0)
	b.Str(unix.IFLA_IFNAME, name)
	b.Attr(unix.IFLA_IFALIAS, []byte(remark))
}

// Aliases calls f with the name and the remark of every device that has one.
func (c *Conn) Aliases(f func(name, remark string)) error {
	b := NewBatch()
	b.Begin("list devices", unix.RTM_GETLINK, unix.NLM_F_DUMP)
	b.ifinfo(0, 0, 0)
	return c.Dump(b, func() {}, func(_ uint16, p []byte) {
		if len(p) < 16 {
			return
		}
		var name, remark string
		Attrs(p[16:], func(typ uint16, v []byte) bool {
			switch typ {
			case unix.IFLA_IFNAME:
				name = string(bytes.TrimRight(v, "\x00"))
			case unix.IFLA_IFALIAS:
				remark = string(bytes.TrimRight(v, "\x00"))
			}
			return true
		})
		if remark != "" {
			f(name, remark)
		}
	})
}

// SetUp brings a device up.
func (b *Batch) SetUp(index int) {
	b.Begin("bring device up", unix.RTM_NEWLINK, 0)
	b.ifinfo(index, unix.IFF_UP, unix.IFF_UP)
}

// DelLink removes a device.
func (b *Batch) DelLink(name string) {
	b.Begin("remove device "+name, unix.RTM_DELLINK, 0)
	b.ifinfo(0, 0, 0)
	b.Str(unix.IFLA_IFNAME, name)
}

func family(addr []byte) byte {
	if len(addr) == 4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddAddr gives a device an address of 4 or 16 bytes. There is no duplicate
// address detection: the address is known to be the device's alone, and could
// not be used for a second.
func (b *Batch) AddAddr(index int, addr []byte, bits int) {
	b.Begin("add address", unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	flags := byte(0)
	if len(addr) == 16 {
		flags = unix.IFA_F_NODAD
	}
	p := []byte{family(addr), byte(bits), flags, unix.RT_SCOPE_UNIVERSE}
	b.Raw(binary.NativeEndian.AppendUint32(p, uint32(index))...)
	b.Attr(unix.IFA_LOCAL, addr)
	b.Attr(unix.IFA_ADDRESS, addr)
	if len(addr) == 4 && bits < 31 {
		brd := append([]byte(nil), addr...)
		for i := range 32 - bits {
			brd[3-i/8] |= 1 << (i % 8)
		}
		b.Attr(unix.IFA_BROADCAST, brd)
	}
}

// AddRoute adds a route to dst/bits (nil: everywhere) by gateway via, or, when
// that is nil, straight to the device.
func (b *Batch) AddRoute(index int, dst []byte, bits int, via []byte) {
	b.route(unix.RTM_NEWROUTE, "add route", index, dst, bits, via)
}

// DelRoute removes the route that AddRoute made.
func (b *Batch) DelRoute(index int, dst []byte, bits int, via []byte) {
	b.route(unix.RTM_DELROUTE, "remove route", index, dst, bits, via)
}

func (b *Batch) route(typ uint16, what string, index int, dst []byte, bits int, via []byte) {
	fam, scope := byte(unix.AF_INET), byte(unix.RT_SCOPE_UNIVERSE)
	switch {
	case dst != nil:
		fam = family(dst)
	case via != nil:
		fam = family(via)
	}
	if via == nil && fam == unix.AF_INET {
		scope = unix.RT_SCOPE_LINK
	}
	flags := uint16(0)
	if typ == unix.RTM_NEWROUTE {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	b.Begin(what, typ, flags)
	// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
	b.Raw(fam, byte(bits), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0)
	if dst != nil {
		b.Attr(unix.RTA_DST, dst)
	}
	if via != nil {
		b.Attr(unix.RTA_GATEWAY, via)
	}
	b.U32(unix.RTA_OIF, uint32(index))
}

// LocalByMark makes packets of an IP version (unix.AF_INET, AF_INET6) with a mark
// this machine's own, wherever they are going; table is one for that alone. A
// second time the kernel says EEXIST.
func (b *Batch) LocalByMark(fam byte, mark, table uint32) {
	b.Begin("add local route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	b.Raw(fam, 0, 0, 0, 0, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0)
	b.U32(unix.RTA_TABLE, table)
	b.U32(unix.RTA_OIF, 1) // lo
	b.Begin("add rule for mark", unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.Raw(fam, 0, 0, 0, 0, 0, 0, unix.FR_ACT_TO_TBL, 0, 0, 0, 0) // struct fib_rule_hdr
	b.U32(unix.FRA_FWMARK, mark)
	b.U32(unix.FRA_TABLE, table)
}

// Routes calls f with the destination of every route: addr/bits, bits 0 for a
// default route, and the device it leaves by.
func (c *Conn) Routes(f func(dst []byte, bits, oif int)) error {
	b := NewBatch()
	b.Begin("list routes", unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	b.Raw(make([]byte, 12)...)
	return c.Dump(b, func() {}, func(_ uint16, p []byte) {
		if len(p) < 12 {
			return
		}
		var dst []byte
		oif := 0
		Attrs(p[12:], func(typ uint16, v []byte) bool {
			switch typ {
			case unix.RTA_DST:
				dst = append([]byte(nil), v...)
			case unix.RTA_OIF:
				if len(v) >= 4 {
					oif = int(binary.NativeEndian.Uint32(v))
				}
			}
			return true
		})
		f(dst, int(p[1]), oif)
	})
}

// Index returns the number of a device in the socket's namespace; 0 when there
// is none of that name.
func (c *Conn) Index(name string) (int, error) {
	// An ioctl works on a netlink socket too, and in its namespace.
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return 0, nil
		}
		return 0, os.NewSyscallError("SIOCGIFINDEX "+name, err)
	}
	return int(ifr.Uint32()), nil
}
