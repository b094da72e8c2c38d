package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/testenv"
)

// look is what both containers are asked for: all that makes one of them.
const look = `cat /proc/self/mountinfo; echo ==; cat /proc/self/status; echo ==; ls -la /dev; echo ==; cat /proc/self/limits
echo ==; id; hostname; pwd; cat /proc/self/uid_map /proc/self/gid_map /proc/self/cgroup; echo ==; env | sort; echo ==; ls /sys/class/net; echo ==
for n in pid mnt net uts ipc cgroup user; do echo "$n $(readlink /proc/self/ns/$n)"; done; echo ==; cat /proc/sys/net/ipv4/ping_group_range /proc/1/oom_score_adj; cat /etc/hosts | head -1`

// seen sorts what look printed, without what must differ: numbers of mounts and
// namespaces (but not whose they are), names of directories, seccomp.
func seen(t *testing.T, text string) []string {
	t.Helper()
	parts := strings.Split(text, "==\n")
	if len(parts) != 9 {
		t.Fatalf("%d parts:\n%s", len(parts), text)
	}
	var out []string
	for line := range strings.Lines(parts[0]) {
		f := strings.Fields(line)
		super := slices.DeleteFunc(strings.Split(f[len(f)-1], ","), func(o string) bool {
			k, _, _ := strings.Cut(o, "=")
			return slices.Contains([]string{"lowerdir", "lowerdir+", "upperdir", "workdir", "uuid", "fsync", "volatile"}, k)
		})
		out = append(out, "mount "+f[4]+" "+f[5]+" "+f[slices.Index(f, "-")+1]+" "+strings.Join(super, ","))
	}
	for line := range strings.Lines(parts[1]) {
		k, _, _ := strings.Cut(line, ":")
		if slices.Contains([]string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Umask"}, k) {
			out = append(out, "status "+strings.Join(strings.Fields(line), " "))
		}
	}
	for line := range strings.Lines(parts[2]) {
		if f := strings.Fields(line); len(f) > 6 && !strings.HasSuffix(line, " .\n") && !strings.HasSuffix(line, " ..\n") {
			// Without the size and the time.
			name := f[len(f)-1]
			if i := slices.Index(f, "->"); i > 0 {
				name = strings.Join(f[i-1:], " ")
			}
			out = append(out, "dev "+f[0]+" "+f[1]+" "+f[2]+" "+name)
		}
	}
	for line := range strings.Lines(parts[3] + parts[4] + parts[5] + parts[6] + parts[8]) {
		out = append(out, "other "+strings.Join(strings.Fields(line), " "))
	}
	for line := range strings.Lines(parts[7]) {
		kind, ns, _ := strings.Cut(strings.TrimSpace(line), " ")
		host, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("namespace %s own=%v", kind, ns != host))
	}
	slices.Sort(out)
	return out
}

// TestPlanByHand runs the script that plan writes and compares what the container
// made by hand sees with what isle's sees.
func TestPlanByHandAsRoot(t *testing.T) {
	if !asRoot(t) {
		return
	}
	testPlanByHand(t)
}

func TestPlanByHandAsUser(t *testing.T) {
	if !asUser(t) {
		return
	}
	testPlanByHand(t)
}

func testPlanByHand(t *testing.T) {
	testenv.Need(t, testenv.Witnesses)
	h := newHost(t)
	flags := []string{
		"",
		"--user 1000:1000 -w /tmp -e A='b c' --tmpfs /x -v /usr/share:/data:ro",
		"--user 7:8 --cap-drop ALL --security-opt no-new-privileges --read-only --ulimit nofile=100:200",
		"--network host --uts host --ipc host",
	}
	if os.Getuid() == 0 {
		flags = append(flags, "-m 64m --pids-limit 50 --sysctl net.ipv4.ip_forward=1", "--privileged")
	}
	for i, f := range flags {
		common := f + " -e HOSTNAME=planned isle/base sh -c " + quoteShell(look)
		if !strings.Contains(f, "uts") {
			common = "--hostname planned " + common
		}
		if !strings.Contains(f, "--network") {
			common = "--network none " + common
		}
		script := filepath.Join(h.dir, fmt.Sprintf("byhand%d.sh", i))
		if err := os.WriteFile(script, []byte(h.ok("isle plan --format sh "+common)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		byHand := h.ok("sh " + script)
		made := h.ok("isle run --rm " + common)
		if diff := cmp.Diff(seen(t, made+"\n"), seen(t, byHand+"\n")); diff != "" {
			t.Errorf("isle run %s: made by isle (-) and by hand (+):\n%s", f, diff)
		}
	}
	if left, _ := filepath.Glob("/var/tmp/byhand-*"); len(left) > 0 {
		t.Errorf("left by the scripts: %v", left)
	}
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// TestPlanIsWhatHappens checks the plan against the container: what it says is
// written is in the kernel's files, and it says all of it without doing any.
func TestPlanIsWhatHappens(t *testing.T) {
	if !asRoot(t) {
		return
	}
	h := newHost(t)
	h.ok("isle plan isle/base true") // fetches the image
	before := h.inventory()
	flags := "-m 64m --memory-swap 80m --cpus 0.5 --cpu-shares 512 --pids-limit 50 --cpuset-cpus 0 --network none --name limited isle/base sleep 1000"
	var plan struct {
		Calls []struct {
			N                               int
			Group, By, Step, Call, Why, Man string
			Fallback                        bool
		}
	}
	if err := json.Unmarshal([]byte(h.ok("isle plan --format json "+flags)), &plan); err != nil {
		t.Fatal(err)
	}
	if after := h.inventory(); after != before {
		t.Errorf("plan changed something:\n%s", cmp.Diff(before, after))
	}
	id := h.ok("isle run -d " + flags)
	groups, writes, last := map[string]bool{}, 0, ""
	for i, c := range plan.Calls {
		groups[c.Group] = true
		if c.N != i+1 || c.Call == "" || c.Why == "" || !strings.Contains(c.Man, "(") {
			t.Errorf("call %d: %+v", i+1, c)
		}
		if !c.Fallback {
			last = c.Call
		}
		var file, value string
		call := strings.ReplaceAll(c.Call, "<id>", id)
		if n, _ := fmt.Sscanf(call, "write(%q, %q)", &file, &value); n != 2 || !strings.HasPrefix(file, "/sys/fs/cgroup/") || value == "PID" {
			continue
		}
		writes++
		got, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(got)) != value {
			t.Errorf("%s: holds %q (%v)", c.Call, got, err)
		}
	}
	if writes < 5 {
		t.Errorf("only %d writes to the cgroup's files", writes)
	}
	for _, g := range []string{"namespaces", "root file system", "mounts", "devices", "limits", "network", "credentials", "filter", "exec"} {
		if !groups[g] {
			t.Errorf("no calls of group %q", g)
		}
	}
	if !strings.HasPrefix(last, "execve(") {
		t.Errorf("the last call is %s", last)
	}
}
