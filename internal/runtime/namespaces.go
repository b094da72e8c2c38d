package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
)

// namespaces is what the spec asks for, sorted by what has to be done.
type namespaces struct {
	new       uint64 // CLONE_NEW* of new ones, without the cgroup namespace
	newCgroup bool
	joins     []join
	// stages: the namespaces cannot all be had by one clone. The first child
	// joins and unshares, a second one is born into the result.
	stages bool
}

type join struct {
	flag uint64
	path string
	file *os.File // open already, in place of path
	slot program.Slot
}

func (n *namespaces) has(flag uint64) bool {
	for _, j := range n.joins {
		if j.flag == flag {
			return true
		}
	}
	return n.new&flag != 0
}

// ownNet reports whether the network namespace that is joined is the caller's.
func (n *namespaces) ownNet() bool {
	var own, other unix.Stat_t
	for _, j := range n.joins {
		if j.flag == unix.CLONE_NEWNET {
			return unix.Stat("/proc/self/ns/net", &own) == nil && unix.Stat(j.path, &other) == nil && own.Dev == other.Dev && own.Ino == other.Ino
		}
	}
	return false
}

// parse sorts what the spec asks for. netns, if not nil, is the network namespace
// that it asks for, made already.
func (n *namespaces) parse(list []specs.LinuxNamespace, netns *os.File) error {
	var seen uint64
	for _, ns := range list {
		flag, ok := cloneFlag(ns.Type)
		if !ok {
			return invalid("namespace %q: unknown type", ns.Type)
		}
		if seen&flag != 0 {
			return invalid("namespace %q: given twice", ns.Type)
		}
		seen |= flag
		switch {
		case ns.Path != "":
			n.joins = append(n.joins, join{flag: flag, path: ns.Path})
		case flag == unix.CLONE_NEWCGROUP:
			n.newCgroup = true
		case flag == unix.CLONE_NEWNET && netns != nil:
			n.joins = append(n.joins, join{flag: flag, file: netns})
		default:
			n.new |= flag
		}
	}
	// A joined user namespace gives the right to join the others, so it is
	// first (but see enter). A new one takes the right away, so it comes after all joins.
	for i, j := range n.joins {
		if j.flag == unix.CLONE_NEWUSER {
			n.joins[0], n.joins[i] = n.joins[i], n.joins[0]
		}
	}
	joins := func(flag uint64) bool { return n.has(flag) && n.new&flag == 0 }
	n.stages = joins(unix.CLONE_NEWPID) || n.new&unix.CLONE_NEWTIME != 0 ||
		n.new&unix.CLONE_NEWUSER != 0 && len(n.joins) > 0 ||
		n.new&unix.CLONE_NEWPID != 0 && joins(unix.CLONE_NEWUSER)
	return nil
}

func cloneFlag(t specs.LinuxNamespaceType) (uint64, bool) {
	switch t {
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER, true
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID, true
	case specs.MountNamespace:
		return unix.CLONE_NEWNS, true
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET, true
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS, true
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC, true
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP, true
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME, true
	}
	return 0, false
}

func flagName(flag uint64) string {
	for _, t := range [...]specs.LinuxNamespaceType{
		specs.UserNamespace, specs.PIDNamespace, specs.MountNamespace, specs.NetworkNamespace,
		specs.UTSNamespace, specs.IPCNamespace, specs.CgroupNamespace, specs.TimeNamespace,
	} {
		if f, _ := cloneFlag(t); f == flag {
			return string(t)
		}
	}
	return "unknown"
}

// open opens the namespaces to join, as the caller sees them.
func (n *namespaces) open(p *program.Program) {
	for i := range n.joins {
		j := &n.joins[i]
		if j.file != nil {
			continue
		}
		p.Step(program.Step{Verb: "open namespace", Object: flagName(j.flag), Src: j.path})
		j.slot = p.Slot(flagName(j.flag) + " namespace")
		p.Call(unix.SYS_OPENAT, program.CWD, p.String(j.path), program.Int(unix.O_RDONLY|unix.O_CLOEXEC)).To(j.slot)
	}
}

