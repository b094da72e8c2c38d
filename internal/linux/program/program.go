package program

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/linux/lap"
)

// Program is a list of system calls under construction. The zero value is not
// ready; use New. A Program is not safe for concurrent use.
type Program struct {
	ops    []op
	mem    []byte
	relocs []uint32 // offsets in mem that hold an offset and shall hold an address
	labels []int32
	steps  []Step
	slots  []string // their names
	files  []*os.File

	fork      int // index of the fork op, -1 while there is none
	clone     Clone
	committed bool
	talks     bool   // the parent must listen while the program runs
	empty     uint64 // offset of an empty string
	minSock   int    // the status socket must be moved to this descriptor or above
	scratch   bool
	meanwhile []func(pid int) error
	syncs     []func(pid int, reply []byte) error
	laps      *os.File
	swaps     []func(pid int, in *os.File) (*os.File, error)
	dos       []func() (*os.File, error)

	err error // the first mistake of the builder

	// LegacyClone makes Start behave as on a machine that has no clone3(2):
	// older than 5.3, or behind a filter that answers ENOSYS.
	LegacyClone bool
	// LegacyCloseRange is the same for close_range(2).
	LegacyCloseRange bool
}

// New returns an empty program with room for a usual container.
func New() *Program {
	return &Program{
		ops:    make([]op, 0, 384),
		mem:    make([]byte, 0, 16<<10),
		relocs: make([]uint32, 0, 64),
		labels: make([]int32, 0, 128),
		steps:  append(make([]Step, 0, 96), Step{}),
		slots:  make([]string, 1, 128), // slot 0 is nobody's, so that the zero Slot is none
		fork:   -1,
	}
}

type argKind uint8

const (
	immediate argKind = iota
	memory            // offset in mem
	slotted           // slot number
	fdNumber          // immediate, printed as a descriptor
)

// Arg is an argument of a call.
type Arg struct {
	kind argKind
	v    uint64
}

// Int is an immediate number.
func Int(v int) Arg { return Arg{immediate, uint64(int64(v))} }

// Uint is an immediate unsigned number.
func Uint(v uint64) Arg { return Arg{immediate, v} }

// FD is an open file descriptor's number.
func FD(fd int) Arg { return Arg{fdNumber, uint64(int64(fd))} }

// CWD stands for the working directory in calls that take a directory.
var CWD = Arg{fdNumber, ^uint64(99)} // AT_FDCWD, -100

// Null is the null pointer.
var Null = Arg{}

// Plus returns the address n bytes after a piece of memory.
func (a Arg) Plus(n int) Arg { a.v += uint64(n); return a }

// Slot is a place for a call's result. It can be used as an argument (Arg).
type Slot int16

// Arg makes the slot's value an argument.
func (s Slot) Arg() Arg { return Arg{slotted, uint64(s)} }

// Slot makes a new slot; the name appears where arguments are printed.
func (p *Program) Slot(name string) Slot {
	p.slots = append(p.slots, name)
	return Slot(len(p.slots) - 1)
}

// File is f's descriptor. The program keeps f alive; the caller keeps it open.
// It becomes blocking, as [os.File.Fd] says.
func (p *Program) File(f *os.File) Arg {
	p.files = append(p.files, f)
	return FD(int(f.Fd()))
}

func (p *Program) alloc(n, align int) int {
	off := (len(p.mem) + align - 1) &^ (align - 1)
	if end := off + n; end <= cap(p.mem) {
		p.mem = p.mem[:end]
	} else {
		p.mem = append(p.mem, make([]byte, end-len(p.mem))...)
	}
	return off
}

// String is the address of s, terminated by NUL. A string that holds one makes
// Start fail: the kernel would see less than was checked.
func (p *Program) String(s string) Arg {
	if strings.IndexByte(s, 0) >= 0 && p.err == nil {
		p.err = errs.New(errs.Invalid, "%q: holds a NUL byte", s)
	}
	off := p.alloc(len(s)+1, 1)
	copy(p.mem[off:], s)
	return Arg{memory, uint64(off)}
}

