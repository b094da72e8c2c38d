package pull

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registrytest"
)

// have loads an image into a new store under names.
func have(t *testing.T, m *registrytest.Made, names ...string) *Puller {
	t.Helper()
	p := newPuller(t, nil)
	if _, err := p.Load(t.Context(), bytes.NewReader(registrytest.Tar(t, layout(t, m, "x/y:z")...)), image.HostPlatform(), nil, Quiet); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := p.Images.Tag("x/y:z", n); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestPush(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	p := have(t, m, s.Addr+"/lab/app:v1", s.Addr+"/lab/app:v2", s.Addr+"/lab/copy")
	out, text := output(t)
	for _, c := range []struct {
		o     PushOptions
		n     int
		lines []string
		never string
	}{
		{PushOptions{Ref: s.Addr + "/lab/app:v1"}, 1, []string{"The push refers to repository [" + s.Addr + "/lab/app]", ": Preparing", ": Pushed", "v1: digest: " + m.Digest + " size: "}, "already exists"},
		{PushOptions{Ref: s.Addr + "/lab/app:v1"}, 1, []string{": Layer already exists"}, "Pushed"},
		{PushOptions{Ref: s.Addr + "/lab/copy"}, 1, []string{": Mounted from lab/app"}, "Pushed"},
		{PushOptions{Ref: s.Addr + "/lab/app", AllTags: true}, 2, []string{"v1: digest:", "v2: digest:"}, "Pushed"},
		{PushOptions{Ref: s.Addr + "/lab/app:v2", Quiet: true}, 1, nil, "e"},
	} {
		before := len(text())
		c.o.Out = out
		pushed, err := p.Push(t.Context(), c.o)
		if err != nil || len(pushed) != c.n || pushed[0].Digest != m.Digest {
			t.Fatalf("%+v: %+v %v", c.o, pushed, err)
		}
		said := text()[before:]
		for _, l := range c.lines {
			if !strings.Contains(said, l) {
				t.Errorf("%+v: no %q in %q", c.o, l, said)
			}
		}
		if strings.Contains(said, c.never) {
			t.Errorf("%+v: %q", c.o, said)
		}
	}
	if img, err := p.Images.Inspect(s.Addr + "/lab/app:v1"); err != nil || !slices.Contains(img.Digests, s.Addr+"/lab/app@"+m.Digest) {
		t.Errorf("%+v %v", img, err)
	}
	q := newPuller(t, nil)
	for _, ref := range []string{"/lab/app:v1", "/lab/app:v2", "/lab/copy"} {
		if _, err := q.Pull(t.Context(), Options{Ref: s.Addr + ref}); err != nil {
			t.Fatal(err)
		}
	}
	checkStored(t, q, s.Addr+"/lab/app:v2", m)
	for _, c := range []struct {
		o    PushOptions
		kind errs.Kind
		want string
	}{
		{PushOptions{Ref: "nosuch"}, errs.NotFound, "An image does not exist locally with the tag: nosuch"},
		{PushOptions{Ref: "x/y:other"}, errs.NotFound, "tag does not exist: x/y:other"},
		{PushOptions{Ref: "x@" + m.Digest}, errs.Invalid, "cannot push a digest reference"},
		{PushOptions{Ref: s.Addr + "/lab/app:v1", AllTags: true}, errs.Invalid, "tag can't be used with --all-tags"},
		{PushOptions{Ref: s.Addr + "/lab/app:v1", Platform: "linux/s390x"}, errs.NotFound, "does not provide the specified platform (linux/s390x)"},
	} {
		if _, err := p.Push(t.Context(), c.o); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}

// archiveList lists what a layer's archive has.
func archiveList(t *testing.T, data []byte) (out []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(h.Typeflag)+strings.TrimSuffix(h.Name, "/")+"="+h.Linkname+image.DigestOf(body)[7:15])
	}
}

