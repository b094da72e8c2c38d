package pull

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registry"
	"github.com/isle-engine/isle/internal/image/registrytest"
	"github.com/isle-engine/isle/internal/storage"
	"github.com/isle-engine/isle/internal/testenv"
)

// newPuller returns a Puller with stores and settings of its own; files are
// settings below the home directory.
func newPuller(t testing.TB, files map[string]string) *Puller {
	t.Helper()
	if os.Getuid() != 0 {
		testenv.Need(t, testenv.UserNS) // TestMain could not have one
	}
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, "home", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := config.Env{Data: dir + "/data", Run: dir + "/run", Home: dir + "/home"}
	if err := env.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	conf, err := registry.LoadConfig(env, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	p := &Puller{Images: image.Open(env.Images()), Layers: storage.Open(env.Layers()), Client: registry.New(conf)}
	dirs.Store(p, env.Data)
	return p
}

// output is a file to show progress on, and what was shown.
func output(t testing.TB) (*os.File, func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, func() string {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
}

// filler is content that compresses by about a half.
func filler(n int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[r.IntN(16)]
	}
	return string(b)
}

// testImage has three layers: one deletes what another brought.
func testImage(t testing.TB, zstd bool) *registrytest.Made {
	return registrytest.Make(t, registrytest.Image{
		Zstd: zstd,
		Layers: [][]byte{
			registrytest.Tar(t, [2]string{"bin/"}, [2]string{"bin/sh", "#!"}, [2]string{"etc/"}, [2]string{"etc/old", "x"}),
			registrytest.Tar(t, [2]string{"etc/"}, [2]string{"etc/.wh.old", ""}, [2]string{"etc/new", "y"}, [2]string{"lib", "->usr/lib"}),
			registrytest.Tar(t, [2]string{"big", filler(3<<20, 7)}),
		},
		Config: map[string]any{"Cmd": []string{"/bin/sh"}, "Env": []string{"A=b"}},
	})
}

// checkStored fails unless ref is in the store, whole.
func checkStored(t *testing.T, p *Puller, ref string, m *registrytest.Made) {
	t.Helper()
	img, err := p.Images.Inspect(ref)
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != m.ID || img.Manifest != m.Digest || len(img.Layers) != len(m.DiffIDs) {
		t.Errorf("%s is %+v", ref, img)
	}
	for i, l := range img.Layers {
		if l.DiffID != m.DiffIDs[i] || !p.Layers.Has(l.DiffID) || !p.Images.HasBlob(l.Digest) {
			t.Errorf("layer %d is %+v; unpacked %v, blob %v", i, l, p.Layers.Has(l.DiffID), p.Images.HasBlob(l.Digest))
		}
	}
}

// checkEmpty fails if a failed pull has left anything.
func checkEmpty(t *testing.T, p *Puller) {
	t.Helper()
	l, err := p.Layers.Layers()
	if err != nil || len(l) != 0 {
		t.Errorf("layers left: %v %v", l, err)
	}
	dir := dataDir(p)
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch rel, _ := filepath.Rel(dir, path); {
		case d.IsDir() && !strings.Contains(rel, "layers/."), strings.HasSuffix(rel, "images/lock"), strings.HasSuffix(rel, "images/oci-layout"), strings.HasSuffix(rel, "layers/.format"):
		default:
			t.Errorf("left behind: %s", rel)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// dirs remembers the data directory of each Puller of newPuller.
var dirs sync.Map

func dataDir(p *Puller) string {
	d, _ := dirs.Load(p)
	s, _ := d.(string)
	return s
}

func TestPull(t *testing.T) {
	t.Parallel()
	for _, zstd := range []bool{false, true} {
		t.Run(fmt.Sprintf("zstd=%v", zstd), func(t *testing.T) {
			t.Parallel()
			s := registrytest.Start(t)
			p := newPuller(t, nil)
			m := testImage(t, zstd)
			s.Push(t, "lab/app", "v1", m)
			ref := s.Addr + "/lab/app:v1"
			out, text := output(t)
			res, err := p.Pull(t.Context(), Options{Ref: ref, Out: out, Progress: Auto})
			if err != nil {
				t.Fatal(err)
			}
			if res != (Result{Name: ref, Digest: m.Digest, ID: m.ID, New: true}) {
				t.Errorf("result %+v", res)
			}
			checkStored(t, p, ref, m)
			checkStored(t, p, s.Addr+"/lab/app@"+m.Digest, m)
			for _, want := range []string{
				"v1: Pulling from " + s.Addr + "/lab/app\n", m.Layers[0][7:19] + ": Pulling fs layer\n", m.Layers[0][7:19] + ": Pull complete\n",
				"Digest: " + m.Digest + "\n", "Status: Downloaded newer image for " + ref + "\n",
			} {
				if !strings.Contains(text(), want) {
					t.Errorf("no line %q in\n%s", want, text())
				}
			}
			path, err := p.Layers.Path(m.DiffIDs[1])
			if err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(path + "/etc/new"); err != nil || string(data) != "y" {
				t.Errorf("unpacked %q %v", data, err)
			}

			out, text = output(t)
			res, err = p.Pull(t.Context(), Options{Ref: ref, Out: out})
			if err != nil || res.New || !strings.Contains(text(), "Status: Image is up to date for "+ref) {
				t.Errorf("second pull: %+v %v\n%s", res, err, text())
			}
			out, text = output(t)
			res, err = p.Pull(t.Context(), Options{Ref: s.Addr + "/lab/app@" + m.Digest, Out: out, Quiet: true})
			if err != nil || res.New || text() != "" {
				t.Errorf("pull by digest: %+v %v\n%s", res, err, text())
			}
		})
	}
}

func TestPullDownloadsNothingThatIsThere(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	p := newPuller(t, nil)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v1"}); err != nil {
		t.Fatal(err)
	}
	// The same layers in another image, by a registry without blobs.
	other := registrytest.Make(t, registrytest.Image{Layers: [][]byte{
		registrytest.Tar(t, [2]string{"bin/"}, [2]string{"bin/sh", "#!"}, [2]string{"etc/"}, [2]string{"etc/old", "x"}),
	}, Config: map[string]any{"User": "1"}})
	s.Push(t, "app", "v2", other)
	if err := os.RemoveAll(s.Dir + "/docker/registry/v2/blobs/sha256/" + other.Layers[0][7:9] + "/" + other.Layers[0][7:]); err != nil {
		t.Fatal(err)
	}
	out, text := output(t)
	if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v2", Out: out}); err != nil {
		t.Fatalf("%v\n%s", err, text())
	}
	checkStored(t, p, s.Addr+"/app:v2", other)
}

func TestPullByPlatform(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	p := newPuller(t, nil)
	var list []*registrytest.Made
	for _, pl := range []image.Platform{{OS: "linux", Arch: "arm", Variant: "v6"}, {OS: "linux", Arch: "arm64", Variant: "v8"}, image.HostPlatform(), {OS: "linux", Arch: "s390x"}} {
		m := registrytest.Make(t, registrytest.Image{Platform: pl, Layers: [][]byte{registrytest.Tar(t, [2]string{"arch", pl.String()})}})
		s.Push(t, "app", "", m)
		list = append(list, m)
	}
	index := registrytest.Index(t, list...)
	s.PushManifest(t, "app", "latest", image.TypeOCIIndex, index)
	res, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app"})
	if err != nil || res.ID != list[2].ID || res.Digest != image.DigestOf(index) {
		t.Fatalf("%+v %v", res, err)
	}
	if res, err = p.Pull(t.Context(), Options{Ref: s.Addr + "/app", Platform: "linux/arm/v7"}); err != nil || res.ID != list[0].ID {
		t.Errorf("arm/v7 runs arm/v6: %+v %v", res, err)
	}
	if res, err = p.Pull(t.Context(), Options{Ref: s.Addr + "/app@" + image.DigestOf(index), Platform: "arm64"}); err != nil || res.ID != list[1].ID {
		t.Errorf("arm64: %+v %v", res, err)
	}
	_, err = p.Pull(t.Context(), Options{Ref: s.Addr + "/app", Platform: "linux/riscv64"})
	if !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "no matching manifest for linux/riscv64 in the manifest list entries") {
		t.Errorf("riscv64: %v", err)
	}
}

