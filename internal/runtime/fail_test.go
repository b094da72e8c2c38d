package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

type failure struct {
	args []string
	text string
	code int
	kind errs.Kind
}

func (f *failure) check(t *testing.T, err error) {
	t.Helper()
	if err == nil || err.Error() != f.text || errs.ExitCode(err) != f.code || errs.KindOf(err) != f.kind {
		t.Errorf("%q: error %q, code %d, kind %v; want %q, %d, %v", f.args, err, errs.ExitCode(err), errs.KindOf(err), f.text, f.code, f.kind)
	}
	if _, ok := errors.AsType[*CallError](err); !ok {
		t.Errorf("%q: no call in %v", f.args, err)
	}
	noChildrenBut(t)
}

// Docker's words and exit codes.
var commandFailures = []failure{
	{[]string{"nope"}, `exec: "nope": executable file not found in $PATH`, 127, errs.NotFound},
	{[]string{"/bin/nope"}, `exec: "/bin/nope": stat /bin/nope: no such file or directory`, 127, errs.NotFound},
	{[]string{"/bin/sh/nope"}, `exec: "/bin/sh/nope": stat /bin/sh/nope: no such file or directory`, 127, errs.NotFound},
	{[]string{"/etc"}, `exec: "/etc": permission denied`, 126, errs.Denied},
	{[]string{"./etc"}, `exec: "./etc": permission denied`, 126, errs.Denied},
}

func noChildrenBut(t testing.TB) {
	t.Helper()
	// Zombies only: a container of the test itself may be running.
	if pid, _ := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid > 0 {
		t.Errorf("child %d was left", pid)
	}
}

