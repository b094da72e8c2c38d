package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// Target is the container that Exec enters.
type Target struct {
	Pid    int
	Pidfd  *os.File // of the same process; nil: opened from Pid
	Cgroup Cgroup   // nil: the caller's
}

// ExecOptions are what Exec needs beside the process.
type ExecOptions struct {
	Stdio     Stdio
	Pdeathsig bool
	// Seccomp is the container's filter; nil: none.
	Seccomp *seccomp.Filter
	// Clone joins the pid namespace by a second clone, as callers must that are
	// not privileged where they are; Exec falls back to it by itself.
	Clone bool

	// Linux is that of the container's spec, for what every process of it has:
	// the personality. nil: none of it.
	Linux *specs.Linux
	// Path is the file to execute; "": the first argument.
	Path string
	// The rest is as in Options.
	Inherit    int
	Keyring    string
	AllCPUs    bool
	PlainLines bool
	State      *specs.State

	// Trace makes the process a tracee of the thread that calls Exec, which must
	// stay locked; it stops when it has been executed (package linux/trace).
	Trace bool

	unshielded bool // see Options
}

// Exec starts a process in all namespaces of a container that runs. It returns
// as Start does.
func Exec(t Target, pr *specs.Process, o ExecOptions) (*Process, error) {
	if t.Pidfd == nil {
		fd, err := unix.PidfdOpen(t.Pid, 0)
		if err != nil {
			return nil, errs.WithExit(fmt.Errorf("process %d: %w", t.Pid, err), errs.ExitEngine)
		}
		t.Pidfd = os.NewFile(uintptr(fd), "pidfd "+strconv.Itoa(t.Pid))
		defer t.Pidfd.Close()
	}
	if !inInitialUserNS() {
		o.Clone = true // it would be refused (program.Clone.PIDNS)
	}
	prog, err := compileExec(t, pr, o)
	if err != nil {
		return nil, err
	}
	proc, err := prog.Start()
	var ce *CallError
	if !o.Clone && errors.As(err, &ce) && ce.Errno == unix.EPERM && ce.Name == "clone3" {
		// The caller's thread may not take on the pid namespace: it has no
		// privilege where it is, only in the user namespace it will join.
		o.Clone = true
		if prog, err = compileExec(t, pr, o); err != nil {
			return nil, err
		}
		proc, err = prog.Start()
	}
	return proc, err
}

// compileExec is Compile for a process that joins.
func compileExec(t Target, pr *specs.Process, o ExecOptions) (*Program, error) {
	c := &compiler{
		p: program.New(), o: &Options{Stdio: o.Stdio, Cgroup: t.Cgroup, Pdeathsig: o.Pdeathsig, Inherit: o.Inherit, Keyring: o.Keyring, AllCPUs: o.AllCPUs, PlainLines: o.PlainLines, State: o.State, unshielded: o.unshielded},
		process: pr, root: program.CWD, path: o.Path, joinedLinux: o.Linux,
	}
	if err := c.checkProcess(pr); err != nil {
		return nil, err
	}
	flags, err := differing(t.Pid)
	if err != nil {
		return nil, errs.WithExit(err, errs.ExitEngine)
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		c.ns.joins = []join{{flag: unix.CLONE_NEWUSER}}
	}
	c.userNS = flags&unix.CLONE_NEWUSER != 0 || !inInitialUserNS()
	p := c.p
	stdio := standardFiles(p, pr.Terminal, o.Stdio)
	if err := c.connectAgent(o.Seccomp); err != nil {
		return nil, err
	}
	clone := program.Clone{}
	if t.Cgroup != nil {
		clone.Cgroup = t.Cgroup.File()
	}
	clones := o.Clone && flags&unix.CLONE_NEWPID != 0
	if !clones && flags&unix.CLONE_NEWPID != 0 {
		clone.PIDNS = t.Pidfd
		flags &^= unix.CLONE_NEWPID
	}
	out := &Program{p: p, command: c.command(pr), terminal: pr.Terminal, start: new(uint64), restarted: clones}
	p.Step(program.Step{Verb: "clone"})
	p.Fork(clone)
	affinity := specs.CPUAffinity{}
	if pr.ExecCPUAffinity != nil {
		affinity = *pr.ExecCPUAffinity
	}
	if err := c.affinity(affinity.Initial); err != nil {
		return nil, err
	}
	if err := c.join(); err != nil {
		return nil, err
	}
	p.Meanwhile(c.meanwhile(out))
	c.openLSM(pr)
	c.findScore()
	early := clones || c.rescores
	if early {
		p.Await() // a second child inherits the cgroup
	}
	// Before the container's processes can see this one (see enter).
	c.hide()
	if flags != 0 {
		p.Step(program.Step{Verb: "join container", Object: strconv.Itoa(t.Pid)})
		p.Call(unix.SYS_SETNS, p.File(t.Pidfd), program.Uint(flags))
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		c.becomeRoot(nil, nil)
	}
	if clones {
		p.Reclone()
	}
	if pr.Terminal {
		c.openTerminalInside()
	}
	c.openCwd(pr, false)
	if !early {
		p.Await()
	}
	// In the cgroup, whose cpuset is the limit.
	if pr.ExecCPUAffinity == nil {
		c.allCPUs()
	}
	if err := c.affinity(affinity.Final); err != nil {
		return nil, err
	}
	if err := c.raiseShield(out); err != nil {
		return nil, err
	}
	if o.Trace {
		p.Step(program.Step{Verb: "be traced"})
		p.Call(unix.SYS_PTRACE, program.Int(unix.PTRACE_TRACEME), program.Int(0), program.Int(0), program.Int(0))
	}
	if err := c.finish(pr, stdio, o.Seccomp); err != nil {
		return nil, err
	}
	if err := p.Err(); err != nil {
		return nil, errs.WithExit(err, errs.ExitEngine)
	}
	out.warnings, out.opened = c.warnings, c.opened
	return out, nil
}

// differing returns the namespaces of pid that the caller is not in. Joining
// one's own user namespace is an error, joining another's own is just work.
func differing(pid int) (uint64, error) {
	var flags uint64
	base := "/proc/" + strconv.Itoa(pid) + "/ns/"
	for _, ns := range [...]struct {
		name string
		flag uint64
	}{
		{"user", unix.CLONE_NEWUSER},
		{"mnt", unix.CLONE_NEWNS},
		{"pid", unix.CLONE_NEWPID},
		{"net", unix.CLONE_NEWNET},
		{"ipc", unix.CLONE_NEWIPC},
		{"uts", unix.CLONE_NEWUTS},
		{"cgroup", unix.CLONE_NEWCGROUP},
		{"time", unix.CLONE_NEWTIME},
	} {
		var theirs, ours [64]byte
		n, err := unix.Readlink(base+ns.name, theirs[:])
		if errors.Is(err, unix.ENOENT) && ns.flag == unix.CLONE_NEWTIME {
			continue // a kernel without time namespaces
		}
		if err != nil {
			return 0, fmt.Errorf("%s namespace of process %d: %w", ns.name, pid, err)
		}
		m, err := unix.Readlink("/proc/self/ns/"+ns.name, ours[:])
		if err != nil {
			return 0, fmt.Errorf("own %s namespace: %w", ns.name, err)
		}
		if string(theirs[:n]) != string(ours[:m]) {
			flags |= ns.flag
		}
	}
	return flags, nil
}

// Namespaces returns the namespaces (CLONE_NEW*) of pid that the caller is not in.
func Namespaces(pid int) (uint64, error) { return differing(pid) }
