package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// made is an image built for a test: its blobs are in the store.
type made struct {
	Content
	id string
}

// makeImage stores the blobs of a small image whose content depends on seed.
func makeImage(t testing.TB, s *Store, seed string, layers ...string) made {
	t.Helper()
	cfg := map[string]any{
		"created": "2024-01-02T03:04:05Z", "os": "linux", "architecture": "amd64", "author": seed,
		"config": map[string]any{
			"Env": []string{"PATH=/bin", "X=a\nb"}, "Cmd": []string{"/bin/sh"}, "Labels": map[string]string{"a=b": "c\\n\nd", "k": ""},
			"ExposedPorts": map[string]any{"80/tcp": map[string]any{}}, "Volumes": map[string]any{"/v": map[string]any{}},
			"Healthcheck": map[string]any{"Test": []string{"CMD", "true"}, "Interval": 5e9, "Retries": 3}, "User": "7:8", "WorkingDir": "/w",
		},
		"history": []any{map[string]any{"created_by": "x", "empty_layer": true}},
	}
	m := made{}
	var diff []string
	man := Manifest{SchemaVersion: 2, MediaType: TypeOCIManifest, Config: Descriptor{MediaType: TypeOCIConfig}}
	for _, l := range layers {
		d, err := s.PutBlob([]byte(l))
		if err != nil {
			t.Fatal(err)
		}
		diff = append(diff, d)
		man.Layers = append(man.Layers, Descriptor{MediaType: TypeOCILayer, Digest: d, Size: int64(len(l))})
		m.Layers = append(m.Layers, Layer{DiffID: d, Digest: d, MediaType: TypeOCILayer, Size: int64(len(l)), Unpacked: int64(len(l))})
	}
	cfg["rootfs"] = map[string]any{"type": "layers", "diff_ids": diff}
	m.Config, _ = json.Marshal(cfg)
	man.Config.Digest, man.Config.Size = DigestOf(m.Config), int64(len(m.Config))
	m.Manifest, _ = json.Marshal(man)
	m.id = man.Config.Digest
	return m
}

func put(t testing.TB, s *Store, m made, names ...string) *Image {
	t.Helper()
	m.Names = nil
	for _, n := range names {
		name, err := ParseName(n)
		if err != nil {
			t.Fatal(err)
		}
		m.Names = append(m.Names, name)
	}
	img, _, err := s.Put(m.Content)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPutAndResolve(t *testing.T) {
	s := Open(t.TempDir() + "/images")
	if _, err := s.Resolve("alpine"); !errors.Is(err, errs.NotFound) || err.Error() != "No such image: alpine:latest" {
		t.Fatalf("in an empty store: %v", err)
	}
	if l, err := s.List(); err != nil || len(l) != 0 {
		t.Fatalf("list of an empty store: %v %v", l, err)
	}
	m := makeImage(t, s, "1", "one", "two")
	full := put(t, s, m, "alpine:3.20", "alpine@"+digest1)
	want := container.Image{
		ID: m.id, Ref: "docker.io/library/alpine:3.20", Layers: []string{DigestOf([]byte("one")), DigestOf([]byte("two"))},
		Config: container.ImageConfig{
			User: "7:8", Env: []string{"PATH=/bin", "X=a\nb"}, Cmd: []string{"/bin/sh"}, WorkingDir: "/w",
			Labels: map[string]string{"a=b": "c\\n\nd", "k": ""}, Volumes: map[string]struct{}{"/v": {}}, Expose: map[string]struct{}{"80/tcp": {}},
			Health: &container.Healthcheck{Test: []string{"CMD", "true"}, Interval: 5 * time.Second, Retries: 3},
		},
	}
	for _, ref := range []string{"alpine:3.20", "docker.io/library/alpine:3.20", m.id, m.id[7:], m.id[7:19], m.id[:12], "alpine@" + digest1, "alpine:any@" + digest1} {
		img, err := s.Resolve(ref)
		if err != nil {
			t.Errorf("Resolve(%q): %v", ref, err)
			continue
		}
		got := img.ForContainer()
		if strings.HasPrefix(ref, "alpine") || strings.HasPrefix(ref, "docker") {
			if !strings.HasPrefix(got.Ref, "docker.io/library/alpine") {
				t.Errorf("Resolve(%q).Ref = %q", ref, got.Ref)
			}
		}
		got.Ref = want.Ref
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Resolve(%q):\n%+v\nwant\n%+v", ref, got, want)
		}
	}
	img, err := s.Inspect("alpine:3.20")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(img, full) || img.Size != 6 || !slices.Equal(img.Tags, []string{"alpine:3.20"}) || !slices.Equal(img.Digests, []string{"alpine@" + digest1}) {
		t.Errorf("inspect %+v, put %+v", img, full)
	}
	if _, added, err := s.Put(m.Content); err != nil || added {
		t.Errorf("second put: added %v, %v", added, err)
	}
}

func TestPrefixOfTwoImages(t *testing.T) {
	s := Open(t.TempDir())
	for i := range 40 { // 16 first digits: two are alike
		put(t, s, makeImage(t, s, fmt.Sprint(i), "l"))
	}
	seen := false
	for _, c := range "0123456789abcdef" {
		_, err := s.Resolve(string(c))
		if errors.Is(err, errs.Invalid) && strings.Contains(err.Error(), "multiple IDs found with provided prefix") {
			seen = true
		}
	}
	if !seen {
		t.Error("no prefix is ambiguous")
	}
}

