package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Offsets in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16 // six of eight bytes
)

// Instructions of classic BPF that a seccomp filter may use and we need.
const (
	opLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opRet  = unix.BPF_RET | unix.BPF_K
	opJump = unix.BPF_JMP | unix.BPF_JA
	opEq   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opGt   = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opGe   = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
)

// maxInsns is the kernel's BPF_MAXINSNS.
const maxInsns = 4096

// label is a place in a program, counted from its end, so that it stays right
// while instructions are put in front. Zero is no place.
type label int

// program assembles from the last instruction to the first, since classic BPF
// only jumps forwards: every target is then known when it is needed.
type program struct {
	rev  []unix.SockFilter
	rets []struct {
		ret uint32
		at  label
	}
}

func (p *program) put(code uint16, k uint32, jt, jf uint8) label {
	p.rev = append(p.rev, unix.SockFilter{Code: code, K: k, Jt: jt, Jf: jf})
	return label(len(p.rev))
}

// reach is how far a conditional jump may go, less room for the trampolines of
// its other branch.
const reach = 250

// near reports whether the next instruction can jump to l.
func (p *program) near(l label) bool { return len(p.rev)-int(l) <= reach }

// ret returns a place near by where the filter returns v.
func (p *program) ret(v uint32) label {
	for i := range p.rets {
		if r := &p.rets[i]; r.ret == v {
			if !p.near(r.at) {
				r.at = p.put(opRet, v, 0, 0)
			}
			return r.at
		}
	}
	at := p.put(opRet, v, 0, 0)
	p.rets = append(p.rets, struct {
		ret uint32
		at  label
	}{v, at})
	return at
}

// close returns a place near by from where l is reached.
func (p *program) close(l label) label {
	if p.near(l) {
		return l
	}
	if in := p.rev[l-1]; in.Code == opRet {
		return p.ret(in.K)
	}
	return p.put(opJump, uint32(len(p.rev)-int(l)), 0, 0)
}

// branch puts a conditional jump.
func (p *program) branch(code uint16, k uint32, yes, no label) label {
	yes = p.close(yes)
	no = p.close(no)
	at := len(p.rev)
	return p.put(code, k, uint8(at-int(yes)), uint8(at-int(no)))
}

// test puts the test t, which goes on at yes or no.
func (p *program) test(t test, yes, no label) label {
	lo, hi := uint32(t.value), uint32(t.value>>32)
	mlo, mhi := uint32(t.mask), uint32(t.mask>>32)
	code, op := uint16(opEq), t.op
	switch op {
	case specs.OpNotEqual:
		yes, no = no, yes
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		code = opGt
	case specs.OpLessEqual: // not greater
		code, op, yes, no = opGt, specs.OpGreaterThan, no, yes
	case specs.OpLessThan: // not greater or equal
		code, op, yes, no = opGt, specs.OpGreaterEqual, no, yes
	default: // equal
	}
	lowCode := code
	if op == specs.OpGreaterEqual {
		lowCode = opGe
	}
	if t.narrow && code != opEq && hi != 0 {
		return no // no 32-bit value is that large
	}

	at := yes // if the low half does not matter
	if mlo != 0 {
		p.branch(lowCode, lo, yes, no)
		if mlo != ^uint32(0) {
			p.put(opAnd, mlo, 0, 0)
		}
		at = p.load(t.arg, 0)
	}
	if t.narrow || mhi == 0 {
		return at
	}
	at = p.branch(opEq, hi, at, no)
	if code == opGt {
		p.branch(opGt, hi, yes, at)
	}
	if mhi != ^uint32(0) {
		p.put(opAnd, mhi, 0, 0)
	}
	return p.load(t.arg, 4)
}

// load puts a load of half an argument; both architectures are little-endian.
func (p *program) load(arg uint, half uint32) label {
	return p.put(opLoad, offArgs+8*uint32(arg)+half, 0, 0)
}

// leaf puts the tests of a verdict.
func (p *program) leaf(l *leaf) label {
	at := p.ret(l.ret)
	for end := len(l.chains); end > 0; {
		begin := end - 1
		for begin > 0 && together(l.chains[begin-1], l.chains[end-1]) {
			begin--
		}
		if end-begin > 1 {
			at = p.alternatives(l.chains[begin:end], at)
		} else {
			c := &l.chains[begin]
			next := p.ret(c.ret)
			for _, t := range slices.Backward(c.tests) {
				next = p.test(t, next, at)
			}
			at = next
		}
		end = begin
	}
	return at
}

// together reports whether two chains are plain alternatives that can share the
// loads: the same argument is equal to one or another value, the action the same.
func together(a, b chain) bool {
	if len(a.tests) != 1 || len(b.tests) != 1 || a.ret != b.ret {
		return false
	}
	s, t := a.tests[0], b.tests[0]
	if s.arg != t.arg || s.narrow != t.narrow || s.mask != ^uint64(0) || t.mask != ^uint64(0) {
		return false
	}
	if s.op == specs.OpEqualTo && t.op == specs.OpEqualTo && s.value>>32 == t.value>>32 {
		return true
	}
	return s.narrow && s.value>>32 == 0 && t.value>>32 == 0
}

