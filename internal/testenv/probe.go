package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// probes tells how each word is tried. A probe returns why the machine does not
// have the thing, in words a reader can act on.
func probes() map[Word]func() error {
	return map[Word]func() error{
		Root:              probeRoot,
		OrdinaryUser:      func() error { _, err := ordinaryUser(); return err },
		UserNS:            probeUserNS,
		NewUIDMap:         probeNewUIDMap,
		CgroupV1:          probeCgroupV1,
		CgroupV1Memory:    probeCgroupV1Memory,
		CgroupV2:          func() error { _, err := cgroupDir(""); return err },
		CgroupV2Delegated: probeCgroupV2Delegated,
		Overlay:           probeOverlay,
		Registry:          tools("docker-registry"),
		Busybox:           probeBusybox,
		Source:            probeSource,
		Nginx:             tools("nginx"),
		StressNG:          tools("stress-ng"),
		PS:                tools("ps"),
		CC:                tools("cc"),
		Podman:            tools("podman"),
		Docker:            tools("dockerd", "docker"),
		Runc:              tools("runc"),
		Crun:              tools("crun"),
		Bwrap:             tools("bwrap"),
		Strace:            tools("strace"),
		Peers:             tools("podman", "dockerd", "docker", "runc", "bwrap"),
		Witnesses:         tools("lsns", "findmnt", "nsenter", "getpcaps", "capsh", "ip", "ss"),
		Browser:           tools("chromium"),
		SysResource:       probeSysResource,
	}
}

// LookTool finds an installed program, also where an ordinary user's PATH does
// not lead: Debian keeps daemons in sbin.
func LookTool(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (hack/setup installs it)", name)
}

func tools(names ...string) func() error {
	return func() error {
		var all error
		for _, n := range names {
			_, err := LookTool(n)
			all = errors.Join(all, err)
		}
		return all
	}
}

func probeRoot() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("runs as uid %d", os.Getuid())
	}
	// The whole range in one line is what only the initial user namespace shows.
	m, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	if f := strings.Fields(string(m)); len(f) != 3 || f[2] != "4294967295" {
		return errors.New("runs in a user namespace")
	}
	return nil
}

// probeUserNS makes one, as the kernel, a sysctl and an LSM can each refuse.
func probeUserNS() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		GidMappingsEnableSetgroups: false,
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("create a user namespace: %w", err)
	}
	return nil
}

func probeNewUIDMap() error {
	if err := tools("newuidmap", "newgidmap")(); err != nil {
		return err
	}
	u, err := ordinaryUser()
	if err != nil {
		return err
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !strings.Contains("\n"+string(data), "\n"+u.Name+":") && !strings.Contains("\n"+string(data), fmt.Sprintf("\n%d:", u.UID)) {
			return fmt.Errorf("%s has no range for %s", file, u.Name)
		}
	}
	return nil
}

// cgroupDir returns this process's own directory in the hierarchy of a v1
// controller, or in the v2 hierarchy for "".
func cgroupDir(controller string) (string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	path := ""
	for line := range strings.Lines(string(own)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		names, p, _ := strings.Cut(rest, ":")
		if controller == "" && id == "0" && names == "" || controller != "" && hasField(names, controller) {
			path = p
		}
	}
	if path == "" {
		return "", fmt.Errorf("no cgroup hierarchy for %q", controller)
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(g) < 3 {
			continue
		}
		if controller == "" && g[0] == "cgroup2" || controller != "" && g[0] == "cgroup" && hasField(g[2], controller) {
			rel, ok := strings.CutPrefix(path, strings.TrimSuffix(f[3], "/"))
			if !ok {
				return "", fmt.Errorf("cgroup %s: outside the mounted part %s", path, f[3])
			}
			return filepath.Join(f[4], rel), nil
		}
	}
	return "", fmt.Errorf("the cgroup hierarchy for %q is not mounted", controller)
}

func hasField(list, name string) bool {
	for f := range strings.SplitSeq(list, ",") {
		if f == name {
			return true
		}
	}
	return false
}

func probeCgroupV1() error {
	for _, c := range []string{"memory", "cpu", "pids", "freezer", "devices", "cpuset"} {
		if _, err := cgroupDir(c); err == nil {
			return nil
		}
	}
	return errors.New("no controller is on a v1 hierarchy")
}

func probeCgroupV1Memory() error {
	dir, err := cgroupDir("memory")
	if err != nil {
		return err
	}
	return mayDivide(dir)
}

func probeCgroupV2Delegated() error {
	dir, err := cgroupDir("")
	if err != nil {
		return err
	}
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range []string{"memory", "pids"} {
		if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+c+" ") {
			return fmt.Errorf("%s: the %s controller is not delegated", dir, c)
		}
	}
	return mayDivide(dir)
}

// mayDivide makes and removes a group below dir, the only sure test.
func mayDivide(dir string) error {
	d, err := os.MkdirTemp(dir, "isle-probe-")
	if err != nil {
		return err
	}
	return os.Remove(d)
}

func probeOverlay() error {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if !strings.Contains(string(data), "\toverlay\n") {
		return errors.New("the kernel lists no overlay file system (modprobe overlay)")
	}
	return nil
}

// probeSource looks for Go source here: go test -exec may have taken the test
// elsewhere.
func probeSource() error {
	if found, err := filepath.Glob("*.go"); err != nil || len(found) == 0 {
		return errors.New("the source is not in the working directory")
	}
	return nil
}

func probeBusybox() error {
	_, err := StaticBusybox()
	return err
}

// StaticBusybox returns the path of a busybox that needs no libraries, so that
// it runs in a root file system of its own.
func StaticBusybox() (string, error) {
	p, err := LookTool("busybox")
	if err != nil {
		return "", err
	}
	if p, err = filepath.EvalSymlinks(p); err != nil {
		return "", err
	}
	dynamic, err := hasInterp(p)
	if err == nil && dynamic {
		err = fmt.Errorf("%s needs shared libraries (install busybox-static)", p)
	}
	if err != nil {
		return "", err
	}
	return p, nil
}

func probeSysResource() error {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var caps uint64
			if _, err := fmt.Sscanf(strings.TrimSpace(v), "%x", &caps); err != nil {
				return err
			}
			if caps>>24&1 == 1 {
				return nil
			}
		}
	}
	return errors.New("CAP_SYS_RESOURCE is not in the effective set")
}
