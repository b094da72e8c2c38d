// Package ns asks about namespaces: who owns one, what is in it. It joins them
// only in a forked child, so that the caller stays where it is, and it changes
// nothing.
//
// It hides that a Go program cannot enter a user namespace (setns(2) wants a
// process of one thread), and that a socket or an answer has to be carried out of
// one by a descriptor.
//
// See namespaces(7), ioctl_nsfs(2), uts_namespaces(7), netlink(7).
package ns

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// Kinds are the namespaces of a process, by their files' names in /proc/PID/ns.
func Kinds() []string { return []string{"user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time"} }

// Flag is the CLONE_NEW* of a kind.
func Flag(kind string) int {
	switch kind {
	case "user":
		return unix.CLONE_NEWUSER
	case "mnt":
		return unix.CLONE_NEWNS
	case "pid":
		return unix.CLONE_NEWPID
	case "net":
		return unix.CLONE_NEWNET
	case "uts":
		return unix.CLONE_NEWUTS
	case "ipc":
		return unix.CLONE_NEWIPC
	case "cgroup":
		return unix.CLONE_NEWCGROUP
	case "time":
		return unix.CLONE_NEWTIME
	}
	return 0
}

// Inode is the number of a process's namespace, which names it for as long as it
// exists; 0 where the kernel has none of the kind or the caller may not look.
func Inode(pid, kind string) uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/"+pid+"/ns/"+kind, &st) != nil {
		return 0
	}
	return st.Ino
}

// Owner is the user namespace that a process's namespace belongs to: whoever has
// capabilities there may change it. For a user namespace it is its parent. 0 where
// it is out of the caller's sight.
func Owner(pid, kind string) uint64 {
	fd, err := unix.Open("/proc/"+pid+"/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd) //nolint:errcheck // a namespace's handle
	user, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err != nil {
		return 0
	}
	defer unix.Close(user) //nolint:errcheck // a namespace's handle
	var st unix.Stat_t
	if unix.Fstat(user, &st) != nil {
		return 0
	}
	return st.Ino
}

// Inside is what can be seen only from within.
type Inside struct {
	Hostname, Domainname string
	Route                *os.File // a netlink socket (NETLINK_ROUTE) of the network namespace
}

// Close closes the socket.
func (i *Inside) Close() {
	if i.Route != nil {
		_ = i.Route.Close() // nothing to lose
	}
}

// Look enters the UTS and network namespaces of pid and looks around. first are
// namespaces that give the right to, entered before: the user's own, when the
// caller is no root.
func Look(pid int, first []program.Join) (*Inside, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	target := os.NewFile(uintptr(fd), "pidfd "+strconv.Itoa(pid))
	defer target.Close()
	// To enter a namespace that one is in already takes rights that an ordinary
	// user does not have over the host's.
	flags := 0
	for _, kind := range [...]string{"uts", "net"} {
		if Inode(strconv.Itoa(pid), kind) != Inode("self", kind) {
			flags |= Flag(kind)
		}
	}
	p := program.New()
	return ask(p, first, func() {
		if flags != 0 {
			p.Call(unix.SYS_SETNS, p.File(target), program.Int(flags))
		}
	})
}

// LookIn is Look for a network namespace by the path that it has inside first.
func LookIn(path string, first []program.Join) (*Inside, error) {
	p := program.New()
	f := p.Slot("network namespace")
	return ask(p, first, func() {
		p.Call(unix.SYS_OPENAT, program.CWD, p.String(path), program.Int(unix.O_RDONLY|unix.O_CLOEXEC)).To(f)
		p.Call(unix.SYS_SETNS, f.Arg(), program.Int(unix.CLONE_NEWNET))
	})
}

// utsLen is the length of each string in struct new_utsname.
const utsLen = 65

// ask runs the child: it joins, and brings back a socket and what uname(2) says.
func ask(p *program.Program, first []program.Join, enter func()) (*Inside, error) {
	mem, err := unix.MemfdCreate("uname", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	answer := os.NewFile(uintptr(mem), "uname")
	defer answer.Close()
	p.Step(program.Step{Verb: "look inside"})
	p.Fork(program.Clone{})
	for _, j := range first {
		p.Call(unix.SYS_SETNS, p.File(j.File), program.Int(j.Type))
	}
	enter()
	buf, sock := p.Buffer(6*utsLen), p.Slot("socket")
	p.Call(unix.SYS_UNAME, buf)
	p.Call(unix.SYS_WRITE, p.File(answer), buf, program.Int(6*utsLen)).Want(6 * utsLen)
	p.Call(unix.SYS_SOCKET, program.Int(unix.AF_NETLINK), program.Int(unix.SOCK_RAW|unix.SOCK_CLOEXEC), program.Int(unix.NETLINK_ROUTE)).To(sock)
	p.SendFile(sock.Arg())
	p.Exit(0)
	child, err := p.Start()
	if err != nil {
		return nil, err
	}
	_ = child.Pidfd.Close() // it has ended
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(child.Pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	in := &Inside{}
	if len(child.Files) > 0 {
		in.Route = child.Files[0]
	}
	var uts [6 * utsLen]byte
	if _, err := answer.ReadAt(uts[:], 0); err == nil {
		in.Hostname, in.Domainname = word(uts[utsLen:2*utsLen]), word(uts[5*utsLen:])
	}
	return in, nil
}

func word(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if string(b) == "(none)" {
		return ""
	}
	return string(b)
}
