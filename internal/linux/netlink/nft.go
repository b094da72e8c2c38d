package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// A packet filter's table, its chains, sets and rules, as nft(8) has them.

// Registers of expressions: four bytes each, of which Reg(0) to Reg(15) exist.
type Reg uint32

// R returns the n-th register (NFT_REG32_00 and on).
func R(n int) Reg { return Reg(unix.NFT_REG32_00 + n) }

// Data types of sets. They mean something to nft(8) only, which prints elements
// by them; those of several fields are joined (concat) with six bits each.
const (
	TypeIPv4   = 7
	TypeIPv6   = 8
	TypeProto  = 12
	TypePort   = 13
	TypeIfname = 41
)

// Concat is the type of a field after others.
func Concat(types ...uint32) uint32 {
	var v uint32
	for _, t := range types {
		v = v<<6 | t
	}
	return v
}

func (b *Batch) nft(what string, msg uint16, flags uint16, family byte) {
	b.Begin(what, unix.NFNL_SUBSYS_NFTABLES<<8|msg, flags)
	b.Raw(family, unix.NFNETLINK_V0, 0, 0)
}

// BeginTransaction starts a transaction of changes to tables.
func (b *Batch) BeginTransaction() {
	b.Begin("begin", unix.NFNL_MSG_BATCH_BEGIN, 0)
	b.Raw(unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
}

// EndTransaction ends it; then DoTransaction applies all of it, or nothing.
func (b *Batch) EndTransaction() {
	b.Begin("commit", unix.NFNL_MSG_BATCH_END, 0)
	b.Raw(unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
}

// Table is a table of the packet filter: the receiver of requests about it.
type Table struct {
	Family byte
	Name   string
}

// Add creates the table, or finds it there.
func (t Table) Add(b *Batch) {
	b.nft("create table "+t.Name, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.Family)
	b.Str(unix.NFTA_TABLE_NAME, t.Name)
}

// Delete removes the table with all that is in it.
func (t Table) Delete(b *Batch) {
	b.nft("remove table "+t.Name, unix.NFT_MSG_DELTABLE, 0, t.Family)
	b.Str(unix.NFTA_TABLE_NAME, t.Name)
}

// Chain creates a base chain: typ is "filter" or "nat".
func (t Table) Chain(b *Batch, name, typ string, hook uint32, prio int32) {
	t.ChainWith(b, name, typ, hook, prio, Accept)
}

// ChainWith is Chain with a policy: what becomes of packets that no rule decides about.
func (t Table) ChainWith(b *Batch, name, typ string, hook uint32, prio int32, policy uint32) {
	b.nft("create chain "+name, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t.Family)
	b.Str(unix.NFTA_CHAIN_TABLE, t.Name)
	b.Str(unix.NFTA_CHAIN_NAME, name)
	h := b.Nest(unix.NFTA_CHAIN_HOOK)
	b.BE32(unix.NFTA_HOOK_HOOKNUM, hook)
	b.BE32(unix.NFTA_HOOK_PRIORITY, uint32(prio))
	b.End(h)
	b.BE32(unix.NFTA_CHAIN_POLICY, policy)
	b.Str(unix.NFTA_CHAIN_TYPE, typ)
}

// Set describes a set, or a map when DataLen is not 0.
type Set struct {
	Name              string
	KeyType, KeyLen   uint32
	DataType, DataLen uint32
}

// AddSet creates a set. id is a number of its own within the transaction.
func (t Table) AddSet(b *Batch, s *Set, id uint32) {
	b.nft("create set "+s.Name, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, t.Family)
	b.Str(unix.NFTA_SET_TABLE, t.Name)
	b.Str(unix.NFTA_SET_NAME, s.Name)
	flags := uint32(0)
	if s.DataLen > 0 {
		flags = unix.NFT_SET_MAP
	}
	b.BE32(unix.NFTA_SET_FLAGS, flags)
	b.BE32(unix.NFTA_SET_KEY_TYPE, s.KeyType)
	b.BE32(unix.NFTA_SET_KEY_LEN, s.KeyLen)
	if s.DataLen > 0 {
		b.BE32(unix.NFTA_SET_DATA_TYPE, s.DataType)
		b.BE32(unix.NFTA_SET_DATA_LEN, s.DataLen)
	}
	b.BE32(unix.NFTA_SET_ID, id)
	if s.KeyType == TypeIfname {
		// For nft(8), which else takes the key for a number in network order: key
		// byte order (0), four bytes, that of the host (1).
		b.Attr(unix.NFTA_SET_USERDATA, append([]byte{0, 4}, Host32(1)...))
	}
}

// Elem is an element of a set, or of a map when it has Data.
type Elem struct{ Key, Data []byte }

// AddElems puts elements into a set; one that is there already is left, or, when
// its data differ, EEXIST.
func (t Table) AddElems(b *Batch, set string, elems ...Elem) {
	t.elems(b, "add to "+set, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, set, elems)
}

// DelElems takes elements out of a set; ENOENT when one is not there.
func (t Table) DelElems(b *Batch, set string, elems ...Elem) {
	t.elems(b, "remove from "+set, unix.NFT_MSG_DELSETELEM, 0, set, elems)
}

func (t Table) elems(b *Batch, what string, msg, flags uint16, set string, elems []Elem) {
	// An attribute's length has 16 bits.
	const most = 256
	for len(elems) > 0 {
		n := min(len(elems), most)
		b.nft(what, msg, flags, t.Family)
		b.Str(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
		b.Str(unix.NFTA_SET_ELEM_LIST_SET, set)
		list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for _, e := range elems[:n] {
			el := b.Nest(unix.NFTA_LIST_ELEM)
			b.value(unix.NFTA_SET_ELEM_KEY, e.Key)
			if e.Data != nil {
				b.value(unix.NFTA_SET_ELEM_DATA, e.Data)
			}
			b.End(el)
		}
		b.End(list)
		elems = elems[n:]
	}
}

func (b *Batch) value(typ uint16, v []byte) {
	n := b.Nest(typ)
	b.Attr(unix.NFTA_DATA_VALUE, v)
	b.End(n)
}

// Rule appends a rule of the given expressions to a chain.
func (t Table) Rule(b *Batch, chain string, exprs ...Expr) {
	b.nft("add rule to "+chain, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, t.Family)
	b.Str(unix.NFTA_RULE_TABLE, t.Name)
	b.Str(unix.NFTA_RULE_CHAIN, chain)
	list := b.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range exprs {
		el := b.Nest(unix.NFTA_LIST_ELEM)
		b.Str(unix.NFTA_EXPR_NAME, e.name)
		data := b.Nest(unix.NFTA_EXPR_DATA)
		e.put(b)
		b.End(data)
		b.End(el)
	}
	b.End(list)
}

// Expr is one expression of a rule.
type Expr struct {
	name string
	put  func(b *Batch)
}

// Meta loads a property of the packet (unix.NFT_META_*).
func Meta(key uint32, to Reg) Expr {
	return Expr{"meta", func(b *Batch) {
		b.BE32(unix.NFTA_META_DREG, uint32(to))
		b.BE32(unix.NFTA_META_KEY, key)
	}}
}

// Network and Transport load bytes of the packet's headers.
func Network(offset, n uint32, to Reg) Expr {
	return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, n, to)
}

// Transport loads bytes of the transport header.
func Transport(offset, n uint32, to Reg) Expr {
	return payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, n, to)
}

func payload(base, offset, n uint32, to Reg) Expr {
	return Expr{"payload", func(b *Batch) {
		b.BE32(unix.NFTA_PAYLOAD_DREG, uint32(to))
		b.BE32(unix.NFTA_PAYLOAD_BASE, base)
		b.BE32(unix.NFTA_PAYLOAD_OFFSET, offset)
		b.BE32(unix.NFTA_PAYLOAD_LEN, n)
	}}
}

// Equal goes on when the register holds v, NotEqual when it does not.
func Equal(r Reg, v []byte) Expr { return cmp(unix.NFT_CMP_EQ, r, v) }

// NotEqual goes on when the register holds something else.
func NotEqual(r Reg, v []byte) Expr { return cmp(unix.NFT_CMP_NEQ, r, v) }

func cmp(op uint32, r Reg, v []byte) Expr {
	return Expr{"cmp", func(b *Batch) {
		b.BE32(unix.NFTA_CMP_SREG, uint32(r))
		b.BE32(unix.NFTA_CMP_OP, op)
		b.value(unix.NFTA_CMP_DATA, v)
	}}
}

// Mask ands a register with mask.
func Mask(r Reg, mask []byte) Expr {
	return Expr{"bitwise", func(b *Batch) {
		b.BE32(unix.NFTA_BITWISE_SREG, uint32(r))
		b.BE32(unix.NFTA_BITWISE_DREG, uint32(r))
		b.BE32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		b.value(unix.NFTA_BITWISE_MASK, mask)
		b.value(unix.NFTA_BITWISE_XOR, make([]byte, len(mask)))
	}}
}

// CT loads a property of the packet's connection (unix.NFT_CT_*).
func CT(key uint32, to Reg) Expr {
	return Expr{"ct", func(b *Batch) {
		b.BE32(unix.NFTA_CT_DREG, uint32(to))
		b.BE32(unix.NFTA_CT_KEY, key)
	}}
}

// DestinationType loads what the destination is to this machine (unix.RTN_*).
func DestinationType(to Reg) Expr {
	return Expr{"fib", func(b *Batch) {
		b.BE32(unix.NFTA_FIB_DREG, uint32(to))
		b.BE32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
		b.BE32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
	}}
}

// In goes on when the set has the key in r.
func InSet(set string, r Reg) Expr { return lookup(set, r, 0, false) }

// NotInSet goes on when the set has not the key in r.
func NotInSet(set string, r Reg) Expr { return lookup(set, r, 0, true) }

// Map goes on when the map has the key in r, with its data in to.
func Map(set string, r, to Reg) Expr { return lookup(set, r, to, false) }

func lookup(set string, r, to Reg, invert bool) Expr {
	return Expr{"lookup", func(b *Batch) {
		b.Str(unix.NFTA_LOOKUP_SET, set)
		b.BE32(unix.NFTA_LOOKUP_SREG, uint32(r))
		if to != 0 {
			b.BE32(unix.NFTA_LOOKUP_DREG, uint32(to))
		}
		if invert {
			b.BE32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
		}
	}}
}

// DNAT rewrites the destination to the address and port in registers.
func DNAT(family uint32, addr, port Reg) Expr {
	return Expr{"nat", func(b *Batch) {
		b.BE32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		b.BE32(unix.NFTA_NAT_FAMILY, family)
		b.BE32(unix.NFTA_NAT_REG_ADDR_MIN, uint32(addr))
		b.BE32(unix.NFTA_NAT_REG_PROTO_MIN, uint32(port))
	}}
}

// Attributes that x/sys does not name (linux/netfilter/nf_tables.h).
const (
	socketKey     = 1 // NFTA_SOCKET_KEY
	socketDreg    = 2 // NFTA_SOCKET_DREG
	socketIsOurs  = 0 // NFT_SOCKET_TRANSPARENT
	tproxyFamily  = 1 // NFTA_TPROXY_FAMILY
	tproxyRegAddr = 2 // NFTA_TPROXY_REG_ADDR
	tproxyRegPort = 3 // NFTA_TPROXY_REG_PORT
)

// TransparentSocket loads 1 when a socket of this namespace that may have foreign
// addresses (IP_TRANSPARENT) is the packet's, and stops without one.
func TransparentSocket(to Reg) Expr {
	return Expr{"socket", func(b *Batch) {
		b.BE32(socketKey, socketIsOurs)
		b.BE32(socketDreg, uint32(to))
	}}
}

// ToListener gives the packet, unchanged, to the socket that listens on the
// address and port in registers. The packet still has to be routed to this machine.
func ToListener(family uint32, addr, port Reg) Expr {
	return Expr{"tproxy", func(b *Batch) {
		b.BE32(tproxyFamily, family)
		b.BE32(tproxyRegAddr, uint32(addr))
		b.BE32(tproxyRegPort, uint32(port))
	}}
}

// Load puts a constant into registers.
func Load(to Reg, v []byte) Expr {
	return Expr{"immediate", func(b *Batch) {
		b.BE32(unix.NFTA_IMMEDIATE_DREG, uint32(to))
		b.value(unix.NFTA_IMMEDIATE_DATA, v)
	}}
}

// SetMark gives the packet the mark in a register.
func SetMark(from Reg) Expr {
	return Expr{"meta", func(b *Batch) {
		b.BE32(unix.NFTA_META_SREG, uint32(from))
		b.BE32(unix.NFTA_META_KEY, unix.NFT_META_MARK)
	}}
}

// Masquerade rewrites the source to the address of the outgoing device.
func Masquerade() Expr { return Expr{"masq", func(*Batch) {}} }

// Verdicts.
const (
	Drop   = 0
	Accept = 1
)

// Verdict ends the chain.
func Verdict(code uint32) Expr {
	return Expr{"immediate", func(b *Batch) {
		b.BE32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		data := b.Nest(unix.NFTA_IMMEDIATE_DATA)
		v := b.Nest(unix.NFTA_DATA_VERDICT)
		b.BE32(unix.NFTA_VERDICT_CODE, code)
		b.End(v)
		b.End(data)
	}}
}

// Ifname is a device's name as registers and sets hold it.
func Ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return b
}

