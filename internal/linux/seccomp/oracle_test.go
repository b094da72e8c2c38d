package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// machine runs a program as the kernel would.
type machine struct{ vm *bpf.VM }

func load(t testing.TB, prog []unix.SockFilter) machine {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(prog))
	for i, in := range prog {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("an instruction is unknown")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm}
}

// call is one struct seccomp_data.
type call struct {
	audit uint32
	nr    uint32
	args  [6]uint64
}

func (m machine) run(t testing.TB, c call) uint32 {
	t.Helper()
	// The VM loads packets, which are big-endian, where the kernel loads words.
	var d [64]byte
	binary.BigEndian.PutUint32(d[0:], c.nr)
	binary.BigEndian.PutUint32(d[4:], c.audit)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(d[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(d[20+8*i:], uint32(a>>32))
	}
	ret, err := m.vm.Run(d[:])
	if err != nil {
		t.Fatal(err)
	}
	return uint32(ret)
}

// meaning says what a profile means for one call, straight from the words of
// the package comment and without anything of the compiler but its tables.
func meaning(f *family, p *specs.LinuxSeccomp, c call) uint32 {
	ret := func(a specs.LinuxSeccompAction, errno *uint) uint32 {
		e := uint32(unix.EPERM)
		if errno != nil {
			e = uint32(*errno)
		}
		return map[specs.LinuxSeccompAction]uint32{
			specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 0x80000000, specs.ActTrap: 0x30000,
			specs.ActErrno: 0x50000 | e, specs.ActNotify: 0x7fc00000, specs.ActTrace: 0x7ff00000 | e,
			specs.ActLog: 0x7ffc0000, specs.ActAllow: 0x7fff0000,
		}[a]
	}
	deflt := ret(p.DefaultAction, p.DefaultErrnoRet)
	var b *abi
	nr := int64(c.nr)
	for i := range f.abis {
		a := &f.abis[i]
		if a.audit != c.audit {
			continue
		}
		if a.audit == unix.AUDIT_ARCH_X86_64 {
			if c.nr == 0xffffffff {
				return deflt
			}
			if (c.nr >= x32Bit) != (a.arch == specs.ArchX32) {
				continue
			}
			nr = int64(c.nr &^ x32Bit)
			if c.nr >= 2*x32Bit {
				nr = int64(c.nr) - x32Bit
			}
		}
		b = a
	}
	if b == nil || (b.arch != f.abis[0].arch && !slices.Contains(p.Architectures, b.arch)) {
		return unix.SECCOMP_RET_KILL_THREAD
	}
	if c.nr == 0xffffffff {
		return deflt
	}
	numbers := func(name string) (int64, bool) {
		row := f.lookup(name)
		if row == nil {
			return 0, false
		}
		return int64(row.nr[b.column]), row.nr[b.column] >= 0
	}
	narrow := b.arch == specs.ArchX86 || b.arch == specs.ArchARM
	holds := func(name string, a specs.LinuxSeccompArg) bool {
		v, want, two := c.args[a.Index], a.Value, a.ValueTwo
		if narrow || truncated(name, a.Index) {
			v &= 0xffffffff
			switch a.Op {
			case specs.OpEqualTo, specs.OpNotEqual, specs.OpMaskedEqual:
				want &= 0xffffffff
				two &= 0xffffffff
			default:
			}
		}
		switch a.Op {
		case specs.OpEqualTo:
			return v == want
		case specs.OpNotEqual:
			return v != want
		case specs.OpLessThan:
			return v < want
		case specs.OpLessEqual:
			return v <= want
		case specs.OpGreaterThan:
			return v > want
		case specs.OpGreaterEqual:
			return v >= want
		default:
			return v&want == two&want
		}
	}
	known, top := false, int64(-1)
	fixed, conditional := int64(-1), int64(-1) // the action of the first rule of each kind that matches
	for _, s := range p.Syscalls {
		r := int64(ret(s.Action, s.ErrnoRet))
		for _, name := range s.Names {
			n, ok := numbers(name)
			if ok && n < armPrivate {
				top = max(top, n)
			}
			known = known || ok
			if uint32(r) == deflt {
				continue
			}
			if ok && n == nr {
				switch {
				case len(s.Args) == 0:
					if fixed < 0 {
						fixed = r
					}
				case conditional < 0:
					count := map[uint]int{}
					all, some, twice := true, false, false
					for _, a := range s.Args {
						h := holds(name, a)
						all, some = all && h, some || h
						count[a.Index]++
						twice = twice || count[a.Index] > 1
					}
					if all || twice && some {
						conditional = r
					}
				}
			}
			if via, number := mux(name); b.arch == specs.ArchX86 && via != "" {
				m, _ := numbers(via)
				arg := c.args[0] & 0xffffffff
				if via == "ipc" {
					arg &= 0xffff
				}
				if m == nr && arg == number && conditional < 0 && (len(s.Args) == 0 || severity(uint32(r)) > severity(deflt)) {
					conditional = r
				}
			}
		}
	}
	private := b.arch == specs.ArchARM && nr >= armPrivate && nr < armPrivate+privateSlots
	pass := deflt&actionMask == unix.SECCOMP_RET_ALLOW || deflt&actionMask == unix.SECCOMP_RET_LOG || deflt&actionMask == unix.SECCOMP_RET_TRACE
	switch {
	case fixed >= 0:
		return uint32(fixed)
	case conditional >= 0:
		return uint32(conditional)
	case nr > top && top >= 0 && !pass && !(private && namesPrivate(f, p)):
		return 0x50000 | uint32(unix.ENOSYS)
	}
	return deflt
}

// namesPrivate reports whether the profile speaks of ARM's private calls, which
// makes their range known.
func namesPrivate(f *family, p *specs.LinuxSeccomp) bool {
	for _, s := range p.Syscalls {
		for _, n := range s.Names {
			if row := f.lookup(n); row != nil && row.nr[1] >= armPrivate {
				return true
			}
		}
	}
	return false
}

// compare runs a program and the meaning of its profile over all numbers.
func compare(t *testing.T, f *family, p *specs.LinuxSeccomp, prog []unix.SockFilter, numbers uint32, args int) {
	t.Helper()
	m := load(t, prog)
	rnd := rand.New(rand.NewPCG(1, 2))
	values := interesting(p)
	bad := 0
	check := func(c call) {
		if got, want := m.run(t, c), meaning(f, p, c); got != want {
			if bad++; bad < 20 {
				t.Errorf("%s arch %#x nr %#x args %#x: %#x, want %#x", f.abis[0].arch, c.audit, c.nr, c.args, got, want)
			}
		}
	}
	for _, b := range append(slices.Clone(f.abis), abi{audit: unix.AUDIT_ARCH_S390X}) {
		nrs := []uint32{0x40000000, 0x3fffffff, 0xf0000, 0xeffff, 0xf000f, 0xf0010, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff}
		for nr := range numbers {
			nrs = append(nrs, nr)
		}
		for _, nr := range nrs {
			c := call{audit: b.audit, nr: nr + b.base}
			check(c)
			for range args {
				for i := range c.args {
					c.args[i] = values[rnd.IntN(len(values))]
				}
				check(c)
			}
		}
	}
}

// interesting returns argument values around those that the profile tests.
func interesting(p *specs.LinuxSeccomp) []uint64 {
	out := []uint64{0, 1, ^uint64(0)}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				out = append(out, v, v+1, v-1, v|1<<32, v<<32, v&0xffffffff, v|0xffffffff00000000)
			}
		}
	}
	return out
}

