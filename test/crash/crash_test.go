package crash

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/host"
)

// calls are the system calls at which a process is killed: all that change a file
// system, make or join something of the kernel's, start a process or answer one.
const calls = "mkdir,mkdirat,mknodat,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,symlinkat,link,linkat,fsync,fdatasync,syncfs,ftruncate," +
	"fchmod,fchmodat,fchown,fchownat,setxattr,fsetxattr,lsetxattr,utimensat,pwrite64,writev,sendmsg,sendto,bind,fcntl,flock," +
	"fsopen,fsconfig,fsmount,open_tree,move_mount,mount_setattr,umount2,unshare,setns,pidfd_open,execve,execveat,exit_group"

// every is how many points lie between two that are tried; ISLE_CRASH_EVERY=1
// tries all.
func every(t *testing.T) int {
	t.Helper()
	s := os.Getenv("ISLE_CRASH_EVERY")
	if s == "" {
		return 5
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("ISLE_CRASH_EVERY=%q: not a number", s)
	}
	return n
}

// scenario is a command that is killed, and what must then be true.
type scenario struct {
	name    string
	prepare func(h *rig)               // before each round
	command []string                   // of isle
	after   func(h *rig, done bool)    // done: the command said that it had succeeded
	clean   func(h *rig)               // after each round, with commands that must work
	input   func(h *rig) *bytes.Buffer // standard input
}

type rig struct{ *host.Host }

const img = "isle/base"

func scenarios() []scenario {
	removed := func(h *rig) { h.gone("c1") }
	return []scenario{
		{name: "run", command: []string{"run", "--name", "c1", "--network", "none", img, "true"}, clean: removed, after: func(h *rig, done bool) {
			if done {
				h.want("exited 0", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c1")
			}
		}},
		{name: "run in the background", command: []string{"run", "-d", "--name", "c1", "--network", "none", "-v", "/vol", img, "sleep", "0.1"}, clean: removed, after: func(h *rig, done bool) {
			if done { // strace(1) has waited for all of it
				h.want("exited 0", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c1")
			}
		}},
		{name: "run and remove", command: []string{"run", "--rm", "--name", "c1", "--network", "none", img, "true"}, clean: removed},
		{name: "create", command: []string{"create", "--name", "c1", "--network", "none", img, "true"}, clean: removed, after: func(h *rig, done bool) {
			if done {
				h.want("created", "inspect", "-f", "{{.State.Status}}", "c1")
			}
		}},
		{
			name: "remove", command: []string{"rm", "-v", "c1"}, clean: removed,
			prepare: func(h *rig) { h.OK("run", "--name", "c1", "--network", "none", "-v", "/vol", img, "true") },
			after: func(h *rig, done bool) {
				if done {
					h.want("", "ps", "-aq", "--filter", "name=c1")
				}
			},
		},
		{
			name: "stop", command: []string{"stop", "-t", "0", "c1"}, clean: removed,
			prepare: func(h *rig) { h.OK("run", "-d", "--name", "c1", "--network", "none", img, "sleep", "600") },
			after: func(h *rig, done bool) {
				if done {
					h.want("exited", "inspect", "-f", "{{.State.Status}}", "c1")
				}
			},
		},
		{
			name: "rename", command: []string{"rename", "c1", "c2"},
			prepare: func(h *rig) { h.OK("create", "--name", "c1", "--network", "none", img, "true") },
			after: func(h *rig, done bool) {
				// One name or the other, and it works.
				names := h.OK("ps", "-a", "--format", "{{.Names}}")
				if names != "c2" && (done || names != "c1") {
					h.T.Errorf("names %q, done %v", names, done)
				}
				h.OK("start", "-a", names)
			},
			clean: func(h *rig) { h.gone("c1"); h.gone("c2"); h.fresh("c1"); h.fresh("c2") },
		},
		{name: "volume", command: []string{"volume", "create", "v1"}, clean: func(h *rig) {
			h.Isle("volume", "rm", "v1")
			h.OK("volume", "create", "v1")
			h.OK("volume", "rm", "v1")
		}, after: func(h *rig, done bool) {
			if done {
				h.want("v1", "volume", "inspect", "-f", "{{.Name}}", "v1")
			}
		}},
		{name: "tag", command: []string{"tag", img, "x:1"}, clean: func(h *rig) {
			h.Isle("rmi", "x:1")
			h.want("isle/base", "images", "--format", "{{.Repository}}")
		}, after: func(h *rig, done bool) {
			if done {
				h.OK("run", "--rm", "--network", "none", "x:1", "true")
			}
		}},
		{name: "import", command: []string{"import", "-", "x:2"}, input: archive, clean: func(h *rig) {
			h.Isle("rmi", "x:2")
			h.want("isle/base", "images", "--format", "{{.Repository}}")
		}, after: func(h *rig, done bool) {
			r := h.Isle("create", "--name", "c2", "--network", "none", "x:2", "/x")
			if done && r.Code != 0 {
				h.T.Errorf("imported, and then: %s", r)
			}
			h.gone("c2")
		}},
		{
			name: "remove an image", command: []string{"rmi", "x:3"},
			prepare: func(h *rig) {
				if r := h.Run(archive(h), filepath.Join(h.Bin, "isle"), "import", "-", "x:3"); r.Code != 0 {
					h.T.Fatal(r)
				}
			},
			clean: func(h *rig) {
				h.Isle("rmi", "x:3")
				h.want("isle/base", "images", "--format", "{{.Repository}}")
			},
		},
		{
			name: "copy in", command: []string{"cp", "/etc/hostname", "c1:/put"}, clean: removed,
			prepare: func(h *rig) { h.OK("create", "--name", "c1", "--network", "none", img, "cat", "/put") },
			after: func(h *rig, done bool) {
				if r := h.Isle("start", "-a", "c1"); done && r.Code != 0 {
					h.T.Errorf("copied, and then: %s", r)
				}
			},
		},
	}
}

// archive is a root file system with one file.
func archive(h *rig) *bytes.Buffer {
	h.T.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []string{"x", "y", "d/z"} {
		if err := w.WriteHeader(&tar.Header{Name: f, Mode: 0o755, Size: 1}); err != nil {
			h.T.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			h.T.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		h.T.Fatal(err)
	}
	return &b
}

func TestEveryCallAsRoot(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Strace)
	if testenv.InCgroups(t) {
		crashAll(t)
	}
}

func TestEveryCallAsUser(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap, testenv.Strace)
	if testenv.AsUserInCgroups(t) {
		crashAll(t)
	}
}

func crashAll(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			h := &rig{host.New(t, "")}
			h.OK("run", "--rm", "--network", "none", img, "true") // the image is there, the user namespace too
			step, killed := every(t), 0
			for n, missed := 1+rand.IntN(step), 0; missed < 2; n += step {
				if h.round(&s, n) {
					killed, missed = killed+1, 0
				} else {
					missed++
				}
				if t.Failed() {
					t.Fatalf("killed at call %d of a thread: isle %q", n, s.command)
				}
			}
			t.Logf("killed at %d points", killed)
			if killed == 0 {
				t.Error("nothing was killed")
			}
			h.tidy()
		})
	}
}

