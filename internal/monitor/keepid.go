package monitor

import (
	"bytes"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/spec"
)

// addKept gives the user who is kept (--userns=keep-id) a line in the container's
// passwd and group, where the image has none for these ids, as Podman does:
// programs that ask for their own name find it. The files are the container's
// own copies, in its writable layer. An image without such a file is left so.
func (b *launcher) addKept(kept string) error {
	uid, gid, _ := strings.Cut(kept, ":")
	name, home := uid, "/"
	if data, err := readBounded("/etc/passwd", maxEtc); err == nil { // without it, the number is the name
		if u, err := spec.ResolveUser(strconv.Itoa(b.m.env.UID), nil, bytes.NewReader(data), nil); err == nil && u.Name != "" {
			name = u.Name
			home = b.homeInside(u.Home)
		}
	}
	if err := addLine(b.rootfs, "etc/passwd", name, uid, "*:"+uid+":"+gid+":"+name+":"+home+":/bin/sh"); err != nil {
		return err
	}
	return addLine(b.rootfs, "etc/group", name, gid, "x:"+gid+":")
}

// homeInside is the user's home where it is mounted into the container, else the
// directory that the container works in.
func (b *launcher) homeInside(host string) string {
	c := &b.m.rec.Config
	for i := range c.Mounts {
		if path.Clean(c.Mounts[i].Target) == path.Clean(host) {
			return host
		}
	}
	for _, dir := range [...]string{c.WorkingDir, b.m.rec.Image.Config.WorkingDir} {
		if dir != "" {
			if strings.ContainsAny(dir, ":\n") { // it would be another field, or another user
				break
			}
			return dir
		}
	}
	return "/"
}

// addLine adds NAME:rest to a file like passwd(5) or group(5) of a container,
// unless a line there has the id. The file is found as the container would find
// it, and nothing but a regular file is written to.
func addLine(root *os.File, unsafePath, name, id, rest string) error {
	how := unix.OpenHow{
		Flags:   unix.O_RDWR | unix.O_APPEND | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	data, err := readInRoot(root, unsafePath)
	if err != nil || data == nil {
		return err
	}
	taken := false
	for line := range bytes.Lines(data) {
		f := bytes.Split(bytes.TrimSpace(line), []byte{':'})
		if len(f) > 2 && string(f[2]) == id {
			return nil
		}
		taken = taken || string(f[0]) == name
	}
	if taken {
		name = id // the name is another's in this image
	}
	text := name + ":" + rest + "\n"
	if len(data) > 0 && data[len(data)-1] != '\n' {
		text = "\n" + text
	}
	fd, err := unix.Openat2(raw(root), unsafePath, &how)
	if err != nil {
		return &os.PathError{Op: "open in container", Path: unsafePath, Err: err}
	}
	f := os.NewFile(uintptr(fd), unsafePath)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat in container", Path: unsafePath, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errs.New(errs.Invalid, "file %q of the container: not a regular file", unsafePath)
	}
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write in container", Path: unsafePath, Err: err}
	}
	return nil
}
