package program

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
)

// Len is the number of calls.
func (p *Program) Len() int { return len(p.ops) }

// StepOf is what the i-th call is for; its Verb is empty where none was named.
func (p *Program) StepOf(i int) Step { return p.steps[p.ops[i].step] }

// InChild reports whether the i-th call is made by the child.
func (p *Program) InChild(i int) bool { return p.fork >= 0 && i > p.fork }

// Straight tells of each call whether it is made when nothing is refused: what is
// left out are ways round an errno. Every file that the command can be counts,
// since all but the last are expected not to be there.
func (p *Program) Straight() []bool {
	seen := make([]bool, len(p.ops))
	for i := 0; i < len(p.ops) && !seen[i]; {
		seen[i] = true
		switch o := &p.ops[i]; o.nr {
		case opJump:
			i = int(p.labels[o.args[0]])
		case opFail, opNotFound, opExit:
			i = len(p.ops)
		default:
			i++
		}
	}
	return seen
}

// System reports whether the i-th call, or the operation in its place, asks the
// kernel for something; others keep the program's own books.
func (p *Program) System(i int) bool {
	switch p.ops[i].nr {
	case opJump, opSet, opPoke, opExpect, opFail, opNotFound, opLoad, opCommit, opReady, opAwait, opSync, opAlive:
		return false
	}
	return true
}

// Name is the i-th call's name, "" for a check of the program's own.
func (p *Program) Name(i int) string { return p.name(i) }

// Text prints the i-th call as strace(1) would.
func (p *Program) Text(i int) string {
	o := &p.ops[i]
	if o.nr >= opBase {
		return p.special(o)
	}
	s := signature(o.nr)
	var b strings.Builder
	b.WriteString(s.name)
	b.WriteByte('(')
	nargs := int(o.nargs)
	if o.nr == unix.SYS_PRCTL {
		nargs = prctlArgs(o.args[0]) // the others are zeros that it wants to see
	}
	for k := range nargs {
		if k > 0 {
			b.WriteString(", ")
		}
		kind := byte('d')
		if k < len(s.args) {
			kind = s.args[k]
		}
		if n, ok := capArg(o, k); ok {
			b.WriteString(n)
			continue
		}
		b.WriteString(p.arg(o, k, kind))
	}
	b.WriteByte(')')
	if o.to != noSlot {
		b.WriteString(" → " + p.slots[o.to])
	}
	return b.String()
}

// prctlArgs is how many arguments an operation of prctl(2) looks at.
func prctlArgs(operation uint64) int {
	if operation == unix.PR_CAP_AMBIENT {
		return 3
	}
	return 2
}

// capArg names the capability that an argument of prctl(2) is.
func capArg(o *op, k int) (string, bool) {
	if o.nr != unix.SYS_PRCTL || o.kinds[k] != immediate {
		return "", false
	}
	if o.args[0] == unix.PR_CAPBSET_DROP && k == 1 || o.args[0] == unix.PR_CAP_AMBIENT && k == 2 {
		return caps.Name(int(o.args[k])), true
	}
	if o.args[0] == unix.PR_CAP_AMBIENT && k == 1 && o.args[k] == unix.PR_CAP_AMBIENT_RAISE {
		return "PR_CAP_AMBIENT_RAISE", true
	}
	return "", false
}

func (p *Program) name(i int) string {
	o := &p.ops[i]
	if o.nr < opBase {
		return signature(o.nr).name
	}
	switch o.nr {
	case opFail, opNotFound, opExpect:
		return ""
	}
	name, _, _ := strings.Cut(p.special(o), "(")
	return name
}

// sig is a call's name and one letter for each argument: f descriptor, s
// string, v array of strings, p pointer, d number, o octal, x hexadecimal, and
// the capital letters of flagSets.
type sig struct{ name, args string }

