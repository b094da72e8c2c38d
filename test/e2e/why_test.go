package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

// expected is what why must say of one call of refuse.
type expected struct {
	name   string
	call   string // beginning of the call
	errno  string
	cause  string
	about  string // in the cause's words, or what is behind
	flag   string // in the flag
	proven bool
	vm     bool
}

// found is one refusal of the report.
type found struct {
	Call, Name, Errno, Cause, Text, Behind, Proof, Flag, Cost, VM string
	Proven                                                        bool
}

// whyTable runs the calls of a table in a container, all in one process or each in
// its own, and compares.
func (h *host) whyTable(container, flags string, each bool, table []expected) {
	t := h.t
	t.Helper()
	run := func(names string) []found {
		r := h.run("isle why --format json " + flags + " " + container + " -- /refuse refuse " + names)
		line := r.stderr[strings.LastIndex(strings.TrimSpace(r.stderr), "\n")+1:]
		var report struct{ Refusals []found }
		if err := json.Unmarshal([]byte(line), &report); err != nil {
			t.Fatalf("why in %s %s: exit code %d: %v\n%s", container, flags, r.code, err, r.stderr)
		}
		if said := strings.TrimSuffix(strings.TrimSpace(r.stderr), strings.TrimSpace(line)); strings.Contains(said, "refuse: ") {
			t.Errorf("in %s %s: %s", container, flags, said)
		}
		return report.Refusals
	}
	var all []found
	if !each {
		names := make([]string, len(table))
		for i, x := range table {
			names[i] = x.name
		}
		all = run(strings.Join(names, " "))
	}
	for _, x := range table {
		if each {
			all = run(x.name)
		}
		ok := false
		for _, f := range all {
			if !strings.HasPrefix(f.Call, x.call) || x.errno != "" && f.Errno != x.errno {
				continue
			}
			ok = true
			if f.Cause != x.cause || !strings.Contains(f.Text+" "+f.Behind, x.about) || !strings.Contains(f.Flag, x.flag) || f.Flag != "" && f.Cost == "" {
				t.Errorf("%s %s, %s: %s = %s\n cause %s: %s %s\n flag %s (%s)\nwant %s about %q with flag %q", container, flags, x.name, f.Call, f.Errno, f.Cause, f.Text, f.Behind, f.Flag, f.Cost, x.cause, x.about, x.flag)
			}
			if x.proven && !f.Proven || x.vm != (f.VM != "") {
				t.Errorf("%s %s, %s: proven %v by %q, virtual machine %q", container, flags, x.name, f.Proven, f.Proof, f.VM)
			}
			break
		}
		if !ok {
			t.Errorf("%s %s, %s: no %s = %s among %s", container, flags, x.name, x.call, x.errno, brief(all))
		}
	}
}

func brief(all []found) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "\n  %s = %s (%s)", f.Call, f.Errno, f.Cause)
	}
	return b.String()
}

// The causes, in why's words.
const (
	bySeccomp    = "seccomp rule"
	byCapability = "missing capability"
	byUserNS     = "user namespace"
	byMapping    = "id that is not mapped"
	byMount      = "mount"
	byDevice     = "device rule"
	byLimit      = "resource limit"
	byPermission = "file permission"
	byKernel     = "kernel"
)

// newRefuser is a host with this binary to be mounted as /refuse.
func newRefuser(t *testing.T) (*host, string) {
	h := newHost(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if f, err := elf.NewFile(bytes.NewReader(self)); err != nil || slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Fatal("this test's binary needs a loader, which the container has not: test with CGO_ENABLED=0, as make does")
	}
	exe := filepath.Join(h.dir, "refuse")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(h.dir, "ro"), 0o755); err != nil {
		t.Fatal(err)
	}
	return h, "isle run -d --network none -v " + exe + ":/refuse:ro -v " + filepath.Join(h.dir, "ro") + ":/ro:ro "
}

