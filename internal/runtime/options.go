package runtime

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are a mount's options by what is done with them.
type mountOptions struct {
	set, clr   uint64 // MOUNT_ATTR_* of the mount itself
	rset, rclr uint64 // of the mount and all below it
	prop       uint64 // MS_SHARED ...; 0: not asked for
	propRec    bool
	bind, rec  bool
	copyUp     bool
	data       []string // for the file system
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
		case "defaults", "async", "remount", "auto", "noauto", "user", "nouser", "users", "_netdev", "nofail":
			continue // they say nothing to a new mount
		case "tmpcopyup":
			o.copyUp = true
			continue
		}
		set, clr := attr(s)
		if set|clr != 0 {
			o.set, o.clr = o.set&^clr|set, o.clr&^set|clr
			continue
		}
		if rest, ok := strings.CutPrefix(s, "r"); ok {
			if set, clr = attr(rest); set|clr != 0 {
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

// attr gives the mount attributes that an option sets and clears. The access
// time attributes are one field of several values, which is cleared as a whole
// (mount_setattr(2)).
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
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0
	case "diratime":
		return 0, unix.MOUNT_ATTR_NODIRATIME
	case "nosymfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, 0
	case "symfollow":
		return 0, unix.MOUNT_ATTR_NOSYMFOLLOW
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME
	case "relatime", "atime", "norelatime", "nostrictatime":
		return unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME
	}
	return 0, 0
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
