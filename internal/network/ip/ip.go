// Package ip holds addresses and subnets of both IP versions.
//
// It is a small part of net/netip, without that package's work at every
// program start (it interns its zones), which isle's start-up budget does not
// have room for. An address is a value that can be compared and used as a key.
//
// See RFC 4291, RFC 5952 (text form), RFC 4632.
package ip

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"
)

// Addr is an IPv4 or IPv6 address. The zero Addr is none.
type Addr struct {
	hi, lo uint64 // IPv4: in the low 32 bits of lo
	ver    uint8  // 4, 6; 0: none
}

// From returns the address of 4 or 16 bytes.
func From(b []byte) Addr {
	switch len(b) {
	case 4:
		return Addr{0, uint64(binary.BigEndian.Uint32(b)), 4}
	case 16:
		return Addr{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), 6}
	}
	return Addr{}
}

// IsValid reports whether a is an address at all.
func (a Addr) IsValid() bool { return a.ver != 0 }

// Is4 and Is6 tell the version.
func (a Addr) Is4() bool { return a.ver == 4 }

// Is6 reports whether a is an IPv6 address.
func (a Addr) Is6() bool { return a.ver == 6 }

// Bytes returns the 4 or 16 bytes of a; nil for the zero Addr.
func (a Addr) Bytes() []byte {
	switch a.ver {
	case 4:
		return binary.BigEndian.AppendUint32(make([]byte, 0, 4), uint32(a.lo))
	case 6:
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), a.hi), a.lo)
	}
	return nil
}

// Parse reads an address without a zone.
func Parse(s string) (Addr, bool) {
	if strings.IndexByte(s, ':') < 0 {
		v, ok := parse4(s)
		if !ok {
			return Addr{}, false
		}
		return Addr{0, uint64(v), 4}, true
	}
	return parse6(s)
}

// MustParse is Parse for constants.
func MustParse(s string) Addr {
	a, ok := Parse(s)
	if !ok {
		panic("ip: " + s)
	}
	return a
}

func parse4(s string) (uint32, bool) {
	var v uint32
	for i := range 4 {
		part, rest, more := strings.Cut(s, ".")
		if more == (i == 3) || part == "" || len(part) > 3 || len(part) > 1 && part[0] == '0' {
			return 0, false
		}
		n := uint32(0)
		for k := range len(part) {
			if part[k] < '0' || part[k] > '9' {
				return 0, false
			}
			n = n*10 + uint32(part[k]-'0')
		}
		if n > 255 {
			return 0, false
		}
		v, s = v<<8|n, rest
	}
	return v, true
}

func parse6(s string) (Addr, bool) {
	var b [16]byte
	head, tail, gap := strings.Cut(s, "::")
	n, ok := groups(b[:], head, !gap)
	if !gap {
		if !ok || n != 16 {
			return Addr{}, false
		}
		return From(b[:]), true
	}
	if !ok {
		return Addr{}, false
	}
	var t [16]byte
	m, ok := groups(t[:], tail, true)
	if !ok || n+m > 14 {
		return Addr{}, false
	}
	copy(b[16-m:], t[:m])
	return From(b[:]), true
}

// groups fills b with the groups of s and returns the number of bytes.
func groups(b []byte, s string, last bool) (int, bool) {
	n := 0
	for s != "" {
		part, rest, more := strings.Cut(s, ":")
		if last && !more && strings.IndexByte(part, '.') >= 0 {
			v, ok := parse4(part)
			if !ok || n+4 > len(b) {
				return 0, false
			}
			binary.BigEndian.PutUint32(b[n:], v)
			return n + 4, true
		}
		v, err := strconv.ParseUint(part, 16, 16)
		if err != nil || len(part) > 4 || n+2 > len(b) || more && rest == "" {
			return 0, false
		}
		binary.BigEndian.PutUint16(b[n:], uint16(v))
		n, s = n+2, rest
	}
	return n, true
}

// String returns the canonical text (RFC 5952); "" for the zero Addr.
func (a Addr) String() string {
	switch a.ver {
	case 4:
		b := make([]byte, 0, 15)
		for i := 3; i >= 0; i-- {
			b = strconv.AppendUint(b, a.lo>>(8*i)&0xff, 10)
			if i > 0 {
				b = append(b, '.')
			}
		}
		return string(b)
	case 6:
		return a.text6()
	}
	return ""
}

func (a Addr) text6() string {
	var g [8]uint16
	for i := range 4 {
		g[i], g[4+i] = uint16(a.hi>>(48-16*i)), uint16(a.lo>>(48-16*i))
	}
	from, to := -1, -1 // the longest run of zero groups, two at least
	for i := 0; i < 8; i++ {
		k := i
		for k < 8 && g[k] == 0 {
			k++
		}
		if k-i > max(1, to-from) {
			from, to = i, k
		}
		i = max(i, k-1)
	}
	b := make([]byte, 0, 39)
	for i := 0; i < 8; i++ {
		if i == from {
			b = append(b, "::"...)
			i = to - 1
			continue
		}
		if i > 0 && i != to {
			b = append(b, ':')
		}
		b = strconv.AppendUint(b, uint64(g[i]), 16)
	}
	return string(b)
}