// alternatives puts chains that are all [together]; at is where none matches.
func (p *program) alternatives(cs []chain, at label) label {
	first, no := cs[0].tests[0], at
	match := p.ret(cs[0].ret)
	for _, c := range slices.Backward(cs) {
		t := c.tests[0]
		v := uint32(t.value)
		switch t.op {
		case specs.OpEqualTo:
			at = p.branch(opEq, v, match, at)
		case specs.OpNotEqual:
			at = p.branch(opEq, v, at, match)
		case specs.OpGreaterThan:
			at = p.branch(opGt, v, match, at)
		case specs.OpGreaterEqual:
			at = p.branch(opGe, v, match, at)
		case specs.OpLessEqual:
			at = p.branch(opGt, v, at, match)
		case specs.OpLessThan:
			at = p.branch(opGe, v, at, match)
		default:
			panic("seccomp: operator " + string(t.op) + " among alternatives")
		}
	}
	at = p.load(first.arg, 0)
	if !first.narrow {
		p.branch(opEq, uint32(first.value>>32), at, no)
		at = p.load(first.arg, 4)
	}
	return at
}

// group is a run of numbers with one verdict but for a few single ones. A single
// number costs one comparison this way where two edges in the tree would cost two.
type group struct {
	lo     uint32
	leaf   int
	except []span // each a single number
}

// maxExcept bounds the comparisons in a row; the tree is shallow instead.
const maxExcept = 4

// groups joins the spans of a section into groups.
func groups(s []span) []group {
	var out []group
	single := func(i int) bool { return i+1 < len(s) && s[i+1].lo == s[i].lo+1 }
	for i := 0; i < len(s); {
		g := group{lo: s[i].lo, leaf: s[i].leaf}
		if single(i) {
			g.except, g.leaf = append(g.except, s[i]), s[i+1].leaf
			i++
		}
		for i++; i+1 < len(s) && single(i) && s[i+1].leaf == g.leaf; i += 2 {
			if len(g.except) == maxExcept {
				// The verdict goes on behind the single number in a new group.
				out = append(out, g)
				g = group{lo: s[i].lo, leaf: g.leaf}
			}
			g.except = append(g.except, s[i])
		}
		out = append(out, g)
	}
	return out
}

// tree puts a decision over groups, the number being loaded.
func (p *program) tree(g []group, verdicts []label) label {
	if len(g) == 1 {
		at := verdicts[g[0].leaf]
		for _, e := range slices.Backward(g[0].except) {
			at = p.branch(opEq, e.lo, verdicts[e.leaf], at)
		}
		return at
	}
	mid := len(g) / 2
	right := p.tree(g[mid:], verdicts)
	left := p.tree(g[:mid], verdicts)
	return p.branch(opGe, g[mid].lo, right, left)
}

// program compiles the rules for the given ABIs.
func (c *compiler) program(abis []abi, rules []rule) ([]unix.SockFilter, error) {
	type section struct {
		audit uint32
		spans []span
	}
	var sections []section
	for i := 0; i < len(abis); {
		s := section{audit: abis[i].audit}
		for ; i < len(abis) && abis[i].audit == s.audit; i++ {
			limit := uint32(0)
			if abis[i].audit == unix.AUDIT_ARCH_X86_64 && abis[i].base == 0 {
				limit = x32Bit
			}
			s.spans = append(s.spans, c.spans(abis[i], rules, limit)...)
			if limit != 0 && (i+1 == len(abis) || abis[i+1].audit != s.audit) {
				// x32 is not in the profile: a foreign architecture.
				s.spans = append(s.spans, span{x32Bit, c.leaf(nil, unix.SECCOMP_RET_KILL_THREAD)}, span{^uint32(0), c.leaf(nil, c.deflt)})
			}
		}
		s.spans = merged(s.spans)
		sections = append(sections, s)
	}

	p := program{rev: make([]unix.SockFilter, 0, 512)}
	at := p.ret(unix.SECCOMP_RET_KILL_THREAD)
	verdicts := make([]label, len(c.leaves))
	for i := len(sections) - 1; i >= 0; i-- {
		s := &sections[i]
		for n := range verdicts {
			// Verdicts lie behind the tree that uses them, so that its jumps reach.
			verdicts[n] = 0
		}
		for _, sp := range s.spans {
			if verdicts[sp.leaf] == 0 {
				verdicts[sp.leaf] = p.leaf(&c.leaves[sp.leaf])
			}
		}
		tree := p.tree(groups(s.spans), verdicts)
		if len(s.spans) > 1 {
			tree = p.put(opLoad, offNr, 0, 0)
		}
		at = p.branch(opEq, s.audit, tree, at)
	}
	p.put(opLoad, offArch, 0, 0)
	if len(p.rev) > maxInsns {
		return nil, errs.New(errs.Invalid, "seccomp profile: needs %d instructions, the kernel allows %d", len(p.rev), maxInsns)
	}
	out := make([]unix.SockFilter, len(p.rev))
	for i, in := range p.rev {
		out[len(out)-1-i] = in
	}
	return out, nil
}

// merged joins neighbours with the same verdict.
func merged(s []span) []span {
	out := s[:1]
	for _, x := range s[1:] {
		if x.leaf != out[len(out)-1].leaf {
			out = append(out, x)
		}
	}
	return out
}
