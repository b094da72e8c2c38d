package container

import (
	"path"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// MinMemory is the smallest --memory: less does not let a process start.
const MinMemory = 6 << 20

// Validate checks the fields of c against one another and against what every
// machine refuses. What depends on this machine (processors, controllers, the
// parent's limits) is checked where it is applied.
func (c *Config) Validate() error {
	for _, check := range [...]func(*Config) error{checkIdentity, checkNamespaces, checkMemory, checkCPU, checkOther, checkHealth, checkLife} {
		if err := check(c); err != nil {
			return errs.As(errs.Invalid, err)
		}
	}
	return nil
}

// CheckDrivers refuses what takes a driver that isle has not, rather than run
// without what was asked for. It is apart from Validate as Docker's client does
// not know either: it is the engine that has drivers.
func (c *Config) CheckDrivers() error {
	if len(c.DeviceRequests) > 0 {
		d := c.DeviceRequests[0]
		if d.Driver == "cdi" {
			return errs.New(errs.Unsupported, "CDI device injection failed: unresolvable CDI devices %s", strings.Join(d.DeviceIDs, ", "))
		}
		return errs.New(errs.Unsupported, "could not select device driver %q with capabilities: [[gpu]]; give the container the device files (--device /dev/dri)", d.Driver)
	}
	for k := range c.StorageOpts {
		return errs.New(errs.Unsupported, "storage-opt %s: the writable layer of a container is a directory, which has no options", k)
	}
	switch c.Runtime {
	case "", "isle", "runc", "io.containerd.runc.v2":
		return nil // Docker's names for its usual one mean the usual one
	}
	return errs.New(errs.Unsupported, "unknown or invalid runtime name: %s", c.Runtime)
}

func checkIdentity(c *Config) error {
	if c.Name != "" {
		if err := CheckName(c.Name); err != nil {
			return err
		}
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return errs.New(errs.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	if c.Platform != "" {
		if err := CheckPlatform(c.Platform); err != nil {
			return err
		}
	}
	if c.StopSignal != "" {
		if _, err := ParseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	if c.User != "" {
		if _, _, err := ParseUser(c.User); err != nil {
			return err
		}
	}
	for _, g := range c.GroupAdd {
		if g == "keep-groups" {
			continue
		}
		if _, _, err := ParseUser(g); err != nil || strings.Contains(g, ":") || g == "" {
			return errs.New(errs.Invalid, "invalid group %q", g)
		}
	}
	if c.StopTimeout != nil && *c.StopTimeout < -1 {
		return errs.New(errs.Invalid, "invalid stop timeout %d: want seconds, or -1 to wait for ever", *c.StopTimeout)
	}
	return CheckHostname(c.Hostname)
}

func checkNamespaces(c *Config) error {
	for _, n := range [...]struct{ kind, mode string }{
		{"pid", c.PID}, {"ipc", c.IPC}, {"uts", c.UTS}, {"user", c.Userns}, {"cgroup", c.Cgroupns}, {"time", c.Time}, {"net", c.Network},
	} {
		if _, err := ParseNamespaceMode(n.kind, n.mode); err != nil {
			return err
		}
	}
	joinsNet := strings.HasPrefix(c.Network, "container:")
	hostUTS := c.UTS == "host"
	switch {
	case joinsNet && c.Hostname != "":
		return errs.New(errs.Invalid, "conflicting options: hostname and the network mode")
	case hostUTS && (c.Hostname != "" || c.Domainname != ""):
		return errs.New(errs.Invalid, "conflicting options: hostname and the UTS mode")
	case joinsNet && len(c.Links) > 0:
		return errs.New(errs.Invalid, "conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case joinsNet && len(c.DNS) > 0:
		return errs.New(errs.Invalid, "conflicting options: dns and the network mode")
	case joinsNet && len(c.ExtraHosts) > 0:
		return errs.New(errs.Invalid, "conflicting options: custom host-to-IP mapping and the network mode")
	case joinsNet && c.MacAddress != "":
		return errs.New(errs.Invalid, "conflicting options: mac-address and the network mode")
	case joinsNet && (len(c.Publish) > 0 || c.PublishAll):
		return errs.New(errs.Invalid, "conflicting options: port publishing and the container type network mode")
	case joinsNet && len(c.Expose) > 0:
		return errs.New(errs.Invalid, "conflicting options: port exposing and the container type network mode")
	case c.Network == "host" && len(c.Links) > 0:
		return errs.New(errs.Invalid, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case c.Privileged && c.Userns != "" && c.Userns != "host" && strings.HasPrefix(c.Userns, "container:"):
		return errs.New(errs.Invalid, "conflicting options: privileged and another container's user namespace")
	}
	if !IsUserNetwork(c.Network) && len(c.MoreNetworks) == 0 && len(c.NetworkAlias) > 0 {
		return errs.New(errs.Invalid, "network-scoped aliases are only supported for user-defined networks")
	}
	return nil
}

func checkMemory(c *Config) error {
	r := &c.Resources
	switch {
	case r.Memory > 0 && r.Memory < MinMemory:
		return errs.New(errs.Invalid, "minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errs.New(errs.Invalid, "minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return errs.New(errs.Invalid, "you should always set the memory limit when using memoryswap limit, see usage")
	case r.MemoryReservation > 0 && r.MemoryReservation < MinMemory:
		return errs.New(errs.Invalid, "minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return errs.New(errs.Invalid, "minimum memory limit can not be less than memory reservation limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return errs.New(errs.Invalid, "invalid value: %d. Valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case c.ShmSize < 0:
		return errs.New(errs.Invalid, "SHM size can not be less than 0")
	}
	return nil
}

func checkCPU(c *Config) error {
	r := &c.Resources
	switch {
	case r.NanoCPUs < 0 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return errs.New(errs.Invalid, "range of CPUs is from 0.01 to as many as there are")
	case r.NanoCPUs > 0 && r.CPUPeriod != 0:
		return errs.New(errs.Invalid, "conflicting options: nano CPUs and CPU period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota != 0:
		return errs.New(errs.Invalid, "conflicting options: nano CPUs and CPU quota cannot both be set")
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return errs.New(errs.Invalid, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return errs.New(errs.Invalid, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPUShares < 0:
		return errs.New(errs.Invalid, "invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	}
	for _, s := range [...]string{r.CpusetCPUs, r.CpusetMems} {
		if err := checkCPUList(s); err != nil {
			return err
		}
	}
	return nil
}

// checkCPUList checks the form "0-3,5" of cpuset(7).
func checkCPUList(s string) error {
	if s == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		if from, _, ok := portRange(part); !ok || from > 8191 {
			return errs.New(errs.Invalid, "invalid value %s for cpuset", s)
		}
	}
	return nil
}

func checkOther(c *Config) error {
	r := &c.Resources
	if r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return errs.New(errs.Invalid, "range of blkio weight is from 10 to 1000")
	}
	if c.OOMScoreAdj != nil && (*c.OOMScoreAdj < -1000 || *c.OOMScoreAdj > 1000) {
		return errs.New(errs.Invalid, "invalid value %d, range for oom score adj is [-1000, 1000]", *c.OOMScoreAdj)
	}
	for _, s := range c.CapAdd {
		if _, err := ParseCapability(s); err != nil {
			return errs.New(errs.Invalid, "invalid CapAdd: %w", err)
		}
	}
	for _, s := range c.CapDrop {
		if _, err := ParseCapability(s); err != nil {
			return errs.New(errs.Invalid, "invalid CapDrop: %w", err)
		}
	}
	if strings.ContainsAny(c.CgroupParent, "\n\x00") || strings.Contains("/"+c.CgroupParent+"/", "/../") {
		return errs.New(errs.Invalid, "cgroup parent %q: must not contain \"..\"", c.CgroupParent)
	}
	seen := map[string]bool{}
	for _, m := range c.Mounts {
		if seen[m.Target] {
			return errs.New(errs.Invalid, "duplicate mount point: %s", m.Target)
		}
		seen[m.Target] = true
	}
	return nil
}

func checkHealth(c *Config) error {
	h := c.Health
	if h == nil {
		return nil
	}
	for _, d := range [...]struct {
		flag string
		ns   int64
	}{
		{"interval", int64(h.Interval)},
		{"timeout", int64(h.Timeout)},
		{"start-period", int64(h.StartPeriod)},
		{"start-interval", int64(h.StartInterval)},
	} {
		if d.ns < 0 {
			return errs.New(errs.Invalid, "--health-%s cannot be negative", d.flag)
		}
		if d.ns > 0 && d.ns < 1e6 {
			return errs.New(errs.Invalid, "--health-%s cannot be less than 1ms", d.flag)
		}
	}
	if h.Retries < 0 {
		return errs.New(errs.Invalid, "--health-retries cannot be negative")
	}
	return nil
}

func checkLife(c *Config) error {
	if c.AutoRemove && c.Restart.Name != "" && c.Restart.Name != "no" {
		return errs.New(errs.Invalid, "conflicting options: cannot specify both --restart and --rm")
	}
	if c.LogDriver == "none" && len(c.LogOpts) > 0 {
		return errs.New(errs.Invalid, "invalid logging opts for driver none")
	}
	return nil
}
