package runtime

import (
	"os"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// check refuses what contradicts itself, and what this machine cannot do and
// nothing below would say as clearly. The words are those that callers of other
// runtimes know.
func (c *compiler) check() error {
	l := c.s.Linux
	newUser := c.ns.new&unix.CLONE_NEWUSER != 0
	mapped := len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0
	switch {
	case newUser && !mapped:
		return invalid("user namespaces enabled, but no namespace path to join nor mappings to apply specified")
	case newUser && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0):
		return invalid("user namespaces enabled, but only one of uidMappings and gidMappings is specified")
	case c.s.Hostname != "" && !c.ns.has(unix.CLONE_NEWUTS):
		return invalid("unable to set hostname without a private UTS namespace")
	case c.s.Domainname != "" && !c.ns.has(unix.CLONE_NEWUTS):
		return invalid("unable to set domainname without a private UTS namespace")
	case len(l.TimeOffsets) > 0 && !c.ns.has(unix.CLONE_NEWTIME):
		return invalid("time namespace offsets specified, but time namespace isn't enabled in the config")
	case len(l.TimeOffsets) > 0 && c.ns.new&unix.CLONE_NEWTIME == 0:
		return invalid("time namespace enabled, but both namespace path and time offsets specified -- you may only provide one")
	case len(l.NetDevices) > 0 && !c.ns.has(unix.CLONE_NEWNET):
		return invalid("unable to move network devices without a NET namespace")
	case len(l.NetDevices) > 0 && c.ns.unshares() && c.ns.new&unix.CLONE_NEWNET != 0 && newUser:
		return unsupported("network devices are not supported for rootless containers")
	case l.IntelRdt != nil:
		// resctrl groups would have to outlive and follow the container; nobody
		// has asked for that yet, and a limit that is not set must not look set.
		return unsupported("intelRdt is specified in config, but Intel RDT is not supported")
	case l.MountLabel != "" && !hasSELinux():
		return unsupported("mount label %q is specified in config, but selinux is disabled or not supported", l.MountLabel)
	}
	if l.RootfsPropagation != "" {
		if _, _, ok := propagation(l.RootfsPropagation); !ok {
			return invalid("rootfsPropagation=%s is not valid", l.RootfsPropagation)
		}
	}
	for clock := range l.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalid("time namespace offset for %q: unknown clock", clock)
		}
	}
	for i := range l.Devices {
		d := &l.Devices[i]
		switch d.Type {
		case "b", "c", "u", "p":
		default:
			return invalid("invalid device type: %s", d.Type)
		}
		if d.Path == "" || path.Clean("/"+d.Path) == "/" {
			return invalid("device: bad path %q", d.Path)
		}
	}
	return nil
}

// checkLSM refuses a label of a security module that is not there.
func checkLSM(pr *specs.Process) error {
	switch {
	case pr.ApparmorProfile != "" && !hasAppArmor():
		return unsupported("apparmor: config provided but apparmor not supported")
	case pr.SelinuxLabel != "" && !hasSELinux():
		return unsupported("selinux label is specified in config, but selinux is disabled or not supported")
	case pr.ApparmorProfile != "" && pr.SelinuxLabel != "":
		return unsupported("an AppArmor profile and an SELinux label for one process")
	}
	return nil
}

func hasAppArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// hasSELinux is how libselinux asks: the file system is mounted.
func hasSELinux() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/selinux", &st) == nil && int64(st.Type) == unix.SELINUX_MAGIC //nolint:unconvert // not int64 on all architectures
}
