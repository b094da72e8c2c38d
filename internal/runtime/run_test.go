package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/testenv"
)

// has fails unless every one of want is a line of out.
func has(t *testing.T, out string, want ...string) {
	t.Helper()
	lines := strings.Split(strings.ReplaceAll(out, "\r", ""), "\n")
	for _, w := range want {
		if !slices.Contains(lines, w) {
			t.Errorf("no line %q in\n%s", w, out)
		}
	}
}

func TestWhatTheProcessSees(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t), "sh", "-c", `id; hostname; pwd; echo pid $$; cat /proc/self/status | tr '\t' ' '; ls /proc/self/fd | tr '\n' ' '; echo
		for f in /proc/1/exe; do readlink $f; done; ip link | grep -c UP; cat /proc/net/dev | wc -l; env | sort`)
	s.Linux.Seccomp = seccomp.Default(dockerCaps())
	r := run(t, s, Options{Pdeathsig: true})
	if r.code != 0 {
		t.Errorf("exit code %d", r.code)
	}
	has(t, r.out, "uid=0 gid=0", "box", "/", "pid 1", "NoNewPrivs: 0", "Seccomp: 2", "Umask: 0022", "Groups:  ",
		"CapInh: 0000000000000000", "CapPrm: 00000000a80425fb", "CapEff: 00000000a80425fb", "CapBnd: 00000000a80425fb", "CapAmb: 0000000000000000",
		"SigBlk: 0000000000000000", "SigIgn: 0000000000000000", "0 1 2 3 ", "/bin/sh", "1", "HOME=/root")
	if r.proc.StartTime == 0 || len(r.proc.Warnings) != 0 {
		t.Errorf("start time %d, warnings %v", r.proc.StartTime, r.proc.Warnings)
	}
}

func TestMountsOfTheDefaultSpec(t *testing.T) {
	testenv.Need(t, testenv.Root)
	r := run(t, docker(rootfs(t), "sh", "-c", `sed 's/^[0-9]* [0-9]* [0-9:]* //; s/ - / /; s/,inode64$//' /proc/self/mountinfo; echo; stat -c '%n %F %t:%T %a' /dev/null /dev/tty /dev/shm; cat /proc/kcore /proc/keys | wc -c; ls /sys/firmware | wc -l; (echo x >/proc/sys/kernel/domainname) 2>&1 | sed 's/.*: //;s/^/sysctl /'; touch /sys/x 2>&1 | sed 's/.*: //'; cat </dev/zero | head -c 3 | wc -c; ls -l /dev/fd /dev/ptmx | sed 's/.*-> //'`), Options{})
	has(t, r.out,
		"/ /proc rw,nosuid,nodev,noexec,relatime proc proc rw",
		"/ /sys ro,nosuid,nodev,noexec,relatime sysfs sysfs rw",
		"/ /dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue mqueue rw",
		"/ /dev/shm rw,nosuid,nodev,noexec,relatime tmpfs shm rw,size=65536k",
		"/sys /proc/sys ro,nosuid,nodev,noexec,relatime proc proc rw",
		"/dev/null character special file 1:3 666", "/dev/tty character special file 5:0 666", "/dev/shm directory 0:0 1777",
		"0", "sysctl Read-only file system", "Read-only file system", "3", "/proc/self/fd", "pts/ptmx")
	for line := range strings.SplitSeq(r.out, "\n") {
		if strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
			t.Errorf("a mount that propagates: %s", line)
		}
	}
}

func nsID(t *testing.T, pid int, name string) string {
	t.Helper()
	l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var nsNames = map[specs.LinuxNamespaceType]string{
	specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.MountNamespace: "mnt", specs.IPCNamespace: "ipc",
	specs.UTSNamespace: "uts", specs.UserNamespace: "user", specs.CgroupNamespace: "cgroup", specs.TimeNamespace: "time",
}

func idRange(inside, outside, size uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: inside, HostID: outside, Size: size}}
}

