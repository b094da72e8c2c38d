package runtime

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// device is a device node of the container.
type device struct {
	path     string // inside, clean
	mode     uint32 // type and permissions
	maj, min uint32
	uid, gid int // -1: root's
	host     program.Slot
}

// findDevices collects the devices every container has (runtime-spec, Default
// Devices) and those of the spec. A user namespace may not make nodes: there
// the host's own are opened, to be bound.
func (c *compiler) findDevices() {
	list := []device{
		{path: "/dev/null", mode: unix.S_IFCHR | 0o666, maj: 1, min: 3, uid: -1, gid: -1},
		{path: "/dev/zero", mode: unix.S_IFCHR | 0o666, maj: 1, min: 5, uid: -1, gid: -1},
		{path: "/dev/full", mode: unix.S_IFCHR | 0o666, maj: 1, min: 7, uid: -1, gid: -1},
		{path: "/dev/random", mode: unix.S_IFCHR | 0o666, maj: 1, min: 8, uid: -1, gid: -1},
		{path: "/dev/urandom", mode: unix.S_IFCHR | 0o666, maj: 1, min: 9, uid: -1, gid: -1},
		{path: "/dev/tty", mode: unix.S_IFCHR | 0o666, maj: 5, min: 0, uid: -1, gid: -1},
	}
	for i := range c.s.Linux.Devices {
		s := &c.s.Linux.Devices[i]
		d := device{path: path.Clean("/" + s.Path), maj: uint32(s.Major), min: uint32(s.Minor), uid: -1, gid: -1}
		switch s.Type {
		case "b":
			d.mode = unix.S_IFBLK
		case "p":
			d.mode = unix.S_IFIFO
		default: // c, u
			d.mode = unix.S_IFCHR
		}
		if s.FileMode != nil {
			d.mode |= uint32(s.FileMode.Perm())
		} else {
			d.mode |= 0o666
		}
		if s.UID != nil {
			d.uid = int(*s.UID)
		}
		if s.GID != nil {
			d.gid = int(*s.GID)
		}
		same := -1
		for k := range list {
			if list[k].path == d.path {
				same = k
			}
		}
		if same >= 0 {
			list[same] = d
			continue
		}
		list = append(list, d)
	}
	c.devices = list
	if !c.userNS {
		return
	}
	p := c.p
	for i := range list {
		d := &list[i]
		if d.mode&unix.S_IFMT == unix.S_IFIFO {
			continue
		}
		p.Step(program.Step{Verb: "device", Object: d.path})
		d.host = c.openTree(d.path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		st, _ := p.Fstat(d.host.Arg())
		p.ExpectDevice(st, d.mode&unix.S_IFMT, d.maj, d.min, unix.ENODEV)
	}
}

// makeDevices fills the new /dev.
func (c *compiler) makeDevices(dev program.Arg) {
	p := c.p
	for i := range c.devices {
		d := &c.devices[i]
		p.Step(program.Step{Verb: "device", Object: d.path})
		dir, name := dev, strings.TrimPrefix(d.path, "/dev/")
		if name == d.path || strings.Contains(name, "/") {
			parent := p.Slot(path.Dir(d.path))
			p.Mkpath(c.root, path.Dir(d.path), true, -1, -1).To(parent)
			dir, name = parent.Arg(), path.Base(d.path)
		}
		at := p.String(name)
		if d.host != 0 {
			t := p.Slot(d.path)
			p.Call(unix.SYS_MKNODAT, dir, at, program.Int(unix.S_IFREG), program.Int(0)).Ignore(unix.EEXIST)
			p.Call(unix.SYS_OPENAT, dir, at, program.Int(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)).To(t)
			p.MoveMount(d.host.Arg(), t.Arg())
			continue
		}
		node := p.Call(unix.SYS_MKNODAT, dir, at, program.Uint(uint64(d.mode)), program.Uint(unix.Mkdev(d.maj, d.min)))
		if !c.emptyDev || dir != dev {
			c.orSame(node, d, dir, at)
		}
		if d.uid > 0 || d.gid > 0 {
			p.Call(unix.SYS_FCHOWNAT, dir, at, program.Int(d.uid), program.Int(d.gid), program.Int(unix.AT_SYMLINK_NOFOLLOW))
		}
	}
	p.Step(program.Step{Verb: "links in", Object: "/dev"})
	for _, l := range [...][2]string{
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"/proc/kcore", "core"},
		{"pts/ptmx", "ptmx"},
	} {
		if l[1] == "core" && unix.Access(l[0], unix.F_OK) != nil {
			continue // CONFIG_PROC_KCORE is off
		}
		p.Call(unix.SYS_SYMLINKAT, p.String(l[0]), dev, p.String(l[1])).Ignore(unix.EEXIST)
	}
}