// Next returns the address after a.
func (a Addr) Next() Addr { return a.Add(1) }

// Add returns the address n after a, modulo the address space.
func (a Addr) Add(n uint64) Addr {
	lo, carry := bits.Add64(a.lo, n, 0)
	a.lo, a.hi = lo, a.hi+carry
	if a.ver == 4 {
		a.hi, a.lo = 0, a.lo&0xffffffff
	}
	return a
}

// Less orders addresses; IPv4 first.
func (a Addr) Less(b Addr) bool {
	if a.ver != b.ver {
		return a.ver < b.ver
	}
	return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo
}

// IsLoopback reports whether a is in 127.0.0.0/8 or ::1.
func (a Addr) IsLoopback() bool {
	return a.ver == 4 && a.lo>>24 == 127 || a.ver == 6 && a.hi == 0 && a.lo == 1
}

// IsUnspecified reports whether a is 0.0.0.0 or ::.
func (a Addr) IsUnspecified() bool { return a.ver != 0 && a.hi == 0 && a.lo == 0 }

// Prefix is a subnet.
type Prefix struct {
	addr Addr
	bits int
}

// PrefixFrom returns the subnet of n bits that a is in.
func PrefixFrom(a Addr, n int) Prefix { return Prefix{a, n} }

// ParsePrefix reads ADDRESS/BITS. The address may be any in the subnet.
func ParsePrefix(s string) (Prefix, bool) {
	addr, n, ok := strings.Cut(s, "/")
	a, ok2 := Parse(addr)
	v, err := strconv.ParseUint(n, 10, 8)
	if !ok || !ok2 || err != nil || int(v) > a.width() {
		return Prefix{}, false
	}
	return Prefix{a, int(v)}, true
}

func (a Addr) width() int {
	if a.ver == 4 {
		return 32
	}
	return 128
}

// IsValid reports whether p is a subnet at all.
func (p Prefix) IsValid() bool { return p.addr.ver != 0 }

// Addr returns the address as it was given.
func (p Prefix) Addr() Addr { return p.addr }

// Bits returns the length of the network part.
func (p Prefix) Bits() int { return p.bits }

// mask returns the bits of the host part.
func (p Prefix) mask() (hi, lo uint64) {
	n := p.addr.width() - p.bits
	if n >= 64 {
		return 1<<(n-64) - 1, ^uint64(0)
	}
	return 0, 1<<n - 1
}

// First is the subnet's own address, Last its last one (the broadcast of IPv4).
func (p Prefix) First() Addr {
	hi, lo := p.mask()
	return Addr{p.addr.hi &^ hi, p.addr.lo &^ lo, p.addr.ver}
}

// Last is the last address of the subnet.
func (p Prefix) Last() Addr {
	hi, lo := p.mask()
	return Addr{p.addr.hi | hi, p.addr.lo | lo, p.addr.ver}
}

// Masked returns p with its first address.
func (p Prefix) Masked() Prefix { return Prefix{p.First(), p.bits} }

// Contains reports whether a is in p.
func (p Prefix) Contains(a Addr) bool {
	return a.ver == p.addr.ver && Prefix{a, p.bits}.First() == p.First()
}

// Overlaps reports whether p and q have an address in common.
func (p Prefix) Overlaps(q Prefix) bool {
	return p.addr.ver == q.addr.ver && p.addr.ver != 0 && (p.Contains(q.addr) && p.bits <= q.bits || q.Contains(p.addr) && q.bits <= p.bits)
}

// Size returns the number of addresses, at most 2⁶³.
func (p Prefix) Size() uint64 {
	if n := p.addr.width() - p.bits; n < 63 {
		return 1 << n
	}
	return 1 << 63
}

// String returns ADDRESS/BITS.
func (p Prefix) String() string {
	if !p.IsValid() {
		return ""
	}
	return p.addr.String() + "/" + strconv.Itoa(p.bits)
}

// MarshalText and UnmarshalText are the JSON form of addresses and subnets.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote; "" is the zero Addr.
func (a *Addr) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = Addr{}
		return nil
	}
	v, ok := Parse(string(b))
	if !ok {
		return badText(b)
	}
	*a = v
	return nil
}

// MarshalText is the JSON form.
func (p Prefix) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Prefix) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*p = Prefix{}
		return nil
	}
	v, ok := ParsePrefix(string(b))
	if !ok {
		return badText(b)
	}
	*p = v
	return nil
}

type badText []byte

func (b badText) Error() string { return "invalid address " + strconv.Quote(string(b)) }
