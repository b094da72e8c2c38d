package ocicli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/runtime"
)

// create makes a container that waits to be started.
func (c *call) create() error {
	l, err := c.prepare(true)
	if err != nil {
		return err
	}
	return l.make(true)
}

// runContainer makes a container, starts it, and stays with it unless it is
// detached.
func (c *call) runContainer() error {
	l, err := c.prepare(c.flags.on("detach"))
	if err != nil {
		return err
	}
	if c.flags.on("detach") {
		return l.make(false)
	}
	return l.stay()
}

// launch is a container on its way from a bundle to a process.
type launch struct {
	c       *call
	b       *bundle
	ct      *container
	detach  bool
	pidFile string
	inherit int // descriptors from 3 on
	notify  *notifySocket
	group   *cgroup.Group
	filter  *seccomp.Filter
	proc    *runtime.Process
	master  *os.File // of the terminal that the caller relays
}

// prepare reads the bundle and checks everything that needs no container.
func (c *call) prepare(detach bool) (*launch, error) {
	l := &launch{c: c, detach: detach}
	var err error
	if l.pidFile, err = c.pidFile(); err != nil {
		return nil, err
	}
	if l.b, err = openBundle(c.flags.str("bundle"), c.flags.str("config")); err != nil {
		return nil, err
	}
	if err := checkID(c.args[0]); err != nil {
		return nil, err
	}
	if err := l.b.root(); err != nil {
		return nil, err
	}
	s := l.b.spec
	if err := c.checkTerminal(s.Process, detach); err != nil {
		return nil, err
	}
	if err := c.validate(s); err != nil {
		return nil, err
	}
	c.fitCaps(s.Process)
	if err := c.connect(); err != nil {
		return nil, err
	}
	listen := listenFDs()
	if listen > 0 {
		s.Process.Env = append(s.Process.Env, "LISTEN_FDS="+strconv.Itoa(listen), "LISTEN_PID=1")
	}
	if l.inherit, err = c.inherited(listen); err != nil {
		return nil, err
	}
	if host := os.Getenv("NOTIFY_SOCKET"); host != "" {
		l.notify = newNotifySocket(host, filepath.Join(c.root, c.args[0]))
		l.notify.mount(s)
	}
	s.Process.Env, err = environment(s.Process.Env, func() string { return homeIn(s.Root.Path, s.Process.User.UID) })
	return l, err
}

// pidFile is where the pid is to be written, whatever directory the bundle is in.
func (c *call) pidFile() (string, error) {
	name := c.flags.str("pid-file")
	if name == "" {
		return "", nil
	}
	return filepath.Abs(name)
}

