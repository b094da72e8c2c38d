package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// memory is a small engine that keeps everything in memory: containers that
// "run" a few words of its own (echo, false, exit N, oom) at once, or until they
// are stopped (sleep).
type memory struct {
	mu      sync.Mutex
	all     []*engine.Container
	images  []image.Image
	now     time.Time
	created engine.CreateOptions
	execs   []container.ExecConfig
	signals []os.Signal
	sizes   [][2]uint16
	logOpts engine.LogOptions
	calls   []string
}

var (
	_ conductor = (*memory)(nil)
	_ conductor = (*engine.Engine)(nil)
)

func (m *memory) Env() config.Env { return config.Env{Data: "/data", Run: "/run"} }

func (m *memory) find(ref string) (*engine.Container, error) {
	for _, c := range m.all {
		if c.Config.Name == ref || strings.HasPrefix(c.ID, ref) {
			return c, nil
		}
	}
	return nil, errs.New(errs.NotFound, "No such container: %s", ref)
}

func (m *memory) Create(_ context.Context, cfg *container.Config, o engine.CreateOptions) (string, []string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.created = o
	img, err := m.image(cfg.Image)
	if err != nil {
		return "", nil, err
	}
	c := &engine.Container{}
	c.ID = fmt.Sprintf("%064x", len(m.all)+0xabc)
	c.Created, c.Config = m.now, *cfg
	c.Record.Image = img.ForContainer()
	taken := func(name string) bool {
		return slices.ContainsFunc(m.all, func(other *engine.Container) bool { return other.Config.Name == name })
	}
	for try := 0; c.Config.Name == "" || cfg.Name == "" && taken(c.Config.Name); try++ {
		c.Config.Name = container.RandomName(try)
	}
	for _, other := range m.all {
		if other.Config.Name == c.Config.Name {
			return "", nil, errs.New(errs.Conflict, "Conflict. The container name %q is already in use", "/"+c.Config.Name)
		}
	}
	c.State.Status = container.Created
	m.all = append(m.all, c)
	var warnings []string
	if cfg.Resources.KernelMemory != 0 {
		warnings = []string{"kernel memory limits are gone"}
	}
	return c.ID, warnings, nil
}

func (m *memory) Run(ctx context.Context, cfg *container.Config, o engine.CreateOptions, io *engine.IO) (string, []string, engine.Session, error) {
	id, warnings, err := m.Create(ctx, cfg, o)
	if err != nil {
		return "", nil, nil, err
	}
	s, err := m.Start(ctx, id, io)
	return id, warnings, s, err
}

func (m *memory) Start(_ context.Context, ref string, io *engine.IO) (engine.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	argv := append(slices.Clone(c.Config.Entrypoint), c.Config.Cmd...)
	if len(argv) > 0 && argv[0] == "nosuch" {
		return nil, errs.WithExit(errs.New(errs.NotFound, "exec %q: executable file not found in $PATH", argv[0]), 127)
	}
	c.State.Status, c.State.StartedAt, c.State.Pid = container.Running, m.now, 4242
	if io == nil {
		return nil, nil //nolint:nilnil // as the engine
	}
	return m.session(argv, io), nil
}

// session plays argv.
func (m *memory) session(argv []string, io *engine.IO) *memorySession {
	s := &memorySession{m: m}
	if len(argv) == 0 {
		return s
	}
	switch argv[0] {
	case "echo":
		fmt.Fprintln(io.Stdout, strings.Join(argv[1:], " "))
	case "false":
		s.exit.Code = 1
	case "exit":
		s.exit.Code, _ = strconv.Atoi(argv[1])
	case "oom":
		s.exit = engine.Exit{Code: 137, OOMKilled: true, OOM: &container.OOM{Kills: 1, Limit: 64 << 20, Peak: 64 << 20}}
	case "detach":
		s.exit.Detached = true
	case "cat":
		if io.Stdin != nil {
			b := make([]byte, 1<<10)
			n, _ := io.Stdin.Read(b)
			_, _ = io.Stdout.Write(b[:n])
		}
	}
	return s
}

type memorySession struct {
	m    *memory
	exit engine.Exit
	hold chan struct{}
}

