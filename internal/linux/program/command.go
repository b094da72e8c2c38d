package program

import (
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/defence"
)

// Join is a namespace to enter: a namespace's file, or a pidfd of a process in
// it; Type is one CLONE_NEW* flag (several for a pidfd).
type Join struct {
	File *os.File
	Type int
}

// Command is an ordinary program to be started, possibly inside other
// namespaces, which a Go program cannot enter itself (setns(2) wants a process
// of one thread for user namespaces).
type Command struct {
	Path string   // of the executable, resolved after the namespaces are joined
	Args []string // with argv[0]
	Env  []string
	// Files become descriptors 0, 1, 2 ...; a nil one is /dev/null. No other
	// descriptor is inherited.
	Files []*os.File
	// Join is entered in order; the user namespace comes first, as it gives the
	// right to enter the others.
	Join      []Join
	Setsid    bool
	Dir       string // working directory; "": the caller's, or / of a joined mount namespace
	PdeathSig syscall.Signal
	Cgroup    *os.File // v2 cgroup directory to be born into
	// Protect executes the file through a read-only mount of its directory
	// that nobody else can name, where the caller may make one. The process,
	// and the containers it forks, then have a /proc/PID/exe that cannot be
	// opened for writing, whoever owns the file (CVE-2019-5736). Path must be
	// clean and absolute.
	Protect bool
}

// Start starts the command and returns once it has been executed.
func (c *Command) Start() (*Child, error) {
	return c.Program().Start()
}

// Program is the command as a list of calls.
func (c *Command) Program() *Program {
	p := New()
	p.Step(Step{Verb: "start", Object: c.Path})
	var null Slot
	args := make([]Arg, 0, max(3, len(c.Files)))
	for i := range max(3, len(c.Files)) {
		if i < len(c.Files) && c.Files[i] != nil {
			args = append(args, p.File(c.Files[i]))
			continue
		}
		if null == 0 {
			null = p.Slot("/dev/null")
			p.Call(unix.SYS_OPENAT, CWD, p.String("/dev/null"), Int(unix.O_RDWR|unix.O_CLOEXEC)).To(null)
		}
		args = append(args, null.Arg())
	}
	joinsPID, joinsTime := false, false
	for _, j := range c.Join {
		joinsPID = joinsPID || j.Type&unix.CLONE_NEWPID != 0
		joinsTime = joinsTime || j.Type&unix.CLONE_NEWTIME != 0
	}
	p.Fork(Clone{Cgroup: c.Cgroup, Share: !joinsPID && !joinsTime})
	if c.Setsid {
		p.Call(unix.SYS_SETSID)
	}
	for _, j := range c.Join {
		p.Call(unix.SYS_SETNS, p.File(j.File), Int(j.Type))
	}
	if joinsPID {
		p.Reclone()
	}
	if c.Dir != "" {
		p.Call(unix.SYS_CHDIR, p.String(c.Dir))
	}
	if c.PdeathSig != 0 {
		p.DieWithParent(int(c.PdeathSig))
	}
	p.Inherit(args...)
	p.Cloexec(len(args))
	argv, env := p.Strings(c.Args), p.Strings(c.Env)
	p.Commit() // here, not before one of the two ways to execute
	if c.Protect && !defence.Removed("shield") {
		plain := p.NewLabel()
		dir := p.Slot("executable's directory")
		p.Call(unix.SYS_OPEN_TREE, CWD, p.String(filepath.Dir(c.Path)), Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)).To(dir).CatchAny(plain)
		p.SetMountAttr(dir.Arg(), unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false).CatchAny(plain)
		p.Call(unix.SYS_EXECVEAT, dir.Arg(), p.String(filepath.Base(c.Path)), argv, env, Int(0))
		p.Place(plain)
	}
	p.Call(unix.SYS_EXECVE, p.String(c.Path), argv, env)
	return p
}