func TestDefaultProfileMeaning(t *testing.T) {
	sets := [][]string{defaultCaps, nil, profileCaps[:], {"CAP_SYS_ADMIN"}, {"CAP_SYS_PTRACE", "CAP_SYS_CHROOT"}}
	if testing.Short() {
		sets = sets[:1]
	}
	for _, f := range families {
		for _, caps := range sets {
			p := f.dflt(caps)
			got, err := f.compile(p)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s with %d capabilities: %d instructions", f.name, len(caps), len(got.Prog))
			compare(t, f.family, p, got.Prog, 600, 3)
		}
	}
}

// TestDefaultMatchesModule compares the generated profile, resolved for many
// capability sets, with what the module itself makes of it.
func TestDefaultMatchesModule(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		caps := slices.Clone(defaultCaps)
		for _, c := range profileCaps {
			if rnd.IntN(3) == 0 && !slices.Contains(caps, c) {
				caps = append(caps, c)
			}
		}
		want, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := Default(caps); !reflect.DeepEqual(got, want) {
			t.Fatalf("caps %v:\n got %v\nwant %v", caps, got, want)
		}
		text, err := json.Marshal(moby.DefaultProfile())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(text, caps); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("caps %v, parsed: %v\n got %v\nwant %v", caps, err, got, want)
		}
	}
}

func TestRandomProfiles(t *testing.T) {
	rounds := uint64(20)
	if testing.Short() {
		rounds = 10
	}
	for seed := range rounds {
		for _, f := range families {
			p := randomProfile(f.family, rand.New(rand.NewPCG(seed, 7)))
			got, err := f.compile(p)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, f.family, p, got.Prog, 480, 1)
			if t.Failed() {
				text, _ := json.Marshal(p)
				t.Fatalf("seed %d: %s", seed, text)
			}
		}
	}
}

