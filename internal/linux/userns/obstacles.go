package userns

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Obstacles returns what on this machine keeps an ordinary user from using user
// namespaces, each as cause and remedy, given the error of an attempt (nil: none
// was made). It looks, so each cause named is really there.
func Obstacles(err error) []string {
	sysctl := func(name string) string {
		b, rerr := os.ReadFile("/proc/sys/" + name)
		if rerr != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	var all []string
	if _, serr := os.Stat("/proc/self/ns/user"); errors.Is(serr, os.ErrNotExist) {
		return []string{"this kernel was built without user namespaces (CONFIG_USER_NS)"}
	}
	if sysctl("user/max_user_namespaces") == "0" {
		all = append(all, "user namespaces are turned off here; as root: sysctl -w user.max_user_namespaces=15000")
	}
	if sysctl("kernel/unprivileged_userns_clone") == "0" {
		all = append(all, "user namespaces are for root only here; as root: sysctl -w kernel.unprivileged_userns_clone=1")
	}
	if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		all = append(all, "AppArmor restricts user namespaces here; as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
		if exe, lerr := os.Readlink("/proc/self/exe"); lerr == nil && strings.HasPrefix(exe, "/") {
			all = append(all, `or, for isle only, as root: printf 'abi <abi/4.0>,\ninclude <tunables/global>\nprofile isle `+exe+
				` flags=(unconfined) {\n  userns,\n}\n' > /etc/apparmor.d/isle && apparmor_parser -r /etc/apparmor.d/isle`)
		}
	}
	if len(all) > 0 {
		return all
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return []string{"too many user namespaces exist, or are nested; as root: sysctl -w user.max_user_namespaces=15000"}
	case errors.Is(err, unix.EPERM):
		if status("Seccomp:") == "2" {
			return []string{"isle runs under a seccomp filter, in a container perhaps, that may forbid it; in Docker: --security-opt seccomp=unconfined"}
		}
		if chrooted() {
			return []string{"a process in a chroot may not create user namespaces (clone(2))"}
		}
	}
	return nil
}

// status returns the value of a line of /proc/self/status.
func status(key string) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// chrooted reports whether the root directory is not a mount point's root that
// is also the root of the mount namespace: mountinfo then has no line for "/".
func chrooted() bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			return false
		}
	}
	return true
}
