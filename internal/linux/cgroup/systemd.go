package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// sharedUnit is the scope below which all containers of a manager live that need
// controllers and whose callers cannot give them. It exists while a process is
// in it.
const (
	sharedUnit  = "isle.scope"
	sharedSlice = "isle.slice"
)

// manager is a systemd: the system's or a user's.
type manager struct {
	*bus
	user bool
}

// dial connects to the systemd that may make groups for the caller.
func dial(rootless bool) (*manager, error) {
	if !rootless {
		b, err := dialBus("/run/systemd/private", true)
		if err != nil {
			var berr error
			if b, berr = dialBus("/run/dbus/system_bus_socket", false); berr != nil {
				return nil, err
			}
		}
		return &manager{b, false}, nil
	}
	// The variable is not set, or is another user's, after su or in cron, but the
	// directory exists with the user's manager.
	var first error
	for _, run := range [...]string{os.Getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", hostUID())} {
		if run == "" {
			continue
		}
		b, err := dialBus(run+"/systemd/private", true)
		if err != nil {
			var berr error
			if b, berr = dialBus(run+"/bus", false); berr != nil {
				if first == nil {
					first = err
				}
				continue
			}
		}
		return &manager{b, true}, nil
	}
	return nil, first
}

const (
	systemdName  = "org.freedesktop.systemd1"
	systemdPath  = "/org/freedesktop/systemd1"
	managerIface = "org.freedesktop.systemd1.Manager"
)

func (m *manager) method(name, signature string, body marshal) ([]byte, error) {
	return m.call(message{systemdName, systemdPath, managerIface, name, signature, body})
}

// delegated reports whether the unit that the calling process is in, whose
// directory has the name unit, was given its cgroup for its own use (Delegate=).
// Any doubt means no.
func (m *manager) delegated(unit string) bool {
	iface := systemdName + ".Scope"
	if strings.HasSuffix(unit, ".service") {
		iface = systemdName + ".Service"
	} else if !strings.HasSuffix(unit, ".scope") {
		return false
	}
	var body marshal
	body.u32(uint32(os.Getpid()))
	reply, err := m.method("GetUnitByPID", "u", body)
	if err != nil {
		return false
	}
	r := unmarshal{b: reply}
	path := r.str()
	body = marshal{}
	body.str(iface)
	body.str("Delegate")
	reply, err = m.call(message{systemdName, path, "org.freedesktop.DBus.Properties", "Get", "ss", body})
	if err != nil || r.err != nil {
		return false
	}
	r = unmarshal{b: reply}
	return r.sig() == "b" && r.u32() == 1 && r.err == nil
}

// startScope makes a transient scope with the calling process in it.
func (m *manager) startScope(unit, slice string) error {
	var b marshal
	b.str(unit)
	b.str("fail")
	b.array(8, func() {
		b.property("Description", "s", func() { b.str("isle containers") })
		b.property("Slice", "s", func() { b.str(slice) })
		b.property("Delegate", "b", func() { b.bool(true) })
		// The manager's default is a share of the system's tasks, for all containers
		// together, that nobody asked for.
		b.property("TasksMax", "t", func() { b.u64(^uint64(0)) })
		b.property("CollectMode", "s", func() { b.str("inactive-or-failed") })
		b.property("PIDs", "au", func() { b.array(4, func() { b.u32(uint32(os.Getpid())) }) })
	})
	b.array(8, func() {}) // no auxiliary units
	_, err := m.method("StartTransientUnit", "ssa(sv)a(sa(sv))", b)
	return err
}

// attach moves the calling process into a group below a delegated unit.
func (m *manager) attach(unit, below string) error {
	var b marshal
	b.str(unit)
	b.str(below)
	b.array(4, func() { b.u32(uint32(os.Getpid())) })
	_, err := m.method("AttachProcessesToUnit", "ssau", b)
	return err
}

// jobPatience bounds the wait for systemd to do what it has accepted.
const jobPatience = 10 * time.Second

