package monitor

import (
	"bytes"
	"io"
	"os"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/lap"
	"github.com/isle-engine/isle/internal/linux/pid1"
	"github.com/isle-engine/isle/internal/monitor/log"
	"github.com/isle-engine/isle/internal/runtime"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// begin takes the container over and starts it for the first time; fresh says that
// nobody has told yet that it was made. After an error
// nothing of the start is left but the record of the failure, and the lock is
// free.
func (m *monitor) begin(first *peer, fresh bool) (warnings []string, Err error) {
	if m.lock == nil {
		lock, err := Lock(m.env, m.id)
		if err != nil {
			if errs.KindOf(err) == errs.Conflict {
				err = errs.New(errs.Conflict, "container %s: is running already, or being removed", m.id)
			}
			return nil, errs.WithExit(err, errs.ExitEngine)
		}
		m.lock = lock
	}
	defer func() {
		if Err != nil {
			m.refuse(Err)
		}
	}()
	err := state.ReadRecord(m.dir, &m.rec)
	if err != nil {
		return nil, errs.WithExit(err, errs.ExitEngine)
	}
	if fresh {
		m.news = append(m.news, ContainerEvent(&m.rec, m.rec.Created, "create"))
	}
	if first.attached {
		m.note("attach")
	}
	if err := m.openLog(); err != nil {
		return nil, errs.WithExit(err, errs.ExitEngine)
	}
	if warnings, err = m.launch(first); err != nil {
		return nil, err
	}
	if first.attached {
		return warnings, nil
	}
	// A client that does not stay is told when others can see the container, and
	// when it is sure to be in the records.
	if err := m.announce(); err != nil {
		m.kill()
		m.discard()
		return nil, errs.WithExit(err, errs.ExitEngine)
	}
	return warnings, nil
}

// announce makes it known that the container runs: by its socket first, so that
// whoever reads the state finds somebody to talk to.
func (m *monitor) announce() error {
	var err error
	if m.listener, err = listen(sockPath(m.env, m.id)); err != nil {
		return err
	}
	m.tell()
	return m.save(m.durable())
}

// announceAfter is how long a container with a client that stays is not
// announced. The client need not wait for it; and of a container that has ended
// by then only the end is of interest: the files would cost more than its start.
const announceAfter = 4 * time.Millisecond

// announceLate is announce for such a container.
func (m *monitor) announceLate() {
	if m.proc == nil || m.listener >= 0 {
		return
	}
	if err := m.announce(); err != nil {
		// Without a record it cannot be seen or stopped by anybody else.
		m.st.Error = err.Error()
		m.kill()
	}
}

// refuse records why a start failed, as Docker does: the container stays
// created, with an exit code. Then the lock is free.
func (m *monitor) refuse(err error) {
	if m.rec.ID != "" && !m.rec.Config.AutoRemove {
		st := container.State{Status: container.Created, ExitCode: errs.ExitEngine, Error: err.Error(), Cause: runtime.UsualCause(err)}
		var old container.State
		if state.ReadState(m.dir, &old) == nil {
			// It has run before: what is known of that stays.
			st.Status, st.StartedAt, st.FinishedAt = old.Status, old.StartedAt, old.FinishedAt
			if st.Status != container.Created {
				st.Status = container.Exited
			}
		}
		if errs.HasExit(err) {
			st.ExitCode = errs.ExitCode(err)
		}
		_ = state.WriteState(m.dir, &st, false) // the client is told as well
	}
	m.tell()
	m.removeSocket()
	_ = m.lock.Close() // nothing was written to it
	m.lock = nil
}

func (m *monitor) openLog() error {
	c, img := &m.rec.Config, &m.rec.Image
	var about *log.About
	if c.LogDriver == log.Journald {
		if err := log.CheckJournal(); err != nil {
			return err
		}
	}
	if len(c.LogOpts) > 0 || c.LogDriver == log.Journald {
		about = &log.About{ID: m.id, Name: c.Name, ImageID: img.ID, Image: img.Ref, Labels: c.Labels}
		about.Env = append(append(about.Env, img.Config.Env...), c.Env...)
	}
	var err error
	m.logOptions, err = log.ParseOptions(c.LogDriver, c.LogOpts, about)
	m.log = log.NewWriter(m.dir, m.id, m.logOptions)
	return err
}

// launch makes the container's process. After an error nothing of it is left.
func (m *monitor) launch(first *peer) (warnings []string, Err error) {
	b := &launcher{m: m}
	defer b.close()
	proc, err := b.start(first)
	if err != nil {
		if !errs.HasExit(err) {
			err = errs.WithExit(err, errs.ExitEngine)
		}
		return nil, err
	}
	m.proc = &process{pid: proc.Pid, pidfd: proc.Pidfd, start: proc.StartTime, group: b.group, started: time.Now()}
	m.adoptStreams()
	if m.rec.Config.TTY {
		if err := m.setConsole(proc.Console, m.size[0], m.size[1]); err != nil {
			m.kill()
			m.discard()
			return nil, errs.WithExit(err, errs.ExitEngine)
		}
	}
	if first != nil && first.stdin >= 0 && m.in.fd < 0 {
		_ = unix.Close(first.stdin) // the container takes no input; the client learns it as EPIPE
		first.stdin = -1
	}
	old := m.st
	m.st = container.State{
		Status: container.Running, Pid: proc.Pid, PidStart: proc.StartTime, MonitorPid: os.Getpid(),
		StartedAt: now(), FinishedAt: old.FinishedAt, RestartCount: old.RestartCount,
		Cgroup: container.Cgroup(b.group.Paths()), Network: m.networkState(),
	}
	m.beginHealth(old.Health)
	m.noteStarted()
	return b.warnings, nil
}

// discard undoes a start that came too far to be undone by its parts.
func (m *monitor) discard() {
	if m.proc != nil {
		for {
			if _, err := unix.Wait4(m.proc.pid, nil, 0, nil); err != unix.EINTR {
				break
			}
		}
		_ = m.proc.pidfd.Close()  // it is dead
		_ = m.proc.group.Delete() // the error that led here says more
		m.proc = nil
	}
	_ = m.disconnect() // the error that led here says more
	m.closeStreams()
}

// launcher is one start: what has to be closed after it, and what has to be
// undone if it fails.
type launcher struct {
	m        *monitor
	rootfs   *os.File
	streams  *streams
	group    *cgroup.Group
	binds    map[string]*os.File
	netns    *netnsAhead
	init     *os.File
	gate     *os.File
	warnings []string
}

func (b *launcher) close() {
	for _, f := range [...]*os.File{b.rootfs, b.init, b.gate} {
		if f != nil {
			_ = f.Close() // a mount's root, or a sealed file
		}
	}
	b.netns.drop()
	for _, f := range b.binds {
		_ = f.Close() // a mount's root
	}
	if b.streams != nil {
		b.streams.close()
	}
	if b.group != nil {
		_ = b.group.Close() // its directory's descriptor
	}
}

// start is the way from a record to a process.
func (b *launcher) start(first *peer) (_ *runtime.Process, Err error) {
	m := b.m
	c := &m.rec.Config
	in := spec.Input{Record: &m.rec}
	var peerDir string
	var err error
	if len(m.rec.Joined) > 0 {
		if peerDir, err = b.join(&in); err != nil {
			return nil, err
		}
	}
	if m.maps, err = m.mappings(); err != nil {
		return nil, err
	}
	in.UIDMappings, in.GIDMappings = m.maps.uids, m.maps.gids
	lap.Mark("mount the layers")
	b.netns = m.startNetns()
	if b.rootfs, err = b.mountRoot(); err != nil {
		return nil, err
	}
	lap.Mark("look up the user")
	if in.User, err = b.user(); err != nil {
		return nil, err
	}
	if len(c.Mounts) > 0 {
		if in.Volumes, err = b.volumes(in.User); err != nil {
			return nil, err
		}
	}
	lap.Mark("write the runtime spec")
	in.Facts = spec.Probe(&m.machine, c, m.env.Rootless)
	if len(c.Devices) > 0 || c.Privileged || limitsBlockIO(&c.Resources) {
		if in.Devices, err = spec.ResolveDevices(c); err != nil {
			return nil, err
		}
	}
	in.EtcFiles = m.etcFiles(peerDir)
	sp, warnings, err := spec.Build(in)
	if err != nil {
		return nil, err
	}
	b.warnings = append(b.warnings, warnings...)
	if c.TTY && m.size != [2]uint16{} {
		sp.Process.ConsoleSize = &specs.Box{Height: uint(m.size[0]), Width: uint(m.size[1])}
	}
	hostname := sp.Hostname
	if hostname == "" {
		hostname = m.machine.Hostname()
	}
	lap.Mark("lease an address, write /etc files")
	group := make(chan struct{})
	var groupErr error
	go func() { // side by side with the network and the files
		defer close(group)
		b.group, groupErr = newGroup(cgroup.Request{Parent: c.CgroupParent, Name: m.id, Resources: withOwnDevices(sp.Linux.Resources), Rootless: m.env.Rootless})
	}()
	defer func() {
		<-group
		if Err != nil && b.group != nil {
			_ = b.group.Delete() // nothing is in it any more
		}
	}()
	if err := m.prepareNetwork(); err != nil {
		return nil, err
	}
	defer func() {
		if Err != nil {
			_ = m.disconnect() // the error that led here says more
		}
	}()
	if err := m.writeEtc(in.EtcFiles, hostname); err != nil {
		return nil, err
	}
	if b.streams, err = m.openStreams(first); err != nil {
		return nil, err
	}
	defer func() {
		if Err != nil {
			m.closeStreams()
		}
	}()
	b.streams.own(in.User, in.UIDMappings, in.GIDMappings)
	if c.Init {
		if b.init, err = pid1.MemFD(); err != nil {
			return nil, err
		}
	}
	lap.Mark("make the cgroup")
	if <-group; groupErr != nil {
		return nil, groupErr
	}
	b.warnings = append(b.warnings, b.group.Warnings()...)
	netns, err := b.netns.get()
	if err != nil {
		return nil, err
	}
	lap.Mark("compile the program")
	if name := os.Getenv(HoldVar); name != "" {
		if b.gate, err = openHold(name); err != nil {
			return nil, err
		}
	}
	prog, err := runtime.Compile(sp, runtime.Options{
		Gate:      b.gate,
		Netns:     netns,
		Rootfs:    b.rootfs,
		Stdio:     runtime.Stdio{In: b.streams.files[0], Out: b.streams.files[1], Err: b.streams.files[2]},
		Cgroup:    b.group,
		CgroupV1:  hierarchies(b.group.Paths().V1),
		Init:      b.init,
		Pdeathsig: true,
		Binds:     b.binds,
		Network:   m.connector(),
	})
	var proc *runtime.Process
	if err == nil {
		lap.Mark("clone; cgroup and network for the child")
		proc, err = prog.Start()
	}
	lap.Mark("the command runs")
	if err != nil {
		return nil, err
	}
	for _, w := range proc.Warnings {
		b.warnings = append(b.warnings, w.Error())
	}
	if m.net != nil {
		b.warnings = append(b.warnings, m.net.Warnings...)
	}
	return proc, nil
}

// mountRoot stacks the image's layers and the container's own.
func (b *launcher) mountRoot() (*os.File, error) {
	m := b.m
	if f := m.root; f != nil {
		m.root = nil
		return f, nil
	}
	if err := m.giveUpper(); err != nil {
		return nil, err
	}
	return stackRoot(m.env, &m.rec, b.mountOptions())
}

func stackRoot(env config.Env, rec *container.Record, o storage.MountOptions) (*os.File, error) {
	o.Volatile, o.Places = rec.Config.AutoRemove, true
	dir := env.Container(rec.ID)
	return storage.Open(env.Layers()).Mount(rec.Image.Layers, dir+"/upper", dir+"/work", o)
}

// MountRoot mounts the root file system of a container that was made just now
// and that nobody else knows, for StartRequest.Root: the caller has the time,
// while the monitor's Go runtime is still coming up. It returns nil where only
// the monitor can do it, or can say what is wrong.
func MountRoot(env config.Env, rec *container.Record) *os.File {
	if env.Rootless || rec.Config.Userns != "" {
		return nil // in another namespace, or with owners yet to be chosen
	}
	var machine host.Machine
	f, err := stackRoot(env, rec, storage.MountOptions{UserXattr: machine.InUserNS()})
	if err != nil {
		return nil
	}
	return f
}

// mountOptions are those of every stack of layers that the container sees.
func (b *launcher) mountOptions() storage.MountOptions {
	m := b.m
	return storage.MountOptions{
		UserXattr: m.machine.InUserNS(), UIDs: m.maps.uids, GIDs: m.maps.gids,
		Warn: func(text string) { b.warnings = append(b.warnings, text) },
	}
}

// user finds out who the container's process is.
func (b *launcher) user() (spec.User, error) {
	name, kept := b.userName()
	if kept != "" {
		if err := b.addKept(kept); err != nil {
			return spec.User{}, err
		}
	}
	return b.findUser(name)
}

// userName is the user that the container is to run as, and the one who is kept.
func (b *launcher) userName() (name, kept string) {
	c, img := &b.m.rec.Config, &b.m.rec.Image.Config
	var own spec.Own
	if c.Userns != "" {
		own = b.m.self()
	}
	return spec.DefaultUser(c, img, own), spec.KeptUser(c, own)
}

// findUser looks a user up in the container's own files.
func (b *launcher) findUser(name string) (spec.User, error) {
	passwd, err := readInRoot(b.rootfs, "etc/passwd")
	if err != nil {
		return spec.User{}, err
	}
	group, err := readInRoot(b.rootfs, "etc/group")
	if err != nil {
		return spec.User{}, err
	}
	return spec.ResolveUser(name, b.m.rec.Config.GroupAdd, reader(passwd), reader(group))
}

// reader is nil for a file that is not there.
func reader(data []byte) io.Reader {
	if data == nil {
		return nil
	}
	return bytes.NewReader(data)
}

// own gives the streams to the container's user, so that it can open them
// again by /dev/stdout; programs that drop privileges and log there do.
func (s *streams) own(u spec.User, uids, gids []specs.LinuxIDMapping) {
	uid, gid := outside(uids, u.UID), outside(gids, u.GID)
	for _, f := range s.files {
		if f != nil {
			_ = unix.Fchown(raw(f), uid, gid) // writing needs no ownership
		}
	}
}

// outside is an id of the container as this process sees it; the caller's own if
// it has none.
func outside(maps []specs.LinuxIDMapping, id uint32) int {
	if len(maps) == 0 {
		return int(id)
	}
	return storage.Outside(maps, id)
}

func limitsBlockIO(r *container.Resources) bool {
	return len(r.BlkioWeightDevice)+len(r.DeviceReadBps)+len(r.DeviceWriteBps)+len(r.DeviceReadIOps)+len(r.DeviceWriteIOps) > 0
}

// hierarchies lists the container's v1 groups as its /sys/fs/cgroup shows them.
func hierarchies(v1 map[string]string) []runtime.Hierarchy {
	if len(v1) == 0 {
		return nil
	}
	names := make(map[string][]string, len(v1))
	for controller, dir := range v1 {
		names[dir] = append(names[dir], controller)
	}
	list := make([]runtime.Hierarchy, 0, len(names))
	for dir, controllers := range names {
		sortStrings(controllers)
		list = append(list, runtime.Hierarchy{Name: strings.Join(controllers, ","), Source: dir})
	}
	return list
}

func sortStrings(s []string) {
	for i := 1; i < len(s); i++ {
		for k := i; k > 0 && s[k] < s[k-1]; k-- {
			s[k], s[k-1] = s[k-1], s[k]
		}
	}
}
