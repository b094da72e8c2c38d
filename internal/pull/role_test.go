package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registrytest"
)

// varRole makes the test binary run a role instead of tests.
const varRole = "ISLE_TEST_PULL_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(varRole) {
	case "pull":
		os.Exit(Main(context.Background(), os.Args[1:], Builtin{}))
	case "load":
		os.Exit(LoadMain(context.Background(), os.Args[1:]))
	case "push":
		os.Exit(PushMain(context.Background(), os.Args[1:]))
	case "import":
		os.Exit(ImportMain(context.Background(), os.Args[1:]))
	}
	if code, done := inUserNamespace(); done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// inUserNamespace runs the tests again in a user namespace, where isled always
// is unless root runs it. done is false when this is such a place already, or
// none can be had (newPuller skips then).
func inUserNamespace() (code int, done bool) {
	self, err := os.Executable()
	if os.Getuid() == 0 || err != nil {
		return 0, false
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, false
	}
	if err := cmd.Wait(); err != nil {
		return 1, true
	}
	return 0, true
}

// isled is a command that runs a role on stores below dir.
func isled(t *testing.T, dir, role string, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), varRole+"="+role, "ISLE_ROOT="+dir+"/data", "ISLE_RUNROOT="+dir+"/run", "HOME="+dir)
	var out, progress bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &progress
	return cmd, &out, &progress
}

func TestRoles(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	dir := t.TempDir()
	cmd, out, progress := isled(t, dir, "pull", s.Addr+"/app:v1")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v %s %s", err, out, progress)
	}
	var res Result
	if err := json.Unmarshal(out.Bytes(), &res); err != nil || res.ID != m.ID || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("answer %q: %v", out, err)
	}
	if !strings.Contains(progress.String(), "Status: Downloaded newer image for") || strings.Contains(progress.String(), "\x1b") {
		t.Errorf("progress %q", progress)
	}
	cmd, out, _ = isled(t, dir, "load", "--quiet")
	cmd.Stdin = bytes.NewReader(registrytest.Tar(t, saved(t, m, "y:2")...))
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), `"loaded":["y:2"]`) {
		t.Errorf("load: %v %s", err, out)
	}
	file := filepath.Join(dir, "rootfs.tar")
	if err := os.WriteFile(file, registrytest.Tar(t, [2]string{"f", "x"}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out, _ = isled(t, dir, "import", "--input", file, "--change", "CMD x", "--change", "USER 1", "z:1")
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), `"id":"sha256:`) {
		t.Errorf("import: %v %s", err, out)
	}
	for _, c := range []struct {
		role string
		args []string
		want string
		code int
	}{
		{"pull", []string{"Bad"}, "must be lowercase", 1},
		{"pull", nil, "wants one image reference, got 0", 1},
		{"pull", []string{"--nonsense", "x"}, "nonsense", 1},
		{"pull", []string{"--platform", "windows/amd64", "x"}, "only linux images", 1},
		{"pull", []string{"--progress", "loud", "x"}, "not auto, tty, plain or none", 1},
		{"load", []string{"--input", dir + "/none"}, "no such file", 1},
		{"import", []string{"a", "b"}, "wants one image reference, got 2", 1},
	} {
		cmd, out, _ := isled(t, dir, c.role, c.args...)
		err := cmd.Run()
		var got struct{ Error *errs.Wire }
		var exit *exec.ExitError
		if jerr := json.Unmarshal(out.Bytes(), &got); jerr != nil || got.Error == nil || !strings.Contains(got.Error.Message, c.want) || !errors.As(err, &exit) || exit.ExitCode() != c.code {
			t.Errorf("%s %q: %v %s", c.role, c.args, err, out)
		}
	}
}

// slow is a registry whose blobs come a little at a time.
func slow(t *testing.T, s *registrytest.Server, begun chan<- struct{}) string {
	t.Helper()
	return faulty(t, s, func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		next.ServeHTTP(&trickle{w, begun}, r)
		return true
	})
}

