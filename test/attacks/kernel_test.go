package attacks

import (
	"os"
	"strings"

	"github.com/isle-engine/isle/internal/testenv"
)

func kernelAttacks() []attack {
	return []attack{
		{class: 6, name: "writes to proc that go elsewhere", cve: "CVE-2025-52881", because: "sysctls are written through a proc that nothing can cover, labels through one that the container has not seen", run: coveredProc},
		{class: 7, name: "hidden paths are uncovered", cve: "CVE-2023-25809", flags: []string{"--privileged"}, run: uncover},
		{class: 24, name: "calls by every door", cve: "CVE-2026-31431", flags: []string{"--security-opt", "seccomp=unconfined"}, run: doors},
		{class: 25, name: "control groups", cve: "CVE-2022-0492", flags: []string{"--privileged"}, run: controlGroups},
		{class: 25, name: "devices", flags: []string{"--device-cgroup-rule", "a *:* rwm"}, rootOnly: true, run: devices},
		{class: 26, name: "sysctls that are the host's", cve: "CVE-2022-0811", removed: "sysctl", run: sysctls},
		{class: 35, name: "fork bomb", flags: []string{"--pids-limit", "-1"}, needs: []testenv.Word{}, rootOnly: true, run: forkBomb},
	}
}

// denied are the answers of a kernel that refuses.
func denied(answer string) bool {
	switch answer {
	case "EPERM", "EACCES", "ENOSYS", "EROFS", "EAFNOSUPPORT":
		return true
	}
	return false
}

// tries goes through what probe printed and calls got for each that was not denied.
func tries(out string, got func(what, answer string)) {
	for line := range strings.Lines(out) {
		if what, answer, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !denied(answer) {
			got(what, answer)
		}
	}
}

// coveredProc mounts a volume where an engine writes for a container.
func coveredProc(a *attempt) {
	host := newTree(a)
	img := a.plain()
	for _, over := range []string{"/proc", "/proc/self", "/proc/sys", "/proc/self/attr", "/proc/thread-self/attr"} {
		r := a.run("-v", host.path+":"+over, "--sysctl", "kernel.msgmax=4242", img, "sh", "-c", "cat /proc/sys/kernel/msgmax")
		if r.code == 0 && !strings.Contains(r.out, "4242") {
			a.broke("%s: the container runs, and its sysctl went elsewhere: %s", over, r)
		}
		host.check(a)
	}
}

func uncover(a *attempt) {
	r := a.run(a.plain(), "/probe", "undo")
	if r.code != 0 {
		a.t.Fatal(r)
	}
	tries(r.out, func(what, answer string) {
		if answer == "ok" {
			a.broke("%s: %s", what, answer)
		}
	})
}

// doors makes calls that Docker's profile refuses: by the native ABI, the others
// of the machine, and with rubbish where a filter may not look.
func doors(a *attempt) {
	img := a.plain()
	c := a.detached(img, "sleep", "100")
	for what, r := range map[string]result{"run": a.run(img, "/probe", "syscalls"), "exec": a.call("exec", c, "/probe", "syscalls"), "user": a.run("-u", "user", img, "/probe", "syscalls")} {
		if r.code != 0 && !strings.Contains(r.out, ": ") {
			a.t.Fatalf("%s: %s", what, r)
		}
		tries(r.out, func(call, answer string) { a.broke("%s: %s: %s", what, call, answer) })
	}
	a.call("rm", "-f", c)
}

func controlGroups(a *attempt) {
	r := a.run(a.plain(), "/probe", "cgroup")
	if r.code != 0 {
		a.t.Fatal(r)
	}
	tries(r.out, func(what, answer string) {
		if answer == "ok" || strings.HasPrefix(what, "outside") {
			a.broke("%s: %s", what, answer)
		}
	})
}

// devices makes nodes of the host's memory, log and disks.
func devices(a *attempt) {
	r := a.run("--cap-add", "SYS_ADMIN", a.plain(), "/probe", "device")
	if r.code != 0 {
		a.t.Fatal(r)
	}
	tries(r.out, func(what, answer string) {
		if strings.HasPrefix(what, "open ") {
			a.broke("%s: %s", what, answer)
		}
	})
}

// sysctls asks for those of the whole host, with the value that they have.
func sysctls(a *attempt) {
	img := a.plain()
	for _, key := range []string{"kernel.printk_ratelimit_burst", "vm.max_map_count", "kernel/printk_ratelimit_burst", "net.../kernel.printk_ratelimit_burst", "net.ipv4.ip_forward=1\nkernel.printk_ratelimit_burst", "kernel.shm_rmid_forced=1+kernel.printk_ratelimit_burst"} {
		value := "10"
		if data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err == nil {
			value = strings.TrimSpace(string(data))
		}
		if r := a.run("--sysctl", key+"="+value, img, "true"); r.code == 0 {
			a.broke("--sysctl %s was taken", key)
		}
	}
}

// forkBomb bounds what a container that forks without end does to the host. With
// its limit given up, the probe stops by itself at 300 processes.
func forkBomb(a *attempt) {
	img := a.plain()
	flags := []string{"--pids-limit", "64"}
	if a.flags != nil {
		flags = nil
	}
	r := a.run(append(flags, img, "sh", "-c", "i=0; while [ $i -lt 300 ]; do sleep 5 & i=$((i+1)); done; ls -d /proc/[0-9]* | wc -l")...)
	n := strings.Fields(r.out)
	if len(n) > 0 && len(n[len(n)-1]) >= 3 && n[len(n)-1] > "100" {
		a.broke("%s processes beside each other", n[len(n)-1])
	}
	if r := a.run(img, "echo", "alive"); !strings.Contains(r.out, "alive") {
		a.broke("no other container can start: %s", r)
	}
}
