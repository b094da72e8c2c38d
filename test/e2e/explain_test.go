package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/testenv"
)

// seenView is what these tests look at of explain's JSON.
type seenView struct {
	ID, Name, Status, Ended string
	Live                    bool
	Processes               []struct {
		Inside, Host int
		User         struct{ Inside, Host int64 }
		Command      []string
	}
	Users struct {
		UIDs []struct{ Inside, Host, Count int64 }
		Same bool
	}
	HostName   struct{ Inside, Host string }
	Namespaces []struct {
		Kind   string
		Inode  uint64
		Shared bool
		With   []string
	}
	Cgroup struct {
		Frozen bool
		Paths  []struct{ Hierarchy, Host string }
		Limits []struct {
			Name, File, Text string
			Max, Now         int64
		}
		Events []struct {
			Name string
			N    int64
		}
	}
	Root struct {
		ReadOnly     bool
		Upper        string
		WrittenBytes int64
		WrittenFiles int
		Layers       []struct{ Dir, DiffID, CreatedBy string }
	}
	Mounts      []struct{ Point, Type, Options, From, Kind string }
	Credentials struct {
		Effective, Kept []string
		NoNewPrivs      bool
		LSM             string
		Seccomp         struct {
			Mode, Filters, Allowed int
			Refused                []struct{ Name string }
		}
	}
	Network struct {
		Mode       string
		Interfaces []struct {
			Name, MAC, Peer string
			Addresses       []string
		}
		Hops        []struct{ Where, What string }
		Connections []struct{ Proto, Local, State string }
	}
	Differences []struct{ What, Asked, Is string }
	Unseen      []string
}

func (h *host) explain(name string) *seenView {
	h.t.Helper()
	v := &seenView{}
	if err := json.Unmarshal([]byte(h.ok("isle explain --format json "+name)), v); err != nil {
		h.t.Fatal(err)
	}
	if len(v.Unseen) > 0 {
		h.t.Errorf("explain %s: did not see %q", name, v.Unseen)
	}
	return v
}

// TestExplainAgrees compares each section with what another program says.
func TestExplainAgreesAsRoot(t *testing.T) {
	if !asRoot(t) {
		return
	}
	testExplainAgrees(t)
}

func TestExplainAgreesAsUser(t *testing.T) {
	if !asUser(t) {
		return
	}
	testExplainAgrees(t)
}

