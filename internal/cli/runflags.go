package cli

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// containerFlags are the flags that run and create share. Most fill the Config
// at once; what depends on several flags is put together by config.
type containerFlags struct {
	cfg container.Config

	env, envFiles      []string
	labels, labelFiles []string
	networks           []container.Endpoint
	securityOpts       []string
	devices            []string
	volumes, tmpfs     []string
	logOpts            []string
	storageOpts        []string
	restart            string
	entrypoint         *string
	health             container.Healthcheck
	healthCmd          string
	noHealth           bool
	swappiness         int64
	oomScoreAdj        int
	pull               string
	quiet              bool
	cwd                string

	// Of run only.
	detach     bool
	sigProxy   bool
	detachKeys string
	timeline   bool
	why        bool
	format     string // of the timeline, or of what why found
}

// runOnly is how many flags, at the end of the table, are not of create.
const runOnly = 3 + lookOnly

// lookOnly is how many of these are not of plan.
const lookOnly = 3

// flags returns the table: one line a flag, bound to what it fills.
func (o *containerFlags) flags() []flag {
	c := &o.cfg
	r := &c.Resources
	o.swappiness, o.pull, o.restart, o.sigProxy = -1, "missing", "no", true
	return []flag{
		{name: "add-host", v: funcVar{"list", o.addHost}, help: "Add a line to /etc/hosts (host:ip)"},
		{name: "annotation", v: (*mapVar)(&c.Annotations), help: "Add an annotation, passed on in the runtime spec", def: "map[]"},
		{name: "attach", short: 'a', v: funcVar{"list", o.attach}, help: "Attach to STDIN, STDOUT or STDERR"},
		{name: "blkio-weight", v: (*uint16Var)(&r.BlkioWeight), help: "Block IO weight between 10 and 1000, or 0 to leave it", def: "0"},
		{name: "blkio-weight-device", v: funcVar{"list", deviceValue(&r.BlkioWeightDevice, container.ParseWeightDevice)}, help: "Block IO weight for one device (path:weight)", def: "[]"},
		{name: "cap-add", v: (*listVar)(&c.CapAdd), help: "Add Linux capabilities"},
		{name: "cap-drop", v: (*listVar)(&c.CapDrop), help: "Drop Linux capabilities"},
		{name: "cgroup-conf", v: (*mapVar)(&r.Unified), help: "Write a cgroup v2 file (file=value)", def: "map[]"},
		{name: "cgroup-parent", v: (*stringVar)(&c.CgroupParent), help: "Parent cgroup for the container"},
		{name: "cgroupns", v: (*stringVar)(&c.Cgroupns), help: "Cgroup namespace (host, private, container:NAME, ns:PATH)"},
		{name: "cidfile", v: (*stringVar)(&c.CidFile), help: "Write the container ID to this file"},
		hidden(refuse("cpu-count", "int", "only for Windows")),
		hidden(refuse("cpu-percent", "int", "only for Windows")),
		{name: "cpu-period", v: (*int64Var)(&r.CPUPeriod), help: "CPU scheduler (CFS) period in microseconds"},
		{name: "cpu-quota", v: (*int64Var)(&r.CPUQuota), help: "CPU scheduler (CFS) quota in microseconds a period"},
		{name: "cpu-rt-period", v: (*int64Var)(&r.CPURTPeriod), help: "Real-time CPU period in microseconds"},
		{name: "cpu-rt-runtime", v: (*int64Var)(&r.CPURTRuntime), help: "Real-time CPU time in microseconds a period"},
		{name: "cpu-shares", short: 'c', v: (*int64Var)(&r.CPUShares), help: "CPU shares (relative weight)"},
		{name: "cpus", v: funcVar{"decimal", func(s string) (err error) { r.NanoCPUs, err = container.ParseCPUs(s); return }}, help: "Number of CPUs"},
		{name: "cpuset-cpus", v: (*stringVar)(&r.CpusetCPUs), help: "CPUs to run on (0-3, 0,1)"},
		{name: "cpuset-mems", v: (*stringVar)(&r.CpusetMems), help: "Memory nodes to use (0-3, 0,1)"},
		{name: "device", v: (*listVar)(&o.devices), help: "Make a host device available (path[:path][:rwm], or a CDI name)"},
		{name: "device-cgroup-rule", v: funcVar{"list", o.deviceRule}, help: "Add a rule to the allowed devices"},
		{name: "device-read-bps", v: funcVar{"list", deviceValue(&r.DeviceReadBps, container.ParseRateBps)}, help: "Limit the read rate from a device (path:bytes a second)", def: "[]"},
		{name: "device-read-iops", v: funcVar{"list", deviceValue(&r.DeviceReadIOps, container.ParseRateIOps)}, help: "Limit the reads from a device (path:number a second)", def: "[]"},
		{name: "device-write-bps", v: funcVar{"list", deviceValue(&r.DeviceWriteBps, container.ParseRateBps)}, help: "Limit the write rate to a device (path:bytes a second)", def: "[]"},
		{name: "device-write-iops", v: funcVar{"list", deviceValue(&r.DeviceWriteIOps, container.ParseRateIOps)}, help: "Limit the writes to a device (path:number a second)", def: "[]"},
		{name: "disable-content-trust", v: funcVar{"", contentTrust}, help: "Accepted for Docker's sake: images are verified by digest", def: "true"},
		{name: "dns", v: funcVar{"list", o.dns}, help: "Set name servers"},
		{name: "dns-opt", v: (*listVar)(&c.DNSOptions), hidden: true},
		{name: "dns-option", v: (*listVar)(&c.DNSOptions), help: "Set resolver options"},
		{name: "dns-search", v: funcVar{"list", o.dnsSearch}, help: "Set DNS search domains"},
		{name: "domainname", v: (*stringVar)(&c.Domainname), help: "NIS domain name of the container"},
		{name: "entrypoint", v: funcVar{"string", func(s string) error { o.entrypoint = &s; return nil }}, help: "Replace the image's ENTRYPOINT"},
		{name: "env", short: 'e', v: funcVar{"list", o.addEnv}, help: "Set environment variables"},
		{name: "env-file", v: (*listVar)(&o.envFiles), help: "Read environment variables from a file"},
		{name: "expose", v: (*listVar)(&c.Expose), help: "Expose a port or a range of ports"},
		{name: "gpus", v: funcVar{"gpu-request", o.gpu}, help: "GPU devices to add ('all' for all)"},
		{name: "group-add", v: (*listVar)(&c.GroupAdd), help: "Join further groups"},
		{name: "health-cmd", v: (*stringVar)(&o.healthCmd), help: "Command that checks the health"},
		{name: "health-interval", v: (*durationVar)(&o.health.Interval), help: "Time between checks (ms|s|m|h)", def: "0s"},
		{name: "health-retries", v: (*intVar)(&o.health.Retries), help: "Failures in a row that make it unhealthy"},
		{name: "health-start-interval", v: (*durationVar)(&o.health.StartInterval), help: "Time between checks during the start period (ms|s|m|h)", def: "0s"},
		{name: "health-start-period", v: (*durationVar)(&o.health.StartPeriod), help: "Time in which failures do not count yet (ms|s|m|h)", def: "0s"},
		{name: "health-timeout", v: (*durationVar)(&o.health.Timeout), help: "Longest time for one check (ms|s|m|h)", def: "0s"},
		{name: "hostname", short: 'h', v: (*stringVar)(&c.Hostname), help: "Host name inside the container"},
		{name: "init", v: (*boolVar)(&c.Init), help: "Run an init as PID 1 that reaps processes and passes signals on"},
		{name: "interactive", short: 'i', v: (*boolVar)(&c.OpenStdin), help: "Keep STDIN open even if not attached"},
		hidden(refuse("io-maxbandwidth", "bytes", "only for Windows")),
		hidden(refuse("io-maxiops", "uint", "only for Windows")),
		{name: "ip", v: (*stringVar)(&c.IPAddress), help: "IPv4 address (e.g., 172.30.100.104)"},
		{name: "ip6", v: (*stringVar)(&c.IP6Address), help: "IPv6 address (e.g., 2001:db8::33)"},
		{name: "ipc", v: (*stringVar)(&c.IPC), help: "IPC namespace (host, private, shareable, none, container:NAME, ns:PATH)"},
		{name: "isolation", v: funcVar{"string", isolation}, help: "Isolation technology; only \"default\""},
		{name: "kernel-memory", v: (*bytesVar)(&r.KernelMemory), help: "Kernel memory limit (ignored: gone since Linux 5.16)"},
		{name: "label", short: 'l', v: funcVar{"list", o.addLabel}, help: "Set labels on the container"},
		{name: "label-file", v: (*listVar)(&o.labelFiles), help: "Read labels from a file"},
		{name: "link", v: funcVar{"list", o.link}, help: "Add a link to another container"},
		{name: "link-local-ip", v: (*listVar)(&c.LinkLocalIPs), help: "Link-local addresses of the container"},
		{name: "log-driver", v: (*stringVar)(&c.LogDriver), help: "Logging driver"},
		{name: "log-opt", v: (*listVar)(&o.logOpts), help: "Options of the logging driver"},
		{name: "mac-address", v: (*stringVar)(&c.MacAddress), help: "MAC address of the container (e.g., 92:d0:c6:0a:29:33)"},
		{name: "memory", short: 'm', v: (*bytesVar)(&r.Memory), help: "Memory limit"},
		{name: "memory-reservation", v: (*bytesVar)(&r.MemoryReservation), help: "Memory soft limit"},
		{name: "memory-swap", v: funcVar{"bytes", func(s string) (err error) { r.MemorySwap, err = container.ParseMemorySwap(s); return }}, help: "Limit of memory plus swap; '-1' for unlimited swap"},
		{name: "memory-swappiness", v: (*int64Var)(&o.swappiness), help: "Memory swappiness (0 to 100)", def: "-1"},
		{name: "mount", v: funcVar{"mount", o.mount}, help: "Attach a file system (type=bind|volume|tmpfs|image,...)"},
		{name: "name", v: (*stringVar)(&c.Name), help: "Name of the container"},
		{name: "net", v: funcVar{"network", o.network}, hidden: true},
		{name: "net-alias", v: (*listVar)(&c.NetworkAlias), hidden: true},
		{name: "network", v: funcVar{"network", o.network}, help: "Connect to a network (NAME, none, host, container:NAME, ns:PATH; pasta[:OPTION,...], slirp4netns[:OPTION=VALUE,...] without root)"},
		{name: "network-alias", v: (*listVar)(&c.NetworkAlias), help: "Further names within the network"},
		{name: "no-healthcheck", v: (*boolVar)(&o.noHealth), help: "Disable the image's HEALTHCHECK"},
		{name: "oom-kill-disable", v: (*boolVar)(&r.OOMKillDisable), help: "Disable the OOM killer"},
		{name: "oom-score-adj", v: (*intVar)(&o.oomScoreAdj), help: "Preference of the OOM killer (-1000 to 1000)"},
		{name: "pid", v: (*stringVar)(&c.PID), help: "PID namespace (host, private, container:NAME, ns:PATH)"},
		{name: "pids-limit", v: (*int64Var)(&r.PidsLimit), help: "Limit of processes (-1 for unlimited)"},
		{name: "platform", v: (*stringVar)(&c.Platform), help: "Platform of the image (os/arch[/variant])"},
		{name: "privileged", v: (*boolVar)(&c.Privileged), help: "Give the container all that the caller may do"},
		{name: "publish", short: 'p', v: (*listVar)(&c.Publish), help: "Publish ports to the host ([[ip:][port]:]port[/proto])"},
		{name: "publish-all", short: 'P', v: (*boolVar)(&c.PublishAll), help: "Publish all exposed ports to free ports"},
		{name: "pull", v: (*stringVar)(&o.pull), help: `Pull the image first ("always", "missing", "never")`, def: `"missing"`},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.quiet), help: "Suppress the pull output"},
		{name: "read-only", v: (*boolVar)(&c.ReadOnly), help: "Mount the container's root file system read-only"},
		{name: "restart", v: (*stringVar)(&o.restart), help: "What to do when the container exits (no, on-failure[:max], always, unless-stopped)", def: `"no"`},
		{name: "rm", v: (*boolVar)(&c.AutoRemove), help: "Remove the container and its anonymous volumes when it exits"},
		{name: "runtime", v: (*stringVar)(&c.Runtime), help: "OCI runtime for this container"},
		{name: "security-opt", v: (*listVar)(&o.securityOpts), help: "Security options (seccomp=, apparmor=, label=, no-new-privileges, mask=, unmask=, systempaths=)"},
		{name: "shm-size", v: (*bytesVar)(&c.ShmSize), help: "Size of /dev/shm"},
		{name: "stop-signal", v: (*stringVar)(&c.StopSignal), help: "Signal that stops the container"},
		{name: "stop-timeout", v: intPtrVar{&c.StopTimeout}, help: "Seconds to wait before the container is killed"},
		{name: "storage-opt", v: (*listVar)(&o.storageOpts), help: "Options of the storage driver"},
		{name: "sysctl", v: funcVar{"map", o.sysctl}, help: "Set namespaced kernel parameters", def: "map[]"},
		{name: "time", v: (*stringVar)(&c.Time), help: "Time namespace (host, private, container:NAME, ns:PATH)"},
		{name: "time-offset", v: funcVar{"list", o.timeOffset}, help: "Shift a clock of a private time namespace (monotonic|boottime=seconds)"},
		{name: "tmpfs", v: (*listVar)(&o.tmpfs), help: "Mount a tmpfs (path[:options])"},
		{name: "tty", short: 't', v: (*boolVar)(&c.TTY), help: "Allocate a pseudo-TTY"},
		{name: "ulimit", v: funcVar{"ulimit", o.ulimit}, help: "Resource limits (name=soft[:hard])", def: "[]"},
		refuse("use-api-socket", "", "the container would be given all of the caller's containers"),
		{name: "user", short: 'u', v: (*stringVar)(&c.User), help: "User inside (<name|uid>[:<group|gid>])"},
		{name: "userns", v: (*stringVar)(&c.Userns), help: "User namespace (host, private, auto, keep-id[:uid=N,gid=N], container:NAME, ns:PATH)"},
		{name: "uts", v: (*stringVar)(&c.UTS), help: "UTS namespace (host, private, container:NAME, ns:PATH)"},
		{name: "volume", short: 'v', v: (*listVar)(&o.volumes), help: "Mount a host path or volume ([source:]path[:options])"},
		{name: "volume-driver", v: (*stringVar)(&c.VolumeDrv), help: "Driver of the container's volumes"},
		{name: "volumes-from", v: (*listVar)(&c.VolumesFrom), help: "Mount the volumes of other containers"},
		{name: "workdir", short: 'w', v: (*stringVar)(&c.WorkingDir), help: "Working directory inside the container"},

		{name: "detach", short: 'd', v: (*boolVar)(&o.detach), help: "Run in the background and print the container ID"},
		{name: "detach-keys", v: (*stringVar)(&o.detachKeys), help: "Keys that detach from the container (default ctrl-p,ctrl-q)"},
		{name: "sig-proxy", v: (*boolVar)(&o.sigProxy), help: "Pass received signals on to the process", def: "true"},
		{name: "format", v: (*stringVar)(&o.format), help: "Format of what --timeline or --why show: \"text\" (default) or \"json\""},
		{name: "timeline", v: (*boolVar)(&o.timeline), help: "Show at the end where the time of the start went"},
		{name: "why", v: (*boolVar)(&o.why), help: "Watch the command and show at the end why system calls were refused"},
	}
}