// TestWhy: the table of refusals, each with its true cause.
func TestWhyAsRoot(t *testing.T) {
	if !asRoot(t) {
		return
	}
	h, run := newRefuser(t)
	h.ok(run + "--name usual --tmpfs /noexec --shm-size 64k --ulimit nofile=64:64 --ulimit fsize=1000000:1000000 --ulimit memlock=65536:65536 --ulimit nproc=5000:5000 " +
		"--cpuset-cpus 0 --pids-limit 40 -m 64m isle/base sh -c 'mkdir -p /mnt; echo x >/root-only; chmod 600 /root-only; exec sleep 1000'")
	h.ok("until isle exec usual test -e /root-only 2>/dev/null || isle exec usual ls /root-only >/dev/null 2>&1; do sleep 0.05; done")
	h.whyTable("usual", "", false, []expected{
		{"mount", "mount(", "EPERM", bySeccomp, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"umount", "umount2(", "EPERM", bySeccomp, "", "--cap-add SYS_ADMIN", true, false},
		{"pivot_root", "pivot_root(", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"unshare", "unshare(", "EPERM", bySeccomp, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"clone", "clone(", "EPERM", bySeccomp, "", "--cap-add SYS_ADMIN", true, false},
		{"setns", "setns(", "EPERM", bySeccomp, "", "--cap-add SYS_ADMIN", true, false},
		{"sethostname", "sethostname(", "EPERM", bySeccomp, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"perf_event_open", "perf_event_open(", "EPERM", bySeccomp, "", "--cap-add PERFMON", true, false},
		{"bpf", "bpf(", "EPERM", bySeccomp, "", "--cap-add BPF", true, false},
		{"io_uring_setup", "io_uring_setup(", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"keyctl", "keyctl(", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"add_key", "add_key(", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"clock_settime", "clock_settime(", "EPERM", bySeccomp, "", "--cap-add SYS_TIME", true, true},
		{"settimeofday", "settimeofday(", "EPERM", bySeccomp, "", "--cap-add SYS_TIME", true, true},
		{"init_module", "init_module(", "EPERM", bySeccomp, "", "--cap-add SYS_MODULE", true, true},
		{"finit_module", "finit_module(", "EPERM", bySeccomp, "", "--cap-add SYS_MODULE", true, true},
		{"delete_module", "delete_module(", "EPERM", bySeccomp, "", "--cap-add SYS_MODULE", true, true},
		{"kexec_load", "kexec_load(", "EPERM", bySeccomp, "", "", true, true},
		{"reboot", "reboot(", "EPERM", bySeccomp, "", "--cap-add SYS_BOOT", true, false},
		{"syslog", "syslog(", "EPERM", bySeccomp, "", "--cap-add SYSLOG", true, false},
		{"swapon", "swapon(", "EPERM", bySeccomp, "", "", true, true},
		{"quotactl", "quotactl(", "EPERM", bySeccomp, "", "--cap-add SYS_ADMIN", true, false},
		{"open_by_handle_at", "open_by_handle_at(", "EPERM", bySeccomp, "", "--cap-add DAC_READ_SEARCH", true, false},
		{"userfaultfd", "userfaultfd(", "EPERM", bySeccomp, "", "", true, false},
		{"fanotify_init", "fanotify_init(", "EPERM", bySeccomp, "", "--cap-add SYS_ADMIN", true, false},
		{"acct", "acct(", "EPERM", bySeccomp, "", "--cap-add SYS_PACCT", true, false},
		{"personality", "personality(", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"vsock", "socket(40", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"alg", "socket(38", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"device", `openat(AT_FDCWD, "/tmp-log"`, "EPERM", byDevice, "c 10:237", "--device", true, false},
		{"nodev", `openat(AT_FDCWD, "/noexec/null"`, "EACCES", byMount, "nodev", "--device", true, false},
		{"noexec", `execve("/noexec/true"`, "EACCES", byMount, "noexec", "exec", true, false},
		{"notexec", `execve("/plain"`, "EACCES", byPermission, "not executable", "chmod", true, false},
		{"sysctl", `openat(AT_FDCWD, "/proc/sys/kernel/shmmni"`, "EROFS", byMount, "read-only", "--sysctl kernel.shmmni=", true, false},
		{"machine-sysctl", `openat(AT_FDCWD, "/proc/sys/vm/swappiness"`, "EROFS", byMount, "read-only", "--privileged", true, true},
		{"sysrq", `openat(AT_FDCWD, "/proc/irq/default_smp_affinity"`, "EROFS", byMount, "read-only", "unmask=/proc/irq", true, false},
		{"cgroup", `mkdirat(AT_FDCWD, "/sys/fs/cgroup/refused"`, "EROFS", byMount, "limits are set from outside", "", true, false},
		{"masked", `mkdirat(AT_FDCWD, "/sys/firmware/refused"`, "EROFS", byMount, "masked", "unmask=/sys/firmware", true, false},
		{"ro-volume", `openat(AT_FDCWD, "/ro/file"`, "EROFS", byMount, "/ro is mounted read-only", "without :ro", true, false},
		{"fds", `openat(AT_FDCWD, "/dev/null"`, "EMFILE", byLimit, "64", "--ulimit nofile", true, false},
		{"fsize", "ftruncate(", "EFBIG", byLimit, "1000000", "--ulimit fsize", true, false},
		{"pids", "clone(", "EAGAIN", byLimit, "40 processes", "--pids-limit", true, false},
		{"cpuset", "sched_setaffinity(", "EINVAL", byLimit, "CPUs", "--cpuset-cpus", true, false},
		{"memlock", "mlock(", "ENOMEM", byLimit, "65536", "--ulimit memlock", true, false},
		{"shm", "write(", "ENOSPC", byLimit, "/dev/shm is full", "--shm-size", false, false},
		{"nice", "setpriority(", "EACCES", byCapability, "CAP_SYS_NICE", "--cap-add SYS_NICE", true, false},
		{"rlimit", "prlimit64(", "EPERM", byCapability, "CAP_SYS_RESOURCE", "--cap-add SYS_RESOURCE", false, false},
		{"interface", "ioctl(", "EPERM", byCapability, "CAP_NET_ADMIN", "--cap-add NET_ADMIN", false, false},
	})
	h.whyTable("usual", "", true, []expected{
		{"oom", "(ended by SIGKILL)", "", byLimit, "out of memory", "--memory", true, false},
	})
	h.whyTable("usual", "--user 1000:1000", false, []expected{
		{"chown", "fchownat(", "EPERM", byCapability, "CAP_CHOWN", "--user 0", false, false},
		{"setuid", "setuid(", "EPERM", byCapability, "CAP_SETUID", "--user 0", true, false},
		{"setgid", "setgid(", "EPERM", byCapability, "CAP_SETGID", "--user 0", true, false},
		{"setgroups", "setgroups(", "EPERM", byCapability, "CAP_SETGID", "--user 0", false, false},
		{"chroot", "chroot(", "EPERM", byCapability, "CAP_SYS_CHROOT", "--user 0", true, false},
		{"kill", "kill(", "EPERM", byCapability, "CAP_KILL", "--user 0", false, false},
		{"secret", `openat(AT_FDCWD, "/root-only"`, "EACCES", byPermission, "mode 0600", "--user", true, false},
		{"create", `openat(AT_FDCWD, "/refused"`, "EACCES", byPermission, "mode 0755", "", false, false},
		{"unlink", "unlinkat(", "EACCES", byPermission, "mode 0755", "", false, false},
		{"raw-socket", "socket(2, 3", "EPERM", byCapability, "CAP_NET_RAW", "--user 0", true, false},
		{"mknod", "mknodat(", "EPERM", byCapability, "CAP_MKNOD", "--user 0", false, false},
		{"ptrace", "ptrace(", "EPERM", byCapability, "CAP_SYS_PTRACE", "--cap-add SYS_PTRACE", false, false},
		{"mark", "setsockopt(", "EPERM", byCapability, "CAP_NET_ADMIN", "--cap-add NET_ADMIN", false, false},
	})
	h.ok(run + "--name bare --security-opt seccomp=unconfined isle/base sh -c 'mkdir -p /mnt; exec sleep 1000'")
	h.ok("until isle exec bare ls /mnt >/dev/null 2>&1; do sleep 0.05; done")
	h.whyTable("bare", "", false, []expected{
		{"mount", "mount(", "EPERM", byCapability, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"unshare", "unshare(", "EPERM", byCapability, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"sethostname", "sethostname(", "EPERM", byCapability, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"clock_settime", "clock_settime(", "EPERM", byCapability, "CAP_SYS_TIME", "--cap-add SYS_TIME", false, true},
		{"acct", "acct(", "EPERM", byCapability, "CAP_SYS_PACCT", "--cap-add SYS_PACCT", false, false},
		{"reboot", "reboot(", "EPERM", byCapability, "CAP_SYS_BOOT", "--cap-add SYS_BOOT", false, false},
		{"newcall", "syscall_999(", "ENOSYS", byKernel, "no such call", "", false, true},
		{"oldsocket", "socket(32", "EAFNOSUPPORT", byKernel, "no such kind of socket", "", false, true},
	})
	h.ok(run + "--name locked --read-only isle/base sleep 1000")
	h.whyTable("locked", "", false, []expected{
		{"ro-root", `openat(AT_FDCWD, "/file"`, "EROFS", byMount, "the root file system is read-only", "--read-only", true, false},
	})
	h.ok(strings.Replace(run, "--network none", "--network host", 1) + "--name near --user 1000 isle/base sleep 1000")
	h.whyTable("near", "", false, []expected{
		{"bind", "bind(", "EACCES", byCapability, "port 81 is below 1024", "--user 0", true, false},
	})
	// run --why watches a container from its first call, and passes its exit code on.
	r := h.run(strings.Replace(run, " -d", " --rm --why", 1) + "isle/base sh -c 'mkdir /proc/sys/x 2>/dev/null; /refuse refuse mount; exit 7'")
	if r.code != 7 || !strings.Contains(r.stderr, `mount("refused", "/mnt", "tmpfs"`) || !strings.Contains(r.stderr, "--cap-add SYS_ADMIN") {
		t.Errorf("run --why: exit code %d\n%s", r.code, r.stderr)
	}
	if r := h.run("isle why usual -- sh -c 'exit 5'"); r.code != 5 || !strings.Contains(r.stderr, "exit code 5 is the command's own affair") {
		t.Errorf("nothing refused: exit code %d\n%s", r.code, r.stderr)
	}
}

