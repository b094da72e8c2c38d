package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/testenv"
)

// patience bounds one command of a runtime.
const patience = 30 * time.Second

// runtimes are the two that are compared.
type runtimes struct {
	dir    string
	rootfs string
	path   map[string]string // by name: isle, runc
}

// peer is the runc to compare with; CONFORMANCE_RUNC names another one.
func peer() string {
	if p := os.Getenv("CONFORMANCE_RUNC"); p != "" {
		return p
	}
	return "runc"
}

func newRuntimes(t *testing.T) *runtimes {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Runc, testenv.Busybox)
	r := &runtimes{dir: testenv.Dir(t), path: map[string]string{}}
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	runc, err := exec.LookPath(peer())
	if err != nil {
		t.Fatal(err)
	}
	r.path["runc"] = runc
	r.path["isle"] = filepath.Join(r.dir, "isle-oci")
	if err := os.Symlink(filepath.Join(testenv.Bin(t), "isle"), r.path["isle"]); err != nil {
		t.Fatal(err)
	}
	r.rootfs = filepath.Join(r.dir, "rootfs")
	makeRootfs(t, r.rootfs)
	return r
}

// makeRootfs makes a root file system of busybox.
func makeRootfs(t *testing.T, root string) {
	t.Helper()
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "mnt", "data", "root", "home/u"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "bin/busybox"), string(data), 0o755)
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			if err := os.Link(filepath.Join(root, "bin/busybox"), filepath.Join(root, "bin", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", 0o644)
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\nu:x:1000:\n", 0o644)
	write(t, filepath.Join(root, "data/file"), "data\n", 0o644)
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// bundle makes a bundle that both runtimes get, one after the other.
func (r *runtimes) bundle(t *testing.T, name string, change func(*specs.Spec)) string {
	t.Helper()
	dir := filepath.Join(r.dir, "b", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := base(r.rootfs)
	if change != nil {
		change(s)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.json"), string(data), 0o644)
	return dir
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

func (r result) String() string { return fmt.Sprintf("code %d\n%s%s", r.code, r.out, r.err) }

// do runs one command of the runtime called who.
func (r *runtimes) do(t *testing.T, who string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.path[who], append([]string{"--root", filepath.Join(r.dir, "state-"+who)}, args...)...)
	// Files, which a container that goes on may keep.
	var files [2]*os.File
	for i := range files {
		f, err := os.Create(filepath.Join(r.dir, fmt.Sprint("out", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	cmd.Dir = r.dir // runc writes logs of criu where it is
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	err := cmd.Run()
	var out, errOut string
	for i, to := range []*string{&out, &errOut} {
		data, err := os.ReadFile(files[i].Name())
		if err != nil {
			t.Fatal(err)
		}
		*to = string(data)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %v: not done after %v", who, args, patience)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", who, args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out, errOut}
}

// both runs f for each runtime and compares what it returns.
func (r *runtimes) both(t *testing.T, name string, f func(who string) string) {
	t.Helper()
	want, got := f("runc"), f("isle")
	known := differences()[name]
	switch diff := compare(want, got); {
	case diff == "" && known != "":
		t.Errorf("known to differ (%s), but does not any more: take it out of the table", known)
	case diff != "" && known == "":
		t.Errorf("isle differs from runc:\n%s", diff)
	case diff != "":
		differing.Lock()
		differing.n++
		differing.Unlock()
	}
}

var differing struct {
	sync.Mutex
	n int
}

// compare returns the lines that only one side has.
func compare(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			out = append(out, "runc: "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			out = append(out, "isle: "+l)
		}
	}
	return strings.Join(out, "\n")
}

// base is the bundle that the variations begin with.
func base(rootfs string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"}
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: rootfs},
		Process: &specs.Process{
			Args: []string{"sh", "-c", probe}, Env: []string{"PATH=/bin", "A=b"}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
		},
		Hostname: "conformance",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/isle-conformance/c",
			Namespaces:  namespaces("pid", "network", "ipc", "uts", "mount"),
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

func namespaces(types ...string) []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for _, t := range types {
		out = append(out, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(t)})
	}
	return out
}

// probe prints what a container is, in lines that need no order.
const probe = `
echo "id $(id -u) $(id -g) $(id -G)"
echo "cwd $(pwd)"
echo "host $(hostname) $(cat /proc/sys/kernel/domainname)"
echo "umask $(umask)"
env | grep -v '^SHLVL\|^PWD\|^_=' | sort | sed 's/^/env /'
grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|Umask|Sig(Ign|Blk)|Cpus_allowed_list|Mems_allowed_list)' /proc/self/status | sed 's/^/status /'
sed 1d /proc/self/limits | sed 's/  */ /g;s/^/limit /'
echo "oom $(cat /proc/self/oom_score_adj)"
sed 's/^/cgroup /' /proc/self/cgroup
while read -r id parent dev root at opts rest; do echo "mount $root $at $opts $rest"; done </proc/self/mountinfo
ls -l /dev 2>/dev/null | awk '{ if ($1 ~ /^[bc]/) print "dev", $1, $3, $4, $5 $6, $NF; else if ($1 ~ /^l/) print "dev", $9, $10, $11 }'
for f in /proc/self/fd/*; do [ -e "$f" ] && echo "fd ${f##*/}"; done
cat /data/file 2>/dev/null | sed 's/^/data /'
`

// Numbers of peer groups and containers' own directories differ.
var (
	peerGroup = regexp.MustCompile(`(shared|master|propagate_from):[0-9]+`)
	stamp     = regexp.MustCompile(`time="[^"]*" `)
	rootDir   = regexp.MustCompile(`/[^ :"]*/state-(runc|isle)`)
	// The version of the specification that a runtime was made for.
	specVersion = regexp.MustCompile(`"ociVersion":"[^"]*"`)
	// Whether an instance of a file system of the container's own can be written to
	// is said twice, by the mount and by the instance; runc 1.1 gives a tmpfs no mode.
	superRO   = regexp.MustCompile(`- (\S+) (\S+) ro`)
	openFiles = regexp.MustCompile(`^limit Max open files ([0-9]+) ([0-9]+) files`)
)

// normal takes out what has to differ.
func normal(text string) string {
	text = peerGroup.ReplaceAllString(text, "$1")
	text = stamp.ReplaceAllString(text, "")
	text = rootDir.ReplaceAllString(text, "ROOT")
	text = specVersion.ReplaceAllString(text, `"ociVersion":"V"`)
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "mount ") {
			line = superRO.ReplaceAllString(line, "- $1 $2 rw")
			line = strings.Replace(line, ",mode=755", "", 1)
		}
		// isle gives the usual soft limit where none is asked for, runc its own.
		if strings.HasPrefix(line, "limit Max open files 1024 ") || openFiles.MatchString(line) {
			line = "limit Max open files"
		}
		if hex, ok := strings.CutPrefix(line, "status SigIgn:\t"); ok {
			line = "status SigIgn:\t" + withoutInherited(hex)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// withoutInherited takes those signals out of a set that this process was itself
// born to ignore: runc passes them on, isle does not.
func withoutInherited(hex string) string {
	set, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return hex
	}
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return hex
	}
	for line := range strings.Lines(string(data)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "SigIgn:\t"); ok {
			if n, err := strconv.ParseUint(own, 16, 64); err == nil {
				set &^= n
			}
		}
	}
	return strconv.FormatUint(set, 16)
}
