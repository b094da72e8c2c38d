package why

import (
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/trace"
)

// place is where a path leads in the container: the file, or where it would be
// made the directory.
type place struct {
	fd      int
	dir     bool // the directory that the file is missing in
	st      unix.Stat_t
	mount   string // the mount point
	options string
	typ     string
	kernel  string // the path within the file system
}

func (p *place) close() { _ = unix.Close(p.fd) } // O_PATH; nothing to lose

// path is the path that the call was given, made absolute, and where it leads.
func (k *clue) path() (string, *place) {
	l := layout(k.name)
	base, arg := -1, -1
	for i, kind := range l {
		if kind == 'D' && base < 0 {
			base = i
		}
		if kind == 's' && arg < 0 {
			arg = i
		}
	}
	switch k.name {
	case "mount":
		arg = 1
	case "symlink":
		arg = 1
	case "symlinkat":
		base, arg = 1, 2
	case "fchown", "fchmod", "ftruncate", "fallocate", "write", "pwrite64":
		name, err := os.Readlink(k.proc("fd/" + strconv.Itoa(int(int32(k.c.Args[0])))))
		if err != nil {
			return "", nil
		}
		return name, k.find(name)
	case "sethostname", "setdomainname", "add_key", "request_key", "finit_module", "delete_module":
		return "", nil
	}
	if arg < 0 {
		return "", nil
	}
	name := trace.String(k.pid, k.c.Args[arg])
	if !path.IsAbs(name) {
		dir := k.proc("cwd")
		if base >= 0 && int32(k.c.Args[base]) != unix.AT_FDCWD {
			dir = k.proc("fd/" + strconv.Itoa(int(int32(k.c.Args[base]))))
		}
		from, err := os.Readlink(dir)
		if err != nil {
			return name, nil
		}
		name = path.Join(from, name)
	}
	return path.Clean(name), k.find(name)
}

