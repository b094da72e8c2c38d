package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
)

// Registry is a running docker-registry.
type Registry struct {
	Addr string // host:port
	Dir  string // its storage
	cmd  *exec.Cmd
	log  string
	auth bool
}

// The account of a registry that asks for one.
const (
	RegistryUser     = "ann"
	RegistryPassword = "open-sesame"
	// bcrypt of the password, with the least cost.
	htpasswd = RegistryUser + ":$2b$04$aAAIA9OUhmTO8S.x4ATLi.jXykkGl8X3qH0w4/Z.RfgRyh0ja1LyK\n"
)

// StartRegistry starts docker-registry on a free loopback port with its storage
// below dir. With auth it wants RegistryUser and RegistryPassword.
func StartRegistry(dir string, auth bool) (*Registry, error) {
	exe, err := testenv.LookTool("docker-registry")
	if err != nil {
		return nil, err
	}
	// The port is free now; nothing else on this machine picks it in the moment
	// until the registry listens, and if so, ready() says it.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{Addr: l.Addr().String(), Dir: filepath.Join(dir, "store"), log: filepath.Join(dir, "log"), auth: auth}
	if err := l.Close(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return nil, err
	}
	config := "version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: " + strconv.Quote(r.Dir) + "}, delete: {enabled: true}}\n" +
		"http: {addr: " + r.Addr + ", secret: s}\n"
	if auth {
		pw := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(pw, []byte(htpasswd), 0o600); err != nil {
			return nil, err
		}
		config += "auth: {htpasswd: {realm: test, path: " + strconv.Quote(pw) + "}}\n"
	}
	name := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(r.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd = exec.Command(exe, "serve", name)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := r.ready(10 * time.Second); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

func (r *Registry) ready(patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + r.Addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized {
				return nil
			}
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(r.log)
			return fmt.Errorf("docker-registry on %s does not answer: %w: %s", r.Addr, err, said)
		}
	}
}

// Stop ends the registry. Its storage stays.
func (r *Registry) Stop() {
	_ = r.cmd.Process.Kill() // it may have ended by itself
	_ = r.cmd.Wait()         // killed: not a success
}

// Push uploads the image and returns its manifest's digest.
func (r *Registry) Push(m *Image) (string, error) {
	config, err := json.Marshal(m.config())
	if err != nil {
		return "", err
	}
	digest := sum(config)
	if err := r.blob(m.Repo, digest, int64(len(config)), bytes.NewReader(config)); err != nil {
		return "", err
	}
	layers := make([]any, len(m.Layers))
	for i, l := range m.Layers {
		layers[i] = map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": l.Digest, "size": l.Size}
		f, err := os.Open(l.Path)
		if err != nil {
			return "", err
		}
		err = r.blob(m.Repo, l.Digest, l.Size, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaType, "layers": layers,
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)},
	})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequest(http.MethodPut, "http://"+r.Addr+"/v2/"+m.Repo+"/manifests/"+m.Tag, bytes.NewReader(manifest))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", mediaType)
	if _, err := r.do(req, http.StatusCreated); err != nil {
		return "", fmt.Errorf("push %s:%s: %w", m.Repo, m.Tag, err)
	}
	return sum(manifest), nil
}

// BlobFile is where the registry keeps a blob's bytes, for tests that damage it.
func (r *Registry) BlobFile(digest string) string {
	hash := strings.TrimPrefix(digest, "sha256:")
	return filepath.Join(r.Dir, "docker/registry/v2/blobs/sha256", hash[:2], hash, "data")
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// blob uploads in one piece, as the distribution specification has it: POST for
// a place, PUT there.
func (r *Registry) blob(repo, digest string, size int64, body io.Reader) error {
	base := "http://" + r.Addr + "/v2/" + repo + "/blobs/"
	head, err := http.NewRequest(http.MethodHead, base+digest, http.NoBody)
	if err != nil {
		return err
	}
	if _, err := r.do(head, http.StatusOK); err == nil {
		return nil // there already, as layers that images share are
	}
	post, err := http.NewRequest(http.MethodPost, base+"uploads/", http.NoBody)
	if err != nil {
		return err
	}
	header, err := r.do(post, http.StatusAccepted)
	if err != nil {
		return fmt.Errorf("upload to %s: %w", repo, err)
	}
	where, err := post.URL.Parse(header.Get("Location"))
	if err != nil {
		return err
	}
	where.RawQuery = where.Query().Encode() + "&digest=" + url.QueryEscape(digest)
	put, err := http.NewRequest(http.MethodPut, where.String(), io.NopCloser(body))
	if err != nil {
		return err
	}
	put.ContentLength = size
	put.Header.Set("Content-Type", "application/octet-stream")
	if _, err := r.do(put, http.StatusCreated); err != nil {
		return fmt.Errorf("upload %s to %s: %w", digest, repo, err)
	}
	return nil
}

func (r *Registry) do(req *http.Request, want int) (http.Header, error) {
	if r.auth {
		req.SetBasicAuth(RegistryUser, RegistryPassword)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", req.Method, req.URL, resp.Status, bytes.TrimSpace(said))
	}
	return resp.Header, nil
}
