package runtime

import (
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// standardFiles returns what becomes descriptors 0, 1 and 2; for a terminal
// that is not known yet.
func standardFiles(p *program.Program, terminal bool, s Stdio) []program.Arg {
	if terminal {
		return nil
	}
	args := make([]program.Arg, 0, 3)
	var null program.Slot
	for _, f := range [...]*os.File{s.In, s.Out, s.Err} {
		if f != nil {
			args = append(args, p.File(f))
			continue
		}
		if null == 0 {
			p.Step(program.Step{Verb: "standard files"})
			null = p.Slot("/dev/null")
			p.Call(unix.SYS_OPENAT, program.CWD, p.String("/dev/null"), program.Int(unix.O_RDWR|unix.O_CLOEXEC)).To(null)
		}
		args = append(args, null.Arg())
	}
	return args
}

// openLSM opens, on the host's /proc, the file that names the label of the next
// execve. It is written at the end through the descriptor; the container's own
// /proc is not trusted with it (CVE-2019-16884, CVE-2025-52881).
func (c *compiler) openLSM(pr *specs.Process) {
	p := c.p
	if pr.ApparmorProfile == "" && pr.SelinuxLabel == "" {
		return
	}
	c.lsm = p.Slot("label")
	p.Step(program.Step{Verb: "security label"})
	if pr.ApparmorProfile == "" {
		p.Call(unix.SYS_OPENAT, program.CWD, p.String("/proc/self/attr/exec"), program.Int(unix.O_WRONLY|unix.O_CLOEXEC)).To(c.lsm)
		return
	}
	old, done := p.NewLabel(), p.NewLabel()
	p.Call(unix.SYS_OPENAT, program.CWD, p.String("/proc/self/attr/apparmor/exec"), program.Int(unix.O_WRONLY|unix.O_CLOEXEC)).To(c.lsm).Catch(unix.ENOENT, old)
	p.Jump(done)
	p.Place(old) // Linux < 5.8 has no directory of AppArmor's own
	p.Call(unix.SYS_OPENAT, program.CWD, p.String("/proc/self/attr/exec"), program.Int(unix.O_WRONLY|unix.O_CLOEXEC)).To(c.lsm)
	p.Place(done)
}

func (c *compiler) writeLSM(pr *specs.Process) {
	if c.lsm == 0 {
		return
	}
	label := pr.SelinuxLabel
	if pr.ApparmorProfile != "" {
		label = "exec " + pr.ApparmorProfile
	}
	c.p.Step(program.Step{Verb: "security label", Object: label})
	c.p.Call(unix.SYS_WRITE, c.lsm.Arg(), c.p.String(label), program.Int(len(label))).Want(len(label))
}

// openCwd opens the working directory; create makes it if it is missing, as
// Docker does, for the process's user.
func (c *compiler) openCwd(pr *specs.Process, create bool) {
	p := c.p
	dir := pr.Cwd
	if dir == "" {
		dir = "/"
	}
	p.Step(program.Step{Verb: "working directory", Object: dir})
	c.cwd = p.Slot(dir)
	open := p.Openat2(c.root, dir, unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}).To(c.cwd)
	if !create {
		return
	}
	missing, done := p.NewLabel(), p.NewLabel()
	open.Catch(unix.ENOENT, missing)
	p.Jump(done)
	p.Place(missing)
	uid, gid := -1, -1
	if pr.User.UID != 0 || pr.User.GID != 0 {
		uid, gid = int(pr.User.UID), int(pr.User.GID)
	}
	p.Mkpath(c.root, dir, true, uid, gid).To(c.cwd)
	p.Place(done)
}