func (o *containerFlags) addHost(s string) error {
	h, err := container.ParseExtraHost(s)
	o.cfg.ExtraHosts = append(o.cfg.ExtraHosts, h)
	return err
}

func (o *containerFlags) attach(s string) error {
	l := strings.ToLower(s)
	if l != "stdin" && l != "stdout" && l != "stderr" {
		return errs.New(errs.Invalid, "valid streams are STDIN, STDOUT and STDERR")
	}
	o.cfg.Attach = append(o.cfg.Attach, l)
	return nil
}

func (o *containerFlags) deviceRule(s string) error {
	o.cfg.DeviceCgroupRules = append(o.cfg.DeviceCgroupRules, s)
	return container.CheckDeviceCgroupRule(s)
}

func (o *containerFlags) dns(s string) error {
	o.cfg.DNS = append(o.cfg.DNS, s)
	return container.CheckDNS(s)
}

func (o *containerFlags) dnsSearch(s string) error {
	d, err := container.ParseDNSSearch(s)
	o.cfg.DNSSearch = append(o.cfg.DNSSearch, d)
	return err
}

func (o *containerFlags) addEnv(s string) error {
	e, err := container.ParseEnv(s, os.LookupEnv)
	o.env = append(o.env, e)
	return err
}

func (o *containerFlags) gpu(s string) error {
	g, err := container.ParseGPUs(s)
	o.cfg.DeviceRequests = append(o.cfg.DeviceRequests, g)
	return err
}

