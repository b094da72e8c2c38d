package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/testenv"
)

// hostMount mounts a tmpfs on the host for the time of the test, with flags of
// its own on the mount rather than on the file system.
func hostMount(t *testing.T, flags string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_STRICTATIME, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	setFlags(t, dir, flags)
	return dir
}

func setFlags(t *testing.T, dir, flags string) {
	t.Helper()
	o := parseOptions(strings.Split(flags, ","))
	err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{
		Attr_set: o.set | o.atime, Attr_clr: plain | unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME, Propagation: unix.MS_PRIVATE,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// flagsOf are the options of the mount at /mnt as the container sees them.
const flagsOf = `awk '$5=="/mnt"{print $6}' /proc/self/mountinfo`

func TestBindFlags(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	if err := os.Link(filepath.Join(root, "bin/busybox"), filepath.Join(root, "bin/awk")); err != nil {
		t.Fatal(err)
	}
	dir := hostMount(t, "rw")
	for _, c := range []struct{ host, options, want, userns string }{
		// Without options all stays; with any, only what is named.
		{"ro,noexec,nodiratime", "bind", "ro,noexec,nodiratime,relatime", "ro,noexec,nodiratime,relatime"},
		{"ro", "bind,nosuid,nodev", "rw,nosuid,nodev,relatime", "ro,nosuid,nodev,relatime"},
		{"ro", "bind,rw,nosuid", "rw,nosuid,relatime", ""},
		{"nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,noatime", ""},
		{"nosuid,nodev,noexec,noatime", "bind,ro", "ro,noatime", "ro,nosuid,nodev,noexec,noatime"},
		{"nodev,nosymfollow", "bind,ro,symfollow", "ro,relatime", "ro,nodev,relatime"},
		{"nodev,nosymfollow", "bind,rw", "rw,relatime", "rw,nodev,relatime"},
		// Access times: another kind only where one is asked for.
		{"noatime", "bind,norelatime", "rw,noatime", "rw,noatime"},
		{"noatime", "bind,atime", "rw,noatime", "rw,noatime"},
		{"noatime", "bind,relatime", "rw,relatime", ""},
		{"noatime", "bind,nodiratime", "rw,nodiratime,relatime", ""},
		{"nodiratime", "bind,strictatime", "rw", ""},
		{"noatime", "bind,nodiratime,strictatime", "rw,nodiratime", ""},
		{"strictatime", "bind,nostrictatime", "rw", "rw"},
		{"strictatime", "bind,relatime", "rw,relatime", ""},
		{"relatime", "bind,relatime,ro", "ro,relatime", "ro,relatime"},
	} {
		setFlags(t, dir, c.host)
		for i, want := range []string{c.want, c.userns} {
			s := docker(root, "sh", "-c", flagsOf)
			if i == 1 {
				addUserNS(s)
			}
			s.Mounts = append(s.Mounts, specs.Mount{Source: dir, Destination: "/mnt", Options: strings.Split(c.options, ",")})
			r, err := tryRun(t, s, Options{})
			got := strings.TrimSpace(r.out)
			if err != nil {
				got = ""
				if !strings.Contains(err.Error(), "operation not permitted") {
					t.Errorf("%s of %s, user namespace %d: %v", c.options, c.host, i, err)
				}
			}
			if got != want {
				t.Errorf("%s of %s, user namespace %d: %q (%v), want %q", c.options, c.host, i, got, err, want)
			}
		}
	}
}

func TestReadonlyTmpfsIsFilledFirst(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t), "sh", "-c", `for m in /dev /mnt; do grep "^tmpfs $m " /proc/mounts | grep -o ' r[ow],'; done; ls /dev/null /mnt; touch /dev/x 2>&1 | grep -o Read-only; echo >/dev/shm/x && echo shm`)
	s.Mounts[1].Options = append(s.Mounts[1].Options, "ro")
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nodev"}},
		specs.Mount{Destination: "/mnt/below", Type: "tmpfs", Source: "tmpfs"})
	r := run(t, s, Options{})
	if r.out != " ro,\n ro,\n/dev/null\n\n/mnt:\nbelow\nRead-only\nshm\n" {
		t.Errorf("got %q", r.out)
	}
}

func TestModeOfTmpfs(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	if err := os.Mkdir(filepath.Join(root, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(filepath.Join(root, "there"), 0o3710); err != nil {
		t.Fatal(err)
	}
	s := docker(root, "sh", "-c", `stat -c '%n %a' /there /missing/dir /given; grep -o '/there .*mode=[0-7]*' /proc/mounts | grep -o mode=.*; grep -c '/missing.*mode=' /proc/mounts`)
	for dst, opts := range map[string][]string{"/there": {"nodev"}, "/missing/dir": {"nodev"}, "/given": {"mode=1500"}} {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dst, Type: "tmpfs", Source: "tmpfs", Options: opts})
	}
	has(t, run(t, s, Options{}).out, "/there 3710", "/missing/dir 1777", "/given 1500", "mode=3710", "0")
}

