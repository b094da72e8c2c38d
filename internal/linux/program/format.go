package program

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Len is the number of calls.
func (p *Program) Len() int { return len(p.ops) }

// StepOf is what the i-th call is for; its Verb is empty where none was named.
func (p *Program) StepOf(i int) Step { return p.steps[p.ops[i].step] }

// InChild reports whether the i-th call is made by the child.
func (p *Program) InChild(i int) bool { return p.fork >= 0 && i > p.fork }

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
	for k := range int(o.nargs) {
		if k > 0 {
			b.WriteString(", ")
		}
		kind := byte('d')
		if k < len(s.args) {
			kind = s.args[k]
		}
		b.WriteString(p.arg(o, k, kind))
	}
	b.WriteByte(')')
	if o.to != noSlot {
		b.WriteString(" → " + p.slots[o.to])
	}
	return b.String()
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
		return sig{"capset", "pp"}
	case unix.SYS_CHDIR:
		return sig{"chdir", "s"}
	case unix.SYS_CHROOT:
		return sig{"chroot", "s"}
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
		return sig{"faccessat", "fsd"}
	case unix.SYS_FACCESSAT2:
		return sig{"faccessat2", "fsdA"}
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
		return sig{"fcntl", "fdd"}
	case unix.SYS_FSCONFIG:
		return sig{"fsconfig", "fFssd"}
	case unix.SYS_FSMOUNT:
		return sig{"fsmount", "fxM"}
	case unix.SYS_FSOPEN:
		return sig{"fsopen", "sx"}
	case unix.SYS_FSTAT:
		return sig{"fstat", "fp"}
	case unix.SYS_FSTATFS:
		return sig{"fstatfs", "fp"}
	case unix.SYS_GETCWD:
		return sig{"getcwd", "pd"}
	case unix.SYS_IOCTL:
		return sig{"ioctl", "fxp"}
	case unix.SYS_MKDIRAT:
		return sig{"mkdirat", "fso"}
	case unix.SYS_MKNODAT:
		return sig{"mknodat", "fsox"}
	case unix.SYS_MOUNT:
		return sig{"mount", "sssBs"}
	case unix.SYS_MOUNT_SETATTR:
		return sig{"mount_setattr", "fsApd"}
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
		return sig{"prctl", "Pxxxx"}
	case unix.SYS_PRLIMIT64:
		return sig{"prlimit64", "dRlp"}
	case unix.SYS_READ:
		return sig{"read", "fpd"}
	case unix.SYS_RECVFROM:
		return sig{"recvfrom", "fpdxpp"}
	case unix.SYS_SCHED_SETATTR:
		return sig{"sched_setattr", "dpd"}
	case unix.SYS_IOPRIO_SET:
		return sig{"ioprio_set", "ddx"}
	case unix.SYS_SECCOMP:
		return sig{"seccomp", "dxp"}
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
		return sig{"socket", "dxd"}
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
		case 'l':
			return "{" + limit(p.word(v)) + ", " + limit(p.word(v+8)) + "}"
		}
		return "…"
	}
	if v == 0 && strings.IndexByte("svpHl", kind) >= 0 {
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
	case 'F', 'P', 'R':
		return enum(kind, v)
	case 'x', 's', 'v', 'p', 'l':
		return fmt.Sprintf("%#x", v)
	}
	return flags(kind, v)
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
