package inside

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/state"
)

// Process is the OCI process for cfg in the container c, whose init is pid, and
// its seccomp filter. env is whose container it is. Errors have Docker's exit
// codes where they are the request's fault.
func Process(env config.Env, c *container.Record, pid int, cfg *container.ExecConfig) (*specs.Process, *seccomp.Filter, error) {
	live, err := readLive(pid)
	if err != nil {
		return nil, nil, fmt.Errorf("container %q: %w", c.Config.Name, err)
	}
	who := cfg.User
	if who == "" {
		who = spec.DefaultUser(&c.Config, &c.Image.Config, spec.Own{Rootless: env.Rootless, UID: env.UID, GID: env.GID})
	}
	u, err := resolveUser(pid, who, c.Config.GroupAdd)
	if err != nil {
		return nil, nil, errs.WithExit(err, errs.ExitNotExecutable)
	}
	set := live.bounding
	if cfg.Privileged {
		if set, err = caps.Permitted(); err != nil {
			return nil, nil, err
		}
		if env.Rootless { // all that the user namespace has
			set = 1<<(caps.Last+1) - 1
		}
	}
	names := set.Names()
	pr := &specs.Process{
		Args: cfg.Cmd, Terminal: cfg.TTY, Cwd: "/",
		Env:             spec.ExecEnv(c, u, cfg.TTY, cfg.Env),
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
	if live.seccomp && !cfg.Privileged && !defence.Removed("exec") {
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
	b, err := state.ReadFile(dir + "/status")
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
	if b, err := state.ReadFile(dir + "/oom_score_adj"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			l.oomScoreAdj = &n
		}
	}
	if b, err := state.ReadFile(dir + "/setgroups"); err == nil {
		l.denySetgroups = strings.TrimSpace(string(b)) == "deny"
	}
	if b, err := state.ReadFile(dir + "/attr/apparmor/current"); err == nil {
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

// resolveUser resolves a user by the passwd and group files that a running
// container has, opened inside its root.
func resolveUser(pid int, user string, groupAdd []string) (spec.User, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/root"
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return spec.User{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	root := os.NewFile(uintptr(fd), name)
	defer root.Close()
	return UserBelow(root, user, groupAdd)
}

// UserBelow resolves a user by the passwd and group files below root.
func UserBelow(root *os.File, user string, groupAdd []string) (spec.User, error) {
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
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	plain, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/" + unsafePath, Err: err}
	}
	return os.NewFile(uintptr(plain), name), nil // without the runtime's poller, which regular files have no use for
}

func closeReader(r io.Reader) {
	if c, ok := r.(io.Closer); ok && c != nil {
		_ = c.Close() // read only; nothing to lose
	}
}
