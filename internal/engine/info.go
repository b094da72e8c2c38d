package engine

import (
	"runtime"

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
	in.OperatingSystem = osName()
	return nil
}
