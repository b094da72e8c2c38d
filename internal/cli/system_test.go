package cli

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/storage"
)

// storeMemory is an engine with some use of disk, and a registry's answers.
type storeMemory struct {
	*memory
	usage   engine.Usage
	checked engine.Checked
	found   []engine.Found
	login   error
}

var (
	_ keeper    = (*storeMemory)(nil)
	_ registrar = (*storeMemory)(nil)
)

func newStoreMemory() *storeMemory {
	m := &storeMemory{memory: newMemory()}
	add := func(id, name string, s container.Status, rw int64) engine.Container {
		c := engine.Container{SizeRw: rw, SizeRootFs: rw + 4000000}
		c.ID, c.Created, c.State.Status = strings.Repeat(id, 64), m.now, s
		c.Config.Name, c.Config.Image, c.Config.Cmd = name, "alpine", []string{"sleep", "5"}
		c.State.StartedAt, c.State.FinishedAt = m.now, m.now
		return c
	}
	m.usage = engine.Usage{
		Images:     []engine.ImageUsage{{Image: m.images[0], Shared: 1000000, Containers: 1}, {Image: m.images[2]}},
		Containers: []engine.Container{add("c", "web", container.Running, 12345), add("d", "old", container.Exited, 345)},
		Volumes: []engine.Volume{
			{Volume: storage.Volume{Name: "data"}, Path: "/x", Users: 1, Size: 1000}, {Volume: storage.Volume{Name: "old"}, Path: "/x", Size: 500},
		},
		ImagesSize: 5000000, ImagesInUse: 5000000 - 1500,
	}
	m.usage.Images[0].Tags = []string{"alpine:latest"}
	m.found = []engine.Found{
		{Name: "nginx", Description: "Official build of Nginx.\nAnd a very long story about it that goes on.", Stars: 20000, Official: true},
		{Name: "a/nginx", Description: "", Stars: 3},
	}
	return m
}

func (m *storeMemory) Usage(context.Context) (*engine.Usage, error) { return &m.usage, nil }

func (m *storeMemory) PruneImages(_ context.Context, o engine.PruneOptions, all bool) ([]image.Removed, int64, error) {
	m.note("image prune %v %v", o.Filter, all)
	return []image.Removed{{Untagged: "a:latest"}, {Untagged: "a@sha256:" + strings.Repeat("c", 64)}, {Deleted: "sha256:" + strings.Repeat("a", 64)}}, 1234567, nil
}

func (m *storeMemory) PruneContainers(_ context.Context, o engine.PruneOptions) ([]string, int64, error) {
	m.note("container prune %v", o.Filter)
	return []string{strings.Repeat("c", 64)}, 100, nil
}

func (m *storeMemory) PruneNetworks(_ context.Context, o engine.PruneOptions) ([]string, error) {
	m.note("network prune %v", o.Filter)
	return []string{"n1"}, nil
}

func (m *storeMemory) PruneVolumes(_ context.Context, f engine.Filter, all bool) ([]string, int64, error) {
	m.note("volume prune %v %v", f, all)
	return []string{"v1"}, 7, nil
}

func (m *storeMemory) Dissolve() error { m.note("dissolve"); return nil }

func (m *storeMemory) Check(_ context.Context, repair, _ bool) (*engine.Checked, error) {
	m.note("check %v", repair)
	return &m.checked, nil
}

func (m *storeMemory) Push(_ context.Context, ref string, o engine.PushOptions) ([]engine.Pushed, error) {
	m.note("push %s %v %v %s", ref, o.All, o.Quiet, o.Platform)
	return []engine.Pushed{{Name: "docker.io/library/" + ref}}, nil
}

func (m *storeMemory) Save(_ context.Context, refs []string, platform string, out *os.File) error {
	m.note("save %v %s", refs, platform)
	if refs[0] == "nosuch" {
		return errs.New(errs.NotFound, "No such image: nosuch:latest")
	}
	_, err := out.WriteString("tar")
	return err
}

