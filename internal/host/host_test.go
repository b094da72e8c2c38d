package host

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/testenv"
)

// tree makes a Machine that looks at files below a new directory.
func tree(t *testing.T, files map[string]string) *Machine {
	t.Helper()
	root := testenv.Dir(t)
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Machine{root: root}
}

func TestParseRelease(t *testing.T) {
	for s, want := range map[string][2]int{
		"6.1.0-18-amd64": {6, 1}, "5.14.0-427.el9.x86_64": {5, 14}, "7.2.0": {7, 2}, "6.12-rc1": {6, 12}, "": {}, "x": {}, "6": {},
	} {
		if got := parseRelease(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}

func TestThisMachine(t *testing.T) {
	var m Machine
	if major, _ := m.Kernel(); major < 5 {
		t.Errorf("kernel %d", major)
	}
	if m.KernelAtLeast(99, 0) || !m.KernelAtLeast(5, 0) {
		t.Error("KernelAtLeast")
	}
	if n := m.CPUs(); n < runtime.NumCPU() {
		t.Errorf("%d CPUs online (%s), %d usable", n, m.CPUList(), runtime.NumCPU())
	}
	if mem, _ := m.Memory(); mem < 64<<20 {
		t.Errorf("memory %d", mem)
	}
	if len(m.UIDs()) == 0 || len(m.GIDs()) == 0 {
		t.Errorf("maps %v %v", m.UIDs(), m.GIDs())
	}
	if m.HardLimit(unix.RLIMIT_NOFILE) == 0 || m.MaxFiles() == 0 || m.Hostname() == "" {
		t.Errorf("nofile %d of %d, host %q", m.HardLimit(unix.RLIMIT_NOFILE), m.MaxFiles(), m.Hostname())
	}
	if m.Cgroup() == CgroupNone {
		t.Errorf("cgroups: %v", m.Cgroup())
	}
	if !m.Seccomp() {
		t.Error("no seccomp")
	}
	t.Log(m.Cgroup(), m.Controllers(), m.LSMs(), m.Permitted().Names(), m.SysResource(), m.Container(), m.Overlay())
}

func TestInUserNS(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if os.Getenv("_HOST_INSIDE") == "" {
		testenv.Need(t, testenv.Root)
		var m Machine
		if m.InUserNS() {
			t.Error("root of the machine is in a user namespace")
		}
		t.Setenv("_HOST_INSIDE", "1")
	}
	if !testenv.Unshare(t, syscall.CLONE_NEWUSER) {
		return
	}
	var m Machine
	if !m.InUserNS() || m.SysResource() || !m.Permitted().Has(unix.CAP_SYS_ADMIN) {
		t.Errorf("in a user namespace: %v, SysResource %v, %v", m.InUserNS(), m.SysResource(), m.Permitted().Names())
	}
	if got := m.UIDs(); len(got) != 1 || got[0].Size != 65536 {
		t.Errorf("map %v", got)
	}
}

func TestLazy(t *testing.T) {
	m := tree(t, map[string]string{"sys/devices/system/cpu/online": "0-3,8\n"})
	if got := m.CPUs(); got != 5 {
		t.Errorf("%d CPUs", got)
	}
	if err := os.RemoveAll(m.root); err != nil {
		t.Fatal(err)
	}
	if got := m.CPUList(); got != "0-3,8" {
		t.Errorf("asked twice: %q", got)
	}
	if m.permitted.v != caps.Set(0) || m.uids.v != nil {
		t.Error("found out without being asked")
	}
}

func TestContainer(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"":       {"proc/1/environ": "A=b\x00"},
		"docker": {".dockerenv": ""},
		"podman": {"run/.containerenv": "engine=podman"},
		"lxc":    {"proc/1/environ": "A=b\x00container=lxc\x00"},
		"wsl":    {"run/systemd/container": "wsl\n"},
	} {
		if got := tree(t, files).Container(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestSecurityModules(t *testing.T) {
	m := tree(t, map[string]string{
		"sys/kernel/security/lsm": "lockdown,capability,yama,apparmor", "sys/fs/selinux/enforce": "1", "etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=mls\n",
		"etc/selinux/mls/contexts/lxc_contexts": "process = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\nfile = \"system_u:object_r:container_file_t:s0\"\n",
	})
	if !m.AppArmor() {
		t.Error("AppArmor is on")
	}
	if p, f := m.SELinux(); p != "system_u:system_r:container_t:s0" || f != "system_u:object_r:container_file_t:s0" {
		t.Errorf("%q %q", p, f)
	}
	m = tree(t, nil)
	if p, f := m.SELinux(); m.AppArmor() || p != "" || f != "" {
		t.Error("nothing is on")
	}
}

func TestResolvConf(t *testing.T) {
	stub := "# managed\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n"
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\n"}, "nameserver 192.0.2.1\n"},
		{map[string]string{"etc/resolv.conf": stub, "run/systemd/resolve/resolv.conf": "nameserver 192.0.2.7\n"}, "nameserver 192.0.2.7\n"},
		{map[string]string{"etc/resolv.conf": stub}, stub},
		{map[string]string{"etc/resolv.conf": stub + "nameserver 192.0.2.2\n", "run/systemd/resolve/resolv.conf": "x"}, stub + "nameserver 192.0.2.2\n"},
		{map[string]string{"etc/resolv.conf": "search lan\n", "run/systemd/resolve/resolv.conf": "x"}, "search lan\n"},
		{nil, ""},
	} {
		if got := tree(t, c.files).ResolvConf(); got != c.want {
			t.Errorf("%v: %q, want %q", c.files, got, c.want)
		}
	}
}

func TestResolverText(t *testing.T) {
	host := "# comment\ndomain old\nnameserver 127.0.0.1\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::1\nsearch a b\noptions ndots:2\noptions timeout:1\n"
	for _, c := range []struct {
		r    Resolver
		want string
	}{
		{Resolver{}, host},
		{Resolver{Private: true}, "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a b\noptions ndots:2 timeout:1\n"},
		{Resolver{Private: true, NoIPv6: true}, "nameserver 192.0.2.1\nsearch a b\noptions ndots:2 timeout:1\n"},
		{Resolver{Servers: []string{"127.0.0.1"}, Private: true}, "nameserver 127.0.0.1\nsearch a b\noptions ndots:2 timeout:1\n"},
		{Resolver{Search: []string{"."}}, "nameserver 127.0.0.1\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::1\noptions ndots:2 timeout:1\n"},
		{Resolver{Search: []string{"x", "y"}, Options: []string{"rotate"}, Private: true}, "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch x y\noptions rotate\n"},
	} {
		if d := cmp.Diff(c.want, c.r.Text(host)); d != "" {
			t.Errorf("%+v: %s", c.r, d)
		}
	}
}

func TestCgroupModes(t *testing.T) {
	for want, info := range map[CgroupMode]string{
		CgroupNone:   "22 1 0:5 / / rw - ext4 /dev/vda rw\n",
		CgroupV1:     "22 1 0:5 / /x rw - cgroup cgroup rw,memory\n23 1 0:6 / /y rw - cgroup cgroup rw,cpu\n",
		CgroupHybrid: "22 1 0:5 / /x rw - cgroup cgroup rw,memory\n23 1 0:6 / /y rw - cgroup2 cgroup2 rw\n",
	} {
		if got := tree(t, map[string]string{"proc/self/mountinfo": info}).Cgroup(); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestLimitsAdvice(t *testing.T) {
	v1 := map[string]string{
		"proc/self/mountinfo": "22 1 0:5 / /x rw - cgroup cgroup rw,pids\n",
		"proc/cgroups":        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t0\t1\t0\npids\t3\t9\t1\nblkio\t4\t1\t1\n",
	}
	m := tree(t, v1)
	if p, r := m.Limits(Who{}, "cpu", "pids", "io"); p != "" || r != nil {
		t.Errorf("%q %q", p, r)
	}
	if p, r := m.Limits(Who{}, "memory", "cpu"); !strings.Contains(p, "turned off: memory") || !strings.Contains(strings.Join(r, ""), "cgroup_enable=memory") {
		t.Errorf("%q %q", p, r)
	}
	if p, r := m.Limits(Who{UID: 1000}, "cpu"); !strings.Contains(p, "cgroup v1") || len(r) == 0 {
		t.Errorf("%q %q", p, r)
	}
	// v2: the mode is put in by hand, as no tree can be a cgroup file system.
	v2 := tree(t, map[string]string{
		"proc/self/cgroup": "0::/user.slice/user-1000.slice/session-2.scope\n", "run/systemd/system/x": "",
		"sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope/cgroup.controllers": "memory pids\n",
	})
	v2.cgroup.get(func() CgroupMode { return CgroupV2 })
	if got := v2.Controllers(); !slices.Equal(got, []string{"memory", "pids"}) {
		t.Errorf("controllers %q", got)
	}
	if p, r := v2.Limits(Who{UID: 1000}, "memory", "cpu", "cpuset"); !strings.HasSuffix(p, ": cpu, cpuset") || !strings.Contains(r[0], "Delegate=cpu cpuset io memory pids") {
		t.Errorf("%q %q", p, r)
	}
	if p, _ := v2.Limits(Who{UID: 1000}, "memory", "pids"); p != "" {
		t.Errorf("%q", p)
	}
	if p, r := v2.Session(Who{UID: 1000, Name: "alice"}); p == "" || !slices.Equal(r, []string{"as root: loginctl enable-linger alice"}) {
		t.Errorf("%q %q", p, r)
	}
}

func TestStorage(t *testing.T) {
	if p, _ := Storage(filepath.Join(testenv.Dir(t), "not", "yet")); p != "" {
		t.Errorf("%q", p)
	}
	for fs, want := range map[string]bool{"ext4": true, "xfs": true, "tmpfs": true, "0x123": true, "nfs": false, "overlay": false} {
		if ok, why := Layers(fs); ok != want || ok == (why != "") {
			t.Errorf("%s: %v %q", fs, ok, why)
		}
	}
	if fs, err := FileSystem("/proc"); err != nil || fs != "0x9fa0" {
		t.Errorf("%q %v", fs, err)
	}
	if _, err := FileSystem("/no/such"); err == nil {
		t.Error("no error")
	}
}

// TestAdviseHere: on a machine where containers work, no advice says that they
// cannot.
func TestAdviseHere(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay)
	var m Machine
	for _, a := range m.Advise(Who{UID: os.Getuid(), GID: os.Getgid(), Data: testenv.Dir(t)}) {
		t.Logf("%+v", a)
		if a.Blocks {
			t.Errorf("%+v", a)
		}
		if a.Problem == "" || strings.HasSuffix(a.Problem, ".") {
			t.Errorf("not a sentence of ours: %q", a.Problem)
		}
	}
}

func BenchmarkFacts(b *testing.B) {
	for b.Loop() {
		var m Machine
		_, _, _, _ = m.InUserNS(), m.Permitted(), m.Cgroup(), m.OOMScoreAdj()
	}
}