var (
	allActions = []specs.LinuxSeccompAction{
		specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno,
		specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify,
	}
	allOps = []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}
)

func randomProfile(f *family, r *rand.Rand) *specs.LinuxSeccomp {
	errno := func() *uint {
		if r.IntN(2) == 0 {
			return nil
		}
		e := uint(r.IntN(100))
		return &e
	}
	p := &specs.LinuxSeccomp{DefaultAction: allActions[r.IntN(len(allActions)-1)], DefaultErrnoRet: errno()}
	for _, b := range f.abis {
		if r.IntN(2) == 0 {
			p.Architectures = append(p.Architectures, b.arch)
		}
	}
	hot := []string{"socket", "clone", "ioctl", "socketcall", "ipc", "semop", "set_tls", "personality", "read", "nosuchcall"}
	word := func() uint64 {
		switch v := r.Uint64(); r.IntN(5) {
		case 0:
			return v % 8
		case 1:
			return v & 0xffffffff
		case 2:
			return v &^ 0xffffffff
		case 3:
			return ^uint64(0)
		default:
			return v
		}
	}
	for range r.IntN(60) {
		s := specs.LinuxSyscall{Action: allActions[r.IntN(len(allActions))], ErrnoRet: errno()}
		for range 1 + r.IntN(4) {
			name := hot[r.IntN(len(hot))]
			if r.IntN(2) == 0 {
				name = f.table[r.IntN(len(f.table))].name
			}
			if name != "write" {
				s.Names = append(s.Names, name)
			}
		}
		for range r.IntN(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Value: word(), ValueTwo: word(), Op: allOps[r.IntN(len(allOps))]})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

// FuzzCompile feeds profiles in JSON: nothing may panic, and what compiles must
// be a valid program that means what the profile says.
func FuzzCompile(f *testing.F) {
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for seed := range uint64(20) {
		text, err := json.Marshal(randomProfile(&familyX86, rand.New(rand.NewPCG(seed, 9))))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","action":"SCMP_ACT_ERRNO","includes":{"minKernel":"4.8"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text, defaultCaps)
		if err != nil || p == nil {
			return
		}
		for _, fam := range families {
			got, err := fam.compile(p)
			if err != nil {
				return
			}
			m := load(t, got.Prog)
			values := interesting(p)
			for i := range 200 {
				b := fam.abis[i%len(fam.abis)]
				c := call{audit: b.audit, nr: b.base + uint32(i*7%520)}
				for j := range c.args {
					c.args[j] = values[(i+j)%len(values)]
				}
				if got, want := m.run(t, c), meaning(fam.family, p, c); got != want {
					t.Fatalf("arch %#x nr %#x args %#x: %#x, want %#x", c.audit, c.nr, c.args, got, want)
				}
			}
		}
	})
}

// TestTablesMatchHeaders compares the generated numbers with the kernel's own
// headers, as far as those are installed and know a name.
func TestTablesMatchHeaders(t *testing.T) {
	for column, file := range []string{"unistd_64.h", "unistd_32.h", "unistd_x32.h"} {
		out, err := os.ReadFile(filepath.Join("/usr/include/x86_64-linux-gnu/asm", file))
		if err != nil {
			t.Logf("%s: not installed", file) // a check on top of the others
			continue
		}
		n := 0
		for line := range strings.Lines(string(out)) {
			name, ok := strings.CutPrefix(line, "#define __NR_")
			if !ok {
				continue
			}
			name, value, _ := strings.Cut(strings.TrimSpace(name), " ")
			value = strings.TrimSuffix(strings.TrimPrefix(value, "(__X32_SYSCALL_BIT + "), ")")
			row := familyX86.lookup(name)
			if row == nil {
				t.Errorf("%s: no row for %s", file, name)
				continue
			}
			var nr int32
			if err := json.Unmarshal([]byte(value), &nr); err != nil {
				t.Fatalf("%s: %q: %v", file, line, err)
			}
			if row.nr[column] != nr {
				t.Errorf("%s: %s is %d, the table says %d", file, name, nr, row.nr[column])
			}
			n++
		}
		t.Logf("%s: %d numbers agree", file, n)
	}
	for _, f := range families {
		if !slices.IsSortedFunc(f.table, func(a, b sysno) int { return strings.Compare(a.name, b.name) }) {
			t.Errorf("%s: table is not sorted", f.name)
		}
		for _, row := range f.table {
			for _, nr := range row.nr {
				if nr >= slots-privateSlots && (nr < armPrivate || nr >= armPrivate+privateSlots) {
					t.Errorf("%s: %s is %d, beyond the table of cells", f.name, row.name, nr)
				}
			}
		}
	}
}
