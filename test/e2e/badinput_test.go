package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/images"
)

// badInput are commands that must fail: with this exit code, one line of reason
// that matches, and nothing left behind. The exit codes are those that
// Docker 20.10 gave for the same words, but for exec of a missing command, where
// newer Docker has 127.
var badInput = []struct {
	cmd    string
	code   int
	reason string
}{
	// Images.
	{"isle run --rm nosuchimage true", 125, `nosuchimage`},
	{"isle run --rm alpine:nosuchtag true", 125, `alpine:nosuchtag.*(not found|not on)`},
	{"isle run --rm UPPER true", 125, `UPPER.*lower ?case`},
	{"isle run --rm alpine@sha256:123 true", 125, `alpine@sha256:123`},
	{"isle run --rm --pull=never nosuchimage true", 125, `no such image.*nosuchimage`},
	{"isle run --rm 127.0.0.1:1/img true", 125, `127\.0\.0\.1:1.*connection refused`},
	{"isle pull nosuchimage", 1, `nosuchimage`},
	{"isle rmi nosuchimage", 1, `no such image.*nosuchimage`},
	{"isle load -i /no/such", 1, `/no/such.*no such file`},
	{"isle load -i /etc/passwd", 1, `/etc/passwd`},

	// The command.
	{"isle run --rm alpine:3.20 nosuch", 127, `nosuch.*not found`},
	{"isle run --rm alpine:3.20 /no/such", 127, `/no/such.*no such file`},
	{"isle run --rm alpine:3.20 /etc/passwd", 126, `/etc/passwd.*permission denied`},
	{"isle run --rm alpine:3.20 /etc", 126, `/etc.*(permission denied|is a directory)`},
	{"isle run -d --rm alpine:3.20 nosuch", 127, `nosuch.*not found`},
	{"isle run --rm --entrypoint '' alpine:3.20", 125, `no command`},
	{"isle run --rm -u nosuch alpine:3.20 true", 125, `user.*nosuch`},
	{"isle run --rm -u 99999999999 alpine:3.20 true", 125, `99999999999`},
	{"isle run --rm -u -1 alpine:3.20 true", 125, `-1`},
	{"isle run --rm -w relative alpine:3.20 true", 125, `relative.*absolute`},
	{"isle run --rm -w /etc/passwd alpine:3.20 true", 125, `/etc/passwd.*not a directory`},
	{"isle run --rm --group-add nosuch alpine:3.20 true", 125, `group.*nosuch`},

	// Limits and flags.
	{"isle run --rm --memory=abc alpine:3.20 true", 125, `abc`},
	{"isle run --rm --memory=1 alpine:3.20 true", 125, `memory.*(6|least)`},
	{"isle run --rm -m 100m --memory-swap 50m alpine:3.20 true", 125, `swap`},
	{"isle run --rm --cpus=1000 alpine:3.20 true", 125, `cpus.*0\.01 to`},
	{"isle run --rm --cpus=abc alpine:3.20 true", 125, `abc`},
	{"isle run --rm --cpuset-cpus=9999 alpine:3.20 true", 125, `9999`},
	{"isle run --rm --pids-limit=abc alpine:3.20 true", 125, `abc`},
	{"isle run --rm --cap-add NOSUCH alpine:3.20 true", 125, `NOSUCH`},
	{"isle run --rm --ulimit nosuch=1 alpine:3.20 true", 125, `nosuch`},
	{"isle run --rm --nosuchflag alpine:3.20 true", 125, `nosuchflag`},
	{"isle run --rm --oom-score-adj 2000 alpine:3.20 true", 125, `2000`},
	{"isle run --rm --stop-signal NOSUCH alpine:3.20 true", 125, `NOSUCH`},
	{"isle run --rm --shm-size=-1 alpine:3.20 true", 125, `-1`},
	{"isle run --rm --sysctl kernel.panic=1 alpine:3.20 true", 125, `kernel\.panic`},
	{"isle run --rm --restart=sometimes alpine:3.20 true", 125, `restart`},
	{"isle run --rm --env-file /no/such alpine:3.20 true", 125, `/no/such.*no such file`},
	{"isle run --rm --security-opt seccomp=/no/such alpine:3.20 true", 125, `/no/such.*no such file`},
	{"isle run --rm --net nosuchnet alpine:3.20 true", 125, `nosuchnet`},
	{"isle run --rm --net container:nosuch alpine:3.20 true", 125, `no such (container|object).*nosuch`},
	{"isle run --rm --name b/d alpine:3.20 true", 125, `b/d`},
	{"isle run", 1, `argument`},

	// Mounts and devices.
	{"isle run --rm --mount type=bind,src=/no/such,dst=/x alpine:3.20 true", 125, `/no/such`},
	{"isle run --rm -v rel/path:/x alpine:3.20 true", 125, `rel/path`},
	{"isle run --rm -v /tmp:relative alpine:3.20 true", 125, `relative.*absolute`},
	{"isle run --rm -v /tmp:/b:nosuch alpine:3.20 true", 125, `nosuch`},
	{"isle run --rm --tmpfs relative alpine:3.20 true", 125, `relative.*absolute`},
	{"isle run --rm --device /dev/nosuch alpine:3.20 true", 125, `/dev/nosuch`},

	// Containers; up runs, made was created.
	{"isle run -d --name up alpine:3.20 true", 125, `"?up"?.*(already|in use|exists)`},
	{"isle create --name up alpine:3.20 true", 1, `"?up"?.*(already|in use|exists)`},
	{"isle exec up nosuch", 127, `nosuch.*not found`},
	{"isle exec up /etc/passwd", 126, `/etc/passwd.*permission denied`},
	{"isle exec -u nosuch up true", 126, `user.*nosuch`},
	{"isle exec -w /nosuch up true", 126, `/nosuch.*no such file`},
	{"isle exec made true", 1, `not running`},
	{"isle exec nosuch true", 1, `no such (container|object).*nosuch`},
	{"isle rm up", 1, `up.*running`},
	{"isle rm nosuch", 1, `no such (container|object).*nosuch`},
	{"isle start nosuch", 1, `no such (container|object).*nosuch`},
	{"isle stop nosuch", 1, `no such (container|object).*nosuch`},
	{"isle kill made", 1, `not running`},
	{"isle kill -s NOSUCH up", 1, `NOSUCH`},
	{"isle logs nosuch", 1, `no such (container|object).*nosuch`},
	{"isle inspect nosuch", 1, `no such (container|object).*nosuch`},
	{"isle inspect -f '{{.Nosuch}}' up", 1, `Nosuch`},
	{"isle wait nosuch", 1, `no such (container|object).*nosuch`},
	{"isle rmi alpine:3.20", 1, `alpine:3\.20.*(in use|used|using)`},
	{"isle ps --filter nosuch=1", 1, `filter.*nosuch`},
	{"isle nosuchcommand", 1, `nosuchcommand`},
	{"isle ps --nosuch", 125, `nosuch`},
}

