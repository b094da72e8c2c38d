package cli

import (
	"context"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/spec"
)

// withSize returns the container with its sizes computed.
func (c *call) withSize(ctx context.Context, eng conductor, ct *engine.Container) (*engine.Container, error) {
	all, err := eng.List(ctx, engine.ListOptions{All: true, Size: true, Filter: engine.Filter{"id": {ct.ID}}})
	if err != nil || len(all) == 0 {
		return ct, err
	}
	return &all[0], nil
}

// inspectContainer shows a container as Docker's API does.
func inspectContainer(ct *engine.Container, env config.Env, size bool) *containerJSON {
	cfg := &ct.Config
	argv := spec.Args(cfg, &ct.Image.Config)
	j := &containerJSON{
		ID:              ct.ID,
		Created:         stamp(ct.Created),
		Args:            []string{},
		State:           inspectState(&ct.State),
		Image:           ct.Image.ID,
		LogPath:         ct.LogPath,
		Name:            "/" + cfg.Name,
		RestartCount:    ct.State.RestartCount,
		Driver:          "overlay2",
		Platform:        "linux",
		AppArmorProfile: cfg.AppArmor,
		HostConfig:      inspectHostConfig(ct),
		GraphDriver:     graphDriver{Name: "overlay2"},
		Mounts:          inspectMounts(ct, env),
		Config:          inspectConfig(ct, argv),
		NetworkSettings: inspectNetwork(ct),
	}
	if len(argv) > 0 {
		j.Path, j.Args = argv[0], argv[1:]
	}
	if ct.Dir != "" {
		j.ResolvConfPath, j.HostnamePath, j.HostsPath = ct.Dir+"/resolv.conf", ct.Dir+"/hostname", ct.Dir+"/hosts"
		j.GraphDriver.Data = map[string]string{"UpperDir": ct.Dir + "/upper", "WorkDir": ct.Dir + "/work"}
	}
	if size {
		j.SizeRw, j.SizeRootFs = &ct.SizeRw, &ct.SizeRootFs
	}
	return j
}

// stamp writes a time as Docker does; one never recorded is year 1.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func inspectState(s *container.State) *stateJSON {
	j := &stateJSON{
		Status:     string(s.Status),
		Running:    s.Status == container.Running || s.Status == container.Paused || s.Status == container.Restarting,
		Paused:     s.Status == container.Paused,
		Restarting: s.Status == container.Restarting,
		OOMKilled:  s.OOMKilled,
		Dead:       s.Status == container.Dead,
		ExitCode:   s.ExitCode,
		Error:      s.Error,
		Ended:      s.Ended(),
		StartedAt:  stamp(s.StartedAt),
		FinishedAt: stamp(s.FinishedAt),
	}
	if j.Running {
		j.Pid = s.Pid
	}
	if s.Health != nil {
		j.Health = &healthJSON{Status: s.Health.Status, FailingStreak: s.Health.FailingStreak, Log: []probeJSON{}}
		for _, p := range s.Health.Log {
			j.Health.Log = append(j.Health.Log, probeJSON{stamp(p.Start), stamp(p.End), p.ExitCode, p.Output})
		}
	}
	return j
}