func signature(nr uint32) sig {
	switch uintptr(nr) {
	case unix.SYS_CAPSET:
		return sig{"capset", "pc"}
	case unix.SYS_CHDIR:
		return sig{"chdir", "s"}
	case unix.SYS_CHROOT:
		return sig{"chroot", "s"}
	case unix.SYS_CLOCK_GETTIME:
		return sig{"clock_gettime", "dp"}
	case unix.SYS_CLOSE:
		return sig{"close", "f"}
	case unix.SYS_CLOSE_RANGE:
		return sig{"close_range", "ffx"}
	case unix.SYS_DUP3:
		return sig{"dup3", "ffO"}
	case unix.SYS_EXECVE:
		return sig{"execve", "svp"}
	case unix.SYS_EXECVEAT:
		return sig{"execveat", "fsvpA"}
	case unix.SYS_FACCESSAT:
		return sig{"faccessat", "fsX"}
	case unix.SYS_FACCESSAT2:
		return sig{"faccessat2", "fsXA"}
	case unix.SYS_FCHDIR:
		return sig{"fchdir", "f"}
	case unix.SYS_FCHMOD:
		return sig{"fchmod", "fo"}
	case unix.SYS_FCHMODAT:
		return sig{"fchmodat", "fso"}
	case unix.SYS_FCHOWN:
		return sig{"fchown", "fdd"}
	case unix.SYS_FCHOWNAT:
		return sig{"fchownat", "fsddA"}
	case unix.SYS_FCNTL:
		return sig{"fcntl", "fYd"}
	case unix.SYS_FSCONFIG:
		return sig{"fsconfig", "fFssd"}
	case unix.SYS_FSMOUNT:
		return sig{"fsmount", "fZM"}
	case unix.SYS_FSOPEN:
		return sig{"fsopen", "sN"}
	case unix.SYS_FSTAT:
		return sig{"fstat", "fp"}
	case unix.SYS_FSTATFS:
		return sig{"fstatfs", "fp"}
	case unix.SYS_GETCWD:
		return sig{"getcwd", "pd"}
	case unix.SYS_IOCTL:
		return sig{"ioctl", "fIp"}
	case unix.SYS_MKDIRAT:
		return sig{"mkdirat", "fso"}
	case unix.SYS_MKNODAT:
		return sig{"mknodat", "fsox"}
	case unix.SYS_MOUNT:
		return sig{"mount", "sssBs"}
	case unix.SYS_MOUNT_SETATTR:
		return sig{"mount_setattr", "fsAad"}
	case unix.SYS_MOVE_MOUNT:
		return sig{"move_mount", "fsfsV"}
	case unix.SYS_OPENAT:
		return sig{"openat", "fsOo"}
	case unix.SYS_OPENAT2:
		return sig{"openat2", "fsHd"}
	case unix.SYS_OPEN_TREE:
		return sig{"open_tree", "fsT"}
	case unix.SYS_PERSONALITY:
		return sig{"personality", "x"}
	case unix.SYS_PIVOT_ROOT:
		return sig{"pivot_root", "ss"}
	case unix.SYS_PRCTL:
		return sig{"prctl", "Pd"}
	case unix.SYS_PRLIMIT64:
		return sig{"prlimit64", "dRlp"}
	case unix.SYS_PTRACE:
		return sig{"ptrace", "ddxx"}
	case unix.SYS_READ:
		return sig{"read", "fpd"}
	case unix.SYS_RECVFROM:
		return sig{"recvfrom", "fpdxpp"}
	case unix.SYS_SCHED_SETATTR:
		return sig{"sched_setattr", "dpd"}
	case unix.SYS_IOPRIO_SET:
		return sig{"ioprio_set", "ddx"}
	case unix.SYS_SECCOMP:
		return sig{"seccomp", "SQq"}
	case unix.SYS_SENDMSG:
		return sig{"sendmsg", "fpx"}
	case unix.SYS_SET_MEMPOLICY:
		return sig{"set_mempolicy", "xpd"}
	case unix.SYS_SETDOMAINNAME:
		return sig{"setdomainname", "sd"}
	case unix.SYS_SETGROUPS:
		return sig{"setgroups", "dp"}
	case unix.SYS_SETHOSTNAME:
		return sig{"sethostname", "sd"}
	case unix.SYS_SETNS:
		return sig{"setns", "fC"}
	case unix.SYS_SETRESGID:
		return sig{"setresgid", "ddd"}
	case unix.SYS_SETRESUID:
		return sig{"setresuid", "ddd"}
	case unix.SYS_SETSID:
		return sig{"setsid", ""}
	case unix.SYS_SOCKET:
		return sig{"socket", "DKd"}
	case unix.SYS_SYMLINKAT:
		return sig{"symlinkat", "sfs"}
	case unix.SYS_UMASK:
		return sig{"umask", "o"}
	case unix.SYS_UMOUNT2:
		return sig{"umount2", "sU"}
	case unix.SYS_UNSHARE:
		return sig{"unshare", "C"}
	case unix.SYS_WRITE:
		return sig{"write", "fsd"}
	}
	return sig{"syscall_" + strconv.Itoa(int(nr)), "xxxxxx"}
}

