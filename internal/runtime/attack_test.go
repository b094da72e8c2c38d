package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/testenv"
)

// hostTree is a directory of the host that must not change.
func hostTree(t *testing.T) (dir string, unchanged func()) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "host")
	for _, d := range []string{"proc", "sys", "dev", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/hosts"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	return dir, func() {
		t.Helper()
		if after := listing(t, dir); after != before {
			t.Errorf("the host's directory changed:\n%s\nwas\n%s", after, before)
		}
		noMountsOf(t, dir)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(name string, fi os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, name, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// replace puts a symbolic link in the place of a file of the image.
func replace(t *testing.T, root, name, to string) {
	t.Helper()
	full := filepath.Join(root, name)
	if err := errors.Join(os.RemoveAll(full), os.MkdirAll(filepath.Dir(full), 0o755), os.Symlink(to, full)); err != nil {
		t.Fatal(err)
	}
}

// CVE-2023-27561, CVE-2023-28642, CVE-2025-31133, CVE-2025-52565 and those of
// /dev: each target of a mount is a link out of the image. It is refused, or
// followed inside the root; the host is not touched and nothing shows through.
func TestTargetsThatAreLinks(t *testing.T) {
	testenv.Need(t, testenv.Root)
	for _, name := range []string{"proc", "sys", "dev", "dev/shm", "dev/pts", "dev/null", "dev/console", "etc/hosts", "etc", "proc/sys", "mnt/deep/target"} {
		for _, up := range []bool{false, true} {
			host, unchanged := hostTree(t)
			root := rootfs(t)
			to := filepath.Join(host, name)
			if name == "mnt/deep/target" {
				to = host
			}
			if up {
				to = strings.Repeat("../", 20) + strings.TrimPrefix(to, "/")
			}
			replace(t, root, name, to)
			s := docker(root, "sh", "-c", "cat /etc/hosts; stat -c '%t:%T' /dev/null; touch /mnt/deep/target/x /etc/hosts; sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo")
			s.Mounts = append(s.Mounts,
				specs.Mount{Source: "/etc/hostname", Destination: "/etc/hosts", Type: "bind", Options: []string{"rbind", "ro"}},
				specs.Mount{Source: "tmpfs", Destination: "/mnt/deep/target", Type: "tmpfs"})
			s.Process.Terminal = name == "dev/console"
			r, err := tryRun(t, s, Options{})
			switch name {
			case "proc", "sys", "dev":
				if err == nil || !errors.Is(err, unix.ELOOP) || !strings.Contains(err.Error(), "dst=/"+name) {
					t.Errorf("%s → %s: %v", name, to, err)
				}
			default:
				if err != nil {
					t.Errorf("%s → %s: %v", name, to, err)
					break
				}
				if !strings.Contains(strings.ReplaceAll(r.out, "\r", ""), "\n1:3\n") || strings.Contains(r.out, "host\n") {
					t.Errorf("%s → %s: %s", name, to, r.out)
				}
			}
			unchanged()
		}
	}
}

// A fake null device would be what masked files become (CVE-2025-31133).
func TestFakeNullDevice(t *testing.T) {
	testenv.Need(t, testenv.Root)
	for name, fake := range map[string]func(file string) error{
		"file":   func(f string) error { return os.WriteFile(f, []byte("x"), 0o666) },
		"link":   func(f string) error { return os.Symlink("/proc/sys/kernel/core_pattern", f) },
		"zero":   func(f string) error { return unix.Mknod(f, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"block":  func(f string) error { return unix.Mknod(f, unix.S_IFBLK|0o666, int(unix.Mkdev(1, 3))) },
		"absent": func(string) error { return nil },
	} {
		root := rootfs(t)
		if err := fake(filepath.Join(root, "dev/null")); err != nil {
			t.Fatal(err)
		}
		// /dev is the image's own: bound over, as a spec may have it.
		s := docker(root, "true")
		s.Mounts[1] = specs.Mount{Destination: "/dev", Source: filepath.Join(root, "dev"), Type: "bind", Options: []string{"bind"}}
		_, err := tryRun(t, s, Options{})
		if err == nil || !strings.HasPrefix(err.Error(), "mask with /dev/null: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// CVE-2024-21626: a working directory that is a descriptor the runtime left open.
func TestWorkingDirectoryIsADescriptor(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	leak, err := unix.Open("/etc", unix.O_RDONLY|unix.O_DIRECTORY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak) //nolint:errcheck // read only
	target := running(t, docker(root), Options{})
	for n := range 40 {
		for _, dir := range []string{fmt.Sprintf("/proc/self/fd/%d", n), fmt.Sprintf("/proc/self/fd/%d/../../..", n), fmt.Sprintf("/proc/1/fd/%d", n), "/proc/1/root", "/proc/1/cwd", "/proc/self/cwd/.."} {
			s := docker(root, "ls", "-d", "boot", "../boot", "../../boot")
			s.Process.Cwd = dir
			if r, err := tryRun(t, s, Options{}); err == nil {
				t.Errorf("run -w %s: %s", dir, r.out)
			}
			if _, err := Exec(Target{Pid: target.Pid}, s.Process, ExecOptions{}); err == nil {
				t.Errorf("exec -w %s: no error", dir)
			}
		}
	}
	for _, dir := range []string{"/link", "/dirlink/new"} {
		host, unchanged := hostTree(t)
		replace(t, root, dir[1:], host)
		if dir == "/dirlink/new" {
			replace(t, root, "dirlink", host)
		}
		s := docker(root, "sh", "-c", "pwd; touch inside")
		s.Process.Cwd = dir
		if r, err := tryRun(t, s, Options{}); err == nil && r.code != 0 {
			t.Errorf("-w %s: %s", dir, r.out)
		}
		unchanged()
	}
}

// Whatever the caller has open, the container gets three files.
func TestNoDescriptorLeaks(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	for range 20 {
		fd, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // not close-on-exec
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd) //nolint:errcheck // read only
	}
	// Not by a shell, which has a pipe open for a moment; 3 is the directory.
	r := run(t, docker(root, "ls", "/proc/1/fd"), Options{})
	if r.out != "0\n1\n2\n3\n" {
		t.Errorf("run: %q", r.out)
	}
	init := running(t, docker(root), Options{})
	r = execIn(t, Target{Pid: init.Pid}, docker("", "ls", "/proc/1/fd", "/proc/self/fd").Process, ExecOptions{})
	if got := strings.Fields(r.out); strings.Join(got, " ") != "/proc/1/fd: 0 1 2 /proc/self/fd: 0 1 2 3" {
		t.Errorf("exec: %q", r.out)
	}
}

// CVE-2021-30465: a volume shared by two containers, one of which swaps a
// directory for a link while the other mounts below it.
func TestMountTargetRace(t *testing.T) {
	testenv.Need(t, testenv.Root)
	host, unchanged := hostTree(t)
	root, volume := rootfs(t), t.TempDir()
	if err := errors.Join(os.MkdirAll(volume+"/a/etc", 0o755), os.Symlink(strings.Repeat("../", 20)+host[1:], volume+"/b")); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	swapped := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			_ = unix.Renameat2(unix.AT_FDCWD, volume+"/a", unix.AT_FDCWD, volume+"/b", unix.RENAME_EXCHANGE)
		}
		swapped <- n
	}()
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	for range rounds {
		s := docker(root, "sh", "-c", "sed 's/^[0-9]* [0-9]* [0-9:]* [^ ]* //' /proc/self/mountinfo")
		s.Mounts = append(s.Mounts,
			specs.Mount{Source: volume, Destination: "/v", Type: "bind", Options: []string{"rbind"}},
			specs.Mount{Source: "tmpfs", Destination: "/v/a/etc", Type: "tmpfs"},
			specs.Mount{Source: "/etc/hostname", Destination: "/v/a/etc/new/file", Type: "bind", Options: []string{"rbind"}})
		r, err := tryRun(t, s, Options{})
		// A swap in the middle may make it fail, with a reason. A link that is
		// followed leads to the same path inside the root.
		if err != nil && !strings.Contains(err.Error(), "dst=/v/a/etc") {
			t.Fatal(err)
		}
		if err == nil && strings.Count(r.out, "/etc") < 2 {
			t.Fatalf("mounts are missing:\n%s", r.out)
		}
	}
	stop.Store(true)
	if n := <-swapped; n < rounds {
		t.Errorf("only %d swaps", n)
	}
	unchanged()
}

// CVE-2016-9962, CVE-2019-5736: a process of the container cannot look into the
// child that is joining it, nor get at its executable.
func TestJoiningProcessIsHidden(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t))
	s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_PTRACE")
	s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
	addUserNS(s)
	init := running(t, s, Options{})
	watch := docker("", "sh", "-c", `while :; do for p in /proc/[0-9]*; do case $p in /proc/1) continue;; esac
		read -r comm <$p/comm 2>/dev/null; case "$comm" in *.tes*) readlink $p/exe | grep test; echo seen;; esac; done; done`).Process
	watch.Capabilities = s.Process.Capabilities
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	watcher, err := Exec(Target{Pid: init.Pid}, watch, ExecOptions{Stdio: Stdio{Out: wr}})
	_ = wr.Close()
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowCgroup{200 * time.Millisecond} // the child is in the container and waits
	for range 5 {
		proc, err := Exec(Target{Pid: init.Pid, Cgroup: slow}, docker("", "true").Process, ExecOptions{})
		if err != nil {
			t.Fatal(err)
		}
		reap(t, proc)
	}
	_ = unix.Kill(watcher.Pid, unix.SIGKILL)
	reap(t, watcher)
	buf := make([]byte, 1<<20)
	n, _ := rd.Read(buf)
	out := string(buf[:n])
	// A link that could be read names this test; one that could after execve
	// names busybox.
	if !strings.Contains(out, "seen") || strings.Contains(out, ".test") {
		t.Errorf("the watcher says %.300q", out)
	}
}

// slowCgroup is a cgroup whose v1 part takes its time.
type slowCgroup struct{ d time.Duration }

func (*slowCgroup) File() *os.File     { return nil }
func (s *slowCgroup) Attach(int) error { time.Sleep(s.d); return nil }

// A set-uid program cannot give back what no_new_privs took.
func TestSetuidUnderNoNewPrivileges(t *testing.T) {
	testenv.Need(t, testenv.Root)
	testenv.Need(t, testenv.CC)
	root := rootfs(t)
	src := filepath.Join(t.TempDir(), "ids.c")
	if err := os.WriteFile(src, []byte("#include <stdio.h>\n#include <unistd.h>\nint main(void) { return printf(\"%d %d\\n\", getuid(), geteuid()) < 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-static", "-o", root+"/bin/ids", src).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v: %s", err, out)
	}
	if err := os.Chmod(root+"/bin/ids", 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	for nnp, want := range map[bool]string{false: "1000 0\n", true: "1000 1000\n"} {
		s := docker(root, "ids")
		s.Process.User.UID = 1000
		s.Process.NoNewPrivileges = nnp
		if r := run(t, s, Options{Pdeathsig: true}); r.out != want {
			t.Errorf("no_new_privs %v: %q", nnp, r.out)
		}
	}
}

// CVE-2019-5736: a command that is a script for the executable of the process
// that executes it gets a sealed file, not this test's own.
func TestCommandIsOwnExecutable(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	if err := os.WriteFile(root+"/bin/evil", []byte("#!/proc/self/exe -test.run=^$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := run(t, docker(root, "evil"), Options{unshielded: true}) // the other way round: shielded
	if r.out != "init: no command\n" || r.code != 125 {
		t.Errorf("run: %q, exit code %d", r.out, r.code)
	}
	init := running(t, docker(root), Options{})
	for _, uid := range []uint32{0, 1000} {
		pr := docker("", "/bin/evil").Process
		pr.User.UID = uid
		r = execIn(t, Target{Pid: init.Pid}, pr, ExecOptions{unshielded: true})
		if r.out != "init: no command\n" || r.code != 125 {
			t.Errorf("exec: %q, exit code %d", r.out, r.code)
		}
		pr.Args = []string{"sh", "-c", "echo $0 $1; readlink /proc/self/exe; ls /proc/self/fd | tr '\\n' ' '", "a", "b"}
		r = execIn(t, Target{Pid: init.Pid}, pr, ExecOptions{unshielded: true})
		if r.out != "a b\n/bin/sh\n0 1 2 3 " {
			t.Errorf("an honest command: %q", r.out)
		}
	}
	for _, c := range commandFailures {
		_, err := tryRun(t, docker(root, c.args...), Options{unshielded: true})
		c.check(t, err)
	}
	// Without a shield it would be this test's file, which runs no test; the
	// kernel looks for its dynamic linker if it was not built as isle is.
	var buf bytes.Buffer
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	proc, err := Exec(Target{Pid: init.Pid}, docker("", "/bin/evil").Process, ExecOptions{Stdio: Stdio{Out: wr}, unshielded: true})
	_ = wr.Close()
	if err == nil {
		_, _ = buf.ReadFrom(rd)
		reap(t, proc)
	}
	_ = rd.Close()
	if !strings.Contains(buf.String(), "PASS") && !errors.Is(err, unix.ENOENT) {
		t.Errorf("the test does not test: %q, %v", buf.String(), err)
	}
}
