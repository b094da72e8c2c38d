package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/linux/tty"
	"github.com/isle-engine/isle/internal/runtime"
	"github.com/isle-engine/isle/internal/spec"
)

// Exec starts a further process in a running container and connects the caller
// to it; with cfg.Detach it returns a nil session once the process runs.
//
// The process gets what the container's init really has, read from the kernel:
// bounding set, no_new_privs, resource limits, OOM score. It can therefore not
// be weaker confined than the container.
func (e *Engine) Exec(ctx context.Context, ref string, cfg container.ExecConfig, streams IO) (Session, error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	switch {
	case c.State.Status == container.Paused:
		return nil, errs.New(errs.Conflict, "container %s is paused, unpause the container before exec", c.ID)
	case c.State.Status == container.Restarting:
		return nil, errs.New(errs.Conflict, "container %s is restarting, wait until the container is running", c.ID)
	case !live(c.State.Status):
		return nil, errs.New(errs.Conflict, "container %s is not running", c.ID)
	}
	init, err := openInit(c)
	if err != nil {
		return nil, err
	}
	defer init.Close()
	pr, filter, err := e.execProcess(c, &cfg)
	if err != nil {
		return nil, err
	}
	s := &execSession{}
	if err := s.prepare(&cfg, &streams); err != nil {
		return nil, err
	}
	target := runtime.Target{Pid: c.State.Pid, Pidfd: init}
	if c.State.Cgroup.V2 != "" || len(c.State.Cgroup.V1) > 0 {
		g := cgroup.Open(cgroup.Paths(c.State.Cgroup))
		defer g.Close() //nolint:errcheck // its directory's descriptor
		target.Cgroup = g
	}
	s.proc, err = runtime.Exec(target, pr, runtime.ExecOptions{Stdio: s.inner, Seccomp: filter})
	s.closeInner()
	if err != nil {
		s.abort()
		if errs.ExitCode(err) == errs.ExitEngine { // as Docker: the process could not be made
			err = errs.WithExit(err, errs.ExitNotExecutable)
		}
		return nil, err
	}
	if cfg.Detach {
		return nil, nil //nolint:nilnil // nobody is connected
	}
	return s, s.connect(&cfg, &streams)
}

// execProcess is the OCI process for cfg in c.
func (e *Engine) execProcess(c *Container, cfg *container.ExecConfig) (*specs.Process, *seccomp.Filter, error) {
	live, err := readLive(c.State.Pid)
	if err != nil {
		return nil, nil, fmt.Errorf("container %q: %w", c.Config.Name, err)
	}
	who := cfg.User
	if who == "" {
		who = spec.DefaultUser(&c.Config, &c.Image.Config, spec.Own{Rootless: e.env.Rootless, UID: e.env.UID, GID: e.env.GID})
	}
	u, err := resolveUserIn(c.State.Pid, who, c.Config.GroupAdd)
	if err != nil {
		return nil, nil, errs.WithExit(err, errs.ExitNotExecutable)
	}
	set := live.bounding
	if cfg.Privileged {
		if set, err = caps.Permitted(); err != nil {
			return nil, nil, err
		}
		if e.env.Rootless { // all that the user namespace has
			set = 1<<(caps.Last+1) - 1
		}
	}
	names := set.Names()
	pr := &specs.Process{
		Args: cfg.Cmd, Terminal: cfg.TTY, Cwd: "/",
		Env:             spec.ExecEnv(&c.Record, u, cfg.TTY, cfg.Env),
		User:            specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups},
		Capabilities:    &specs.LinuxCapabilities{Bounding: names},
		NoNewPrivileges: live.noNewPrivs && !cfg.Privileged,
		OOMScoreAdj:     live.oomScoreAdj,
		Rlimits:         live.rlimits,
		ApparmorProfile: live.label,
	}
	if u.UID == 0 || cfg.Privileged && set == live.bounding {
		pr.Capabilities.Effective, pr.Capabilities.Permitted = names, names
	}
	if live.denySetgroups {
		pr.User.AdditionalGids = nil
	}
	for _, dir := range [...]string{cfg.WorkingDir, c.Config.WorkingDir, c.Image.Config.WorkingDir} {
		if dir != "" {
			pr.Cwd = dir
			break
		}
	}
	if pr.Cwd[0] != '/' {
		return nil, nil, errs.WithExit(errs.New(errs.Invalid, "working directory %q: not an absolute path", pr.Cwd), errs.ExitNotFound)
	}
	if cfg.TTY && cfg.ConsoleSize != ([2]uint{}) {
		pr.ConsoleSize = &specs.Box{Height: cfg.ConsoleSize[0], Width: cfg.ConsoleSize[1]}
	}
	var filter *seccomp.Filter
	if live.seccomp && !cfg.Privileged {
		profile := seccomp.Default(live.bounding.Names())
		if c.Config.Seccomp != "" {
			if profile, err = seccomp.Parse([]byte(c.Config.Seccomp), live.bounding.Names()); err != nil {
				return nil, nil, err
			}
		}
		if filter, err = seccomp.Compile(profile); err != nil {
			return nil, nil, err
		}
	}
	return pr, filter, nil
}

