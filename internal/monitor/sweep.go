package monitor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/state"
)

// SweepStore removes what was half done when somebody was
// killed: the graves of containers, and directories of containers that were
// never completed. Whoever is at work on one holds its lock. What cannot be
// removed now is left to the next sweep.
func SweepStore(env config.Env, remove Remover) {
	for _, dir := range [...]string{env.Tmp(), env.Containers()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // nothing that could be swept
		}
		for _, d := range entries {
			path := filepath.Join(dir, d.Name())
			id, grave := IsGrave(d.Name())
			if !grave {
				if id = d.Name(); !state.IsID(id) || complete(path) {
					continue
				}
			}
			lock, err := Lock(env, id)
			if err != nil {
				continue
			}
			if grave || !complete(path) { // not completed meanwhile
				rec := container.Record{ID: id}
				_ = state.ReadRecord(path, &rec) // for its cgroup's parent, if there is one
				Sweep(env, &rec)
				g := Grave{env, &rec, strings.HasPrefix(d.Name(), graveVolumes)}
				if errors.Join(g.RemoveVolumes(remove), removePlanned(env, path, id, remove)) == nil {
					_ = remove.Tree(path) // the next sweep tries again
				}
			}
			_ = lock.Close() // nothing is written to it
		}
	}
}

// PlanVolumes notes, in the directory of a container that has no record yet, the
// volumes that are about to be made for it: who is killed before the record is
// there leaves them to the sweep.
func PlanVolumes(dir string, names []string) error {
	return state.WriteJSON(filepath.Join(dir, plannedFile), names, true)
}

const plannedFile = "volumes.json"

// PlannedVolumes are the volumes that were to be made for a container, for who has
// found no record of it; there may be one by now.
func PlannedVolumes(dir string) []string {
	var names []string
	if state.ReadJSON(filepath.Join(dir, plannedFile), &names) != nil {
		return nil // no plan that can be read: nothing was made
	}
	return names
}

// removePlanned removes the volumes of a container that was never completed.
func removePlanned(env config.Env, dir, id string, remove Remover) error {
	if complete(dir) {
		return nil
	}
	var all error
	for _, name := range PlannedVolumes(dir) {
		all = errors.Join(all, removeVolume(env, name, id, remove))
	}
	return all
}

// complete reports whether a container's directory has its record.
func complete(dir string) bool {
	return unix.Access(filepath.Join(dir, state.RecordFile), unix.F_OK) == nil
}
