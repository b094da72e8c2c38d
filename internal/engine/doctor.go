package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// Doctor looks at everything that containers need of this machine, of isle's own
// files, and at what a crash may have left. With fix it first puts right what it
// can without asking root, and tells what it did.
func (e *Engine) Doctor(_ context.Context, fix bool) (checks []host.Check, done []string, Err error) {
	if fix {
		if done, Err = e.tidy(); Err != nil {
			return nil, done, Err
		}
	}
	who := host.Who{UID: e.env.UID, GID: e.env.GID, Name: os.Getenv("USER"), Data: e.env.Data}
	if u, err := user.LookupId(strconv.Itoa(e.env.UID)); err == nil {
		who.Name = u.Username
	}
	var m host.Machine
	checks = append(m.Checkup(who), e.checkRun(), checkServer())
	left, err := e.leftovers()
	if err != nil {
		return nil, done, err
	}
	c := host.Check{Name: "leftovers", Found: "none of a crash"}
	if len(left) > 0 {
		c.Problem = "a crash has left " + strings.Join(left, ", ")
		c.Remedy = []string{"isle doctor --fix removes that"}
	}
	return append(checks, c), done, nil
}

// checkRun looks at the runtime directory.
func (e *Engine) checkRun() host.Check {
	c := host.Check{Name: "runtime directory", Found: e.env.Run}
	if err := e.env.MakeDirs(); err != nil {
		c.Problem, c.Remedy, c.Blocks = err.Error(), errs.Hints(err), true
		return c
	}
	if fs, err := host.FileSystem(e.env.Run); err == nil {
		c.Found += " on " + fs
		switch fs {
		case "nfs", "cifs", "smb3", "9p", "gpfs", "lustre", "ceph":
			c.Problem = "the runtime directory " + e.env.Run + " is on " + fs + ", where locks and sockets of one machine are another's, too"
			c.Remedy = []string{"set ISLE_RUNROOT to a directory on this machine"}
		}
	}
	return c
}

func checkServer() host.Check {
	c := host.Check{Name: "isled"}
	p, err := isled()
	if err != nil {
		c.Problem, c.Remedy = err.Error(), errs.Hints(err)
		return c
	}
	c.Found = p
	return c
}

// leftovers tells what a crash of isle or of the machine has left, a kind each.
func (e *Engine) leftovers() (found []string, err error) {
	ids, err := state.IDs(e.env.Containers())
	if err != nil {
		return nil, err
	}
	dead, half := 0, 0
	for _, id := range ids {
		dir := e.env.Container(id)
		if monitor.Alive(e.env, id) {
			continue // running, or somebody is at work on it
		}
		var st container.State
		switch err := state.ReadState(dir, &st); {
		case err == nil && live(st.Status):
			dead++
		case errors.Is(err, errs.NotFound):
			if _, err := os.Stat(filepath.Join(dir, state.RecordFile)); errors.Is(err, os.ErrNotExist) {
				half++
			}
		}
	}
	count := func(n int, one, many string) {
		switch {
		case n == 1:
			found = append(found, "1 "+one)
		case n > 1:
			found = append(found, fmt.Sprintf("%d %s", n, many))
		}
	}
	count(dead, "container that is recorded as running", "containers that are recorded as running")
	count(half, "half made container", "half made containers")
	graves, stages, socks := 0, 0, 0
	for _, d := range entries(e.env.Tmp()) {
		if id, ok := monitor.IsGrave(d); ok && !monitor.Alive(e.env, id) {
			graves++
		}
	}
	for _, d := range append(entries(e.env.Layers()), entries(e.env.Volumes())...) {
		if strings.HasPrefix(d, ".stage-") || strings.HasPrefix(d, ".gone-") {
			stages++
		}
	}
	for _, short := range entries(e.env.Run + "/c") {
		if !e.running(short, ids) {
			socks++
		}
	}
	count(graves, "container that is not removed completely", "containers that are not removed completely")
	count(stages, "unfinished layer or volume", "unfinished layers or volumes")
	count(socks, "socket of a container that is gone", "sockets of containers that are gone")
	return found, nil
}

// running reports whether the beginning of an id is that of a container with a
// living monitor.
func (e *Engine) running(short string, ids []string) bool {
	for _, id := range ids {
		if strings.HasPrefix(id, short) && monitor.Alive(e.env, id) {
			return true
		}
	}
	return false
}

// entries are the names in a directory; none when it cannot be read.
func entries(dir string) (names []string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, d := range list {
		names = append(names, d.Name())
	}
	return names
}

// tidy removes the leftovers. What is in use by somebody is left alone by each of
// these.
func (e *Engine) tidy() (done []string, err error) {
	if err := e.env.MakeDirs(); err != nil {
		return nil, err
	}
	left, err := e.leftovers()
	if err != nil || len(left) == 0 {
		return nil, err
	}
	all, err := e.loadAll() // finishes the story of those that died
	if err != nil {
		return nil, err
	}
	monitor.SweepStore(e.env, e.remover())
	err = e.inside(workSweepLayers, e.env.Layers(), e.env.Volumes())
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	for _, short := range entries(e.env.Run + "/c") {
		if !e.running(short, ids) {
			err = errors.Join(err, storage.RemoveTree(e.env.Run+"/c/"+short))
		}
	}
	for _, l := range left {
		done = append(done, "removed what a crash has left: "+l)
	}
	return done, err
}