func (o *containerFlags) addLabel(s string) error {
	_, _, err := container.ParseLabel(s)
	o.labels = append(o.labels, s)
	return err
}

func (o *containerFlags) link(s string) error {
	_, _, err := container.ParseLink(s)
	o.cfg.Links = append(o.cfg.Links, s)
	return err
}

func (o *containerFlags) mount(s string) error {
	if err := o.needDir(); err != nil {
		return err
	}
	m, err := container.ParseMount(s, o.cwd)
	o.cfg.Mounts = append(o.cfg.Mounts, m)
	return err
}

func (o *containerFlags) network(s string) error {
	e, err := container.ParseNetwork(s)
	o.networks = append(o.networks, e)
	return err
}

func (o *containerFlags) sysctl(s string) error {
	k, v, err := container.ParseSysctl(s)
	if o.cfg.Sysctls == nil {
		o.cfg.Sysctls = map[string]string{}
	}
	o.cfg.Sysctls[k] = v
	return err
}

func (o *containerFlags) timeOffset(s string) error {
	clock, secs, err := container.ParseTimeOffset(s)
	if o.cfg.TimeOffsets == nil {
		o.cfg.TimeOffsets = map[string]int64{}
	}
	o.cfg.TimeOffsets[clock] = secs
	return err
}

