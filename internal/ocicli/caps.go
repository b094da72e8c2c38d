package ocicli

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/linux/caps"
)

// fitCaps leaves out of a process's capabilities what cannot be given, and says
// so: names that nobody knows, and ambient ones that are not inheritable.
func (c *call) fitCaps(p *specs.Process) {
	if p.Capabilities == nil {
		return
	}
	l := *p.Capabilities
	var unknown []string
	known := func(names []string) []string {
		out := make([]string, 0, len(names))
		for _, n := range names {
			if _, err := caps.Parse([]string{n}); err == nil {
				out = append(out, n)
			} else if !slices.Contains(unknown, n) {
				unknown = append(unknown, n)
			}
		}
		return out
	}
	inheritable := l.Inheritable
	l.Bounding, l.Effective, l.Permitted = known(l.Bounding), known(l.Effective), known(l.Permitted)
	l.Inheritable, l.Ambient = known(l.Inheritable), known(l.Ambient)
	if inheritable == nil {
		l.Inheritable = nil
	}
	if len(unknown) > 0 {
		c.log.warn("ignoring unknown or unavailable capabilities: [%s]", strings.Join(unknown, " "))
	}
	for _, n := range l.Ambient {
		if !slices.Contains(l.Inheritable, n) || !slices.Contains(l.Permitted, n) {
			c.log.warn("can't raise ambient capability %s: operation not permitted", n)
		}
	}
	p.Capabilities = &l
}
