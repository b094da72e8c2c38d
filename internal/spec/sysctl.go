package spec

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

const (
	sysctlPortStart = "net.ipv4.ip_unprivileged_port_start"
	sysctlPing      = "net.ipv4.ping_group_range"
)

// sysctls checks the sysctls asked for, each of which must belong to a namespace
// that is not the host's (CVE-2022-0811: the value is checked as well), and adds
// what lets a container's users ping and use low ports in a network of its own.
func (b *build) sysctls() error {
	c := b.cfg
	if !b.netPrivate && len(c.Sysctls) == 0 {
		return nil
	}
	all := make(map[string]string, len(c.Sysctls)+2)
	for key, value := range c.Sysctls {
		if strings.ContainsAny(value, "+\n\r\x00") {
			return errs.New(errs.Invalid, "sysctl %q is not allowed", key+"="+value)
		}
		if _, _, err := container.ParseSysctl(key + "=" + value); err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(key, "net.") && b.netHost:
			return errs.New(errs.Invalid, "sysctl '%s=%s' is not allowed in the host's network namespace", key, value)
		case !strings.HasPrefix(key, "net.") && b.ipcHost:
			return errs.New(errs.Invalid, "sysctl '%s=%s' is not allowed in the host's ipc namespace", key, value)
		}
		all[key] = value
	}
	b.linux.Sysctl = all
	if !b.netPrivate {
		return nil
	}
	if _, set := all[sysctlPortStart]; !set {
		all[sysctlPortStart] = "0"
	}
	// The map of another container's user namespace is not known here.
	if _, set := all[sysctlPing]; !set && (b.gids != nil || !b.ownUser) {
		all[sysctlPing] = b.pingGroups()
	}
	return nil
}

// pingGroups is the widest range of groups that may open ICMP sockets. The kernel
// refuses ids that are not mapped and ranges that run backwards outside; Docker
// leaves the sysctl alone in user namespaces for that reason, and ping fails.
func (b *build) pingGroups() string {
	if b.gids == nil {
		return "0 2147483647"
	}
	var outer []specs.LinuxIDMapping
	if len(b.linux.GIDMappings) > 0 {
		outer = b.in.Facts.GIDs
	}
	low, high := hostOrder(b.gids, outer)
	return strconv.FormatUint(uint64(low), 10) + " " + strconv.FormatUint(uint64(high), 10)
}
