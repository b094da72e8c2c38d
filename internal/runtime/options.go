package runtime

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// mountOptions are a mount's options by what is done with them.
type mountOptions struct {
	set, clr   uint64 // MOUNT_ATTR_* of the mount itself, access times aside
	rset, rclr uint64 // of the mount and all below it
	atime      uint64 // MOUNT_ATTR_* of access times that are asked for
	atimes     bool   // some are
	cleared    bool   // some option clears something, if only what is so anyhow
	prop       uint64 // MS_SHARED ...; 0: not asked for
	propRec    bool
	bind, rec  bool
	remount    bool
	copyUp     bool
	idmap      bool     // with the mount's own mapping or the container's
	idmapRec   bool     // also what is mounted below
	data       []string // for the file system
	ofFS       []string // of a bind mount: what only the file system's mount can have
}

// parseOptions sorts fstab-style options. Unknown ones are the file system's.
func parseOptions(list []string) mountOptions {
	var o mountOptions
	for _, s := range list {
		if prop, rec, ok := propagation(s); ok {
			o.prop, o.propRec = prop, rec
			continue
		}
		switch s {
		case "bind":
			o.bind = true
			continue
		case "rbind":
			o.bind, o.rec = true, true
			continue
		case "remount":
			o.remount = true
			continue
		case "idmap", "ridmap":
			o.idmap, o.idmapRec = true, s == "ridmap"
			continue
		case "defaults", "auto", "noauto", "user", "nouser", "users", "_netdev", "nofail", "silent", "loud":
			continue // they say nothing to a mount
		case "async", "sync", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "iversion", "noiversion", "acl", "noacl":
			o.ofFS = append(o.ofFS, s)
			continue
		case "tmpcopyup":
			o.copyUp = true
			continue
		}
		if o.accessTime(s) {
			continue
		}
		if set, clr := attr(s); set|clr != 0 {
			o.set, o.clr = o.set&^clr|set, o.clr&^set|clr
			o.cleared = o.cleared || clr != 0
			continue
		}
		if rest, ok := strings.CutPrefix(s, "r"); ok {
			if set, clr := recursiveAttr(rest); set|clr != 0 {
				o.rset, o.rclr = o.rset&^clr|set, o.rclr&^set|clr
				continue
			}
		}
		if s != "" {
			o.data = append(o.data, s)
		}
	}
	return o
}

// accessTime takes the options about access times. As in mount(8), the negated
// ones leave what there is: only asking for another kind changes it.
func (o *mountOptions) accessTime(s string) bool {
	switch s {
	case "noatime":
		o.atime = o.atime&^unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NOATIME
	case "strictatime":
		o.atime = o.atime&^unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_STRICTATIME
	case "relatime":
		o.atime &^= unix.MOUNT_ATTR__ATIME // it is 0
	case "nodiratime":
		o.atime |= unix.MOUNT_ATTR_NODIRATIME
	case "diratime":
		o.atime &^= unix.MOUNT_ATTR_NODIRATIME
		o.cleared = true
		return true
	case "atime", "norelatime", "nostrictatime":
		o.cleared = true
		return true
	default:
		return false
	}
	o.atimes = true
	return true
}

// attr gives the mount attributes that an option sets and clears.
func attr(s string) (set, clr uint64) {
	switch s {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, 0
	case "rw":
		return 0, unix.MOUNT_ATTR_RDONLY
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, 0
	case "suid":
		return 0, unix.MOUNT_ATTR_NOSUID
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, 0
	case "dev":
		return 0, unix.MOUNT_ATTR_NODEV
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, 0
	case "exec":
		return 0, unix.MOUNT_ATTR_NOEXEC
	case "nosymfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, 0
	case "symfollow":
		return 0, unix.MOUNT_ATTR_NOSYMFOLLOW
	}
	return 0, 0
}

