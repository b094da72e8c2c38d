package monitor

import (
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/spec"
)

// The three files of /etc that every container gets, in its directory. They are
// written anew at each start, as Docker does.

// etcFiles says where they are. A container that shares another's network
// shares its files as well; peer is that container's directory.
func (m *monitor) etcFiles(peer string) spec.EtcFiles {
	files := spec.EtcFiles{Hostname: m.dir + "/hostname", Hosts: m.dir + "/hosts", Resolv: m.dir + "/resolv.conf"}
	if peer != "" {
		files.Hosts, files.Resolv = peer+"/hosts", peer+"/resolv.conf"
		if m.rec.Config.Hostname == "" {
			files.Hostname = peer + "/hostname"
		}
	}
	return files
}

// writeEtc writes those of the files that are this container's own.
func (m *monitor) writeEtc(files spec.EtcFiles, hostname string) error {
	c := &m.rec.Config
	own := m.dir + "/"
	if strings.HasPrefix(files.Hostname, own) {
		if c.Domainname != "" {
			hostname += "." + c.Domainname
		}
		if err := m.writePlain(files.Hostname, []byte(hostname+"\n")); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(files.Hosts, own) {
		return nil
	}
	hosts, err := m.hostsFile(strings.TrimSpace(hostname))
	if err != nil {
		return err
	}
	if err := m.writePlain(files.Hosts, hosts); err != nil {
		return err
	}
	return m.writePlain(files.Resolv, []byte(m.resolvFile()))
}

// writePlain writes a file that may be there from an earlier start, keeping the
// inode, for the container's root. The container may have written to it; nobody
// else reads it now.
func (m *monitor) writePlain(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	n, err := unix.Write(fd, data)
	if err == nil && n < len(data) {
		err = unix.ENOSPC // a regular file takes less only when the disk is full
	}
	if err == nil {
		err = m.maps.giveRoot(fd)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

const hostsHead = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\n" +
	"ff02::1\tip6-allnodes\n" +
	"ff02::2\tip6-allrouters\n"

// maxEtc bounds what is read of a host's file.
const maxEtc = 1 << 20

// readBounded reads a file of the host.
func readBounded(path string, limit int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // read only; nothing to lose
	return readFD(fd, path, limit)
}

// readFD reads all of an open file, at most limit bytes.
func readFD(fd int, path string, limit int) ([]byte, error) {
	var b []byte
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return b, nil
		}
		b = append(b, buf[:n]...)
		if len(b) > limit && !defence.Removed("limits") {
			return nil, errs.New(errs.Invalid, "file %q: larger than %d bytes", path, limit)
		}
	}
}

// readInRoot reads a small regular file of a container's root file system, as
// the container would find it; nil when there is none. Its content is the
// image's: whoever parses it trusts nothing (a huge /etc/group was
// CVE-2026-47262).
func readInRoot(root *os.File, unsafePath string) ([]byte, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: defence.Resolve(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS),
	}
	var fd int
	var err error
	for {
		// EAGAIN: something was renamed meanwhile, so that the kernel could not be sure.
		if fd, err = unix.Openat2(raw(root), unsafePath, &how); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return nil, nil
	default:
		return nil, &fs.PathError{Op: "open in image", Path: unsafePath, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // read only; nothing to lose
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat in image", Path: unsafePath, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errs.New(errs.Invalid, "file %q of the image: not a regular file", unsafePath)
	}
	return readFD(fd, unsafePath, maxEtc)
}
