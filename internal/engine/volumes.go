package engine

import (
	"errors"
	"maps"
	"path"
	"sort"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// anonymousLabel marks a volume that nobody named: it goes with its container.
const anonymousLabel = "com.docker.volume.anonymous"

func (e *Engine) volumes() *storage.Volumes { return storage.OpenVolumes(e.env.Volumes()) }

// resolveVolumes completes rec's mounts: those of --volumes-from, an anonymous
// volume for each VOLUME of the image that nothing is mounted on, and for every
// volume mount the volume itself, made when it is missing.
func (e *Engine) resolveVolumes(rec *container.Record) error {
	c := &rec.Config
	if len(c.VolumesFrom) > 0 {
		if err := e.volumesFrom(rec); err != nil {
			return err
		}
	}
	if len(rec.Image.Config.Volumes) > 0 {
		targets := make([]string, 0, len(rec.Image.Config.Volumes))
		for t := range rec.Image.Config.Volumes {
			targets = append(targets, t)
		}
		sort.Strings(targets)
		for _, unsafeTarget := range targets {
			// An image says where, never what: whatever the text, it names a path
			// inside, and gets an empty volume of its own (CVE-2022-23648).
			t := path.Clean("/" + unsafeTarget)
			if t != "/" && !mounted(c.Mounts, t) {
				c.Mounts = append(c.Mounts, container.Mount{Type: "volume", Target: t})
			}
		}
	}
	unnamed, err := e.planVolumes(rec)
	if err != nil {
		return err
	}
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if m.Type != "volume" {
			continue
		}
		if rec.Volumes == nil {
			rec.Volumes = map[string]string{}
		}
		name, labels := m.Source, m.VolumeLabels
		if name == "" {
			name, unnamed = unnamed[0], unnamed[1:]
			labels = map[string]string{anonymousLabel: ""}
			maps.Copy(labels, m.VolumeLabels)
		}
		if m.VolumeDriver != "" && m.VolumeDriver != "local" {
			return errs.New(errs.NotFound, "volume driver %q: not found; isle has the driver \"local\"", m.VolumeDriver)
		}
		if _, err := e.volumes().Create(name, labels, m.VolumeOpts); err != nil && !errors.Is(err, errs.Exists) {
			return err
		}
		rec.Volumes[path.Clean(m.Target)] = name
	}
	return nil
}

// planVolumes chooses the names of the volumes that nobody named, and notes them
// before they are made.
func (e *Engine) planVolumes(rec *container.Record) ([]string, error) {
	var names []string
	for i := range rec.Config.Mounts {
		if m := &rec.Config.Mounts[i]; m.Type == "volume" && m.Source == "" {
			names = append(names, state.NewID())
		}
	}
	if names == nil {
		return nil, nil
	}
	return names, monitor.PlanVolumes(e.env.Container(rec.ID), names)
}

// mounted reports whether something is mounted on target already.
func mounted(ms []container.Mount, target string) bool {
	for i := range ms {
		if path.Clean(ms[i].Target) == target {
			return true
		}
	}
	return false
}

// volumesFrom adds the bind mounts and volumes of other containers.
func (e *Engine) volumesFrom(rec *container.Record) error {
	for _, from := range rec.Config.VolumesFrom {
		ref, mode, _ := strings.Cut(from, ":")
		id, err := e.resolve(ref)
		if err != nil {
			return err
		}
		var other container.Record
		if err := state.ReadRecord(e.env.Container(id), &other); err != nil {
			return err
		}
		for _, m := range other.Config.Mounts {
			if m.Type != "bind" && m.Type != "volume" || mounted(rec.Config.Mounts, path.Clean(m.Target)) {
				continue
			}
			if m.Type == "volume" {
				m.Source = other.Volumes[path.Clean(m.Target)]
			}
			if mode == "ro" {
				m.ReadOnly = true
			}
			rec.Config.Mounts = append(rec.Config.Mounts, m)
		}
	}
	return nil
}

// removeVolume removes a volume and its files, whoever owns them.
func (e *Engine) removeVolume(name string) error {
	// At once where the owners' ids are known: a removal that got stuck half-way
	// would have taken the name away already.
	err := e.inside(workRemoveVolume, name)
	if err == nil {
		e.tell("volume", "destroy", name, map[string]string{"driver": "local"})
	}
	return err
}