// orSame lets a device node be there already, outside of a file system of the
// container's own: it must be what is asked for (runtime-spec, Devices).
func (c *compiler) orSame(mknod program.Op, d *device, dir, at program.Arg) {
	p := c.p
	there, done := p.NewLabel(), p.NewLabel()
	mknod.Catch(unix.EEXIST, there)
	p.Jump(done)
	p.Place(there)
	node := p.Slot(d.path)
	p.Call(unix.SYS_OPENAT, dir, at, program.Int(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)).To(node)
	st, _ := p.Fstat(node.Arg())
	if d.mode&unix.S_IFMT == unix.S_IFIFO {
		p.ExpectType(st, unix.S_IFIFO, unix.EEXIST)
	} else {
		p.ExpectDevice(st, d.mode&unix.S_IFMT, d.maj, d.min, unix.EEXIST)
	}
	p.Place(done)
}

// devIsBound reports whether /dev is the caller's business.
func (c *compiler) devIsBound(mounts []mount) bool {
	for i := range mounts {
		if mounts[i].dst == "/dev" {
			return true
		}
	}
	return false
}

// devInRoot makes the devices in the root file system of a spec without a mount
// at /dev. What is there already stays.
func (c *compiler) devInRoot() {
	c.p.Step(program.Step{Verb: "devices in", Object: "/dev"})
	dir, _ := c.target("/dev", program.Null)
	c.makeDevices(dir.Arg())
}

// openTerminal opens a new terminal of the container's own devpts, sends the
// master to the caller and keeps the slave. Neither is opened by a name that
// the image could have a say in: ptmx lies in the new instance, and the slave
// comes from the master (TIOCGPTPEER, Linux 4.13).
func (c *compiler) openTerminal() {
	p := c.p
	p.Step(program.Step{Verb: "terminal"})
	master := p.Slot("terminal master")
	p.Call(unix.SYS_OPENAT, c.pts.Arg(), p.String("ptmx"), program.Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).To(master)
	c.slaveOf(master)
}

// termiosSize is more than any kernel's struct termios.
const termiosSize = 64

func (c *compiler) slaveOf(master program.Slot) {
	p := c.p
	c.slave = p.Slot("terminal")
	p.Call(unix.SYS_IOCTL, master.Arg(), program.Int(unix.TIOCSPTLCK), p.Buffer(4)) // 0: unlock
	p.Call(unix.SYS_IOCTL, master.Arg(), program.Int(unix.TIOCGPTPEER), program.Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).To(c.slave)
	if size := c.process.ConsoleSize; size != nil && (size.Height > 0 || size.Width > 0) {
		p.Call(unix.SYS_IOCTL, master.Arg(), program.Int(unix.TIOCSWINSZ), p.Winsize(uint16(size.Height), uint16(size.Width)))
	}
	if c.o.PlainLines {
		attrs := p.Buffer(termiosSize)
		p.Call(unix.SYS_IOCTL, master.Arg(), program.Int(unix.TCGETS), attrs)
		p.Poke32(attrs.Plus(4), program.Int(unix.OPOST)) // c_oflag; a new terminal has OPOST and ONLCR
		p.Call(unix.SYS_IOCTL, master.Arg(), program.Int(unix.TCSETS), attrs)
	}
	if uid := c.process.User.UID; uid != 0 {
		p.Call(unix.SYS_FCHOWN, c.slave.Arg(), program.Uint(uint64(uid)), program.Int(-1))
	}
	p.SendFile(master.Arg())
}

// bindConsole puts the terminal at /dev/console.
func (c *compiler) bindConsole() {
	p := c.p
	p.Step(program.Step{Verb: "terminal", Dst: "/dev/console"})
	t, mnt := p.Slot("/dev/console"), p.Slot("terminal's mount")
	p.Call(unix.SYS_OPEN_TREE, c.slave.Arg(), p.Empty(), program.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)).To(mnt)
	if c.dev != 0 {
		name := p.String("console")
		p.Call(unix.SYS_MKNODAT, c.dev.Arg(), name, program.Int(unix.S_IFREG|0o600), program.Int(0)).Ignore(unix.EEXIST)
		p.Call(unix.SYS_OPENAT, c.dev.Arg(), name, program.Int(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)).To(t)
	} else {
		t, _ = c.target("/dev/console", mnt.Arg())
	}
	p.MoveMount(mnt.Arg(), t.Arg())
}

// openTerminalInside opens a terminal in a container that runs. Its /dev may
// have been tampered with, so the type of what was opened is verified: a
// terminal multiplexer (5:2) that lies on devpts.
func (c *compiler) openTerminalInside() {
	p := c.p
	p.Step(program.Step{Verb: "terminal", Src: "/dev/pts/ptmx"})
	master := p.Slot("terminal master")
	p.Openat2(c.root, "/dev/pts/ptmx", unix.OpenHow{
		// O_NONBLOCK: a fifo in its place shall not keep us waiting.
		Flags:   unix.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}).To(master)
	st, _ := p.Fstat(master.Arg())
	p.ExpectDevice(st, unix.S_IFCHR, 5, 2, unix.ENODEV)
	p.ExpectFS(master.Arg(), unix.DEVPTS_SUPER_MAGIC, unix.ENODEV)
	c.slaveOf(master)
}
