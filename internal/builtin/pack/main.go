// Command pack lays out one static binary of many commands as an image: an OCI
// image layout in a tar archive, with Docker's manifest.json beside index.json,
// so that isle load, docker load, podman load and skopeo all read it.
//
// Usage: pack -arch ARCH -bin BINARY -out ARCHIVE COMMAND...
//
// All times are zero and all orders fixed: the same binary gives the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func main() {
	arch := flag.String("arch", "", "architecture of the binary, as Go names it")
	bin := flag.String("bin", "", "the binary of all commands")
	out := flag.String("out", "", "archive to write")
	flag.Parse()
	if err := pack(*arch, *bin, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(arch, bin, out string, commands []string) error {
	exe, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	if arch == "" || out == "" || len(commands) == 0 {
		return errors.New("needs -arch, -out and the commands' names")
	}
	layer, err := layerTar(exe, commands)
	if err != nil {
		return err
	}
	zipped, err := compress(layer)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": arch,
		"os":           "linux",
		"created":      "1970-01-01T00:00:00Z",
		"author":       "isle",
		"config": map[string]any{
			"Env":    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			"Cmd":    []string{"/bin/sh"},
			"Labels": map[string]string{"org.opencontainers.image.title": "isle's built-in image", "org.opencontainers.image.licenses": "BSD-3-Clause"},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hash(layer)}},
		"history": []any{map[string]any{"created": "1970-01-01T00:00:00Z", "created_by": "isle: internal/builtin/pack"}},
	})
	if err != nil {
		return err
	}
	const (
		typeManifest = "application/vnd.oci.image.manifest.v1+json"
		typeConfig   = "application/vnd.oci.image.config.v1+json"
		typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest,
		"config": descriptor(typeConfig, config), "layers": []any{descriptor(typeLayer, zipped)},
	})
	if err != nil {
		return err
	}
	top := descriptor(typeManifest, manifest)
	top["platform"] = map[string]string{"architecture": arch, "os": "linux"}
	top["annotations"] = map[string]string{
		"io.containerd.image.name":          "docker.io/isle/base:latest",
		"org.opencontainers.image.ref.name": "docker.io/isle/base:latest",
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{top}})
	if err != nil {
		return err
	}
	legacy, err := json.Marshal([]any{map[string]any{
		"Config": blob(config), "RepoTags": []string{"isle/base:latest"}, "Layers": []string{blob(zipped)},
	}})
	if err != nil {
		return err
	}

	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []entry{
		{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", data: index},
		{name: "manifest.json", data: legacy},
		{name: blob(manifest), data: manifest},
		{name: blob(config), data: config},
		{name: blob(zipped), data: zipped},
	} {
		e.mode = 0o644
		if err := e.write(w); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	// By rename: an interrupted build leaves no half of an archive to embed.
	tmp := out + ".tmp"
	if err := os.WriteFile(tmp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, out)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func blob(b []byte) string { return "blobs/sha256/" + hash(b) }

func descriptor(mediaType string, b []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": "sha256:" + hash(b), "size": len(b)}
}

func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = z.Write(b)
	err = errors.Join(err, z.Close()) // before Bytes: Close writes the end
	return out.Bytes(), err
}

// entry is one file of a tar archive; a name that ends in / is a directory.
type entry struct {
	name string
	mode int64
	link string // target of a hard link
	data []byte
}

func (e entry) write(w *tar.Writer) error {
	h := &tar.Header{Name: e.name, Mode: e.mode, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
	switch {
	case e.link != "":
		h.Typeflag, h.Linkname = tar.TypeLink, e.link
	case e.name[len(e.name)-1] == '/':
		h.Typeflag = tar.TypeDir
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(e.data)
	return err
}

// layerTar is the root file system. The commands are hard links: a symbolic one
// would make masking one program mask them all.
func layerTar(exe []byte, commands []string) ([]byte, error) {
	files := []entry{
		{name: "bin/", mode: 0o755},
		{name: "bin/bb", mode: 0o755, data: exe},
		{name: "dev/", mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\nbin:x:1:\ntty:x:5:\nnogroup:x:65534:\n")},
		{name: "etc/os-release", mode: 0o644, data: []byte("NAME=\"isle base\"\nID=isle\nPRETTY_NAME=\"isle's built-in image\"\n")},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:bin:/bin:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{name: "home/", mode: 0o755},
		{name: "mnt/", mode: 0o755},
		{name: "proc/", mode: 0o555},
		{name: "root/", mode: 0o700},
		{name: "run/", mode: 0o755},
		{name: "sys/", mode: 0o555},
		{name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: "usr/local/", mode: 0o755},
		{name: "usr/local/bin/", mode: 0o755},
		{name: "var/", mode: 0o755},
		{name: "var/log/", mode: 0o755},
		{name: "var/tmp/", mode: 0o1777},
	}
	links := make([]entry, 0, len(commands))
	names := slices.Clone(commands)
	slices.Sort(names)
	for _, c := range slices.Compact(names) {
		links = append(links, entry{name: "bin/" + filepath.Base(c), mode: 0o755, link: "bin/bb"})
	}
	files = slices.Insert(files, 2, links...)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range files {
		if err := e.write(w); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