// Empty is the address of the empty string.
func (p *Program) Empty() Arg {
	if p.empty == 0 {
		p.empty = uint64(p.alloc(8, 8)) + 1 // its last seven bytes stay zero
	}
	return Arg{memory, p.empty}
}

// Bytes is the address of a copy of b, aligned to 8.
func (p *Program) Bytes(b []byte) Arg {
	off := p.alloc(len(b), 8)
	copy(p.mem[off:], b)
	return Arg{memory, uint64(off)}
}

// Buffer is the address of n zero bytes, aligned to 8.
func (p *Program) Buffer(n int) Arg { return Arg{memory, uint64(p.alloc(n, 8))} }

// Words is the address of an array of 64-bit words; a word that is itself
// memory becomes its address.
func (p *Program) Words(words ...Arg) Arg {
	off := p.alloc(8*len(words), 8)
	for i, w := range words {
		binary.NativeEndian.PutUint64(p.mem[off+8*i:], w.v)
		if w.kind == memory {
			p.relocs = append(p.relocs, uint32(off+8*i))
		}
	}
	return Arg{memory, uint64(off)}
}

// Strings is the address of a null-terminated array of strings, as argv.
func (p *Program) Strings(ss []string) Arg {
	off := p.alloc(8*(len(ss)+1), 8)
	for i, s := range ss {
		a := p.String(s)
		binary.NativeEndian.PutUint64(p.mem[off+8*i:], a.v)
		p.relocs = append(p.relocs, uint32(off+8*i))
	}
	return Arg{memory, uint64(off)}
}

// Label is a place in the program that a catch or a jump leads to.
type Label uint16

const next Label = 0xffff // go on with the following call

// NewLabel makes a label; Place says where it is.
func (p *Program) NewLabel() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels) - 1)
}

// Place puts l before the call that is added next.
func (p *Program) Place(l Label) { p.labels[l] = int32(len(p.ops)) }

// Step says in words what the calls that follow are for. It is put into text
// only when somebody asks.
type Step struct {
	Verb   string // "mount", "mask", "set limit" ...
	Object string // what it is done to, when there is one thing
	Type   string
	Src    string
	Dst    string
	Flags  string
}

// String prints the step as one phrase: mount type=proc dst=/proc flags=….
func (s Step) String() string {
	var out strings.Builder
	out.WriteString(s.Verb)
	for _, f := range [...]struct{ k, v string }{{"", s.Object}, {"type=", s.Type}, {"src=", s.Src}, {"dst=", s.Dst}, {"flags=", s.Flags}} {
		if f.v != "" {
			out.WriteString(" " + f.k + f.v)
		}
	}
	return out.String()
}

// Step begins a step; calls added from now on belong to it.
func (p *Program) Step(s Step) {
	p.steps = append(p.steps, s)
	if p.laps != nil && p.fork >= 0 && !p.committed {
		p.lap(s)
	}
}

// Laps makes the child note in f when each step begins (package lap), until its
// Commit: after that a filter may stand in the way.
func (p *Program) Laps(f *os.File) { p.laps = f }

func (p *Program) lap(s Step) {
	r := p.Bytes(lap.Record(lap.Child, strings.TrimSpace(s.Verb+" "+s.Object+s.Dst)))
	// Best effort: a timeline is no reason to fail.
	p.Call(unix.SYS_CLOCK_GETTIME, Int(unix.CLOCK_MONOTONIC), r).Ignore()
	p.Call(unix.SYS_WRITE, p.File(p.laps), r, Int(lap.Size)).Ignore()
}

// anyErrno in a catch stands for every errno.
const anyErrno = 0xffff

type catch struct {
	errno uint16
	label Label
}

const noSlot = -1

type op struct {
	nr     uint32
	to     int16
	step   uint16
	want   int32 // result that is expected; -1: any
	nargs  uint8
	ncatch uint8
	warn   bool // a caught errno is worth a remark
	kinds  [6]argKind
	catch  [4]catch
	args   [6]uint64
}

