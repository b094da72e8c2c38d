package monitor

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/state"
)

// SweepStore removes, by removeTree, what was half done when somebody was
// killed: the graves of containers, and directories of containers that were
// never completed. Whoever is at work on one holds its lock. What cannot be
// removed now is left to the next sweep.
func SweepStore(env config.Env, removeTree func(dir string) error) {
	for _, dir := range [...]string{env.Tmp(), env.Containers()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // nothing that could be swept
		}
		for _, d := range entries {
			path := filepath.Join(dir, d.Name())
			id, grave := strings.CutPrefix(d.Name(), "rm-")
			if !state.IsID(id) || !grave && complete(path) {
				continue
			}
			lock, err := Lock(env, id)
			if err != nil {
				continue
			}
			if grave || !complete(path) { // not completed meanwhile
				rec := container.Record{ID: id}
				_ = state.ReadRecord(path, &rec) // for its cgroup's parent, if there is one
				Sweep(env, &rec)
				_ = removeTree(path) // the next sweep tries again
			}
			_ = lock.Close() // nothing is written to it
		}
	}
}

// complete reports whether a container's directory has its record.
func complete(dir string) bool {
	return unix.Access(filepath.Join(dir, state.RecordFile), unix.F_OK) == nil
}