// Host32 is a number as the kernel puts it into a register.
func Host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// Rules counts the rules of a table; 0 when it is not there.
func (t Table) Rules(c *Conn) (n int, err error) {
	b := NewBatch()
	b.nft("list rules of table "+t.Name, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, t.Family)
	b.Str(unix.NFTA_RULE_TABLE, t.Name)
	err = c.Dump(b, func() { n = 0 }, func(typ uint16, _ []byte) {
		if typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE {
			n++
		}
	})
	return n, err
}

// Policy is what a base chain of the table does with packets that no rule has
// decided about (Drop, Accept); not ok: there is no such chain.
func (t Table) Policy(c *Conn, chain string) (policy uint32, ok bool, err error) {
	b := NewBatch()
	b.nft("look at chain "+chain, unix.NFT_MSG_GETCHAIN, 0, t.Family)
	b.Str(unix.NFTA_CHAIN_TABLE, t.Name)
	b.Str(unix.NFTA_CHAIN_NAME, chain)
	err = c.Get(b, func(_ uint16, p []byte) {
		Attrs(p[min(4, len(p)):], func(typ uint16, v []byte) bool {
			if typ == unix.NFTA_CHAIN_POLICY && len(v) == 4 {
				policy, ok = binary.BigEndian.Uint32(v), true
			}
			return true
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	return policy, ok, err
}

// Mentions reports whether any rule of the table holds the bytes.
func (t Table) Mentions(c *Conn, what []byte) (found bool, err error) {
	b := NewBatch()
	b.nft("list rules of table "+t.Name, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, t.Family)
	b.Str(unix.NFTA_RULE_TABLE, t.Name)
	err = c.Dump(b, func() {}, func(_ uint16, p []byte) { found = found || bytes.Contains(p, what) })
	return found, err
}

// Has reports whether a set of the table has the key.
func (t Table) Has(c *Conn, set string, key []byte) (bool, error) {
	b := NewBatch()
	t.elems(b, "look into "+set, unix.NFT_MSG_GETSETELEM, 0, set, []Elem{{Key: key}})
	found := false
	err := c.Get(b, func(uint16, []byte) { found = true })
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return found, err
}