// faulty is a proxy before a registry that misbehaves as it is told.
func faulty(t *testing.T, s *registrytest.Server, bad func(w http.ResponseWriter, r *http.Request, next http.Handler) bool) string {
	t.Helper()
	to, err := url.Parse("http://" + s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	next := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !bad(w, r, next) {
			next.ServeHTTP(w, r)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// cut passes on a response up to its byte n, then breaks the connection.
func cut(w http.ResponseWriter, r *http.Request, next http.Handler, n int) {
	c := &cutter{ResponseWriter: w, left: n}
	next.ServeHTTP(c, r)
	if c.left < 0 {
		panic(http.ErrAbortHandler)
	}
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.left < 0 {
		return 0, io.ErrClosedPipe
	}
	if len(p) > c.left {
		n, _ := c.ResponseWriter.Write(p[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush() // the client may be gone
		c.left = -1
		return n, io.ErrClosedPipe
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func TestPullGoesOnWhereItBroke(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	var asked atomic.Int64
	var mu sync.Mutex
	var ranges []string
	addr := faulty(t, s, func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, m.Layers[2]) {
			return false
		}
		mu.Lock()
		ranges = append(ranges, r.Header.Get("Range"))
		mu.Unlock()
		if asked.Add(1) > 8 {
			return false
		}
		cut(w, r, next, 150_000)
		return true
	})
	p := newPuller(t, nil)
	if _, err := p.Pull(t.Context(), Options{Ref: addr + "/app:v1"}); err != nil {
		t.Fatal(err)
	}
	checkStored(t, p, addr+"/app:v1", m)
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) < 5 || ranges[0] != "" || ranges[1] != "bytes=150000-" {
		t.Errorf("ranges %q", ranges)
	}
}

func TestPullFaults(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	blob := func(r *http.Request, i int) bool { return strings.HasSuffix(r.URL.Path, m.Layers[i]) }
	status := func(w http.ResponseWriter, code int, body string) bool {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
		return true
	}
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	for _, c := range []struct {
		name string
		ref  string
		bad  func(w http.ResponseWriter, r *http.Request, next http.Handler) bool
		kind errs.Kind
		want string
	}{
		{"unknown tag", "app:nope", nil, errs.NotFound, "manifest for %s/app:nope not found: manifest unknown"},
		{"unknown repository", "nope:v1", nil, errs.NotFound, "manifest for %s/nope:v1 not found: manifest unknown"},
		{"unknown digest", "app@sha256:" + strings.Repeat("ab", 32), nil, errs.NotFound, "not found: manifest unknown"},
		{"access denied", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			return status(w, 403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
		}, errs.Denied, "pull access denied for %s/app, repository does not exist or may require 'isle login'"},
		{"login wanted", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			return status(w, 401, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		}, errs.Denied, "pull access denied for %s/app, repository does not exist or may require 'isle login'"},
		{"server error", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			return status(w, 500, "\x1b[31mboom\n")
		}, errs.Unavailable, "registry %s: HTTP status 500 Internal Server Error"},
		{"not a registry", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			return status(w, 200, "<html>")
		}, errs.Corrupt, "not a JSON object"},
		{"manifest of another digest", "app@" + m.Digest, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			return isManifest(r) && status(w, 200, string(m.Manifest)+" ")
		}, errs.Corrupt, "the manifest it sends for " + m.Digest + " has the digest"},
		{"manifest with layers and manifests", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			w.Header().Set("Content-Type", image.TypeOCIManifest)
			return isManifest(r) && status(w, 200, strings.Replace(string(m.Manifest), "{", `{"manifests":[],`, 1))
		}, errs.Corrupt, "could be read in two ways"},
		{"schema version 1", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			return isManifest(r) && status(w, 200, `{"schemaVersion":1,"name":"x","fsLayers":[]}`)
		}, errs.Unsupported, "obsolete schema version 1"},
		{"huge manifest", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			return isManifest(r) && status(w, 200, strings.Repeat(" ", image.MaxManifest+10))
		}, errs.Corrupt, "is larger than"},
		{"wrong content", "app:v1", func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if !blob(r, 2) {
				return false
			}
			data := bytes.Clone(m.Blobs[m.Layers[2]])
			data[len(data)/2] ^= 1
			_, _ = w.Write(data)
			return true
		}, errs.Corrupt, "layer " + m.Layers[2][7:19] + ": the registry sends other content"},
		{"always truncated", "app:v1", func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if !blob(r, 2) {
				return false
			}
			r.Header.Del("Range") // no ranges here
			cut(w, r, next, 100_000)
			return true
		}, errs.Unavailable, "layer " + m.Layers[2][7:19] + ": cut off after 100000 of"},
		{"shorter than said", "app:v1", func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			return blob(r, 2) && status(w, 200, "short")
		}, errs.Corrupt, "according to the manifest"},
		{"layer missing", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			return blob(r, 1) && status(w, 404, "")
		}, errs.NotFound, "layer " + m.Layers[1][7:19] + ": registry %s does not have it"},
		{"redirect to a file", "app:v1", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if blob(r, 1) {
				w.Header().Set("Location", "file:///etc/shadow")
				w.WriteHeader(307)
			}
			return blob(r, 1)
		}, errs.Denied, "it is not an HTTP address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPuller(t, nil)
			addr := s.Addr
			if c.bad != nil {
				addr = faulty(t, s, c.bad)
			}
			out, text := output(t)
			_, err := p.Pull(t.Context(), Options{Ref: addr + "/" + c.ref, Out: out})
			if strings.Contains(c.want, "%s") {
				c.want = fmt.Sprintf(c.want, addr)
			}
			if errs.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("kind %v: %v\nwant kind %v, %q\n%s", errs.KindOf(err), err, c.kind, c.want, text())
			}
			checkEmpty(t, p)
		})
	}
}

func TestPullUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close() // nobody listens there now
	p := newPuller(t, nil)
	_, err = p.Pull(t.Context(), Options{Ref: addr + "/app:v1"})
	if !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
	checkEmpty(t, p)
}

func TestPullTruncatedLayerLeavesTheRestToTheNextPull(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := registrytest.Make(t, registrytest.Image{Layers: [][]byte{registrytest.Tar(t, [2]string{"big", filler(4<<20, 3)})}})
	s.Push(t, "app", "v1", m)
	broken := true
	var mu sync.Mutex
	var last string
	addr := faulty(t, s, func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasSuffix(r.URL.Path, m.Layers[0]) {
			return false
		}
		last = r.Header.Get("Range")
		if broken {
			r.Header.Del("Range")
			mu.Unlock()
			defer mu.Lock()
			cut(w, r, next, 1<<20)
			return true
		}
		return false
	})
	p := newPuller(t, nil)
	p.keep = 1 << 20
	if _, err := p.Pull(t.Context(), Options{Ref: addr + "/app:v1"}); !errors.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	if _, err := p.Pull(t.Context(), Options{Ref: addr + "/app:v1"}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if last != fmt.Sprintf("bytes=%d-", 1<<20) {
		t.Errorf("asked for %q", last)
	}
	checkStored(t, p, addr+"/app:v1", m)
}