// fork makes the child, in its new namespaces if one clone is enough for them.
func (c *compiler) fork() {
	clone := program.Clone{}
	if c.o.Cgroup != nil {
		clone.Cgroup = c.o.Cgroup.File()
	}
	if !c.ns.unshares() {
		clone.Flags = c.ns.new
	}
	if clone.Flags&unix.CLONE_NEWUSER != 0 {
		// The child is there at once, so the parent need not be asked.
		c.p.Meanwhile(c.writeMaps)
	}
	// A joined pid namespace has processes in it that could see the child; and
	// see Share for the others.
	clone.Share = !c.ns.stages && !c.ns.has(unix.CLONE_NEWTIME) && !c.tightMemory()
	c.p.Step(program.Step{Verb: "clone"})
	c.p.Fork(clone)
}

// join lets the child join v1 hierarchies by itself where that can be.
func (c *compiler) join() error {
	j, ok := c.o.Cgroup.(Joiner)
	if !ok {
		return nil
	}
	files, err := j.JoinFiles()
	if err != nil {
		return errs.WithExit(err, errs.ExitEngine)
	}
	if len(files) == 0 {
		return nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return errs.WithExit(fmt.Errorf("eventfd: %w", err), errs.ExitEngine)
	}
	c.joined = os.NewFile(uintptr(fd), "joined")
	c.opened = append(append(c.opened, files...), c.joined)
	p := c.p
	for _, f := range files {
		p.Step(program.Step{Verb: "join cgroup", Object: f.Name()})
		// What refuses, for want of cpus or of realtime, refuses Attach too, which says why.
		p.Call(unix.SYS_WRITE, p.File(f), p.String("0"), program.Int(1)).Ignore()
	}
	p.Step(program.Step{Verb: "joined cgroups"})
	p.Call(unix.SYS_WRITE, p.File(c.joined), p.Bytes([]byte{1, 0, 0, 0, 0, 0, 0, 0}), program.Int(8))
	return nil
}

// awaitJoined waits until the child has joined by itself, or has ended.
func (c *compiler) awaitJoined(pid int) {
	if c.joined == nil {
		return
	}
	fds := []unix.PollFd{{Fd: int32(c.joined.Fd()), Events: unix.POLLIN}}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		defer unix.Close(fd) //nolint:errcheck // nothing is written
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return
		}
	}
}

// tightMemory reports whether the child may run out of memory before it has
// executed its command. The kernel then kills every process that shares the
// child's memory, which must not be the caller.
func (c *compiler) tightMemory() bool {
	const enough = 32 << 20
	r := c.s.Linux.Resources
	return r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit >= 0 && *r.Memory.Limit < enough
}

// unshares reports whether the new namespaces are made by the child: after it
// has joined others, where that matters.
func (n *namespaces) unshares() bool {
	return n.stages || len(n.joins) > 0 && n.joins[0].flag == unix.CLONE_NEWUSER
}

// enter brings the child into all namespaces but the cgroup one.
func (c *compiler) enter() {
	p, n := c.p, &c.ns
	newUser := n.new&unix.CLONE_NEWUSER != 0
	if newUser && !n.unshares() {
		p.Step(program.Step{Verb: "new namespace", Object: "user"})
		p.Await()
		c.becomeRoot(c.s.Linux.UIDMappings, c.s.Linux.GIDMappings)
	}
	late := make([]program.Slot, len(n.joins))
	if len(n.joins) > 0 && n.joins[0].flag == unix.CLONE_NEWUSER {
		// The user namespace gives the right to join those that it owns, and
		// takes the caller's right to join others: those are joined before it.
		for i := range n.joins[1:] {
			j := &n.joins[i+1]
			refused, done := p.NewLabel(), p.NewLabel()
			late[i+1] = p.Slot("later")
			c.setns(j).Catch(unix.EPERM, refused)
			p.Jump(done)
			p.Place(refused)
			p.Set(late[i+1], program.Int(1))
			p.Place(done)
		}
	}
	for i := range n.joins {
		j := &n.joins[i]
		if late[i] == 0 {
			c.setns(j)
		} else {
			join, done := p.NewLabel(), p.NewLabel()
			p.IfSet(late[i], join)
			p.Jump(done)
			p.Place(join)
			c.setns(j)
			p.Place(done)
		}
		if j.flag == unix.CLONE_NEWUSER {
			c.becomeRoot(nil, nil)
		}
	}
	if n.unshares() && n.new != 0 {
		p.Step(program.Step{Verb: "new namespaces"})
		p.Call(unix.SYS_UNSHARE, program.Uint(n.new))
		if newUser {
			p.Sync(program.Null, 0, func(pid int, _ []byte) error { return c.writeMaps(pid) })
			c.becomeRoot(c.s.Linux.UIDMappings, c.s.Linux.GIDMappings)
		}
	}
	if n.new&unix.CLONE_NEWTIME != 0 && len(c.s.Linux.TimeOffsets) > 0 {
		// The offsets can be written until the first process enters, which the
		// second child is (time_namespaces(7)).
		p.Step(program.Step{Verb: "clock offsets"})
		p.Sync(program.Null, 0, func(pid int, _ []byte) error { return writeTimeOffsets(pid, c.s.Linux.TimeOffsets) })
	}
	if n.stages {
		p.Step(program.Step{Verb: "enter namespaces"})
		p.Reclone()
	}
	// From here on processes of a joined container may see this one. It is
	// still a copy of the caller: nobody shall trace it or open its files
	// under /proc (CVE-2016-9962, CVE-2019-5736). execve makes it dumpable again.
	c.hide()
	if n.new&unix.CLONE_NEWNET != 0 {
		c.loopback()
	}
}