// round runs the command once, kills it or what it started at the nth of calls
// of a thread, and checks. It reports whether anything was killed.
func (h *rig) round(s *scenario, n int) bool {
	h.T.Helper()
	if s.prepare != nil {
		s.prepare(h)
	}
	trace := filepath.Join(h.Dir, "trace")
	var in *bytes.Buffer
	if s.input != nil {
		in = s.input(h)
	}
	words := append([]string{
		"-f", "-qq", "-o", trace, "-e", "trace=" + calls, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n),
		filepath.Join(h.Bin, "isle"),
	}, s.command...)
	strace, err := testenv.LookTool("strace")
	if err != nil {
		h.T.Fatal(err)
	}
	var r host.Result
	if in != nil {
		r = h.Run(in, strace, words...)
	} else {
		r = h.Run(nil, strace, words...)
	}
	log, err := os.ReadFile(trace)
	if err != nil {
		h.T.Fatal(err)
	}
	if r := h.Isle("ps", "-a"); r.Code != 0 {
		h.T.Errorf("ps: %s", r)
	}
	if s.after != nil {
		s.after(h, r.Code == 0 && !bytes.Contains(log, []byte("killed by SIGKILL")))
	}
	if s.clean != nil {
		s.clean(h)
	}
	if got := h.OK("run", "--rm", "--network", "none", img, "echo", "works"); got != "works" {
		h.T.Errorf("the next container says %q", got)
	}
	return bytes.Contains(log, []byte("killed by SIGKILL"))
}

// want runs a command that must succeed and compares what it prints.
func (h *rig) want(out string, words ...string) {
	h.T.Helper()
	if r := h.Isle(words...); r.Code != 0 || strings.TrimSpace(r.Out) != out {
		h.T.Errorf("isle %q: %s; want %q", words, r, out)
	}
}

// gone removes a container that may be there; whoever is still at it gets a while.
func (h *rig) gone(name string) {
	h.T.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r := h.Isle("rm", "-f", "-v", name)
		if strings.Contains(r.Err, "No such container") || r.Code == 0 && h.Isle("inspect", name).Code != 0 {
			return
		}
		if time.Now().After(end) {
			h.T.Errorf("rm -f %s: %s", name, r)
			return
		}
	}
}

// fresh wants a name to be free.
func (h *rig) fresh(name string) {
	h.T.Helper()
	h.OK("create", "--name", name, "--network", "none", img, "true")
	h.OK("rm", name)
}

// tidy wants the store to have no trace of a container. What a killed removal
// left in tmp is swept by a later one, once it has lain for ten seconds and so
// is nobody's work any more.
func (h *rig) tidy() {
	h.T.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		h.OK("run", "--rm", "--network", "none", "-v", "/vol", img, "true")
		// What --rm leaves to a background process is gone in a moment.
		time.Sleep(100 * time.Millisecond)
		var left []string
		for _, d := range []string{"containers", "names", "tmp", "volumes"} {
			entries, err := os.ReadDir(filepath.Join(h.Data(), d))
			if err != nil && !os.IsNotExist(err) {
				h.T.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() == ".lock" {
					continue
				}
				left = append(left, d+"/"+e.Name())
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			h.T.Errorf("left behind: %q", left)
			return
		}
	}
}
