package runtime

import (
	"errors"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// Again makes one system call as a process of a container would: in its
// namespaces, with the user and the capabilities of pr and under a filter, which
// are the container's but for the one thing that the caller wants to lift. It
// returns the errno, 0 for success.
//
// What the call changes must not reach anybody: mounts and names are made in
// namespaces of this process alone, which is gone afterwards. Calls that change
// more (files, clocks, the kernel) are for the caller not to try.
func Again(t Target, pr *specs.Process, filter *seccomp.Filter, call func(p *program.Program)) (unix.Errno, error) {
	c := &compiler{p: program.New(), o: &Options{}, process: pr, root: program.CWD}
	flags, err := differing(t.Pid)
	if err != nil {
		return 0, err
	}
	flags &^= unix.CLONE_NEWPID // for children only, which it has none of
	if flags&unix.CLONE_NEWUSER != 0 {
		c.ns.joins = []join{{flag: unix.CLONE_NEWUSER}}
	}
	c.userNS = flags&unix.CLONE_NEWUSER != 0 || !inInitialUserNS()
	fd, err := unix.PidfdOpen(t.Pid, 0)
	if err != nil {
		return 0, os.NewSyscallError("pidfd_open", err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd "+strconv.Itoa(t.Pid))
	defer pidfd.Close()
	p := c.p
	p.Fork(program.Clone{})
	if flags != 0 {
		p.Step(program.Step{Verb: "join container"})
		p.Call(unix.SYS_SETNS, p.File(pidfd), program.Uint(flags))
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		c.becomeRoot(nil, nil)
	}
	p.Step(program.Step{Verb: "own copies"})
	p.Call(unix.SYS_UNSHARE, program.Int(unix.CLONE_NEWNS|unix.CLONE_NEWUTS))
	p.Call(unix.SYS_MOUNT, program.Null, p.String("/"), program.Null, program.Int(unix.MS_REC|unix.MS_PRIVATE), program.Null)
	if err := c.rlimits(pr.Rlimits); err != nil {
		return 0, err
	}
	c.openCwd(pr, false)
	if err := c.credentials(pr, filter); err != nil {
		return 0, err
	}
	p.Step(program.Step{Verb: again})
	call(p)
	p.Exit(0)
	child, err := p.Start()
	if err == nil {
		_ = child.Pidfd.Close() // it has ended
		_, _ = unix.Wait4(child.Pid, nil, 0, nil)
		return 0, nil //nolint:nilnil // success is an answer
	}
	var ce *CallError
	if errors.As(err, &ce) && ce.Step.Verb == again {
		return ce.Errno, nil
	}
	return 0, errs.WithExit(err, errs.ExitEngine)
}

// again marks the step of the one call.
const again = "again"