// finish is what a new container's process and one that joins a container have
// in common: from the session to execve.
func (c *compiler) finish(pr *specs.Process, stdio []program.Arg, filter *seccomp.Filter) error {
	p := c.p
	p.Step(program.Step{Verb: "session"})
	p.Call(unix.SYS_SETSID)
	if c.slave != 0 {
		p.Call(unix.SYS_IOCTL, c.slave.Arg(), program.Int(unix.TIOCSCTTY), program.Int(0))
		stdio = []program.Arg{c.slave.Arg(), c.slave.Arg(), c.slave.Arg()}
	}
	p.Inherit(stdio...)
	for fd := 3; fd < 3+c.o.Inherit; fd++ {
		p.Call(unix.SYS_FCNTL, program.FD(fd), program.Int(unix.F_SETFD), program.Int(0))
	}
	c.keyring()
	if uid := pr.User.UID; uid != 0 && c.slave == 0 {
		c.giveStdio(uid)
	}

	p.Step(program.Step{Verb: "working directory", Object: pr.Cwd})
	enter := p.Call(unix.SYS_FCHDIR, c.cwd.Arg())
	later := p.NewLabel()
	if pr.User.UID != 0 {
		// Root without CAP_DAC_OVERRIDE on a network file system: its owner can.
		enter.Catch(unix.EACCES, later)
	}
	c.verifyCwd()
	p.Place(later)

	umask := uint32(0o022)
	if pr.User.Umask != nil {
		umask = *pr.User.Umask
	}
	p.Step(program.Step{Verb: "umask"})
	p.Call(unix.SYS_UMASK, program.Uint(uint64(umask)))
	if err := c.rlimits(pr.Rlimits); err != nil {
		return err
	}
	if err := c.scheduling(pr); err != nil {
		return err
	}
	if err := c.memoryPolicy(); err != nil {
		return err
	}
	if err := c.describe(); err != nil {
		return err
	}
	argv, env := pr.Args, p.Strings(pr.Env)
	if c.o.Gate != nil {
		c.gate(pr)
	}
	if err := c.credentials(pr, filter); err != nil {
		return err
	}
	p.Step(program.Step{Verb: "execute", Object: strings.Join(argv, " ")})
	c.execute(pr, env)
	return nil
}

// giveStdio makes the user the owner of pipes and sockets among the standard
// files, so that it can open /dev/stdout. Others belong to somebody else: the
// caller's terminal, a file the caller's output goes to.
func (c *compiler) giveStdio(uid uint32) {
	p := c.p
	for fd, f := range [...]*os.File{c.o.Stdio.In, c.o.Stdio.Out, c.o.Stdio.Err} {
		if f == nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil {
			continue // the child will say so
		}
		if typ := st.Mode & unix.S_IFMT; typ == unix.S_IFIFO || typ == unix.S_IFSOCK {
			// EPERM, EINVAL: an owner or a user that the namespace does not map.
			p.Call(unix.SYS_FCHOWN, program.FD(fd), program.Uint(uint64(uid)), program.Int(-1)).Ignore(unix.EPERM, unix.EINVAL, unix.EROFS)
		}
	}
}

// verifyCwd makes sure that the working directory is inside the root: the
// kernel reports one that is not as "(unreachable)…" (getcwd(3); CVE-2024-21626).
func (c *compiler) verifyCwd() {
	if defence.Removed("cwd") {
		return
	}
	p := c.p
	buf := p.Buffer(4096)
	p.Call(unix.SYS_GETCWD, buf, program.Int(4096))
	p.Expect32(buf, 0xff, '/', unix.ENOENT)
}

// rlimits sets the limits. A hard limit can be raised by CAP_SYS_RESOURCE only;
// without it the limit stops at what there is, and that is reported.
func (c *compiler) rlimits(limits []specs.POSIXRlimit) error {
	p := c.p
	seen := make(map[int]bool, len(limits))
	for _, l := range limits {
		res, ok := rlimit(l.Type)
		if !ok {
			return invalid("limit %q: unknown", l.Type)
		}
		if seen[res] {
			return invalid("limit %q: given twice", l.Type)
		}
		seen[res] = true
		if l.Soft > l.Hard {
			return invalid("limit %q: soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
		}
		lim := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		p.Step(program.Step{Verb: "limit", Object: strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))})
		set := p.Setrlimit(res, lim)
		var now unix.Rlimit
		if err := unix.Getrlimit(res, &now); err != nil || lim.Max <= now.Max {
			continue
		}
		clamp, done := p.NewLabel(), p.NewLabel()
		set.Catch(unix.EPERM, clamp).Warn()
		p.Jump(done)
		p.Place(clamp)
		p.Setrlimit(res, unix.Rlimit{Cur: min(lim.Cur, now.Max), Max: now.Max})
		p.Place(done)
	}
	if !seen[unix.RLIMIT_NOFILE] {
		// The Go runtime has raised our own soft limit to the hard one. The
		// usual soft limit is what programs expect that use select(2) or
		// close every descriptor they could have.
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err == nil && now.Cur > 1024 {
			p.Step(program.Step{Verb: "limit", Object: "nofile"})
			p.Setrlimit(unix.RLIMIT_NOFILE, unix.Rlimit{Cur: 1024, Max: now.Max})
		}
	}
	return nil
}

