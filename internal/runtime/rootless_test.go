package runtime

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/testenv"
)

// The container of an ordinary user: its root is root of the user's own
// namespace, in which the caller already is.
func TestInUserNamespace(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.AsUser(t) {
		return
	}
	if !testenv.Unshare(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNS) {
		return
	}
	root := rootfs(t)
	s := docker(root, "sh", "-c", `id; cat /proc/self/uid_map | tr -s ' '; stat -c '%n %t:%T' /dev/null /dev/tty /dev/zero; head -c 2 /dev/zero | wc -c; echo x >/dev/null
		ls /sys/firmware /proc/acpi 2>/dev/null | wc -l; (echo x >/proc/sys/kernel/domainname) 2>&1 | sed 's/.*: //'; grep -E 'Cap|Seccomp:' /proc/self/status | tr '\t' ' '; hostname; ip link | grep -c UP; ls /proc/self/fd | tr '\n' ' '; echo; grep -c . /proc/self/mountinfo; mkdir /made; chmod 700 /made`)
	s.Linux.Seccomp = seccomp.Default(dockerCaps())
	s.Process.User.AdditionalGids = []uint32{0, 10, 20}
	s.Process.Cwd = "/missing/dir"
	r := run(t, s, Options{Pdeathsig: true})
	has(t, r.out, "uid=0 gid=0 groups=0", "/dev/null 1:3", "/dev/tty 5:0", "/dev/zero 1:5", "2", "Read-only file system", "CapEff: 00000000a80425fb", "CapBnd: 00000000a80425fb",
		"Seccomp: 2", "box", "1", "0 1 2 3 ")
	// A namespace of one id has no other groups, and setgroups(2) is off.
	if len(r.proc.Warnings) != 1 || !strings.HasPrefix(r.proc.Warnings[0].Error(), "user: setgroups: ") {
		t.Errorf("warnings %v", r.proc.Warnings)
	}

	// What shows a namespace of the host's cannot be mounted, only bound.
	for _, ns := range []string{"network", "pid", "ipc"} {
		s := docker(root, "sh", "-c", "ls -d /sys/class/net /proc/1/status; touch /sys/x 2>&1 | sed 's/.*: //'")
		var keep []specs.LinuxNamespace
		for _, n := range s.Linux.Namespaces {
			if string(n.Type) != ns {
				keep = append(keep, n)
			}
		}
		s.Linux.Namespaces = keep
		r := run(t, s, Options{})
		has(t, r.out, "/sys/class/net", "/proc/1/status", "Read-only file system")
	}

	// Exec into it, and a terminal, whose group is not mapped.
	init := running(t, docker(root), Options{})
	pr := docker("", "sh", "-c", "id; tty; ps -o comm | grep sleep").Process
	pr.Terminal = true
	for _, clone := range []bool{false, true} {
		r = execIn(t, Target{Pid: init.Pid}, pr, ExecOptions{Clone: clone})
		has(t, r.out, "uid=0 gid=0 groups=0", "/dev/pts/0", "sleep")
	}
	s = docker(root, "tty")
	s.Process.Terminal = true
	has(t, run(t, s, Options{}).out, "/dev/pts/0")
	noChildrenBut(t)
}

// A range of ids: other users and groups of the image exist, and a namespace
// below the user's can be mapped.
func TestInUserNamespaceWithRange(t *testing.T) {
	testenv.Need(t, testenv.NewUIDMap)
	if !testenv.AsUser(t) {
		return
	}
	if !testenv.UnshareRange(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNS) {
		return
	}
	root := rootfs(t)
	s := docker(root, "sh", "-c", "id; pwd; stat -c '%u %g' . /dev/shm; touch f && stat -c '%u %g' f; stat -c %g /dev/pts/0 $(tty)")
	s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5, 20}}
	s.Process.Cwd = "/home/new"
	s.Process.Terminal = true
	r := run(t, s, Options{})
	has(t, r.out, "uid=1000 gid=1000 groups=5,20", "/home/new", "1000 1000", "0 0", "5")
	if len(r.proc.Warnings) != 0 {
		t.Errorf("warnings %v", r.proc.Warnings)
	}
	nested := docker(root, "sh", "-c", "id; tr -s ' ' </proc/self/uid_map; grep Groups /proc/self/status | tr '\t' ' '; touch /made; cat </dev/null; hostname")
	addUserNS(nested)
	nested.Linux.UIDMappings, nested.Linux.GIDMappings = idRange(0, 1000, 2000), idRange(0, 1000, 2000)
	if err := os.Chown(root, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	r = run(t, nested, Options{})
	has(t, r.out, "uid=0 gid=0", " 0 1000 2000", "box")
	var st unix.Stat_t
	if err := unix.Stat(root+"/made", &st); err != nil || st.Uid != 1000 {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
}

// A process of the user's that is in none of the namespaces starts a command in
// the container: it is privileged only where it goes.
func TestExecFromOutside(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.AsUser(t) {
		return
	}
	root := rootfs(t)
	s := docker(root)
	addUserNS(s)
	s.Linux.UIDMappings, s.Linux.GIDMappings = idRange(0, uint32(os.Getuid()), 1), idRange(0, uint32(os.Getgid()), 1)
	init := running(t, s, Options{}) // a user may do this too, without a namespace of its own
	pr := docker("", "sh", "-c", "id; hostname; ps -o comm | grep sleep; ls /").Process
	r := execIn(t, Target{Pid: init.Pid}, pr, ExecOptions{})
	has(t, r.out, "uid=0 gid=0 groups=0", "box", "sleep", "proc")
	_, err := Exec(Target{Pid: init.Pid}, docker("", "nope").Process, ExecOptions{})
	commandFailures[0].check(t, err)
}

// The monitor's way: a command is started in the user's namespaces, and makes
// containers there.
func TestCommandInNamespaceMakesContainer(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.AsUser(t) {
		return
	}
	if os.Getenv("ISLE_TEST_INSIDE") != "" {
		r := run(t, docker(rootfs(t), "id"), Options{Pdeathsig: true})
		has(t, r.out, "uid=0 gid=0 groups=0")
		return
	}
	holder := program.New()
	holder.Fork(program.Clone{Flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS})
	holder.Sync(program.Null, 0, func(pid int, _ []byte) error {
		c := &compiler{s: &specs.Spec{Linux: &specs.Linux{UIDMappings: idRange(0, uint32(os.Getuid()), 1), GIDMappings: idRange(0, uint32(os.Getgid()), 1)}}}
		return c.writeMaps(pid)
	})
	holder.Call(unix.SYS_EXECVE, holder.String("/bin/sleep"), holder.Strings([]string{"sleep", "100"}), holder.Strings(nil))
	h, err := holder.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(h.Pid, unix.SIGKILL)
		_, _ = unix.Wait4(h.Pid, nil, 0, nil)
	}()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&program.Command{
		Path: exe, Args: []string{exe, "-test.run=^" + t.Name() + "$", "-test.v"}, Env: append(os.Environ(), "ISLE_TEST_INSIDE=1", "TMPDIR="+t.TempDir()),
		Files: []*os.File{nil, os.Stdout, os.Stderr}, Protect: true,
		Join: []program.Join{{File: h.Pidfd, Type: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}},
	}).Start()
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(c.Pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
		t.Errorf("inside: %v, status %d", err, ws.ExitStatus())
	}
}