// ulimit keeps the last of several limits of one name.
func (o *containerFlags) ulimit(s string) error {
	u, err := container.ParseUlimit(s)
	for i := range o.cfg.Ulimits {
		if o.cfg.Ulimits[i].Name == u.Name {
			o.cfg.Ulimits[i] = u
			return err
		}
	}
	o.cfg.Ulimits = append(o.cfg.Ulimits, u)
	return err
}

// setMounts adds the mounts of -v and --tmpfs to those of --mount.
func (o *containerFlags) setMounts() error {
	for _, s := range o.volumes {
		if strings.HasPrefix(s, ".") {
			if err := o.needDir(); err != nil {
				return err
			}
		}
		m, err := container.ParseVolume(s, o.cwd)
		if err != nil {
			return err
		}
		o.cfg.Mounts = append(o.cfg.Mounts, m)
	}
	for _, s := range o.tmpfs {
		m, err := container.ParseTmpfs(s)
		if err != nil {
			return err
		}
		o.cfg.Mounts = append(o.cfg.Mounts, m)
	}
	for i := range o.cfg.Mounts {
		if m := &o.cfg.Mounts[i]; m.Type == "volume" && m.VolumeDriver == "" {
			m.VolumeDriver = o.cfg.VolumeDrv
		}
	}
	return nil
}

