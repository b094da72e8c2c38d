// Package caps turns capability names into sets as the kernel has them and says
// which of them this process holds.
//
// See capabilities(7).
package caps

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Set is a set of capabilities; bit n is capability n.
type Set uint64

// Last is the highest capability this package knows; the kernel may know more.
const Last = unix.CAP_LAST_CAP

// Has reports whether s holds capability n.
func (s Set) Has(n int) bool { return s&(1<<n) != 0 }

// Parse returns the set of the named capabilities (CAP_CHOWN ...).
func Parse(names []string) (Set, error) {
	var s Set
	for _, name := range names {
		n, ok := number(name)
		if !ok {
			return 0, fmt.Errorf("unknown capability: %q", name)
		}
		s |= 1 << n
	}
	return s, nil
}

// Names returns the names of the capabilities in s, lowest number first.
func (s Set) Names() []string {
	var out []string
	for n := range 64 {
		if s.Has(n) {
			out = append(out, Name(n))
		}
	}
	return out
}

// Permitted returns the permitted set of the calling thread.
func Permitted() (Set, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return Set(data[0].Permitted) | Set(data[1].Permitted)<<32, nil
}

// Name returns the name of capability n.
func Name(n int) string {
	if n < 0 || n >= len(table) {
		return fmt.Sprintf("CAP_%d", n)
	}
	return table[n]
}

func number(name string) (int, bool) {
	for i, t := range &table {
		if t == name {
			return i, true
		}
	}
	return 0, false
}

var table = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}