func testExplainAgrees(t *testing.T) {
	testenv.Need(t, testenv.Witnesses)
	h := newHost(t)
	run := "isle run -d --network none "
	dir := filepath.Join(h.dir, "data")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.ok(run + "--name plain --hostname planned --tmpfs /t -v " + dir + ":/data:ro -v vol:/vol isle/base sh -c 'head -c 1048576 /dev/zero >/big; exec sleep 1000'")
	h.ok(run + "--name kin --ipc container:plain --pid container:plain --uts container:plain isle/base sleep 1000")
	h.ok("isle run -d --name net --network container:plain isle/base sleep 1000")
	h.ok(run + "--name strong --privileged isle/base sleep 1000")
	h.ok("isle run -d --name open --network host --pid host --ipc host --uts host isle/base sleep 1000")
	h.ok(run + "--name weak --user 1000:1000 --cap-drop ALL --security-opt no-new-privileges --read-only isle/base sleep 1000")
	h.ok(run + "--name loose --security-opt seccomp=unconfined isle/base sleep 1000")
	h.ok("isle run --name dead --network none isle/base false || :")
	for _, name := range []string{"plain", "kin", "net", "strong", "open", "weak", "loose"} {
		v := h.explain(name)
		if len(v.Differences) > 0 {
			t.Errorf("%s: says that it differs: %+v", name, v.Differences)
		}
		h.agree(v)
		// In words too, and the words hold the facts.
		text := h.ok("isle explain " + name)
		for _, want := range []string{strconv.Itoa(v.Processes[0].Host), v.HostName.Inside, "CONTROL GROUP", "$ lsns -p"} {
			if !strings.Contains(text, want) {
				t.Errorf("explain %s: %q is not in\n%s", name, want, text)
			}
		}
	}

	plain := h.explain("plain")
	if m, ok := find(plain, "/data"); !ok || m.From != dir || !strings.HasPrefix(m.Options, "ro") || m.Kind != "host" {
		t.Errorf("mount /data: %+v", m)
	}
	if m, ok := find(plain, "/vol"); !ok || m.Kind != "volume" {
		t.Errorf("mount /vol: %+v", m)
	}
	if m, ok := find(plain, "/proc/keys"); ok && m.Kind != "masked" {
		t.Errorf("mount /proc/keys: %+v", m)
	}
	eventually(t, func() error {
		v := h.explain("plain")
		var blocks int64
		if out := strings.Fields(h.ok("du -s --block-size=1 " + v.Root.Upper + "/big")); len(out) > 0 {
			blocks, _ = strconv.ParseInt(out[0], 10, 64)
		}
		if v.Root.WrittenBytes < 1<<20 || blocks < 1<<20 || v.Root.WrittenBytes < blocks {
			return fmt.Errorf("written: %d, du says %d", v.Root.WrittenBytes, blocks)
		}
		return nil
	})
	shared := map[string]bool{}
	for _, n := range h.explain("kin").Namespaces {
		if slices.Contains(n.With, "plain") {
			shared[n.Kind] = n.Shared
		}
	}
	for _, kind := range []string{"ipc", "pid", "uts"} {
		if !shared[kind] {
			t.Errorf("kin does not share its %s namespace with plain: %v", kind, shared)
		}
	}
	if v := h.explain("dead"); v.Live || v.Status != "exited" || len(v.Processes) > 0 || len(v.Root.Layers) == 0 || v.Root.Layers[0].CreatedBy == "" {
		t.Errorf("dead: %+v", v)
	}
	if os.Getuid() == 0 || h.run("isle pause plain").code == 0 {
		h.run("isle pause plain")
		if v := h.explain("plain"); !v.Cgroup.Frozen || v.Status != "paused" {
			t.Errorf("a paused container: frozen %v, %s", v.Cgroup.Frozen, v.Status)
		}
		h.ok("isle unpause plain")
	}
	// A socket of the namespace, as ss lists it.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was sent
	open := h.explain("open")
	if !slices.ContainsFunc(open.Network.Connections, func(c struct{ Proto, Local, State string }) bool {
		return c.Local == l.Addr().String() && c.State == "LISTEN"
	}) {
		t.Errorf("%s is not among %v", l.Addr(), open.Network.Connections)
	}
	// Names that an image or a container chose do not reach the terminal.
	h.ok(run + "--name evil isle/base sh -c 'sleep 1000' \"$(printf 'x\\033]0;pwned\\007<script>alert(1)</script>')\"")
	if text := h.ok("isle explain evil"); strings.Contains(text, "\x1b") || !strings.Contains(text, `\x1b]0;`) {
		t.Errorf("explain prints %q", text)
	}
	if html := h.ok("isle explain --format html evil"); strings.Contains(html, "<script>alert") || strings.Contains(html, "\x1b") {
		t.Error("the page has the container's markup in it")
	}
}

func find(v *seenView, point string) (m struct{ Point, Type, Options, From, Kind string }, ok bool) {
	for _, m := range v.Mounts {
		if m.Point == point {
			return m, true
		}
	}
	return m, false
}

