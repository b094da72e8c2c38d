package monitor

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/cgroup"
)

// A monitor that is killed between making the container's cgroup and writing the
// state leaves a cgroup that no record names. Its name and place are always the
// same for the same caller, so the next start or the removal meets it.

// newGroup makes a container's cgroup, in place of a leftover if there is one.
// The caller holds the container's lock, so it cannot be anybody else's.
func newGroup(r cgroup.Request) (*cgroup.Group, error) {
	h, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		g, err := h.Create(r)
		// An empty leftover Create replaces itself. In one that is busy the
		// first child of the killed monitor is about to die.
		if !errors.Is(err, unix.EBUSY) || try == maxHierarchies || !removeLeftover(err, r.Name) {
			return g, err
		}
	}
}

// maxHierarchies bounds the hierarchies in which there may be a leftover.
const maxHierarchies = 16

// removeLeftover removes the cgroup that was in Create's way.
func removeLeftover(busy error, id string) bool {
	var pe *os.PathError
	if !errors.As(busy, &pe) || !strings.HasSuffix(pe.Path, id) {
		return false
	}
	g := cgroup.Open(cgroup.Paths{V2: pe.Path})
	if _, err := os.Stat(pe.Path + "/cgroup.controllers"); err != nil { // v2 only
		g = cgroup.Open(cgroup.Paths{V1: map[string]string{"": pe.Path}})
	}
	_ = g.Kill() // Delete reports what is still there
	return g.Delete() == nil
}

// Sweep removes the cgroup of a container that has no monitor and whose state
// does not say where its cgroup is. The caller holds its lock.
func Sweep(env config.Env, rec *container.Record) {
	if rec.ID == "" {
		return
	}
	r := cgroup.Request{Parent: rec.Config.CgroupParent, Name: rec.ID, Rootless: env.Rootless}
	if g, err := newGroup(r); err == nil {
		_ = g.Delete() // just made, and empty
	}
}