func TestCopyUp(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	dir := filepath.Join(root, "srv")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a/b"), 0o755),
		os.WriteFile(filepath.Join(dir, "a/b/file"), []byte("text\n"), 0o640),
		os.Symlink("/etc/passwd", filepath.Join(dir, "link")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
		unix.Chown(filepath.Join(dir, "a/b/file"), 42, 43),
		unix.Chmod(filepath.Join(dir, "a/b/file"), 0o4755),
		unix.Chmod(filepath.Join(dir, "a"), 0o777),
		unix.Chmod(dir, 0o750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []bool{false, true} {
		s := docker(root, "sh", "-c", `cd /srv; stat -c '%n %a %u:%g %F' . a a/b/file fifo; readlink link; cat a/b/file; echo new >a/new && echo written; grep -o '^tmpfs /srv tmpfs rw' /proc/mounts`)
		if user {
			addUserNS(s)
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/srv", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m"}})
		r := run(t, s, Options{})
		has(t, r.out, ". 750 0:0 directory", "a 777 0:0 directory", "a/b/file 4755 42:43 regular file", "fifo 600 0:0 fifo", "/etc/passwd", "text", "written", "tmpfs /srv tmpfs rw")
		if _, err := os.Stat(filepath.Join(dir, "a/new")); err == nil {
			t.Error("what was covered was written to")
		}
	}
	s := docker(root, "true")
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/srv", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m"}})
	if _, err := tryRun(t, s, Options{}); err == nil || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), "mount type=tmpfs") {
		t.Errorf("larger than the file system: %v", err)
	}
}

// A source below the root's path on the host is a place in the container: it has
// what was mounted there before.
func TestBindFromTheContainersTree(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	src := t.TempDir()
	for _, d := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(src, d, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := docker(root, "ls", "/final", "/final/x", "/again")
	bind := func(from, to string) {
		s.Mounts = append(s.Mounts, specs.Mount{Source: from, Destination: to, Options: []string{"rbind"}})
	}
	bind(src+"/a", "/mnt")
	bind(src+"/b", "/mnt/x")
	bind(root+"/mnt", root+"/final")
	bind(root+"/mnt/x", "/again")
	if got := run(t, s, Options{}).out; strings.Join(strings.Fields(got), " ") != "/again: b /final: a x /final/x: b" {
		t.Errorf("got %q", got)
	}
}

func TestIDMappedMounts(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	dir := hostMount(t, "rw")
	for _, d := range []string{dir + "/sub", root + "/mnt", root + "/again"} { // which another root could not make
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sub := hostMount(t, "rw")
	for _, f := range []string{dir + "/f", sub + "/f"} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(f, 100, 200); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(sub, dir+"/sub", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir+"/sub", unix.MNT_DETACH) })
	own := func(m *specs.Mount) { m.UIDMappings, m.GIDMappings = idRange(100, 101000, 3), idRange(200, 102000, 3) }
	for _, c := range []struct {
		name, options string
		userns        bool
		change        func(*specs.Mount)
		want          string
	}{
		{"own mapping", "rbind", false, own, "101000:102000 100:200"},
		{"with the option", "rbind,idmap", false, own, "101000:102000 100:200"},
		{"recursive", "rbind,ridmap", false, own, "101000:102000 101000:102000"},
		{"in a user namespace", "rbind,ridmap", true, own, "1000:2000 1000:2000"},
		{"the container's mapping", "rbind,idmap", true, func(*specs.Mount) {}, "100:200 65534:65534"},
	} {
		s := docker(root, "sh", "-c", `echo $(stat -c %u:%g /mnt/f /mnt/sub/f)`)
		if c.userns {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
			s.Linux.UIDMappings, s.Linux.GIDMappings = idRange(0, 100000, 65536), idRange(0, 100000, 65536)
		}
		m := specs.Mount{Source: dir, Destination: "/mnt", Options: strings.Split(c.options, ",")}
		c.change(&m)
		s.Mounts = append(s.Mounts, m)
		if got := strings.TrimSpace(run(t, s, Options{}).out); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// From the container's own tree, which only the child can name.
	s := docker(root, "stat", "-c", "%u:%g", "/again/f")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	s.Linux.UIDMappings, s.Linux.GIDMappings = idRange(0, 100000, 65536), idRange(0, 100000, 65536)
	m := specs.Mount{Source: root + "/mnt", Destination: "/again", Options: []string{"bind"}}
	own(&m)
	s.Mounts = append(s.Mounts, specs.Mount{Source: dir, Destination: "/mnt", Options: []string{"bind"}}, m)
	if got := strings.TrimSpace(run(t, s, Options{}).out); got != "1000:2000" {
		t.Errorf("from the container's tree: %s", got)
	}
	// A user namespace that is joined.
	first := docker(root)
	first.Linux.Namespaces = append(first.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	first.Linux.UIDMappings, first.Linux.GIDMappings = idRange(0, 100000, 65536), idRange(0, 100000, 65536)
	other := running(t, first, Options{})
	s = docker(root, "stat", "-c", "%u:%g", "/mnt/f")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user", Path: fmt.Sprintf("/proc/%d/ns/user", other.Pid)})
	s.Mounts = append(s.Mounts, specs.Mount{Source: dir, Destination: "/mnt", Options: []string{"bind", "idmap"}})
	if got := strings.TrimSpace(run(t, s, Options{}).out); got != "100:200" {
		t.Errorf("joined user namespace: %s", got)
	}
}

func TestRecursiveAttributes(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	if err := os.Link(filepath.Join(root, "bin/busybox"), filepath.Join(root, "bin/awk")); err != nil {
		t.Fatal(err)
	}
	dir := hostMount(t, "relatime")
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir+"/sub", "tmpfs", unix.MS_NOSUID, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir+"/sub", unix.MNT_DETACH) })
	for options, want := range map[string]string{
		"rbind,ro":           "ro,relatime rw,nosuid,relatime",
		"rbind,rro":          "ro,relatime ro,nosuid,relatime",
		"rbind,ro,rro":       "ro,relatime ro,nosuid,relatime",
		"rbind,rnoatime":     "rw,noatime rw,nosuid,noatime",
		"rbind,rstrictatime": "rw rw,nosuid",
		"rbind,rsuid,rnodev": "rw,nodev,relatime rw,nodev,relatime",
	} {
		s := docker(root, "sh", "-c", `echo $(awk '$5~"^/mnt"{print $6}' /proc/self/mountinfo)`)
		s.Mounts = append(s.Mounts, specs.Mount{Source: dir, Destination: "/mnt", Options: strings.Split(options, ",")})
		if got := strings.TrimSpace(run(t, s, Options{}).out); got != want {
			t.Errorf("%s: %s, want %s", options, got, want)
		}
	}
}

