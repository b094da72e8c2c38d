package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/spec"
)

// TestInspectShowsTheSpecsPaths: the masked and read-only paths that inspect
// shows are those that spec.Build sets.
func TestInspectShowsTheSpecsPaths(t *testing.T) {
	for _, cfg := range []container.Config{
		{}, {Privileged: true}, {UnmaskPaths: []string{"ALL"}}, {UnmaskPaths: []string{"/proc/kcore", "/proc/sys"}}, {MaskPaths: []string{"/proc/x"}},
	} {
		rec := &container.Record{ID: strings.Repeat("a", 64), Config: cfg}
		rec.Image.Config.Cmd = []string{"true"}
		s, _, err := spec.Build(spec.Input{Record: rec, Facts: spec.Facts{NoSeccomp: true}})
		if err != nil {
			t.Fatal(err)
		}
		masked, readonly := systemPaths(&cfg)
		type paths struct{ Masked, Readonly []string }
		want, got := paths{norm(s.Linux.MaskedPaths), norm(s.Linux.ReadonlyPaths)}, paths{norm(masked), norm(readonly)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v (-spec +inspect):\n%s", cfg, diff)
		}
	}
}

func norm(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	return s
}

// TestInspectShape: the keys of inspect and their order are Docker's.
func TestInspectShape(t *testing.T) {
	c := &engine.Container{Dir: "/data/containers/x", LogPath: "/data/containers/x/log.json"}
	c.ID, c.Created = strings.Repeat("a", 64), time.Date(2024, 1, 2, 3, 4, 5, 678900000, time.UTC)
	c.Config = container.Config{
		Name: "web", Image: "nginx", Cmd: []string{"nginx", "-g", "daemon off;"}, Env: []string{"A=b", "GONE"}, Network: "front", IPAddress: "10.0.0.5", Publish: []string{"8080:80"},
		Mounts: []container.Mount{{Type: "volume", Source: "data", Target: "/data", Typed: "data:/data"}, {Type: "bind", Source: "/a", Target: "/b", ReadOnly: true}, {Type: "tmpfs", Target: "/run", Typed: "/run:size=1m"}},
	}
	c.Image = container.Image{ID: "sha256:" + strings.Repeat("d", 64), Config: container.ImageConfig{Env: []string{"PATH=/bin", "A=image", "GONE=1"}, Labels: map[string]string{"vendor": "x"}, WorkingDir: "/srv"}}
	c.Volumes = map[string]string{"/data": "data"}
	c.State = container.State{Status: container.Running, Pid: 42, StartedAt: c.Created}
	j := inspectContainer(c, config.Env{Data: "/data"}, true)
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ at, keys string }{
		{"", "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver SizeRw SizeRootFs Mounts Config NetworkSettings"},
		{"State", "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"},
		{"Config", "Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Env Cmd Image Volumes WorkingDir Entrypoint OnBuild Labels"},
		{"NetworkSettings", "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway MacAddress Networks"},
		{"HostConfig", "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt Tmpfs UTSMode UsernsMode ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth Mounts MaskedPaths ReadonlyPaths"},
	} {
		got := keysOf(t, b, want.at)
		if got != want.keys {
			t.Errorf("%q:\n got %s\nwant %s", want.at, got, want.keys)
		}
	}
	var m struct {
		Created, Path string
		Args          []string
		Config        struct {
			Hostname string
			Env, Cmd []string
			Labels   map[string]string
		}
		HostConfig struct {
			Binds []string
			Tmpfs map[string]string
		}
		Mounts []mountPointJSON
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if m.Created != "2024-01-02T03:04:05.6789Z" || m.Path != "nginx" || strings.Join(m.Args, "|") != "-g|daemon off;" || m.Config.Hostname != "aaaaaaaaaaaa" ||
		strings.Join(m.Config.Env, " ") != "A=b GONE PATH=/bin" || m.Config.Labels["vendor"] != "x" || strings.Join(m.HostConfig.Binds, " ") != "data:/data" || m.HostConfig.Tmpfs["/run"] != "size=1m" {
		t.Errorf("%+v", m)
	}
	want := []mountPointJSON{
		{Type: "volume", Name: "data", Source: "/data/volumes/data/_data", Destination: "/data", Driver: "local", Mode: "z", RW: true},
		{Type: "bind", Source: "/a", Destination: "/b", Propagation: "rprivate"},
	}
	if diff := cmp.Diff(want, m.Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

// keysOf returns the keys of an object inside b, in their order.
func keysOf(t *testing.T, b []byte, at string) string {
	t.Helper()
	if at != "" {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		b = m[at]
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for d.More() {
		k, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.(string)) //nolint:forcetypeassert // a key is a string
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(keys, " ")
}
