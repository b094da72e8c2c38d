package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/host"
)

// hostInfo fills in what the machine says about itself.
func hostInfo(in *Info) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	in.Kernel = unix.ByteSliceToString(u.Release[:])
	in.Hostname = unix.ByteSliceToString(u.Nodename[:])
	in.Architecture = unix.ByteSliceToString(u.Machine[:])
	var m host.Machine
	mem, _ := m.Memory()
	in.MemTotal = int64(mem)
	in.NCPU = m.CPUs()
	if in.NCPU == 0 {
		in.NCPU = runtime.NumCPU()
	}
	in.CgroupVersion = m.Cgroup().String()
	in.CgroupControllers = m.Controllers()
	if m.Seccomp() {
		in.SecurityOptions = append(in.SecurityOptions, "name=seccomp,profile=builtin")
	}
	if m.AppArmor() {
		in.SecurityOptions = append(in.SecurityOptions, "name=apparmor")
	}
	if in.Rootless {
		in.SecurityOptions = append(in.SecurityOptions, "name=rootless")
	}
	in.SecurityOptions = append(in.SecurityOptions, "name=cgroupns")
	in.OperatingSystem, in.OSVersion = osName()
	in.LogDrivers = []string{"json-file", "local", "none"}
	fwd, _ := os.ReadFile("/proc/sys/net/ipv4/ip_forward") // not there: no IPv4
	in.IPv4Forwarding = strings.TrimSpace(string(fwd)) == "1"
	in.FileSystem = "unknown"
	// The nearest directory that is there: the first use makes the others.
	for dir := in.Root; ; dir = filepath.Dir(dir) {
		if fs, err := host.FileSystem(dir); err == nil {
			in.FileSystem = fs
			break
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	in.ID = engineID(in.Root)
	return nil
}

// engineID is the same for the same store on the same machine, and tells nobody
// which machine that is (machine-id(5) asks for a keyed hash).
func engineID(root string) string {
	machine, _ := os.ReadFile("/etc/machine-id") // not there: the directory alone tells stores apart
	sum := sha256.Sum256([]byte("isle " + strings.TrimSpace(string(machine)) + " " + root))
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
