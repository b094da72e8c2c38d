package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registrytest"
)

// proxy passes requests on to a registry; first may answer them itself and then
// returns true. What it records is the methods and paths without digests.
type proxy struct {
	addr string
	mu   sync.Mutex
	seen []string
}

func newProxy(t *testing.T, s *registrytest.Server, first func(w http.ResponseWriter, r *http.Request, next http.Handler) bool) *proxy {
	t.Helper()
	to, err := url.Parse("http://" + s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	next := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }}
	p := new(proxy)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method)
		p.mu.Unlock()
		if first == nil || !first(w, r, next) {
			next.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	p.addr = strings.TrimPrefix(srv.URL, "http://")
	return p
}

func (p *proxy) count(method string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.seen {
		if m == method {
			n++
		}
	}
	return n
}

// buffered takes a whole request body before it passes the request on, as most
// proxies before registries do: a part that breaks off never gets there.
func buffered(w http.ResponseWriter, r *http.Request, next http.Handler) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	next.ServeHTTP(w, r)
}

// content is a blob with its descriptor.
func content(n int) ([]byte, image.Descriptor) {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7 / 11)
	}
	return data, image.Descriptor{Digest: image.DigestOf(data), Size: int64(n)}
}

func source(data []byte) Source {
	return func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[offset:])), nil }
}

func target(t *testing.T, addr string) *Target {
	t.Helper()
	conf, _ := load(t, false, nil, nil)
	cl := client(conf)
	cl.chunk = 1000
	to, err := cl.Target(t.Context(), name(t, addr+"/lab/app:v1"))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestUpload(t *testing.T) {
	s := registrytest.Start(t)
	for _, n := range []int{0, 1, 999, 1000, 1001, 5000} {
		to := target(t, s.Addr)
		data, d := content(n)
		var last int64
		if err := to.Upload(t.Context(), d, source(data), func(n int64) { last = n }); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if has, err := to.Has(t.Context(), d.Digest); err != nil || !has || last != int64(n) {
			t.Errorf("%d bytes: there %v, told %d, %v", n, has, last, err)
		}
	}
	to := target(t, s.Addr)
	data, d := content(3000)
	d.Digest = image.DigestOf([]byte("other"))
	if err := to.Upload(t.Context(), d, source(data), func(int64) {}); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("wrong digest: %v", err)
	}
	if has, err := to.Has(t.Context(), d.Digest); err != nil || has {
		t.Errorf("%v %v", has, err)
	}
}

// memorySessions keeps sessions for another Target.
type memorySessions struct {
	mu sync.Mutex
	m  map[string]string
}

func (s *memorySessions) Session(key string) (string, func(string), func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key], func(v string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.m[key] = v
	}, func() {}
}

func TestUploadGoesOnAfterABreak(t *testing.T) {
	s := registrytest.Start(t)
	data, d := content(9500)
	patches := 0
	p := newProxy(t, s, func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		if patches++; patches%3 == 0 {
			_, _ = io.CopyN(io.Discard, r.Body, 10) // some of it, then the connection breaks
			panic(http.ErrAbortHandler)
		}
		buffered(w, r, next)
		return true
	})
	to := target(t, p.addr)
	if err := to.Upload(t.Context(), d, source(data), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	// Nine full parts, each third request lost, and nothing sent twice.
	if n := p.count(http.MethodPatch); n != 14 && n != 15 {
		t.Errorf("%d parts for 10", n)
	}
	if has, err := to.Has(t.Context(), d.Digest); err != nil || !has {
		t.Error(has, err)
	}
}