// find looks a path up as the container would.
func (k *clue) find(name string) *place {
	root, err := unix.Open(k.proc("root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root) //nolint:errcheck // a path
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	p := &place{}
	for p.fd = -1; ; {
		rel := strings.TrimPrefix(name, "/")
		if rel == "" {
			rel = "."
		}
		if p.fd, err = unix.Openat2(root, rel, &how); err == nil {
			break
		}
		if name == "/" || name == "." || name == "" {
			return nil
		}
		// Not there, or closed to us: the directory above it decides.
		name, p.dir = path.Dir(name), true
	}
	if unix.Fstat(p.fd, &p.st) != nil {
		p.close()
		return nil
	}
	var stx unix.Statx_t
	if unix.Statx(p.fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stx) == nil && stx.Mask&unix.STATX_MNT_ID != 0 {
		k.mountOf(p, strconv.FormatUint(stx.Mnt_id, 10))
	}
	return p
}

// mountOf fills in what mountinfo says of a mount.
func (k *clue) mountOf(p *place, id string) {
	text, err := os.ReadFile(k.proc("mountinfo"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[0] != id {
			continue
		}
		p.mount, p.options, p.kernel = f[4], f[5], f[3]
		if _, rest, ok := strings.Cut(line, " - "); ok {
			p.typ, _, _ = strings.Cut(rest, " ")
		}
	}
}

func (p *place) has(option string) bool {
	for o := range strings.SplitSeq(p.options, ",") {
		if o == option {
			return true
		}
	}
	return false
}

func (p *place) device() bool {
	t := p.st.Mode & unix.S_IFMT
	return t == unix.S_IFCHR || t == unix.S_IFBLK
}

// byMount: the mount is read-only.
func (k *clue) byMount() {
	name, at := k.path()
	if at == nil {
		k.is(Mount, "the file lies on a mount that is read-only")
		return
	}
	defer at.close()
	k.r.Proof, k.r.Proven = "/proc/PID/mountinfo has "+at.mount+" with "+at.options, at.has("ro")
	under := func(dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }
	switch {
	case at.typ == "tmpfs" && (under("/proc") || under("/sys")) && !under("/sys/fs/cgroup"):
		k.is(Mount, "%s is masked: an empty directory lies over it, because it tells of the host", at.mount)
		k.r.Flag, k.r.Cost = "--security-opt unmask="+at.mount, "what it tells of the host, or lets root do to it"
	case under("/proc/sys"):
		k.is(Mount, "%s is read-only: most settings there are the whole machine's", at.mount)
		key := strings.ReplaceAll(strings.TrimPrefix(name, "/proc/sys/"), "/", ".")
		k.r.Flag, k.r.Cost = "--sysctl "+key+"=VALUE", "none, where the setting belongs to a namespace of its own (net., kernel.msg*, kernel.shm*, fs.mqueue.)"
		if !namespaced(key) {
			k.r.Flag, k.r.Cost = "--privileged", "the setting is the machine's: it changes for everybody"
			k.r.VM = vmKernel
		}
	case under("/proc"):
		k.is(Mount, "%s is read-only: it concerns the whole machine", at.mount)
		k.r.Flag, k.r.Cost = "--security-opt unmask="+at.mount, "root of the container may change the machine there"
	case under("/sys/fs/cgroup"):
		k.is(Mount, "/sys/fs/cgroup is read-only: the limits are set from outside")
		k.r.Flag, k.r.Cost = "--privileged", "it may lift its own limits, and much else"
	case under("/sys"):
		k.is(Mount, "/sys is read-only: it is the machine's hardware")
		k.r.Flag, k.r.Cost = "--privileged", "it may change settings of the machine's hardware, and much else"
	case at.mount == "/":
		k.is(Mount, "the root file system is read-only")
		k.r.Flag, k.r.Cost = "without --read-only, or --tmpfs "+path.Dir(name)+" (a volume: -v NAME:"+path.Dir(name)+")", "what is written there is gone with the container, or stays in the volume"
	default:
		k.is(Mount, "%s is mounted read-only", at.mount)
		k.r.Flag, k.r.Cost = "the mount without :ro", "the container may change what the host has there"
	}
}

// namespaced reports whether a setting belongs to a namespace of the container.
func namespaced(key string) bool {
	for _, p := range [...]string{"net.", "kernel.msg", "kernel.shm", "kernel.sem", "fs.mqueue.", "kernel.domainname"} {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

// byExec: a file that cannot be executed.
func (k *clue) byExec(name string, at *place) {
	if at == nil {
		return
	}
	defer at.close()
	switch {
	case at.dir:
		return // a directory of PATH that has it not
	case at.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		k.is(Permission, "%s is a directory", name)
	case at.has("noexec"):
		k.is(Mount, "%s is mounted noexec", at.mount)
		k.r.Proof, k.r.Proven = "/proc/PID/mountinfo has "+at.mount+" with "+at.options, true
		k.r.Flag, k.r.Cost = "the mount with exec (--tmpfs "+at.mount+":exec)", "what is written there can be run"
	case at.st.Mode&0o111 == 0:
		k.is(Permission, "%s is not executable (mode %04o)", name, at.st.Mode&0o7777)
		k.r.Proof, k.r.Proven = "its mode has no x", true
		k.r.Flag, k.r.Cost = "chmod +x in the image", "none"
	default:
		k.byMode(name, at, unix.CAP_DAC_OVERRIDE)
	}
}

// byFile: a file that cannot be opened.
func (k *clue) byFile(name string, at *place) {
	if at.device() && !at.dir {
		switch {
		case at.has("nodev"):
			k.is(Mount, "%s is mounted nodev: device nodes there do not count", at.mount)
			k.r.Proof, k.r.Proven = "/proc/PID/mountinfo has "+at.mount+" with "+at.options, true
			k.r.Flag, k.r.Cost = "--device with the device's path", "the container may use the device"
			return
		case k.c.Err == unix.EPERM:
			major, minor := unix.Major(at.st.Rdev), unix.Minor(at.st.Rdev)
			kind := "c"
			if at.st.Mode&unix.S_IFMT == unix.S_IFBLK {
				kind = "b"
			}
			k.is(Device, "the container's device rules do not allow %s %d:%d", kind, major, minor)
			k.r.Flag, k.r.Cost = "--device "+name+" (or --device-cgroup-rule='"+kind+" "+strconv.Itoa(int(major))+":"+strconv.Itoa(int(minor))+" rw')", "the container may use the device: a disk holds the host's files"
			if r := k.againOutside(); r.tried && r.errno != unix.EPERM {
				k.prove("the same call outside the container's cgroup", result(r.errno))
			} else if r.tried {
				k.r.Behind = "the machine's own rules refuse it as well, outside of any container"
			}
			return
		}
	}
	if k.c.Err == unix.EPERM {
		// Files of /proc and /sys ask for capabilities of their own.
		if p, ok := powerFor(k.name, k.c, name); ok {
			k.byPower(p)
			return
		}
		if strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/sys/") {
			k.is(Capability, "the kernel asks for a capability over what %s tells of", name)
			k.tryCaps()
			return
		}
		if at.st.Mode&unix.S_IFMT == unix.S_IFREG {
			k.is(Permission, "the file is immutable or append-only (chattr), or O_NOATIME is not allowed")
		}
		return
	}
	k.byMode(name, at, unix.CAP_DAC_OVERRIDE)
}

// byDirectory: a name that cannot be made, removed or changed.
func (k *clue) byDirectory(name string, at *place) {
	if !at.dir {
		// The directory that holds the name decides.
		if up := k.find(path.Dir(name)); up != nil {
			defer up.close()
			at = up
		}
	}
	if k.c.Err == unix.EPERM && at.st.Mode&unix.S_ISVTX != 0 {
		k.is(Permission, "the directory is sticky: only the owner of a file removes it")
		k.flagCap(unix.CAP_FOWNER)
		return
	}
	k.byMode(path.Dir(name), at, unix.CAP_DAC_OVERRIDE)
}

// byMode: permission bits, or owners that the user namespace does not know.
func (k *clue) byMode(name string, at *place, power int) {
	mode := at.st.Mode & 0o7777
	owner, group := uint64(at.st.Uid), uint64(at.st.Gid)
	known := func(file string, host uint64) bool {
		for _, m := range k.maps(file) {
			if host >= m[1] && host < m[1]+m[2] {
				return true
			}
		}
		return false
	}
	if lsm := k.lsm(); lsm != "" && k.effective.Has(power) {
		k.is(LSM, "the process is confined by %s", lsm)
		return
	}
	if k.own && (!known("uid_map", owner) || !known("gid_map", group)) {
		k.is(Mapping, "%s belongs to uid %d and gid %d of the host, which the container has no ids for: not even its root has power over it", name, owner, group)
		k.r.Proof, k.r.Proven = "stat outside says "+strconv.FormatUint(owner, 10)+":"+strconv.FormatUint(group, 10)+", uid_map and gid_map lack them", true
		k.r.Flag, k.r.Cost = "chown to an id of the container (podman unshare-like), :U on the volume, or --userns=keep-id", "none"
		return
	}
	k.is(Permission, "%s has mode %04o; the process is user %d, group %d", name, mode, k.uid, k.gid)
	if at.dir {
		k.is(Permission, "a directory on the way to it has mode %04o; the process is user %d, group %d", mode, k.uid, k.gid)
	}
	k.r.Flag, k.r.Cost = "--user with the owner, or chmod/chown", "none"
	if !k.effective.Has(power) {
		k.r.Text += ", without " + caps.Name(power)
		if r := k.again(k.filter, k.effective|1<<power); r.tried && r.errno == 0 {
			k.prove("the same call with "+caps.Name(power), "succeeded")
		}
	}
}

// byNode: mknod(2).
func (k *clue) byNode(name string) {
	arg := 1
	if k.name == "mknodat" {
		arg = 2
	}
	if t := k.c.Args[arg] & unix.S_IFMT; k.c.Err == unix.EACCES || t != unix.S_IFCHR && t != unix.S_IFBLK {
		_, at := k.path()
		if at != nil {
			defer at.close()
			k.byDirectory(name, at)
		}
		return
	}
	if k.effective.Has(unix.CAP_MKNOD) && !k.own {
		k.is(Device, "the process may make nodes, but not for this device: the container's rules do not allow it")
		dev := k.c.Args[arg+1]
		kind := "c"
		if k.c.Args[arg]&unix.S_IFMT == unix.S_IFBLK {
			kind = "b"
		}
		k.r.Flag = "--device-cgroup-rule='" + kind + " " + strconv.Itoa(int(unix.Major(dev))) + ":" + strconv.Itoa(int(unix.Minor(dev))) + " m'"
		k.r.Cost = "the container may make a node for it; to open it, rw is needed as well"
		return
	}
	k.byPower(power{cap: unix.CAP_MKNOD, machine: true})
	if k.own {
		k.r.Flag, k.r.Cost = "--device with the host's node", "the container may use the device"
	}
}

// byMissingDevice: a device that the container was not given.
func (k *clue) byMissingDevice() {
	name, at := k.path()
	if at != nil {
		defer at.close()
	}
	if !strings.HasPrefix(name, "/dev/") || strings.HasPrefix(name, "/dev/pts") || strings.HasPrefix(name, "/dev/shm") {
		return
	}
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR && st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return // the host has none either
	}
	k.is(Device, "the host has %s, but the container was not given it", name)
	k.r.Proof, k.r.Proven = "the host's "+name+" is a device; the container's /dev has only harmless ones", true
	k.r.Flag, k.r.Cost = "--device "+name, "the container may use the device"
}

// bySpace: a file system that is full.
func (k *clue) bySpace() {
	_, at := k.path()
	if at == nil {
		k.is(Limit, "a file system is full")
		return
	}
	defer at.close()
	var fs unix.Statfs_t
	if unix.Fstatfs(at.fd, &fs) != nil {
		return
	}
	total := int64(fs.Blocks) * fs.Bsize
	k.is(Limit, "the file system at %s is full (%s)", at.mount, size(total))
	k.r.Proof, k.r.Proven = "statfs says "+size(int64(fs.Bavail)*fs.Bsize)+" free of "+size(total), fs.Bavail == 0
	switch {
	case at.mount == "/dev/shm":
		k.r.Flag, k.r.Cost = "--shm-size with more", "memory"
	case at.typ == "tmpfs":
		k.r.Flag, k.r.Cost = "--tmpfs "+at.mount+":size=BYTES", "memory"
	default:
		k.r.Flag, k.r.Cost = "room on the host's disk (isle system df shows what isle uses)", "none"
	}
}
