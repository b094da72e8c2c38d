package monitor

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// Grave is a container that is gone, and what is still there of it. Nobody can
// find it any more: what a crash leaves lies in the temporary directory, where
// the next removal sweeps it, and a name that leads nowhere is free.
type Grave struct {
	env     config.Env
	rec     *container.Record
	volumes bool // those that nobody named go with it
}

// Remover removes what a container leaves: trees of files and volumes, which may
// belong to ids that only somebody in the user's namespace can remove.
type Remover struct {
	Tree   func(dir string) error
	Volume func(name string) error
}

// Directly is the remover of who has the right to remove them by himself.
func Directly(env config.Env) Remover {
	return Remover{Tree: storage.RemoveTree, Volume: storage.OpenVolumes(env.Volumes()).Remove}
}

// Prefixes of graves in the temporary directory: of containers alone, and of
// those whose volumes that nobody named are to go as well. The name is all that a
// sweeper has to know of a removal that was killed.
const (
	graveAlone   = "rm-"
	graveVolumes = "rv-"
)

// IsGrave reports whether a name in the temporary directory is a grave's, and whose.
func IsGrave(name string) (id string, ok bool) {
	id, ok = strings.CutPrefix(name, graveAlone)
	if !ok {
		id, ok = strings.CutPrefix(name, graveVolumes)
	}
	return id, ok && state.IsID(id)
}

// Bury takes a container away: its directory moves out of the way in one step.
// With volumes, Clear takes those along that were made for it, that nobody named
// and nobody else uses. The caller holds its lock until Clear has returned.
func Bury(env config.Env, rec *container.Record, volumes bool) (*Grave, error) {
	g := &Grave{env, rec, volumes}
	if err := os.Rename(env.Container(rec.ID), g.dir()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return g, nil
}

func (g *Grave) dir() string {
	if g.volumes {
		return filepath.Join(g.env.Tmp(), graveVolumes+g.rec.ID)
	}
	return filepath.Join(g.env.Tmp(), graveAlone+g.rec.ID)
}

// Clear frees the container's name and removes what is left of it, and what
// others have left who were killed.
func (g *Grave) Clear(remove Remover) error {
	var all error
	if name := g.rec.Config.Name; name != "" {
		all = state.Release(g.env.Names(), name, g.rec.ID)
	}
	all = errors.Join(all, storage.RemoveTree(g.env.RunContainer(g.rec.ID)), g.RemoveVolumes(remove), remove.Tree(g.dir()))
	SweepStore(g.env, remove)
	return all
}

// RemoveVolumes removes the volumes that go with the container, while its record
// is still there to name them. Clear does it too, where nobody waits for it.
func (g *Grave) RemoveVolumes(remove Remover) error {
	if !g.volumes {
		return nil
	}
	var all error
	for i := range g.rec.Config.Mounts {
		mt := &g.rec.Config.Mounts[i]
		name := g.rec.Volumes[path.Clean(mt.Target)]
		if mt.Type == "volume" && mt.Source == "" && name != "" {
			all = errors.Join(all, removeVolume(g.env, name, g.rec.ID, remove))
		}
	}
	return all
}

// removeVolume removes a volume unless a container other than id has it.
func removeVolume(env config.Env, name, id string, remove Remover) error {
	if volumeUsed(env, name, id) {
		return nil
	}
	if err := remove.Volume(name); err != nil && !errors.Is(err, errs.NotFound) {
		return err
	}
	return nil
}

// volumeUsed reports whether a container other than id has the volume.
func volumeUsed(env config.Env, name, id string) bool {
	ids, err := state.IDs(env.Containers())
	if err != nil {
		return true // not known to be free
	}
	for _, other := range ids {
		if other == id {
			continue
		}
		var rec container.Record
		if err := state.ReadRecord(env.Container(other), &rec); err != nil {
			if !errors.Is(err, errs.NotFound) || slices.Contains(PlannedVolumes(env.Container(other)), name) {
				return true // not known to be free
			}
			continue
		}
		for _, v := range rec.Volumes {
			if v == name {
				return true
			}
		}
	}
	return false
}