func TestRootfsPropagation(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	for prop, want := range map[string]string{"shared": "shared:", "private": "-", "rslave": "-", "unbindable": "unbindable"} {
		s := docker(root, "sh", "-c", `while read a b c r m o f x; do test $m = / && echo "${f%%[0-9]*}"; done </proc/self/mountinfo`)
		s.Linux.RootfsPropagation = prop
		if got := strings.TrimSpace(run(t, s, Options{}).out); got != want {
			t.Errorf("%s: %q, want %q", prop, got, want)
		}
	}
}

func TestContradictions(t *testing.T) {
	root := "/"
	for want, change := range map[string]func(s *specs.Spec){
		"no namespace path to join nor mappings": func(s *specs.Spec) { addUserNS(s); s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil },
		"private UTS namespace":                  func(s *specs.Spec) { s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}} },
		"time namespace isn't enabled":           func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} },
		"without a NET namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "uts"}}
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}}
		},
		"Intel RDT":              func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"} },
		"rootfsPropagation=nope": func(s *specs.Spec) { s.Linux.RootfsPropagation = "nope" },
		"invalid device type: x": func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "x"}} },
		"filesystem-specific": func(s *specs.Spec) {
			s.Mounts[0] = specs.Mount{Source: "/", Destination: "/mnt", Options: []string{"bind", "size=1"}}
		},
		"only supported for bind": func(s *specs.Spec) { s.Mounts[0].Options = []string{"idmap"} },
		"tmpcopyup is for tmpfs":  func(s *specs.Spec) { s.Mounts[0].Options = []string{"tmpcopyup"} },
	} {
		s := docker(root, "true")
		change(s)
		if _, err := Compile(s, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A root file system with its own /dev must have the devices that every
// container has, or room for them (runtime-spec, Devices).
func TestFileInPlaceOfADevice(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	s := docker(root, "stat", "-c", "%F %t:%T", "/dev/null", "/dev/zero")
	s.Mounts = s.Mounts[:1]
	s.Linux.MaskedPaths = nil
	if err := unix.Mknod(filepath.Join(root, "dev/zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatal(err)
	}
	has(t, run(t, s, Options{}).out, "character special file 1:3", "character special file 1:5")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	has(t, run(t, s, Options{}).out, "character special file 1:3", "character special file 1:5")
	s.Mounts = s.Mounts[:1]
	if err := os.Remove(filepath.Join(root, "dev/null")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dev/null"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := tryRun(t, s, Options{}); err == nil || !strings.HasPrefix(err.Error(), "device /dev/null: ") || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("%v", err)
	}
}
