package monitor

import (
	"os"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/pid1"
	"github.com/isle-engine/isle/internal/runtime"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/storage"
)

// Preview is what a start of a container would do, found out without doing it.
type Preview struct {
	Spec *specs.Spec
	// Layers are the directories under the root file system, highest first; Upper
	// and Work those of the writable layer.
	Layers      []string
	Upper, Work string
	Userxattr   bool
	Root        []string // the calls that stack them
	Cgroup      cgroup.Paths
	Writes      []cgroup.Write // to the cgroup's files
	Calls       []runtime.Call // the program
	// UIDs and GIDs are the maps of the user namespace that all of it happens in;
	// nil: the first one.
	UIDs, GIDs []specs.LinuxIDMapping
	Warnings   []string
	// Filter is the seccomp program, as struct sock_filter.
	Filter []byte
}

// previewFile stands for a file that will be there: its name is shown.
func previewFile(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/null", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// birthdir is a cgroup that will be there.
type birthdir struct{ f *os.File }

func (b birthdir) File() *os.File   { return b.f }
func (b birthdir) Attach(int) error { return nil }

// Look tells what a start of rec, which is not on disk, would do. Like a start, it
// runs where the user's files have the user's ids (the user's namespace, when
// rootless); what it mounts is read-only, attached nowhere, and gone with it.
func Look(env config.Env, rec *container.Record) (_ *Preview, Err error) {
	m := &monitor{env: env, id: rec.ID, dir: env.Container(rec.ID), rec: *rec}
	b := &launcher{m: m}
	defer b.close()
	c := &m.rec.Config
	in := spec.Input{Record: &m.rec}
	var peerDir string
	var err error
	if len(m.rec.Joined) > 0 {
		if peerDir, err = b.join(&in); err != nil {
			return nil, err
		}
	}
	if m.maps, _, err = m.chooseMaps(); err != nil {
		return nil, err
	}
	in.UIDMappings, in.GIDMappings = m.maps.uids, m.maps.gids
	layers := storage.Open(env.Layers())
	o := b.mountOptions()
	o.ReadOnly, o.Places = true, true
	if b.rootfs, err = layers.Mount(m.rec.Image.Layers, "", "", o); err != nil {
		return nil, err
	}
	name, _ := b.userName()
	if in.User, err = b.findUser(name); err != nil {
		return nil, err
	}
	in.Volumes = map[string]string{}
	for i := range c.Mounts {
		mt := &c.Mounts[i]
		target := path.Clean(mt.Target)
		switch mt.Type {
		case "volume":
			v := mt.Source
			if v == "" {
				v = "NEW"
			}
			in.Volumes[target] = storage.OpenVolumes(env.Volumes()).Path(v)
		case "image":
			f, err := b.imageMount(mt)
			if err != nil {
				return nil, err
			}
			b.bind(target, f)
			in.Volumes[target] = "image " + mt.Source
		}
	}
	in.Facts = spec.Probe(&m.machine, c, env.Rootless)
	if len(c.Devices) > 0 || c.Privileged || limitsBlockIO(&c.Resources) {
		if in.Devices, err = spec.ResolveDevices(c); err != nil {
			return nil, err
		}
	}
	in.EtcFiles = m.etcFiles(peerDir)
	out := &Preview{Upper: m.dir + "/upper", Work: m.dir + "/work", Userxattr: o.UserXattr}
	if out.Spec, out.Warnings, err = spec.Build(in); err != nil {
		return nil, err
	}
	o.ReadOnly, o.Volatile = false, c.AutoRemove
	if out.Root, err = layers.Calls(m.rec.Image.Layers, out.Upper, out.Work, o); err != nil {
		return nil, err
	}
	if out.Layers, err = layers.Lower(m.rec.Image.Layers, o); err != nil {
		return nil, err
	}
	h, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	out.Cgroup, out.Writes = h.Preview(cgroup.Request{Parent: c.CgroupParent, Name: m.id, Resources: withOwnDevices(out.Spec.Linux.Resources), Rootless: env.Rootless})
	opts := runtime.Options{Rootfs: b.rootfs, Binds: b.binds, CgroupV1: hierarchies(out.Cgroup.V1), Pdeathsig: true, Preview: true}
	var standIns []*os.File
	defer func() {
		for _, f := range standIns {
			_ = f.Close() // nothing was written
		}
	}()
	for _, f := range [...]struct {
		to   **os.File
		name string
	}{{&opts.Stdio.In, "/dev/null"}, {&opts.Stdio.Out, "standard output"}, {&opts.Stdio.Err, "standard error"}} {
		if *f.to, err = previewFile(f.name); err != nil {
			return nil, err
		}
		standIns = append(standIns, *f.to)
	}
	if c.TTY {
		opts.Stdio = runtime.Stdio{}
	}
	if out.Cgroup.V2 != "" {
		f, err := previewFile(out.Cgroup.V2)
		if err != nil {
			return nil, err
		}
		standIns = append(standIns, f)
		opts.Cgroup = birthdir{f}
	}
	if c.Init {
		if b.init, err = pid1.MemFD(); err != nil {
			return nil, err
		}
		opts.Init = b.init
	}
	prog, err := runtime.Compile(out.Spec, opts)
	if err != nil {
		return nil, err
	}
	out.Calls = prog.Calls()
	for _, w := range prog.Warnings() {
		out.Warnings = append(out.Warnings, w.Error())
	}
	if out.Filter, err = runtime.Filter(out.Spec); err != nil {
		return nil, err
	}
	if in.Facts.InUserNS {
		out.UIDs, out.GIDs = m.machine.UIDs(), m.machine.GIDs()
	}
	return out, nil
}