func (c *call) checkTerminal(p *specs.Process, detach bool) error {
	socket := c.flags.str("console-socket")
	if detach && p.Terminal && socket == "" {
		return errors.New("cannot allocate tty if runc will detach without setting console socket")
	}
	if (!detach || !p.Terminal) && socket != "" {
		return errors.New("cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// listenFDs is how many sockets systemd has passed (sd_listen_fds(3)).
func listenFDs() int {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0 // as sd_listen_fds: not for us
	}
	return n
}

// inherited is how many descriptors from 3 on the process gets.
func (c *call) inherited(listen int) (int, error) {
	n := c.flags.num("preserve-fds")
	for i := range listen + n {
		if _, err := unix.FcntlInt(uintptr(3+i), unix.F_GETFD, 0); err != nil {
			if i < listen {
				return 0, fmt.Errorf("unable to stat listen-fd %d: %w", i, err)
			}
			return 0, fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", i-listen, n, err)
		}
	}
	return listen + n, nil
}

// make makes the container; wait leaves it to be started by another process.
func (l *launch) make(wait bool) (Err error) {
	if err := l.begin(wait); err != nil {
		return err
	}
	defer func() {
		if Err != nil {
			l.abandon()
		}
		l.ct.close()
	}()
	if err := l.finish(wait); err != nil {
		return err
	}
	if l.notify != nil && !wait {
		l.ct.close()
		l.notify.relay(l.proc.Pid, l.proc.Pid, l.c)
	}
	return nil
}

// begin makes the container up to the process, which waits where it has to.
func (l *launch) begin(wait bool) (Err error) {
	c, s := l.c, l.b.spec
	var err error
	if l.ct, err = newContainer(c.root, c.args[0]); err != nil {
		return err
	}
	defer func() {
		if Err != nil {
			l.abandon()
			l.ct.close()
		}
	}()
	ct := l.ct
	ct.OCIVersion, ct.Bundle, ct.Rootfs = s.Version, l.b.dir, s.Root.Path
	ct.Annotations, ct.Created = s.Annotations, time.Now().UTC()
	ct.PrivatePID = ownPID(s)
	ct.Rootless = os.Geteuid() != 0
	ct.spec = s
	if err := writeNew(ct.dir+"/"+configFile, l.b.data); err != nil {
		return err
	}
	if l.notify != nil {
		if err := l.notify.make(!wait); err != nil {
			return err
		}
	}
	if err := l.makeGroup(); err != nil {
		return err
	}
	l.filter, err = seccomp.Compile(s.Linux.Seccomp)
	if err != nil {
		return err
	}
	if l.filter != nil {
		c.log.debugf("seccomp filter flags: %d", l.filter.Flags)
	}
	gate, err := l.gate(wait || needsGate(s))
	if err != nil {
		return err
	}
	if gate != nil {
		defer gate.Close()
	}
	stdio := runtime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	if s.Process.Terminal {
		stdio = runtime.Stdio{}
	}
	o := runtime.Options{
		Stdio: stdio, Cgroup: birthplace{l.group}, Gate: gate, Seccomp: l.filter,
		State: l.ct.ociState(creating), HostMounts: true, AllCPUs: true, PlainLines: !l.detach, Network: l.born, NoPivot: c.flags.on("no-pivot"), Inherit: l.inherit,
	}
	if names, dirs := l.group.Hierarchies(); len(names) > 0 {
		for i := range names {
			o.CgroupV1 = append(o.CgroupV1, runtime.Hierarchy{Name: names[i], Source: dirs[i]})
		}
	}
	if h := s.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 { //nolint:staticcheck // deprecated, and used
		o.Hooks = l.hooks
	}
	if !c.flags.on("no-new-keyring") {
		o.Keyring = "_ses." + ct.ID
	}
	prog, err := runtime.Compile(s, o)
	if err == nil {
		c.log.debugf("nsexec container setup: %d calls", len(prog.Calls()))
		l.proc, err = prog.Start()
	}
	if err != nil {
		return l.startFailed(err)
	}
	for _, w := range append(prog.Warnings(), l.proc.Warnings...) {
		c.log.warn("%v", w)
	}
	// Test suites look for these words.
	c.log.debugf("this executable is kept from the container by a sealed memory file (what others log as %q or %q)",
		"runc exeseal: using /proc/self/exe clone", "runc exeseal: using overlayfs for sealed /proc/self/exe")
	c.log.debugf("child process in init() is %d", l.proc.Pid)
	c.log.debugf("init: closing the pipe to signal completion")
	return nil
}

// startFailed says what kept the process from being made.
func (l *launch) startFailed(err error) error {
	if l.group != nil {
		if info, oerr := l.group.OOM(); oerr == nil && info.Kills > 0 {
			return fmt.Errorf("unable to start container process: container init was OOM-killed (memory limit too low?)")
		}
	}
	var ce *runtime.CallError
	if errors.As(err, &ce) && ce.Step.Verb == "mount" {
		err = fmt.Errorf("error mounting %q to rootfs at %q: %w", ce.Step.Src, ce.Step.Dst, err)
	}
	return fmt.Errorf("unable to start container process: error during container init: %w", err)
}

// needsGate reports whether something has to be done between all else and the
// command of a container that is run.
func needsGate(s *specs.Spec) bool {
	return s.Hooks != nil && len(s.Hooks.StartContainer) > 0
}

// gate makes the fifo that the process waits for.
func (l *launch) gate(wanted bool) (*os.File, error) {
	if !wanted {
		return nil, nil //nolint:nilnil // none is wanted
	}
	name := l.ct.fifo()
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: name, Err: err}
	}
	// For writing too, so that the end of this process is not an end of file.
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// born records the new process. Nothing of the container has run yet.
func (l *launch) born(pid int) error {
	start, err := runtime.StartTime(pid)
	if err != nil {
		return err
	}
	l.ct.Pid, l.ct.StartTime, l.ct.Cgroup = pid, start, l.group.Paths()
	return l.ct.save()
}

// hooks runs those that come before the change of root.
func (l *launch) hooks(pid int) error {
	h, st := l.b.spec.Hooks, l.ct.ociState(creating)
	if err := runHooks("prestart", h.Prestart, st, onHost); err != nil { //nolint:staticcheck // deprecated, and used
		return err
	}
	if err := runHooks("createRuntime", h.CreateRuntime, st, onHost); err != nil {
		return err
	}
	return runHooks("createContainer", h.CreateContainer, st, inNamespaces(pid, l.ct.Rootfs))
}

// makeGroup makes the container's cgroups.
func (l *launch) makeGroup() error {
	host, err := cgroup.Detect()
	if err != nil {
		return err
	}
	s := l.b.spec
	o := cgroup.OCI{
		Path: s.Linux.CgroupsPath, ID: l.ct.ID, Resources: s.Linux.Resources,
		Systemd: l.c.global.on("systemd-cgroup") || l.c.global.str("cgroup-manager") == "systemd", Rootless: l.c.rootless(),
	}
	for key, value := range s.Annotations {
		if name, ok := strings.CutPrefix(key, "org.systemd.property."); ok {
			if o.Properties == nil {
				o.Properties = map[string]string{}
			}
			o.Properties[name] = value
		}
	}
	o.Owner = groupOwner(s)
	if l.group, err = host.CreateOCI(o); err != nil {
		return err
	}
	for _, w := range l.group.Warnings() {
		l.c.log.warn("%s", w)
	}
	return nil
}

// groupOwner is whom a v2 group is given to: root of a container that has its
// own user and cgroup namespaces, and can write to the mount of it.
func groupOwner(s *specs.Spec) *int {
	newUser, newCgroup := false, false
	for _, ns := range s.Linux.Namespaces {
		newUser = newUser || ns.Type == specs.UserNamespace && ns.Path == ""
		newCgroup = newCgroup || ns.Type == specs.CgroupNamespace && ns.Path == ""
	}
	if !newUser || !newCgroup {
		return nil
	}
	for _, m := range s.Mounts {
		if m.Type != "cgroup" || filepath.Clean(m.Destination) != "/sys/fs/cgroup" {
			continue
		}
		if slices.Contains(m.Options, "ro") {
			return nil
		}
		uid := hostID(s.Linux.UIDMappings)
		return &uid
	}
	return nil
}

// hostID is what root of the container is outside.
func hostID(maps []specs.LinuxIDMapping) int {
	for _, m := range maps {
		if m.ContainerID == 0 {
			return int(m.HostID)
		}
	}
	return 0
}

// rootless reports whether cgroups may be missing.
func (c *call) rootless() bool {
	switch strings.ToLower(c.global.str("rootless")) {
	case "", "auto":
		return ordinary() || inUserNS()
	default:
		b, _ := strconv.ParseBool(c.global.str("rootless"))
		return b
	}
}

func ownPID(s *specs.Spec) bool {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// finish gives the caller what it has asked for and, unless another process
// shall start it, starts the container.
func (l *launch) finish(wait bool) error {
	if l.pidFile != "" {
		if err := writePidFile(l.pidFile, l.proc.Pid); err != nil {
			return err
		}
	}
	if err := l.c.handOver(l.proc, l.detach); err != nil {
		return err
	}
	l.master = l.proc.Console
	if wait {
		l.proc.Forget()
		return nil
	}
	return l.c.started(l.ct, l.filter, func() error {
		if err := l.proc.Executed(); err != nil {
			return l.startFailed(err)
		}
		return nil
	})
}

// handOver gives the terminal and the pidfd to those who wait for them.
func (c *call) handOver(proc *runtime.Process, detach bool) error {
	if c.pidfdSocket != nil {
		if err := sendFile(c.pidfdSocket, "pidfd", proc.Pidfd); err != nil {
			return err
		}
	}
	if proc.Console != nil && detach {
		if err := sendFile(c.consoleSocket, ptsName(proc.Console), proc.Console); err != nil {
			return err
		}
		_ = proc.Console.Close() // it is somebody else's now
		proc.Console = nil
	}
	return nil
}

// started runs the hooks around the start of a container: open lets its process
// go, which has come as far as it can.
func (c *call) started(ct *container, filter *seccomp.Filter, open func() error) error {
	s, err := ct.config()
	if err != nil {
		return err
	}
	if ct.waits() {
		if s.Hooks != nil && len(s.Hooks.StartContainer) > 0 {
			st := ct.ociState(created)
			if ct.PrivatePID {
				st.Pid = 1 // as the hook sees it
			}
			pr := *s.Process
			if pr.Env, err = environment(pr.Env, func() string { return homeIn(ct.Rootfs, pr.User.UID) }); err != nil {
				return err
			}
			if err := runHooks("startContainer", s.Hooks.StartContainer, st, inContainer(ct, &pr, filter)); err != nil {
				return err
			}
		}
		if err := ct.openGate(); err != nil {
			return err
		}
	}
	if err := open(); err != nil {
		return err
	}
	if s.Hooks == nil {
		return nil
	}
	return runHooks("poststart", s.Hooks.Poststart, ct.ociState(running), onHostIn(ct.Bundle))
}

// openGate lets the container's process execute its command.
func (ct *container) openGate() error {
	fd, err := unix.Open(ct.fifo(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return errors.New("cannot start an already running container")
	case errors.Is(err, unix.ENXIO):
		return errors.New("container process is already dead") // nobody reads
	case err != nil:
		return &os.PathError{Op: "open", Path: ct.fifo(), Err: err}
	}
	_, err = unix.Write(fd, []byte{0})
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("exec fifo: %w", err)
	}
	return os.Remove(ct.fifo())
}

// abandon undoes a container that could not be made, as far as it was.
func (l *launch) abandon() {
	ct := l.ct
	if l.proc != nil {
		_ = unix.PidfdSendSignal(int(l.proc.Pidfd.Fd()), unix.SIGKILL, nil, 0) // it may have ended by itself
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(l.proc.Pid, &ws, unix.WALL, nil); err != unix.EINTR {
				break
			}
		}
	}
	if l.group != nil {
		ct.Cgroup = l.group.Paths()
	}
	if err := l.c.destroy(ct); err != nil {
		l.c.log.warn("%v", err)
	}
}

// start executes the command of a container that was created.
func (c *call) start() error {
	ct, err := change(c.root, c.args[0])
	if err != nil {
		return err
	}
	defer ct.close()
	switch st := ct.status(); st {
	case created:
	case stopped:
		return errors.New("cannot start a container that has stopped")
	case running:
		return errors.New("cannot start an already running container")
	default:
		return fmt.Errorf("cannot start a container in the %s state", st)
	}
	var notify *notifySocket
	if host := os.Getenv("NOTIFY_SOCKET"); host != "" {
		notify = newNotifySocket(host, ct.dir)
		if err := notify.bind(); err != nil {
			return err
		}
	}
	s, err := ct.config()
	if err != nil {
		return err
	}
	var filter *seccomp.Filter
	if s.Hooks != nil && len(s.Hooks.StartContainer) > 0 {
		if filter, err = seccomp.Compile(s.Linux.Seccomp); err != nil {
			return err
		}
	}
	if err := c.started(ct, filter, func() error { return nil }); err != nil {
		// A hook that fails ends the container (runtime-spec, Lifecycle).
		_ = unix.Kill(ct.Pid, unix.SIGKILL)
		return err
	}
	if notify != nil {
		ct.close()
		notify.relay(ct.Pid, ct.Pid, c)
	}
	return nil
}

// writePidFile writes the file whole: who waits for it reads it at once.
func writePidFile(name string, pid int) error {
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, strconv.Itoa(pid))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// writeNew writes a file that is not there yet.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// birthplace is the cgroup that a process is born into. Where that is all of it,
// nothing is left to be done afterwards.
type birthplace struct{ *cgroup.Group }

// Attach moves the process where it is not yet.
func (b birthplace) Attach(pid int) error {
	if b.Empty() && b.Paths().Unit == "" {
		return nil
	}
	return b.Group.Attach(pid)
}
