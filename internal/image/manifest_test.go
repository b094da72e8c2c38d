package image

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/errs"
)

func TestParseManifest(t *testing.T) {
	desc := func(mt string) string { return `{"mediaType":"` + mt + `","digest":"` + digest1 + `","size":7}` }
	good := `{"schemaVersion":2,"config":` + desc(TypeOCIConfig) + `,"layers":[` + desc(TypeOCILayerGzip) + `]}`
	index := `{"schemaVersion":2,"manifests":[` + desc(TypeOCIManifest) + `]}`
	for _, c := range []struct {
		name, data, mediaType string
		kind                  errs.Kind // Unknown: no error
		want                  string
	}{
		{"manifest", good, TypeOCIManifest, 0, ""},
		{"manifest, type unsaid", good, "", 0, ""},
		{"manifest, as JSON", good, "application/json; charset=utf-8", 0, ""},
		{"docker", strings.ReplaceAll(good, TypeOCIConfig, TypeDockerConfig), TypeDockerManifest, 0, ""},
		{"index", index, TypeOCIIndex, 0, ""},
		{"list", index, TypeDockerList, 0, ""},
		{"index, type unsaid", index, "", 0, ""},
		{"manifest as index", good, TypeOCIIndex, errs.Corrupt, "has a config"},
		{"index as manifest", index, TypeOCIManifest, errs.Corrupt, "has manifests"},
		{"both", strings.Replace(good, `"layers"`, `"manifests":[],"layers"`, 1), "", errs.Corrupt, "in two ways"},
		{"both, in another case", strings.Replace(good, `"layers"`, `"Manifests":[],"layers"`, 1), "", errs.Corrupt, `written "manifests"`},
		{"twice", strings.Replace(good, `"layers"`, `"layers":[],"layers"`, 1), "", errs.Corrupt, "there twice"},
		{"says otherwise", strings.Replace(good, `{`, `{"mediaType":"`+TypeOCIIndex+`",`, 1), TypeOCIManifest, errs.Corrupt, "but says that it is"},
		{"schema 1", `{"schemaVersion":1,"fsLayers":[]}`, "", errs.Unsupported, "schema version 1"},
		{"schema 3", `{"schemaVersion":3}`, "", errs.Corrupt, "schema version 3"},
		{"artifact", strings.ReplaceAll(good, TypeOCIConfig, "application/vnd.cncf.helm.config.v1+json"), "", errs.Unsupported, "not a container image"},
		{"encrypted", strings.ReplaceAll(good, TypeOCILayerGzip, TypeOCILayerGzip+"+encrypted"), "", errs.Unsupported, "encrypted"},
		{"other type", good, "text/html", errs.Unsupported, "is no image"},
		{"bad digest", strings.ReplaceAll(good, digest1, "sha256:../../x"), "", errs.Corrupt, "digest"},
		{"negative size", strings.ReplaceAll(good, ":7", ":-7"), "", errs.Corrupt, "negative size"},
		{"no JSON", "<html>", "", errs.Corrupt, "not a JSON object"},
		{"a list", "[]", "", errs.Corrupt, "not a JSON object"},
		{"cut off", good[:40], "", errs.Corrupt, ""},
		{"huge", strings.Repeat(" ", MaxManifest+1), "", errs.Corrupt, "larger than"},
		{"many layers", `{"schemaVersion":2,"config":` + desc(TypeOCIConfig) + `,"layers":[` + strings.Repeat(desc(TypeOCILayer)+",", maxLayers) + desc(TypeOCILayer) + `]}`, "", errs.Corrupt, "more than 500 layers"},
	} {
		m, ix, err := ParseManifest([]byte(c.data), c.mediaType)
		if errs.KindOf(err) != c.kind || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err == nil && (m == nil) == (ix == nil) {
			t.Errorf("%s: %v %v", c.name, m, ix)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	s := Open(f.TempDir())
	m := makeImage(f, s, "a", "1")
	f.Add(m.Manifest, TypeOCIManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"`+digest1+`","size":1,"platform":{"os":"linux","architecture":"arm"}}]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, mediaType string) {
		m, ix, err := ParseManifest(data, mediaType)
		if err != nil {
			return
		}
		// The oracle: another reader sees the one that we see, and not the other.
		var loose map[string]any
		if err := json.Unmarshal(data, &loose); err != nil {
			t.Fatal(err)
		}
		if _, ok := loose["manifests"]; ok && m != nil {
			t.Fatal("a manifest that others read as an index")
		}
		if _, ok := loose["layers"]; ok && ix != nil {
			t.Fatal("an index that others read as a manifest")
		}
		if ix != nil {
			_, _ = ix.Select(HostPlatform()) // must not panic
		}
	})
}

