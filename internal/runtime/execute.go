package runtime

import (
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/linux/pid1"
	"github.com/isle-engine/isle/internal/linux/program"
)

// defaultPath is searched for a command when the process has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// candidates are the files that command can be. Directories of PATH that are
// not absolute are passed over: what they mean depends on the working directory.
func candidates(command string, env []string) []string {
	if strings.Contains(command, "/") {
		return []string{command}
	}
	dirs := defaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			dirs = v // the last one counts, as in most shells
		}
	}
	var out []string
	for dir := range strings.SplitSeq(dirs, ":") {
		if strings.HasPrefix(dir, "/") {
			out = append(out, strings.TrimRight(dir, "/")+"/"+command)
		}
	}
	return out
}

// raiseShield provides a program that stands between this process and the
// command, if one is needed. An image's command may be a script for
// /proc/self/exe: the kernel then opens the executable of the process that
// executes it, which is ours, and the container has a file of the host's in
// /proc/1/exe, to be opened for writing once we are gone (CVE-2019-5736). A
// process that was started from a read-only mount (program.Command.Protect) has
// nothing to fear; others execute the command by way of a sealed file in memory.
func (c *compiler) raiseShield(out *Program) error {
	var st unix.Statfs_t
	if c.o.Init != nil || c.o.Preview || c.o.unshielded || defence.Removed("shield") || unix.Statfs("/proc/self/exe", &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
		return nil
	}
	if c.o.Gate != nil {
		// A process may wait long at its gate, in sight of whoever looks at its
		// open files: the child makes the file when it has passed.
		c.lateShield = true
		return nil
	}
	f, err := pid1.MemFD()
	if err != nil {
		return errs.WithExit(err, errs.ExitEngine)
	}
	c.shield, out.shield = f, f
	return nil
}

// raiseLateShield is pid1.MemFD by the child.
func (c *compiler) raiseLateShield() program.Slot {
	p, f := c.p, c.p.Slot("shield")
	image, name := pid1.Image(), p.String("isle-pid1")
	const base = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	old, made := p.NewLabel(), p.NewLabel()
	p.Step(program.Step{Verb: "shield"})
	p.Call(unix.SYS_MEMFD_CREATE, name, program.Int(base|unix.MFD_EXEC)).To(f).Catch(unix.EINVAL, old)
	p.Jump(made)
	p.Place(old) // Linux < 6.3
	p.Call(unix.SYS_MEMFD_CREATE, name, program.Int(base)).To(f)
	p.Place(made)
	p.Call(unix.SYS_WRITE, f.Arg(), p.Bytes([]byte(image)), program.Int(len(image))).Want(len(image))
	p.Call(unix.SYS_FCNTL, f.Arg(), program.Int(unix.F_ADD_SEALS), program.Int(pid1.Seals))
	return f
}

// execute ends the program: execve of every file that the command can be, by
// the process that it will be and in its own tree, so that nothing on the host
// and no more rights than its own decide what is found.
func (c *compiler) execute(pr *specs.Process, env program.Arg) {
	p := c.p
	if file, ok := c.betweenArg(); ok {
		args := append([]string{"init", "--"}, pr.Args...)
		if c.o.Init == nil {
			args = append([]string{"isle", "exec", ""}, pr.Args...)
		}
		argv := p.Strings(args)
		c.search(pr, func(path program.Arg) {
			p.Poke64(argv.Plus(2*8), path) // it executes what was found
		})
		p.Call(unix.SYS_EXECVEAT, file, p.Empty(), argv, env, program.Int(unix.AT_EMPTY_PATH))
		return
	}
	argv := p.Strings(pr.Args)
	c.try(pr, func(path program.Arg) program.Op {
		return p.Call(unix.SYS_EXECVE, path, argv, env)
	})
}

// command is the file to execute, as the process names it.
func (c *compiler) command(pr *specs.Process) string {
	if c.path != "" {
		return c.path
	}
	return pr.Args[0]
}

// between is the program that executes the command in the child's stead; nil:
// none, or one that the child makes.
func (c *compiler) between() *os.File {
	if c.shield != nil {
		return c.shield
	}
	return c.o.Init
}

// betweenArg is between for the end of the program.
func (c *compiler) betweenArg() (program.Arg, bool) {
	if c.lateShield {
		return c.madeShield.Arg(), true
	}
	if f := c.between(); f != nil {
		return c.p.File(f), true
	}
	return program.Null, false
}

// search looks for the command as execute would, without executing it, and
// calls found with the path of the first file that can be.
func (c *compiler) search(pr *specs.Process, found func(path program.Arg)) {
	p := c.p
	done := p.NewLabel()
	c.tryEach(pr, func(path program.Arg) program.Op {
		// The older call, which every filter knows: real and effective ids are
		// equal by now.
		return p.Call(unix.SYS_FACCESSAT, program.CWD, path, program.Int(unix.X_OK))
	}, func(path program.Arg) {
		// A directory can be "executed" too, says faccessat. One that can be
		// opened as such goes on to be denied.
		file := p.NewLabel()
		denied := p.NewLabel()
		p.Call(unix.SYS_OPENAT, program.CWD, path, program.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).CatchAny(file)
		p.Jump(denied)
		p.Place(file)
		if found != nil {
			found(path)
		}
		p.Jump(done)
		p.Place(denied)
	})
	p.Place(done)
}

func (c *compiler) try(pr *specs.Process, call func(path program.Arg) program.Op) {
	c.tryEach(pr, call, nil)
}

// tryEach makes the call for every candidate. ENOENT and ENOTDIR go on to the
// next; EACCES does too and is what is reported in the end, as execvp(3) does.
func (c *compiler) tryEach(pr *specs.Process, call func(path program.Arg) program.Op, success func(path program.Arg)) {
	p := c.p
	worst := p.Slot("errno")
	p.Set(worst, program.Int(int(unix.ENOENT)))
	for _, name := range candidates(c.command(pr), pr.Env) {
		path := p.String(name)
		denied, next := p.NewLabel(), p.NewLabel()
		call(path).Catch(unix.ENOENT, next).Catch(unix.ENOTDIR, next).Catch(unix.EACCES, denied)
		if success != nil {
			success(path)
		}
		p.Place(denied)
		p.Set(worst, program.Int(int(unix.EACCES)))
		p.Place(next)
	}
	p.NotFound(worst.Arg())
}
