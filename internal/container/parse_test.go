package container

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "64": 64, "1b": 1, "1k": 1024, "1K": 1024, "1kb": 1024, "1KiB": 1024, "64m": 64 << 20, "1.5g": 3 << 29, "2t": 2 << 40, "1p": 1 << 50, "1e3": 1000, "10 MB": 10 << 20, "0.5k": 512,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"": "invalid size: ''", "x": "invalid size: 'x'", "-5": "invalid size: '-5'", "10kbb": "invalid suffix: 'kbb'", "10x": "invalid suffix: 'x'", "1bb": "invalid suffix: 'bb'",
		"1..5g": "invalid size: '1..5g'", "9999999p": "invalid size: '9999999p': larger than 8 EiB", "1kB1": "invalid size: '1kB1'", " ": "invalid size: ' '",
	} {
		if got, err := ParseSize(in); err == nil || err.Error() != want {
			t.Errorf("%q: %d, %v; want %s", in, got, err, want)
		}
	}
	if v, err := ParseMemorySwap("-1"); v != -1 || err != nil {
		t.Errorf("-1: %d %v", v, err)
	}
}

func TestParseCPUs(t *testing.T) {
	for in, want := range map[string]int64{"1": 1e9, "0.5": 5e8, ".25": 25e7, "1.": 1e9, "0": 0, "2.000000001": 2000000001, "1.5000000000000": 15e8} {
		if got, err := ParseCPUs(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", ".", "x", "-1", "1.2.3", "0.0000000001", "99999999999999", "1,5"} {
		if got, err := ParseCPUs(in); err == nil {
			t.Errorf("%q: %d, no error", in, got)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "SIGTERM": syscall.SIGTERM, "sigterm": syscall.SIGTERM, "15": 15, "9": syscall.SIGKILL, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "rtmax": 64, "IOT": syscall.SIGABRT, "POLL": syscall.SIGIO, "64": 64, "WINCH": 28,
	} {
		if got, err := ParseSignal(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "FOO", "SIG", "RTMIN+31", "RTMAX-31", "RTMIN+-1", "RTMIN+"} {
		if got, err := ParseSignal(in); err == nil {
			t.Errorf("%q: %v, no error", in, got)
		}
	}
	for n := syscall.Signal(1); n <= 64; n++ {
		if got, err := ParseSignal(SignalName(n)); err != nil || got != n {
			t.Errorf("signal %d: %q is %v, %v", n, SignalName(n), got, err)
		}
	}
}

// TestParseUser covers attack class 20: no number out of range and no near-number
// may pass, because it could come out as id 0.
func TestParseUser(t *testing.T) {
	for in, want := range map[string][2]string{"": {}, "root": {"root", ""}, "0": {"0", ""}, "5:6": {"5", "6"}, "a:b": {"a", "b"}, "2147483647": {"2147483647", ""}, "a-b.c_d$": {"a-b.c_d$", ""}, "5:a": {"5", "a"}} {
		if u, g, err := ParseUser(in); err != nil || u != want[0] || g != want[1] {
			t.Errorf("%q: %q %q %v", in, u, g, err)
		}
	}
	for _, in := range []string{"-1", "+0", "2147483648", "4294967295", "4294967296", "4294967297", "99999999999999999999", ":5", "5:", "a:b:c", " 0", "0 ", "a b", "5:-1", "5:4294967296", "a\n", "a/b", "\x000"} {
		if u, g, err := ParseUser(in); err == nil {
			t.Errorf("%q: %q %q, no error", in, u, g)
		}
	}
	// A name that only looks like a number stays a name; it is looked up, never converted.
	for _, in := range []string{"0x0", "1e3", "٣"} {
		if _, ok, _ := ParseID(in); ok {
			t.Errorf("%q taken for a number", in)
		}
	}
}

func TestParseVolume(t *testing.T) {
	for in, want := range map[string]Mount{
		"/anon":                {Type: "volume", Target: "/anon"},
		"vol:/z":               {Type: "volume", Source: "vol", Target: "/z"},
		"/a:/b":                {Type: "bind", Source: "/a", Target: "/b", CreateSource: true},
		"/a/../c/:/b//x/":      {Type: "bind", Source: "/c", Target: "/b/x", CreateSource: true},
		"/a:/b:ro":             {Type: "bind", Source: "/a", Target: "/b", CreateSource: true, ReadOnly: true},
		"/a:/b:ro,Z,U,rshared": {Type: "bind", Source: "/a", Target: "/b", CreateSource: true, ReadOnly: true, Relabel: "Z", Chown: true, Propagation: "rshared"},
		"v:/b:nocopy,rw":       {Type: "volume", Source: "v", Target: "/b", NoCopy: true},
		"/a:/b:noexec,nosuid":  {Type: "bind", Source: "/a", Target: "/b", CreateSource: true, Options: []string{"noexec", "nosuid"}},
		"/a:/b:bind,cached":    {Type: "bind", Source: "/a", Target: "/b", CreateSource: true, NonRecursive: true},
	} {
		got, err := ParseVolume(in, "/cwd")
		want.Typed = in
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	if got, err := ParseVolume("./x/../y:/b:ro", "/cwd"); err != nil || got.Source != "/cwd/y" || got.Typed != "/cwd/y:/b:ro" {
		t.Errorf("relative: %+v, %v", got, err)
	}
	for _, in := range []string{
		"", ":", "/", "x", "x:y", "a:b:c:d", "/a:/b:", ":/b", "/a:/", "/a:/b/..", "/a:b", "a/b:/c", "-v:/c", "/a:/b:ro,rw", "/a:/b:ro,ro", "/a:/b:foo", "/a:/b:nocopy", "v:/b:rshared", "/a:/b:shared,slave", "/a:/b:,", "/a:ro", "/a:rw,z",
	} {
		if got, err := ParseVolume(in, "/cwd"); err == nil {
			t.Errorf("%q: %+v, no error", in, got)
		}
	}
}

func TestParseTmpfs(t *testing.T) {
	mode := uint32(0o1770)
	got, err := ParseTmpfs("/run:rw,size=64m,mode=1770,uid=5,noexec,nr_inodes=1k")
	want := Mount{Type: "tmpfs", Target: "/run", TmpfsSize: 64 << 20, TmpfsMode: &mode, Options: []string{"uid=5", "noexec", "nr_inodes=1k"}, Typed: "/run:rw,size=64m,mode=1770,uid=5,noexec,nr_inodes=1k"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, in := range []string{"run", "/", "/x:foo", "/x:size=x", "/x:size=200%", "/x:mode=9", "/x:mode=77777", "/x:uid=-1", "/x:uid=4294967296", "/x:ro=1", "/x:noexec=1", "/x:huge="} {
		if got, err := ParseTmpfs(in); err == nil {
			t.Errorf("%q: %+v, no error", in, got)
		}
	}
}

func TestParseMount(t *testing.T) {
	mode := uint32(0o700)
	for in, want := range map[string]Mount{
		"type=bind,src=/a,dst=/b":                 {Type: "bind", Source: "/a", Target: "/b"},
		"type=bind,source=./a,target=/b,readonly": {Type: "bind", Source: "/cwd/a", Target: "/b", ReadOnly: true},
		"dst=/b":                            {Type: "volume", Target: "/b"},
		"type=tmpfs,dst=/b,tmpfs-mode=0700": {Type: "tmpfs", Target: "/b", TmpfsMode: &mode},
		"src=v,dst=/b,volume-opt=a=b,volume-opt=c=d":      {Type: "volume", Source: "v", Target: "/b", VolumeOpts: map[string]string{"a": "b", "c": "d"}},
		"type=bind,src=/a,dst=/b,U,relabel=private":       {Type: "bind", Source: "/a", Target: "/b", Chown: true, Relabel: "Z"},
		`type=bind,"src=/a,""q""",dst=/b`:                 {Type: "bind", Source: `/a,"q"`, Target: "/b"},
		"type=image,src=alpine,dst=/b,image-subpath=etc":  {Type: "image", Source: "alpine", Target: "/b", Subpath: "etc"},
		"type=bind,src=/a,dst=/b,bind-recursive=disabled": {Type: "bind", Source: "/a", Target: "/b", NonRecursive: true},
	} {
		if got, err := ParseMount(in, "/cwd"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "type=bind", "type=bind,dst=/b", "type=bind,src=a,dst=/b", "type=bind,src=/a,dst=b", "type=bind,src=/a,dst=/", "type=volume,src=a/b,dst=/c", "type=tmpfs,src=/a,dst=/b", "type=image,dst=/b",
		"type=bind,src=/a,dst=/b,bind-propagation=foo", `type=bind,"src=/a,dst=/b`, `type=bind,src=/a"b,dst=/b`, `"type=bind"x,src=/a,dst=/b`, "src=v,dst=/b,volume-subpath=../x", "src=v,dst=/b,volume-subpath=/x", "dst=/b,volume-subpath=x", "type=npipe,src=/a,dst=/b", "type=,dst=/b",
	} {
		if got, err := ParseMount(in, "/cwd"); err == nil {
			t.Errorf("%q: %+v, no error", in, got)
		}
	}
}

func TestParsePublish(t *testing.T) {
	for in, want := range map[string][]Port{
		"80":                {{Port: 80, Proto: "tcp"}},
		"8080:80":           {{HostPort: 8080, HostPortEnd: 8080, Port: 80, Proto: "tcp"}},
		"127.0.0.1:53:53/u": nil,
		"[::1]:1:2/UDP":     {{HostIP: "::1", HostPort: 1, HostPortEnd: 1, Port: 2, Proto: "udp"}},
		"80-81:90-91":       {{HostPort: 80, HostPortEnd: 80, Port: 90, Proto: "tcp"}, {HostPort: 81, HostPortEnd: 81, Port: 91, Proto: "tcp"}},
		"80-82:90":          {{HostPort: 80, HostPortEnd: 82, Port: 90, Proto: "tcp"}},
		"0:80":              {{Port: 80, Proto: "tcp"}},
		"::80":              {{Port: 80, Proto: "tcp"}},
		"65535:65535":       {{HostPort: 65535, HostPortEnd: 65535, Port: 65535, Proto: "tcp"}},
		"":                  nil, "0": nil, "65536": nil, "1:2:3": nil, "a:1": nil, "80:": nil, "-1:80": nil, "80:90-91": nil, "target=80,mode=x": nil, "published=80": nil, "1.2.3.4.5:1:1": nil, "+80": nil,
	} {
		got, err := ParsePublish(in)
		if (want == nil) != (err != nil) || want != nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	if got, err := ParsePublish("1-65535:1-65535"); err != nil || len(got) != 65535 {
		t.Errorf("all ports: %d, %v", len(got), err)
	}
}

func TestIsIP(t *testing.T) {
	for _, s := range []string{"1.2.3.4", "0.0.0.0", "255.255.255.255", "256.1.1.1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "", "::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7", "1::2::3", "fe80::1", "::ffff:1.2.3.4", "::1.2.3", "12345::", "g::", "1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:8::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", ":1", "1:", "[::1]", "fe80::1x", ":::", "1:::2", "1.2.3.4::"} {
		_, err := netip.ParseAddr(s)
		if IsIP(s) != (err == nil) {
			t.Errorf("%q: ours %v, netip's %v", s, IsIP(s), err == nil)
		}
	}
}

func TestEnvFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "env")
	lookup := func(k string) (string, bool) { return "from " + k, k == "HOME" }
	if err := os.WriteFile(name, []byte("\xef\xbb\xbf# c\r\nA=1\r\n\n \t B=x y \nHOME\nNOPE\nC=a=b\nD=\n#E=1\nF='q'"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadEnvFile(name, lookup)
	if want := []string{"A=1", "B=x y ", "HOME=from HOME", "C=a=b", "D=", "F='q'"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if _, err := ReadEnvFile("/dev/zero", lookup); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("/dev/zero: %v", err)
	}
}

func TestSysctls(t *testing.T) {
	for _, s := range []string{"net.ipv4.ip_forward=1", "kernel.shmmax=1", "fs.mqueue.msg_max=5", "net.ipv4.conf.eth0.x=1"} {
		if _, _, err := ParseSysctl(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	// Attack class 26: what is not the namespace's own, and ways around the list.
	for _, s := range []string{"kernel.core_pattern=|/x", "vm.swappiness=1", "net/ipv4/x=1", "net.ipv4..x=1", "net.=1", "net.ipv4.x=1\nkernel.y=2", "net.ipv4.x", "=1", "net.ipv4.x y=1", "kernel.shmmax+net.x=1", "net.../../kernel.x=1", "fs.mqueuex=1", "net.ipv4.x=\x00"} {
		if k, _, err := ParseSysctl(s); err == nil {
			t.Errorf("%q: accepted as %q", s, k)
		}
	}
}

func TestModes(t *testing.T) {
	for _, c := range []struct {
		kind, mode string
		ok         bool
	}{
		{"pid", "", true},
		{"pid", "host", true},
		{"pid", "private", true},
		{"pid", "container:x", true},
		{"pid", "container:", false},
		{"pid", "ns:/proc/1/ns/pid", true},
		{"pid", "ns:x", false},
		{"pid", "foo", false},
		{"ipc", "shareable", true},
		{"ipc", "none", true},
		{"uts", "shareable", false},
		{"user", "keep-id", true},
		{"user", "keep-id:uid=5,gid=6", true},
		{"user", "keep-id:uid=-1", false},
		{"user", "keep-id:x", false},
		{"user", "auto", true},
		{"user", "auto:size=5", true},
		{"pid", "auto", false},
		{"net", "anything", true},
		{"net", "none", true},
		{"net", "host:x", false},
		{"net", "x:y", false},
		{"cgroup", "host", true},
		{"time", "private", true},
	} {
		if _, err := ParseNamespaceMode(c.kind, c.mode); (err == nil) != c.ok {
			t.Errorf("%s %q: %v", c.kind, c.mode, err)
		}
	}
}

func TestSecurityOpts(t *testing.T) {
	var c Config
	for _, s := range []string{"no-new-privileges", "seccomp=unconfined", "apparmor:x", "label=type:y", "label=disable", "systempaths=unconfined", "mask=/proc/x:/sys/y", "unmask=/proc/kcore", "writable-cgroups=true"} {
		if err := ApplySecurityOpt(&c, s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	yes := true
	want := Config{NoNewPrivileges: &yes, Seccomp: "unconfined", AppArmor: "x", SELinuxLabels: []string{"type:y", "disable"}, UnmaskPaths: []string{"ALL", "/proc/kcore"}, MaskPaths: []string{"/proc/x", "/sys/y"}, WritableCgroups: &yes}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
	for _, s := range []string{"foo", "foo=bar", "no-new-privileges=x", "seccomp=", "label=foo", "label=type", "mask=ALL", "mask=x", "unmask=", "systempaths=x", "apparmor="} {
		if err := ApplySecurityOpt(&Config{}, s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestValidate(t *testing.T) {
	i64 := func(n int64) *int64 { return &n }
	num := func(n int) *int { return &n }
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, ""},
		{Config{Name: "a/b"}, "invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{Config{Name: "../x"}, "invalid container name (../x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{Config{WorkingDir: "x"}, "the working directory 'x' is invalid, it needs to be an absolute path"},
		{Config{Platform: "a/b/c/d"}, "error parsing specified platform: \"a/b/c/d\": cannot parse platform specifier: invalid argument"},
		{Config{StopSignal: "X"}, "invalid signal: X"},
		{Config{StopTimeout: num(-1)}, ""},
		{Config{StopTimeout: num(-2)}, "invalid stop timeout -2: want seconds, or -1 to wait for ever"},
		{Config{GroupAdd: []string{"5", "keep-groups"}}, ""},
		{Config{GroupAdd: []string{"4294967296"}}, "invalid group \"4294967296\""},
		{Config{Hostname: "a b"}, "invalid hostname format: \"a b\""},
		{Config{Network: "container:x", Hostname: "h"}, "conflicting options: hostname and the network mode"},
		{Config{Network: "container:x", Publish: []string{"80"}}, "conflicting options: port publishing and the container type network mode"},
		{Config{UTS: "host", Hostname: "h"}, "conflicting options: hostname and the UTS mode"},
		{Config{Resources: Resources{Memory: 1 << 20}}, "minimum memory limit allowed is 6MB"},
		{Config{Resources: Resources{Memory: 64 << 20, MemorySwap: 32 << 20}}, "minimum memoryswap limit should be larger than memory limit, see usage"},
		{Config{Resources: Resources{MemorySwap: 32 << 20}}, "you should always set the memory limit when using memoryswap limit, see usage"},
		{Config{Resources: Resources{MemorySwap: -1}}, ""},
		{Config{Resources: Resources{Memory: 64 << 20, MemoryReservation: 65 << 20}}, "minimum memory limit can not be less than memory reservation limit, see usage"},
		{Config{Resources: Resources{MemorySwappiness: i64(101)}}, "invalid value: 101. Valid memory swappiness range is 0-100"},
		{Config{Resources: Resources{NanoCPUs: 1e9, CPUQuota: 5000}}, "conflicting options: nano CPUs and CPU quota cannot both be set"},
		{Config{Resources: Resources{CPUPeriod: 10}}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"},
		{Config{Resources: Resources{CpusetCPUs: "0-x"}}, "invalid value 0-x for cpuset"},
		{Config{Resources: Resources{BlkioWeight: 5}}, "range of blkio weight is from 10 to 1000"},
		{Config{OOMScoreAdj: num(2000)}, "invalid value 2000, range for oom score adj is [-1000, 1000]"},
		{Config{CapAdd: []string{"foo"}}, "invalid CapAdd: unknown capability: \"CAP_FOO\""},
		{Config{CgroupParent: "/a/../b"}, "cgroup parent \"/a/../b\": must not contain \"..\""},
		{Config{Mounts: []Mount{{Target: "/a"}, {Target: "/a"}}}, "duplicate mount point: /a"},
		{Config{AutoRemove: true, Restart: RestartPolicy{Name: "always"}}, "conflicting options: cannot specify both --restart and --rm"},
		{Config{Health: &Healthcheck{Interval: 5}}, "--health-interval cannot be less than 1ms"},
	} {
		got := ""
		if err := c.cfg.Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v:\n got %q\nwant %q", c.cfg, got, c.want)
		}
	}
}

func FuzzMount(f *testing.F) {
	for _, s := range []string{"type=bind,src=/a,dst=/b", `"a""b",c`, "src=v,dst=/x,volume-opt=a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMount(s, "/cwd")
		if err == nil && (!filepath.IsAbs(m.Target) || m.Target == "/" || filepath.Clean(m.Target) != m.Target || m.Type == "bind" && !filepath.IsAbs(m.Source)) {
			t.Errorf("%q: %+v", s, m)
		}
	})
}

func FuzzVolume(f *testing.F) {
	for _, s := range []string{"/a:/b:ro,z", "v:/x", "./x:/y", "/anon"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseVolume(s, "/cwd")
		if err == nil && (!filepath.IsAbs(m.Target) || m.Target == "/" || m.Type == "bind" && !filepath.IsAbs(m.Source) || m.Type == "volume" && strings.Contains(m.Source, "/")) {
			t.Errorf("%q: %+v", s, m)
		}
	})
}

func FuzzPublish(f *testing.F) {
	for _, s := range []string{"80", "1-2:3-4/udp", "[::1]:1:2", "target=80,published=1", "0-000001:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ports, err := ParsePublish(s)
		if err == nil && len(ports) == 0 {
			t.Errorf("%q: no ports, no error", s)
		}
		for _, p := range ports {
			again, err := ParsePublish(publishText(p))
			if err != nil || len(again) != 1 || again[0] != p {
				t.Fatalf("%q: %+v becomes %+v, %v", s, p, again, err)
			}
		}
	})
}

func publishText(p Port) string {
	ip := p.HostIP
	if strings.Contains(ip, ":") {
		ip = "[" + ip + "]"
	}
	return ip + ":" + p.HostPorts() + ":" + p.Key()
}