func rlimit(name string) (int, bool) {
	switch name {
	case "RLIMIT_AS":
		return unix.RLIMIT_AS, true
	case "RLIMIT_CORE":
		return unix.RLIMIT_CORE, true
	case "RLIMIT_CPU":
		return unix.RLIMIT_CPU, true
	case "RLIMIT_DATA":
		return unix.RLIMIT_DATA, true
	case "RLIMIT_FSIZE":
		return unix.RLIMIT_FSIZE, true
	case "RLIMIT_LOCKS":
		return unix.RLIMIT_LOCKS, true
	case "RLIMIT_MEMLOCK":
		return unix.RLIMIT_MEMLOCK, true
	case "RLIMIT_MSGQUEUE":
		return unix.RLIMIT_MSGQUEUE, true
	case "RLIMIT_NICE":
		return unix.RLIMIT_NICE, true
	case "RLIMIT_NOFILE":
		return unix.RLIMIT_NOFILE, true
	case "RLIMIT_NPROC":
		return unix.RLIMIT_NPROC, true
	case "RLIMIT_RSS":
		return unix.RLIMIT_RSS, true
	case "RLIMIT_RTPRIO":
		return unix.RLIMIT_RTPRIO, true
	case "RLIMIT_RTTIME":
		return unix.RLIMIT_RTTIME, true
	case "RLIMIT_SIGPENDING":
		return unix.RLIMIT_SIGPENDING, true
	case "RLIMIT_STACK":
		return unix.RLIMIT_STACK, true
	}
	return 0, false
}

// keyring makes a session keyring of the container's own: the caller's keys are
// none of its business. The kernel lets the owner search keys in it only when it
// is told to (session_keyring(7)).
func (c *compiler) keyring() {
	if c.o.Keyring == "" {
		return
	}
	p := c.p
	ring, none := p.Slot("keyring"), p.NewLabel()
	p.Step(program.Step{Verb: "session keyring", Object: c.o.Keyring})
	// ENOSYS: a kernel or a filter around us without keyrings. EDQUOT and the
	// like stay errors: the container would have the caller's keys.
	p.Call(unix.SYS_KEYCTL, program.Int(unix.KEYCTL_JOIN_SESSION_KEYRING), p.String(c.o.Keyring)).To(ring).Catch(unix.ENOSYS, none)
	const possessorAll, userViewReadSearch = 0x3f000000, 0x000b0000
	p.Call(unix.SYS_KEYCTL, program.Int(unix.KEYCTL_SETPERM), ring.Arg(), program.Int(possessorAll|userViewReadSearch))
	p.Place(none)
}

