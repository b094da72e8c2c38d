package monitor

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/userns"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
	"github.com/isle-engine/isle/internal/testenv"
)

// TestMain lets the test binary be a monitor, and the process that unpacks the
// tests' layer inside the user namespace.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case Role:
		os.Exit(Main(os.Args))
	case "test-unpack":
		if err := unpackLayer(os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "test-remove":
		if err := removeTree(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "test-client":
		os.Exit(testClient(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// asBoth runs a test as root and as an ordinary user in a user namespace.
func asBoth(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Run("root", func(t *testing.T) {
		testenv.Need(t, testenv.Root, testenv.Overlay, testenv.Busybox)
		if testenv.InCgroups(t) {
			test(t, newRig(t))
		}
	})
	t.Run("user", func(t *testing.T) {
		testenv.Need(t, testenv.UserNS, testenv.Busybox)
		if testenv.AsUserInCgroups(t) {
			test(t, newRig(t))
		}
	})
}

// rig is a place with an image, where monitors can start containers.
type rig struct {
	t     testing.TB
	env   config.Env
	ns    *userns.Namespace
	layer string
	conns []*Conn // of start
}

// letGo closes the connections of all clients that have started a container.
func (r *rig) letGo() {
	for _, c := range r.conns {
		_ = c.f.Close()
	}
	r.conns = nil
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir := testenv.Dir(t)
	testenv.NoLeaks(t, dir)
	r := &rig{t: t, env: config.Env{Data: dir + "/d", Run: dir + "/r", UID: os.Getuid(), GID: os.Getgid(), Home: dir, Rootless: os.Getuid() != 0}}
	if err := r.env.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	if r.env.Rootless {
		ns, err := userns.Ensure(r.env.UserNS(), r.env.UID, r.env.GID)
		if err != nil {
			t.Fatal(err)
		}
		r.ns = ns
		t.Cleanup(func() {
			ns.Close()
			eventually(t, "the user namespace is empty, and ends", func() bool {
				if err := userns.Stop(r.env.UserNS()); err != nil {
					t.Fatal(err)
				}
				left, err := testenv.Processes("isle-holder", dir)
				return err == nil && len(left) == 0
			})
		})
	}
	archive := dir + "/layer.tar"
	r.layer = writeLayer(t, archive)
	if r.ns == nil {
		if err := unpackLayer(r.env.Layers(), r.layer, archive); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := os.Chmod(archive, 0o644); err != nil {
		t.Fatal(err)
	}
	r.inside("test-unpack", r.env.Layers(), r.layer, archive)
	return r
}

// inside runs a role of this binary in the user namespace.
func (r *rig) inside(args ...string) {
	r.t.Helper()
	child, err := (&program.Command{
		Path: "/proc/self/exe", Args: args, Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr}, Join: r.ns.Join(),
	}).Start()
	if err != nil {
		r.t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(child.Pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
		r.t.Fatalf("%s in the user namespace: %v, status %d", args[0], err, ws.ExitStatus())
	}
	_ = child.Pidfd.Close()
}

func unpackLayer(store, digest, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = storage.Open(store).Unpack(context.Background(), digest, f)
	return err
}

// writeLayer makes an image of one layer: a busybox and what a system has.
func writeLayer(t testing.TB, path string) (digest string) {
	t.Helper()
	box, err := testenv.StaticBusybox()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(box)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, body []byte) {
		t.Helper()
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "data"} {
		mode := int64(0o755)
		if d == "tmp" {
			mode = 0o1777
		}
		add(tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: mode}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, data)
	for a := range strings.FieldsSeq("sh echo sleep cat true false ls dd yes head printf id stty kill touch hostname wc tr seq tail env ps mount sync") {
		add(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeLink, Linkname: "bin/busybox", Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/data:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nweb:x:33:\nlog:x:44:web\n"))
	add(tar.Header{Name: "etc/noexec", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("#!/bin/sh\n"))
	add(tar.Header{Name: "data/hello", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("from the image\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(buf.Bytes())
	return "sha256:" + hex.EncodeToString(sum[:])
}

// create writes a container's directory, as the engine does.
func (r *rig) create(cfg container.Config) string {
	r.t.Helper()
	id := state.NewID()
	if cfg.Network == "" {
		cfg.Network = "none"
	}
	rec := container.Record{ID: id, Created: time.Now().UTC(), Config: cfg, Image: container.Image{ID: r.layer, Ref: "test", Layers: []string{r.layer}}}
	// As the engine does: a monitor that ends meanwhile sweeps what has no record
	// and no lock.
	lock, err := Lock(r.env, id)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	dir := r.env.Container(id)
	for _, d := range []string{dir, dir + "/upper", dir + "/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := state.WriteRecord(dir, &rec, false); err != nil {
		r.t.Fatal(err)
	}
	if cfg.Name != "" {
		if err := state.Reserve(r.env.Names(), cfg.Name, id); err != nil {
			r.t.Fatal(err)
		}
	}
	return id
}

// start starts a container. Its monitor is killed at the end of the test, if
// it is still there then.
func (r *rig) start(id string, a *Attach) (*Conn, error) {
	r.t.Helper()
	c, err := Spawn(r.env, r.ns)
	if err != nil {
		r.t.Fatal(err)
	}
	r.conns = append(r.conns, c)
	pid := c.pid
	r.t.Cleanup(func() {
		_ = c.Close()
		// Not reaped by anybody else as long as it runs, so the pid is right.
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe != "" {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	_, err = c.Start(r.t.Context(), StartRequest{ID: id, Attach: a})
	return c, err
}

// result is what a container did.
type result struct {
	exit        Exit
	out, errOut string
}

// run runs a container in the foreground to its end.
func (r *rig) run(cfg container.Config, stdin string) result {
	r.t.Helper()
	id := r.create(cfg)
	return r.runID(id, stdin)
}

func (r *rig) runID(id, stdin string) result {
	r.t.Helper()
	out, errOut := newCapture(r.t), newCapture(r.t)
	a := &Attach{Stdout: out.w, Stderr: errOut.w}
	var in *os.File
	if stdin != "" {
		pr, pw, err := os.Pipe()
		if err != nil {
			r.t.Fatal(err)
		}
		a.Stdin, in = pr, pw
	}
	c, err := r.start(id, a)
	out.w.Close()
	errOut.w.Close()
	if err != nil {
		r.t.Fatalf("start: %v", err)
	}
	if in != nil {
		a.Stdin.Close()
		go func() {
			_, _ = io.WriteString(in, stdin) // EPIPE when the container does not want it
			in.Close()
		}()
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	e, err := c.Wait(ctx)
	if err != nil {
		r.t.Fatalf("wait: %v", err)
	}
	return result{e, out.String(), errOut.String()}
}

func (r *rig) state(id string) container.State {
	r.t.Helper()
	var st container.State
	if err := state.ReadState(r.env.Container(id), &st); err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *rig) dial(id string) *Conn {
	r.t.Helper()
	c, err := Dial(r.env, id)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// kill ends a detached container and waits for its monitor's last word.
func (r *rig) kill(id string) {
	r.t.Helper()
	c := r.dial(id)
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := c.Stop(ctx, unix.SIGKILL, 0); err != nil {
		r.t.Fatal(err)
	}
}

// capture is a pipe whose other end is read all the time.
type capture struct {
	w    *os.File
	mu   sync.Mutex
	buf  bytes.Buffer
	done chan struct{}
}

func newCapture(t testing.TB) *capture {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &capture{w: w, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer r.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := r.Read(b)
			c.mu.Lock()
			c.buf.Write(b[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

// String waits for the end of the output.
func (c *capture) String() string {
	<-c.done
	return c.buf.String()
}

// sofar is what has come until now.
func (c *capture) sofar() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

// eventually waits for cond.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// client is a process of its own that runs a container in the foreground.
func (r *rig) client(id string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"test-client", id, r.env.Data, r.env.Run, r.env.Home}
	return cmd
}

// rigOf is the rig in such a process.
func rigOf(args []string) *rig {
	r := &rig{env: config.Env{Data: args[1], Run: args[2], Home: args[3], UID: os.Getuid(), GID: os.Getgid(), Rootless: os.Getuid() != 0}}
	if r.env.Rootless {
		ns, err := userns.Ensure(r.env.UserNS(), r.env.UID, r.env.GID)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(10)
		}
		r.ns = ns
	}
	return r
}

func (r *rig) tryState(id string) (container.State, error) {
	var st container.State
	err := state.ReadState(r.env.Container(id), &st)
	return st, err
}

func stateHeld(r *rig, id string) bool { return Alive(r.env, id) }

// runAgain changes a container's command to true and starts it.
func (r *rig) runAgain(id string) Exit {
	r.t.Helper()
	dir := r.env.Container(id)
	var rec container.Record
	if err := state.ReadRecord(dir, &rec); err != nil {
		r.t.Fatal(err)
	}
	rec.Config.Cmd = []string{"/bin/true"}
	if err := state.WriteRecord(dir, &rec, false); err != nil {
		r.t.Fatal(err)
	}
	return r.runID(id, "").exit
}
