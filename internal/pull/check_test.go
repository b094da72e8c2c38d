package pull

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registrytest"
)

// flipByte changes one byte in the middle of a file.
func flipByte(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, p *Puller, repair bool) (res *Checked, lines []string) {
	t.Helper()
	res, err := p.Check(t.Context(), repair, nil, Quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range res.Findings {
		l := f.Kind + " " + f.Subject + ": " + f.Problem
		if f.Done != "" {
			l += ": " + f.Done
		}
		if f.Failed != "" {
			t.Errorf("%s: %s", l, f.Failed)
		}
		lines = append(lines, l)
	}
	return res, lines
}

func TestCheck(t *testing.T) {
	t.Parallel()
	// Links, whiteouts, an entry that is there twice, one below a link.
	m := registrytest.Make(t, registrytest.Image{Layers: [][]byte{
		registrytest.Tar(t, [2]string{"usr/"}, [2]string{"usr/lib/"}, [2]string{"lib", "->usr/lib"}, [2]string{"lib/x", "by a link"}, [2]string{"etc/"}, [2]string{"etc/a", "1"}, [2]string{"etc/a", "2"}, [2]string{"deep/down/f", "x"}),
		registrytest.Tar(t, [2]string{"etc/"}, [2]string{"etc/.wh.a", ""}, [2]string{"etc/b", "22"}, [2]string{"deep/"}, [2]string{"deep/.wh..wh..opq", ""}),
	}})
	p := have(t, m, "app:v1")
	dir := dataDir(p)
	p.Containers = dir + "/containers"
	if res, lines := check(t, p, false); len(lines) > 0 || res.Blobs != 4 || res.Layers != 2 || res.Images != 1 || res.Unused != 0 || res.Unverified != 0 {
		t.Fatalf("a good store: %q %+v", lines, res)
	}
	blob := func(d string) string { return dir + "/images/blobs/sha256/" + d[7:] }
	layer := func(i int) string { return dir + "/layers/" + m.DiffIDs[i][7:] + "/diff/" }
	for _, c := range []struct {
		name   string
		damage func() error
		want   []string // beginnings of what is found
		after  []string // and what is left to find after the repair
	}{
		{"content", func() error { return os.WriteFile(layer(0)+"etc/a", []byte("3"), 0o600) }, []string{"layer " + m.DiffIDs[0] + ": /etc/a: has other content: unpacked again"}, nil},
		{"size, missing, added", func() error {
			return errors.Join(os.WriteFile(layer(1)+"etc/b", nil, 0o600), os.Remove(layer(1)+"etc/a"), os.WriteFile(layer(1)+"new", nil, 0o600))
		}, []string{"layer " + m.DiffIDs[1] + ": /etc/b: has 0 bytes, not 2; /new: not in the layer: unpacked again"}, nil},
		{
			"link", func() error { return errors.Join(os.Remove(layer(0)+"lib"), os.Symlink("etc", layer(0)+"lib")) },
			[]string{"layer " + m.DiffIDs[0] + ": /lib: leads elsewhere: unpacked again"},
			nil,
		},
		{"mode", func() error { return os.Chmod(layer(0)+"usr", 0o700) }, []string{"layer " + m.DiffIDs[0] + ": /usr: has the mode 0700, not 0755: unpacked again"}, nil},
		{
			"record of a layer", func() error { return os.WriteFile(dir+"/layers/"+m.DiffIDs[0][7:]+"/layer.json", []byte("{"), 0o600) },
			[]string{"layer " + m.DiffIDs[0] + ": its record is damaged: unpacked again"},
			nil,
		},
		{"foreign blob", func() error { return os.WriteFile(dir+"/images/blobs/sha256/x", nil, 0o600) }, []string{"blob x: not the name of a blob: removed"}, nil},
		{
			"name", func() error { return os.WriteFile(dir+"/images/refs/docker.io+library+bad:1", []byte("junk"), 0o600) },
			[]string{"name docker.io/library/bad:1: damaged record: not an image record of a version known here: removed"},
			nil,
		},
		{"name of another", func() error {
			data, err := os.ReadFile(dir + "/images/refs/docker.io+library+app:v1")
			return errors.Join(err, os.WriteFile(dir+"/images/refs/docker.io+library+bad:1", data, 0o600))
		}, []string{"name docker.io/library/bad:1: its record is of docker.io/library/app:v1: removed"}, nil},
		{"blob of a layer", func() error { flipByte(t, blob(m.Layers[1])); return nil }, []string{"blob " + m.Layers[1] + ": content has the digest sha256:"}, nil},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		_, before := check(t, p, false)
		res, got := check(t, p, true)
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) || len(before) != len(got) {
			t.Errorf("%s: %q, want %q; without repair %q", c.name, got, c.want, before)
		}
		if res.Unused != 0 {
			t.Errorf("%s: %+v", c.name, res)
		}
		if _, got = check(t, p, false); len(got) > 0 {
			t.Errorf("%s: after the repair: %q", c.name, got)
		}
	}
	// A layer without files and blob: the image is forgotten, and pulled again
	// when it is wanted.
	if err := errors.Join(os.Remove(blob(m.Layers[0])), os.RemoveAll(dir+"/layers/"+m.DiffIDs[0][7:])); err != nil {
		t.Fatal(err)
	}
	if _, got := check(t, p, true); len(got) != 1 || got[0] != "image app:v1: its layer "+m.DiffIDs[0]+" is missing: forgotten, so that it is pulled again when it is used next" {
		t.Errorf("%q", got)
	}
	if _, err := p.Images.Resolve("app:v1"); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if res, got := check(t, p, true); len(got) > 0 || res.Images != 0 {
		t.Errorf("%q %+v", got, res)
	}
	if left, err := os.ReadDir(dir + "/images/blobs/sha256"); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
}

