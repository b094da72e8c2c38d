package pack

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/storage/tarball"
)

// opaqueName in a layer's archive hides what lower layers have in its directory
// (OCI image-spec, layer.md).
const opaqueName = ".wh..wh..opq"

// ownerXattr keeps "UID:GID:MODE" of a file whose owner has no id in the user
// namespace that it was unpacked in; see package unpack.
const ownerXattr = "user.isle.owner"

// AddLayer writes the directory of a layer as the layer's archive. The Packer
// has the option Layer.
func (p *Packer) AddLayer(dir *os.File) error {
	opaque, err := layerAttrs("/proc/self/fd/"+strconv.Itoa(int(dir.Fd())), new(tarball.Header))
	if err != nil {
		return &os.PathError{Op: "read", Path: dir.Name(), Err: err}
	}
	if opaque {
		if err := p.Whiteout(opaqueName); err != nil {
			return err
		}
	}
	return p.AddContent(dir, "")
}

// layerAttrs reads the extended attributes of a file of a layer: those that an
// image may set go into h, and the recorded owner becomes the owner. opaque
// tells whether overlayfs hides what is below the directory.
func layerAttrs(self string, h *tarball.Header) (opaque bool, err error) {
	names, err := listXattrs(self)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		var value []byte
		keep := name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")
		mark := name == "trusted.overlay.opaque" || name == "user.overlay.opaque"
		switch {
		case keep, mark, name == ownerXattr:
		case strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && !strings.HasPrefix(name, "user.isle."):
			keep = true
		default:
			continue // overlayfs's own, and labels of this machine
		}
		if value, err = xattr(self, name); err != nil {
			if err == unix.ENODATA {
				continue // gone meanwhile
			}
			return false, err
		}
		switch {
		case keep:
			h.Xattrs = append(h.Xattrs, tarball.Xattr{Name: name, Value: string(value)})
		case mark:
			opaque = opaque || string(value) == "y"
		default:
			setOwner(h, string(value))
		}
	}
	return opaque, nil
}

// setOwner applies a recorded owner. One that is damaged says nothing.
func setOwner(h *tarball.Header, value string) {
	w := strings.Split(value, ":")
	if len(w) != 3 {
		return
	}
	uid, err1 := strconv.ParseUint(w[0], 10, 32)
	gid, err2 := strconv.ParseUint(w[1], 10, 32)
	mode, err3 := strconv.ParseUint(w[2], 8, 12)
	if err1 == nil && err2 == nil && err3 == nil {
		h.UID, h.GID, h.Mode = int64(uid), int64(gid), int64(mode)
	}
}

func listXattrs(path string) ([]string, error) {
	for size := 1 << 10; ; size *= 4 {
		b := make([]byte, size)
		n, err := unix.Listxattr(path, b)
		switch {
		case err == unix.ERANGE && size < 1<<20:
			continue
		case err == unix.EOPNOTSUPP:
			return nil, nil
		case err != nil:
			return nil, err
		}
		names := strings.FieldsFunc(string(b[:n]), func(r rune) bool { return r == 0 })
		slices.Sort(names) // the kernel's order is nobody's
		return names, nil
	}
}

func xattr(path, name string) ([]byte, error) {
	b := make([]byte, 64<<10) // XATTR_SIZE_MAX
	n, err := unix.Getxattr(path, name, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
