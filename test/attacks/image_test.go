package attacks

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
)

// entry is one member of a layer, written as it is: no name is cleaned.
type entry struct {
	tar.Header
	data string
}

func dir(name string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}

func file(name, data string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}, data: data}
}

func link(name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}}
}

func hard(name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to, Mode: 0o644}}
}

// layer writes a tar archive.
func layer(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size, h.ModTime = int64(len(e.data)), time.Unix(1_600_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// baseLayer writes the layer that the images stand on: busybox, hard-linked so
// that a single program can be replaced, and probe.
func baseLayer(t *testing.T, to string) string {
	t.Helper()
	busybox, err := testenv.StaticBusybox()
	if err != nil {
		t.Fatal(err)
	}
	shell, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	probe, err := os.ReadFile(probeBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	entries := []entry{
		dir("bin/"), dir("etc/"), dir("proc/"), dir("sys/"), dir("dev/"), dir("tmp/"), dir("root/"), dir("var/"),
		file("bin/busybox", string(shell)), file("probe", string(probe)),
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
		file("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
	}
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			entries = append(entries, hard("bin/"+name, "bin/busybox"))
		}
	}
	p := filepath.Join(to, "base.tar")
	if err := os.WriteFile(p, layer(t, entries...), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// varProbe hands the built probe to copies of the tests.
const varProbe = "ISLE_ATTACK_PROBE"

func probeBinary(t *testing.T) string {
	t.Helper()
	p := os.Getenv(varProbe)
	if p == "" {
		t.Fatal("the probe was not built")
	}
	return p
}

// image is a hostile image: layers on top of the base, and what its
// configuration says.
type image struct {
	name   string
	layers [][]byte
	config map[string]any // of "config"
	diffID string         // in place of the last layer's own
	raw    []byte         // the configuration as it is, in place of one made here
}

// load has the engine load an image; it reports what the engine said.
func (a *attempt) load(m image) result {
	a.t.Helper()
	base, err := os.ReadFile(a.base)
	if err != nil {
		a.t.Fatal(err)
	}
	layers := append([][]byte{base}, m.layers...)
	ids := make([]string, len(layers))
	for i, l := range layers {
		ids[i] = digest(l)
	}
	if m.diffID != "" {
		ids[len(ids)-1] = m.diffID
	}
	config := m.raw
	if config == nil {
		cfg := map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sh"}}
		maps.Copy(cfg, m.config)
		config = marshal(a.t, map[string]any{
			"architecture": runtime.GOARCH, "os": "linux", "config": cfg,
			"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
		})
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			a.t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			a.t.Fatal(err)
		}
	}
	names := make([]string, len(layers))
	for i, l := range layers {
		names[i] = strings.TrimPrefix(ids[i], "sha256:")[:12] + "/layer.tar"
		add(names[i], l)
	}
	configName := strings.TrimPrefix(digest(config), "sha256:") + ".json"
	add(configName, config)
	add("manifest.json", marshal(a.t, []any{map[string]any{"Config": configName, "RepoTags": []string{m.name + ":latest"}, "Layers": names}}))
	if err := w.Close(); err != nil {
		a.t.Fatal(err)
	}
	return a.input(&b, "load")
}

// mustLoad loads an image that any engine takes.
func (a *attempt) mustLoad(m image) string {
	a.t.Helper()
	if r := a.load(m); r.code != 0 {
		a.t.Fatalf("load %s: %s", m.name, r)
	}
	return m.name
}

// plain loads the image without anything hostile in it.
func (a *attempt) plain() string {
	a.t.Helper()
	return a.mustLoad(image{name: "plain"})
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
