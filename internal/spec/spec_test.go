package spec

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/testenv"
)

type ids = []specs.LinuxIDMapping

func m(inside, outside, size uint32) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: inside, HostID: outside, Size: size}
}

func text(t testing.TB, in Input) string {
	t.Helper()
	s, warnings, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + strings.Join(warnings, "\n")
}

// TestImageMetadataIsData: whatever an image says of itself beside what it runs
// changes nothing (attack 12).
func TestImageMetadataIsData(t *testing.T) {
	for name, make := range map[string]func() Input{"root": rootInput, "rootless": rootlessInput} {
		plain := text(t, make())
		in := make()
		img := &in.Record.Image.Config
		img.Labels = map[string]string{}
		for _, k := range []string{
			"run.oci.handler", "run.oci.hooks.stdout", "run.oci.keep_original_groups", "run.oci.seccomp.receiver", "run.oci.systemd.force_cgroup_v1",
			"io.podman.annotations.privileged", "io.podman.annotations.seccomp", "io.kubernetes.cri-o.Devices", "io.kubernetes.cri-o.userns-mode",
			"io.containerd.image.name", "org.criu.config", "io.balena.features.dbus", "io.containers.capabilities", "io.podman.annotations.label",
			"org.systemd.property.DeviceAllow", "cdi.k8s.io/devices", "seccomp.security.alpha.kubernetes.io/pod", "RUN", "INSTALL", "io.containers.autoupdate",
		} {
			img.Labels[k] = "1"
		}
		img.Volumes = map[string]struct{}{"/../../etc": {}, "/proc": {}}
		img.Expose = map[string]struct{}{"80/tcp": {}}
		img.StopSignal, img.ArgsEscaped = "SIGKILL", true
		img.Shell = []string{"/evil"}
		img.Health = &container.Healthcheck{Test: []string{"CMD", "evil"}}
		in.Record.Image.Ref, in.Record.Image.ID, in.Record.Image.Layers = "evil", "sha256:evil", []string{"evil"}
		if d := cmp.Diff(plain, text(t, in)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestBuildIsPure: the same input gives the same spec, whatever was built in
// between, and the input stays as it was.
func TestBuildIsPure(t *testing.T) {
	before := text(t, rootInput())
	files, err := filepath.Glob("testdata/golden/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in := rootInput()
		withKind := struct {
			*Input
			Rootless bool
		}{Input: &in}
		if err := json.Unmarshal([]byte(archive(string(b))["input"]), &withKind); err != nil {
			t.Fatal(err)
		}
		asked, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := Build(in)
		if err == nil {
			// A caller that appends must not write into what is shared.
			s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/evil")
			s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/evil")
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/evil"})
			for i := range s.Mounts {
				s.Mounts[i].Options = append(s.Mounts[i].Options, "evil")
			}
			if r := s.Linux.Resources; r != nil {
				r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true})
			}
		}
		after, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if string(asked) != string(after) {
			t.Errorf("%s: the input was changed", file)
		}
	}
	if d := cmp.Diff(before, text(t, rootInput())); d != "" {
		t.Errorf("after other builds: %s", d)
	}
}

// TestMountOrder: no mount covers one that was made before it.
func TestMountOrder(t *testing.T) {
	in := rootInput()
	targets := []string{"/a/b/c/d", "/a", "/etc", "/a/b", "/x/y", "/var/lib/z", "/a/b/c", "/sys/fs/bpf", "/dev/x"}
	for _, target := range targets {
		in.Record.Config.Mounts = append(in.Record.Config.Mounts, container.Mount{Type: "bind", Source: "/s", Target: target})
	}
	s, _, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range s.Mounts {
		for _, earlier := range s.Mounts[:i] {
			if strings.HasPrefix(earlier.Destination, m.Destination+"/") {
				t.Errorf("%s is mounted after %s", m.Destination, earlier.Destination)
			}
		}
	}
}

func TestMappings(t *testing.T) {
	own := Own{Rootless: true, UID: 1000, GID: 1001, UIDs: ids{m(0, 1000, 1), m(1, 100000, 65536)}, GIDs: ids{m(0, 1001, 1), m(1, 100000, 65536)}}
	for _, c := range []struct {
		mode       string
		own        Own
		uids, gids ids
		err        string
	}{
		{mode: "", own: own},
		{mode: "host", own: own},
		{mode: "private", own: own},
		{mode: "container:x", own: own},
		{mode: "keep-id", own: own, uids: ids{m(0, 1, 1000), m(1000, 0, 1), m(1001, 1001, 64536)}, gids: ids{m(0, 1, 1001), m(1001, 0, 1), m(1002, 1002, 64535)}},
		{mode: "keep-id:uid=5,gid=6", own: own, uids: ids{m(0, 1, 5), m(5, 0, 1), m(6, 6, 65531)}, gids: ids{m(0, 1, 6), m(6, 0, 1), m(7, 7, 65530)}},
		{mode: "keep-id", own: Own{}, err: "rootless"},
		{mode: "nomap", own: own, uids: ids{m(0, 1, 65536)}, gids: ids{m(0, 1, 65536)}},
		{mode: "nomap", own: Own{}, err: "rootless"},
		{mode: "auto", own: own, uids: ids{m(0, 1, 1024)}, gids: ids{m(0, 1, 1024)}},
		{
			mode: "auto:size=10", own: Own{Rootless: true, UIDs: own.UIDs, GIDs: own.GIDs, UsedUIDs: ids{m(0, 1, 10)}, UsedGIDs: ids{m(0, 5, 10)}},
			uids: ids{m(0, 11, 10)}, gids: ids{m(0, 1, 4), m(4, 15, 6)},
		},
		{mode: "auto:size=70000", own: own, err: "are free"},
		{mode: "auto:size=0", own: own, err: "size"},
		{mode: "auto:uid=3", own: own, err: "unknown option"},
		{mode: "what", own: own, err: "invalid"},
	} {
		u, g, err := Mappings(c.mode, c.own)
		if c.err != "" {
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), c.err) {
				t.Errorf("%q: %v, want %q", c.mode, err, c.err)
			}
			continue
		}
		if d := cmp.Diff(c.uids, u) + cmp.Diff(c.gids, g); d != "" || err != nil {
			t.Errorf("%q: %v %s", c.mode, err, d)
		}
	}
	u, _, err := Mappings("auto", Own{})
	if err != nil || idCount(u) != 65536 || u[0].HostID == 0 {
		t.Errorf("root's auto: %v %v", u, err)
	}
}