func (m *storeMemory) Login(_ context.Context, server, user, password string) (engine.Login, error) {
	m.note("login %s %s %s", server, user, password)
	if user == "" {
		return engine.Login{}, errs.New(errs.NotFound, "none")
	}
	return engine.Login{Server: server, User: user, File: "/home/x/.docker/config.json", Plain: true}, m.login
}

func (m *storeMemory) Logout(_ context.Context, server string) (string, []string, error) {
	return server, nil, nil
}

func (m *storeMemory) Search(context.Context, string, int, engine.Filter) ([]engine.Found, error) {
	return m.found, nil
}

func (m *storeMemory) CreateManifest(context.Context, string, []string, bool, bool) (string, error) {
	return "", errs.New(errs.Unsupported, "not here")
}

func (m *storeMemory) AnnotateManifest(context.Context, string, string, engine.Annotation) error {
	return errs.New(errs.Unsupported, "not here")
}

func (m *storeMemory) InspectManifest(context.Context, string, bool) (*engine.Manifest, error) {
	return nil, errs.New(errs.Unsupported, "not here")
}

func (m *storeMemory) LocalManifest(string) (*image.ManifestList, error) {
	return nil, errs.New(errs.NotFound, "not here")
}

func (m *storeMemory) PushManifest(context.Context, string, bool, bool) (string, error) {
	return "", errs.New(errs.Unsupported, "not here")
}

func (m *storeMemory) RemoveManifest(context.Context, string) error {
	return errs.New(errs.Unsupported, "not here")
}

