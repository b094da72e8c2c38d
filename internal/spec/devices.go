package spec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// Devices are what a record's device options mean on this machine.
type Devices struct {
	// Nodes are the devices to be made available, in order.
	Nodes []Node
	// Block are the numbers of the block devices that I/O limits name, by path.
	Block map[string]Number
}

// Node is one host device and where it goes.
type Node struct {
	Source string // host path
	Access string // of "rwm"
	specs.LinuxDevice
}

// Number is a device number.
type Number struct{ Major, Minor int64 }

func (d *Devices) blockNumber(path string) (Number, error) {
	n, ok := d.Block[path]
	if !ok {
		return n, errs.New(errs.NotFound, "device %q: not looked up", path)
	}
	return n, nil
}

// ResolveDevices looks up the devices that c names; it does nothing for the many
// containers that name none. A privileged container gets all of the host's.
func ResolveDevices(c *container.Config) (Devices, error) {
	var d Devices
	if c.Privileged {
		if err := d.walk("/dev", "/dev", "rwm", true); err != nil {
			return d, err
		}
	}
	for i := range c.Devices {
		dev := &c.Devices[i]
		if dev.Source == "" || dev.Source[0] != '/' || dev.Target == "" || dev.Target[0] != '/' {
			return d, errs.New(errs.Invalid, "device %q: not an absolute path", dev.Source)
		}
		// A link such as /dev/disk/by-id/… stands for the device it leads to.
		source, err := filepath.EvalSymlinks(dev.Source)
		if err != nil {
			return d, errs.New(errs.Invalid, "error gathering device information while adding custom device %q: %w", dev.Source, unwrapPath(err))
		}
		fi, err := os.Lstat(source)
		if err != nil {
			return d, err
		}
		if fi.IsDir() {
			before := len(d.Nodes)
			if err := d.walk(source, dev.Target, dev.Perms, false); err != nil {
				return d, err
			}
			if len(d.Nodes) == before {
				return d, errs.New(errs.Invalid, "device %q: no devices in this directory", dev.Source)
			}
			continue
		}
		if !d.node(source, dev.Target, dev.Perms) {
			return d, errs.New(errs.Invalid, "error gathering device information while adding custom device %q: not a device node", dev.Source)
		}
	}
	return d, d.resolveBlock(&c.Resources)
}

// walk adds all devices below dir. Terminals, shared memory and message queues
// are the container's own.
func (d *Devices) walk(dir, target, access string, all bool) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			// Rootless, parts of /dev cannot be read; what cannot be seen cannot
			// be used. Others vanish while we look.
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if e.IsDir() {
			switch e.Name() {
			case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
				if p != dir {
					return fs.SkipDir
				}
			}
			return nil
		}
		if e.Name() == "console" || all && everywhere(p) {
			return nil
		}
		if e.Type()&fs.ModeDevice != 0 {
			d.node(p, target+strings.TrimPrefix(p, dir), access)
		}
		return nil
	})
}

// everywhere reports whether every container has a device of its own there.
func everywhere(p string) bool {
	switch p {
	case "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx":
		return true
	}
	return false
}

// node adds the device at source, if it is one. One named twice goes where the
// later one says.
func (d *Devices) node(source, target, access string) bool {
	var st unix.Stat_t
	if unix.Lstat(source, &st) != nil {
		return false
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return false
	}
	mode := os.FileMode(st.Mode & 0o7777)
	uid, gid := st.Uid, st.Gid
	n := Node{Source: source, Access: access, LinuxDevice: specs.LinuxDevice{
		Path: target, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &uid, GID: &gid,
	}}
	for i := range d.Nodes {
		if d.Nodes[i].Path == target {
			d.Nodes[i] = n
			return true
		}
	}
	d.Nodes = append(d.Nodes, n)
	return true
}

