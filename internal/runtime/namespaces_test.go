package runtime

import (
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/testenv"
)

// A network namespace of the host's, and a user namespace that has no right to
// it: the caller has, before it goes there.
func TestJoinNamespaceOfAnotherOwner(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := rootfs(t)
	other := docker(root)
	other.Linux.Namespaces = append(other.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	other.Linux.UIDMappings, other.Linux.GIDMappings = idRange(0, 100000, 65536), idRange(0, 100000, 65536)
	user := running(t, other, Options{})
	net := running(t, docker(root), Options{})
	s := docker(root, "sh", "-c", "readlink /proc/self/ns/user; readlink /proc/self/ns/net; readlink /proc/self/ns/uts")
	s.Linux.Namespaces = []specs.LinuxNamespace{
		{Type: "mount"},
		{Type: "pid"},
		{Type: "ipc"},
		{Type: "cgroup"},
		{Type: "user", Path: fmt.Sprintf("/proc/%d/ns/user", user.Pid)},
		{Type: "network", Path: fmt.Sprintf("/proc/%d/ns/net", net.Pid)},
		{Type: "uts", Path: fmt.Sprintf("/proc/%d/ns/uts", user.Pid)},
	}
	s.Hostname = ""
	for i := range s.Mounts {
		if s.Mounts[i].Type == "sysfs" { // needs the network namespace's owner
			s.Mounts[i] = specs.Mount{Source: "/sys", Destination: "/sys", Type: "bind", Options: []string{"rbind"}}
		}
	}
	want := fmt.Sprintln(nsID(t, user.Pid, "user")) + fmt.Sprintln(nsID(t, net.Pid, "net")) + fmt.Sprintln(nsID(t, user.Pid, "uts"))
	if got := run(t, s, Options{}).out; got != want || nsID(t, os.Getpid(), "net") == nsID(t, net.Pid, "net") {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