// What is missing of an image is fetched by the next pull, though its layers
// are there.
func TestPullAfterARepair(t *testing.T) {
	t.Parallel()
	s := registrytest.Start(t)
	m := testImage(t, false)
	s.Push(t, "app", "v1", m)
	p := newPuller(t, nil)
	pull := func() {
		t.Helper()
		if _, err := p.Pull(t.Context(), Options{Ref: s.Addr + "/app:v1"}); err != nil {
			t.Fatal(err)
		}
		checkStored(t, p, s.Addr+"/app:v1", m)
	}
	pull()
	for _, d := range []string{m.ID, m.Digest} {
		flipByte(t, dataDir(p)+"/images/blobs/sha256/"+d[7:])
		if _, lines := check(t, p, true); len(lines) != 2 || !strings.HasSuffix(lines[0], ": removed") || !strings.Contains(lines[1], "must be pulled again before it can be pushed or saved") {
			t.Errorf("%q", lines)
		}
		pull()
		if _, lines := check(t, p, false); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
	}
}

// A container whose layer is gone is named, and nothing that it needs is removed.
func TestCheckKnowsContainers(t *testing.T) {
	t.Parallel()
	m := testImage(t, false)
	p := have(t, m)
	p.Containers = dataDir(p) + "/containers"
	id := strings.Repeat("c", 64)
	rec, err := json.Marshal(map[string]any{"id": id, "config": map[string]any{"name": "web", "image": "x/y:z"}, "image": map[string]any{"id": m.ID, "layers": m.DiffIDs}})
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Join(p.Containers, id), 0o700), os.WriteFile(filepath.Join(p.Containers, id, "config.json"), rec, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Images.Forget(m.ID); err != nil {
		t.Fatal(err)
	}
	if res, lines := check(t, p, true); len(lines) > 0 || res.Containers != 1 || res.Unused == 0 || !p.Layers.Has(m.DiffIDs[0]) {
		t.Fatalf("%q %+v", lines, res)
	}
	if err := p.Layers.Remove(m.DiffIDs[0]); err != nil {
		t.Fatal(err)
	}
	if _, lines := check(t, p, true); len(lines) != 1 || !strings.HasPrefix(lines[0], "container web: its layer "+m.DiffIDs[0]+" is missing; pull x/y:z again") {
		t.Errorf("%q", lines)
	}
	// And that does bring it back.
	if _, err := p.Load(t.Context(), bytes.NewReader(registrytest.Tar(t, layout(t, m, "x/y:z")...)), image.HostPlatform(), nil, Quiet); err != nil {
		t.Fatal(err)
	}
	if _, lines := check(t, p, false); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}