func inspectConfig(ct *engine.Container, argv []string) *configJSON {
	cfg, img := &ct.Config, &ct.Image.Config
	attach := func(stream string) bool { return slices.Contains(cfg.Attach, stream) }
	j := &configJSON{
		Hostname:     cfg.Hostname,
		Domainname:   cfg.Domainname,
		User:         or(cfg.User, img.User),
		AttachStdin:  attach("stdin"),
		AttachStdout: attach("stdout"),
		AttachStderr: attach("stderr"),
		ExposedPorts: exposed(&ct.Record),
		Tty:          cfg.TTY,
		OpenStdin:    cfg.OpenStdin,
		StdinOnce:    cfg.OpenStdin && attach("stdin"),
		Env:          mergeEnv(img.Env, cfg.Env),
		Image:        cfg.Image,
		WorkingDir:   or(cfg.WorkingDir, img.WorkingDir),
		Labels:       ct.Labels(),
		StopSignal:   or(cfg.StopSignal, img.StopSignal),
		StopTimeout:  cfg.StopTimeout,
		Shell:        img.Shell,
		MacAddress:   cfg.MacAddress,
		Healthcheck:  inspectHealth(cfg.Health, img.Health),
	}
	if j.Hostname == "" && cfg.UTS != "host" && len(ct.ID) >= 12 {
		j.Hostname = ct.ID[:12]
	}
	if j.Labels == nil {
		j.Labels = map[string]string{}
	}
	j.Entrypoint = img.Entrypoint
	if cfg.EntrypointSet {
		j.Entrypoint = cfg.Entrypoint
	}
	j.Cmd = argv[min(len(j.Entrypoint), len(argv)):]
	for _, m := range cfg.Mounts {
		if m.Type == "volume" && m.Source == "" {
			if j.Volumes == nil {
				j.Volumes = map[string]struct{}{}
			}
			j.Volumes[m.Target] = struct{}{}
		}
	}
	return j
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// mergeEnv is the container's environment and what the image's adds to it. A
// name without a value is kept: it says that the variable is taken away.
func mergeEnv(image, own []string) []string {
	env := append([]string{}, own...)
	for _, kv := range image {
		key, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(own, func(e string) bool { return e == key || strings.HasPrefix(e, key+"=") }) {
			env = append(env, kv)
		}
	}
	return env
}

func inspectHealth(own, image *container.Healthcheck) *healthcheckJSON {
	h := container.MergeHealth(own, image)
	if h == nil {
		return nil
	}
	return &healthcheckJSON{h.Test, int64(h.Interval), int64(h.Timeout), int64(h.StartPeriod), int64(h.StartInterval), h.Retries}
}

func inspectHostConfig(ct *engine.Container) *hostConfigJSON {
	c := &ct.Config
	r := &c.Resources
	h := &hostConfigJSON{
		ContainerIDFile:      c.CidFile,
		LogConfig:            logConfigJSON{or(c.LogDriver, "json-file"), nonNilMap(c.LogOpts)},
		NetworkMode:          or(c.Network, "bridge"),
		PortBindings:         map[string][]bindingJSON{},
		RestartPolicy:        restartJSON{or(c.Restart.Name, "no"), c.Restart.MaxRetries},
		AutoRemove:           c.AutoRemove,
		VolumeDriver:         c.VolumeDrv,
		VolumesFrom:          c.VolumesFrom,
		ConsoleSize:          c.ConsoleSize,
		Annotations:          c.Annotations,
		CapAdd:               capNames(c.CapAdd),
		CapDrop:              capNames(c.CapDrop),
		CgroupnsMode:         or(c.Cgroupns, "private"),
		DNS:                  nonNil(c.DNS),
		DNSOptions:           nonNil(c.DNSOptions),
		DNSSearch:            nonNil(c.DNSSearch),
		ExtraHosts:           c.ExtraHosts,
		GroupAdd:             c.GroupAdd,
		IpcMode:              or(c.IPC, "private"),
		Links:                c.Links,
		PidMode:              c.PID,
		Privileged:           c.Privileged,
		PublishAllPorts:      c.PublishAll,
		ReadonlyRootfs:       c.ReadOnly,
		SecurityOpt:          securityOpts(c),
		StorageOpt:           c.StorageOpts,
		UTSMode:              c.UTS,
		UsernsMode:           c.Userns,
		ShmSize:              c.ShmSize,
		Sysctls:              c.Sysctls,
		Runtime:              or(c.Runtime, "isle"),
		CPUShares:            r.CPUShares,
		Memory:               r.Memory,
		NanoCPUs:             r.NanoCPUs,
		CgroupParent:         c.CgroupParent,
		BlkioWeight:          r.BlkioWeight,
		BlkioWeightDevice:    weights(r.BlkioWeightDevice),
		BlkioDeviceReadBps:   rates(r.DeviceReadBps),
		BlkioDeviceWriteBps:  rates(r.DeviceWriteBps),
		BlkioDeviceReadIOps:  rates(r.DeviceReadIOps),
		BlkioDeviceWriteIOps: rates(r.DeviceWriteIOps),
		CPUPeriod:            r.CPUPeriod,
		CPUQuota:             r.CPUQuota,
		CPURealtimePeriod:    r.CPURTPeriod,
		CPURealtimeRuntime:   r.CPURTRuntime,
		CpusetCpus:           r.CpusetCPUs,
		CpusetMems:           r.CpusetMems,
		Devices:              []deviceJSON{},
		DeviceCgroupRules:    c.DeviceCgroupRules,
		MemoryReservation:    r.MemoryReservation,
		MemorySwap:           r.MemorySwap,
		MemorySwappiness:     r.MemorySwappiness,
		OomKillDisable:       r.OOMKillDisable,
		Ulimits:              []ulimitJSON{},
		Init:                 nil,
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	if c.OOMScoreAdj != nil {
		h.OomScoreAdj = *c.OOMScoreAdj
	}
	if r.PidsLimit != 0 {
		h.PidsLimit = &r.PidsLimit
	}
	if c.Init {
		h.Init = &c.Init
	}
	for _, p := range c.Publish {
		ports, err := container.ParsePublish(p)
		if err != nil {
			continue // a record that an older version wrote
		}
		for _, p := range ports {
			h.PortBindings[p.Key()] = append(h.PortBindings[p.Key()], bindingJSON{p.HostIP, p.HostPorts()})
		}
	}
	for _, d := range c.Devices {
		h.Devices = append(h.Devices, deviceJSON{d.Source, d.Target, d.Perms})
	}
	for _, d := range c.DeviceRequests {
		h.DeviceRequests = append(h.DeviceRequests, deviceRequestJSON{d.Driver, d.Count, d.DeviceIDs, d.Capabilities, d.Options})
	}
	for _, u := range c.Ulimits {
		h.Ulimits = append(h.Ulimits, ulimitJSON{u.Name, u.Hard, u.Soft})
	}
	slices.SortFunc(h.Ulimits, func(a, b ulimitJSON) int { return strings.Compare(a.Name, b.Name) })
	h.MaskedPaths, h.ReadonlyPaths = systemPaths(c)
	for _, m := range c.Mounts {
		requestMount(h, m)
	}
	return h
}

// requestMount puts a mount where Docker keeps it: Binds for -v, Tmpfs for
// --tmpfs, Mounts for --mount; an anonymous volume of -v is in Config.Volumes.
func requestMount(h *hostConfigJSON, m container.Mount) {
	switch {
	case m.Typed != "" && m.Type == "tmpfs":
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		_, opts, _ := strings.Cut(m.Typed, ":")
		h.Tmpfs[m.Target] = opts
	case m.Typed != "":
		if m.Source != "" {
			h.Binds = append(h.Binds, m.Typed)
		}
	case m.Type == "volume" && m.Source == "" && m.VolumeLabels == nil && m.VolumeOpts == nil && !m.ReadOnly:
		// Of the image's VOLUME, or --mount dst=...: shown in Mounts at the top level.
	default:
		h.Mounts = append(h.Mounts, mountRequest(m))
	}
}

func mountRequest(m container.Mount) mountJSON {
	j := mountJSON{Type: m.Type, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch m.Type {
	case "bind":
		if m.Propagation != "" || m.NonRecursive || m.Recursive != "" {
			j.BindOptions = &bindOptionsJSON{m.Propagation, m.NonRecursive, m.CreateSource, m.Recursive == "writable", m.Recursive == "readonly"}
		}
	case "volume":
		if m.NoCopy || m.Subpath != "" || m.VolumeDriver != "" || m.VolumeLabels != nil || m.VolumeOpts != nil {
			j.VolumeOptions = &volumeOptionsJSON{NoCopy: m.NoCopy, Labels: m.VolumeLabels, Subpath: m.Subpath}
			if m.VolumeDriver != "" || m.VolumeOpts != nil {
				j.VolumeOptions.DriverConfig = &driverConfigJSON{m.VolumeDriver, m.VolumeOpts}
			}
		}
	case "image":
		if m.Subpath != "" {
			j.ImageOptions = &imageOptionsJSON{m.Subpath}
		}
	case "tmpfs":
		if m.TmpfsSize != 0 || m.TmpfsMode != nil {
			j.TmpfsOptions = &tmpfsOptionsJSON{SizeBytes: m.TmpfsSize}
			if m.TmpfsMode != nil {
				j.TmpfsOptions.Mode = *m.TmpfsMode
			}
		}
	}
	return j
}

// inspectMounts are the mounts as they are, tmpfs from --tmpfs left out as in Docker.
func inspectMounts(ct *engine.Container, env config.Env) []mountPointJSON {
	all := []mountPointJSON{}
	for _, m := range ct.Config.Mounts {
		if m.Type == "tmpfs" && m.Typed != "" {
			continue
		}
		p := mountPointJSON{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly, Propagation: m.Propagation}
		if m.Typed != "" {
			if parts := strings.SplitN(m.Typed, ":", 3); len(parts) == 3 {
				p.Mode = parts[2]
			}
		}
		switch m.Type {
		case "bind":
			p.Propagation = or(p.Propagation, "rprivate")
		case "volume":
			p.Name, p.Driver = ct.Volumes[path.Clean(m.Target)], or(m.VolumeDriver, "local")
			p.Source = env.Volumes() + "/" + p.Name + "/_data"
			if m.Typed != "" && m.Source != "" {
				p.Mode = or(p.Mode, "z")
			}
		}
		all = append(all, p)
	}
	return all
}

func inspectNetwork(ct *engine.Container) *networkSettingsJSON {
	c := &ct.Config
	n := &networkSettingsJSON{Ports: map[string][]bindingJSON{}, Networks: map[string]*endpointJSON{}}
	if ct.State.Status == container.Running {
		if ct.State.Pid > 0 && c.Network != "host" {
			n.SandboxKey = "/proc/" + strconv.Itoa(ct.State.Pid) + "/ns/net"
		}
		for key := range exposed(&ct.Record) {
			n.Ports[key] = nil
		}
	}
	first := true
	for _, name := range networkNames(c) {
		e := &endpointJSON{}
		if first {
			e.Links, e.Aliases, e.MacAddress, e.DriverOpts, e.GwPriority = c.Links, c.NetworkAlias, c.MacAddress, c.DriverOpts, c.GwPriority
			if c.IPAddress != "" || c.IP6Address != "" || c.LinkLocalIPs != nil {
				e.IPAMConfig = &ipamJSON{c.IPAddress, c.IP6Address, c.LinkLocalIPs}
			}
		}
		for i := range c.MoreNetworks {
			m := &c.MoreNetworks[i]
			if first || m.Network != name {
				continue
			}
			e.Links, e.Aliases, e.MacAddress, e.DriverOpts, e.GwPriority = m.Links, m.Aliases, m.MacAddress, m.DriverOpts, m.GwPriority
			if m.IPAddress != "" || m.IP6Address != "" || m.LinkLocalIPs != nil {
				e.IPAMConfig = &ipamJSON{m.IPAddress, m.IP6Address, m.LinkLocalIPs}
			}
		}
		first = false
		n.Networks[name] = e
	}
	given(n, ct)
	return n
}

// given fills in what the container has got.
func given(n *networkSettingsJSON, ct *engine.Container) {
	st := ct.State.Network
	if st == nil || ct.State.Pid == 0 {
		return
	}
	for _, p := range st.Ports {
		key := num(p.Port) + "/" + p.Proto
		n.Ports[key] = append(n.Ports[key], bindingJSON{p.HostIP, num(p.HostPort)})
	}
	for i, ep := range st.Endpoints {
		e := n.Networks[ep.Network]
		if e == nil {
			e = &endpointJSON{}
			n.Networks[ep.Network] = e
		}
		e.NetworkID, e.EndpointID, e.MacAddress = ep.NetworkID, ep.ID, ep.MAC
		e.Gateway, e.IPAddress, e.IPPrefixLen = ep.Gateway, ep.IP, ep.Bits
		e.IPv6Gateway, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen = ep.Gateway6, ep.IP6, ep.Bits6
		if ep.Network != network.Default {
			e.DNSNames = append([]string{ct.Config.Name}, append(slices.Clone(ep.Aliases), ct.ID[:12])...)
		} else if i == 0 {
			n.EndpointID, n.Gateway, n.IPAddress, n.IPPrefixLen, n.MacAddress = ep.ID, ep.Gateway, ep.IP, ep.Bits, ep.MAC
			n.IPv6Gateway, n.GlobalIPv6Address, n.GlobalIPv6PrefixLen = ep.Gateway6, ep.IP6, ep.Bits6
		}
	}
}

// securityOpts writes the security options as --security-opt takes them.
func securityOpts(c *container.Config) []string {
	var all []string
	if c.NoNewPrivileges != nil {
		all = append(all, "no-new-privileges="+strconv.FormatBool(*c.NoNewPrivileges))
	}
	if c.Seccomp != "" {
		all = append(all, "seccomp="+c.Seccomp)
	}
	if c.AppArmor != "" {
		all = append(all, "apparmor="+c.AppArmor)
	}
	for _, l := range c.SELinuxLabels {
		all = append(all, "label="+l)
	}
	if c.WritableCgroups != nil {
		all = append(all, "writable-cgroups="+strconv.FormatBool(*c.WritableCgroups))
	}
	return all
}

// systemPaths are the paths of /proc and /sys that the container sees masked or
// read-only: spec.Build's lists, as a test compares.
func systemPaths(c *container.Config) (masked, readonly []string) {
	if c.Privileged {
		return nil, nil
	}
	keep := func(list ...string) []string {
		out := []string{}
		for _, p := range list {
			if !slices.ContainsFunc(c.UnmaskPaths, func(u string) bool {
				return u == "ALL" || u == p || strings.HasPrefix(p, strings.TrimSuffix(u, "/")+"/")
			}) {
				out = append(out, p)
			}
		}
		return out
	}
	masked = keep("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware")
	return append(masked, c.MaskPaths...), keep("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
}

func capNames(list []string) []string {
	var out []string
	for _, s := range list {
		n, err := container.ParseCapability(s)
		if err != nil {
			n = s
		}
		out = append(out, n)
	}
	return out
}

func weights(list []container.DeviceValue) []weightJSON {
	out := []weightJSON{}
	for _, d := range list {
		out = append(out, weightJSON{d.Path, d.Value})
	}
	return out
}

func rates(list []container.DeviceValue) []rateJSON {
	out := []rateJSON{}
	for _, d := range list {
		out = append(out, rateJSON{d.Path, d.Value})
	}
	return out
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func nonNilMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
