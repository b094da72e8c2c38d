package runtime

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/linux/program"
)

// mask hides files under /dev/null and directories under an empty read-only
// file system. What is not there needs no hiding.
func (c *compiler) mask(paths []string) {
	if len(paths) == 0 {
		return
	}
	p := c.p
	// The null device that hides a file must be the null device: an image
	// once brought a file of that name and had the kernel's written instead
	// (CVE-2025-31133).
	null := p.Slot("/dev/null")
	p.Step(program.Step{Verb: "mask with", Object: "/dev/null"})
	p.Openat2(c.root, "/dev/null", unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}).To(null)
	st, _ := p.Fstat(null.Arg())
	if !defence.Removed("null") {
		p.ExpectDevice(st, unix.S_IFCHR, 1, 3, unix.ENODEV)
	}

	empty, used := c.emptyDir(), p.Buffer(4)
	seen := make(map[string]bool, len(paths))
	for _, name := range paths {
		name = path.Clean("/" + name)
		if seen[name] {
			continue
		}
		seen[name] = true
		p.Step(program.Step{Verb: "mask", Dst: name})
		t, mnt := p.Slot(name), p.Slot("mask")
		done, dir := p.NewLabel(), p.NewLabel()
		c.openExisting(name, t, done)
		p.Call(unix.SYS_OPEN_TREE, null.Arg(), p.Empty(), program.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)).To(mnt)
		// The kernel wants a directory on a directory and says EINVAL or
		// ENOTDIR otherwise.
		p.MoveMount(mnt.Arg(), t.Arg()).Catch(unix.EINVAL, dir).Catch(unix.ENOTDIR, dir)
		p.Jump(done)
		p.Place(dir)
		first := p.NewLabel()
		// The first directory gets the mount itself: a mount can be cloned
		// once it is part of our tree (before Linux 6.15), and one that is left
		// over makes execve wait for an RCU grace period.
		p.Expect32(used, 1, 1, unix.ENOENT).Catch(unix.ENOENT, first)
		p.Call(unix.SYS_OPEN_TREE, empty.Arg(), p.Empty(), program.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)).To(mnt)
		p.MoveMount(mnt.Arg(), t.Arg())
		p.Jump(done)
		p.Place(first)
		p.MoveMount(empty.Arg(), t.Arg())
		p.Poke32(used, program.Int(1))
		p.Place(done)
	}
}

// emptyDir makes a detached mount of an empty read-only file system.
func (c *compiler) emptyDir() program.Slot {
	p := c.p
	fs, mnt := p.Slot("tmpfs context"), p.Slot("empty directory")
	p.Step(program.Step{Verb: "mask with", Object: "an empty directory"})
	p.Call(unix.SYS_FSOPEN, p.String("tmpfs"), program.Int(unix.FSOPEN_CLOEXEC)).To(fs)
	p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_STRING), p.String("source"), p.String("tmpfs"), program.Int(0))
	p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_SET_FLAG), p.String("ro"), program.Null, program.Int(0))
	p.Call(unix.SYS_FSCONFIG, fs.Arg(), program.Int(unix.FSCONFIG_CMD_CREATE), program.Null, program.Null, program.Int(0))
	p.Call(unix.SYS_FSMOUNT, fs.Arg(), program.Int(unix.FSMOUNT_CLOEXEC), program.Int(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)).To(mnt)
	return mnt
}

// openExisting opens a path of the container, or goes to absent.
func (c *compiler) openExisting(name string, t program.Slot, absent program.Label) {
	c.p.Openat2(c.root, name, unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}).To(t).Catch(unix.ENOENT, absent).Catch(unix.ENOTDIR, absent)
}

// readonlyPaths makes parts of the tree read-only, with all that is mounted
// below them.
func (c *compiler) readonlyPaths(paths []string) {
	p := c.p
	for _, name := range paths {
		name = path.Clean("/" + name)
		p.Step(program.Step{Verb: "mount", Type: "bind", Src: name, Dst: name, Flags: "rbind,rro"})
		t, mnt := p.Slot(name), p.Slot("read-only "+name)
		absent := p.NewLabel()
		c.openExisting(name, t, absent)
		p.Call(unix.SYS_OPEN_TREE, t.Arg(), p.Empty(), program.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)).To(mnt)
		p.SetMountAttr(mnt.Arg(), unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, true)
		p.MoveMount(mnt.Arg(), t.Arg())
		p.Place(absent)
	}
}