// agree compares v with lsns, findmnt, getpcaps, stat, ip and raw files.
func (h *host) agree(v *seenView) {
	t := h.t
	t.Helper()
	pid := strconv.Itoa(v.Processes[0].Host)
	witness := func(words ...string) string {
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %q: %v\n%s", v.Name, words, err, out)
		}
		return string(out)
	}
	// Namespaces.
	theirs := map[string]string{}
	for line := range strings.Lines(witness("lsns", "-rn", "-o", "TYPE,NS", "-p", pid)) {
		if f := strings.Fields(line); len(f) == 2 {
			theirs[f[0]] = f[1]
		}
	}
	for _, n := range v.Namespaces {
		if theirs[n.Kind] != strconv.FormatUint(n.Inode, 10) {
			t.Errorf("%s: namespace %s is %d, lsns says %q", v.Name, n.Kind, n.Inode, theirs[n.Kind])
		}
	}
	// Mounts.
	var ours, others []string
	for _, m := range v.Mounts {
		ours = append(ours, m.Point+" "+m.Type)
	}
	for line := range strings.Lines(witness("findmnt", "-rn", "-N", pid, "-o", "TARGET,FSTYPE")) {
		others = append(others, strings.TrimSpace(line))
	}
	slices.Sort(ours)
	slices.Sort(others)
	if diff := cmp.Diff(others, ours); diff != "" {
		t.Errorf("%s: mounts, findmnt (-) and explain (+):\n%s", v.Name, diff)
	}
	// Capabilities: capsh reads the mask, getpcaps asks the kernel.
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) string {
		for line := range strings.Lines(string(status)) {
			if k, v, _ := strings.Cut(line, ":"); k == name {
				return strings.TrimSpace(v)
			}
		}
		return ""
	}
	_, decoded, _ := strings.Cut(strings.TrimSpace(witness("capsh", "--decode="+field("CapBnd"))), "=")
	if want := strings.ToLower(strings.Join(v.Credentials.Kept, ",")); decoded != want {
		t.Errorf("%s: bounding set %s, capsh says %s", v.Name, want, decoded)
	}
	pcaps := witness("getpcaps", pid)
	_, pcaps, _ = strings.Cut(pcaps, ": ")
	switch n := len(v.Credentials.Effective); {
	case n == 0 && strings.Contains(pcaps, "e"):
		t.Errorf("%s: nothing effective, getpcaps says %s", v.Name, pcaps)
	case n > 0 && n < 38 && strings.Count(pcaps, "cap_") != n:
		t.Errorf("%s: %d effective, getpcaps says %s", v.Name, n, pcaps)
	}
	if (field("NoNewPrivs") == "1") != v.Credentials.NoNewPrivs || field("Seccomp") != strconv.Itoa(v.Credentials.Seccomp.Mode) {
		t.Errorf("%s: no_new_privs %v, seccomp %+v", v.Name, v.Credentials.NoNewPrivs, v.Credentials.Seccomp)
	}
	if v.Credentials.Seccomp.Mode == 2 && (v.Credentials.Seccomp.Allowed < 250 || len(v.Credentials.Seccomp.Refused) < 8) {
		t.Errorf("%s: seccomp: %+v", v.Name, v.Credentials.Seccomp)
	}
	// Ids.
	if uid := strings.TrimSpace(witness("stat", "-c", "%u", "/proc/"+pid)); v.Credentials.Effective != nil && uid != strconv.FormatInt(v.Processes[0].User.Host, 10) {
		t.Errorf("%s: uid %d, stat says %s", v.Name, v.Processes[0].User.Host, uid)
	}
	inside := h.ok("isle", "exec", v.Name, "sh", "-c", "id -u; hostname; cat /proc/self/uid_map")
	lines := strings.SplitN(inside, "\n", 3)
	if lines[0] != strconv.FormatInt(v.Processes[0].User.Inside, 10) || lines[1] != v.HostName.Inside {
		t.Errorf("%s: user %d on %s, the container says %q", v.Name, v.Processes[0].User.Inside, v.HostName.Inside, lines)
	}
	// Raw cgroup files.
	for _, l := range v.Cgroup.Limits {
		if l.File == "" {
			continue
		}
		if text, err := os.ReadFile(l.File); err != nil || strings.TrimSpace(string(text)) != l.Text {
			t.Errorf("%s: limit %s: %q, the file says %q (%v)", v.Name, l.Name, l.Text, text, err)
		}
	}
	cgroups, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range v.Cgroup.Paths {
		if p.Hierarchy != "none of its own" && !strings.Contains(string(cgroups), "isle-"+v.ID) {
			t.Errorf("%s: cgroup %s, the kernel says\n%s", v.Name, p.Host, cgroups)
		}
	}
	// Interfaces.
	enter := []string{"nsenter", "-t", pid, "-n"}
	if os.Getuid() != 0 {
		enter = []string{"nsenter", "-t", pid, "-U", "--preserve-credentials", "-n"}
	}
	if v.Network.Mode == "host" {
		enter = nil
	}
	var devices []string
	for line := range strings.Lines(witness(append(enter, "ip", "-o", "link")...)) {
		if f := strings.Fields(line); len(f) > 1 {
			name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
			devices = append(devices, name)
		}
	}
	var seen []string
	for _, i := range v.Network.Interfaces {
		seen = append(seen, i.Name)
	}
	slices.Sort(devices)
	slices.Sort(seen)
	if v.Network.Mode != "host" && !slices.Equal(devices, seen) {
		t.Errorf("%s: interfaces %v, ip says %v", v.Name, seen, devices)
	}
}

