package monitor

import (
	"errors"
	"os"
	"path"
	"path/filepath"

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
	env config.Env
	rec *container.Record
}

// Bury takes a container away: its directory moves out of the way in one step.
// The caller holds its lock until Clear has returned.
func Bury(env config.Env, rec *container.Record) (*Grave, error) {
	g := &Grave{env, rec}
	if err := os.Rename(env.Container(rec.ID), g.dir()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return g, nil
}

func (g *Grave) dir() string { return filepath.Join(g.env.Tmp(), "rm-"+g.rec.ID) }

// Clear frees the container's name and removes, by removeTree, what is left of
// it, and what others have left who were killed.
func (g *Grave) Clear(removeTree func(dir string) error) error {
	var all error
	if name := g.rec.Config.Name; name != "" {
		all = state.Release(g.env.Names(), name, g.rec.ID)
	}
	all = errors.Join(all, storage.RemoveTree(g.env.RunContainer(g.rec.ID)), removeTree(g.dir()))
	SweepStore(g.env, removeTree)
	return all
}

// RemoveVolumes removes, by remove, the volumes that were made for this
// container, that nobody named and nobody else uses.
func (g *Grave) RemoveVolumes(remove func(name string) error) error {
	var all error
	for i := range g.rec.Config.Mounts {
		mt := &g.rec.Config.Mounts[i]
		name := g.rec.Volumes[path.Clean(mt.Target)]
		if mt.Type != "volume" || mt.Source != "" || name == "" || volumeUsed(g.env, name, g.rec.ID) {
			continue
		}
		if err := remove(name); err != nil && !errors.Is(err, errs.NotFound) {
			all = errors.Join(all, err)
		}
	}
	return all
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
			if errors.Is(err, errs.NotFound) {
				continue
			}
			return true // not known to be free
		}
		for _, v := range rec.Volumes {
			if v == name {
				return true
			}
		}
	}
	return false
}