// liveInit is what the kernel says a container's init has.
type liveInit struct {
	bounding      caps.Set
	noNewPrivs    bool
	seccomp       bool
	denySetgroups bool
	oomScoreAdj   *int
	rlimits       []specs.POSIXRlimit
	label         string
}

// readLive reads it from /proc (proc_pid_status(5)).
func readLive(pid int) (*liveInit, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	l := &liveInit{}
	for line := range bytes.Lines(b) {
		key, v, _ := strings.Cut(string(line), ":")
		v = strings.TrimSpace(v)
		switch key {
		case "CapBnd":
			n, err := strconv.ParseUint(v, 16, 64)
			if err != nil {
				return nil, errs.New(errs.Corrupt, "%s/status: CapBnd %q", dir, v)
			}
			l.bounding = caps.Set(n)
		case "NoNewPrivs":
			l.noNewPrivs = v == "1"
		case "Seccomp":
			l.seccomp = v == "2"
		}
	}
	if b, err := os.ReadFile(dir + "/oom_score_adj"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			l.oomScoreAdj = &n
		}
	}
	if b, err := os.ReadFile(dir + "/setgroups"); err == nil {
		l.denySetgroups = strings.TrimSpace(string(b)) == "deny"
	}
	if b, err := os.ReadFile(dir + "/attr/apparmor/current"); err == nil {
		if name, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ("); name != "unconfined" {
			l.label = name
		}
	}
	for n, name := range rlimitNames {
		var theirs, ours unix.Rlimit
		if unix.Prlimit(pid, n, nil, &theirs) != nil || unix.Getrlimit(n, &ours) != nil || theirs == ours {
			continue
		}
		l.rlimits = append(l.rlimits, specs.POSIXRlimit{Type: name, Soft: theirs.Cur, Hard: theirs.Max})
	}
	return l, nil
}

// rlimitNames are the OCI names by RLIMIT_ number (setrlimit(2)).
var rlimitNames = [...]string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
}

// resolveUserIn resolves a user by the passwd and group files that a running
// container has, opened inside its root.
func resolveUserIn(pid int, user string, groupAdd []string) (spec.User, error) {
	root, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return spec.User{}, err
	}
	defer root.Close()
	passwd, err := openPlainAt(root, "etc/passwd")
	if err != nil {
		return spec.User{}, err
	}
	defer closeReader(passwd)
	group, err := openPlainAt(root, "etc/group")
	if err != nil {
		return spec.User{}, err
	}
	defer closeReader(group)
	return spec.ResolveUser(user, groupAdd, passwd, group)
}

// openPlainAt opens a regular file below root, following the container's links
// only inside it; nil when there is none. Nothing but a regular file is opened
// for reading: a FIFO or a device in its place would hang or act.
func openPlainAt(root *os.File, unsafePath string) (io.Reader, error) {
	fd, err := unix.Openat2(int(root.Fd()), unsafePath, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/" + unsafePath, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // O_PATH; nothing to lose
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, nil //nolint:nilnil // as good as none
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(fd))
}

func closeReader(r io.Reader) {
	if c, ok := r.(io.Closer); ok && c != nil {
		_ = c.Close() // read only; nothing to lose
	}
}

