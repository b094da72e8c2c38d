package runtime

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// gate lets the caller hold the container just before its command.
func (c *compiler) gate(pr *specs.Process) {
	p := c.p
	p.Step(program.Step{Verb: "gate"})
	gate := p.File(c.o.Gate)
	keep := []program.Arg{gate}
	if f := c.between(); f != nil {
		keep = append(keep, p.File(f))
	}
	if c.lsm != 0 {
		keep = append(keep, c.lsm.Arg())
	}
	if pr.User.UID != 0 {
		keep = append(keep, c.cwd.Arg())
	}
	if c.agent != nil {
		keep = append(keep, c.agent.socket.Arg())
	}
	// A command that does not exist shall be known now, not when the gate opens.
	c.search(pr, nil)
	if c.ns.new&unix.CLONE_NEWPID != 0 {
		c.waitKillable(gate, keep)
	} else {
		p.Keep(3+c.o.Inherit, keep...)
		p.Ready()
	}
	p.Call(unix.SYS_READ, gate, p.Buffer(8), program.Int(1)).Want(1)
	if c.lateShield {
		c.madeShield = c.raiseLateShield()
	}
}

// fatal are the signals that end a process that does nothing about them, but for
// those that report its own faults (signal(7)).
var fatal = [...]unix.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM,
	unix.SIGTERM, unix.SIGSTKFLT, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGPROF, unix.SIGIO, unix.SIGPWR,
}

// waitKillable waits for the gate or for a signal. The kernel keeps signals from
// the first process of a pid namespace that it has no handler for, and a child
// without a runtime has none; blocked ones it does not keep (pid_namespaces(7)),
// so they are taken from a signalfd.
func (c *compiler) waitKillable(gate program.Arg, keep []program.Arg) {
	p := c.p
	var set uint64
	for _, s := range fatal {
		set |= 1 << (s - 1)
	}
	mask, fds, sfd := p.Words(program.Uint(set)), p.Words(program.Uint(unix.POLLIN<<32), program.Uint(unix.POLLIN<<32)), p.Slot("signals")
	again, end, open := p.NewLabel(), p.NewLabel(), p.NewLabel()
	p.Call(unix.SYS_RT_SIGPROCMASK, program.Int(unix.SIG_BLOCK), mask, program.Null, program.Int(8))
	p.Call(unix.SYS_SIGNALFD4, program.Int(-1), mask, program.Int(8), program.Int(unix.SFD_CLOEXEC)).To(sfd)
	p.Poke32(fds, gate)
	p.Poke32(fds.Plus(8), sfd.Arg())
	p.Keep(3+c.o.Inherit, append(keep, sfd.Arg())...)
	p.Ready()
	p.Place(again)
	p.Call(unix.SYS_PPOLL, fds, program.Int(2), program.Null, program.Null, program.Int(0)).Catch(unix.EINTR, again)
	p.Expect32(fds.Plus(12), 0xffff0000, 0, unix.EINTR).Catch(unix.EINTR, end) // revents
	p.Jump(open)
	p.Place(end)
	p.Call(unix.SYS_EXIT_GROUP, program.Int(1)) // it has never run
	p.Place(open)
	p.Call(unix.SYS_RT_SIGPROCMASK, program.Int(unix.SIG_UNBLOCK), mask, program.Null, program.Int(8))
}
