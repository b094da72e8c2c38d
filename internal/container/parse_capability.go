package container

import (
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// CapabilityNames are Linux's capabilities by number (capabilities(7)), without CAP_.
var CapabilityNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
	"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
	"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// ParseCapability returns the canonical name, CAP_X in upper case or ALL, of a
// capability typed in any case, with or without CAP_.
func ParseCapability(s string) (string, error) {
	up := strings.ToUpper(strings.TrimSpace(s))
	if up == "ALL" {
		return up, nil
	}
	up = strings.TrimPrefix(up, "CAP_")
	for _, n := range CapabilityNames {
		if n == up {
			return "CAP_" + up, nil
		}
	}
	return "", errs.New(errs.Invalid, "unknown capability: \"CAP_%s\"", up)
}
