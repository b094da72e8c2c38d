package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// leaf is a verdict on a system call: chains of tests, then an action.
type leaf struct {
	chains []chain
	ret    uint32 // when no chain matches
}

// chain is a conjunction of tests and the action if all hold.
type chain struct {
	tests []test
	ret   uint32
}

// test is a cond with the width at which the argument is compared.
type test struct {
	cond
	narrow bool // only the low 32 bits exist or count
}

// span says that from number lo on, up to the next span, leaf applies.
type span struct {
	lo   uint32
	leaf int
}

// slots bounds the table that one ABI is resolved into: system call numbers, and
// at its end those of ARM's private calls.
const (
	slots        = 1024
	privateSlots = 16
)

func slot(nr int32) int {
	if nr >= armPrivate {
		return slots - privateSlots + int(nr-armPrivate)%privateSlots
	}
	return int(nr)
}

// cell collects the rules for one system call of one ABI.
type cell struct {
	fixed  bool // an unconditional rule was met
	ret    uint32
	chains []chain
}

// spans resolves the rules for one ABI into an ordered list of spans that covers
// its numbers; limit is the first number that no longer belongs to it.
func (c *compiler) spans(b abi, rules []rule, limit uint32) []span {
	var cells [slots]cell
	top, private := -1, false // the highest number named, and whether private calls are
	note := func(nr int32) {
		if nr < armPrivate {
			top = max(top, int(nr))
		} else {
			private = true
		}
	}
	for i := range rules {
		r := &rules[i]
		for _, name := range r.names {
			row := c.family.lookup(name)
			if row == nil {
				continue
			}
			if nr := row.nr[b.column]; nr >= 0 {
				note(nr)
				c.add(&cells[slot(nr)], r, func(k cond) test { return test{k, !b.wide || truncated(name, k.arg)} })
			}
			if b.muxed {
				c.addMuxed(&cells, b, r, name)
			}
		}
	}

	deflt := c.leaf(nil, c.deflt)
	var out []span
	push := func(lo uint32, leaf int) {
		if n := len(out); n == 0 || out[n-1].leaf != leaf {
			out = append(out, span{lo, leaf})
		}
	}
	verdict := func(e *cell) int {
		switch {
		case e.fixed:
			return c.leaf(nil, e.ret)
		case len(e.chains) > 0:
			return c.leaf(e.chains, c.deflt)
		}
		return deflt
	}
	for nr := 0; nr <= top; nr++ {
		push(b.base+uint32(nr), verdict(&cells[nr]))
	}
	// What is newer than the profile does not exist for the container, as in runc.
	newer := deflt
	if top >= 0 && !c.allowed {
		newer = c.leaf(nil, unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS))
	}
	push(b.base+uint32(top+1), newer)
	if private {
		for i := range privateSlots {
			push(armPrivate+uint32(i), verdict(&cells[slots-privateSlots+i]))
		}
		push(armPrivate+privateSlots, newer)
	}
	if limit == 0 {
		// A tracer that skips a call sets the number -1, which is in no ABI.
		push(^uint32(0), deflt)
	}
	return out
}

// add enters r into the cell of one call. Rules that say the default change
// nothing, and the first unconditional rule ends the matter (see the package
// comment).
func (c *compiler) add(e *cell, r *rule, width func(cond) test) {
	if r.ret == c.deflt || e.fixed {
		return
	}
	if len(r.conds) == 0 {
		e.fixed, e.ret = true, r.ret
		return
	}
	if r.any {
		for _, k := range r.conds {
			e.chains = append(e.chains, chain{[]test{width(k)}, r.ret})
		}
		return
	}
	tests := make([]test, len(r.conds))
	for i, k := range r.conds {
		tests[i] = width(k)
	}
	e.chains = append(e.chains, chain{tests, r.ret})
}

// addMuxed carries a rule for, say, socket over to socketcall(SYS_SOCKET, …).
// The arguments lie in memory there, where a filter cannot look: a rule with
// arguments carries over, as a rule for the whole call, only if it forbids more
// than the default does.
func (c *compiler) addMuxed(cells *[slots]cell, b abi, r *rule, name string) {
	call, number := mux(name)
	if call == "" || len(r.conds) > 0 && severity(r.ret) <= severity(c.deflt) {
		return
	}
	row := c.family.lookup(call)
	// The upper half of ipc's first argument is a version and does not choose the
	// call (ipc/syscall.c).
	k := cond{arg: 0, op: specs.OpEqualTo, value: number, mask: 0xffff}
	if call == "socketcall" {
		k.mask = 0xffffffff
	}
	c.add(&cells[slot(row.nr[b.column])], &rule{ret: r.ret, conds: []cond{k}}, func(k cond) test { return test{k, true} })
}

// severity orders actions by how much they forbid.
func severity(ret uint32) int {
	switch ret & actionMask {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG:
		return 0
	case unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_USER_NOTIF:
		return 1
	case unix.SECCOMP_RET_ERRNO:
		return 2
	case unix.SECCOMP_RET_TRAP:
		return 3
	case unix.SECCOMP_RET_KILL_THREAD:
		return 4
	}
	return 5
}

// leaf returns the index of a verdict, entering it if it is new.
func (c *compiler) leaf(chains []chain, ret uint32) int {
	for i := range c.leaves {
		if l := &c.leaves[i]; l.ret == ret && slices.EqualFunc(l.chains, chains, func(a, b chain) bool {
			return a.ret == b.ret && slices.Equal(a.tests, b.tests)
		}) {
			return i
		}
	}
	c.leaves = append(c.leaves, leaf{chains, ret})
	return len(c.leaves) - 1
}
