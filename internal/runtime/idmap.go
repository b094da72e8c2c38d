package runtime

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/userns"
)

// mapIDs gives a detached bind mount other owners of its files: by the mappings
// of the mount, or those of the container's user namespace. It is a right over
// the file system, which the owner of a new user namespace does not have; so a
// mount that the child has made goes to the parent and back.
func (c *compiler) mapIDs(m *mount) error {
	s := m.spec
	if !m.opt.idmap && len(s.UIDMappings) == 0 {
		return nil
	}
	if !c.parentMounts {
		return unsupported("invalid mount %q: id-mapped mounts are not supported for rootless containers", m.dst)
	}
	p := c.p
	uids, gids := s.UIDMappings, s.GIDMappings
	if len(uids) == 0 && c.ns.new&unix.CLONE_NEWUSER != 0 {
		uids, gids = c.s.Linux.UIDMappings, c.s.Linux.GIDMappings
	}
	var joined string
	for _, j := range c.ns.joins {
		if j.flag == unix.CLONE_NEWUSER && len(uids) == 0 {
			joined = j.path
		}
	}
	if len(uids) == 0 && joined == "" {
		return invalid("invalid mount %q: id-mapped mounts must have both uid and gid mappings specified", m.dst)
	}
	open := func() (*os.File, error) {
		if joined != "" {
			return os.Open(joined)
		}
		return userns.Make(uids, gids)
	}
	if m.inner == "" {
		ns := p.Slot("id map of " + m.dst)
		p.Do(open).To(ns)
		p.MapMountIDs(m.fd, ns.Arg(), m.opt.idmapRec)
		return nil
	}
	// A mount of the child's, still detached, so that it may be changed.
	p.Exchange(m.fd, func(_ int, mnt *os.File) (_ *os.File, err error) {
		defer func() { err = errors.Join(err, mnt.Close()) }()
		ns, err := open()
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		flags := uint(unix.AT_EMPTY_PATH)
		if m.opt.idmapRec {
			flags |= unix.AT_RECURSIVE
		}
		return nil, os.NewSyscallError("mount_setattr", unix.MountSetattr(int(mnt.Fd()), "", flags, &unix.MountAttr{
			Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd()),
		}))
	})
	return nil
}