// Each namespace is new, the host's or another container's, in the
// combinations that take one clone, a clone and unshare, or two clones.
func TestNamespaces(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	all := []specs.LinuxNamespaceType{"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"}
	first := docker(root)
	first.Linux.Namespaces = nil
	for _, n := range all {
		first.Linux.Namespaces = append(first.Linux.Namespaces, specs.LinuxNamespace{Type: n})
	}
	first.Linux.UIDMappings, first.Linux.GIDMappings = idRange(0, 0, 65536), idRange(0, 0, 65536)
	other := running(t, first, Options{})
	for _, n := range all {
		if nsID(t, other.Pid, nsNames[n]) == nsID(t, os.Getpid(), nsNames[n]) {
			t.Errorf("%s: not a new one", n)
		}
	}
	for _, c := range []struct{ name, new, join string }{
		{"default", "mount pid network ipc uts cgroup", ""},
		{"all host's", "mount", ""},
		{"user new", "mount pid network ipc uts cgroup user", ""},
		{"user new, rest host's", "mount user", ""},
		{"time new", "mount pid time", ""},
		{"net joined", "mount pid ipc uts cgroup", "network"},
		{"net ipc uts cgroup joined", "mount pid", "network ipc uts cgroup"},
		{"pid joined", "mount ipc", "pid"},
		{"time joined", "mount pid", "time"},
		{"user joined", "mount network uts ipc", "user"},
		{"user joined, pid new", "mount network uts ipc pid cgroup", "user"},
		{"all joined", "mount", "pid network ipc uts user cgroup time"},
		{"user new, net joined", "mount pid ipc uts user", "network"},
		{"user and time new, net and pid joined", "mount ipc uts user time", "network pid"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			s := docker(root)
			s.Hostname = ""
			s.Linux.Namespaces = nil
			// What shows a namespace that is not ours cannot be mounted anew.
			s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" })
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
			for n := range strings.FieldsSeq(c.new) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(n)})
				if n == "user" {
					s.Linux.UIDMappings, s.Linux.GIDMappings = idRange(0, 0, 65536), idRange(0, 0, 65536)
				}
			}
			for n := range strings.FieldsSeq(c.join) {
				typ := specs.LinuxNamespaceType(n)
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: typ, Path: fmt.Sprintf("/proc/%d/ns/%s", other.Pid, nsNames[typ])})
			}
			got := running(t, s, Options{})
			for _, n := range all {
				mine := nsID(t, got.Pid, nsNames[n])
				host, theirs := nsID(t, os.Getpid(), nsNames[n]), nsID(t, other.Pid, nsNames[n])
				switch {
				case slices.Contains(strings.Fields(c.new), string(n)):
					if mine == host || mine == theirs {
						t.Errorf("%s: not a new one", n)
					}
				case slices.Contains(strings.Fields(c.join), string(n)):
					if mine != theirs {
						t.Errorf("%s: not the other's", n)
					}
				default:
					if mine != host {
						t.Errorf("%s: not the host's", n)
					}
				}
			}
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", got.Pid)); err != nil || string(b) != "sleep\n" {
				t.Errorf("pid %d is %q, %v", got.Pid, b, err)
			}
			if st, err := startTime(got.Pid); err != nil || st != got.StartTime {
				t.Errorf("start time %d, is %d, %v", got.StartTime, st, err)
			}
		})
	}
	noMountsOf(t, root)
}

// noMountsOf fails if this process sees a mount of root: something came back.
func noMountsOf(t *testing.T, root string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.Contains(line, root) {
			t.Errorf("left on the host: %s", line)
		}
	}
}

