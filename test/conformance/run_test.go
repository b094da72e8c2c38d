package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestVariations runs every variation in the foreground with both runtimes.
func TestVariations(t *testing.T) {
	r := newRuntimes(t)
	all := some(variations())
	names := map[string]bool{}
	for _, v := range all {
		if names[v.name] {
			t.Fatalf("two variations are called %q", v.name)
		}
		names[v.name] = true
		t.Run(v.name, func(t *testing.T) {
			dir := r.bundle(t, strings.ReplaceAll(v.name, "/", "_"), v.change)
			r.both(t, v.name, func(who string) string {
				res := r.do(t, who, "run", "--bundle", dir, "c")
				text := fmt.Sprintf("code %d\n%s", res.code, normal(res.out))
				if v.fails {
					// The words may differ; that there are some may not.
					text = fmt.Sprintf("code %d, output %v, message %v", res.code, res.out != "", res.err != "")
				}
				return text + leftovers(r, who)
			})
		})
	}
	t.Logf("%d variations, %d of them known to differ", len(all), differing.n)
}

// some is a part of the variations, every twelfth, unless all are asked for: runc
// takes its time.
func some(all []variation) []variation {
	if os.Getenv("CONFORMANCE") == "all" {
		return all
	}
	var out []variation
	for i := 0; i < len(all); i += 12 {
		out = append(out, all[i])
	}
	return out
}

// leftovers tells what a runtime has left of a container that it ran.
func leftovers(r *runtimes, who string) string {
	var out string
	for _, pattern := range []string{
		filepath.Join(r.dir, "state-"+who, "*"),
		"/sys/fs/cgroup/*/isle-conformance/c", "/sys/fs/cgroup/isle-conformance/c",
	} {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			out += "\nleft " + f
		}
	}
	return out
}

// TestLimits compares the cgroup files of a container that runs.
func TestLimits(t *testing.T) {
	r := newRuntimes(t)
	for _, v := range some(limits()) {
		t.Run(v.name, func(t *testing.T) {
			dir := r.bundle(t, "limit-"+v.name, func(s *specs.Spec) {
				s.Process.Args = []string{"sleep", "100"}
				v.change(s)
			})
			r.both(t, "limit/"+v.name, func(who string) string {
				res := r.do(t, who, "run", "-d", "--bundle", dir, "c")
				text := fmt.Sprintf("code %d", res.code)
				if res.code == 0 {
					text += cgroupFiles()
				}
				r.do(t, who, "delete", "-f", "c")
				return text + leftovers(r, who)
			})
		})
	}
}

// cgroupFiles are the files with limits of the container's groups.
func cgroupFiles() string {
	var out strings.Builder
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/isle-conformance/c")
	for _, d := range append(dirs, "/sys/fs/cgroup/isle-conformance/c") {
		for _, name := range []string{
			"memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness",
			"cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle", "cpuset.cpus", "cpuset.mems", "pids.max", "devices.list",
			"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
			"memory.max", "memory.low", "memory.high", "memory.swap.max", "cpu.weight", "cpu.max", "io.max",
		} {
			if data, err := os.ReadFile(filepath.Join(d, name)); err == nil {
				for line := range strings.Lines(string(data)) {
					fmt.Fprintf(&out, "\n%s %s", name, strings.TrimSpace(line))
				}
			}
		}
	}
	return out.String()
}