func TestHostOrder(t *testing.T) {
	for _, c := range []struct {
		inner, outer ids
		low, high    uint32
	}{
		{ids{m(0, 1000, 1), m(1, 100000, 65536)}, nil, 0, 65536},
		{ids{m(0, 200000, 1), m(1, 100000, 10)}, nil, 1, 0},
		{ids{m(0, 200000, 5), m(5, 100000, 10)}, nil, 5, 4},
		{ids{m(0, 1000, 1)}, nil, 0, 0},
		{ids{m(0, 1, 1000), m(1000, 0, 1), m(1001, 1001, 64536)}, ids{m(0, 1000, 1), m(1, 100000, 65536)}, 1000, 65536},
		{ids{m(0, 5, 20)}, ids{m(0, 1000, 10), m(10, 500, 100)}, 5, 4},
	} {
		if low, high := hostOrder(c.inner, c.outer); low != c.low || high != c.high {
			t.Errorf("%v in %v: %d %d, want %d %d", c.inner, c.outer, low, high, c.low, c.high)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		list, have string
		want       bool
	}{
		{"0", "0-3", true},
		{"0-3", "0-3", true},
		{"1,3", "0-3", true},
		{"3-4", "0-3", false},
		{"4", "0-3,8", false},
		{"8", "0-3,8", true},
		{"2-8", "0-3,8", false},
		{"", "0-3", false},
		{"x", "0-3", false},
		{"3-1", "0-3", false},
		{"-1", "0-3", false},
	} {
		if got := within(c.list, c.have); got != c.want {
			t.Errorf("%q in %q: %v", c.list, c.have, got)
		}
	}
}

func TestLevel(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{"00000000", "00000001", "ffffffff", "00000400", "12345678", "", "xyz"} {
		l := level(id)
		c1, c2, ok := strings.Cut(strings.TrimPrefix(l, "s0:c"), ",c")
		if !ok || c1 == c2 || len(c1) > 4 || len(c2) > 4 {
			t.Errorf("%q: %q", id, l)
		}
		seen[l] = true
	}
	if len(seen) < 4 {
		t.Errorf("levels %v", seen)
	}
}

func TestResolveDevices(t *testing.T) {
	dir := testenv.Dir(t)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	c := &container.Config{Devices: []container.Device{{Source: link, Target: "/dev/n", Perms: "r"}, {Source: "/dev/zero", Target: "/dev/z", Perms: "rwm"}, {Source: "/dev/full", Target: "/dev/z", Perms: "rw"}}}
	d, err := ResolveDevices(c)
	if err != nil || len(d.Nodes) != 2 {
		t.Fatalf("%+v %v", d, err)
	}
	n := d.Nodes[0]
	if n.Source != "/dev/null" || n.Path != "/dev/n" || n.Access != "r" || n.Type != "c" || n.Major != 1 || n.Minor != 3 {
		t.Errorf("%+v", n)
	}
	if n := d.Nodes[1]; n.Path != "/dev/z" || n.Minor != 7 || n.Access != "rw" {
		t.Errorf("named twice: %+v", n)
	}
	for source, want := range map[string]string{"/no/such": "no such file", "/etc/passwd": "not a device node", dir: "no devices", "rel": "absolute"} {
		c := &container.Config{Devices: []container.Device{{Source: source, Target: "/dev/x", Perms: "rwm"}}}
		if _, err := ResolveDevices(c); err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
	}
	c = &container.Config{Resources: container.Resources{DeviceReadBps: []container.DeviceValue{{Path: "/dev/null", Value: 1}}}}
	if _, err := ResolveDevices(c); err == nil || !strings.Contains(err.Error(), "not a block device") {
		t.Errorf("limit on a character device: %v", err)
	}
	if d, err := ResolveDevices(&container.Config{}); err != nil || d.Nodes != nil || d.Block != nil {
		t.Errorf("nothing asked: %+v %v", d, err)
	}
	d, err = ResolveDevices(&container.Config{Privileged: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range d.Nodes {
		if everywhere(n.Path) || strings.HasPrefix(n.Path, "/dev/pts/") || strings.HasPrefix(n.Path, "/dev/shm/") || n.Path != n.Source {
			t.Errorf("privileged: %+v", n)
		}
	}
}

func TestProbe(t *testing.T) {
	f := Probe(new(host.Machine), &container.Config{}, false)
	if f.Bounding == 0 && os.Getuid() == 0 {
		t.Errorf("%+v", f)
	}
	if f.CPUs != 0 || f.MaxFiles != 0 || f.Hostname != "" || slices.ContainsFunc(f.HardLimits[:], func(v uint64) bool { return v != 0 }) {
		t.Errorf("found out what nobody asked for: %+v", f)
	}
	f = Probe(new(host.Machine), &container.Config{Network: "host", Userns: "auto", Ulimits: []container.Ulimit{{Name: "nofile"}, {Name: "what"}}, Resources: container.Resources{NanoCPUs: 1}}, false)
	if f.CPUs == 0 || f.MaxFiles == 0 || f.Hostname == "" || f.HardLimits[rlimitNofile] == 0 || len(f.UIDs) == 0 {
		t.Errorf("%+v", f)
	}
}

// TestProbeInUserNS: an ordinary user's role in the user's own namespace.
func TestProbeInUserNS(t *testing.T) {
	testenv.Need(t, testenv.NewUIDMap)
	if !testenv.AsUser(t) || !testenv.UnshareRange(t, syscall.CLONE_NEWUSER) {
		return
	}
	f := Probe(new(host.Machine), &container.Config{}, true)
	if !f.InUserNS || f.SysResource || !f.Bounding.Has(unix.CAP_SYS_ADMIN) || idCount(f.UIDs) < 65536 {
		t.Errorf("%+v", f)
	}
}

func BenchmarkBuild(b *testing.B) {
	for name, make := range map[string]func() Input{"root": rootInput, "rootless": rootlessInput} {
		b.Run(name, func(b *testing.B) {
			in := make()
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Build(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProbe(b *testing.B) {
	c := &container.Config{}
	for b.Loop() {
		Probe(new(host.Machine), c, false)
	}
}

func TestDefaultUser(t *testing.T) {
	own := Own{Rootless: true, UID: 1000, GID: 1001}
	for _, c := range []struct{ user, image, userns, want string }{
		{"", "", "", ""},
		{"alice", "bob", "keep-id", "alice"},
		{"", "bob", "keep-id", "bob"},
		{"", "", "keep-id", "1000:1001"},
		{"", "", "keep-id:uid=5", "5:1001"},
		{"", "", "keep-id:uid=5,gid=6", "5:6"},
		{"", "", "auto", ""},
	} {
		if got := DefaultUser(&container.Config{User: c.user, Userns: c.userns}, &container.ImageConfig{User: c.image}, own); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// FuzzBuild: whatever a record holds (it is a file on disk), Build says no or
// gives a spec that keeps the promises of a container.
func FuzzBuild(f *testing.F) {
	files, err := filepath.Glob("testdata/golden/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive(string(b))["input"])
	}
	f.Fuzz(func(t *testing.T, input string) {
		for _, in := range []Input{rootInput(), rootlessInput()} {
			facts := in.Facts
			if json.Unmarshal([]byte(input), &in) != nil || in.Record == nil {
				return
			}
			in.Facts = facts // the machine is not the user's to choose
			s, _, err := Build(in)
			if err != nil {
				continue
			}
			c := &in.Record.Config
			if len(s.Process.Args) == 0 || s.Process.Cwd == "" || s.Process.Cwd[0] != '/' || s.Process.User.UID != in.User.UID {
				t.Fatalf("process %+v", s.Process)
			}
			for _, l := range [][]string{s.Process.Capabilities.Inheritable, s.Process.Capabilities.Ambient} {
				if len(l) > 0 {
					t.Fatalf("capabilities %+v", s.Process.Capabilities)
				}
			}
			if in.User.UID != 0 && len(s.Process.Capabilities.Effective) > 0 {
				t.Fatalf("uid %d has %q", in.User.UID, s.Process.Capabilities.Effective)
			}
			seen := map[specs.LinuxNamespaceType]bool{}
			for _, n := range s.Linux.Namespaces {
				if seen[n.Type] {
					t.Fatalf("namespaces %+v", s.Linux.Namespaces)
				}
				seen[n.Type] = true
			}
			if !seen[specs.MountNamespace] {
				t.Fatal("no mount namespace")
			}
			for _, m := range s.Mounts {
				d := m.Destination
				if d == "" || d[0] != '/' || filepath.Clean(d) == "/" {
					t.Fatalf("mount on %q", d)
				}
				if strings.HasPrefix(filepath.Clean(d), "/proc/sys/kernel/core") || strings.HasPrefix(filepath.Clean(d), "/proc/self/") {
					t.Fatalf("mount on %q", d)
				}
			}
			for k, v := range s.Linux.Sysctl {
				if strings.ContainsAny(k+v, "\n+\x00") || !seen[specs.NetworkNamespace] && strings.HasPrefix(k, "net.") || strings.HasPrefix(k, "kernel.core") {
					t.Fatalf("sysctl %q=%q", k, v)
				}
			}
			if !c.Privileged && c.Seccomp == "" && s.Linux.Seccomp == nil {
				t.Fatal("no seccomp")
			}
			if !c.Privileged && len(c.UnmaskPaths) == 0 && (len(s.Linux.MaskedPaths) < len(maskedPaths) || len(s.Linux.ReadonlyPaths) != len(readonlyPaths)) {
				t.Fatalf("masked %q, read-only %q", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
			}
		}
	})
}
