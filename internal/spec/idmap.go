package spec

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/userns"
)

// Own is the caller's side of a mapping: which ids it has to give, and which
// are given away already.
type Own struct {
	Rootless bool
	UID, GID int // of the user, outside
	// UIDs and GIDs are the maps of the caller's namespace.
	UIDs, GIDs []specs.LinuxIDMapping
	// UsedUIDs and UsedGIDs are the extents (by HostID) of live containers.
	UsedUIDs, UsedGIDs []specs.LinuxIDMapping
}

// Mappings computes the id mappings of --userns, relative to the caller's
// namespace. Both are empty when the mode gives no namespace of its own: "",
// "host", another container's, and for root also "private".
func Mappings(mode string, own Own) (uids, gids []specs.LinuxIDMapping, err error) {
	m, err := container.ParseNamespaceMode("user", mode)
	if err != nil {
		return nil, nil, err
	}
	switch m.Mode {
	case "auto":
		return auto(m.Arg, own)
	case "keep-id":
		if !own.Rootless {
			return nil, nil, errs.New(errs.Invalid, "keep-id is only supported in rootless mode")
		}
		uid, gid := -1, -1
		if m.Arg != "" {
			if uid, gid, err = container.KeepIDs(m.Arg); err != nil {
				return nil, nil, err
			}
		}
		if uid < 0 {
			uid = own.UID
		}
		if gid < 0 {
			gid = own.GID
		}
		return userns.KeepID(own.UIDs, uint32(uid)), userns.KeepID(own.GIDs, uint32(gid)), nil
	case "nomap":
		if !own.Rootless {
			return nil, nil, errs.New(errs.Invalid, "nomap is only supported in rootless mode")
		}
		if uids, err = userns.NoMap(own.UIDs); err == nil {
			gids, err = userns.NoMap(own.GIDs)
		}
		return uids, gids, err
	}
	return nil, nil, nil
}

// auto gives ids that no other container has.
func auto(arg string, own Own) (uids, gids []specs.LinuxIDMapping, err error) {
	size := uint64(0)
	for arg != "" {
		var opt string
		opt, arg, _ = strings.Cut(arg, ",")
		key, val, _ := strings.Cut(opt, "=")
		if key != "size" {
			return nil, nil, errs.New(errs.Invalid, "userns auto: unknown option %q", opt)
		}
		if size, err = strconv.ParseUint(val, 10, 31); err != nil || size == 0 {
			return nil, nil, errs.New(errs.Invalid, "userns auto: invalid size %q", val)
		}
	}
	availU, availG := own.UIDs, own.GIDs
	if !own.Rootless {
		if availU, availG, err = userns.RootRange(); err != nil {
			return nil, nil, err
		}
	}
	if size == 0 {
		size = userns.AutoSize
		if own.Rootless {
			// A user has one range of usually 65536 ids; so that several
			// containers find room, each gets as many as Podman's least.
			size = autoRootless
		}
	}
	if uids, err = userns.Auto(availU, own.UsedUIDs, uint32(size)); err != nil {
		return nil, nil, err
	}
	gids, err = userns.Auto(availG, own.UsedGIDs, uint32(size))
	return uids, gids, err
}

// autoRootless is how many ids an ordinary user's --userns=auto gives.
const autoRootless = 1024

// mapped reports whether id exists inside; a nil map has every id.
func mapped(in []specs.LinuxIDMapping, id uint32) bool {
	if in == nil {
		return true
	}
	for _, m := range in {
		if id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size) {
			return true
		}
	}
	return false
}

func idCount(in []specs.LinuxIDMapping) uint64 {
	var n uint64
	for _, m := range in {
		n += uint64(m.Size)
	}
	return n
}

// ranges names the ids that exist inside, for people.
func ranges(in []specs.LinuxIDMapping) string {
	var s []string
	for _, m := range in {
		if m.Size == 1 {
			s = append(s, strconv.FormatUint(uint64(m.ContainerID), 10))
		} else {
			s = append(s, strconv.FormatUint(uint64(m.ContainerID), 10)+"-"+strconv.FormatUint(uint64(m.ContainerID)+uint64(m.Size)-1, 10))
		}
	}
	return strings.Join(s, ", ")
}

// hostOrder returns the ids inside whose numbers outside are lowest and highest,
// given the container's map and that of the namespace around it (nil: the same
// ids). The kernel compares ids by their numbers outside.
func hostOrder(inner, outer []specs.LinuxIDMapping) (low, high uint32) {
	var lowest, highest uint64
	found := false
	see := func(inside uint32, outside uint64, size uint64) {
		if !found || outside < lowest {
			lowest, low = outside, inside
		}
		if !found || outside+size-1 > highest {
			highest, high = outside+size-1, inside+uint32(size-1)
		}
		found = true
	}
	for _, m := range inner {
		if outer == nil {
			see(m.ContainerID, uint64(m.HostID), uint64(m.Size))
			continue
		}
		from, to := uint64(m.HostID), uint64(m.HostID)+uint64(m.Size)
		for _, o := range outer {
			lo, hi := max(from, uint64(o.ContainerID)), min(to, uint64(o.ContainerID)+uint64(o.Size))
			if lo < hi {
				see(m.ContainerID+uint32(lo-from), uint64(o.HostID)+lo-uint64(o.ContainerID), hi-lo)
			}
		}
	}
	return low, high
}

// DefaultUser is who a container runs as: whom the request names, else the
// image, else with keep-id the user who is kept, else root ("").
func DefaultUser(c *container.Config, img *container.ImageConfig, own Own) string {
	switch {
	case c.User != "":
		return c.User
	case img.User != "":
		return img.User
	}
	return KeptUser(c, own)
}

// KeptUser is who keep-id keeps, as UID:GID inside; "" without keep-id.
func KeptUser(c *container.Config, own Own) string {
	m, err := container.ParseNamespaceMode("user", c.Userns)
	if err != nil || m.Mode != "keep-id" {
		return ""
	}
	uid, gid := -1, -1
	if m.Arg != "" {
		if uid, gid, err = container.KeepIDs(m.Arg); err != nil {
			return "" // Mappings says so
		}
	}
	if uid < 0 {
		uid = own.UID
	}
	if gid < 0 {
		gid = own.GID
	}
	return strconv.Itoa(uid) + ":" + strconv.Itoa(gid)
}