func isExec(nr uint32) bool {
	return nr == opNotFound || nr == unix.SYS_EXECVE || nr == unix.SYS_EXECVEAT
}

func (p *Program) special(o *op) string {
	label := func(l uint64) string { return "#" + strconv.Itoa(int(p.labels[l])) }
	switch o.nr {
	case opFork:
		s := "clone3(flags=" + flags('C', p.clone.Flags)
		if p.clone.Cgroup != nil {
			s += "|CLONE_INTO_CGROUP, cgroup=" + p.clone.Cgroup.Name()
		}
		if p.clone.PIDNS != nil {
			s += ", pid namespace of " + p.clone.PIDNS.Name()
		}
		return s + ")"
	case opReclone:
		return "clone(CLONE_PARENT)"
	case opJump:
		return "goto(" + label(o.args[0]) + ")"
	case opSet:
		return "set(" + p.slots[o.to] + " = " + p.arg(o, 0, 'd') + ")"
	case opPoke:
		return fmt.Sprintf("store(%d bytes, %s)", o.args[2], p.arg(o, 1, 'd'))
	case opExpect:
		return fmt.Sprintf("verify(value & %#x == %#x)", o.args[1], o.args[2])
	case opFail, opNotFound:
		return "fail(" + p.arg(o, 0, 'E') + ")"
	case opAwait:
		return "await(parent)"
	case opSync:
		return "sync(parent)"
	case opExchange:
		return "exchange(parent, SCM_RIGHTS " + p.arg(o, 1, 'f') + ")" + p.into(o)
	case opDo:
		return "prepare()" + p.into(o)
	case opIfSet:
		return "if(" + p.arg(o, 0, 'd') + " is set, " + label(o.args[1]) + ")"
	case opOctal:
		return "octal(" + p.arg(o, 1, 'o') + ")"
	case opSendFile:
		return "sendmsg(parent, SCM_RIGHTS " + p.arg(o, 0, 'f') + ")"
	case opCommit:
		return "done(parent)"
	case opReady:
		return "ready(parent)"
	case opMkpath:
		kind := "file"
		if o.args[2] != 0 {
			kind = "directory"
		}
		return "mkpath(" + p.arg(o, 0, 'f') + ", " + p.arg(o, 1, 's') + ", " + kind + ")" + p.into(o)
	case opCloexec:
		return "close_range(" + p.arg(o, 0, 'f') + ", ~0, CLOSE_RANGE_CLOEXEC)"
	case opKeep:
		return "close_range(3, ~0, 0) but for the program's own"
	case opLoad:
		return "load()" + p.into(o)
	case opAlive:
		return "verify(parent is alive)"
	case opExit:
		return "exit_group(" + p.arg(o, 0, 'd') + ")"
	}
	return "op_" + strconv.Itoa(int(o.nr-opBase))
}

