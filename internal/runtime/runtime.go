package runtime

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// Stdio are the standard files of a process; a nil one is /dev/null. They are
// not used when the process gets a terminal.
type Stdio struct{ In, Out, Err *os.File }

// Cgroup is where a process is to live.
type Cgroup interface {
	// File is the directory of the v2 cgroup to be born into; nil for none.
	File() *os.File
	// Attach moves the process into v1 hierarchies. It runs in the parent while
	// the child is busy; nothing of the container runs before it has returned.
	Attach(pid int) error
}

// Joiner is a Cgroup whose v1 hierarchies a process of one thread can join by
// itself, which is faster by an RCU grace period: it writes "0" to each of the
// files. Attach then finds it there.
type Joiner interface {
	JoinFiles() ([]*os.File, error)
}

// Hierarchy is a v1 cgroup hierarchy as it shall appear below /sys/fs/cgroup.
type Hierarchy struct {
	Name   string // "memory", or "cpu,cpuacct", which gets a link for each part
	Source string // host directory of the container's own cgroup in it
}

// Options are what Compile needs beside the spec.
type Options struct {
	// Rootfs is the detached mount that becomes the root; nil: a clone of the
	// mount at spec.Root.Path.
	Rootfs *os.File
	Stdio  Stdio
	Cgroup Cgroup // nil: the caller's
	// CgroupV1, when not empty, is what a mount of type "cgroup" shows.
	// Otherwise such a mount is cgroup v2.
	CgroupV1 []Hierarchy
	// Init is the sealed memory file of an init that is executed with the
	// command as its arguments (package linux/pid1).
	Init *os.File
	// Pdeathsig makes the container die with the thread that starts it.
	Pdeathsig bool
	// Gate is read just before execve: one byte lets the container run, end of
	// file ends it. Start returns when everything else is done.
	Gate *os.File
	// Binds are detached mounts that replace the sources of bind mounts, by
	// destination as the spec has it.
	Binds map[string]*os.File
	// Network connects the process's network namespace. It runs in the parent,
	// while the child is busy where that is possible; nothing of the container
	// runs before it has returned.
	Network func(pid int) error
	// Netns, if not nil, is the network namespace that the spec asks to be new:
	// one that NewNetns has made for this container. Not together with Network.
	Netns *os.File
	// State is what a seccomp agent is told of the container; a Pid of 0 is
	// filled in. nil: profiles that need an agent are refused.
	State *specs.State
	// Seccomp is used in place of compiling spec.Linux.Seccomp.
	Seccomp *seccomp.Filter
	// Inherit is how many descriptors from 3 on the command gets, as they are in
	// this process; whoever asks for them has seen to it that they are open.
	Inherit int
	// Hooks runs in the parent when the container is there but for the change of
	// its root: its mounts are made below the root's own path, by which the
	// host's mounts are still there too (runtime-spec, Lifecycle, steps 3 to 5).
	Hooks func(pid int) error
	// NoPivot changes the root by chroot(2), for a root file system that
	// pivot_root(2) refuses to leave (the initial ramdisk). The mounts of the
	// host stay in the namespace, out of reach of processes without privilege only.
	NoPivot bool
	// Keyring is the description of a new session keyring; "": the caller's stays.
	Keyring string
	// HostMounts allows a spec without a mount namespace of its own: its mounts are
	// made in the caller's, or in the one that it joins, and are left there.
	// Otherwise a joined one has the root and the mounts already.
	HostMounts bool
	// AllCPUs lets the process run on every CPU that its cgroup allows, rather
	// than on those that the caller is bound to.
	AllCPUs bool
	// PlainLines makes the terminal leave the ends of lines alone, for a caller
	// that passes on what it reads from it to a terminal of its own.
	PlainLines bool

	// Preview compiles what a start from a protected executable compiles
	// (raiseShield), by a process that has none: to be shown, not to be started.
	Preview bool

	legacyClone bool // for tests: no clone3
	unshielded  bool // for tests: as if this process's executable were out of reach
}

// Program is a compiled container.
type Program struct {
	p        *program.Program
	command  string // as the user typed it
	warnings []error
	start    *uint64 // start time, filled while the child works
	terminal bool
	// restarted: the process is a second child, later than *start says.
	restarted bool
	shield    *os.File
	opened    []*os.File
}

// Process is a process that runs in a container.
type Process struct {
	Pid   int
	Pidfd *os.File
	// Console is the master of the process's terminal.
	Console *os.File
	// StartTime is field 22 of /proc/PID/stat: with Pid it names the process
	// for as long as the machine is up.
	StartTime uint64
	// Warnings are what could not be done as asked but need not fail.
	Warnings []error

	child   *program.Child
	command string
}

// Start makes the container and returns once its command has been executed, or,
// with a Gate, once that is all that is left. An error names the call that
// failed (*program.CallError) and has Docker's exit code.
func (p *Program) Start() (*Process, error) {
	child, err := p.p.Start()
	if p.shield != nil {
		_ = p.shield.Close() // the child has its own
	}
	for _, f := range p.opened {
		_ = f.Close() // the child's business
	}
	if err != nil {
		return nil, startError(err, p.command)
	}
	proc := &Process{
		Pid: child.Pid, Pidfd: child.Pidfd, StartTime: *p.start, Warnings: p.warnings,
		child: child, command: p.command,
	}
	if p.restarted {
		// Field 22 of a process that has ended by now is still there: it is not reaped.
		if proc.StartTime, err = startTime(child.Pid); err != nil {
			return nil, errs.WithExit(err, errs.ExitEngine)
		}
	}
	for _, w := range child.Warnings {
		proc.Warnings = append(proc.Warnings, w)
	}
	for i, f := range child.Files {
		if i == 0 && p.terminal {
			proc.Console = f
			continue
		}
		_ = f.Close() // none is sent without a terminal
	}
	return proc, nil
}

// Executed waits until a process that was started with a Gate has passed it and
// has been executed. Without a Gate it returns at once.
func (p *Process) Executed() error {
	if err := p.child.Wait(); err != nil {
		return startError(err, p.command)
	}
	return nil
}

// Call is one system call of a program, for people.
type Call struct {
	Child bool         // made by the child, not by the caller
	Do    program.Step // what it is for; the zero Step where the call says it all
	Name  string       // of the call
	Text  string       // as strace prints it
	// Straight: it is made when nothing is refused.
	Straight bool
	// System: the kernel is asked for something; others keep the program's books.
	System bool
}

// Step is what the call is for, in words.
func (c *Call) Step() string {
	if c.Do.Verb == "" {
		return ""
	}
	return c.Do.String()
}

// Forget lets go of a process that waits at its gate: another process opens it,
// and what becomes of the command is then not reported here.
func (p *Process) Forget() { p.child.Forget() }

// StartTime is field 22 of /proc/PID/stat of a process that has not been reaped.
func StartTime(pid int) (uint64, error) { return startTime(pid) }

// Calls are the program's calls in order. Calls with the same Step that follow
// one another belong together.
func (p *Program) Calls() []Call {
	calls := make([]Call, p.p.Len())
	straight := p.p.Straight()
	for i := range calls {
		calls[i] = Call{
			Child: p.p.InChild(i), Do: p.p.StepOf(i), Name: p.p.Name(i), Text: p.p.Text(i),
			Straight: straight[i], System: p.p.System(i),
		}
	}
	return calls
}

// Warnings are what Compile already knows will not be as asked.
func (p *Program) Warnings() []error { return p.warnings }