// recursiveAttr is attr for an option of a mount and all below it, without its
// r in front. The access time attributes are one field of several values, which
// is cleared as a whole (mount_setattr(2)).
func recursiveAttr(s string) (set, clr uint64) {
	switch s {
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME
	case "relatime", "atime", "norelatime", "nostrictatime":
		return unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0
	case "diratime":
		return 0, unix.MOUNT_ATTR_NODIRATIME
	}
	return attr(s)
}

// propagation parses a propagation type; an r in front means the mounts below too.
func propagation(s string) (typ uint64, rec, ok bool) {
	base, rec := strings.CutPrefix(s, "r")
	switch base {
	case "private":
		typ = unix.MS_PRIVATE
	case "shared":
		typ = unix.MS_SHARED
	case "slave":
		typ = unix.MS_SLAVE
	case "unbindable":
		typ = unix.MS_UNBINDABLE
	}
	return typ, rec, typ != 0
}

// plain are the attributes that a bind mount with any option loses unless the
// option names them, as when it is remounted (mount(2)).
const plain = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW

// lockable are those of them that a user namespace cannot take away (mount_namespaces(7)).
const lockable = plain &^ unix.MOUNT_ATTR_NOSYMFOLLOW

// setAttrs applies options to a detached bind mount: there is no moment in
// which the container could see it without them.
//
// A mount without options keeps the attributes of its source, one with any has
// those only that are named, as with runc. What the owner of a user namespace
// may not take away stays, and taking it away explicitly is refused: by the
// kernel, or here, where a caller with more rights makes the mount for it.
func (c *compiler) setAttrs(fd program.Arg, o *mountOptions) {
	p := c.p
	prop, rec := o.prop, o.propRec
	if prop == 0 {
		prop, rec = unix.MS_PRIVATE, true // Docker's default, rprivate
	}
	all := unix.MountAttr{Attr_set: o.rset, Attr_clr: o.rclr}
	one := unix.MountAttr{Attr_set: o.set, Attr_clr: o.clr}
	if rec {
		all.Propagation = prop
	} else {
		one.Propagation = prop
	}
	if all != (unix.MountAttr{}) {
		p.SetMountAttr(fd, all, true)
	}
	if o.set|o.clr == 0 && !o.atimes && !o.cleared {
		if one != (unix.MountAttr{}) {
			p.SetMountAttr(fd, one, false)
		}
		return
	}
	exact := one
	exact.Attr_clr |= plain &^ o.set
	if o.atimes {
		exact.Attr_set |= o.atime
		exact.Attr_clr |= unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME&^o.atime
	}
	if c.ns.has(unix.CLONE_NEWUSER) && c.parentMounts {
		flags := p.MountFlags(fd)
		p.Expect64(flags, o.clr&lockable, 0, unix.EPERM) // MOUNT_ATTR_* and ST_* are the same for these
		if o.atimes {
			const mask = unix.ST_NOATIME | unix.ST_NODIRATIME | unix.ST_RELATIME
			p.Expect64(flags, mask, atimeFlags(o.atime), unix.EPERM)
		}
		one.Attr_clr = unix.MOUNT_ATTR_NOSYMFOLLOW &^ o.set
		p.SetMountAttr(fd, one, false)
		return
	}
	locked, done := p.NewLabel(), p.NewLabel()
	p.SetMountAttr(fd, exact, false).Catch(unix.EPERM, locked)
	p.Jump(done)
	p.Place(locked)
	if o.atimes {
		one.Attr_set |= o.atime
		one.Attr_clr |= unix.MOUNT_ATTR__ATIME
	}
	p.SetMountAttr(fd, one, false)
	p.Place(done)
}

// atimeFlags is how statfs(2) says what mount_setattr(2) sets.
func atimeFlags(attr uint64) uint64 {
	var f uint64
	switch attr & unix.MOUNT_ATTR__ATIME {
	case unix.MOUNT_ATTR_NOATIME:
		f = unix.ST_NOATIME
	case unix.MOUNT_ATTR_RELATIME:
		f = unix.ST_RELATIME
	}
	if attr&unix.MOUNT_ATTR_NODIRATIME != 0 {
		f |= unix.ST_NODIRATIME
	}
	return f
}