func TestParseConfig(t *testing.T) {
	for _, c := range []struct {
		name, data string
		kind       errs.Kind
		want       string
	}{
		{"empty", `{}`, 0, ""},
		{"null config", `{"config":null,"rootfs":{"type":"layers","diff_ids":null}}`, 0, ""},
		{"windows", `{"os":"windows","architecture":"amd64"}`, errs.Unsupported, "only linux images run here"},
		{"other rootfs", `{"rootfs":{"type":"x"}}`, errs.Corrupt, "unknown type"},
		{"bad diff id", `{"rootfs":{"diff_ids":["sha256:/etc"]}}`, errs.Corrupt, "layer digest"},
		{"many layers", `{"rootfs":{"diff_ids":[` + strings.Repeat(`"",`, maxLayers) + `""]}}`, errs.Corrupt, "more than 500 layers"},
		{"many labels", `{"config":{"Env":[` + strings.Repeat(`"",`, maxList) + `""]}}`, errs.Corrupt, "too long"},
		{"wrong type", `{"config":{"Cmd":"sh"}}`, errs.Corrupt, "cannot unmarshal"},
		{"deep", `{"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, errs.Corrupt, "depth"},
		{"huge", strings.Repeat(" ", MaxConfig+1), errs.Corrupt, "larger than"},
	} {
		_, err := ParseConfig([]byte(c.data))
		if errs.KindOf(err) != c.kind || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestMakeConfigIsReadBack(t *testing.T) {
	s := Open(t.TempDir())
	img, err := ParseConfig(makeImage(t, s, "a", "1", "2").Config)
	if err != nil {
		t.Fatal(err)
	}
	data, err := MakeConfig(img)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	again.ID = img.ID
	a, err1 := json.Marshal(img)
	b, err2 := json.Marshal(again)
	if err := errors.Join(err1, err2); err != nil || string(a) != string(b) {
		t.Errorf("%v\n%s\n%s", err, a, b)
	}
}

func TestPlatforms(t *testing.T) {
	host := HostPlatform().String()
	for in, want := range map[string]string{
		"": host, "linux": host, "linux/amd64": "linux/amd64", "amd64": "linux/amd64", "x86_64": "linux/amd64", "linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3",
		"linux/arm64/v8": "linux/arm64", "aarch64": "linux/arm64", "linux/arm": "linux/arm/v7", "armhf": "linux/arm/v7", "linux/arm/6": "linux/arm/v6", "LINUX/ARM64": "linux/arm64",
	} {
		if p, err := ParsePlatform(in); err != nil || p.String() != want {
			t.Errorf("ParsePlatform(%q) = %v, %v; want %s", in, p, err, want)
		}
	}
	for _, in := range []string{"windows/amd64", "linux/", "a/b/c/d", "linux/a b", "/"} {
		if p, err := ParsePlatform(in); err == nil {
			t.Errorf("ParsePlatform(%q) = %v", in, p)
		}
	}
	parse := func(s string) Platform {
		p, err := ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		want string
		have string // blank-separated
		best string // "": none
	}{
		{"linux/arm/v7", "linux/arm/v5 linux/arm/v6 linux/arm64", "linux/arm/v6"},
		{"linux/arm/v6", "linux/arm/v7", ""},
		{"linux/amd64", "linux/amd64/v2 linux/amd64", "linux/amd64"},
		{"linux/amd64", "linux/amd64/v3", ""},
		{"linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v2"},
		{"linux/arm64", "linux/arm64/v8", "linux/arm64/v8"},
		{"linux/arm64", "linux/arm", ""},
	} {
		var ix Index
		for h := range strings.FieldsSeq(c.have) {
			part := strings.SplitN(h+"//", "/", 4)
			ix.Manifests = append(ix.Manifests, Descriptor{Digest: h, Platform: &Platform{part[0], part[1], part[2]}})
		}
		d, err := ix.Select(parse(c.want))
		if d.Digest != c.best || (err == nil) != (c.best != "") {
			t.Errorf("%s of %s: %q %v", c.want, c.have, d.Digest, err)
		}
	}
	ix := Index{Manifests: []Descriptor{
		{Digest: "a", Platform: &Platform{"linux", "amd64", ""}, Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"}},
		{Digest: "b", Platform: &Platform{"unknown", "unknown", ""}},
	}}
	if _, err := ix.Select(parse("linux/amd64")); !errors.Is(err, errs.NotFound) || strings.Contains(err.Error(), "unknown") {
		t.Errorf("attestations: %v", err)
	}
}
