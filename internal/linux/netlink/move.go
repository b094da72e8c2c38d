package netlink

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Addr is an address of a device, of 4 or 16 bytes.
type Addr struct {
	IP   []byte
	Bits int
}

// Addrs returns the addresses that a device was given, those of its link (fe80::,
// 127.0.0.0/8) aside.
func (c *Conn) Addrs(index int) ([]Addr, error) {
	b := NewBatch()
	b.Begin("list addresses", unix.RTM_GETADDR, unix.NLM_F_DUMP)
	b.Raw(make([]byte, 8)...) // struct ifaddrmsg: family, prefixlen, flags, scope, index
	var out []Addr
	err := c.Dump(b, func() { out = nil }, func(_ uint16, p []byte) {
		if len(p) < 8 || int(binary.NativeEndian.Uint32(p[4:])) != index || p[3] != unix.RT_SCOPE_UNIVERSE || p[2]&unix.IFA_F_PERMANENT == 0 {
			return
		}
		a := Addr{Bits: int(p[1])}
		Attrs(p[8:], func(typ uint16, v []byte) bool {
			// IPv6 has no IFA_LOCAL, and IPv4's IFA_ADDRESS may be the other end's.
			if typ == unix.IFA_LOCAL || typ == unix.IFA_ADDRESS && a.IP == nil {
				a.IP = append([]byte(nil), v...)
			}
			return true
		})
		out = append(out, a)
	})
	return out, err
}

// MoveLink takes a device down and moves it to a network namespace, where it
// gets a name.
func (b *Batch) MoveLink(index int, ns *os.File, name string) {
	b.Begin("move device to the network namespace as "+name, unix.RTM_NEWLINK, 0)
	b.ifinfo(index, 0, unix.IFF_UP)
	b.U32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
	b.Str(unix.IFLA_IFNAME, name)
}
