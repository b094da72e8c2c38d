package spec

import (
	"os"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/host"
)

// Probe finds out what Build has to know for a container with this request, and
// no more: each fact costs system calls on the way of a start. It is called by
// the process that will start the container.
func Probe(m *host.Machine, c *container.Config, rootless bool) Facts {
	f := Facts{
		Rootless:    rootless,
		InUserNS:    rootless || m.InUserNS(),
		Bounding:    m.Permitted(),
		OOMScoreAdj: m.OOMScoreAdj(),
		AppArmor:    c.AppArmor != "" && m.AppArmor(),
	}
	f.SysResource = !f.InUserNS && m.SysResource()
	if r := &c.Resources; r.OOMKillDisable || r.MemorySwappiness != nil || len(r.Unified) > 0 {
		f.CgroupV2 = m.Cgroup() == host.CgroupV2
	}
	if f.InUserNS || c.Userns != "" {
		f.UIDs, f.GIDs = m.UIDs(), m.GIDs()
	}
	if c.UTS == "host" || c.Network == "host" {
		f.Hostname = m.Hostname()
	}
	for i := range c.Ulimits {
		n := container.UlimitNumber(c.Ulimits[i].Name)
		if n < 0 {
			continue // Build says so
		}
		f.HardLimits[n] = m.HardLimit(n)
		if n == rlimitNofile {
			f.MaxFiles = m.MaxFiles()
		}
	}
	if c.Resources.NanoCPUs != 0 || c.Resources.CpusetCPUs != "" {
		f.CPUList, f.CPUs = m.CPUList(), m.CPUs()
	}
	if c.Seccomp != "unconfined" {
		f.NoSeccomp = !m.Seccomp()
	}
	if !c.Privileged {
		f.SELinuxProcess, f.SELinuxFile = m.SELinux()
	}
	if c.IPC == "host" {
		fi, err := os.Stat("/dev/mqueue")
		f.HostMqueue = err == nil && fi.IsDir()
	}
	return f
}