// Op is one call of a program, for saying what happens to its result. Each
// method returns the Op.
type Op struct {
	p *Program
	i int
}

// Call adds the system call nr.
func (p *Program) Call(nr uintptr, args ...Arg) Op {
	if !p.committed && isExec(uint32(nr)) && nr < opBase {
		p.Commit()
	}
	i := len(p.ops)
	if i < cap(p.ops) {
		p.ops = p.ops[:i+1]
	} else {
		p.ops = append(p.ops, op{})
	}
	o := &p.ops[i]
	o.nr, o.to, o.step, o.want, o.nargs = uint32(nr), noSlot, uint16(len(p.steps)-1), -1, uint8(len(args))
	for k, a := range args {
		o.kinds[k], o.args[k] = a.kind, a.v
	}
	return Op{p, i}
}

// To stores the result in s.
func (o Op) To(s Slot) Op { o.p.ops[o.i].to = int16(s); return o }

// Catch jumps to l when the call fails with e. At most four errnos a call.
func (o Op) Catch(e unix.Errno, l Label) Op {
	x := &o.p.ops[o.i]
	x.catch[x.ncatch] = catch{uint16(e), l}
	x.ncatch++
	return o
}

// CatchAny jumps to l whatever the call fails with.
func (o Op) CatchAny(l Label) Op { return o.Catch(anyErrno, l) }

// Ignore goes on with the next call when this one fails with one of errnos, or
// with any when none is named.
func (o Op) Ignore(errnos ...unix.Errno) Op {
	if len(errnos) == 0 {
		return o.Catch(anyErrno, next)
	}
	for _, e := range errnos {
		o.Catch(e, next)
	}
	return o
}

// Warn makes a caught errno of this call a warning (Child.Warnings).
func (o Op) Warn() Op { o.p.ops[o.i].warn = true; return o }

// Want fails the call with EIO unless its result is n: a short write.
func (o Op) Want(n int) Op { o.p.ops[o.i].want = int32(n); return o }

// Operations that are no system calls. Their numbers lie above all of those.
const (
	opBase     = 1 << 16
	opFork     = opBase + iota
	opReclone  // clone flags; the caller of it sends the new pid and ends
	opJump     // label
	opSet      // slot = arg
	opPoke     // *(32 or 64 bit)(mem + off) = arg
	opExpect   // mem: *(uint32 or uint64)(addr) & mask == value, else errno
	opFail     // fails with the errno in arg
	opAwait    // the parent's next token
	opSync     // index of the function, buffer, length
	opSendFile // descriptor
	opReady    //
	opCommit   //
	opMkpath   // root, path, flags (1: directory), mode, uid, gid
	opCloexec  // every descriptor from arg up
	opExit     // status
	opNotFound // like opFail; the end of a search for the command
	opKeep     // where to begin, up to five descriptors: closes all others from there up
	opLoad     // slot = *(uint32)(mem + off) & mask
	opAlive    // ends the child when its parent is gone
	opDo       // the caller runs a function of its own, before the fork
	opExchange // index of the function, descriptor to send; slot = the one received
	opIfSet    // slot, label
	opOctal    // address of six bytes, number: writes it as octal digits and NUL
)

// Fork ends the parent's calls: what follows is done by the child.
func (p *Program) Fork(c Clone) Op {
	p.fork, p.clone = len(p.ops), c
	return p.Call(opFork)
}

// Clone says how the child is made.
type Clone struct {
	Flags uint64 // CLONE_NEW*
	// Cgroup is the directory of a v2 cgroup that the child is born into.
	Cgroup *os.File
	// PIDNS, if set, is a pid namespace's file or a pidfd: the calling thread
	// makes it the namespace of its children just for this clone, which saves
	// the second clone (Reclone). Needs CAP_SYS_ADMIN in the caller's own user
	// namespace too (setns(2)).
	PIDNS *os.File
	// Share lets the child run on the caller's memory rather than on a copy,
	// which is faster by the time it takes to copy page tables and to fault
	// pages back in. It is for children that no untrusted process can see
	// before execve: one that could trace the child would have the caller. A
	// child that shares memory cannot unshare a user namespace nor join a time
	// namespace (current_is_single_threaded in the kernel). Programs with Sync,
	// Ready or Reclone ignore Share.
	Share bool
}