// TestExplainShowsWhatDiffers changes limits behind isle's back.
func TestExplainShowsWhatDiffers(t *testing.T) {
	if !asRoot(t) {
		return
	}
	h := newHost(t)
	h.ok("isle run -d --name one --network none -m 64m --pids-limit 50 --hostname asked isle/base sleep 1000")
	v := h.explain("one")
	if len(v.Differences) > 0 {
		t.Fatalf("differs at once: %+v", v.Differences)
	}
	for _, l := range v.Cgroup.Limits {
		if l.Name == "pids" {
			if l.Max != 50 {
				t.Errorf("pids limit: %+v", l)
			}
			if err := os.WriteFile(l.File, []byte("77"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.ok("nsenter -t " + strconv.Itoa(v.Processes[0].Host) + " -u hostname changed")
	want := []struct{ What, Asked, Is string }{{"host name", "asked", "changed"}, {"pids limit", "50", "77"}}
	if diff := cmp.Diff(want, h.explain("one").Differences); diff != "" {
		t.Error(diff)
	}
	if text := h.ok("isle explain one"); !strings.Contains(text, "NOT AS ASKED") || !strings.Contains(text, "is: 77") {
		t.Errorf("the text does not say so:\n%s", text)
	}
}

// TestExplainIsQuick: under 20 ms, process start and all, as the median.
func TestExplainIsQuick(t *testing.T) {
	if !asRoot(t) {
		return
	}
	h := newHost(t)
	h.ok("isle run -d --name one --network none isle/base sleep 1000")
	best := time.Hour
	for range 20 {
		start := time.Now()
		h.ok("isle", "explain", "one")
		best = min(best, time.Since(start))
	}
	t.Logf("isle explain: %v at best of 20", best)
	if best > 20*time.Millisecond {
		t.Errorf("isle explain takes %v", best)
	}
}

// TestExplainPageInABrowser looks at the page as a reader does: a real browser
// lays it out, and what it then holds is compared.
func TestExplainPageInABrowser(t *testing.T) {
	testenv.Need(t, testenv.Browser)
	if !asRoot(t) {
		return
	}
	h := newHost(t)
	h.ok("isle run -d --name one --network none -m 64m isle/base sleep 1000")
	page := filepath.Join(h.dir, "page.html")
	if err := os.WriteFile(page, []byte(h.ok("isle explain --format html one")), 0o600); err != nil {
		t.Fatal(err)
	}
	shot := filepath.Join(h.dir, "page.png")
	profile := t.TempDir()
	out, err := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+profile,
		"--virtual-time-budget=2000", "--window-size=1280,1600", "--screenshot="+shot, "--dump-dom", "file://"+page).Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	dom := string(out)
	for _, want := range []string{"class=\"machine\"", "class=\"box open\"", "class=\"box\"", "class=\"layer up\"", "class=\"bar\"", "id=\"namespaces\""} {
		if !strings.Contains(dom, want) {
			t.Errorf("the browser's page has no %s", want)
		}
	}
	if open, shut := strings.Count(dom, "<div"), strings.Count(dom, "</div>"); open != shut {
		t.Errorf("%d div elements are opened, %d closed", open, shut)
	}
	if fi, err := os.Stat(shot); err != nil || fi.Size() < 20<<10 {
		t.Errorf("the picture of the page: %v", err)
	}
}

// eventually calls f until it has nothing to complain about.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
