package cli

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage"
)

// volumeMemory is an engine with two volumes.
type volumeMemory struct {
	*memory
	vols []engine.Volume
}

func newVolumeMemory() *volumeMemory {
	vol := func(name string, labels map[string]string) engine.Volume {
		return engine.Volume{Volume: storage.Volume{Name: name, Created: time.Now().Truncate(time.Second), Labels: labels}, Path: "/data/volumes/" + name + "/_data"}
	}
	return &volumeMemory{newMemory(), []engine.Volume{vol("data", map[string]string{"a": "b"}), vol(strings.Repeat("e", 64), nil)}}
}

func (m *volumeMemory) CreateVolume(_ context.Context, name, driver string, labels, opts map[string]string) (engine.Volume, error) {
	m.note("volume create %s %s %v %v", name, driver, labels, opts)
	return engine.Volume{Volume: storage.Volume{Name: name}}, nil
}

func (m *volumeMemory) InspectVolume(_ context.Context, name string) (engine.Volume, error) {
	for _, v := range m.vols {
		if v.Name == name {
			return v, nil
		}
	}
	return engine.Volume{}, errs.New(errs.NotFound, "get %s: no such volume", name)
}

func (m *volumeMemory) Volumes(context.Context, engine.Filter) ([]engine.Volume, error) {
	return m.vols, nil
}

func (m *volumeMemory) RemoveVolume(ctx context.Context, name string) error {
	_, err := m.InspectVolume(ctx, name)
	return err
}

func (m *volumeMemory) ExportVolume(_ context.Context, name string, out *os.File) error {
	_, err := out.WriteString("archive of " + name)
	return err
}

func (m *volumeMemory) ImportVolume(_ context.Context, name string, in *os.File) error {
	b, err := io.ReadAll(in)
	m.note("volume import %s %q", name, b)
	return err
}

func (m *volumeMemory) PruneVolumes(_ context.Context, f engine.Filter, all bool) ([]string, int64, error) {
	m.note("volume prune %v %v", f, all)
	return []string{"data"}, 1234567, nil
}

// TestVolumesLikeDocker prints the same volumes with both clients.
func TestVolumesLikeDocker(t *testing.T) {
	d := newDockerAPI(t)
	dir := t.TempDir()
	t.Setenv("TZ", "UTC")
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	m := newVolumeMemory()
	var all []map[string]any
	for _, v := range m.vols {
		one := map[string]any{"Name": v.Name, "Driver": "local", "Mountpoint": v.Path, "Labels": v.Labels, "Scope": "local", "CreatedAt": v.Created.Format(time.RFC3339), "Options": nil}
		all = append(all, one)
		d.answers["/volumes/"+v.Name] = one
	}
	d.answers["/volumes"] = map[string]any{"Volumes": all, "Warnings": nil}
	d.answers["/volumes/prune"] = map[string]any{"VolumesDeleted": []string{"data"}, "SpaceReclaimed": 1234567}
	for _, args := range [][]string{
		{"volume", "ls"},
		{"volume", "list", "-q"},
		{"volume", "ls", "--format", "json"},
		{"volume", "ls", "--format", "{{.Name}} {{.Label \"a\"}}"},
		{"volume", "ls", "--format", `table {{.Name}}\t{{.Mountpoint}}\t{{.Labels}}\t{{.Links}}\t{{.Size}}`},
		{"volume", "inspect", "data"},
		{"volume", "inspect", "-f", "{{.Mountpoint}}", "data"},
		{"volume", "prune", "-f"},
		{"volume", "prune", "-af"},
	} {
		want := d.docker(t, dir, args...)
		want.out = strings.ReplaceAll(want.out, "c=,a=b", "a=b,c=") // a map's order there, sorted here
		got := isle(t, m, "", args...)
		if got != want {
			t.Errorf("%q:\n%s", args, cmp.Diff(want, got, cmp.AllowUnexported(result{})))
		}
	}
}

func TestVolumeCommands(t *testing.T) {
	m := newVolumeMemory()
	for _, c := range []struct {
		args []string
		in   string
		want result
		call string
	}{
		{args: []string{"volume", "create", "--label", "a=b", "-d", "local", "x1"}, want: result{0, "x1\n", ""}, call: "volume create x1 local map[a:b] map[]"},
		{args: []string{"volume", "create", "--type", "mount", "x"}, want: result{125, "", "isle: --type: volumes of a swarm\n"}},
		{args: []string{"volume", "rm", "nope", "data"}, want: result{1, "data\n", "isle: get nope: no such volume\n"}},
		{args: []string{"volume", "rm", "-f", "nope"}, want: result{0, "nope\n", ""}},
		{args: []string{"volume", "export", "data"}, want: result{0, "archive of data", ""}},
		{args: []string{"volume", "import", "data"}, in: "tar", want: result{0, "", ""}, call: `volume import data "tar"`},
		{args: []string{"volume", "prune"}, in: "n\n", want: result{0, "WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you want to continue? [y/N] ", ""}},
		{args: []string{"inspect", "--type", "volume", "-f", "{{.Name}}", "data"}, want: result{0, "data\n", ""}},
	} {
		m.calls = nil
		if got := isle(t, m, c.in, c.args...); got != c.want {
			t.Errorf("%q:\n%s", c.args, cmp.Diff(c.want, got, cmp.AllowUnexported(result{})))
		}
		if c.call != "" && (len(m.calls) != 1 || m.calls[0] != c.call) {
			t.Errorf("%q: called %q", c.args, m.calls)
		}
	}
}

func TestCompletionKnowsNames(t *testing.T) {
	m := newVolumeMemory()
	for args, want := range map[string]string{
		"volume rm da":        "data\tlocal\n",
		"volume rm data da":   "data\tlocal\n",
		"run -v da":           "data:\tlocal\n",
		"push alp":            "alpine:latest\tdddddddddddd\n",
		"save alpine alp":     "alpine:latest\tdddddddddddd\n",
		"images --format js":  "json\t\n",
		"tag alpine:latest x": "",
	} {
		if got := isle(t, m, "", append([]string{"__complete"}, strings.Fields(args)...)...); got.out != want {
			t.Errorf("%s: %q, want %q", args, got.out, want)
		}
	}
	// Every command that takes arguments says what they are, or is known not to.
	none := " cp inspect completion help import load login logout search volume-create network-create manifest-annotate manifest-create manifest-inspect manifest-push manifest-rm "
	table := commands()
	for i := range table {
		p := table[i].paths[0]
		if table[i].max != 0 && !strings.HasPrefix(p, "__") && argKinds(p) == "" && !strings.Contains(none, " "+strings.ReplaceAll(p, " ", "-")+" ") {
			t.Errorf("%s: not in argKinds", p)
		}
	}
}