// Reclone makes the child that has run so far clone a sibling, which goes on
// with the program; the first child ends. It is how a process gets into a pid
// namespace joined or unshared before. The sibling's parent is the caller of
// Start (CLONE_PARENT).
func (p *Program) Reclone() Op {
	p.talks = true
	return p.Call(opReclone, Uint(unix.CLONE_PARENT|uint64(unix.SIGCHLD)))
}

// Jump goes to l.
func (p *Program) Jump(l Label) Op { return p.Call(opJump, Uint(uint64(l))) }

// Set stores a in s.
func (p *Program) Set(s Slot, a Arg) Op { return p.Call(opSet, a).To(s) }

// Poke32 stores the low 32 bits of v at addr, which is memory of this program.
func (p *Program) Poke32(addr, v Arg) Op { return p.Call(opPoke, Uint(addr.v), v, Int(4)) }

// Poke64 stores v at addr, which is memory of this program.
func (p *Program) Poke64(addr, v Arg) Op { return p.Call(opPoke, Uint(addr.v), v, Int(8)) }

// Expect32 fails with e unless the 32 bits at addr, masked, are value.
func (p *Program) Expect32(addr Arg, mask, value uint32, e unix.Errno) Op {
	return p.Call(opExpect, Uint(addr.v), Uint(uint64(mask)), Uint(uint64(value)), Int(int(e)), Int(4))
}

// Expect64 fails with e unless the 64 bits at addr, masked, are value.
func (p *Program) Expect64(addr Arg, mask, value uint64, e unix.Errno) Op {
	return p.Call(opExpect, Uint(addr.v), Uint(mask), Uint(value), Int(int(e)), Int(8))
}

// Load32 stores the 32 bits at addr, masked, in s.
func (p *Program) Load32(s Slot, addr Arg, mask uint32) Op {
	return p.Call(opLoad, Uint(addr.v), Uint(uint64(mask))).To(s)
}

// Fail fails with the errno in a.
func (p *Program) Fail(a Arg) Op { return p.Call(opFail, a) }

// NotFound ends a search for the command to execute: it fails with the errno in
// a, and the CallError is marked Exec.
func (p *Program) NotFound(a Arg) Op { return p.Call(opNotFound, a) }

// Err is the first mistake made in building the program, which Start reports too.
func (p *Program) Err() error { return p.err }

// Meanwhile adds a function that the parent runs right after the clone, while
// the child works; pid is the child's. Functions run in the order added; the
// child sees that the n-th is done at its n-th Await. An error of the function
// kills the child and is what Start returns.
func (p *Program) Meanwhile(fn func(pid int) error) { p.meanwhile = append(p.meanwhile, fn) }

// Await makes the child wait for the parent's next Meanwhile function.
func (p *Program) Await() Op { return p.Call(opAwait) }

// Sync makes the child wait while the parent runs fn, which may fill reply:
// its n bytes are then at buf in the child. With n 0, buf may be Null.
func (p *Program) Sync(buf Arg, n int, fn func(pid int, reply []byte) error) Op {
	p.talks = true
	p.syncs = append(p.syncs, fn)
	return p.Call(opSync, Int(len(p.syncs)-1), buf, Int(n))
}

// Exchange makes the child wait while the parent runs fn, which is given a
// descriptor of the child's (nil for -1) that it closes, and may return one for
// the child, where it is the result; without one, the result is -1.
func (p *Program) Exchange(fd Arg, fn func(pid int, in *os.File) (*os.File, error)) Op {
	p.talks = true
	p.swaps = append(p.swaps, fn)
	return p.Call(opExchange, Int(len(p.swaps)-1), fd)
}