// execSession connects the caller to a process that this process is the parent
// of. The process never gets the caller's own files or terminal, only pipes:
// a descriptor of a host file would let it read and change that file.
type execSession struct {
	proc     *runtime.Process
	inner    runtime.Stdio // its ends
	ours     []*os.File    // pipes' other ends, closed by abort
	stdin    *os.File      // to write to
	outputs  sync.WaitGroup
	outs     [2]*os.File // to read from
	detached chan struct{}
}

// prepare makes the pipes.
func (s *execSession) prepare(cfg *container.ExecConfig, streams *IO) error {
	s.detached = make(chan struct{})
	if cfg.TTY || cfg.Detach {
		return nil
	}
	if streams.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		s.inner.In, s.stdin = r, w
		s.ours = append(s.ours, w)
	}
	for i, dst := range [...]*os.File{streams.Stdout, streams.Stderr} {
		if dst == nil {
			continue
		}
		inner := &s.inner.Out
		if i == 1 {
			inner = &s.inner.Err
		}
		if passable(dst) {
			*inner = dst
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			s.closeInner()
			s.abort()
			return err
		}
		*inner, s.outs[i] = w, r
		s.ours = append(s.ours, r)
	}
	return nil
}

// passable reports whether a container may have f itself: a pipe or a socket
// is no more than what a relay would give it, and saves the copying.
func passable(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	t := st.Mode & unix.S_IFMT
	return t == unix.S_IFIFO || t == unix.S_IFSOCK || t == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// closeInner closes the process's ends of our pipes; it has its own.
func (s *execSession) closeInner() {
	if s.inner.In != nil {
		_ = s.inner.In.Close() // a pipe end of ours
	}
	for i, f := range [...]*os.File{s.inner.Out, s.inner.Err} {
		if f != nil && s.outs[i] != nil {
			_ = f.Close() // a pipe end of ours
		}
	}
}

// abort closes what prepare opened.
func (s *execSession) abort() {
	for _, f := range s.ours {
		_ = f.Close() // a pipe that nobody used
	}
}

// connect starts to pass the streams.
func (s *execSession) connect(cfg *container.ExecConfig, streams *IO) error {
	in := streams.Stdin
	if s.proc.Console != nil {
		s.stdin, s.outs[0] = s.proc.Console, s.proc.Console
		if in != nil {
			r, err := tty.NewDetachReader(in, cfg.DetachKeys)
			if err != nil {
				return err
			}
			in = r
		}
	}
	if in != nil {
		go func() {
			_, err := io.Copy(s.stdin, in)
			if s.proc.Console == nil {
				_ = s.stdin.Close() // its input ends
			}
			if errors.Is(err, tty.ErrDetached) {
				close(s.detached)
			}
		}()
	}
	for i, dst := range [...]*os.File{streams.Stdout, streams.Stderr} {
		if src := s.outs[i]; src != nil && dst != nil {
			s.outputs.Go(func() {
				_, _ = io.Copy(dst, src) // EIO ends a terminal; a reader that went away is its own affair
			})
		}
	}
	return nil
}

// Wait returns when the process has ended and all it wrote has been passed on.
func (s *execSession) Wait(ctx context.Context) (Exit, error) {
	done := make(chan error, 1)
	var code int
	go func() {
		var err error
		if code, err = waitExit(s.proc.Pid); err == nil {
			s.outputs.Wait()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return Exit{Code: code}, err
	case <-s.detached:
		return Exit{Detached: true}, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// waitExit reaps pid, a child of this process, and returns its exit code, 128
// and the signal's number for one that a signal ended.
func waitExit(pid int) (int, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		default:
			return ws.ExitStatus(), nil
		}
	}
}

// Signal sends the process a signal.
func (s *execSession) Signal(sig os.Signal) error {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return nil
	}
	return unix.PidfdSendSignal(int(s.proc.Pidfd.Fd()), n, nil, 0)
}

// Resize sets the size of the process's terminal.
func (s *execSession) Resize(rows, cols uint16) error {
	if s.proc.Console == nil {
		return nil
	}
	return tty.SetSize(s.proc.Console, rows, cols)
}

// Close lets go of the process.
func (s *execSession) Close() error { return nil }