func TestCommandFailures(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	write := func(name, data string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/bin/plain", "x", 0o644)   // found first in PATH, not executable
	write("usr/bin/true", "x", 0o644)    // ... and an executable one follows
	write("bin/garbage", "\x00x", 0o755) // executable, no format
	write("bin/script", "#!/bin/gone\n", 0o755)
	for _, c := range append([]failure{
		{[]string{"plain"}, `exec: "plain": permission denied`, 126, errs.Denied},
		{[]string{"garbage"}, `exec: "garbage": exec format error`, 126, errs.Invalid},
		{[]string{"/bin/script"}, `exec: "/bin/script": stat /bin/script: no such file or directory`, 127, errs.NotFound},
	}, commandFailures...) {
		_, err := tryRun(t, docker(root, c.args...), Options{})
		c.check(t, err)
	}
	if r := run(t, docker(root, "true"), Options{}); r.code != 0 {
		t.Errorf("true in a later directory: exit code %d", r.code)
	}
	// The command is the container's: a link out of it leads nowhere.
	if err := os.Symlink("/../../../../../../../bin/bash", filepath.Join(root, "bin/escape")); err != nil {
		t.Fatal(err)
	}
	_, err := tryRun(t, docker(root, "escape"), Options{})
	(&failure{[]string{"escape"}, `exec: "escape": executable file not found in $PATH`, 127, errs.NotFound}).check(t, err)
}

// Every other failure names the call, exits with 125 and leaves nothing.
func TestFailuresNameTheCall(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	for _, c := range []struct {
		name, text string
		change     func(*specs.Spec)
	}{
		{"source", "mount type=bind src=/nowhere/at/all dst=/mnt flags=rbind,ro: open_tree: no such file or directory", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Source: "/nowhere/at/all", Destination: "/mnt", Options: []string{"rbind", "ro"}})
		}},
		{"directory on file", "mount type=bind src=/usr dst=/bin/sh flags=rbind: not a directory", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Source: "/usr", Destination: "/bin/sh", Options: []string{"rbind"}})
		}},
		{"file on directory", "mount type=bind src=/etc/passwd dst=/bin flags=rbind: is a directory", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Source: "/etc/passwd", Destination: "/bin", Options: []string{"rbind"}})
		}},
		{"below a file", "mount type=bind src=/usr dst=/bin/sh/x flags=rbind: openat2: not a directory", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Source: "/usr", Destination: "/bin/sh/x", Options: []string{"rbind"}})
		}},
		{"file system", `mount type=nofs src=x dst=/mnt: fsopen: no such device`, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Source: "x", Destination: "/mnt", Type: "nofs"})
		}},
		{"option", `mount type=tmpfs src=x dst=/mnt flags=size=lots: fsconfig: invalid argument`, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Source: "x", Destination: "/mnt", Type: "tmpfs", Options: []string{"size=lots"}})
		}},
		{"namespace", `open namespace network src=/nowhere: openat: no such file or directory`, func(s *specs.Spec) {
			s.Linux.Namespaces[2].Path = "/nowhere"
		}},
		{"wrong namespace", `join namespace network src=/proc/self/ns/uts: setns: invalid argument`, func(s *specs.Spec) {
			s.Linux.Namespaces[2].Path = "/proc/self/ns/uts"
		}},
		{"root", `root src=/nowhere: open_tree: no such file or directory`, func(s *specs.Spec) { s.Root.Path = "/nowhere" }},
		{"cwd", `working directory /bin/sh: openat2: not a directory`, func(s *specs.Spec) { s.Process.Cwd = "/bin/sh" }},
		{"uid", `user: setresuid: invalid argument`, func(s *specs.Spec) { addUserNS(s); s.Process.User.UID = 70000 }},
		{"map", `write uid_map "0 0 65536\n5 0 1": invalid argument`, func(s *specs.Spec) {
			addUserNS(s)
			s.Linux.UIDMappings = append(s.Linux.UIDMappings, idRange(5, 0, 1)...)
		}},
		{"sysctl", `sysctl net.ipv4.nope=1: openat: no such file or directory`, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.nope": "1"} }},
		{"sysctl value", `sysctl net.ipv4.ip_forward=x: write: invalid argument`, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "x"} }},
		{"apparmor", `apparmor: config provided but apparmor not supported`, func(s *specs.Spec) { s.Process.ApparmorProfile = "docker-default" }},

		{"no command", `process: no command`, func(s *specs.Spec) { s.Process.Args = nil }},
		{"relative cwd", `working directory "x": not an absolute path`, func(s *specs.Spec) { s.Process.Cwd = "x" }},
		{"uid -1", `user 4294967295:0: id out of range`, func(s *specs.Spec) { s.Process.User.UID = 1<<32 - 1 }},
		{"group -1", `group 4294967295: id out of range`, func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{1<<32 - 1} }},
		{"capability", `unknown capability: "CAP_NOPE"`, func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_NOPE"} }},
		{"limit", `limit "RLIMIT_NOPE": unknown`, func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOPE"}} }},
		{"limit order", `limit "RLIMIT_CORE": soft limit 2 is above the hard limit 1`, func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}}
		}},
		{"mount on root", `mount "/": cannot be the root`, func(s *specs.Spec) { s.Mounts[0].Destination = "/" }},
		{"mount out of root", `mount "/../..": cannot be the root`, func(s *specs.Spec) { s.Mounts[0].Destination = "/../.." }},
		{"namespace type", `namespace "nope": unknown type`, func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "nope" }},
		{"namespace twice", `namespace "pid": given twice`, func(s *specs.Spec) { s.Linux.Namespaces[1].Type = "pid" }},
		{"no mount namespace", `namespace "mount": a container needs its own`, func(s *specs.Spec) { s.Linux.Namespaces = nil }},
		{"NUL", `"a\x00b": holds a NUL byte`, func(s *specs.Spec) { s.Process.Args = []string{"a\x00b"} }},
		{"NUL in env", `"A=\x00": holds a NUL byte`, func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }},
	} {
		s := docker(root, "true")
		c.change(s)
		_, err := tryRun(t, s, Options{})
		if err == nil || !strings.HasPrefix(err.Error(), c.text) {
			t.Errorf("%s: error %v; want %s", c.name, err, c.text)
			continue
		}
		if code := errs.ExitCode(err); code != 125 && c.name != "no command" || code == 0 {
			t.Errorf("%s: exit code %d", c.name, code)
		}
		if hint := strings.Join(errs.Hints(err), ""); strings.Contains(c.name, "directory") != strings.Contains(hint, "in the image is") {
			t.Errorf("%s: hint %q", c.name, hint)
		}
		noChildren(t)
	}
	noMountsOf(t, root)
}

func TestCallsCanBeShown(t *testing.T) {
	s := docker("/some/root", "true")
	s.Mounts = append(s.Mounts, specs.Mount{Source: "/data", Destination: "/mnt", Options: []string{"rbind", "ro"}})
	p, err := Compile(s, Options{unshielded: true})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	forked := false
	for _, c := range p.Calls() {
		forked = forked || c.Child
		if forked && !c.Child {
			t.Errorf("the caller's call after the child's: %s", c.Text)
		}
		b.WriteString(c.Step() + " | " + c.Text + "\n")
	}
	for _, want := range []string{
		`root src=/some/root | open_tree(AT_FDCWD, "/some/root", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE) → rootfs`,
		`mount type=bind src=/data dst=/mnt flags=rbind,ro | open_tree(AT_FDCWD, "/data", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE) → /data`,
		`clone | clone3(flags=CLONE_NEWPID|CLONE_NEWNS|CLONE_NEWNET|CLONE_NEWUTS|CLONE_NEWIPC)`,
		`change root | pivot_root(".", ".")`,
		`mount type=proc src=proc dst=/proc flags=nosuid,noexec,nodev | fsmount(‹proc context›, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC) → proc`,
		`mount type=proc src=proc dst=/proc flags=nosuid,noexec,nodev | openat2(‹rootfs›, "/proc", {flags=O_CLOEXEC|O_PATH, resolve=RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS}, 24) → /proc`,
		`execute true | execve("/usr/bin/true", ["true"], …)`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no line\n%s\nin\n%s", want, b.String())
		}
	}
}