func TestBadInputAsRoot(t *testing.T) {
	needImages(t)
	if asRoot(t) {
		testBadInput(t)
	}
}

func TestBadInputAsUser(t *testing.T) {
	needImages(t)
	if asUser(t) {
		testBadInput(t)
	}
}

func testBadInput(t *testing.T) {
	h := newHost(t)
	h.ok("isle run -d --name up alpine:3.20 sleep 1000")
	h.ok("isle create --name made alpine:3.20 true")
	before := h.inventory()
	for _, c := range badInput {
		h.fails(c.cmd, c.code, c.reason)
		after := h.inventory()
		// What --rm leaves to a background process is gone in a moment.
		for range 100 {
			if after == before {
				break
			}
			time.Sleep(20 * time.Millisecond)
			after = h.inventory()
		}
		if after != before {
			t.Errorf("$ %s\nleft behind; before:\n%safter:\n%s", c.cmd, before, after)
			before = after
		}
	}
}

// fails runs a command that must fail with one line of reason.
func (h *host) fails(cmd string, code int, reason string) {
	h.t.Helper()
	r := h.run(cmd)
	var said []string
	for line := range strings.Lines(r.stderr) {
		if strings.HasPrefix(line, "isle: ") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	h.t.Logf("$ %s\n%s[%d]", cmd, r.stderr, r.code)
	switch {
	case r.code != code:
		h.t.Errorf("$ %s\nexit code %d, want %d\n%s%s", cmd, r.code, code, r.stdout, r.stderr)
	case len(said) != 1:
		h.t.Errorf("$ %s\n%d lines of reason, want one\n%s", cmd, len(said), r.stderr)
	case !regexp.MustCompile("(?i)" + reason).MatchString(said[0]):
		h.t.Errorf("$ %s\nthe reason does not match %q\n%s", cmd, reason, r.stderr)
	}
	for _, noise := range []string{"panic:", "goroutine ", "%!"} {
		if strings.Contains(r.stderr, noise) {
			h.t.Errorf("$ %s\nsays %q\n%s", cmd, noise, r.stderr)
		}
	}
}

// inventory lists what isle keeps on disk and which processes belong to it.
func (h *host) inventory() string {
	h.t.Helper()
	return strings.Join(append(h.files(), h.ok("isle ps -a --format '{{.Names}} {{.Image}}'"), ""), "\n")
}

// files lists the directories that containers have, and what is under way.
func (h *host) files() []string {
	h.t.Helper()
	var all []string
	for _, d := range []string{"d/containers", "d/names", "d/tmp", "d/images/tmp", "d/volumes", "r/c"} {
		list, err := os.ReadDir(filepath.Join(h.dir, d))
		if err != nil && !os.IsNotExist(err) {
			h.t.Fatal(err)
		}
		for _, e := range list {
			if !strings.HasPrefix(e.Name(), ".") { // a lock that stays, shared by all
				all = append(all, d+"/"+e.Name())
			}
		}
	}
	return all
}

// TestDamagedImages has a registry serve what does not match its digests.
func TestDamagedImages(t *testing.T) {
	testenv.Need(t, testenv.Registry, testenv.Busybox)
	dir := testenv.Dir(t)
	r, err := images.StartRegistry(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	m, err := images.Busybox(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Push(m); err != nil {
		t.Fatal(err)
	}
	name := r.BlobFile(m.Layers[0].Digest)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		data   []byte
		reason string
	}{
		{"wrong digest", append([]byte{good[0], good[1], good[2], good[3] ^ 0x10}, good[4:]...), `digest|corrupt|gzip`},
		{"truncated layer", good[:len(good)/2], `EOF|size|truncated|short|digest|bytes on`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(name, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			h := newHost(t)
			h.fails("isle pull "+r.Addr+"/library/busybox", 1, c.reason)
			h.fails("isle run --rm "+r.Addr+"/library/busybox true", 125, c.reason)
			if got := h.ok("isle images -q"); got != "" {
				t.Errorf("images after a failed pull: %s", got)
			}
			for _, d := range []string{"d/tmp", "d/layers", "d/containers"} {
				list, err := os.ReadDir(filepath.Join(h.dir, d))
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				for _, e := range list {
					if e.Name() != "n" && !strings.HasPrefix(e.Name(), ".") {
						t.Errorf("left behind: %s/%s", d, e.Name())
					}
				}
			}
			if err := os.WriteFile(name, good, 0o600); err != nil {
				t.Fatal(err)
			}
			h.ok("isle run --rm " + r.Addr + "/library/busybox true")
		})
	}
}

// TestCredentials pulls from a registry that asks who is there.
func TestCredentials(t *testing.T) {
	testenv.Need(t, testenv.Registry, testenv.Busybox)
	dir := testenv.Dir(t)
	r, err := images.StartRegistry(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	m, err := images.Busybox(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Push(m); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	image := r.Addr + "/library/busybox"
	h.fails("isle pull "+image, 1, `401|unauthorized|credentials|denied|authentication`)
	if err := os.MkdirAll(filepath.Join(h.dir, "home/.docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	// "ann:wrong" and "ann:open-sesame" in base64, as docker login stores them.
	h.write("home/.docker/config.json", `{"auths":{"`+r.Addr+`":{"auth":"YW5uOndyb25n"}}}`)
	h.fails("isle run --rm "+image+" true", 125, `401|unauthorized|credentials|denied|authentication`)
	h.write("home/.docker/config.json", `{"auths":{"`+r.Addr+`":{"auth":"YW5uOm9wZW4tc2VzYW1l"}}}`)
	h.ok("isle run --rm " + image + " true")
}

// TestFullDisk unpacks onto a file system that is too small.
func TestFullDisk(t *testing.T) {
	needImages(t)
	testenv.Need(t, testenv.Root)
	if !testenv.Unshare(t, syscall.CLONE_NEWNS) {
		return
	}
	h := newHost(t)
	small := filepath.Join(h.dir, "d")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("small", small, "tmpfs", 0, "size=6m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	h.fails("isle run --rm stress true", 125, `no space left`)
	h.fails("isle pull nginx", 1, `no space left`)
	if got := h.ok("isle images -q"); got != "" {
		t.Errorf("images after a failed pull: %s", got)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(small, &st); err != nil {
		t.Fatal(err)
	}
	if used := (st.Blocks - st.Bfree) * uint64(st.Bsize); used > 1<<20 {
		t.Errorf("%d bytes stay used", used)
	}
}

// TestLimitAboveTheParents asks for more than the surrounding cgroup has.
func TestLimitAboveTheParents(t *testing.T) {
	needImages(t)
	testenv.Need(t, testenv.Root)
	if !testenv.Has(t, testenv.CgroupV2Delegated) {
		testenv.Need(t, testenv.CgroupV1Memory)
	}
	if !asRoot(t) {
		return
	}
	if err := os.WriteFile(memoryLimit(t), []byte("268435456"), 0); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.ok("isle run --rm --memory=128m alpine:3.20 true")
	h.fails("isle run --rm --memory=512m alpine:3.20 true", 125, `memory.*256`)
}

// memoryLimit is the file of the memory limit of the test's own cgroup.
func memoryLimit(t *testing.T) string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) == 3 && f[1] == "memory":
			return filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.limit_in_bytes")
		case len(f) == 3 && f[1] == "" && testenv.Has(t, testenv.CgroupV2Delegated):
			// The copy is in a leaf of its cgroup.
			return filepath.Join("/sys/fs/cgroup", filepath.Dir(f[2]), "memory.max")
		}
	}
	t.Fatal("no memory cgroup")
	return ""
}