// Do runs fn in the caller, before the fork; the file that it returns, if any,
// is the result, for use by this program only.
func (p *Program) Do(fn func() (*os.File, error)) Op {
	p.dos = append(p.dos, fn)
	return p.Call(opDo, Int(len(p.dos)-1))
}

// IfSet goes to l if something was stored in s.
func (p *Program) IfSet(s Slot, l Label) Op { return p.Call(opIfSet, s.Arg(), Uint(uint64(l))) }

// Octal writes v, below 0100000, in octal digits and a NUL at addr, which is
// memory of this program: six bytes.
func (p *Program) Octal(addr, v Arg) Op { return p.Call(opOctal, Uint(addr.v), v) }

// SendFile sends a descriptor to the parent (Child.Files).
func (p *Program) SendFile(fd Arg) Op { return p.Call(opSendFile, fd) }

// Ready makes Start return although the program is not at its end; the rest is
// reported by Child.Wait.
func (p *Program) Ready() Op {
	p.talks = true
	return p.Call(opReady)
}

// Commit says that the program is as good as at its end: a child that ends
// after it without an error has executed its program, one that ends before it
// was killed. It comes after all that may be slow or privileged, but before a
// seccomp filter that could refuse to let it speak. Call adds it before the
// first execve if nobody did.
func (p *Program) Commit() Op {
	p.committed = true
	return p.Call(opCommit)
}

// Exit ends the child with a status instead of an execve.
func (p *Program) Exit(status int) Op {
	if !p.committed {
		p.Commit()
	}
	return p.Call(opExit, Int(status))
}

// Cloexec makes every descriptor from first up close-on-exec.
func (p *Program) Cloexec(first int) Op {
	if defence.Removed("close") {
		first = 1 << 20
	}
	return p.Call(opCloexec, Int(first))
}

// Keep closes every descriptor from first up except those in args (at most five)
// and the program's own: before a wait that may be long, since a descriptor kept by
// accident keeps somebody's pipe open.
func (p *Program) Keep(first int, args ...Arg) Op {
	return p.Call(opKeep, append([]Arg{Int(first)}, args...)...)
}

// Mkpath opens path below root as openat2 with RESOLVE_IN_ROOT would and
// creates what is missing, component by component and by descriptor, also where
// a symbolic link points to nothing. Directories get mode 0755, a final file
// (dir false) mode 0644; both are given to uid and gid unless these are -1. The
// result is an O_PATH descriptor.
func (p *Program) Mkpath(root Arg, path string, dir bool, uid, gid int) Op {
	p.scratch = true
	d := 0
	if dir {
		d = 1
	}
	return p.Call(opMkpath, root, p.String(path), Int(d), Int(uid), Int(gid))
}

// Inherit makes args the descriptors 0, 1, 2 ... of the program that is
// executed. All other descriptors must be close-on-exec (Cloexec).
func (p *Program) Inherit(args ...Arg) {
	n := len(args)
	p.minSock = max(p.minSock, n)
	// A source that lies where another one shall go is moved out of the way
	// first. Slots hold descriptors opened after the standard ones and are
	// only in danger when more than those are inherited.
	for i, a := range args {
		inTheWay := a.kind == slotted && n > 3 || a.kind == fdNumber && int64(a.v) < int64(n) && int(a.v) != i
		if inTheWay {
			s := p.Slot("inherited")
			p.Call(unix.SYS_FCNTL, a, Int(unix.F_DUPFD_CLOEXEC), Int(n)).To(s)
			args[i] = s.Arg()
		}
	}
	for i, a := range args {
		if a.kind == fdNumber && int(a.v) == i {
			p.Call(unix.SYS_FCNTL, a, Int(unix.F_SETFD), Int(0)) // dup3 refuses equal numbers
			continue
		}
		p.Call(unix.SYS_DUP3, a, FD(i), Int(0))
	}
}