// await waits until so many pieces of blobs have been sent.
func await(t *testing.T, begun <-chan struct{}, pieces int) {
	t.Helper()
	for range pieces {
		select {
		case <-begun:
		case <-time.After(time.Minute):
			t.Fatal("nothing is downloaded")
		}
	}
}

type trickle struct {
	http.ResponseWriter
	begun chan<- struct{}
}

func (w *trickle) Write(p []byte) (int, error) {
	for at := 0; at < len(p); at += 1024 {
		if _, err := w.ResponseWriter.Write(p[at:min(at+1024, len(p))]); err != nil {
			return at, err
		}
		_ = http.NewResponseController(w.ResponseWriter).Flush() // the client may be gone
		select {
		case w.begun <- struct{}{}:
		default:
		}
		time.Sleep(time.Millisecond)
	}
	return len(p), nil
}

func TestInterruptedPullLeavesNothing(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	begun := make(chan struct{})
	addr := slow(t, s, begun)
	p := newPuller(t, nil)
	dir := filepath.Dir(dataDir(p))
	cmd, out, _ := isled(t, dir, "pull", addr+"/app:v1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, begun, 20)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 || !strings.Contains(out.String(), "interrupted") || time.Since(asked) > 5*time.Second {
		t.Errorf("%v after %s: %s", err, time.Since(asked), out)
	}
	checkEmpty(t, p)
}

func TestKilledPullIsSweptOrGoneOnWith(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	begun := make(chan struct{})
	addr := slow(t, s, begun)
	for _, again := range []bool{true, false} {
		p := newPuller(t, nil)
		dir := filepath.Dir(dataDir(p))
		cmd, _, _ := isled(t, dir, "pull", addr+"/app:v1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, begun, 300)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if _, err := p.Images.Resolve(addr + "/app:v1"); !errors.Is(err, errs.NotFound) {
			t.Fatalf("after the kill: %v", err)
		}
		if again {
			if _, err := p.Pull(t.Context(), Options{Ref: addr + "/app:v1"}); err != nil {
				t.Fatal(err)
			}
			checkStored(t, p, addr+"/app:v1", m)
		}
		var present []string
		l, err := p.Layers.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range l {
			present = append(present, one.DiffID)
		}
		if _, err := p.Images.Collect(present, image.Keep{DropLayer: p.Layers.Remove}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Layers.Sweep(); err != nil {
			t.Fatal(err)
		}
		if !again {
			checkEmpty(t, p)
		} else {
			checkStored(t, p, addr+"/app:v1", m)
		}
	}
}

// What was left of a blob may be damaged by a power loss: then it is fetched
// from its beginning, once.
func TestDamagedPartIsFetchedAgain(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	p := newPuller(t, nil)
	w, err := p.Images.CreateBlob(t.Context(), m.Layers[2])
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(m.Blobs[m.Layers[2]][:500_000])
	bad[400_000] ^= 1
	if _, err := w.Write(bad); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v1"}); err != nil {
		t.Fatal(err)
	}
	checkStored(t, p, s.Addr+"/app:v1", m)
}

// A blob without a record may have been damaged by a power loss too.
func TestDamagedBlobIsFetchedAgain(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	for _, size := range []int{0, 1000, len(m.Blobs[m.Layers[2]])} {
		p := newPuller(t, nil)
		bad := bytes.Clone(m.Blobs[m.Layers[2]][:size])
		if size > 0 {
			bad[size/2] ^= 1
		}
		dir := dataDir(p) + "/images/blobs/sha256"
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/"+m.Layers[2][7:], bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v1"}); err != nil {
			t.Fatal(err)
		}
		checkStored(t, p, s.Addr+"/app:v1", m)
		if data, err := p.Images.ReadBlob(m.Layers[2], 1<<30); err != nil || image.DigestOf(data) != m.Layers[2] {
			t.Errorf("blob: %v", err)
		}
	}
}
