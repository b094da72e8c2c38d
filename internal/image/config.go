package image

import (
	"encoding/json"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// Limits on what is read of somebody else's image.
const (
	MaxManifest = 4 << 20 // bytes of a manifest or index, as the distribution spec advises
	MaxConfig   = 8 << 20 // bytes of a configuration
	maxLayers   = 500
	maxEntries  = 4096 // manifests in an index
	maxHistory  = 4096
	maxList     = 16384 // entries of any list or map in a configuration
)

// configFile is the JSON of an image configuration: the OCI names, which are
// Docker's.
type configFile struct {
	Created      *time.Time `json:"created"`
	Author       string     `json:"author"`
	Comment      string     `json:"comment"`
	Architecture string     `json:"architecture"`
	Variant      string     `json:"variant"`
	OS           string     `json:"os"`
	Config       struct {
		User         string
		Env          []string
		Entrypoint   []string
		Cmd          []string
		WorkingDir   string
		Labels       map[string]string
		StopSignal   string
		Volumes      map[string]struct{}
		ExposedPorts map[string]struct{}
		Shell        []string
		Healthcheck  *struct {
			Test          []string
			Interval      time.Duration
			Timeout       time.Duration
			StartPeriod   time.Duration
			StartInterval time.Duration
			Retries       int
		}
		ArgsEscaped bool
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []History `json:"history"`
}

// ParseConfig reads an image configuration into an Image without a manifest,
// names and blob digests. What it holds beyond that is not looked at.
func ParseConfig(data []byte) (*Image, error) {
	id := DigestOf(data)
	bad := func(format string, args ...any) error {
		return errs.New(errs.Corrupt, "image configuration "+id+": "+format, args...)
	}
	if len(data) > MaxConfig {
		return nil, bad("larger than %d bytes", MaxConfig)
	}
	var f configFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, bad("%w", err)
	}
	c := &f.Config
	switch {
	case f.RootFS.Type != "" && f.RootFS.Type != "layers":
		return nil, bad("root file system of the unknown type %q", f.RootFS.Type)
	case len(f.RootFS.DiffIDs) > maxLayers:
		return nil, bad("more than %d layers", maxLayers)
	case len(f.History) > maxHistory,
		max(len(c.Env), len(c.Entrypoint), len(c.Cmd), len(c.Labels), len(c.Volumes), len(c.ExposedPorts), len(c.Shell)) > maxList:
		return nil, bad("a list in it is too long")
	case f.OS == "":
		f.OS = "linux" // images made by hand leave it out; Docker reads them so
	}
	if f.OS != "linux" {
		return nil, errs.New(errs.Unsupported, "image %s: made for %s/%s, only linux images run here", id, f.OS, f.Architecture)
	}
	img := &Image{
		ID: id, OS: f.OS, Arch: f.Architecture, Variant: f.Variant,
		Author: f.Author, Comment: f.Comment, History: f.History,
		Config: container.ImageConfig{
			User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir,
			Labels: c.Labels, StopSignal: c.StopSignal, Volumes: c.Volumes, Expose: c.ExposedPorts,
			Shell: c.Shell, ArgsEscaped: c.ArgsEscaped,
		},
	}
	if img.Arch == "" {
		img.Arch = HostPlatform().Arch
	}
	if f.Created != nil {
		img.Created = *f.Created
	}
	if h := c.Healthcheck; h != nil {
		img.Config.Health = &container.Healthcheck{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	for _, d := range f.RootFS.DiffIDs {
		if err := CheckDigest(d); err != nil {
			return nil, bad("layer %w", err)
		}
		img.Layers = append(img.Layers, Layer{DiffID: d})
	}
	return img, nil
}