// awaitUnit waits until the calling process is in the cgroup of unit, and
// returns where that is.
func (h *Host) awaitUnit(unit string) (location, error) {
	for end := time.Now().Add(jobPatience); ; time.Sleep(200 * time.Microsecond) {
		own, err := memberships("self")
		if err != nil {
			return location{}, err
		}
		h.own = own
		m, _ := on(own, "")
		if i := strings.Index(m.path+"/", "/"+unit+"/"); i >= 0 {
			l, err := h.ownIn("")
			if err != nil {
				return location{}, err
			}
			for l.dir.base() != unit && l.dir != l.mount {
				l.dir = l.dir.up()
			}
			// Not in a unit of that name that is root's, out of which su has come.
			if l.dir.writable("cgroup.subtree_control") {
				return l, nil
			}
		}
		if time.Now().After(end) {
			return location{}, errs.New(errs.Unavailable, "systemd: unit %s: not started after %v", unit, jobPatience)
		}
	}
}

// ownScope puts the calling process into a scope made for one container.
func (m *maker) ownScope(mgr *manager, slice string) (location, error) {
	unit := prefix + m.request.Name + ".scope"
	if err := mgr.startScope(unit, slice); err != nil {
		return location{}, scopeError(unit, err)
	}
	return m.entered(unit)
}

// entered waits until the calling process is in unit, and makes the unit's group
// ready to hand out controllers.
func (m *maker) entered(unit string) (location, error) {
	base, err := m.host.awaitUnit(unit)
	if err != nil {
		return location{}, err
	}
	m.group.paths.Manager, m.group.paths.Unit = Systemd, unit
	return base, evacuate(base.dir)
}

// sharedPatience bounds the wait for a shared scope that is just ending.
const sharedPatience = time.Second

// sharedScope puts the calling process into the shared scope, which it makes if
// there is none. The process stays there to hold it: a scope ends with its last
// process. It never goes in behind systemd's back, not even as root: it could
// meet a unit that has ended and would keep it from being made anew.
func (m *maker) sharedScope(mgr *manager) (location, error) {
	for end := time.Now().Add(sharedPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		err := mgr.startScope(sharedUnit, sharedSlice)
		if busErrorIs(err, ".UnitExists") {
			if err = mgr.attach(sharedUnit, "/"+callers); err != nil && !busErrorIs(err, ".AccessDenied") {
				continue // it is ending
			}
		}
		if err != nil {
			return location{}, scopeError(sharedUnit, err)
		}
		return m.entered(sharedUnit)
	}
	return m.ownScope(mgr, sharedSlice)
}

func busErrorIs(err error, suffix string) bool {
	be := (*busError)(nil)
	return errors.As(err, &be) && strings.HasSuffix(be.name, suffix)
}

// reach makes sure that the calling process may put children into a group below
// a unit: outside of it, an ordinary user may not, and systemd has to move the
// process to beside the group.
func (g *Group) reach() error {
	unit := g.paths.Unit
	if i := strings.Index(g.paths.V2, "/"+sharedUnit+"/"); unit == "" && i >= 0 {
		unit = sharedUnit // by a caller that was in it already
	}
	if unit == "" {
		return nil
	}
	h, err := Detect()
	if err != nil {
		return err
	}
	own, err := h.ownIn("")
	if err != nil || mayJoin(own.dir, dir(g.paths.V2)) == nil {
		return err
	}
	mgr, err := dial(hostUID() != 0)
	if err != nil {
		return err
	}
	defer mgr.close()
	if err := mgr.attach(unit, "/"+callers); err != nil {
		return scopeError(unit, err)
	}
	_, err = h.awaitUnit(unit)
	return err
}

// scopeError says what systemd answered.
func scopeError(unit string, err error) error {
	if busErrorIs(err, ".AccessDenied") {
		err = errors.Join(errs.As(errs.Denied, err), unix.EACCES)
	}
	return fmt.Errorf("systemd: unit %s: %w", unit, err)
}
