package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// Media types of what registries and archives hold.
const (
	TypeDockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerList      = "application/vnd.docker.distribution.manifest.list.v2+json"
	TypeDockerConfig    = "application/vnd.docker.container.image.v1+json"
	TypeDockerLayer     = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	TypeOCIManifest     = "application/vnd.oci.image.manifest.v1+json"
	TypeOCIIndex        = "application/vnd.oci.image.index.v1+json"
	TypeOCIConfig       = "application/vnd.oci.image.config.v1+json"
	TypeOCILayer        = "application/vnd.oci.image.layer.v1.tar"
	TypeOCILayerGzip    = TypeOCILayer + "+gzip"
	TypeOCILayerZstd    = TypeOCILayer + "+zstd"
	typeSchema1         = "application/vnd.docker.distribution.manifest.v1+json"
	typeSchema1Signed   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	typeDockerLayerTar  = "application/vnd.docker.image.rootfs.diff.tar"
	typeDockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

// Descriptor points to a blob.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *Platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Manifest is what one platform's image is made of.
type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

// Index lists the manifests of an image for several platforms.
type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []Descriptor `json:"manifests"`
}

// ParseManifest reads a manifest or an index: one of the two results is set.
// mediaType is what the carrier said it is, "" when it said nothing. Content
// that can be read in two ways is refused, as one that is signed as a
// manifest could be used as an index (CVE-2021-41190).
func ParseManifest(data []byte, mediaType string) (*Manifest, *Index, error) {
	bad := func(format string, args ...any) error {
		return errs.New(errs.Corrupt, "manifest "+DigestOf(data)+": "+format, args...)
	}
	if len(data) > MaxManifest {
		return nil, nil, bad("larger than %d bytes", MaxManifest)
	}
	has, err := topKeys(data)
	if err != nil {
		return nil, nil, bad("%w", err)
	}
	var head struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, nil, bad("%w", err)
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	if mediaType = strings.TrimSpace(mediaType); mediaType == "" || mediaType == "application/json" {
		mediaType = head.MediaType
	}
	switch {
	case head.SchemaVersion == 1 || mediaType == typeSchema1 || mediaType == typeSchema1Signed:
		return nil, nil, errs.Hint(errs.New(errs.Unsupported, "manifest %s: of the obsolete schema version 1, which Docker does not read any more either", DigestOf(data)),
			"its owner can push it again with a present version of any tool")
	case head.SchemaVersion != 2:
		return nil, nil, bad("schema version %d is not known", head.SchemaVersion)
	case head.MediaType != "" && mediaType != head.MediaType:
		return nil, nil, bad("sent as %s but says that it is %s", mediaType, head.MediaType)
	case has["layers"] && has["manifests"]:
		return nil, nil, bad("has both layers and manifests, so that it could be read in two ways")
	case mediaType == "" && has["manifests"]:
		mediaType = TypeOCIIndex
	case mediaType == "":
		mediaType = TypeOCIManifest
	}
	switch mediaType {
	case TypeDockerList, TypeOCIIndex:
		if has["config"] {
			return nil, nil, bad("is an index but has a config")
		}
		ix := new(Index)
		if err := json.Unmarshal(data, ix); err != nil {
			return nil, nil, bad("%w", err)
		}
		ix.MediaType = mediaType
		if len(ix.Manifests) > maxEntries {
			return nil, nil, bad("more than %d entries", maxEntries)
		}
		for _, d := range ix.Manifests {
			if why := d.check(); why != nil {
				return nil, nil, bad("%w", why)
			}
		}
		return nil, ix, nil
	case TypeDockerManifest, TypeOCIManifest:
		if has["manifests"] || has["fsLayers"] {
			return nil, nil, bad("is an image manifest but has manifests or fsLayers")
		}
	default:
		return nil, nil, errs.New(errs.Unsupported, "manifest %s: of type %q, which is no image", DigestOf(data), mediaType)
	}
	m := new(Manifest)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, nil, bad("%w", err)
	}
	m.MediaType = mediaType
	if len(m.Layers) > maxLayers {
		return nil, nil, bad("more than %d layers", maxLayers)
	}
	switch t := m.Config.MediaType; t {
	case TypeDockerConfig, TypeOCIConfig, "application/octet-stream":
	default:
		return nil, nil, errs.New(errs.Unsupported, "manifest %s: not a container image: its configuration is of type %q", DigestOf(data), t)
	}
	if m.Config.Size > MaxConfig {
		return nil, nil, bad("its configuration is larger than %d bytes", MaxConfig)
	}
	for _, d := range append([]Descriptor{m.Config}, m.Layers...) {
		if why := d.check(); why != nil {
			return nil, nil, bad("%w", why)
		}
	}
	for _, d := range m.Layers {
		if strings.Contains(d.MediaType, "+encrypted") {
			return nil, nil, errs.New(errs.Unsupported, "layer %s: encrypted (%s)", d.Digest, d.MediaType)
		}
	}
	return m, nil, nil
}

func (d *Descriptor) check() error {
	if err := CheckDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("descriptor of %s: negative size", d.Digest)
	}
	return nil
}

// topKeys returns the keys of a JSON object. A key that is there twice, or in
// another case than the spec's, is refused: encoding/json takes the last of
// them and any case, another reader may not.
func topKeys(data []byte) (map[string]bool, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	known := [...]string{"schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers"}
	keys := make(map[string]bool)
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		k, ok := t.(string)
		if !ok || keys[k] {
			return nil, fmt.Errorf("key %v is there twice", t)
		}
		for _, want := range known {
			if k != want && strings.EqualFold(k, want) {
				return nil, fmt.Errorf("key %q: written %q in the specification", k, want)
			}
		}
		keys[k] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// MakeManifest returns the OCI manifest of an image with these layers.
func MakeManifest(config []byte, layers []Layer) ([]byte, error) {
	m := Manifest{
		SchemaVersion: 2, MediaType: TypeOCIManifest,
		Config: Descriptor{MediaType: TypeOCIConfig, Digest: DigestOf(config), Size: int64(len(config))},
		Layers: []Descriptor{},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	return json.Marshal(m)
}

// Select returns the entry that suits want best.
func (ix *Index) Select(want Platform) (Descriptor, error) {
	best, at := 0, -1
	var have []string
	for i, d := range ix.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue // BuildKit's attestations: about an image, not one
		}
		p := d.Platform
		if p == nil {
			// An index of one entry may leave its platform out; the
			// configuration has it.
			if len(ix.Manifests) == 1 {
				return d, nil
			}
			continue
		}
		if r := want.rank(*p); r > best {
			best, at = r, i
		}
		if s := p.String(); p.OS != "unknown" && !slices.Contains(have, s) && len(have) < 20 {
			have = append(have, s)
		}
	}
	if at < 0 {
		return Descriptor{}, errs.New(errs.NotFound, "no matching manifest for %s in the manifest list entries (it has %s)", want, strings.Join(have, ", "))
	}
	return ix.Manifests[at], nil
}
