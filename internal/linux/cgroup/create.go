package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Request says which group to make.
type Request struct {
	// Parent is where to make it (--cgroup-parent): "" for below the caller's own
	// group, a relative path for below that, an absolute one for from the root of
	// each hierarchy. With Systemd it is a slice.
	Parent string
	// Name is the container's id.
	Name string
	// Resources are the limits; nil for none.
	Resources *specs.LinuxResources
	// Systemd asks for a scope unit of the container's own, as the runtimes'
	// --systemd-cgroup does. The calling process is moved into it. On v1, where
	// systemd does not own the controllers, it changes nothing.
	Systemd bool
	// Rootless: the caller is not root of the machine, though perhaps of a user
	// namespace. Devices are not filtered, which such a container cannot make.
	Rootless bool
}

// Create makes the group and writes its limits. Nothing is in it yet. An error
// leaves nothing behind.
func (h *Host) Create(r Request) (_ *Group, Err error) {
	if r.Name == "" || strings.ContainsAny(r.Name, "/\x00") || strings.HasPrefix(r.Name, ".") {
		return nil, errs.New(errs.Invalid, "cgroup name %q: not a plain name", r.Name)
	}
	if strings.ContainsRune(r.Parent, 0) || slices.Contains(strings.Split(r.Parent, "/"), "..") {
		return nil, errs.New(errs.Invalid, "cgroup parent %q: must not contain \"..\"", r.Parent)
	}
	if r.Systemd && r.Parent != "" && (!strings.HasSuffix(r.Parent, ".slice") || strings.Contains(r.Parent, "/")) {
		return nil, errs.New(errs.Invalid, "cgroup parent %q: with systemd it is the name of a slice, as machine.slice", r.Parent)
	}
	if r.Systemd && h.mode != "v2" {
		r.Systemd, r.Parent = false, ""
	}
	g := &Group{paths: Paths{Manager: Cgroupfs}}
	m := maker{host: h, request: r, group: g}
	defer func() {
		if Err != nil {
			_ = g.Close() // no data in it
			Err = errors.Join(Err, m.undo())
		}
	}()
	for _, n := range needs(r.Resources, false) {
		if h.isV1(n.controller) {
			m.v1 = append(m.v1, n)
		} else {
			m.v2 = append(m.v2, n)
		}
	}
	if r.Resources != nil {
		for name := range r.Resources.Unified {
			if err := checkUnified(name); err != nil {
				return nil, err
			}
			controller, _, _ := strings.Cut(name, ".")
			if controller == "cgroup" {
				continue // every group has it
			}
			if h.isV1(controller) {
				return nil, errs.New(errs.Unsupported, "cgroup file %s: the %s controller is on cgroup v1 here", name, controller)
			}
			m.v2 = append(m.v2, need{controller, "cgroup file " + name})
		}
	}
	if err := m.makeV2(); err != nil {
		return nil, err
	}
	if err := m.makeDevices(); err != nil {
		return nil, err
	}
	if g.paths.V2 == "" && h.mode == "v1" && len(m.v1) == 0 && h.isV1("freezer") && !r.Rootless {
		m.v1 = append(m.v1, need{"freezer", "pausing"})
	}
	for _, n := range m.v1 {
		if err := m.makeV1(n); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// maker is one run of Create.
type maker struct {
	host    *Host
	request Request
	group   *Group
	v1, v2  []need
	made    []dir // to be removed on failure
	noGroup error // why a container without limits has no v2 group
}

// prefix marks the directories of containers.
const prefix = "isle-"

// place makes the container's directory below a hierarchy's own location, or
// below a parent that was named, which it makes too.
func (m *maker) place(own location) (parent location, group dir, err error) {
	for range 3 {
		if parent, err = m.under(own); err != nil {
			return parent, "", err
		}
		group = parent.dir.join(prefix + m.request.Name)
		// The end of another container may take away the parent right now.
		if err = m.mkgroup(group); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return parent, group, err
}

// under returns the directory for the container's group, making a parent that
// was named.
func (m *maker) under(own location) (location, error) {
	parent := own
	if m.request.Systemd {
		return parent, nil // a slice's name says nothing about directories
	}
	if strings.HasPrefix(m.request.Parent, "/") {
		parent.dir = own.mount
	}
	for part := range strings.SplitSeq(m.request.Parent, "/") {
		if part == "" || part == "." {
			continue
		}
		parent.dir = parent.dir.join(part)
		switch err := m.mkdir(parent.dir); {
		case err == nil:
			parent.dir.mark()
		case !errors.Is(err, unix.EEXIST):
			return location{}, err
		}
	}
	return parent, nil
}

// Extended attributes of a directory that was made as a named parent, so that
// the last container below it takes it away: one for root, one for others, who
// can set it on v2 only.
const (
	markRoot = "trusted.isle.parent"
	markUser = "user.isle.parent"
)

func (d dir) mark() {
	if unix.Setxattr(string(d), markRoot, []byte("1"), 0) != nil {
		_ = unix.Setxattr(string(d), markUser, []byte("1"), 0) // then it stays, as with other engines
	}
}

func (d dir) marked() bool {
	for _, name := range [...]string{markRoot, markUser} {
		if n, err := unix.Getxattr(string(d), name, nil); err == nil && n > 0 {
			return true
		}
	}
	return false
}

func (m *maker) mkdir(d dir) error {
	if err := unix.Mkdir(string(d), 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: string(d), Err: err}
	}
	m.made = append(m.made, d)
	return nil
}

// undo removes what was made. A named parent may hold others' groups by now, and
// then stays.
func (m *maker) undo() error {
	var all error
	for _, d := range slices.Backward(m.made) {
		if d.base() == prefix+m.request.Name {
			all = errors.Join(all, remove(d))
		} else {
			_ = unix.Rmdir(string(d))
		}
	}
	m.made = nil
	return all
}

// mkgroup makes the container's directory. One that was left by a run of the
// same container that was killed is made anew, so that nothing is inherited.
func (m *maker) mkgroup(d dir) error {
	err := m.mkdir(d)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if rerr := remove(d); rerr != nil {
		return errs.New(errs.Conflict, "cgroup of container %s: %s is in use: %w", m.request.Name, d, rerr)
	}
	return m.mkdir(d)
}

// makeV1 makes the group of one v1 controller and writes its limits.
func (m *maker) makeV1(n need) error {
	own, err := m.host.ownIn(n.controller)
	if err != nil {
		return fmt.Errorf("%s: %w", n.what, err)
	}
	d, parent := dir(""), location{}
	for other, path := range m.group.paths.V1 {
		if o, err := m.host.ownIn(other); err == nil && o == own {
			d, parent = dir(path), location{dir(path).up(), own.mount} // made for a controller of the same hierarchy
		}
	}
	if d == "" {
		if parent, d, err = m.place(own); err != nil {
			return m.refused(n, err)
		}
	}
	if err := checkAncestors(parent, n.controller, false, m.request.Resources); err != nil {
		return err
	}
	if m.group.paths.V1 == nil {
		m.group.paths.V1 = map[string]string{}
	}
	m.group.paths.V1[n.controller] = string(d)
	return m.group.limitV1(d, own.mount, n.controller, m.request.Resources)
}

// limitV1 writes the limits of one controller into a new v1 group.
func (g *Group) limitV1(d, mount dir, controller string, r *specs.LinuxResources) error {
	if controller == "freezer" || controller == "devices" {
		return nil
	}
	if err := g.apply(d, controller, false, r); err != nil {
		return err
	}
	if controller == "cpuset" {
		return fail("cpuset", inheritCpuset(d, mount))
	}
	return nil
}

// refused explains why a v1 directory could not be made.
func (m *maker) refused(n need, err error) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		err = errs.As(errs.Denied, fmt.Errorf("%s: the %s controller is on cgroup v1, where this user may not make groups: %w", n.what, n.controller, err))
		return errs.Hint(err,
			"cgroup v2 can be given to ordinary users: boot with systemd.unified_cgroup_hierarchy=1",
			"or run the container without this limit, or as root")
	}
	return fmt.Errorf("%s: %w", n.what, err)
}
