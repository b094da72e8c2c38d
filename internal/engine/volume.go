package engine

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// Volume is a volume with where its files are.
type Volume struct {
	storage.Volume
	Path  string
	Users int   // containers that have it
	Size  int64 // bytes on disk when asked for, -1 where they cannot be read
}

// CreateVolume makes a volume ("" is an anonymous one); one of that name that is
// there already is returned, as with Docker.
func (e *Engine) CreateVolume(_ context.Context, name, driver string, labels, opts map[string]string) (Volume, error) {
	if driver != "" && driver != "local" {
		return Volume{}, errs.New(errs.NotFound, "volume driver %q: not found; isle has the driver \"local\"", driver)
	}
	if err := e.env.MakeDirs(); err != nil {
		return Volume{}, err
	}
	if name == "" {
		name = storage.AnonymousName()
		own := map[string]string{anonymousLabel: ""}
		maps.Copy(own, labels)
		labels = own
	}
	_, missing := e.volumes().Get(name)
	v, err := e.volumes().Create(name, labels, opts)
	if err != nil {
		return Volume{}, err
	}
	if errors.Is(missing, errs.NotFound) {
		e.tell("volume", "create", v.Name, map[string]string{"driver": "local"})
	}
	return Volume{Volume: v, Path: e.volumes().Path(v.Name)}, nil
}

// InspectVolume returns one volume.
func (e *Engine) InspectVolume(_ context.Context, name string) (Volume, error) {
	v, err := e.volumes().Get(name)
	if errors.Is(err, errs.NotFound) {
		return Volume{}, errs.New(errs.NotFound, "get %s: no such volume", name)
	}
	if err != nil {
		return Volume{}, err
	}
	return Volume{Volume: v, Path: e.volumes().Path(name)}, nil
}

// Volumes lists the volumes by name. Filters are dangling, driver, label and name.
func (e *Engine) Volumes(_ context.Context, f Filter) ([]Volume, error) {
	for key, values := range f {
		if !slices.Contains([]string{"dangling", "driver", "label", "name"}, key) {
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
		if key == "dangling" {
			if _, ok := truth(values[0]); !ok || len(values) > 1 {
				return nil, errs.New(errs.Invalid, "invalid filter 'dangling=%s'", strings.Join(values, ","))
			}
		}
	}
	used, err := e.volumeUsers()
	if err != nil {
		return nil, err
	}
	all, err := e.volumes().List()
	if err != nil {
		return nil, err
	}
	var out []Volume
	for _, v := range all {
		vol := Volume{Volume: v, Path: e.volumes().Path(v.Name), Users: used[v.Name]}
		if volumeMatches(&vol, f) {
			out = append(out, vol)
		}
	}
	return out, nil
}

// volumeUsers counts the containers of each volume.
func (e *Engine) volumeUsers() (map[string]int, error) {
	all, err := e.loadAll()
	if err != nil {
		return nil, err
	}
	used := map[string]int{}
	recorded := map[string]bool{}
	for _, c := range all {
		recorded[c.ID] = true
		seen := map[string]bool{}
		for _, name := range c.Volumes {
			if !seen[name] {
				used[name]++
				seen[name] = true
			}
		}
	}
	// Those of containers that are being made, or were when somebody was killed.
	ids, err := state.IDs(e.env.Containers())
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !recorded[id] {
			for _, name := range monitor.PlannedVolumes(e.env.Container(id)) {
				used[name]++
			}
		}
	}
	return used, nil
}

func volumeMatches(v *Volume, f Filter) bool {
	if values := f["dangling"]; len(values) > 0 {
		if want, _ := truth(values[0]); want != (v.Users == 0) {
			return false
		}
	}
	if values := f["driver"]; len(values) > 0 && !slices.Contains(values, "local") {
		return false
	}
	if values := f["name"]; len(values) > 0 && !slices.ContainsFunc(values, func(s string) bool { return strings.Contains(v.Name, s) || globOrSubstring(v.Name, s) }) {
		return false
	}
	for _, l := range f["label"] {
		if !labelMatches(v.Labels, l) {
			return false
		}
	}
	return true
}

// truth reads a filter's boolean.
func truth(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "1", "t", "true":
		return true, true
	case "0", "f", "false":
		return false, true
	}
	return false, false
}

// RemoveVolume removes a volume that no container has.
func (e *Engine) RemoveVolume(_ context.Context, name string) error {
	if _, err := e.volumes().Get(name); errors.Is(err, errs.NotFound) {
		return errs.New(errs.NotFound, "get %s: no such volume", name)
	}
	all, err := e.loadAll()
	if err != nil {
		return err
	}
	var users []string
	for _, c := range all {
		for _, v := range c.Volumes {
			if v == name && !slices.Contains(users, c.ID) {
				users = append(users, c.ID)
			}
		}
	}
	if len(users) > 0 {
		return errs.New(errs.Conflict, "remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	return e.removeVolume(name)
}

// PruneVolumes removes the volumes that no container has: the anonymous ones,
// or all. Filters are label and label!.
func (e *Engine) PruneVolumes(_ context.Context, f Filter, all bool) (removed []string, bytes int64, Err error) {
	for key, values := range f {
		switch key {
		case "label", "label!":
		case "all":
			want, ok := truth(values[0])
			if !ok {
				return nil, 0, errs.New(errs.Invalid, "invalid filter 'all=%s'", values[0])
			}
			all = all || want
		default:
			return nil, 0, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	// First what there is, then who has it: what is made meanwhile is not on the list.
	vols, err := e.volumes().List()
	if err != nil {
		return nil, 0, err
	}
	used, err := e.volumeUsers()
	if err != nil {
		return nil, 0, err
	}
	for _, v := range vols {
		_, anonymous := v.Labels[anonymousLabel]
		if used[v.Name] > 0 || !anonymous && !all || !labelsSelected(v.Labels, f) {
			continue
		}
		size, err := e.volumeSize(v.Name)
		if err != nil {
			size = 0 // not known, which is no reason to keep it
		}
		if err := e.removeVolume(v.Name); err != nil {
			if !errors.Is(err, errs.NotFound) { // somebody else did it
				Err = errors.Join(Err, err)
			}
			continue
		}
		removed = append(removed, v.Name)
		bytes += size
	}
	e.tell("volume", "prune", "", map[string]string{"reclaimed": strconv.FormatInt(bytes, 10)})
	return removed, bytes, Err
}

// labelsSelected applies the filters label and label! of a prune.
func labelsSelected(labels map[string]string, f Filter) bool {
	for _, l := range f["label"] {
		if !labelMatches(labels, l) {
			return false
		}
	}
	for _, l := range f["label!"] {
		if labelMatches(labels, l) {
			return false
		}
	}
	return true
}

// volumeSize is what a volume's files take on disk.
func (e *Engine) volumeSize(name string) (int64, error) {
	return e.treeSize(filepath.Clean(e.volumes().Path(name)))
}
