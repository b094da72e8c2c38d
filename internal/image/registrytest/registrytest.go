// Package registrytest gives tests a real registry on loopback, and images to
// put into it.
package registrytest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/testenv"
)

// Server is a registry that runs until the end of the test.
type Server struct {
	Addr string // host:port
	Dir  string // its storage
}

// Start starts Debian's docker-registry on a free port, with further lines of
// its configuration.
func Start(t testing.TB, more ...string) *Server {
	t.Helper()
	testenv.Need(t, testenv.Registry)
	dir := t.TempDir()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close() // only its number was wanted
	conf := fmt.Sprintf("version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n%s\n",
		dir, addr, strings.Join(more, "\n"))
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "docker-registry", "serve", path)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // by its own handle; it may have ended itself
		_ = cmd.Wait()         // killed
	})
	for range 200 {
		if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr); err == nil {
			_ = c.Close() // only tried
			return &Server{addr, dir}
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("docker-registry does not listen on %s: %s", addr, log.String())
	return nil
}

// Image is an image to be made.
type Image struct {
	Layers   [][]byte // uncompressed archives
	Zstd     bool     // how they are compressed; else gzip
	Docker   bool     // Docker's media types; else OCI's
	Platform image.Platform
	Config   map[string]any // the inner config
}

// Made are the blobs of an image.
type Made struct {
	Manifest []byte
	Type     string
	Digest   string // of Manifest
	ID       string
	DiffIDs  []string
	Blobs    map[string][]byte // layers and configuration by digest
	Layers   []string          // digests of the compressed layers
	Platform image.Platform
}

// Make makes the blobs of an image.
func Make(t testing.TB, img Image) *Made {
	t.Helper()
	if img.Platform.OS == "" {
		img.Platform = image.HostPlatform()
	}
	m := &Made{Blobs: map[string][]byte{}, Platform: img.Platform, Type: image.TypeOCIManifest}
	man := image.Manifest{SchemaVersion: 2, Layers: []image.Descriptor{}}
	layerType, configType := image.TypeOCILayerGzip, image.TypeOCIConfig
	switch {
	case img.Docker:
		m.Type, layerType, configType = image.TypeDockerManifest, image.TypeDockerLayer, image.TypeDockerConfig
	case img.Zstd:
		layerType = image.TypeOCILayerZstd
	}
	man.MediaType = m.Type
	for _, l := range img.Layers {
		data := Gzip(t, l)
		if img.Zstd {
			data = Zstd(t, l)
		}
		d := image.DigestOf(data)
		m.Blobs[d] = data
		m.Layers = append(m.Layers, d)
		m.DiffIDs = append(m.DiffIDs, image.DigestOf(l))
		man.Layers = append(man.Layers, image.Descriptor{MediaType: layerType, Digest: d, Size: int64(len(data))})
	}
	conf, err := json.Marshal(map[string]any{
		"os": img.Platform.OS, "architecture": img.Platform.Arch, "variant": img.Platform.Variant, "created": "2024-05-06T07:08:09Z",
		"config": img.Config, "rootfs": map[string]any{"type": "layers", "diff_ids": m.DiffIDs},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.ID = image.DigestOf(conf)
	m.Blobs[m.ID] = conf
	man.Config = image.Descriptor{MediaType: configType, Digest: m.ID, Size: int64(len(conf))}
	if m.Manifest, err = json.Marshal(man); err != nil {
		t.Fatal(err)
	}
	m.Digest = image.DigestOf(m.Manifest)
	return m
}

// Index makes an index of images.
func Index(t testing.TB, images ...*Made) []byte {
	t.Helper()
	ix := image.Index{SchemaVersion: 2, MediaType: image.TypeOCIIndex}
	for _, m := range images {
		ix.Manifests = append(ix.Manifests, image.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: int64(len(m.Manifest)), Platform: &m.Platform})
	}
	data, err := json.Marshal(ix)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Push stores an image; ref is a tag or "" for its digest alone.
func (s *Server) Push(t testing.TB, repo, ref string, m *Made) {
	t.Helper()
	for d, data := range m.Blobs {
		s.PushBlob(t, repo, d, data)
	}
	if ref == "" {
		ref = m.Digest
	}
	s.PushManifest(t, repo, ref, m.Type, m.Manifest)
}

// PushBlob stores a blob.
func (s *Server) PushBlob(t testing.TB, repo, digest string, data []byte) {
	t.Helper()
	base := "http://" + s.Addr
	resp := request(t, http.MethodPost, base+"/v2/"+repo+"/blobs/uploads/", "", nil)
	at := resp.Header.Get("Location")
	if strings.HasPrefix(at, "/") {
		at = base + at
	}
	sep := "?"
	if strings.Contains(at, "?") {
		sep = "&"
	}
	request(t, http.MethodPut, at+sep+"digest="+digest, "application/octet-stream", data)
}

// PushManifest stores a manifest or index.
func (s *Server) PushManifest(t testing.TB, repo, ref, mediaType string, data []byte) {
	t.Helper()
	request(t, http.MethodPut, "http://"+s.Addr+"/v2/"+repo+"/manifests/"+ref, mediaType, data)
}

func request(t testing.TB, method, url, mediaType string, data []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s: %s", method, url, resp.Status, body)
	}
	return resp
}

// Tar makes an archive of files: names that end in "/" are directories, and a
// content that begins with "->" is a symbolic link.
func Tar(t testing.TB, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f[0], Mode: 0o755, Size: int64(len(f[1])), Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0)}
		if strings.HasSuffix(f[0], "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if to, ok := strings.CutPrefix(f[1], "->"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, f[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Gzip compresses data.
func Gzip(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Zstd compresses data.
func Zstd(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
