package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Filter is a compiled profile, ready for seccomp(SECCOMP_SET_MODE_FILTER).
type Filter struct {
	Prog  []unix.SockFilter
	Flags uint // SECCOMP_FILTER_FLAG_*
	// Notify: Flags has SECCOMP_FILTER_FLAG_NEW_LISTENER, so that seccomp(2)
	// returns the descriptor of a listener, which must be given to an agent.
	Notify bool
}

// maxErrno is the largest errno that the kernel returns from a filter.
const maxErrno = 4095

// Compile turns p into a program. The result shares static data where p came
// from [Default] with a usual capability set; do not change it. A nil profile,
// which [Parse] gives for an empty one, has a nil filter: no filtering.
func Compile(p *specs.LinuxSeccomp) (*Filter, error) {
	if p == nil {
		return nil, nil //nolint:nilnil // the documented meaning of no profile
	}
	f := host()
	if len(p.Syscalls) > 0 {
		for i := range f.resolved {
			// A profile of ours is known by the array that holds its rules.
			if &p.Syscalls[0] == &f.resolved[i][0] && f.isDefault(p, i) {
				return &Filter{Prog: f.filters[i], Flags: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW}, nil
			}
		}
	}
	return f.compile(p)
}

func (f *family) compile(p *specs.LinuxSeccomp) (*Filter, error) {
	c := compiler{family: f}
	var err error
	if c.deflt, err = action(p.DefaultAction, p.DefaultErrnoRet); err != nil {
		return nil, errs.New(errs.Invalid, "seccomp profile: default action: %w", err)
	}
	if c.deflt&actionMask == unix.SECCOMP_RET_USER_NOTIF {
		return nil, errs.New(errs.Invalid, "seccomp profile: %s cannot be used as default action", specs.ActNotify)
	}
	abis, err := f.chosen(p.Architectures)
	if err != nil {
		return nil, err
	}
	rules, err := c.check(p.Syscalls)
	if err != nil {
		return nil, err
	}
	flags, err := c.flags(p.Flags)
	if err != nil {
		return nil, err
	}
	prog, err := c.program(abis, rules)
	if err != nil {
		return nil, err
	}
	return &Filter{Prog: prog, Flags: flags, Notify: c.notify}, nil
}

// compiler holds what the steps of one compilation share.
type compiler struct {
	family  *family
	deflt   uint32 // the default action, as the filter returns it
	notify  bool
	leaves  []leaf // verdicts, each once
	allowed bool   // the default action lets calls pass
}

// rule is one checked rule of a profile.
type rule struct {
	names []string
	ret   uint32
	conds []cond
	any   bool // one of conds suffices, else all must hold
}

// cond is one test of an argument: arg & mask OP value.
type cond struct {
	arg   uint
	op    specs.LinuxSeccompOperator // never MASKED_EQ: that is EQ with a mask
	value uint64
	mask  uint64
}

const actionMask = 0xffff0000 // SECCOMP_RET_ACTION_FULL

// action returns what a filter returns for an OCI action.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	no := uint(unix.EPERM) // as runc: what Docker's profiles mean when they say nothing
	if errno != nil {
		no = *errno
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		if no > maxErrno {
			return 0, errs.New(errs.Invalid, "errno %d is above %d", no, maxErrno)
		}
		return unix.SECCOMP_RET_ERRNO | uint32(no), nil
	case specs.ActTrace:
		if no > unix.SECCOMP_RET_DATA {
			return 0, errs.New(errs.Invalid, "trace value %d is above %d", no, unix.SECCOMP_RET_DATA)
		}
		return unix.SECCOMP_RET_TRACE | uint32(no), nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, errs.New(errs.Invalid, "unknown action %q", a)
}

// chosen returns the ABIs of the profile: the native one always (as libseccomp),
// and those that it lists. Architectures of other machines cannot occur here.
func (f *family) chosen(list []specs.Arch) ([]abi, error) {
	for _, a := range list {
		if !knownArch(a) {
			return nil, errs.New(errs.Invalid, "seccomp profile: unknown architecture %q", a)
		}
	}
	var out []abi
	for i, b := range f.abis {
		if i == 0 || slices.Contains(list, b.arch) {
			out = append(out, b)
		}
	}
	return out, nil
}

// check validates all rules, whether or not they will be used.
func (c *compiler) check(calls []specs.LinuxSyscall) ([]rule, error) {
	rules := make([]rule, 0, len(calls))
	for i := range calls {
		s := &calls[i]
		where := func(err error) error {
			name := "no names"
			if len(s.Names) > 0 {
				name = s.Names[0]
			}
			return errs.New(errs.Invalid, "seccomp profile: rule %d (%s): %w", i+1, name, err)
		}
		if slices.Contains(s.Names, "") {
			return nil, where(errs.New(errs.Invalid, "empty system call name"))
		}
		r := rule{names: s.Names}
		var err error
		if r.ret, err = action(s.Action, s.ErrnoRet); err != nil {
			return nil, where(err)
		}
		if r.ret == unix.SECCOMP_RET_USER_NOTIF {
			// The runtime hands the listener over after the filter is in place.
			if slices.Contains(s.Names, "write") {
				return nil, where(errs.New(errs.Invalid, "%s cannot be used for the write syscall", specs.ActNotify))
			}
			c.notify = true
		}
		var seen [6]bool
		for _, a := range s.Args {
			if a.Index > 5 {
				return nil, where(errs.New(errs.Invalid, "argument index %d is above 5", a.Index))
			}
			r.any = r.any || seen[a.Index]
			seen[a.Index] = true
			k := cond{arg: a.Index, op: a.Op, value: a.Value, mask: ^uint64(0)}
			switch a.Op {
			case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual:
			case specs.OpMaskedEqual:
				// Value is the mask and ValueTwo what must remain; bits of it outside
				// the mask mean nothing (libseccomp).
				k.op, k.mask, k.value = specs.OpEqualTo, a.Value, a.ValueTwo&a.Value
			default:
				return nil, where(errs.New(errs.Invalid, "unknown operator %q", a.Op))
			}
			r.conds = append(r.conds, k)
		}
		rules = append(rules, r)
	}
	switch c.deflt & actionMask {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		c.allowed = true
	}
	return rules, nil
}

// flags translates the profile's flags. Not a word about flags means
// SPEC_ALLOW, as in runc: the mitigation that it switches off costs much and
// has been off by default for seccomp since 5.16.
func (c *compiler) flags(list []specs.LinuxSeccompFlag) (uint, error) {
	var out uint
	if list == nil {
		out = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	wait := false
	for _, f := range list {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC": // the child that installs the filter has one thread
		case specs.LinuxSeccompFlagLog:
			out |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			out |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			wait = true
		default:
			return 0, errs.New(errs.Invalid, "seccomp profile: unknown flag %q", f)
		}
	}
	if c.notify {
		out |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
		if wait {
			// Without a listener the kernel refuses this flag, and it would mean
			// nothing. Linux < 5.19 refuses it always; the call that installs
			// the filter says so.
			out |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		}
	}
	return out, nil
}