// credentials changes ids and capabilities, arms the parent-death signal and
// installs the filter, in the only order that works:
//
//	bounding set        while there is CAP_SETPCAP
//	keep capabilities   or the change of uid drops them all
//	groups, gid, uid    each takes the right to do the one before
//	parent-death signal a change of uid forgets it
//	with no_new_privs:    capabilities, no_new_privs, filter
//	without:              filter (needs CAP_SYS_ADMIN), capabilities
func (c *compiler) credentials(pr *specs.Process, filter *seccomp.Filter) error {
	p := c.p
	sets, err := c.capabilities(pr.Capabilities)
	if err != nil {
		return err
	}
	p.Step(program.Step{Verb: "capabilities"})
	newer := p.NewLabel()
	if defence.Removed("inheritable") {
		sets.inheritable = sets.permitted
	}
	for n := range 64 {
		if sets.bounding.Has(n) {
			continue
		}
		drop := p.Call(unix.SYS_PRCTL, program.Int(unix.PR_CAPBSET_DROP), program.Int(n), program.Int(0), program.Int(0), program.Int(0))
		if n > caps.Last {
			drop.Catch(unix.EINVAL, newer) // the kernel has no more
		}
	}
	p.Place(newer)
	if pr.User.UID != 0 {
		p.Call(unix.SYS_PRCTL, program.Int(unix.PR_SET_KEEPCAPS), program.Int(1), program.Int(0), program.Int(0), program.Int(0))
	}

	p.Step(program.Step{Verb: "user"})
	// As crun: the caller's own groups stay, also those that the map lacks.
	if c.s == nil || c.s.Annotations["run.oci.keep_original_groups"] != "1" {
		gids := pr.User.AdditionalGids
		if defence.Removed("groups") {
			gids = append([]uint32{0}, gids...)
		}
		groups := p.Setgroups(gids)
		if c.userNS {
			// EPERM: the namespace's map was written without privilege, setgroups
			// is off for good. EINVAL: a group that the map does not have.
			groups.Ignore(unix.EPERM, unix.EINVAL)
			if len(pr.User.AdditionalGids) > 0 {
				groups.Warn()
			}
		}
	}
	uid, gid := program.Uint(uint64(pr.User.UID)), program.Uint(uint64(pr.User.GID))
	p.Call(unix.SYS_SETRESGID, gid, gid, gid)
	p.Call(unix.SYS_SETRESUID, uid, uid, uid)
	if pr.User.UID != 0 {
		// For the case above that root could not enter it.
		p.Step(program.Step{Verb: "working directory", Object: pr.Cwd})
		p.Call(unix.SYS_FCHDIR, c.cwd.Arg()).Ignore(unix.EACCES)
		c.verifyCwd()
	}
	if c.o.Pdeathsig {
		p.Step(program.Step{Verb: "die with parent"})
		p.DieWithParent(int(unix.SIGKILL))
	}
	c.writeLSM(pr)

	install := func() {
		if filter == nil {
			return
		}
		p.Step(program.Step{Verb: "seccomp"})
		install := p.Seccomp(filter.Prog, filter.Flags)
		if c.agent != nil {
			listener := p.Slot("seccomp listener")
			install.To(listener)
			c.listen(listener)
		}
	}
	setCaps := func() {
		p.Step(program.Step{Verb: "capabilities"})
		p.Capset(uint64(sets.effective), uint64(sets.permitted), uint64(sets.inheritable))
		for n := range 64 {
			if sets.ambient.Has(n) {
				p.Call(unix.SYS_PRCTL, program.Int(unix.PR_CAP_AMBIENT), program.Int(unix.PR_CAP_AMBIENT_RAISE), program.Int(n), program.Int(0), program.Int(0))
			}
		}
	}
	// Descriptors that a caller of ours left open without close-on-exec.
	p.Step(program.Step{Verb: "close files"})
	p.Cloexec(3 + c.o.Inherit)
	p.Commit()
	if pr.NoNewPrivileges {
		setCaps()
		p.Step(program.Step{Verb: "no new privileges"})
		p.Call(unix.SYS_PRCTL, program.Int(unix.PR_SET_NO_NEW_PRIVS), program.Int(1), program.Int(0), program.Int(0), program.Int(0))
		install()
		return nil
	}
	if filter != nil && pr.User.UID != 0 {
		// The change of uid has cleared the effective set; what is permitted
		// can be made effective once more.
		all := uint64(sets.permitted) | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SETPCAP
		p.Step(program.Step{Verb: "capabilities for seccomp"})
		p.Capset(all, all, uint64(sets.inheritable))
	}
	install()
	setCaps()
	return nil
}

// capSets are the five sets of a process (capabilities(7)).
type capSets struct{ bounding, effective, permitted, inheritable, ambient caps.Set }

// capabilities parses the sets of the spec. None at all means none at all. What
// this process does not hold it cannot give: that is left out and reported.
func (c *compiler) capabilities(l *specs.LinuxCapabilities) (capSets, error) {
	var s capSets
	if l == nil {
		return s, nil
	}
	have := ^caps.Set(0)
	if !c.ns.has(unix.CLONE_NEWUSER) {
		var err error
		if have, err = caps.Permitted(); err != nil {
			return s, errs.WithExit(err, errs.ExitEngine)
		}
	}
	for _, x := range [...]struct {
		set   *caps.Set
		names []string
	}{
		{&s.bounding, l.Bounding},
		{&s.effective, l.Effective},
		{&s.permitted, l.Permitted},
		{&s.inheritable, l.Inheritable},
		{&s.ambient, l.Ambient},
	} {
		set, err := caps.Parse(x.names)
		if err != nil {
			return s, invalid("%w", err)
		}
		if missing := set &^ have; missing != 0 && x.set == &s.bounding {
			c.warnings = append(c.warnings, errs.New(errs.Unsupported, "capabilities %s: not held by this process, so the container does not get them", strings.Join(missing.Names(), " ")))
		}
		*x.set = set & have
	}
	// The kernel's own rules (capset(2)); an inherited set beyond the bounding
	// one would let a file's capabilities back in.
	s.effective &= s.permitted
	s.inheritable &= s.bounding
	s.ambient &= s.permitted & s.inheritable
	return s, nil
}

// hide keeps processes of the container, which may see this one from now on,
// from tracing it and from opening its files under /proc (CVE-2016-9962,
// CVE-2019-5736). execve makes it dumpable again.
func (c *compiler) hide() {
	if defence.Removed("hide") {
		return
	}
	c.p.Step(program.Step{Verb: "hide from the container"})
	c.p.Call(unix.SYS_PRCTL, program.Int(unix.PR_SET_DUMPABLE), program.Int(0), program.Int(0), program.Int(0), program.Int(0))
}
