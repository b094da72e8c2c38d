package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/host"
)

// Limits are the resources that a container with these is to have, as Build
// would set them, for a change while it runs. The warnings are as Build's.
func Limits(r container.Resources, m *host.Machine, rootless bool) (*specs.LinuxResources, []string, error) {
	cfg := container.Config{Resources: r}
	in := Input{Record: &container.Record{Config: cfg}, Facts: Probe(m, &cfg, rootless)}
	b := &build{in: &in, cfg: &cfg, img: &in.Record.Image.Config}
	if err := b.setResources(); err != nil {
		return nil, nil, err
	}
	return b.linux.Resources, b.warnings, nil
}
