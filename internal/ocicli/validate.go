package ocicli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// validate refuses what package runtime leaves to the kernel, in the words that
// callers know.
func (c *call) validate(s *specs.Spec) error {
	has := map[specs.LinuxNamespaceType]string{}
	for _, ns := range s.Linux.Namespaces {
		if _, twice := has[ns.Type]; twice {
			return fmt.Errorf("malformed spec file: duplicated ns %q", ns)
		}
		has[ns.Type] = ns.Path
	}
	own := func(t specs.LinuxNamespaceType) bool { _, ok := has[t]; return ok }
	l := s.Linux
	switch {
	case len(l.MaskedPaths)+len(l.ReadonlyPaths) > 0 && !own(specs.MountNamespace):
		return errors.New("unable to restrict sys entries without a private MNT namespace")
	case os.Geteuid() != 0 && len(s.Process.User.AdditionalGids) > 0:
		return errors.New("cannot set any additional groups in a rootless container")
	case os.Geteuid() != 0 && !own(specs.UserNamespace):
		return errors.New("rootless container requires user namespaces")
	}
	for key := range l.Sysctl {
		if err := checkSysctl(key, has); err != nil {
			return err
		}
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if !strings.HasPrefix(m.Destination, "/") {
			c.log.warn("mount destination %s is not absolute. Support for non-absolute mount destinations will be removed in a future release.", m.Destination)
		}
	}
	return nil
}

// checkSysctl refuses kernel parameters that are not the container's own.
func checkSysctl(key string, has map[specs.LinuxNamespaceType]string) error {
	own := func(t specs.LinuxNamespaceType) bool { _, ok := has[t]; return ok }
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		// The first separator says which one it is (sysctl.d(5)).
		key = strings.NewReplacer("/", ".", ".", "/").Replace(key)
	}
	switch key {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		if !own(specs.IPCNamespace) {
			return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", key)
		}
		return nil
	case "kernel.domainname":
		if own(specs.UTSNamespace) {
			return nil
		}
	case "kernel.hostname":
		if own(specs.UTSNamespace) {
			return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", key, "hostname")
		}
	}
	switch {
	case strings.HasPrefix(key, "fs.mqueue."):
		if !own(specs.IPCNamespace) {
			return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", key)
		}
		return nil
	case strings.HasPrefix(key, "net."):
		path, ok := has[specs.NetworkNamespace]
		if ok && path == "" {
			return nil
		}
		if ok {
			hosts, err := sameFile(path, "/proc/self/ns/net")
			if err != nil {
				return fmt.Errorf("invalid netns path: %w", err)
			}
			if !hosts {
				return nil
			}
		}
		return fmt.Errorf("sysctl %q not allowed in host network namespace", key)
	case strings.HasPrefix(key, "user."):
		if !own(specs.UserNamespace) {
			return fmt.Errorf("setting ucounts without a user namespace not allowed: %v", key)
		}
		return nil
	}
	return fmt.Errorf("sysctl %q is not in a separate kernel namespace", key)
}

func sameFile(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(x, y), nil
}