// resolveBlock looks up the block devices that I/O limits name.
func (d *Devices) resolveBlock(r *container.Resources) error {
	for _, list := range [...][]container.DeviceValue{r.BlkioWeightDevice, r.DeviceReadBps, r.DeviceWriteBps, r.DeviceReadIOps, r.DeviceWriteIOps} {
		for _, v := range list {
			var st unix.Stat_t
			if err := unix.Stat(v.Path, &st); err != nil {
				return errs.As(errs.Invalid, &os.PathError{Op: "device", Path: v.Path, Err: err})
			}
			if st.Mode&unix.S_IFMT != unix.S_IFBLK {
				return errs.New(errs.Invalid, "device %q: not a block device", v.Path)
			}
			if d.Block == nil {
				d.Block = map[string]Number{}
			}
			d.Block[v.Path] = Number{int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))}
		}
	}
	return nil
}

func unwrapPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// Numbers of the devices that every container may use.
var n1, n3, n5, n7, n8, n9, zero int64 = 1, 3, 5, 7, 8, 9, 0

// deviceRules are the device cgroup of a container: nothing but these. The
// runtime itself adds mknod(2), and the terminals of the container's own devpts.
var deviceRules = [...]specs.LinuxDeviceCgroup{
	{Allow: false, Access: "rwm"},
	{Allow: true, Type: "c", Major: &n1, Minor: &n5, Access: "rwm"},   // zero
	{Allow: true, Type: "c", Major: &n1, Minor: &n3, Access: "rwm"},   // null
	{Allow: true, Type: "c", Major: &n1, Minor: &n9, Access: "rwm"},   // urandom
	{Allow: true, Type: "c", Major: &n1, Minor: &n8, Access: "rwm"},   // random
	{Allow: true, Type: "c", Major: &n1, Minor: &n7, Access: "rwm"},   // full
	{Allow: true, Type: "c", Major: &n5, Minor: &zero, Access: "rwm"}, // tty
	{Allow: true, Type: "c", Major: &n5, Minor: &n1, Access: "rwm"},   // console
}

var allDevices = [...]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}

// optDevice are the options of a device that is bound from the host.
var optDevice = []string{"bind", "rprivate", "nosuid", "noexec"}

// devices makes devices available. In a user namespace none can be made
// (mknod(2) fails with EPERM), so the host's own are bound, and what the user may
// do with them is what the files' owners and modes say: device cgroups are for
// root (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE).
func (b *build) devices() error {
	c, nodes := b.cfg, b.in.Devices.Nodes
	if b.in.Facts.InUserNS || b.ownUser {
		for i := range nodes {
			if !b.userMounted(nodes[i].Path) {
				b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: nodes[i].Path, Type: "bind", Source: nodes[i].Source, Options: optDevice})
			}
		}
	} else if len(nodes) > 0 {
		b.linux.Devices = make([]specs.LinuxDevice, len(nodes))
		for i := range nodes {
			b.linux.Devices[i] = nodes[i].LinuxDevice
		}
	}
	if b.in.Facts.InUserNS {
		if len(c.DeviceCgroupRules) > 0 {
			b.warn("device cgroup rules are for root only; left out")
		}
		return nil
	}
	if c.Privileged {
		b.resources.Devices = allDevices[:]
		return nil
	}
	rules := deviceRules[:len(deviceRules):len(deviceRules)]
	for i := range nodes {
		n := &nodes[i]
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: n.Access})
	}
	for _, s := range c.DeviceCgroupRules {
		r, err := parseRule(s)
		if err != nil {
			return err
		}
		rules = append(rules, r)
	}
	b.resources.Devices = rules
	return nil
}

// parseRule reads "TYPE MAJOR:MINOR ACCESS", where a number may be "*".
func parseRule(s string) (specs.LinuxDeviceCgroup, error) {
	r := specs.LinuxDeviceCgroup{Allow: true}
	if err := container.CheckDeviceCgroupRule(s); err != nil {
		return r, err
	}
	f := strings.Split(s, " ")
	r.Type, r.Access = f[0], f[2]
	major, minor, _ := strings.Cut(f[1], ":")
	for _, n := range [...]struct {
		text string
		to   **int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if n.text == "*" {
			continue // nil stands for any
		}
		v, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil {
			return r, errs.New(errs.Invalid, "invalid device cgroup format '%s'", s)
		}
		*n.to = &v
	}
	return r, nil
}