func TestPullFromMirror(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Registry)
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "library/alpine", "3.20", m)
	for name, files := range map[string]map[string]string{
		"isle's own": {".config/isle/registries.conf": "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"" + s.Addr + "\"\n"},
		"containers": {".config/containers/registries.conf": "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"" + s.Addr + "\"\ninsecure = true\n"},
		"location":   {".config/containers/registries.conf.d/x.conf": "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"" + s.Addr + "/library\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPuller(t, files)
			res, err := p.Pull(t.Context(), Options{Ref: "alpine:3.20"})
			if err != nil || res.Name != "docker.io/library/alpine:3.20" {
				t.Fatal(res, err)
			}
			checkStored(t, p, "alpine:3.20", m)
		})
	}
}

func TestTwoPullsAtOnce(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	var blobs atomic.Int64
	addr := faulty(t, s, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, m.Layers[2]) {
			blobs.Add(1)
		}
		return false
	})
	p := newPuller(t, nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := p.Pull(t.Context(), Options{Ref: addr + "/app:v1"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkStored(t, p, addr+"/app:v1", m)
	if n := blobs.Load(); n != 1 {
		t.Errorf("the blob was fetched %d times", n)
	}
}

func TestPullOntoAFullDisk(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false) // 1.7 MB of blobs, 3 MB unpacked
	s.Push(t, "app", "v1", m)
	for size, what := range map[string]string{"size=1m": "blob", "size=4m": "files", "size=20m,nr_inodes=24": "inodes"} {
		t.Run(what, func(t *testing.T) {
			p := newPuller(t, nil)
			dir := dataDir(p)
			for _, sub := range []string{"/images", "/layers"} { // one file system for both
				if err := os.RemoveAll(dir + sub); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Mount("none", dir, "tmpfs", 0, size); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
			_, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v1"})
			if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") || !strings.Contains(strings.Join(errs.Hints(err), ""), "file system of") {
				t.Errorf("%v\nhints %q", err, errs.Hints(err))
			}
			checkEmpty(t, p)
		})
	}
}

func TestPullOfManyLayers(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	var layers [][]byte
	for i := range 130 {
		layers = append(layers, registrytest.Tar(t, [2]string{"f", fmt.Sprint(i % 100)})) // thirty are there twice
	}
	m := registrytest.Make(t, registrytest.Image{Layers: layers, Docker: true})
	s.Push(t, "app", "v1", m)
	p := newPuller(t, nil)
	out, text := output(t)
	if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v1", Out: out}); err != nil {
		t.Fatal(err)
	}
	checkStored(t, p, s.Addr+"/app:v1", m)
	if n := strings.Count(text(), "Pull complete"); n != 100 {
		t.Errorf("%d layers pulled", n)
	}
}