func TestNameMoves(t *testing.T) {
	s := Open(t.TempDir())
	a, b := makeImage(t, s, "a", "la"), makeImage(t, s, "b", "lb")
	put(t, s, a, "x:1")
	put(t, s, b, "x:1")
	list, err := s.List()
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, i := range list {
		if want := map[string]int{a.id: 0, b.id: 1}[i.ID]; len(i.Tags) != want {
			t.Errorf("image %s has the tags %v", i.Author, i.Tags)
		}
	}
	if err := s.Tag(a.id[7:20], "x:old"); err != nil {
		t.Fatal(err)
	}
	if i, err := s.Resolve("x:old"); err != nil || i.ID != a.id {
		t.Error(i, err)
	}
	if err := s.Tag("none", "x:y"); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if err := s.Tag("x:1", "x@"+digest1); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestIndexIsAnOCILayout(t *testing.T) {
	s := Open(t.TempDir())
	put(t, s, makeImage(t, s, "a", "la"), "x:1", "y:2", "x@"+digest1)
	put(t, s, makeImage(t, s, "b", "lb"))
	var ix Index
	data, err := os.ReadFile(s.dir + "/index.json")
	if err == nil {
		err = json.Unmarshal(data, &ix)
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range ix.Manifests {
		names = append(names, d.Annotations[annotationRef])
		if !s.HasBlob(d.Digest) || d.MediaType != TypeOCIManifest || d.Platform.Arch != "amd64" {
			t.Errorf("%+v", d)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"", "docker.io/library/x:1", "docker.io/library/y:2"}) {
		t.Errorf("names %q", names)
	}
}

func TestBlobs(t *testing.T) {
	s := Open(t.TempDir())
	d, err := s.PutBlob([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.ReadBlob(d, 10); err != nil || string(b) != "hello" {
		t.Fatal(b, err)
	}
	if err := os.WriteFile(s.blobFile(d), []byte("hellO"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadBlob(d, 10); !errors.Is(err, errs.Corrupt) {
		t.Errorf("damaged blob: %v", err)
	}
	if _, err := s.ReadBlob("sha256:../../../etc/passwd", 10); !errors.Is(err, errs.Invalid) {
		t.Errorf("path as a digest: %v", err)
	}
	w, err := s.CreateBlob(t.Context(), DigestOf([]byte("abc")))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("abx"))
	if _, err := w.Commit(); !errors.Is(err, errs.Corrupt) {
		t.Errorf("wrong content: %v", err)
	}
	if files, _ := readDir(s.dir + "/tmp"); len(files) != 0 {
		t.Errorf("left behind: %q", files)
	}
}

func TestBlobGoesOnWhereItWasInterrupted(t *testing.T) {
	s := Open(t.TempDir())
	want := bytes.Repeat([]byte("0123456789"), 1000)
	w, err := s.CreateBlob(t.Context(), DigestOf(want))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(want[:5000])
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err = s.CreateBlob(t.Context(), DigestOf(want)); err != nil {
		t.Fatal(err)
	}
	r, n, err := w.Left()
	if err != nil || n != 5000 {
		t.Fatal(n, err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want[:5000]) {
		t.Fatal("the rest is not what was written", err)
	}
	_, _ = w.Write(want[5000:])
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReadBlob(DigestOf(want), 1e6); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
}

func TestWritersOfOneBlobWaitForEachOther(t *testing.T) {
	s := Open(t.TempDir())
	data := []byte("content")
	first, err := s.CreateBlob(t.Context(), DigestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.CreateBlob(t.Context(), DigestOf(data)); !errors.Is(err, errs.Exists) {
				t.Errorf("second writer: %v", err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	_, _ = first.Write(data)
	if _, err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestDamagedRecords(t *testing.T) {
	s := Open(t.TempDir())
	m := makeImage(t, s, "a", "l")
	put(t, s, m, "x:1")
	good, _ := os.ReadFile(s.refFile("docker.io/library/x:1"))
	for _, bad := range [][]byte{nil, good[:len(good)-2], []byte("{}"), bytes.ReplaceAll(good, []byte("library/x"), []byte("library/y"))} {
		if err := os.WriteFile(s.refFile("docker.io/library/x:1"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resolve("x:1"); !errors.Is(err, errs.Corrupt) || len(errs.Hints(err)) == 0 {
			t.Errorf("record %q: %v", bad, err)
		}
		if _, err := s.List(); err != nil {
			t.Errorf("list beside the record %q: %v", bad, err)
		}
	}
	put(t, s, m, "x:1")
	if _, err := s.Resolve("x:1"); err != nil {
		t.Errorf("after a second pull: %v", err)
	}
}

func BenchmarkResolve(b *testing.B) {
	s := Open(b.TempDir())
	put(b, s, makeImage(b, s, "a", "1", "2", "3", "4", "5", "6", "7"), "alpine:3.20")
	for b.Loop() {
		if _, err := s.Resolve("alpine:3.20"); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	s := Open(f.TempDir())
	m := makeImage(f, s, "a", "1", "2")
	img, err := ParseConfig(m.Config)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeRef("docker.io/library/x:1", img))
	f.Add([]byte(recordHead + recordEnd))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := decodeRef(data)
		if err != nil {
			return
		}
		again, err := decodeRef(encodeRef(img.Ref, img))
		if err != nil || !reflect.DeepEqual(again, img) {
			t.Fatalf("%+v\nbecame\n%+v (%v)", img, again, err)
		}
	})
}
