package engine

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// matcher decides which containers List returns: Docker's ps filters. Values
// of one key are alternatives (labels must all match); keys must all match.
type matcher struct {
	o             ListOptions
	before, since time.Time
	ancestors     map[string]bool // image ids; nil: not asked
}

var containerFilters = [...]string{
	"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status", "volume",
}

func newMatcher(e *Engine, o ListOptions, all []*Container) (*matcher, error) {
	m := &matcher{o: o}
	for key, values := range o.Filter {
		if !slices.Contains(containerFilters[:], key) {
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
		for _, v := range values {
			switch key {
			case "before", "since":
				c, err := findIn(e, all, v)
				if err != nil {
					return nil, err
				}
				if key == "before" && (m.before.IsZero() || c.Created.Before(m.before)) {
					m.before = c.Created
				}
				if key == "since" && (m.since.IsZero() || c.Created.After(m.since)) {
					m.since = c.Created
				}
			case "exited":
				if _, err := strconv.Atoi(v); err != nil {
					return nil, errs.New(errs.Invalid, "invalid filter 'exited=%s'", v)
				}
			case "status":
				switch container.Status(v) {
				case container.Created, container.Running, container.Paused, container.Restarting, container.Removing, container.Exited, container.Dead:
				default:
					return nil, errs.New(errs.Invalid, "invalid filter 'status=%s'", v)
				}
			case "ancestor":
				if m.ancestors == nil {
					m.ancestors = map[string]bool{}
				}
				if img, err := e.images.Resolve(v); err == nil {
					m.ancestors[img.ID] = true
				}
			}
		}
	}
	return m, nil
}

func findIn(e *Engine, all []*Container, ref string) (*Container, error) {
	id, err := e.resolve(ref)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].ID == id {
			return all[i], nil
		}
	}
	return nil, errs.New(errs.NotFound, "No such container: %s", ref)
}

func (m *matcher) keep(c *Container) bool {
	// As Docker: naming a status, or asking for the last ones, asks for stopped ones too.
	_, status := m.o.Filter["status"]
	_, exited := m.o.Filter["exited"]
	if !m.o.All && m.o.Last == 0 && !status && !exited && !live(c.State.Status) {
		return false
	}
	if !m.before.IsZero() && !c.Created.Before(m.before) || !m.since.IsZero() && !c.Created.After(m.since) {
		return false
	}
	for key, values := range m.o.Filter {
		any, all := false, true
		for _, v := range values {
			ok := m.one(c, key, v)
			any, all = any || ok, all && ok
		}
		if key == "label" && !all || key != "label" && !any {
			return false
		}
	}
	return true
}

func (m *matcher) one(c *Container, key, v string) bool {
	switch key {
	case "ancestor":
		return m.ancestors[c.Image.ID] || c.Image.Ref == v || c.Config.Image == v || sameRepository(c.Image.Ref, v)
	case "exited":
		n, err := strconv.Atoi(v)
		return err == nil && c.State.Status == container.Exited && c.State.ExitCode == n
	case "health":
		h := "none"
		if c.State.Health != nil {
			h = c.State.Health.Status
		}
		return h == v
	case "id":
		return strings.HasPrefix(c.ID, v)
	case "label":
		return labelMatches(c.Labels(), v)
	case "name":
		return strings.Contains("/"+c.Config.Name, v) || globOrSubstring(c.Config.Name, v)
	case "network":
		return c.Config.Network == v || c.Config.Network == "" && (v == "bridge" || v == "default")
	case "publish":
		return slices.ContainsFunc(c.Config.Publish, func(p string) bool { return portSpecHas(p, v) })
	case "expose":
		return slices.Contains(c.Config.Expose, v)
	case "status":
		return string(c.State.Status) == v
	case "volume":
		return slices.ContainsFunc(c.Config.Mounts, func(mt container.Mount) bool { return mt.Source == v || mt.Target == v })
	case "is-task":
		return v == "false" || v == "0"
	}
	return true // before, since: decided already; isolation: one kind only
}

// Labels are the container's own over its image's.
func (c *Container) Labels() map[string]string {
	if len(c.Image.Config.Labels) == 0 {
		return c.Config.Labels
	}
	l := make(map[string]string, len(c.Image.Config.Labels)+len(c.Config.Labels))
	maps.Copy(l, c.Image.Config.Labels)
	maps.Copy(l, c.Config.Labels)
	return l
}

// labelMatches tells whether labels satisfy "key" or "key=value".
func labelMatches(labels map[string]string, want string) bool {
	k, v, has := strings.Cut(want, "=")
	got, ok := labels[k]
	return ok && (!has || got == v)
}

func globOrSubstring(s, pattern string) bool {
	p := strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$")
	switch {
	case strings.HasPrefix(pattern, "^") && strings.HasSuffix(pattern, "$"):
		return s == strings.TrimPrefix(p, "/")
	case strings.HasPrefix(pattern, "^"):
		return strings.HasPrefix(s, strings.TrimPrefix(p, "/"))
	case strings.HasSuffix(pattern, "$"):
		return strings.HasSuffix(s, p)
	}
	ok, err := path.Match(pattern, s)
	return err == nil && ok
}

func sameRepository(ref, v string) bool {
	a, errA := image.ParseName(ref)
	b, errB := image.ParseName(v)
	return errA == nil && errB == nil && a.String() == b.String()
}

// portSpecHas tells whether a -p value names port want ("80", "80/tcp").
func portSpecHas(spec, want string) bool {
	num, proto, has := strings.Cut(want, "/")
	base, sproto, shas := strings.Cut(spec, "/")
	if !shas {
		sproto = "tcp"
	}
	if has && proto != sproto {
		return false
	}
	return slices.Contains(strings.Split(base, ":"), num)
}