func (s *memorySession) Wait(context.Context) (engine.Exit, error) {
	if s.hold != nil {
		<-s.hold
	}
	return s.exit, nil
}

func (s *memorySession) Signal(sig os.Signal) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.signals = append(s.m.signals, sig)
	if s.hold != nil {
		close(s.hold)
		s.hold = nil
	}
	return nil
}

func (s *memorySession) Resize(rows, cols uint16) error {
	s.m.sizes = append(s.m.sizes, [2]uint16{rows, cols})
	return nil
}
func (s *memorySession) Close() error { return nil }

func (m *memory) Attach(_ context.Context, ref string, io engine.IO) (engine.Session, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	return m.session(c.Config.Cmd, &io), nil
}

func (m *memory) Exec(_ context.Context, ref string, cfg container.ExecConfig, io engine.IO) (engine.Session, error) {
	if _, err := m.find(ref); err != nil {
		return nil, err
	}
	m.execs = append(m.execs, cfg)
	if cfg.Cmd[0] == "nosuch" {
		return nil, errs.WithExit(errs.New(errs.NotFound, "exec %q: executable file not found in $PATH", cfg.Cmd[0]), 127)
	}
	if cfg.Detach {
		return nil, nil //nolint:nilnil // as the engine
	}
	return m.session(cfg.Cmd, &io), nil
}

func (m *memory) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
}

func (m *memory) Stop(_ context.Context, ref, signal string, timeout *int) error {
	t := "nil"
	if timeout != nil {
		t = fmt.Sprint(*timeout)
	}
	m.note("stop %s %q %s", ref, signal, t)
	_, err := m.find(ref)
	return err
}

func (m *memory) Kill(_ context.Context, ref, signal string) error {
	m.note("kill %s %q", ref, signal)
	_, err := m.find(ref)
	return err
}

func (m *memory) Wait(_ context.Context, ref, _ string) (int, error) {
	c, err := m.find(ref)
	if err != nil {
		return 0, err
	}
	return c.State.ExitCode, nil
}

func (m *memory) Remove(_ context.Context, ref string, o engine.RemoveOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if c.State.Status == container.Running && !o.Force {
		return errs.New(errs.Conflict, "cannot remove container %q: container is running", "/"+c.Config.Name)
	}
	m.all = slices.DeleteFunc(m.all, func(x *engine.Container) bool { return x == c })
	return nil
}

func (m *memory) List(_ context.Context, o engine.ListOptions) ([]engine.Container, error) {
	var out []engine.Container
	for _, c := range slices.Backward(m.all) {
		if !o.All && o.Last == 0 && c.State.Status != container.Running {
			continue
		}
		if ids := o.Filter["id"]; len(ids) > 0 && !strings.HasPrefix(c.ID, ids[0]) {
			continue
		}
		out = append(out, *c)
		if o.Last > 0 && len(out) == o.Last {
			break
		}
	}
	return out, nil
}

func (m *memory) Inspect(_ context.Context, ref string) (*engine.Container, error) {
	return m.find(ref)
}

func (m *memory) Logs(_ context.Context, ref string, o engine.LogOptions, stdout, stderr io.Writer) error {
	if _, err := m.find(ref); err != nil {
		return err
	}
	m.logOpts = o
	fmt.Fprintln(stdout, "to stdout")
	fmt.Fprintln(stderr, "to stderr")
	return nil
}

func (m *memory) Pull(_ context.Context, ref string, o engine.PullOptions) (engine.Pulled, error) {
	m.note("pull %s %+v", ref, o.Platform)
	if strings.Contains(ref, "nosuch") {
		return engine.Pulled{}, errs.New(errs.NotFound, "manifest for %s not found: manifest unknown", ref)
	}
	return engine.Pulled{Name: "docker.io/library/" + ref + ":latest", Digest: "sha256:" + strings.Repeat("1", 64), New: true}, nil
}

func (m *memory) image(ref string) (*image.Image, error) {
	for i := range m.images {
		img := &m.images[i]
		if strings.HasPrefix(img.ID, "sha256:"+ref) || slices.Contains(img.Tags, ref) || slices.Contains(img.Tags, ref+":latest") {
			return img, nil
		}
	}
	return nil, errs.New(errs.NotFound, "No such image: %s", ref)
}

