package netlink

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// Link is a network device as the kernel lists it.
type Link struct {
	Index  int
	Name   string
	Kind   string // "veth", "bridge" ...; "" for a real device and lo
	MAC    []byte
	MTU    int
	Up     bool
	Peer   int // the index of the other end of a pair, or of the parent, in its own namespace
	Master int // the index of the bridge it is in; 0: none

	RxBytes, TxBytes uint64
}

// Links lists the devices of the socket's namespace.
func (c *Conn) Links() ([]Link, error) {
	b := NewBatch()
	b.Begin("list devices", unix.RTM_GETLINK, unix.NLM_F_DUMP)
	b.ifinfo(0, 0, 0)
	var list []Link
	err := c.Dump(b, func() { list = nil }, func(_ uint16, p []byte) {
		if len(p) < unix.SizeofIfInfomsg {
			return
		}
		l := Link{Index: int(int32(binary.NativeEndian.Uint32(p[4:]))), Up: binary.NativeEndian.Uint32(p[8:])&unix.IFF_UP != 0}
		Attrs(p[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) bool {
			switch typ {
			case unix.IFLA_IFNAME:
				l.Name = text(v)
			case unix.IFLA_ADDRESS:
				l.MAC = append([]byte(nil), v...)
			case unix.IFLA_MTU:
				l.MTU = number(v)
			case unix.IFLA_LINK:
				l.Peer = number(v)
			case unix.IFLA_MASTER:
				l.Master = number(v)
			case unix.IFLA_STATS64:
				if len(v) >= 32 {
					l.RxBytes, l.TxBytes = binary.NativeEndian.Uint64(v[16:]), binary.NativeEndian.Uint64(v[24:])
				}
			case unix.IFLA_LINKINFO:
				Attrs(v, func(typ uint16, v []byte) bool {
					if typ == unix.IFLA_INFO_KIND {
						l.Kind = text(v)
					}
					return true
				})
			}
			return true
		})
		list = append(list, l)
	})
	return list, err
}

// Address is an address of a device.
type Address struct {
	Index int // of the device
	Addr  []byte
	Bits  int
}

// Addresses lists the addresses of the socket's namespace.
func (c *Conn) Addresses() ([]Address, error) {
	b := NewBatch()
	b.Begin("list addresses", unix.RTM_GETADDR, unix.NLM_F_DUMP)
	b.Raw(make([]byte, unix.SizeofIfAddrmsg)...)
	var list []Address
	err := c.Dump(b, func() { list = nil }, func(_ uint16, p []byte) {
		if len(p) < unix.SizeofIfAddrmsg {
			return
		}
		a := Address{Bits: int(p[1]), Index: int(binary.NativeEndian.Uint32(p[4:]))}
		Attrs(p[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) bool {
			if typ == unix.IFA_LOCAL || typ == unix.IFA_ADDRESS && a.Addr == nil {
				a.Addr = append([]byte(nil), v...)
			}
			return true
		})
		list = append(list, a)
	})
	return list, err
}

// Route is a route of the main table.
type Route struct {
	Dst   []byte // nil with Bits 0: the default route
	Bits  int
	Via   []byte // nil: directly
	Index int    // of the device
	Six   bool
}

// RouteList lists the routes of the main table of the socket's namespace.
func (c *Conn) RouteList() ([]Route, error) {
	b := NewBatch()
	b.Begin("list routes", unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	b.Raw(make([]byte, unix.SizeofRtMsg)...)
	var list []Route
	err := c.Dump(b, func() { list = nil }, func(_ uint16, p []byte) {
		if len(p) < unix.SizeofRtMsg || p[4] != unix.RT_TABLE_MAIN {
			return
		}
		r := Route{Bits: int(p[1]), Six: p[0] == unix.AF_INET6}
		Attrs(p[unix.SizeofRtMsg:], func(typ uint16, v []byte) bool {
			switch typ {
			case unix.RTA_DST:
				r.Dst = append([]byte(nil), v...)
			case unix.RTA_GATEWAY:
				r.Via = append([]byte(nil), v...)
			case unix.RTA_OIF:
				r.Index = number(v)
			}
			return true
		})
		list = append(list, r)
	})
	return list, err
}

func text(v []byte) string { return strings.TrimRight(string(v), "\x00") }

func number(v []byte) int {
	if len(v) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(v)))
}