func TestAllTags(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	for _, tag := range []string{"a", "b"} {
		s.Push(t, "app", tag, registrytest.Make(t, registrytest.Image{Layers: [][]byte{registrytest.Tar(t, [2]string{tag, tag})}}))
	}
	p := newPuller(t, nil)
	if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app", AllTags: true}); err != nil {
		t.Fatal(err)
	}
	if l, err := p.Images.List(); err != nil || len(l) != 2 {
		t.Error(l, err)
	}
	if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:a", AllTags: true}); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestBuiltinImageNeedsNoRegistry(t *testing.T) {
	t.Parallel()
	m := testImage(t, false)
	p := newPuller(t, map[string]string{".config/isle/registries.conf": "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n"})
	p.Builtin = Builtin{Name: "docker.io/isle/base:latest", Archive: func() ([]byte, error) {
		return registrytest.Tar(t, layout(t, m, "docker.io/isle/base:latest")...), nil
	}}
	for _, isNew := range []bool{true, false} {
		res, err := p.Pull(t.Context(), Options{Ref: "isle/base"})
		if err != nil || res.ID != m.ID || res.New != isNew {
			t.Errorf("%+v %v", res, err)
		}
	}
	if _, err := p.Pull(t.Context(), Options{Ref: "isle/base:other"}); !errors.Is(err, errs.Denied) {
		t.Errorf("another tag: %v", err)
	}
}

func TestAnswer(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = w
	code := answer(nil, errs.Hint(errs.New(errs.NotFound, "x"), "try y"))
	os.Stdout = old
	_ = w.Close()
	var got struct{ Error *errs.Wire }
	data, err := io.ReadAll(r)
	if err == nil {
		err = json.Unmarshal(data, &got)
	}
	if err != nil || code != 1 || !errors.Is(got.Error.Err(), errs.NotFound) || len(errs.Hints(got.Error.Err())) != 1 {
		t.Errorf("%s %d %v", data, code, err)
	}
}
