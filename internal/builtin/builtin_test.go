package builtin

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/errs"
)

// TestArchive reads the image as a stranger would: each blob is what its name
// says, the configuration names the layer, and the layer has the commands that
// README.md promises.
func TestArchive(t *testing.T) {
	b, err := Archive()
	if errors.Is(err, errs.NotFound) {
		if len(errs.Hints(err)) == 0 {
			t.Error("no hint how to get the image")
		}
		return // a tree without make; the end-to-end tests need make and use the image
	}
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = content
		if sum, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && h.Typeflag == tar.TypeReg {
			if got := sha256.Sum256(content); hex.EncodeToString(got[:]) != sum {
				t.Errorf("%s: content is sha256:%x", h.Name, got)
			}
		}
	}
	var manifests []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifests); err != nil {
		t.Fatal(err)
	}
	if len(manifests) != 1 || len(manifests[0].Layers) != 1 || manifests[0].RepoTags[0] != "isle/base:latest" {
		t.Fatalf("manifest.json: %s", files["manifest.json"])
	}
	z, err := gzip.NewReader(bytes.NewReader(files[manifests[0].Layers[0]]))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	in := map[string]bool{}
	r := tar.NewReader(io.TeeReader(z, sum))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		in[h.Name] = true
	}
	if _, err := io.Copy(sum, z); err != nil {
		t.Fatal(err)
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(files[manifests[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if want := "sha256:" + hex.EncodeToString(sum.Sum(nil)); len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0] != want {
		t.Errorf("diff ids %q, the layer is %s", config.RootFS.DiffIDs, want)
	}
	for cmd := range strings.FieldsSeq("sh echo cat ls ps id hostname mount uname env true false sleep mkdir rm grep head wc seq sort date kill df dd ip") {
		if !in["bin/"+cmd] {
			t.Errorf("the image has no /bin/%s", cmd)
		}
	}
}