func (c *compiler) setns(j *join) program.Op {
	c.p.Step(program.Step{Verb: "join namespace", Object: flagName(j.flag), Src: j.path})
	ns := j.slot.Arg()
	if j.file != nil {
		ns = c.p.File(j.file)
	}
	return c.p.Call(unix.SYS_SETNS, ns, program.Uint(j.flag))
}

// becomeRoot gives the child the namespace's root ids, or the first ids that
// are mapped: files are created with them. Capabilities do not depend on it.
func (c *compiler) becomeRoot(uids, gids []specs.LinuxIDMapping) {
	uid, gid := first(uids), first(gids)
	p := c.p
	// EINVAL: root is not mapped in a namespace that somebody else made.
	p.Call(unix.SYS_SETRESGID, gid, gid, gid).Ignore(unix.EINVAL)
	p.Call(unix.SYS_SETRESUID, uid, uid, uid).Ignore(unix.EINVAL)
}

func first(maps []specs.LinuxIDMapping) program.Arg {
	id := uint32(0)
	for i, m := range maps {
		if i == 0 || m.ContainerID < id {
			id = m.ContainerID
		}
	}
	return program.Uint(uint64(id))
}

// loopback brings the loopback interface of the new network namespace up.
func (c *compiler) loopback() {
	p := c.p
	var req [40]byte // struct ifreq: 16 bytes of name, then the flags
	copy(req[:], loopbackName)
	req[16], req[17] = loopbackFlags&0xff, loopbackFlags>>8
	s := p.Slot("socket")
	p.Step(program.Step{Verb: "bring up", Object: loopbackName})
	p.Call(unix.SYS_SOCKET, program.Int(unix.AF_INET), program.Int(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), program.Int(0)).To(s)
	p.Call(unix.SYS_IOCTL, s.Arg(), program.Int(unix.SIOCSIFFLAGS), p.Bytes(req[:]))
}

// writeMaps writes the id maps of the new user namespace that pid is in. The
// caller has the capabilities for it over its own namespace.
func (c *compiler) writeMaps(pid int) error {
	l := c.s.Linux
	proc := "/proc/" + strconv.Itoa(pid)
	if err := writeFile(proc+"/uid_map", formatMap(l.UIDMappings)); err != nil {
		return mapError("uid_map", l.UIDMappings, err)
	}
	err := writeFile(proc+"/gid_map", formatMap(l.GIDMappings))
	if errors.Is(err, unix.EPERM) {
		// Without CAP_SETGID over the parent namespace a map is accepted only
		// once setgroups(2) is given up (user_namespaces(7)).
		if err := writeFile(proc+"/setgroups", []byte("deny")); err != nil {
			return fmt.Errorf("write setgroups: %w", err)
		}
		err = writeFile(proc+"/gid_map", formatMap(l.GIDMappings))
	}
	if err != nil {
		return mapError("gid_map", l.GIDMappings, err)
	}
	return nil
}

func mapError(file string, maps []specs.LinuxIDMapping, err error) error {
	return fmt.Errorf("write %s %q: %w", file, bytes.TrimSpace(formatMap(maps)), err)
}

