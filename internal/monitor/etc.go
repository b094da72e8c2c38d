package monitor

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/spec"
)

// The three files of /etc that every container gets, in its directory. They are
// written anew at each start, as Docker does.

// writeEtc writes them and says where they are. A container that shares
// another's network shares its files as well (peer is that container's directory).
func (m *monitor) writeEtc(hostname, peer string) (spec.EtcFiles, error) {
	dir := m.dir
	c := &m.rec.Config
	files := spec.EtcFiles{Hostname: dir + "/hostname", Hosts: dir + "/hosts", Resolv: dir + "/resolv.conf"}
	if peer != "" {
		files.Hosts, files.Resolv = peer+"/hosts", peer+"/resolv.conf"
		if c.Hostname == "" {
			files.Hostname = peer + "/hostname"
			return files, nil
		}
		return files, writePlain(files.Hostname, []byte(hostname+"\n"))
	}
	full := hostname
	if c.Domainname != "" {
		full += "." + c.Domainname
	}
	hosts, err := hostsFile(c, full)
	if err != nil {
		return files, err
	}
	for _, f := range [...]struct {
		path string
		data []byte
	}{
		{files.Hostname, []byte(full + "\n")}, {files.Hosts, hosts}, {files.Resolv, resolvFile(c)},
	} {
		if err := writePlain(f.path, f.data); err != nil {
			return files, err
		}
	}
	return files, nil
}

// writePlain writes a file that may be there from an earlier start, keeping the
// inode. The container may have written to it; nobody else reads it now.
func writePlain(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	n, err := unix.Write(fd, data)
	if err == nil && n < len(data) {
		err = unix.ENOSPC // a regular file takes less only when the disk is full
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

// hostsFile is the container's /etc/hosts: the host's own where it is in the
// host's network, and what --add-host says.
func hostsFile(c *container.Config, hostname string) ([]byte, error) {
	b := []byte(hostsHead)
	if c.Network == "host" {
		if host, err := readBounded("/etc/hosts", maxEtc); err == nil {
			b = host
			if len(b) > 0 && b[len(b)-1] != '\n' {
				b = append(b, '\n')
			}
		}
	}
	for _, h := range c.ExtraHosts {
		name, ip, ok := strings.Cut(h, ":")
		if alt, altIP, altOK := strings.Cut(h, "="); altOK && (!ok || len(alt) < len(name)) {
			name, ip = alt, altIP
		}
		ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
		if ip == "host-gateway" {
			if c.Network != "host" {
				return nil, errs.New(errs.Unsupported, "add-host %q: this network has no gateway", h)
			}
			ip = "127.0.0.1"
		}
		b = append(b, ip+"\t"+name+"\n"...)
	}
	return b, nil
}

// resolvFile is the container's /etc/resolv.conf: the host's, changed by the
// --dns options. In a network of its own the host's loopback addresses mean
// nothing; where systemd-resolved hides the real servers behind one, they
// are taken from its own file.
func resolvFile(c *container.Config) []byte {
	host, _ := readBounded("/etc/resolv.conf", maxEtc) // a host without one resolves nothing
	own := c.Network != "host"
	if own && onlyStub(host) {
		if real, err := readBounded("/run/systemd/resolve/resolv.conf", maxEtc); err == nil {
			host = real
		}
	}
	if !own && len(c.DNS)+len(c.DNSSearch)+len(c.DNSOptions) == 0 {
		return host
	}
	servers, search, options := c.DNS, c.DNSSearch, c.DNSOptions
	sc := bufio.NewScanner(bytes.NewReader(host))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if len(c.DNS) == 0 && !(own && isLoopback(f[1])) {
				servers = append(servers, f[1])
			}
		case "search", "domain":
			if len(c.DNSSearch) == 0 {
				search = f[1:] // the last one counts (resolv.conf(5))
			}
		case "options":
			if len(c.DNSOptions) == 0 {
				options = append(options, f[1:]...)
			}
		}
	}
	var b []byte
	for _, s := range servers {
		b = append(b, "nameserver "+s+"\n"...)
	}
	if len(search) > 0 && !(len(search) == 1 && search[0] == ".") {
		b = append(b, "search "+strings.Join(search, " ")+"\n"...)
	}
	if len(options) > 0 {
		b = append(b, "options "+strings.Join(options, " ")+"\n"...)
	}
	return b
}

func isLoopback(ip string) bool { return strings.HasPrefix(ip, "127.") || ip == "::1" }

// onlyStub reports whether the only name server is systemd-resolved's.
func onlyStub(resolv []byte) bool {
	stub := false
	for line := range bytes.Lines(resolv) {
		f := strings.Fields(string(line))
		if len(f) > 1 && f[0] == "nameserver" {
			if f[1] != "127.0.0.53" {
				return false
			}
			stub = true
		}
	}
	return stub
}

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
		if len(b) > limit {
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
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
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