// The registry itself, without a proxy that buffers, gives up an upload whose
// part broke off: it is begun again.
func TestUploadBeginsAgainWhereTheRegistryForgot(t *testing.T) {
	s := registrytest.Start(t)
	data, d := content(5500)
	broken := false
	p := newProxy(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method == http.MethodGet && broken && strings.Contains(r.URL.Path, "/uploads/") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`)
			return true
		}
		if r.Method == http.MethodPatch && !broken && strings.HasPrefix(r.Header.Get("Content-Range"), "3000-") {
			broken = true
			panic(http.ErrAbortHandler)
		}
		return false
	})
	if err := target(t, p.addr).Upload(t.Context(), d, source(data), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if n := p.count(http.MethodPost); n != 2 {
		t.Errorf("%d uploads begun", n)
	}
}

func TestUploadGoesOnInAnotherProcess(t *testing.T) {
	s := registrytest.Start(t)
	data, d := content(9500)
	ctx, cancel := context.WithCancel(t.Context())
	p := newProxy(t, s, func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		if strings.HasPrefix(r.Header.Get("Content-Range"), "6000-") && ctx.Err() == nil {
			cancel() // the client dies
			panic(http.ErrAbortHandler)
		}
		buffered(w, r, next)
		return true
	})
	kept := &memorySessions{m: map[string]string{}}
	to := target(t, p.addr)
	to.Sessions = kept
	if err := to.Upload(ctx, d, source(data), func(int64) {}); !errors.Is(err, errs.Canceled) {
		t.Fatal(err)
	}
	before := p.count(http.MethodPatch)
	to = target(t, p.addr)
	to.Sessions = kept
	var first int64 = -1
	err := to.Upload(t.Context(), d, source(data), func(n int64) {
		if first < 0 {
			first = n
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.count(http.MethodPatch) - before; first != 6000 || n != 4 {
		t.Errorf("went on from %d with %d parts", first, n)
	}
	if has, err := to.Has(t.Context(), d.Digest); err != nil || !has {
		t.Error(has, err)
	}
}

// A registry that knows no parts gets the blob in one piece.
func TestUploadInOnePiece(t *testing.T) {
	s := registrytest.Start(t)
	data, d := content(5500)
	p := newProxy(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method == http.MethodPatch {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return true
		}
		return false
	})
	if err := target(t, p.addr).Upload(t.Context(), d, source(data), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if n := p.count(http.MethodPatch); n != 1 {
		t.Errorf("%d parts", n)
	}
}

func TestMount(t *testing.T) {
	s := registrytest.Start(t)
	m := push(t, s, "other/app", "v1")
	to := target(t, s.Addr)
	if ok, err := to.Mount(t.Context(), m.Layers[0], "other/app"); err != nil || !ok {
		t.Errorf("%v %v", ok, err)
	}
	if has, err := to.Has(t.Context(), m.Layers[0]); err != nil || !has {
		t.Errorf("%v %v", has, err)
	}
	if ok, err := to.Mount(t.Context(), m.ID, "no/such"); err != nil || ok {
		t.Errorf("from nowhere: %v %v", ok, err)
	}
}

func TestPushErrors(t *testing.T) {
	s := registrytest.Start(t)
	addr := withPassword(t, s)
	data, d := content(10)
	try := func(files map[string]string, addr string) error {
		conf, _ := load(t, false, nil, files)
		to, err := client(conf).Target(t.Context(), name(t, addr+"/lab/app:v1"))
		if err != nil {
			return err
		}
		return to.Upload(t.Context(), d, source(data), func(int64) {})
	}
	err := try(nil, addr)
	if !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "push access denied for "+addr+"/lab/app") || !strings.Contains(strings.Join(errs.Hints(err), ""), "isle login "+addr) {
		t.Errorf("no credentials: %v %q", err, errs.Hints(err))
	}
	auth := func(password string) map[string]string {
		return map[string]string{"home/.docker/config.json": `{"auths":{"` + addr + `":{"auth":"` + basic("alice", password) + `"}}}`}
	}
	if err = try(auth("wrong"), addr); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "refuses the credentials of") {
		t.Errorf("wrong credentials: %v", err)
	}
	if err = try(auth("secret"), addr); err != nil {
		t.Errorf("right credentials: %v", err)
	}
	if err = try(nil, "127.0.0.1:1"); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "\n") {
		t.Errorf("nobody there: %v", err)
	}
	full := newProxy(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method != http.MethodPut {
			return false
		}
		w.WriteHeader(http.StatusInsufficientStorage)
		return true
	})
	if err = try(nil, full.addr); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "507") {
		t.Errorf("full: %v", err)
	}
}

// Another host that an upload is sent to gets no credentials.
func TestUploadLeadsAwayWithoutCredentials(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s: credentials for another host", r.Method)
		}
		_, _ = io.Copy(io.Discard, r.Body) // nothing is kept
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(other.Close)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Location", other.URL+"/up?x=y")
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(srv.Close)
	addr := strings.TrimPrefix(srv.URL, "http://")
	conf, _ := load(t, false, nil, map[string]string{"home/.docker/config.json": `{"auths":{"` + addr + `":{"auth":"` + basic("alice", "secret") + `"}}}`})
	to, err := client(conf).Target(t.Context(), name(t, addr+"/lab/app:v1"))
	if err != nil {
		t.Fatal(err)
	}
	data, d := content(10)
	if err := to.Upload(t.Context(), d, source(data), func(int64) {}); err != nil {
		t.Error(err)
	}
}

func TestSearch(t *testing.T) {
	index := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/search" || r.URL.Query().Get("q") != "ng inx" || r.URL.Query().Get("n") != "2" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, `{"num_results":3,"results":[{"name":"nginx","description":"Web\nserver","star_count":7,"is_official":true},{"name":"a/b"},{"name":"c"}]}`)
	}))
	t.Cleanup(index.Close)
	s := registrytest.Start(t)
	push(t, s, "lab/nginx", "v1")
	push(t, s, "lab/other", "v1")
	hub := map[string]string{"etc/docker/daemon.json": fmt.Sprintf(`{"registry-mirrors":[%q]}`, index.URL)}
	for _, c := range []struct {
		files map[string]string
		term  string
		want  string
		kind  errs.Kind
	}{
		{hub, "ng inx", "[{nginx Web\nserver 7 true false} {a/b  0 false false}]", 0},
		{nil, s.Addr + "/nginx", "[{lab/nginx  0 false false}]", 0}, // by the catalog
		{nil, s.Addr + "/nothing", "[]", 0},
		{nil, "127.0.0.1:1/x", "", errs.Unavailable},
		{nil, "a.example/", "", errs.Invalid},
	} {
		conf, _ := load(t, false, nil, c.files)
		found, err := client(conf).Search(t.Context(), c.term, 2)
		if c.kind != 0 {
			if !errors.Is(err, c.kind) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", c.term, err)
			}
			continue
		}
		if got := fmt.Sprint(found); err != nil || got != c.want {
			t.Errorf("%s: %s %v", c.term, got, err)
		}
	}
}

func TestFetch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/x.tar":
			_, _ = io.WriteString(w, "content")
		case "/away":
			http.Redirect(w, r, "ftp://x/y", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	conf, _ := load(t, false, nil, nil)
	cl := client(conf)
	body, err := cl.Fetch(t.Context(), srv.URL+"/x.tar")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if data, err := io.ReadAll(body); err != nil || string(data) != "content" {
		t.Errorf("%q %v", data, err)
	}
	for at, kind := range map[string]errs.Kind{srv.URL + "/no": errs.NotFound, srv.URL + "/away": errs.Denied, "ftp://x/y": errs.Invalid, "http://127.0.0.1:1/x": errs.Unavailable, "http:///x": errs.Invalid} {
		if _, err := cl.Fetch(t.Context(), at); !errors.Is(err, kind) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// A credential helper keeps the credential, and the file has none.
func TestLoginWithHelper(t *testing.T) {
	s := registrytest.Start(t)
	addr := withPassword(t, s)
	conf, dir := load(t, false, nil, map[string]string{
		"home/.docker/config.json":  `{"credsStore":"lab"}`,
		"bin/docker-credential-lab": "#!/bin/sh\ncase $1 in\nstore) cat >DIR/kept ;;\nget) if [ -s DIR/kept ]; then cat DIR/kept; else echo 'credentials not found in native keychain'; exit 1; fi ;;\nerase) rm -f DIR/kept ;;\nesac\n",
	})
	t.Setenv("PATH", dir+"/bin:"+os.Getenv("PATH"))
	cl := client(conf)
	kept, err := cl.Login(t.Context(), addr, "alice", "secret")
	if err != nil || kept.Plain {
		t.Fatal(kept, err)
	}
	if data, err := os.ReadFile(kept.File); err != nil || strings.Contains(string(data), "secret") || strings.Contains(string(data), basic("alice", "secret")) {
		t.Errorf("%s %v", data, err)
	}
	data, d := content(10)
	to, err := client(conf).Target(t.Context(), name(t, addr+"/lab/app:v1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Upload(t.Context(), d, source(data), func(int64) {}); err != nil {
		t.Error(err)
	}
	if again, err := client(conf).LoginAgain(t.Context(), addr); err != nil || again.User != "alice" {
		t.Error(again, err)
	}
	if _, done, err := cl.Logout(t.Context(), addr); err != nil || len(done) != 1 {
		t.Error(done, err)
	}
	if _, err := client(conf).LoginAgain(t.Context(), addr); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
}
