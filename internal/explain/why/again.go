package why

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/linux/trace"
	"github.com/isle-engine/isle/internal/runtime"
)

// attempt is how the double fared.
type attempt struct {
	tried bool
	errno unix.Errno
}

func result(e unix.Errno) string {
	if e == 0 {
		return "succeeded"
	}
	return unix.ErrnoName(e)
}

// repeat says how a call can be made again without harm: the kind of each argument
// (d number, f descriptor, p memory, z the number 0); ok false: it cannot, since it
// would change what others see, or holds pointers in memory.
func repeat(name string, args [6]uint64) (kinds string, ok bool) {
	switch name {
	case "mount": // in a mount namespace of the double's own
		return "pppdp", args[3]&unix.MS_REMOUNT == 0
	case "umount2":
		return "pd", true
	case "chroot":
		return "p", true
	case "unshare", "personality", "setuid", "setgid", "iopl", "userfaultfd", "memfd_secret":
		return "d", true
	case "sethostname", "setdomainname": // in a UTS namespace of the double's own
		return "pd", true
	case "socket", "setresuid", "setresgid", "ioperm":
		return "ddd", true
	case "setpriority":
		return "ddd", args[0] == unix.PRIO_PROCESS && args[1] == 0
	case "sched_setscheduler":
		return "ddp", args[0] == 0
	case "perf_event_open":
		return "pdddd", int32(args[1]) <= 0
	case "io_uring_setup", "fanotify_init":
		return map[bool]string{true: "dp", false: "dd"}[name == "io_uring_setup"], true
	case "bind":
		return "fpd", true
	case "keyctl":
		return "ddddd", args[0] == 0 // KEYCTL_GET_KEYRING_ID
	case "openat":
		return "Dpdd", int(args[2])&(unix.O_CREAT|unix.O_TRUNC) == 0
	case "open":
		return "pdd", int(args[1])&(unix.O_CREAT|unix.O_TRUNC) == 0
	case "syslog": // what reads only
		return "dpd", args[0] == 2 || args[0] == 3 || args[0] == 10
	case "ptrace":
		return "dddd", args[0] == unix.PTRACE_TRACEME
	case "fsopen":
		return "pd", true
	}
	return "", false
}

// memory bounds what of an argument's memory is copied: a page, as for mount(2).
const memory = 4096

// again makes the call by a double with a filter and capabilities of choice, all
// else as it was.
func (k *clue) again(filter *seccomp.Filter, set caps.Set) attempt {
	kinds, ok := repeat(k.name, k.c.Args)
	if !ok {
		return attempt{}
	}
	errno, err := runtime.Again(runtime.Target{Pid: k.d.s.State.Pid}, k.process(set), filter, func(p *program.Program) { k.repeat(p, kinds) })
	if err != nil {
		return attempt{}
	}
	return attempt{true, errno}
}

// process is the thread as the double is to be.
func (k *clue) process(set caps.Set) *specs.Process {
	names := set.Names()
	bounding := (k.bounding | set).Names()
	return &specs.Process{
		Args: []string{"again"}, Cwd: "/", User: specs.User{UID: k.uid, GID: k.gid}, NoNewPrivileges: k.nnp,
		Capabilities: &specs.LinuxCapabilities{Bounding: bounding, Effective: names, Permitted: names},
	}
}

// againOutside makes the call in no cgroup of the container's: by this process's
// own group, with the container's user and capabilities.
func (k *clue) againOutside() attempt {
	return k.again(k.filter, k.effective) // a double is born into the caller's cgroup
}

// repeat adds the call to a program.
func (k *clue) repeat(p *program.Program, kinds string) {
	args := make([]program.Arg, 0, 6)
	for i, kind := range kinds {
		v := k.c.Args[i]
		switch kind {
		case 'p':
			b := trace.Memory(k.pid, v, memory)
			if v == 0 || len(b) == 0 {
				args = append(args, program.Uint(v))
				continue
			}
			args = append(args, p.Bytes(append(b, 0)))
		case 'D':
			if int32(v) == unix.AT_FDCWD {
				args = append(args, program.CWD)
				continue
			}
			fallthrough
		case 'f':
			args = append(args, k.borrow(p, int(int32(v))))
		default:
			args = append(args, program.Uint(v))
		}
	}
	p.Call(uintptr(k.c.Nr), args...)
}

// borrow is a copy of the thread's descriptor; one that cannot be had stays a
// number, and the call fails with EBADF.
func (k *clue) borrow(p *program.Program, fd int) program.Arg {
	pidfd, err := unix.PidfdOpen(k.pid, 0)
	if err != nil {
		return program.FD(-1)
	}
	defer unix.Close(pidfd) //nolint:errcheck // a handle
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return program.FD(-1)
	}
	return p.File(os.NewFile(uintptr(own), "copy"))
}

// tryCaps looks for the one capability that lets the call succeed.
func (k *clue) tryCaps() {
	for n := range caps.Last + 1 {
		if k.effective.Has(n) {
			continue
		}
		if r := k.again(k.filter, k.effective|1<<n); r.tried && r.errno == 0 {
			k.is(Capability, "%s is missing", caps.Name(n))
			k.flagCap(n)
			k.prove("the same call with "+caps.Name(n)+", all else as it was", "succeeded")
			return
		}
	}
}