func TestNetworkNamespaceMadeAhead(t *testing.T) {
	testenv.Need(t, testenv.Root)
	type made struct {
		f   *os.File
		err error
	}
	c := make(chan made)
	go func() { // its thread, which is in the new namespace, ends with it
		f, err := NewNetns()
		c <- made{f, err}
	}()
	m := <-c
	if m.err != nil {
		t.Fatal(m.err)
	}
	defer m.f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(m.f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	r := run(t, docker(rootfs(t), "sh", "-c", "readlink /proc/self/ns/net; cat /sys/class/net/lo/flags; ls /sys/class/net"), Options{Netns: m.f})
	if want := fmt.Sprintf("net:[%d]\n0x9\nlo\n", st.Ino); r.out != want {
		t.Errorf("the container saw %q, not %q", r.out, want)
	}
}

func TestUserNamespaceMapping(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	if err := os.Chown(root, 100000, 100000); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	s := docker(root, "sh", "-c", "id; tr -s ' ' </proc/self/uid_map; touch /made && stat -c '%u %g' /made; ls -ln /dev/null | tr -s ' '; cat </dev/zero | head -c 2 | wc -c; touch /etc/refused || echo refused")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	s.Linux.UIDMappings, s.Linux.GIDMappings = idRange(0, 100000, 1000), idRange(0, 100000, 1000)
	s.Process.Cwd = "/work/dir"
	r := run(t, s, Options{})
	has(t, r.out, "uid=0 gid=0", " 0 100000 1000", "0 0", "2", "refused")
	for _, name := range []string{"made", "work/dir"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil || st.Uid != 100000 || st.Gid != 100000 {
			t.Errorf("%s: %v, owner %d:%d", name, err, st.Uid, st.Gid)
		}
	}
}

func TestTimeOffsets(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t), "sed", `s/\..*//`, "/proc/uptime")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}, "monotonic": {Secs: 86400, Nanosecs: 5}}
	r := run(t, s, Options{})
	var up int
	if _, err := fmt.Sscan(r.out, &up); err != nil || up < 1000000 {
		t.Errorf("uptime %q, %v", r.out, err)
	}
}

func TestUserGroupsAndDirectory(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	s := docker(root, "sh", "-c", `id; grep Groups /proc/self/status | tr '\t' ' '; grep Cap /proc/self/status | tr '\t' ' '; pwd; touch here; stat -c '%u %g %a' /srv/app; echo again >/dev/stdout; umask; stat -c %u /proc/$$`)
	umask := uint32(0o027)
	s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 44}, Umask: &umask}
	s.Process.Cwd = "/srv/app"
	r := run(t, s, Options{})
	has(t, r.out, "uid=1000 gid=1001 groups=5,44", "Groups: 5 44 ", "CapPrm: 0000000000000000", "CapEff: 0000000000000000",
		"CapBnd: 00000000a80425fb", "CapAmb: 0000000000000000", "/srv/app", "1000 1001 755", "again", "0027", "1000")
	if r.code != 0 {
		t.Errorf("exit code %d", r.code)
	}
}

func TestAmbientCapabilities(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t), "sh", "-c", "grep Cap /proc/self/status | tr '\t' ' '")
	s.Process.User.UID = 1000
	net := []string{"CAP_NET_BIND_SERVICE"}
	s.Process.Capabilities.Inheritable, s.Process.Capabilities.Ambient = net, net
	r := run(t, s, Options{})
	has(t, r.out, "CapInh: 0000000000000400", "CapPrm: 0000000000000400", "CapEff: 0000000000000400", "CapAmb: 0000000000000400")
}

func TestNoNewPrivilegesAndSeccomp(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	// The filter refuses all that could follow its installation but capset and
	// execve: the order of the program is part of what is tested.
	errno := uint(unix.EPERM)
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{
		Names: []string{"prctl", "setresuid", "setresgid", "setgroups", "fchdir", "dup3", "close_range", "umask", "setsid", "mount", "fcntl", "sendto"}, Action: specs.ActErrno, ErrnoRet: &errno,
	}}}
	for _, uid := range []uint32{0, 1000} {
		for _, nnp := range []bool{false, true} {
			s := docker(root, "cat", "/proc/self/status")
			s.Linux.Seccomp = profile
			s.Process.User.UID = uid
			s.Process.NoNewPrivileges = nnp
			r := run(t, s, Options{Pdeathsig: true})
			want := "NoNewPrivs: 0"
			if nnp {
				want = "NoNewPrivs: 1"
			}
			has(t, strings.ReplaceAll(r.out, "\t", " "), "Seccomp: 2", "Seccomp_filters: 1", want, fmt.Sprintf("Uid: %[1]d %[1]d %[1]d %[1]d", uid))
		}
	}
}