func (o *containerFlags) needDir() (err error) {
	if o.cwd == "" {
		o.cwd, err = os.Getwd()
	}
	return err
}

func deviceValue(to *[]container.DeviceValue, parse func(string) (container.DeviceValue, error)) func(string) error {
	return func(s string) error {
		d, err := parse(s)
		*to = append(*to, d)
		return err
	}
}

// contentTrust refuses to turn Docker's Notary on.
func contentTrust(s string) error {
	off, err := strconv.ParseBool(s)
	if err == nil && !off {
		err = errs.New(errs.Unsupported, "content trust is not supported")
	}
	return err
}

func isolation(s string) error {
	if s == "" || strings.EqualFold(s, "default") {
		return nil
	}
	return errs.New(errs.Unsupported, "invalid isolation %q on linux; only \"default\" is supported", s)
}

// config puts the parts together into a Config for image and its command.
func (o *containerFlags) config(args []string) (*container.Config, error) {
	c := &o.cfg
	c.Image = args[0]
	if len(args) > 1 {
		c.Cmd = args[1:]
	}
	if c.Image == "" {
		return nil, errs.New(errs.Invalid, "invalid reference format")
	}
	switch o.pull {
	case "always", "missing", "never", "":
	default:
		return nil, errs.New(errs.Invalid, `invalid pull option: '%s': must be one of "always", "missing" or "never"`, o.pull)
	}
	for _, part := range [...]func() error{o.setEnv, o.setLabels, o.setHealth, o.setMounts, o.setNetworks, o.setDevices, o.setOpts} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	if o.entrypoint != nil {
		c.EntrypointSet = true
		if *o.entrypoint != "" {
			c.Entrypoint = []string{*o.entrypoint}
		}
	}
	if o.swappiness != -1 {
		c.Resources.MemorySwappiness = &o.swappiness
	}
	if o.oomScoreAdj != 0 {
		c.OOMScoreAdj = &o.oomScoreAdj
	}
	return c, c.Validate()
}