// TestSystemLikeDocker prints the same use of disk and the same prunes and
// searches with both clients.
func TestSystemLikeDocker(t *testing.T) {
	d := newDockerAPI(t)
	dir := t.TempDir()
	m := newStoreMemory()
	now := time.Now()
	var images, containers, volumes []map[string]any
	for _, u := range m.usage.Images {
		img := apiImage(u.Image)
		img["SharedSize"], img["Containers"] = u.Shared, u.Containers
		images = append(images, img)
	}
	for i := range m.usage.Containers {
		containers = append(containers, apiContainer(&m.usage.Containers[i], now))
	}
	for _, v := range m.usage.Volumes {
		volumes = append(volumes, map[string]any{"Name": v.Name, "Driver": "local", "Mountpoint": v.Path, "Scope": "local", "UsageData": map[string]any{"Size": v.Size, "RefCount": v.Users}})
	}
	// Docker reclaims what images without containers do not share.
	m.usage.ImagesSize = 9000000
	d.answers["/system/df"] = map[string]any{"LayersSize": m.usage.ImagesSize, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": []any{}}
	m.usage.ImagesInUse = m.images[0].Size - m.usage.Images[0].Shared
	d.answers["/images/prune"] = map[string]any{"ImagesDeleted": []any{
		map[string]any{"Untagged": "a:latest"}, map[string]any{"Untagged": "a@sha256:" + strings.Repeat("c", 64)}, map[string]any{"Deleted": "sha256:" + strings.Repeat("a", 64)},
	}, "SpaceReclaimed": 1234567}
	d.answers["/containers/prune"] = map[string]any{"ContainersDeleted": []string{strings.Repeat("c", 64)}, "SpaceReclaimed": 100}
	d.answers["/networks/prune"] = map[string]any{"NetworksDeleted": []string{"n1"}}
	d.answers["/volumes/prune"] = map[string]any{"VolumesDeleted": []string{"v1"}, "SpaceReclaimed": 7}
	d.answers["/build/prune"] = map[string]any{"SpaceReclaimed": 0}
	var results []map[string]any
	for _, f := range m.found {
		results = append(results, map[string]any{"name": f.Name, "description": f.Description, "star_count": f.Stars, "is_official": f.Official})
	}
	d.answers["/images/search"] = results
	cache := strings.NewReplacer("  - unused build cache\n", "", "  - all build cache\n", "")
	for _, args := range [][]string{
		{"system", "df"},
		{"system", "df", "-v"},
		{"system", "df", "--format", "json"},
		{"system", "df", "--format", `table {{.Type}}\t{{.TotalCount}}`},
		{"system", "df", "-v", "--format", "{{range .Images}}{{.ID}} {{.UniqueSize}}{{end}}"},
		{"image", "prune"},
		{"image", "prune", "-a"},
		{"image", "prune", "-af", "--filter", "until=24h", "--filter", "label=x"},
		{"system", "prune"},
		{"system", "prune", "-a", "--volumes"},
		{"system", "prune", "--filter", "label=a=b", "--filter", "until=5h"},
		{"system", "prune", "-f"},
		{"system", "prune", "-af", "--volumes"},
		{"search", "nginx"},
		{"search", "--no-trunc", "nginx"},
		{"search", "--format", "json", "nginx"},
		{"search", "--format", "{{.Name}}: {{.StarCount}} {{.IsOfficial}}", "nginx"},
	} {
		want := d.docker(t, dir, args...)
		want.out = cache.Replace(want.out)
		got := isle(t, m, "", args...)
		if got != want {
			t.Errorf("%q:\n%s", args, cmp.Diff(want, got, cmp.AllowUnexported(result{})))
		}
	}
}

// TestInfoLikeDocker lays out the same answer with both clients. Docker prints
// more of what isle has not, and isle a little of its own.
func TestInfoLikeDocker(t *testing.T) {
	d := newDockerAPI(t)
	m := newStoreMemory()
	c := &call{app: &app{}}
	i, err := m.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i.OperatingSystem, i.Hostname, i.ID, i.FileSystem, i.Architecture = "Linux", "host", "id", "ext4", "x86_64"
	i.LogDrivers, i.SecurityOptions = []string{"json-file"}, []string{"name=seccomp,profile=builtin", "name=rootless"}
	j := c.info(&i)
	d.answers["/info"] = j
	want := d.docker(t, t.TempDir(), "info")
	theirs := map[string]bool{}
	_, server, _ := strings.Cut(want.out, "Server:\n")
	for l := range strings.SplitSeq(server, "\n") {
		theirs[l] = true
	}
	var out bytes.Buffer
	if err := printInfo(&out, j); err != nil {
		t.Fatal(err)
	}
	_, server, _ = strings.Cut(out.String(), "Server:\n")
	n := 0
	for l := range strings.SplitSeq(server, "\n") {
		if n++; !theirs[l] && !strings.HasPrefix(l, " Cgroup Controllers: ") && !strings.HasPrefix(l, " Run Dir: ") {
			t.Errorf("Docker does not print %q", l)
		}
	}
	if n < 30 {
		t.Errorf("%d lines", n)
	}
}

func TestSystemCommands(t *testing.T) {
	m := newStoreMemory()
	out := t.TempDir() + "/x.tar"
	for _, c := range []struct {
		args []string
		in   string
		want result
		call string
	}{
		{args: []string{"system", "prune", "--volumes", "--filter", "until=5h"}, want: result{1, "", "isle: The \"until\" filter is not supported with \"--volumes\"\n"}},
		{args: []string{"push", "-q", "web"}, want: result{0, "docker.io/library/web\n", ""}, call: "push web false true "},
		{args: []string{"push", "web"}, want: result{0, "Using default tag: latest\n", ""}, call: "push web false false "},
		{args: []string{"push", "-a", "web"}, want: result{0, "", ""}, call: "push web true false "},
		{args: []string{"save", "a", "b:1"}, want: result{0, "tar", ""}, call: "save [a b:1] "},
		{args: []string{"save", "-o", out, "a"}, want: result{0, "", ""}, call: "save [a] "},
		{args: []string{"save", "-o", out + "/no/x", "a"}, want: result{1, "", "isle: create " + out + "/no/x: not a directory\n"}},
		{args: []string{"login", "-u", "me", "--password-stdin", "r.example"}, in: "pass word\n", want: result{0, "Login Succeeded\n", "\nWARNING! Your credentials are stored unencrypted in '/home/x/.docker/config.json'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n"}, call: "login r.example me pass word"},
		{args: []string{"login", "--password-stdin"}, want: result{1, "", "isle: the --password-stdin option requires --username to be set\n"}},
		{args: []string{"login", "-u", "a", "-p", "b", "--password-stdin"}, want: result{1, "", "isle: conflicting options: cannot specify both --password and --password-stdin\n"}},
		{args: []string{"login", "-u", "a", "--password-stdin"}, want: result{1, "", "isle: password is empty\n"}},
		{args: []string{"login"}, want: result{1, "", "isle: Cannot perform an interactive login from a non TTY device\n"}},
		{args: []string{"logout", "r.example"}, want: result{0, "Removing login credentials for r.example\n", ""}},
		{args: []string{"search", "--limit", "101", "x"}, want: result{1, "", "isle: limit 101 is outside the range of [1, 100]\n"}},
		{args: []string{"system", "check"}, want: result{0, "Checked 0 blobs, 0 layers, 0 images, 0 containers: nothing is wrong\n", ""}, call: "check false"},
	} {
		m.calls = nil
		if got := isle(t, m, c.in, c.args...); got != c.want {
			t.Errorf("%q:\n%s", c.args, cmp.Diff(c.want, got, cmp.AllowUnexported(result{})))
		}
		if c.call != "" && (len(m.calls) == 0 || m.calls[len(m.calls)-1] != c.call) {
			t.Errorf("%q: called %q", c.args, m.calls)
		}
	}
	if data, err := os.ReadFile(out); err != nil || string(data) != "tar" {
		t.Errorf("%q %v", data, err)
	}
	// What fails leaves the file as it was, and none beside it.
	if got := isle(t, m, "", "save", "-o", out, "nosuch"); got.code != 1 {
		t.Error(got)
	}
	if left, err := os.ReadDir(strings.TrimSuffix(out, "/x.tar")); err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
	if fi, err := os.Stat(out); err != nil || fi.Mode().Perm() != 0o666&^umask() {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	// What is no file is written to as it is.
	if got := isle(t, m, "", "save", "-o", "/dev/full", "a"); got.code != 1 || !strings.Contains(got.err, "no space left on device") {
		t.Error(got)
	}
	m.login = errs.New(errs.Denied, "registry r.example: unauthorized: incorrect username or password")
	if got := isle(t, m, "x", "login", "-u", "me", "--password-stdin", "r.example"); got != (result{1, "", "isle: registry r.example: unauthorized: incorrect username or password\n"}) {
		t.Error(got)
	}
	m.checked = engine.Checked{Blobs: 3, Layers: 1, Unverified: 1, Unused: 2, Freed: 1500, Findings: []engine.Finding{
		{Kind: "blob", Subject: "sha256:1", Problem: "damaged", Done: "removed"}, {Kind: "layer", Subject: "sha256:2", Problem: "/x: missing", Failed: "full"},
	}}
	want := "blob sha256:1: damaged: removed\nlayer sha256:2: /x: missing: not repaired: full\n"
	if got := isle(t, m, "", "system", "check", "--repair"); got != (result{1, want + "Checked 3 blobs, 1 layer, 0 images, 0 containers: 2 problems, 1 repaired\n1 layer unpacked without a blob to compare with\nRemoved 2 pieces that nothing needs: 1.5kB\n", ""}) {
		t.Errorf("%+v", got)
	}
	if got := isle(t, m, "", "system", "check", "-q"); got != (result{1, want, ""}) {
		t.Errorf("%+v", got)
	}
}