func TestLimits(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t), "sh", "-c", "grep -E 'open files|core file' /proc/self/limits | tr -s ' '; cat /proc/self/oom_score_adj")
	adj := 321
	s.Process.OOMScoreAdj = &adj
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}
	r := run(t, s, Options{})
	has(t, r.out, "Max core file size 1 2 bytes ", "321")
	if !strings.Contains(r.out, "Max open files 1024 ") {
		t.Errorf("limit of open files is not the usual one: %s", r.out)
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	if testenv.Has(t, testenv.SysResource) {
		t.Skip("needs a process that may not raise limits; the machine's root may")
	}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: now.Max + 10, Hard: now.Max + 10}}
	adj = -1000
	r = run(t, s, Options{})
	has(t, r.out, fmt.Sprintf("Max open files %d %d files ", now.Max, now.Max))
	if len(r.proc.Warnings) != 2 {
		t.Fatalf("warnings %v", r.proc.Warnings)
	}
	for i, want := range []string{"oom_score_adj -1000: stays at ", "limit nofile: prlimit64: operation not permitted"} {
		if !strings.Contains(fmt.Sprint(r.proc.Warnings), want) {
			t.Errorf("warning %d: no %q in %v", i, want, r.proc.Warnings)
		}
	}
}

func TestReadonlyRootHostnameSysctl(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	s := docker(root, "sh", "-c", "touch /x 2>&1; touch /dev/shm/x && echo shm; hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/conf/lo/forwarding; pwd")
	s.Root.Readonly = true
	s.Process.Cwd = "/new/dir"
	s.Domainname = "example.org"
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shm_rmid_forced": "1", "net/ipv4/conf/lo/forwarding": "1"}
	r := run(t, s, Options{})
	has(t, r.out, "touch: /x: Read-only file system", "shm", "box", "example.org", "77", "1", "/new/dir")
	for key, want := range map[string]string{
		"kernel.core_pattern":           `sysctl "kernel.core_pattern" is not in a separate kernel namespace`,
		"net.../../kernel/core_pattern": `sysctl "net.../../kernel/core_pattern": not a name`,
		"kernel/../vm/x":                `sysctl "kernel/../vm/x": not a name`,
		"kernel.hostname":               `sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field`,
		"vm":                            `sysctl "vm": unknown`,
	} {
		s.Linux.Sysctl = map[string]string{key: "1"}
		if _, err := Compile(s, Options{}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", key, err)
		}
	}
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == "network" })
	if _, err := Compile(s, Options{}); err == nil || err.Error() != `sysctl "net.ipv4.ip_forward" not allowed in host network namespace` {
		t.Errorf("host's network: %v", err)
	}
}