func formatMap(maps []specs.LinuxIDMapping) []byte {
	var b []byte
	for _, m := range maps {
		b = strconv.AppendUint(b, uint64(m.ContainerID), 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(m.HostID), 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(m.Size), 10)
		b = append(b, '\n')
	}
	return b
}

func writeTimeOffsets(pid int, offsets map[string]specs.LinuxTimeOffset) error {
	var b []byte
	for _, clock := range [...]string{"monotonic", "boottime"} {
		if o, ok := offsets[clock]; ok {
			b = fmt.Appendf(b, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	if err := writeFile("/proc/"+strconv.Itoa(pid)+"/timens_offsets", b); err != nil {
		return fmt.Errorf("write timens_offsets %q: %w", bytes.TrimSpace(b), err)
	}
	return nil
}

// writeFile writes a file of /proc in one write, which such files want.
func writeFile(name string, data []byte) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, data)
	return errors.Join(err, unix.Close(fd))
}

// readSmall reads a file of /proc that fits buf.
func readSmall(name string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// inInitialUserNS reports whether this process is in the first user namespace,
// whose number the kernel fixes (PROC_USER_INIT_INO).
func inInitialUserNS() bool {
	var buf [64]byte
	n, err := unix.Readlink("/proc/self/ns/user", buf[:])
	// ENOENT: a kernel without user namespaces.
	return err == nil && string(buf[:n]) == "user:[4026531837]" || errors.Is(err, unix.ENOENT)
}

// meanwhile is what the parent does for the child while it mounts.
func (c *compiler) meanwhile(out *Program) func(pid int) error {
	return func(pid int) error {
		c.awaitJoined(pid)
		if c.o.Cgroup != nil {
			if err := c.o.Cgroup.Attach(pid); err != nil {
				return err
			}
		}
		if c.o.Network != nil && !c.ns.unshares() {
			if err := c.o.Network(pid); err != nil {
				return err
			}
		}
		if c.rescores {
			w, err := setOOMScoreAdj(pid, *c.process.OOMScoreAdj)
			if err != nil {
				return err
			}
			if w != nil {
				out.warnings = append(out.warnings, w)
			}
		}
		st, err := startTime(pid)
		*out.start = st
		return err
	}
}

// findScore finds out whether the process is to have another oom_score_adj than
// the one it is born with. The parent must have written it before the child hides:
// the files of a process that is not dumpable belong to the host's root
// (proc_pid(5)), and an ordinary user would be refused.
func (c *compiler) findScore() {
	adj := c.process.OOMScoreAdj
	if adj == nil {
		return
	}
	var buf [16]byte
	own, err := readSmall("/proc/self/oom_score_adj", buf[:])
	c.rescores = err != nil || string(bytes.TrimSpace(own)) != strconv.Itoa(*adj)
}

// setOOMScoreAdj sets pid's oom_score_adj. Less than what it was born with
// needs CAP_SYS_RESOURCE, which many places that run containers in containers
// do not have: the value is then left alone, and said.
func setOOMScoreAdj(pid, adj int) (warning, err error) {
	name := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	err = writeFile(name, strconv.AppendInt(nil, int64(adj), 10))
	if errors.Is(err, unix.EACCES) {
		var buf [16]byte
		now, rerr := readSmall(name, buf[:])
		if rerr != nil {
			return nil, fmt.Errorf("read oom_score_adj: %w", rerr)
		}
		return fmt.Errorf("oom_score_adj %d: stays at %s: lowering it needs CAP_SYS_RESOURCE", adj, bytes.TrimSpace(now)), nil
	}
	if err != nil {
		return nil, fmt.Errorf("oom_score_adj %d: %w", adj, err)
	}
	return nil, nil
}

// startTime is field 22 of /proc/PID/stat. The command's name, field 2, may
// hold blanks and parentheses; the last parenthesis ends it.
func startTime(pid int) (uint64, error) {
	var buf [1024]byte
	b, err := readSmall("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	for range 19 {
		i := bytes.IndexByte(rest[1:], ' ')
		if i < 0 {
			return 0, errs.New(errs.Corrupt, "start time of process %d: unexpected %q", pid, b)
		}
		rest = rest[1+i:]
	}
	n := uint64(0)
	for _, d := range rest {
		if d < '0' || d > '9' {
			if d == ' ' && n == 0 {
				continue
			}
			break
		}
		n = n*10 + uint64(d-'0')
	}
	return n, nil
}