func TestWhyAsUser(t *testing.T) {
	testenv.Need(t, testenv.NewUIDMap)
	if !asUser(t) {
		return
	}
	h, run := newRefuser(t)
	h.ok(run + "--name usual isle/base sh -c 'mkdir -p /mnt; exec sleep 1000'")
	h.ok("until isle exec usual ls /mnt >/dev/null 2>&1; do sleep 0.05; done")
	h.whyTable("usual", "", false, []expected{
		{"mount", "mount(", "EPERM", bySeccomp, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"sethostname", "sethostname(", "EPERM", bySeccomp, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"keyctl", "keyctl(", "EPERM", bySeccomp, "", "seccomp=", true, false},
		{"far-chown", "fchownat(", "EINVAL", byMapping, "uid 99999999", "/etc/subuid", true, false},
		{"far-setuid", "setuid(", "EINVAL", byMapping, "uid 99999999", "/etc/subuid", true, false},
		{"far-setgid", "setgid(", "EINVAL", byMapping, "gid 99999999", "/etc/subgid", true, false},
		{"mknod", "mknodat(", "EPERM", byUserNS, "CAP_MKNOD", "--device", true, false},
		{"nice", "setpriority(", "EACCES", byUserNS, "CAP_SYS_NICE", "as root", true, false},
		{"sysctl", `openat(AT_FDCWD, "/proc/sys/kernel/shmmni"`, "EROFS", byMount, "read-only", "--sysctl", true, false},
		{"ro-volume", `openat(AT_FDCWD, "/ro/file"`, "EROFS", byMount, "/ro is mounted read-only", "without :ro", true, false},
	})
	h.ok(run + "--name bare --security-opt seccomp=unconfined isle/base sh -c 'mkdir -p /mnt; exec sleep 1000'")
	h.ok("until isle exec bare ls /mnt >/dev/null 2>&1; do sleep 0.05; done")
	h.whyTable("bare", "", false, []expected{
		{"mount", "mount(", "EPERM", byCapability, "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", true, false},
		{"clock_settime", "clock_settime(", "EPERM", byUserNS, "CAP_SYS_TIME", "as root", true, true},
		{"acct", "acct(", "EPERM", byUserNS, "CAP_SYS_PACCT", "as root", true, false},
	})
}