// setEnv joins the files' variables and those of -e, which come last and win.
func (o *containerFlags) setEnv() error {
	for _, name := range o.envFiles {
		kv, err := container.ReadEnvFile(name, os.LookupEnv)
		if err != nil {
			return err
		}
		o.cfg.Env = append(o.cfg.Env, kv...)
	}
	o.cfg.Env = append(o.cfg.Env, o.env...)
	return nil
}

func (o *containerFlags) setLabels() error {
	var all []string
	for _, name := range o.labelFiles {
		kv, err := container.ReadLabelFile(name)
		if err != nil {
			return err
		}
		all = append(all, kv...)
	}
	for _, l := range append(all, o.labels...) {
		k, v, err := container.ParseLabel(l)
		if err != nil {
			return err
		}
		if o.cfg.Labels == nil {
			o.cfg.Labels = map[string]string{}
		}
		o.cfg.Labels[k] = v
	}
	return nil
}

func (o *containerFlags) setHealth() error {
	h := &o.health
	some := o.healthCmd != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0
	switch {
	case o.noHealth && some:
		return errs.New(errs.Invalid, "--no-healthcheck conflicts with --health-* options")
	case o.noHealth:
		o.cfg.Health = &container.Healthcheck{Test: []string{"NONE"}}
	case some:
		if o.healthCmd != "" {
			h.Test = []string{"CMD-SHELL", o.healthCmd}
		}
		o.cfg.Health = h
	}
	return nil
}