func (p *Program) into(o *op) string {
	if o.to == noSlot {
		return ""
	}
	return " → " + p.slots[o.to]
}

func (p *Program) arg(o *op, k int, kind byte) string {
	v := o.args[k]
	switch o.kinds[k] {
	case immediate, fdNumber:
	case slotted:
		return "‹" + p.slots[v] + "›"
	case memory:
		switch kind {
		case 'v':
			return p.array(v)
		case 's':
			return quote(p.text(v))
		case 'H':
			f, m, r := p.word(v), p.word(v+8), p.word(v+16)
			s := "{flags=" + flags('O', f)
			if m != 0 {
				s += fmt.Sprintf(", mode=%#o", m)
			}
			if r != 0 {
				s += ", resolve=" + flags('r', r)
			}
			return s + "}"
		case 'a':
			return p.mountAttr(v)
		case 'c':
			return fmt.Sprintf("{effective=%#x, permitted=%#x, inheritable=%#x}", p.capWord(v, 0), p.capWord(v, 1), p.capWord(v, 2))
		case 'q':
			return fmt.Sprintf("{len=%d, …}", uint16(p.word(v)))
		case 'l':
			return "{" + limit(p.word(v)) + ", " + limit(p.word(v+8)) + "}"
		}
		return "…"
	}
	if v == 0 && strings.IndexByte("svpHlacq", kind) >= 0 {
		return "NULL"
	}
	if o.kinds[k] == fdNumber || kind == 'f' {
		if int64(v) == unix.AT_FDCWD {
			return "AT_FDCWD"
		}
		for _, f := range p.files {
			if int(f.Fd()) == int(v) {
				return fmt.Sprintf("%d‹%s›", v, f.Name())
			}
		}
		return strconv.Itoa(int(int64(v)))
	}
	switch kind {
	case 'd':
		return strconv.FormatInt(int64(v), 10)
	case 'o':
		return fmt.Sprintf("%#o", v)
	case 'E':
		return unix.ErrnoName(unix.Errno(v))
	case 'F', 'P', 'R', 'D', 'I', 'S', 'Y':
		return enum(kind, v)
	case 'X':
		if v == unix.X_OK {
			return "X_OK"
		}
		return strconv.FormatUint(v, 10)
	case 'x', 's', 'v', 'p', 'l', 'a', 'c', 'q':
		return fmt.Sprintf("%#x", v)
	}
	return flags(kind, v)
}

// mountAttr prints a struct mount_attr.
func (p *Program) mountAttr(off uint64) string {
	var parts []string
	for i, name := range [...]string{"attr_set=", "attr_clr="} {
		if v := p.word(off + uint64(8*i)); v != 0 {
			parts = append(parts, name+flags('M', v))
		}
	}
	if v := p.word(off + 16); v != 0 {
		parts = append(parts, "propagation="+flags('B', v))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// capWord is the i-th set of the two struct __user_cap_data_struct of capset(2).
func (p *Program) capWord(off uint64, i int) uint64 {
	low := binary.NativeEndian.Uint32(p.mem[off+uint64(4*i):])
	high := binary.NativeEndian.Uint32(p.mem[off+uint64(12+4*i):])
	return uint64(high)<<32 | uint64(low)
}

func quote(s string) string {
	if len(s) > 256 {
		s = s[:256] + "…"
	}
	return strconv.Quote(s)
}

func limit(v uint64) string {
	if v == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(v, 10)
}

func (p *Program) word(off uint64) uint64 { return binary.NativeEndian.Uint64(p.mem[off:]) }

func (p *Program) text(off uint64) string {
	b := p.mem[off:]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func (p *Program) array(off uint64) string {
	var out []string
	for ; p.word(off) != 0; off += 8 {
		out = append(out, quote(p.text(p.word(off))))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