func (m *memory) Images(_ context.Context, f engine.Filter, _ bool) ([]image.Image, error) {
	if refs := f["reference"]; len(refs) > 0 {
		img, err := m.image(refs[0])
		if err != nil {
			return nil, nil //nolint:nilerr // nothing matches
		}
		return []image.Image{*img}, nil
	}
	return m.images, nil
}

func (m *memory) InspectImage(_ context.Context, ref string) (*image.Image, error) {
	return m.image(ref)
}

func (m *memory) RemoveImage(_ context.Context, ref string, _, _ bool) ([]string, error) {
	img, err := m.image(ref)
	if err != nil {
		return nil, err
	}
	return []string{"Untagged: " + ref, "Deleted: " + img.ID}, nil
}

func (m *memory) Load(_ context.Context, r *os.File, _ bool) ([]string, error) {
	b, err := io.ReadAll(r)
	return strings.Fields(string(b)), err
}

func (m *memory) Import(_ context.Context, r *os.File, from, ref string, changes []string, message, platform string) (string, error) {
	var b []byte
	var err error
	if r != nil {
		b, err = io.ReadAll(r)
	} else {
		b = []byte(from)
	}
	m.note("import %d %s %q %s %s", len(b), ref, changes, message, platform)
	return "sha256:" + strings.Repeat("5", 64), err
}

func (m *memory) Tag(_ context.Context, src, dst string) error {
	m.note("tag %s %s", src, dst)
	_, err := m.image(src)
	return err
}

func (m *memory) Info(context.Context) (engine.Info, error) {
	return engine.Info{Version: "1.2.3", Root: "/data", RunRoot: "/run", Containers: 3, Running: 1, Kernel: "6.18", NCPU: 2, MemTotal: 24 << 30, CgroupVersion: "2", CgroupControllers: []string{"cpu", "cpuset", "memory", "pids"}, OperatingSystem: "evil\x1b]0;x\a"}, nil
}

// newMemory has the images that tests name.
func newMemory() *memory {
	m := &memory{now: time.Now().Add(-5 * time.Minute)}
	m.images = []image.Image{
		{
			ID: "sha256:" + strings.Repeat("d", 64), Tags: []string{"alpine:latest", "reg.example.com:5000/a/b:1"}, Digests: []string{"alpine@sha256:" + strings.Repeat("1", 64)},
			Created: time.Now().Add(-30 * 24 * time.Hour), Size: 7812345, OS: "linux", Arch: "amd64",
			Config: container.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin", "A=image"}, Labels: map[string]string{"vendor": "x"}, Expose: map[string]struct{}{"443/tcp": {}}},
		},
		{ID: "sha256:" + strings.Repeat("f", 64), Digests: []string{"only@sha256:" + strings.Repeat("3", 64)}, Created: time.Now().Add(-300 * 24 * time.Hour), Size: 999, OS: "linux", Arch: "amd64"},
		{ID: "sha256:" + strings.Repeat("9", 64), Created: time.Now().Add(-800 * 24 * time.Hour), Size: 1500, OS: "linux", Arch: "arm64", Variant: "v8"},
	}
	return m
}

// result is what a command left.
type result struct {
	code     int
	out, err string
}

// isle runs a command line on m with stdin as its input.
func isle(t *testing.T, m conductor, stdin string, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	file := func(name, content string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(content); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	in, out, errf := file("in", stdin), file("out", ""), file("err", "")
	a := &app{ctx: t.Context(), name: "isle", in: in, out: out, err: errf, open: func() (conductor, error) { return m, nil }}
	code := a.main(args)
	read := func(f *os.File) string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return result{code, read(out), read(errf)}
}

func (m *memory) Restart(context.Context, string, string, *int) error { return nil }
func (m *memory) Pause(context.Context, string, bool) error           { return nil }
func (m *memory) Rename(context.Context, string, string) error        { return nil }
func (m *memory) PruneContainers(context.Context, engine.PruneOptions) ([]string, int64, error) {
	return nil, 0, nil
}
func (m *memory) History(context.Context, string) ([]engine.Step, error) { return nil, nil }