func TestBindMounts(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if !testenv.Unshare(t, unix.CLONE_NEWNS) {
		return
	}
	root, host := rootfs(t), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(host+"/file", []byte("content\n"), 0o644))
	must(os.MkdirAll(host+"/dir/below", 0o755))
	must(unix.Mount("tmpfs", host+"/dir/below", "tmpfs", 0, ""))
	must(os.WriteFile(host+"/dir/below/f", nil, 0o644))
	must(os.Mkdir(host+"/shared", 0o755))
	must(unix.Mount("tmpfs", host+"/shared", "tmpfs", 0, ""))
	must(unix.Mount("", host+"/shared", "", unix.MS_SHARED, ""))
	must(os.Mkdir(host+"/shared/later", 0o755))
	t.Cleanup(func() {
		for _, d := range []string{"/shared/later", "/shared", "/dir/below"} {
			_ = unix.Unmount(host+d, unix.MNT_DETACH) // so that the directory can be removed
		}
	})
	must(os.Symlink("../run/gone/file", root+"/etc/dangling"))
	must(os.WriteFile(root+"/etc/existing", nil, 0o644))
	s := docker(root, "sh", "-c", `
		cat /etc/existing /new/deep/file /etc/dangling; readlink /etc/dangling; ls /run/gone
		touch /ro/below/x 2>&1 | sed 's/.*: //'; touch /ro/x 2>&1 | sed 's/.*: //'
		touch /rro/below/x 2>&1 | sed 's/.*: //'
		ls /norec/below | wc -l; ls /rec/below
		sed 's/^[0-9]* [0-9]* [0-9:]* [^ ]* //; s/ - .*//' /proc/self/mountinfo | grep -E '^/(slave|shared|noexec) ' | sed 's/[0-9]*$/N/'
		stat -c '%n %a' /tmp/keep /tmp/set
		echo ready; read x </fifo; cat /slave/later/marker; cat /shared/later/marker; cat /private/later/marker 2>&1 | sed 's/.*: //'`)
	must(os.MkdirAll(root+"/tmp/keep", 0o750))
	must(unix.Mkfifo(root+"/fifo", 0o600))
	bind := func(src, dst string, opts ...string) {
		s.Mounts = append(s.Mounts, specs.Mount{Source: src, Destination: dst, Type: "bind", Options: opts})
	}
	bind(host+"/file", "/etc/existing", "rbind", "ro")
	bind(host+"/file", "/new/deep/file", "rbind", "ro")
	bind(host+"/file", "/etc/dangling", "bind")
	bind(host+"/dir", "/ro", "rbind", "ro")
	bind(host+"/dir", "/rro", "rbind", "rro")
	bind(host+"/dir", "/norec", "bind")
	bind(host+"/dir", "/rec", "rbind", "rprivate")
	bind(host+"/dir", "/noexec", "bind", "noexec", "nosuid", "nodev", "noatime")
	bind(host+"/shared", "/slave", "rbind", "rslave")
	bind(host+"/shared", "/shared", "rbind", "rshared")
	bind(host+"/shared", "/private", "rbind")
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/tmp/keep", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec"}},
		specs.Mount{Destination: "/tmp/set", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=0700"}})
	go func() {
		f, err := os.OpenFile(root+"/fifo", os.O_WRONLY, 0) // waits for the container
		if err != nil {
			return
		}
		_ = unix.Mount("tmpfs", host+"/shared/later", "tmpfs", 0, "")
		_ = os.WriteFile(host+"/shared/later/marker", []byte("marker\n"), 0o644)
		_, _ = f.WriteString("go\n")
		_ = f.Close()
	}()
	r := run(t, s, Options{})
	want := []string{
		"content", "content", "content", "../run/gone/file", "file",
		"Read-only file system", // /ro/x; /ro/below/x was written: ro is one mount's
		"Read-only file system", // /rro/below/x
		"0", "f", "x",
		"/noexec rw,nosuid,nodev,noexec,noatimeN", "/shared rw,relatime shared:N", "/slave rw,relatime master:N",
		"/tmp/keep 750", "/tmp/set 700", "ready", "marker", "marker", "No such file or directory",
	}
	got := strings.Split(strings.TrimSpace(r.out), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s\nin\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), r.out)
	}
	noMountsOf(t, root)
}

func TestPreparedBindAndRootfs(t *testing.T) {
	testenv.Need(t, testenv.Root)
	testenv.Need(t, testenv.Overlay)
	lower, dir := rootfs(t), testenv.Dir(t)
	root := overlay(t, lower, dir)
	defer root.Close()
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/usr/share", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	share := os.NewFile(uintptr(fd), "share")
	defer share.Close()
	s := docker("", "sh", "-c", "ls -d /mnt/share/doc; touch /written /mnt/share/x")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt/share", Source: "/gone/by/now", Type: "bind", Options: []string{"rbind", "ro"}})
	r := run(t, s, Options{Rootfs: root, Binds: map[string]*os.File{"/mnt/share": share}})
	has(t, r.out, "/mnt/share/doc", "touch: /mnt/share/x: Read-only file system")
	if _, err := os.Stat(dir + "/upper/written"); err != nil {
		t.Error(err)
	}
}

func TestDevices(t *testing.T) {
	testenv.Need(t, testenv.Root)
	mode, uid, gid := os.FileMode(0o640), uint32(7), uint32(8)
	s := docker(rootfs(t), "sh", "-c", "stat -c '%n %F %t:%T %a %u %g' /dev/null /dev/fuse /dev/net/tun /dev/pipe; ")
	s.Linux.Devices = []specs.LinuxDevice{
		{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &uid, GID: &gid},
		{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200},
		{Path: "/dev/pipe", Type: "p"},
		{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode},
	}
	r := run(t, s, Options{})
	has(t, r.out, "/dev/null character special file 1:3 640 0 0", "/dev/fuse character special file a:e5 640 7 8", "/dev/net/tun character special file a:c8 666 0 0", "/dev/pipe fifo 0:0 666 0 0")
}
