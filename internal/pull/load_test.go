package pull

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/archive"
	"github.com/isle-engine/isle/internal/image/registrytest"
	"github.com/isle-engine/isle/internal/testenv"
)

// layout writes the files of an OCI image layout of m into a tar.
func layout(t *testing.T, m *registrytest.Made, ref string) [][2]string {
	t.Helper()
	d := image.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: int64(len(m.Manifest))}
	if ref != "" {
		d.Annotations = map[string]string{"org.opencontainers.image.ref.name": ref}
	}
	ix, err := json.Marshal(image.Index{SchemaVersion: 2, Manifests: []image.Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	files := [][2]string{{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}, {"index.json", string(ix)}, {"blobs/", ""}, {"blobs/sha256/", ""}, {"blobs/sha256/" + m.Digest[7:], string(m.Manifest)}}
	for dg, data := range m.Blobs {
		files = append(files, [2]string{"blobs/sha256/" + dg[7:], string(data)})
	}
	return files
}

// saved writes the files of an old `docker save`: the second layer is a link.
func saved(t *testing.T, m *registrytest.Made, tags ...string) [][2]string {
	t.Helper()
	files := [][2]string{{m.ID[7:] + ".json", string(m.Blobs[m.ID])}}
	e := map[string]any{"Config": m.ID[7:] + ".json", "RepoTags": tags}
	var layers []string
	for i := range m.DiffIDs {
		dir := strings.Repeat("abcdef"[i:i+1], 64)
		content := string(gunzip(t, m.Blobs[m.Layers[i]]))
		if i == 1 {
			files = append(files, [2]string{"shared/", ""}, [2]string{"shared/layer.tar", content})
			content = "->../shared/layer.tar"
		}
		files = append(files, [2]string{dir + "/", ""}, [2]string{dir + "/VERSION", "1.0"}, [2]string{dir + "/json", "{}"}, [2]string{dir + "/layer.tar", content})
		layers = append(layers, dir+"/layer.tar")
	}
	e["Layers"] = layers
	man, err := json.Marshal([]any{e})
	if err != nil {
		t.Fatal(err)
	}
	return append(files, [2]string{"manifest.json", string(man)}, [2]string{"repositories", "{}"})
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, _, err := archive.Decompress(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLoad(t *testing.T) {
	t.Parallel()
	m := testImage(t, false)
	both := append(layout(t, m, "3.20"), [2]string{"manifest.json", `[{"Config":"blobs/sha256/` + m.ID[7:] + `","RepoTags":["alpine:3.20"],"Layers":["blobs/sha256/` + m.Layers[0][7:] + `","blobs/sha256/` + m.Layers[1][7:] + `","blobs/sha256/` + m.Layers[2][7:] + `"]}]`})
	for _, c := range []struct {
		name  string
		files [][2]string
		want  []string
	}{
		{"docker save", saved(t, m, "alpine:3.20", "lab/x:1"), []string{"alpine:3.20", "lab/x:1"}},
		{"docker save, no name", saved(t, m), []string{m.ID}},
		{"docker save of today", both, []string{"alpine:3.20"}},
		{"layout with a whole name", layout(t, m, "docker.io/library/alpine:3.20"), []string{"alpine:3.20"}},
		{"layout with a tag", layout(t, m, "latest"), []string{m.ID}},
	} {
		for kind, pack := range map[string]func(testing.TB, []byte) []byte{
			"": func(_ testing.TB, b []byte) []byte { return b }, " gzip": registrytest.Gzip, " zstd": registrytest.Zstd,
		} {
			t.Run(c.name+kind, func(t *testing.T) {
				t.Parallel()
				p := newPuller(t, nil)
				data := pack(t, registrytest.Tar(t, c.files...))
				got, err := p.Load(t.Context(), bytes.NewReader(data), image.HostPlatform(), nil, Quiet)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.Loaded, c.want) || !slices.Equal(got.IDs, []string{m.ID}) {
					t.Errorf("loaded %+v, want %q", got, c.want)
				}
				img, err := p.Images.Inspect(c.want[0])
				if err != nil {
					t.Fatal(err)
				}
				if img.ID != m.ID || !slices.Equal(img.DiffIDs(), m.DiffIDs) || img.Size == 0 {
					t.Errorf("%+v", img)
				}
				for _, d := range m.DiffIDs {
					if !p.Layers.Has(d) {
						t.Errorf("layer %s is not unpacked", d)
					}
				}
			})
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	m := testImage(t, false)
	good := saved(t, m, "x:1")
	change := func(f func(files [][2]string) [][2]string) []byte {
		return registrytest.Tar(t, f(slices.Clone(good))...)
	}
	for _, c := range []struct {
		name string
		data []byte
		kind errs.Kind
		want string
	}{
		{"nothing", nil, errs.Invalid, "archive: empty, or not a tar archive"},
		{"no archive", []byte(strings.Repeat("hello ", 1000)), errs.Invalid, "archive: not a tar archive"},
		{"root file system", registrytest.Tar(t, [2]string{"etc/", ""}, [2]string{"etc/passwd", ""}), errs.Invalid, "not an archive of images"},
		{"cut off", registrytest.Tar(t, good...)[:3000], errs.Corrupt, "unexpected EOF"},
		{"cut off gzip", registrytest.Gzip(t, registrytest.Tar(t, good...))[:3000], errs.Corrupt, "its end is missing"},
		{"layer missing", change(func(f [][2]string) [][2]string {
			return slices.DeleteFunc(f, func(e [2]string) bool { return e[0] == "shared/layer.tar" })
		}), errs.Corrupt, "named by its manifest, not in it"},
		{"layer changed", change(func(f [][2]string) [][2]string {
			for i := range f {
				if f[i][0] == "shared/layer.tar" {
					f[i][1] = string(registrytest.Tar(t, [2]string{"evil", "x"}))
				}
			}
			return f
		}), errs.Corrupt, "digest"},
		{"link to outside", change(func(f [][2]string) [][2]string {
			for i := range f {
				if f[i][1] == "->../shared/layer.tar" {
					f[i][1] = "->../../../../../../etc/passwd"
				}
			}
			return f
		}), errs.Corrupt, "named by its manifest, not in it"},
		{"bad name", change(func(f [][2]string) [][2]string {
			for i := range f {
				if f[i][0] == "manifest.json" {
					f[i][1] = strings.Replace(f[i][1], "x:1", "X:1", 1)
				}
			}
			return f
		}), errs.Corrupt, "must be lowercase"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPuller(t, nil)
			_, err := p.Load(t.Context(), bytes.NewReader(c.data), image.HostPlatform(), nil, Quiet)
			if errs.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("kind %v: %v\nwant kind %v, %q", errs.KindOf(err), err, c.kind, c.want)
			}
			checkEmpty(t, p)
		})
	}
}

func TestLoadWhatOthersSave(t *testing.T) {
	t.Parallel()
	skopeo, err := testenv.LookTool("skopeo")
	if err != nil {
		t.Log("without skopeo: only what this test suite writes itself is loaded")
		return
	}
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "lab/app", "v1", m)
	for _, form := range []string{"docker-archive", "oci-archive"} {
		file := filepath.Join(t.TempDir(), "x.tar")
		// Or it looks for signatures where only root may.
		sigs := t.TempDir()
		if err := os.WriteFile(sigs+"/default.yaml", []byte("default-docker:\n  lookaside: file://"+sigs+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(skopeo, "--registries.d", sigs, "copy", "--src-tls-verify=false", "docker://"+s.Addr+"/lab/app:v1", form+":"+file+":lab.example/app:v1").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := newPuller(t, nil)
		got, err := p.Load(t.Context(), f, image.HostPlatform(), nil, Quiet)
		if err != nil || !slices.Equal(got.Loaded, []string{"lab.example/app:v1"}) {
			t.Errorf("%s: %+v %v", form, got, err)
			continue
		}
		if form == "oci-archive" && got.IDs[0] != m.ID {
			t.Errorf("id %s", got.IDs[0])
		}
		// And the store is a layout that others read.
		out, err = exec.Command(skopeo, "inspect", "--raw", "oci:"+dataDir(p)+"/images:lab.example/app:v1").CombinedOutput()
		if err != nil || !strings.Contains(string(out), got.IDs[0]) {
			t.Errorf("skopeo inspect of the store: %v\n%s", err, out)
		}
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	rootfs := registrytest.Tar(t, [2]string{"bin/", ""}, [2]string{"bin/sh", "#!"})
	for kind, data := range map[string][]byte{"plain": rootfs, "gzip": registrytest.Gzip(t, rootfs), "zstd": registrytest.Zstd(t, rootfs)} {
		t.Run(kind, func(t *testing.T) {
			p := newPuller(t, nil)
			name, err := image.ParseName("made:1")
			if err != nil {
				t.Fatal(err)
			}
			now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
			res, err := p.Import(t.Context(), bytes.NewReader(data), archive.ImportOptions{
				Name: &name, Platform: image.HostPlatform(), Message: "by hand", Now: now,
				Changes: []string{`CMD ["/bin/sh","-c"]`, "ENV A=1 B='x y'", "EXPOSE 80", "WORKDIR /w", "LABEL k=v"},
			})
			if err != nil {
				t.Fatal(err)
			}
			img, err := p.Images.Inspect("made:1")
			if err != nil {
				t.Fatal(err)
			}
			want := container.ImageConfig{
				Cmd: []string{"/bin/sh", "-c"}, Env: []string{"A=1", "B=x y"}, Expose: map[string]struct{}{"80/tcp": {}},
				WorkingDir: "/w", Labels: map[string]string{"k": "v"},
			}
			if img.ID != res.ID || !reflect.DeepEqual(img.Config, want) || img.DiffIDs()[0] != image.DigestOf(rootfs) || img.Comment != "by hand" || !img.Created.Equal(now) {
				t.Errorf("%+v", img)
			}
			path, err := p.Layers.Path(image.DigestOf(rootfs))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(path + "/bin/sh"); err != nil || string(b) != "#!" {
				t.Errorf("%q %v", b, err)
			}
		})
	}
	p := newPuller(t, nil)
	_, err := p.Import(t.Context(), strings.NewReader(""), archive.ImportOptions{Platform: image.HostPlatform()})
	if !errors.Is(err, errs.Invalid) {
		t.Errorf("empty: %v", err)
	}
	_, err = p.Import(t.Context(), bytes.NewReader(rootfs), archive.ImportOptions{Platform: image.HostPlatform(), Changes: []string{"RUN rm -rf /"}})
	if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "RUN is not a valid change command") {
		t.Errorf("RUN: %v", err)
	}
	checkEmpty(t, p)
}
