package load

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/host"
)

const img = "isle/base"

func number(t *testing.T, name string, few int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: not a number", name, s)
	}
	return n
}

func TestLoadAsRoot(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if testenv.InCgroups(t) {
		load(t)
	}
}

func TestLoadAsUser(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	if testenv.AsUserInCgroups(t) {
		load(t)
	}
}

// lost are the reasons with which a command may fail because another process was
// faster. Anything else is a fault.
var lost = regexp.MustCompile(`(?i)no such (container|image|object|volume)|not running|is not running|already in (use|progress)|is in use|in use by|is using|conflict|already (exists|stopped)|removal .* in progress|must be forced|was removed|is being|being removed`)

// deed is one thing that a process does; fail reports a command that neither
// worked nor lost.
type deed func(h *host.Host, rnd *rand.Rand, name string, do func(words ...string) host.Result)

func deeds() []deed {
	return []deed{
		func(_ *host.Host, _ *rand.Rand, name string, do func(...string) host.Result) {
			do("run", "--rm", "--network", "none", "--name", name, img, "echo", "hi")
		},
		func(_ *host.Host, _ *rand.Rand, name string, do func(...string) host.Result) {
			do("run", "-d", "--network", "none", "--name", name, "-v", "/vol", img, "sleep", "60")
			do("exec", name, "true")
			do("inspect", name)
			do("stop", "-t", "0", name)
			do("rm", "-f", "-v", name)
		},
		func(_ *host.Host, _ *rand.Rand, name string, do func(...string) host.Result) {
			do("run", "--network", "none", "--name", name, img, "sh", "-c", "echo x > /new")
			if do("commit", name, "load/"+name+":1").Code == 0 { // not if it was pruned
				do("run", "--rm", "--network", "none", "load/"+name+":1", "cat", "/new")
				do("rmi", "load/"+name+":1")
			}
			do("rm", "-v", name)
		},
		// Names that everybody wants.
		func(_ *host.Host, rnd *rand.Rand, _ string, do func(...string) host.Result) {
			shared := fmt.Sprintf("shared%d", rnd.IntN(3))
			do("run", "-d", "--network", "none", "--name", shared, img, "sleep", "60")
			do("exec", shared, "true")
			do("rm", "-f", shared)
		},
		func(_ *host.Host, rnd *rand.Rand, _ string, do func(...string) host.Result) {
			tag := fmt.Sprintf("load/shared:%d", rnd.IntN(3))
			do("tag", img, tag)
			do("run", "--rm", "--pull", "never", "--network", "none", tag, "true")
			do("rmi", tag)
		},
		func(h *host.Host, rnd *rand.Rand, _ string, do func(...string) host.Result) {
			tag := fmt.Sprintf("load/import:%d", rnd.IntN(3))
			if r := h.Run(archive(rnd.IntN(2)), filepath.Join(h.Bin, "isle"), "import", "-", tag); r.Code != 0 && !lost.MatchString(r.Err) {
				h.T.Errorf("import: %s", r)
			}
			do("rmi", tag)
		},
		func(_ *host.Host, _ *rand.Rand, _ string, do func(...string) host.Result) {
			do("ps", "-a")
			do("images")
			do("container", "prune", "-f")
			do("volume", "prune", "-f")
		},
	}
}

// archive is a root file system of one file, one of a few.
func archive(k int) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := strings.Repeat(strconv.Itoa(k), 1<<16)
	_ = w.WriteHeader(&tar.Header{Name: "x", Mode: 0o755, Size: int64(len(data))}) // into memory
	_, _ = w.Write([]byte(data))
	_ = w.Close()
	return &b
}

func load(t *testing.T) {
	h := host.New(t, "")
	h.OK("run", "--rm", "--network", "none", img, "true")
	before := quiet(h, "")
	end := time.Now().Add(time.Duration(number(t, "ISLE_LOAD_SECONDS", 15)) * time.Second)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, failed := 0, 0
	for p := range number(t, "ISLE_LOAD_PROCESSES", 12) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(p)))
			for i := 0; time.Now().Before(end) && !t.Failed(); i++ {
				all := deeds()
				all[rnd.IntN(len(all))](h, rnd, fmt.Sprintf("p%d-%d", p, i), func(words ...string) host.Result {
					r := h.Isle(words...)
					mu.Lock()
					defer mu.Unlock()
					done++
					if r.Code != 0 && (words[0] != "exec" || r.Code != 137) { // killed with its container
						failed++
						if !lost.MatchString(r.Err) {
							t.Errorf("isle %q: %s", words, r)
						}
					}
					return r
				})
			}
		})
	}
	wg.Wait()
	t.Logf("%d commands, %d of them too late", done, failed)
	if done == 0 {
		t.Fatal("nothing was done")
	}
	if ids := strings.Fields(h.OK("ps", "-aq")); len(ids) > 0 {
		h.OK(append([]string{"rm", "-f", "-v"}, ids...)...)
	}
	h.OK("volume", "prune", "-a", "-f")
	for tag := range strings.FieldsSeq(h.OK("images", "--format", "{{.Repository}}:{{.Tag}}")) {
		if strings.HasPrefix(tag, "load/") {
			h.OK("rmi", "-f", tag)
		}
	}
	h.OK("image", "prune", "-f")
	after := quiet(h, before)
	if after != before {
		t.Errorf("left behind; before:\n%safter:\n%s", before, after)
	}
	if r := h.Isle("system", "check"); r.Code != 0 {
		t.Errorf("system check: %s", r)
	}
}

// quiet waits until the store has what is wanted, or for a first look nothing on
// its way: what --rm leaves to a background process, and what waits for its sweep.
func quiet(h *host.Host, want string) (got string) {
	for late := time.Now().Add(20 * time.Second); time.Now().Before(late); time.Sleep(200 * time.Millisecond) {
		h.OK("run", "--rm", "--network", "none", img, "true")
		time.Sleep(100 * time.Millisecond)
		if got = usage(h); got == want || want == "" && !strings.Contains(got, "tmp/") {
			break
		}
	}
	return got
}

// usage lists what lies in the store.
func usage(h *host.Host) string {
	var b strings.Builder
	for _, d := range []string{"containers", "names", "tmp", "volumes", "layers", "images/blobs/sha256", "images/refs"} {
		entries, err := os.ReadDir(filepath.Join(h.Data(), d))
		if err != nil && !os.IsNotExist(err) {
			h.T.Fatal(err)
		}
		for _, e := range entries {
			if e.Name()[0] != '.' { // the store's own
				fmt.Fprintln(&b, d+"/"+e.Name())
			}
		}
	}
	return b.String()
}