// A store may have a layer's files and not its blob: pulled with another image
// that had it packed in another way. Then it is packed for the push.
func TestPushPacksWhatIsOnlyUnpacked(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	layers := [][]byte{
		registrytest.Tar(t, [2]string{"etc/"}, [2]string{"etc/old", "x"}, [2]string{"var/"}, [2]string{"var/gone/"}, [2]string{"var/gone/f", "1"}),
		registrytest.Tar(t, [2]string{"etc/"}, [2]string{"etc/.wh.old", ""}, [2]string{"etc/new", "y"}, [2]string{"var/"}, [2]string{"var/gone/"}, [2]string{"var/gone/.wh..wh..opq", ""}, [2]string{"lib", "->usr/lib"}),
	}
	m := registrytest.Make(t, registrytest.Image{Layers: layers, Config: map[string]any{"Cmd": []string{"/x"}, "Labels": map[string]string{"a": "b"}}})
	ref := s.Addr + "/lab/app:v1"
	p := have(t, m, ref)
	for _, d := range m.Layers {
		if err := p.Images.DropBlob(d); err != nil {
			t.Fatal(err)
		}
	}
	pushed, err := p.Push(t.Context(), PushOptions{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Push(t.Context(), PushOptions{Ref: ref})
	if err != nil || again[0].Digest != pushed[0].Digest {
		t.Errorf("the second time: %+v, first %+v, %v", again, pushed, err)
	}
	q := newPuller(t, nil)
	if _, err := q.Pull(t.Context(), Options{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	img, err := q.Images.Inspect(ref)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Layers) != 2 || img.Config.Labels["a"] != "b" || img.Config.Cmd[0] != "/x" {
		t.Errorf("%+v", img)
	}
	for i, l := range img.Layers {
		blob, err := q.Images.ReadBlob(l.Digest, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := archiveList(t, gunzip(t, blob)), archiveList(t, layers[i]); !slices.Equal(got, want) {
			t.Errorf("layer %d: %q, want %q", i, got, want)
		}
	}
	// What was packed for the push alone does not stay.
	for _, l := range img.Layers {
		if p.Images.HasBlob(l.Digest) {
			t.Errorf("%s stays", l.Digest)
		}
	}
	// Another image has the same layers, packed in another way: that is sent,
	// and the image keeps its id.
	z := registrytest.Make(t, registrytest.Image{Layers: layers, Zstd: true, Config: map[string]any{"Cmd": []string{"/z"}}})
	if _, err := p.Load(t.Context(), bytes.NewReader(registrytest.Tar(t, layout(t, z, "z:1")...)), image.HostPlatform(), nil, Quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Push(t.Context(), PushOptions{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	r := newPuller(t, nil)
	if res, err := r.Pull(t.Context(), Options{Ref: ref}); err != nil || res.ID != m.ID {
		t.Errorf("%+v %v, want the id %s", res, err, m.ID)
	}
}

// What a commit or an archive brought uncompressed is compressed for a registry,
// once.
func TestPushCompresses(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	p := newPuller(t, nil)
	ref := s.Addr + "/lab/app:v1"
	if _, err := p.Load(t.Context(), bytes.NewReader(registrytest.Tar(t, saved(t, m, ref)...)), image.HostPlatform(), nil, Quiet); err != nil {
		t.Fatal(err)
	}
	before, err := p.Images.Inspect(ref)
	if err != nil || before.Layers[2].MediaType != image.TypeOCILayer {
		t.Fatalf("%+v %v", before, err)
	}
	if _, err := p.Push(t.Context(), PushOptions{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	after, err := p.Images.Inspect(ref)
	if err != nil || after.ID != m.ID || after.Layers[2].MediaType != image.TypeOCILayerGzip || after.Layers[2].Size*3 > before.Layers[2].Size*2 {
		t.Errorf("%+v %v", after, err)
	}
	if short, err := p.Images.Resolve(ref); err != nil || short.Manifest != after.Manifest {
		t.Errorf("the name leads to the manifest %s, %v", short.Manifest, err)
	}
	if _, lines := check(t, p, true); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
	q := newPuller(t, nil)
	if res, err := q.Pull(t.Context(), Options{Ref: ref}); err != nil || res.ID != m.ID || res.Digest != after.Manifest {
		t.Errorf("%+v %v", res, err)
	}
}

func TestPushOfDamagedBlobSaysSo(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	p := have(t, m, s.Addr+"/lab/app:v1")
	path := dataDir(p) + "/images/blobs/sha256/" + m.Layers[2][7:]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = p.Push(t.Context(), PushOptions{Ref: s.Addr + "/lab/app:v1"})
	if !errors.Is(err, errs.Corrupt) || !strings.Contains(strings.Join(errs.Hints(err), ""), "system check") {
		t.Errorf("%v %q", err, errs.Hints(err))
	}
}

// A killed push leaves the store as it was, and the next one sends the rest.
func TestKilledPushGoesOn(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	begun := make(chan struct{}, 1)
	release := make(chan struct{})
	addr := faulty(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method != http.MethodPut || r.ContentLength < 1<<20 {
			return false
		}
		select {
		case <-release:
			return false
		default:
		}
		_, _ = io.CopyN(io.Discard, r.Body, 1000) // then nothing comes any more
		select {
		case begun <- struct{}{}:
		default:
		}
		<-r.Context().Done()
		return true
	})
	ref := addr + "/lab/app:v1"
	p := have(t, m, ref)
	dir := filepath.Dir(dataDir(p))
	cmd, _, _ := isled(t, dir, "push", ref)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, begun, 1)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	close(release)
	checkStored(t, p, ref, m)
	if pushed, err := p.Push(t.Context(), PushOptions{Ref: ref}); err != nil || pushed[0].Digest != m.Digest {
		t.Fatal(pushed, err)
	}
	q := newPuller(t, nil)
	if _, err := q.Pull(t.Context(), Options{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	checkStored(t, q, ref, m)
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	m := testImage(t, false)
	other := registrytest.Make(t, registrytest.Image{Docker: true, Layers: [][]byte{registrytest.Tar(t, [2]string{"f", "x"})}})
	p := have(t, m, "app:v1", "app:v2", "example.com/b/c:d")
	if _, err := p.Load(t.Context(), bytes.NewReader(registrytest.Tar(t, layout(t, other, "other:1")...)), image.HostPlatform(), nil, Quiet); err != nil {
		t.Fatal(err)
	}
	save := func(refs ...string) []byte {
		t.Helper()
		var b bytes.Buffer
		n, err := p.Save(t.Context(), refs, "", &b)
		if err != nil || n == 0 {
			t.Fatalf("%q: %d %v", refs, n, err)
		}
		return b.Bytes()
	}
	for _, c := range []struct {
		refs, names []string
	}{
		{[]string{"app:v1"}, []string{"app:v1"}},
		{[]string{"app"}, []string{"app:v1", "app:v2"}}, // all tags
		{[]string{"app:v1", "other:1", "example.com/b/c:d"}, []string{"app:v1", "example.com/b/c:d", "other:1"}},
		{[]string{m.ID[7:19]}, []string{m.ID}},
	} {
		data := save(c.refs...)
		if !bytes.Equal(data, save(c.refs...)) {
			t.Errorf("%q: two archives differ", c.refs)
		}
		q := newPuller(t, nil)
		res, err := q.Load(t.Context(), bytes.NewReader(data), image.HostPlatform(), nil, Quiet)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(res.Loaded)
		if !slices.Equal(res.Loaded, c.names) {
			t.Errorf("%q: loaded %q", c.refs, res.Loaded)
		}
		checkStored(t, q, m.ID, m)
	}
	for _, f := range []string{"oci-layout", "index.json", "manifest.json", "repositories", "blobs/sha256/" + m.Digest[7:]} {
		if !slices.ContainsFunc(archiveList(t, save("app:v1")), func(l string) bool { return strings.HasPrefix(l, "0"+f+"=") }) {
			t.Errorf("no %s", f)
		}
	}
	if _, err := p.Save(t.Context(), []string{"app:v1", "nosuch"}, "", io.Discard); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if _, err := p.Save(t.Context(), []string{"app:v1"}, "linux/s390x", io.Discard); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "linux/s390x") {
		t.Error(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := p.Save(t.Context(), []string{"app:v1"}, "", full); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
}

// What isle saves is read by others, where they are installed.
func TestSavedIsReadBySkopeo(t *testing.T) {
	t.Parallel()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		return // a peer for trials; not one that the tests need
	}
	m := testImage(t, false)
	p := have(t, m, "app:v1")
	file := filepath.Join(t.TempDir(), "app.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Save(t.Context(), []string{"app:v1"}, "", f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"docker-archive:", "oci-archive:"} {
		out, err := exec.CommandContext(t.Context(), skopeo, "inspect", kind+file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"Created": "2024-05-06T07:08:09Z"`) {
			t.Errorf("%s: %v %s", kind, err, out)
		}
	}
}

func TestManifestLists(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	amd := registrytest.Make(t, registrytest.Image{Layers: [][]byte{registrytest.Tar(t, [2]string{"f", "amd"})}, Platform: image.Platform{OS: "linux", Arch: "amd64"}})
	arm := registrytest.Make(t, registrytest.Image{Layers: [][]byte{registrytest.Tar(t, [2]string{"f", "arm"})}, Platform: image.Platform{OS: "linux", Arch: "arm64", Variant: "v8"}})
	s.Push(t, "lab/amd", "1", amd)
	s.Push(t, "lab/app", "arm", arm)
	p := newPuller(t, nil)
	names, err := parseNames([]string{s.Addr + "/lab/app:1", s.Addr + "/lab/amd:1", s.Addr + "/lab/app:arm"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.CreateList(t.Context(), names[0], names[1:2], false); err != nil {
		t.Fatal(err)
	}
	if _, err := p.CreateList(t.Context(), names[0], names[2:], false); !errors.Is(err, errs.Exists) {
		t.Errorf("without --amend: %v", err)
	}
	l, err := p.CreateList(t.Context(), names[0], names[2:], true)
	if err != nil || len(l.Entries) != 2 || l.Entries[1].Descriptor.Platform.Variant != "v8" {
		t.Fatalf("%+v %v", l, err)
	}
	digest, err := p.PushList(t.Context(), names[0])
	if err != nil {
		t.Fatal(err)
	}
	in, err := p.InspectManifest(t.Context(), names[0])
	if err != nil || in.Digest != digest || in.MediaType != image.TypeOCIIndex || len(in.Entries) != 2 {
		t.Errorf("%+v %v", in, err)
	}
	for _, m := range []*registrytest.Made{amd, arm} {
		q := newPuller(t, nil)
		if res, err := q.Pull(t.Context(), Options{Ref: names[0].String(), Platform: m.Platform.String()}); err != nil || res.ID != m.ID || res.Digest != digest {
			t.Errorf("%s: %+v %v", m.Platform, res, err)
		}
	}
	if err := p.Images.RemoveList(names[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.PushList(t.Context(), names[0]); !errors.Is(err, errs.NotFound) || err.Error() != "No such manifest: "+names[0].String() {
		t.Error(err)
	}
	if _, err := p.CreateList(t.Context(), names[1], names[:1], false); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "is a manifest list") {
		t.Error(err)
	}
}

// What the policy does not let in leaves nothing behind.
func TestPullObeysPolicy(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	s.Push(t, "app", "v1", testImage(t, false))
	p := newPuller(t, map[string]string{".config/isle/policy.json": `{"default":[{"type":"reject"}]}`})
	_, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v1"})
	if !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "no image from there is accepted") {
		t.Error(err)
	}
	checkEmpty(t, p)
}
