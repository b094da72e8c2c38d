package images

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

// TestImagesAreServed fills a registry and reads an image back as a client does.
func TestImagesAreServed(t *testing.T) {
	testenv.Need(t, testenv.Registry, testenv.Busybox, testenv.Nginx, testenv.StressNG, testenv.PS)
	dir := testenv.Dir(t)
	r, err := StartRegistry(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	for _, make := range []func(string) (*Image, error){Alpine, Busybox, Nginx, Stress} {
		m, err := make(dir)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := r.Push(m)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest(http.MethodGet, "http://"+r.Addr+"/v2/"+m.Repo+"/manifests/"+m.Tag, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
		req.SetBasicAuth(RegistryUser, RegistryPassword)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var got struct{ Layers []struct{ Digest string } }
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if resp.Header.Get("Docker-Content-Digest") != digest || len(got.Layers) != len(m.Layers) {
			t.Errorf("%s: digest %s, want %s; %d layers, want %d", m.Repo, resp.Header.Get("Docker-Content-Digest"), digest, len(got.Layers), len(m.Layers))
		}
		for _, l := range m.Layers {
			if st, err := os.Stat(r.BlobFile(l.Digest)); err != nil || st.Size() != l.Size {
				t.Errorf("%s: blob %s: %v", m.Repo, l.Digest, err)
			}
		}
	}
	resp, err := http.Get("http://" + r.Addr + "/v2/library/nginx/tags/list")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a password: %s", resp.Status)
	}
}

// TestProgramsRunInTheirImages has the programs run in their own root, so that a
// missing library shows here and not in a test of isle.
func TestProgramsRunInTheirImages(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Nginx, testenv.StressNG, testenv.PS)
	dir := testenv.Dir(t)
	for _, c := range []struct {
		make func(string) (*Image, error)
		args []string
	}{
		{Nginx, []string{"/usr/bin/nginx", "-t"}},
		{Nginx, []string{"/bin/sh", "-c", "exit 0"}},
		{Stress, []string{"/usr/bin/stress-ng", "--version"}},
		{Busybox, []string{"/bin/true"}},
	} {
		m, err := c.make(dir)
		if err != nil {
			t.Fatal(err)
		}
		root, err := os.MkdirTemp(dir, "root-")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Extract(root, func(layer, to string) error {
			return exec.Command("tar", "-xzf", layer, "-C", to).Run()
		}); err != nil {
			t.Fatal(err)
		}
		// nginx -t opens its logs.
		null, err := os.OpenFile(filepath.Join(root, "dev/stderr"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		null.Close()
		exe, err := testenv.LookTool("chroot")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(exe, append([]string{root}, c.args...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %q: %v: %s", m.Repo, c.args, err, out)
		}
	}
}
