package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registrytest"
)

// load writes files below a directory, where home is the user's, and returns
// the settings that they make.
func load(t *testing.T, rootless bool, env map[string]string, files map[string]string) (*Config, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o700); err != nil { //nolint:gosec // credential helpers are run
			t.Fatal(err)
		}
	}
	c, err := loadConfig(config.Env{Home: dir + "/home", Rootless: rootless}, func(k string) string { return strings.ReplaceAll(env[k], "DIR", dir) }, dir)
	if err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func name(t *testing.T, ref string) image.Name {
	t.Helper()
	n, err := image.ParseName(ref)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func client(c *Config) *Client {
	cl := New(c)
	cl.pause = time.Millisecond
	return cl
}

func TestEndpoints(t *testing.T) {
	conf := `
unqualified-search-registries = ["example.com"]
[[registry]]
prefix = "example.com/foo"
location = "internal.example.net/bar"
[[registry.mirror]]
location = "mirror-0.example/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.example/mirrors/foo"
insecure = true
pull-from-mirror = "digest-only"
[[registry]]
location = "lab.example:5000"
insecure = true
[[registry]]
prefix = "evil.example"
blocked = true
[[registry]]
prefix = "*.wild.example"
insecure = true
[[registry]]
prefix = "docker.io/library"
location = "docker.io/library"
[[registry.mirror]]
location = "http://hub.example/library"
`
	c, _ := load(t, false, nil, map[string]string{
		"etc/containers/registries.conf": conf,
		"etc/docker/daemon.json":         `{"registry-mirrors":["https://dm.example/"],"insecure-registries":["ins.example:80","192.0.2.0/24"],"debug":true}`,
		"etc/isle/registries.conf":       "[[registry]]\nlocation = \"lab.example:5000\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"own.example\"\n",
		// Overrides nothing: another prefix.
		"etc/containers/registries.conf.d/a.conf": "[[registry]]\nlocation = \"drop.example\"\ninsecure = true\n",
	})
	cl := client(c)
	for _, tc := range []struct {
		ref  string
		want []string // scheme host repo, "!" for insecure
	}{
		{"plain.example/a/b:1", []string{"https plain.example a/b"}},
		{"example.com/foo/app:1", []string{"https mirror-0.example mirror-for-foo/app", "https internal.example.net bar/app"}},
		{"example.com/foo:1", []string{"https mirror-0.example mirror-for-foo", "https internal.example.net bar"}},
		{"example.com/foobar:1", []string{"https example.com foobar"}},
		{"example.com/foo/app@sha256:" + strings.Repeat("0a", 32), []string{"https mirror-0.example mirror-for-foo/app", "https mirror-1.example mirrors/foo/app !", "https internal.example.net bar/app"}},
		{"lab.example:5000/x", []string{"https own.example x", "https lab.example:5000 x !"}},
		{"lab.example/x", []string{"https lab.example x"}},
		{"a.wild.example/x", []string{"https a.wild.example x !"}},
		{"drop.example/x", []string{"https drop.example x !"}},
		{"ins.example:80/x", []string{"https ins.example:80 x !"}},
		{"192.0.2.7:5000/x", []string{"https 192.0.2.7:5000 x !"}},
		{"127.0.0.1:5000/x", []string{"https 127.0.0.1:5000 x !"}},
		{"localhost:5000/x", []string{"https localhost:5000 x !"}},
		{"[::1]:5000/x", []string{"https [::1]:5000 x !"}},
		{"alpine:3.20", []string{"http hub.example library/alpine !", "https dm.example library/alpine", "https registry-1.docker.io library/alpine"}},
		{"user/app", []string{"https dm.example user/app", "https registry-1.docker.io user/app"}},
	} {
		list, err := cl.endpoints(t.Context(), name(t, tc.ref))
		if err != nil {
			t.Errorf("%s: %v", tc.ref, err)
			continue
		}
		var got []string
		for _, e := range list {
			s := e.scheme + " " + e.host + " " + e.repo
			if e.insecure {
				s += " !"
			}
			got = append(got, s)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.ref, got, tc.want)
		}
	}
	if _, err := cl.endpoints(t.Context(), name(t, "evil.example/x")); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "blocked by") {
		t.Errorf("blocked: %v", err)
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	for file, text := range map[string]string{
		"etc/containers/registries.conf":          "[[registry]\n",
		"etc/docker/daemon.json":                  "{",
		"home/.config/isle/registries.conf":       "[[registry]]\ninsecure = true\n",
		"etc/containers/registries.conf.d/x.conf": "x",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadConfig(config.Env{Home: dir + "/home"}, func(string) string { return "" }, dir)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestUsersFileReplacesTheSystems(t *testing.T) {
	c, _ := load(t, true, nil, map[string]string{
		"etc/containers/registries.conf":          "[[registry]]\nlocation = \"sys.example\"\ninsecure = true\n",
		"home/.config/containers/registries.conf": "[[registry]]\nlocation = \"own.example\"\ninsecure = true\n",
		"home/.config/docker/daemon.json":         `{"registry-mirrors":["http://m.example"]}`,
	})
	if c.isInsecure("sys.example") || !c.isInsecure("own.example") || len(c.hubMirrors) != 1 {
		t.Errorf("%+v", c)
	}
}

// withPassword is a registry behind a proxy that wants basic authentication.
func withPassword(t *testing.T, s *registrytest.Server) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != "alice" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		forward(w, r, s.Addr)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func forward(w http.ResponseWriter, r *http.Request, to string) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+to+r.URL.RequestURI(), r.Body)
	if err != nil {
		w.WriteHeader(500)
		return
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.WriteHeader(502)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func push(t *testing.T, s *registrytest.Server, repo, tag string) *registrytest.Made {
	t.Helper()
	m := registrytest.Make(t, registrytest.Image{Layers: [][]byte{registrytest.Tar(t, [2]string{"f", "x"})}})
	s.Push(t, repo, tag, m)
	return m
}

func TestCredentials(t *testing.T) {
	s := registrytest.Start(t)
	m := push(t, s, "lab/app", "v1")
	addr := withPassword(t, s)
	helper := "#!/bin/sh\nread -r host\n[ \"$1\" = get ] && [ \"$host\" = " + addr + " ] && echo '{\"ServerURL\":\"x\",\"Username\":\"alice\",\"Secret\":\"secret\"}' && exit\necho 'credentials not found in native keychain'; exit 1\n"
	good := `{"auths":{"` + addr + `":{"auth":"` + basic("alice", "secret") + `"}}}`
	path := os.Getenv("PATH")
	for _, c := range []struct {
		name  string
		env   map[string]string
		files map[string]string
		want  string // "": success
	}{
		{"docker", nil, map[string]string{"home/.docker/config.json": good}, ""},
		{"docker, as a URL", nil, map[string]string{"home/.docker/config.json": strings.Replace(good, addr, "https://"+addr+"/v1/", 1)}, ""},
		{"DOCKER_CONFIG", map[string]string{"DOCKER_CONFIG": "DIR/else"}, map[string]string{"else/config.json": good}, ""},
		{"podman", map[string]string{"XDG_RUNTIME_DIR": "DIR/run"}, map[string]string{"run/containers/auth.json": good}, ""},
		{"podman, for a part", nil, map[string]string{"home/.config/containers/auth.json": strings.Replace(good, addr, addr+"/lab", 1)}, ""},
		{"podman, for another part", nil, map[string]string{"home/.config/containers/auth.json": strings.Replace(good, addr, addr+"/other", 1)}, "repository does not exist or may require 'isle login'"},
		{"REGISTRY_AUTH_FILE", map[string]string{"REGISTRY_AUTH_FILE": "DIR/f"}, map[string]string{"f": good, "home/.docker/config.json": "{}"}, ""},
		{"credHelpers", nil, map[string]string{"home/.docker/config.json": `{"credHelpers":{"` + addr + `":"isletest"}}`, "bin/docker-credential-isletest": helper}, ""},
		{"credsStore", nil, map[string]string{"home/.docker/config.json": `{"credsStore":"isletest"}`, "bin/docker-credential-isletest": helper}, ""},
		{"credential-helpers", nil, map[string]string{"etc/containers/registries.conf": `credential-helpers = ["isletest"]`, "bin/docker-credential-isletest": helper}, ""},
		{"none", nil, nil, "pull access denied for " + addr + "/lab/app, repository does not exist or may require 'isle login'"},
		{"wrong", nil, map[string]string{"home/.docker/config.json": strings.Replace(good, basic("alice", "secret"), basic("alice", "wrong"), 1)}, "refuses the credentials of DIR/home/.docker/config.json"},
		{"damaged", nil, map[string]string{"home/.docker/config.json": "{"}, "credentials \"DIR/home/.docker/config.json\""},
		{"no such helper", nil, map[string]string{"home/.docker/config.json": `{"credsStore":"isle-none"}`}, "credentials \"DIR/home/.docker/config.json\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, dir := load(t, false, c.env, c.files)
			t.Setenv("PATH", dir+"/bin:"+path)
			r, err := client(conf).Resolve(t.Context(), name(t, addr+"/lab/app:v1"))
			if c.want == "" {
				if err != nil || r.Digest != m.Digest {
					t.Errorf("%v", err)
				}
				return
			}
			if want := strings.ReplaceAll(c.want, "DIR", dir); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v\nwant %q", err, want)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	s := registrytest.Start(t)
	m := push(t, s, "lab/app", "v1")
	var asked atomic.Int64
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	token := func() string { return fmt.Sprintf("token-%d", asked.Load()) }
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if u, p, ok := r.BasicAuth(); ok && (u != "alice" || p != "secret") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.FormValue("scope") != "repository:lab/app:pull" || r.FormValue("service") != "lab" {
			t.Errorf("token asked for with %s", r.URL.RawQuery)
		}
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, token())
	})
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token() {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+srv.URL+`/token",service="lab",scope="repository:lab/app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		forward(w, r, s.Addr)
	})
	for _, auth := range []string{"", basic("alice", "secret")} {
		files := map[string]string{}
		if auth != "" {
			files["home/.docker/config.json"] = `{"auths":{"` + addr + `":{"auth":"` + auth + `"}}}`
		}
		conf, _ := load(t, false, nil, files)
		r, err := client(conf).Resolve(t.Context(), name(t, addr+"/lab/app:v1"))
		if err != nil {
			t.Fatal(err)
		}
		asked.Add(1) // the token that the client has is no longer good
		b, err := r.Blob(t.Context(), image.Descriptor{Digest: m.Layers[0], Size: int64(len(m.Blobs[m.Layers[0]]))}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(b); err != nil || image.DigestOf(data) != m.Layers[0] {
			t.Errorf("blob with an old token: %v", err)
		}
	}
	conf, dir := load(t, false, nil, map[string]string{"home/.docker/config.json": `{"auths":{"` + addr + `":{"auth":"` + basic("alice", "no") + `"}}}`})
	_, err := client(conf).Resolve(t.Context(), name(t, addr+"/lab/app:v1"))
	if !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "refuses the credentials of "+dir) {
		t.Errorf("wrong password at the token server: %v", err)
	}
}

// certificate makes a CA and a certificate for 127.0.0.1 and "127.0.0.2" style hosts.
func certificate(t *testing.T, dir string) (cert, key, ca string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"registry.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kd, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = dir+"/cert.pem", dir+"/key.pem"
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err := errors.Join(os.WriteFile(cert, []byte(ca), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kd}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key, ca
}

// strict forbids what loopback addresses are allowed, so that the rules for the
// rest of the world can be tried on loopback.
func strict(t *testing.T, cl *Client, n image.Name) []*endpoint {
	t.Helper()
	list, err := cl.endpoints(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.loopback {
			e.insecure, e.loopback = false, false
			if err := cl.connect(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	return list
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, ca := certificate(t, dir)
	s := registrytest.Start(t, "  tls:", "    certificate: "+cert, "    key: "+key)
	ask := func(conf *Config) error {
		cl := client(conf)
		n := name(t, s.Addr+"/lab/app:v1")
		e := strict(t, cl, n)[0]
		_, _, err := cl.manifest(t.Context(), e, "v1", "")
		return cl.explain(e, n, err)
	}
	conf, _ := load(t, false, nil, nil)
	err := ask(conf)
	if !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "certificate signed by unknown authority") || len(errs.Hints(err)) == 0 || !strings.Contains(errs.Hints(err)[0], s.Addr+"/ca.crt") {
		t.Errorf("without the CA: %v %q", err, errs.Hints(err))
	}
	for _, at := range []string{"etc/docker", "etc/containers", "etc/isle", "home/.config/containers", "home/.config/docker"} {
		conf, _ = load(t, false, nil, map[string]string{at + "/certs.d/" + s.Addr + "/ca.crt": ca})
		if err := ask(conf); !errors.Is(err, errs.NotFound) { // an answer: the repository is empty
			t.Errorf("%s: %v", at, err)
		}
	}
	conf, _ = load(t, false, nil, map[string]string{"etc/isle/registries.conf": "[[registry]]\nlocation = \"" + s.Addr + "\"\ninsecure = true\n"})
	if err := ask(conf); !errors.Is(err, errs.NotFound) {
		t.Errorf("insecure: %v", err)
	}
	conf, _ = load(t, false, nil, map[string]string{"etc/docker/certs.d/" + s.Addr + "/ca.crt": "nonsense"})
	if _, err := client(conf).endpoints(t.Context(), name(t, s.Addr+"/x")); !errors.Is(err, errs.Invalid) {
		t.Errorf("damaged CA: %v", err)
	}
}

func TestPlainHTTPOnlyWhereAllowed(t *testing.T) {
	s := registrytest.Start(t)
	conf, dir := load(t, false, nil, nil)
	cl := client(conf)
	n := name(t, s.Addr+"/lab/app:v1")
	e := strict(t, cl, n)[0]
	_, _, err := cl.manifest(t.Context(), e, "v1", "")
	err = cl.explain(e, n, err)
	if !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), s.Addr+": speaks plain HTTP, isle wants HTTPS") ||
		!strings.Contains(strings.Join(errs.Hints(err), ""), dir+"/etc/isle/registries.conf") {
		t.Errorf("%v %q", err, errs.Hints(err))
	}
}

// A name that is trusted for being loopback is not, once it leads elsewhere.
func TestLoopbackTrustEndsAtLoopback(t *testing.T) {
	conf, _ := load(t, false, nil, nil)
	cl := client(conf)
	e := &endpoint{host: "198.51.100.1:5000", repo: "x", scheme: "http", insecure: true, loopback: true}
	if err := cl.connect(e); err != nil {
		t.Fatal(err)
	}
	_, _, err := cl.manifest(t.Context(), e, "v1", "")
	if err = cl.explain(e, name(t, "x/y"), err); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "not a loopback address") {
		t.Errorf("%v", err)
	}
	e = &endpoint{host: "metadata.test", repo: "x", scheme: "http", insecure: true}
	if err := cl.connect(e); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://169.254.169.254/latest", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = e.client.Client.Do(req); err == nil || !strings.Contains(err.Error(), "link-local") { //nolint:bodyclose // there is none
		t.Errorf("link-local: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"https://r.example/v2/", "https://cdn.example/x", ""},
		{"https://r.example/v2/", "http://r.example/x", "plain HTTP"},
		{"http://r.example/v2/", "https://cdn.example/x", ""},
		{"https://r.example/v2/", "ftp://r.example/x", "not an HTTP address"},
		{"https://r.example/v2/", "file:///etc/passwd", "not an HTTP address"},
		{"https://r.example/v2/", "https://127.0.0.1:6443/x", "own address"},
		{"https://r.example/v2/", "https://[::1]/x", "own address"},
		{"https://r.example/v2/", "https://169.254.169.254/x", "own address"},
		{"http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/x", ""},
	} {
		from, err1 := http.NewRequest(http.MethodGet, c.from, nil)
		to, err2 := http.NewRequest(http.MethodGet, c.to, nil)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		err := checkRedirect(to, []*http.Request{from})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: %v, want %q", c.from, c.to, err, c.want)
		}
	}
}

func TestMirrorsAreTriedInOrder(t *testing.T) {
	s := registrytest.Start(t)
	m := push(t, s, "library/alpine", "3.20")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	_ = l.Close() // nobody listens there now
	empty := registrytest.Start(t)
	conf, _ := load(t, false, nil, map[string]string{"etc/docker/daemon.json": fmt.Sprintf(`{"registry-mirrors":["http://%s","http://%s","http://%s"]}`, dead, empty.Addr, s.Addr)})
	r, err := client(conf).Resolve(t.Context(), name(t, "alpine:3.20"))
	if err != nil || r.Digest != m.Digest {
		t.Fatal(err)
	}
	// What only an earlier answer knows is said, and so is who is out of reach.
	conf, _ = load(t, false, nil, map[string]string{"etc/containers/registries.conf": fmt.Sprintf(
		"[[registry]]\nprefix = \"docker.io\"\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", dead, empty.Addr)})
	_, err = client(conf).Resolve(t.Context(), name(t, "alpine:3.20"))
	if !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "alpine:3.20: not on mirror "+empty.Addr+", and registry "+dead) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
}

func TestStalledServerIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush() // or it ends here already
		<-release
	}))
	defer srv.Close()
	defer close(release)
	conf, _ := load(t, false, nil, nil)
	cl := client(conf)
	cl.stall = 50 * time.Millisecond
	addr := strings.TrimPrefix(srv.URL, "http://")
	list, err := cl.endpoints(t.Context(), name(t, addr+"/x"))
	if err != nil {
		t.Fatal(err)
	}
	r := &Remote{Name: name(t, addr+"/x"), c: cl, at: list}
	b, err := r.Blob(t.Context(), image.Descriptor{Digest: "sha256:" + strings.Repeat("0", 64), Size: 100}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(b); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no data for 50ms") {
		t.Errorf("%v", err)
	}
}

func TestCancel(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer srv.Close()
	conf, _ := load(t, false, nil, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := client(conf).Resolve(ctx, name(t, strings.TrimPrefix(srv.URL, "http://")+"/x"))
	if err == nil || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\n\x1b[31mb\t\u202ec\u2028" + strings.Repeat("é", 300)); strings.ContainsAny(got, "\n\x1b\t\u2028") || len(got) > 210 {
		t.Errorf("%q", got)
	}
}

func TestLogin(t *testing.T) {
	s := registrytest.Start(t)
	m := push(t, s, "lab/app", "v1")
	addr := withPassword(t, s)
	conf, dir := load(t, false, nil, map[string]string{"home/.docker/config.json": `{"psFormat":"x","auths":{"other.example":{"auth":"YTpi"}}}`})
	cl := client(conf)
	if _, err := cl.Login(t.Context(), addr, "alice", "wrong"); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "incorrect username or password") {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := cl.Login(t.Context(), "a/b", "alice", "secret"); !errors.Is(err, errs.Invalid) {
		t.Errorf("no host: %v", err)
	}
	kept, err := cl.Login(t.Context(), "http://"+addr, "alice", "secret")
	if err != nil || kept != (Kept{addr, "alice", dir + "/home/.docker/config.json", true}) {
		t.Fatal(kept, err)
	}
	fi, err := os.Stat(kept.File)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if data, err := os.ReadFile(kept.File); err != nil || !strings.Contains(string(data), "psFormat") || !strings.Contains(string(data), "other.example") {
		t.Errorf("%s %v", data, err)
	}
	if r, err := client(conf).Resolve(t.Context(), name(t, addr+"/lab/app:v1")); err != nil || r.Digest != m.Digest {
		t.Error(err)
	}
	_, done, err := cl.Logout(t.Context(), addr)
	if err != nil || len(done) != 1 {
		t.Errorf("%v %v", done, err)
	}
	if _, err := client(conf).Resolve(t.Context(), name(t, addr+"/lab/app:v1")); !errors.Is(err, errs.Denied) {
		t.Errorf("after logout: %v", err)
	}
	if _, done, err = cl.Logout(t.Context(), addr); err != nil || len(done) != 0 {
		t.Errorf("%v %v", done, err)
	}
}