// setNetworks gives the first network the settings of the flags beside it.
func (o *containerFlags) setNetworks() error {
	c := &o.cfg
	for _, p := range c.Publish {
		if _, err := container.ParsePublish(p); err != nil {
			return err
		}
	}
	for _, p := range c.Expose {
		if _, err := container.ParseExpose(p); err != nil {
			return err
		}
	}
	if c.MacAddress != "" && !container.IsMAC(c.MacAddress) {
		return errs.New(errs.Invalid, "%s is not a valid mac address", c.MacAddress)
	}
	for _, ip := range append([]string{c.IPAddress, c.IP6Address}, c.LinkLocalIPs...) {
		if ip != "" && !container.IsIP(ip) {
			return errs.New(errs.Invalid, "invalid IP address: %s", ip)
		}
	}
	if len(o.networks) == 0 {
		return nil
	}
	first := &o.networks[0]
	c.Network = first.Network
	for i := range o.networks {
		if len(o.networks) > 1 && !container.IsUserNetwork(o.networks[i].Network) {
			return errs.New(errs.Invalid, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		for j := range i {
			if o.networks[j].Network == o.networks[i].Network {
				return errs.New(errs.Invalid, "network %q is specified multiple times", o.networks[i].Network)
			}
		}
	}
	c.MoreNetworks = o.networks[1:]
	for _, both := range [...]struct {
		flag string
		to   *string
		from string
	}{{"--ip and per-network IPv4 address", &c.IPAddress, first.IPAddress}, {"--ip6 and per-network IPv6 address", &c.IP6Address, first.IP6Address}, {"--mac-address and per-network MAC address", &c.MacAddress, first.MacAddress}} {
		if both.from == "" {
			continue
		}
		if *both.to != "" && *both.to != both.from {
			return errs.New(errs.Invalid, "conflicting options: cannot specify both %s", both.flag)
		}
		*both.to = both.from
	}
	c.NetworkAlias = append(c.NetworkAlias, first.Aliases...)
	c.LinkLocalIPs = append(c.LinkLocalIPs, first.LinkLocalIPs...)
	c.DriverOpts, c.GwPriority = first.DriverOpts, first.GwPriority
	return nil
}

func (o *containerFlags) setDevices() error {
	var cdi []string
	for _, s := range o.devices {
		if container.IsCDIDevice(s) {
			cdi = append(cdi, s)
			continue
		}
		d, err := container.ParseDevice(s)
		if err != nil {
			return err
		}
		o.cfg.Devices = append(o.cfg.Devices, d)
	}
	if cdi != nil {
		o.cfg.DeviceRequests = append(o.cfg.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

func (o *containerFlags) setOpts() (err error) {
	c := &o.cfg
	for _, s := range o.securityOpts {
		if err := container.ApplySecurityOpt(c, s); err != nil {
			return err
		}
	}
	for _, s := range o.logOpts {
		if c.LogOpts == nil {
			c.LogOpts = map[string]string{}
		}
		k, v, _ := strings.Cut(s, "=")
		c.LogOpts[k] = v
	}
	for _, s := range o.storageOpts {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return errs.New(errs.Invalid, "invalid storage option")
		}
		if c.StorageOpts == nil {
			c.StorageOpts = map[string]string{}
		}
		c.StorageOpts[k] = v
	}
	if o.restart != "no" { // the zero value
		c.Restart, err = container.ParseRestartPolicy(o.restart)
	}
	return err
}

// writeCIDFile keeps a new container's id in the file of --cidfile, which must
// not be there yet: it would belong to another container.
func writeCIDFile(name, id string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(id)
	return errors.Join(err, f.Close())
}

func checkCIDFile(name string) error {
	if _, err := os.Lstat(name); err == nil {
		return errs.New(errs.Exists, "container ID file found, make sure the other container isn't running or delete %s", name)
	}
	if fi, err := os.Stat(path.Dir(name)); err != nil || !fi.IsDir() {
		return errs.New(errs.NotFound, "create the container ID file: %s: no such directory", path.Dir(name))
	}
	return nil
}
