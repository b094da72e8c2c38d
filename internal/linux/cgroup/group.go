package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Group is the control groups of one container: one directory in the v2
// hierarchy, if there is one, and one in each v1 hierarchy that its limits need.
// A Group with no directory at all is fine too: nothing can be limited or
// paused, and ending the processes is the caller's business.
//
// A Group is not for use by several goroutines at once.
type Group struct {
	paths    Paths
	dir      *os.File
	warnings []string
	start    func(pid int) error // makes what can only be made for a process (systemd units)
	above    *int64              // see limitAbove
	seen     *seen               // see Stats
}

// Paths says where a Group is, in a form that can be kept in a file.
type Paths struct {
	Manager, Unit, V2 string
	V1                map[string]string // controller to directory
}

// The managers.
const (
	Cgroupfs = "cgroupfs" // directories made by isle
	Systemd  = "systemd"  // directories made by isle below a unit
)

// Open returns the Group at p. Nothing is checked: the directories may be gone.
func Open(p Paths) *Group { return &Group{paths: p} }

// Paths returns where the group is. Update may add to it.
func (g *Group) Paths() Paths { return g.paths }

// Empty reports whether the group has no directory in any hierarchy.
func (g *Group) Empty() bool { return g.paths.V2 == "" && len(g.paths.V1) == 0 }

// Warnings returns what was asked for and left out, in Docker's words.
func (g *Group) Warnings() []string { return g.warnings }

func (g *Group) warn(text string) {
	if !slices.Contains(g.warnings, text) {
		g.warnings = append(g.warnings, text)
	}
}

// File returns the v2 directory, opened for CLONE_INTO_CGROUP, or nil if there
// is none. It belongs to the Group; Close closes it. A calling process that may
// not put children there from where it is, as an ordinary user's exec from a
// login session, is moved beside the group first.
func (g *Group) File() *os.File {
	if g.dir == nil && g.paths.V2 != "" {
		_ = g.reach() // clone3 says EACCES if that failed
		fd, err := retry(func() (int, error) {
			return unix.Open(g.paths.V2, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			return nil
		}
		g.dir = os.NewFile(uintptr(fd), g.paths.V2)
	}
	return g.dir
}

// Close releases the descriptor of File; the group stays.
func (g *Group) Close() error {
	if g.dir == nil {
		return nil
	}
	f := g.dir
	g.dir = nil
	return f.Close()
}

// v1dirs returns the v1 directories, each once: controllers can share one.
func (g *Group) v1dirs() []dir {
	var out []dir
	for _, d := range g.paths.V1 {
		if !slices.Contains(out, dir(d)) {
			out = append(out, dir(d))
		}
	}
	slices.Sort(out)
	return out
}

// all returns every directory of the group.
func (g *Group) all() []dir {
	out := g.v1dirs()
	if g.paths.V2 != "" {
		out = append(out, dir(g.paths.V2))
	}
	return out
}

// JoinFiles opens the files through which a process of one thread joins the v1
// hierarchies cheaply: it writes "0" to each (see the package comment). The
// caller closes them.
func (g *Group) JoinFiles() ([]*os.File, error) {
	var files []*os.File
	for _, d := range g.v1dirs() {
		path := d.file("tasks")
		fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
		if err != nil {
			for _, f := range files {
				_ = f.Close() // nothing was written
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		files = append(files, os.NewFile(uintptr(fd), path))
	}
	return files, nil
}

// Attach moves a process into the group, in every hierarchy where it is not yet.
// It may take some 10 ms, once for all of them: the lock stays cheap for a moment
// after it was taken. For a process that was born into the v2 group and joined
// the others by itself it only looks.
func (g *Group) Attach(pid int) error {
	if g.start != nil {
		if err := g.start(pid); err != nil {
			return fmt.Errorf("unable to apply cgroup configuration: %w", err)
		}
		g.start = nil
	}
	if g.Empty() {
		return nil
	}
	list, err := memberships(strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("cgroup: attach process %d: %w", pid, err)
	}
	for controller, d := range g.byController() {
		// The name of the group is the container's id, so it tells enough.
		if m, ok := on(list, controller); ok && dir(m.path).base() == d.base() {
			continue
		}
		if err := attach(d, pid); err != nil {
			return fmt.Errorf("cgroup: attach process %d: %w", pid, err)
		}
	}
	return nil
}

// byController yields one controller for each directory, "" for v2.
func (g *Group) byController() iter.Seq2[string, dir] {
	return func(yield func(string, dir) bool) {
		var seen []dir
		for controller, d := range g.paths.V1 {
			if !slices.Contains(seen, dir(d)) {
				seen = append(seen, dir(d))
				if !yield(controller, dir(d)) {
					return
				}
			}
		}
		if g.paths.V2 != "" {
			yield("", dir(g.paths.V2))
		}
	}
}

func attach(d dir, pid int) error {
	err := d.write("cgroup.procs", strconv.Itoa(pid))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errs.Hint(err, "cgroup "+string(d.up())+" is in threaded mode or an invalid domain, where containers cannot live")
	case errors.Is(err, unix.EINVAL) && d.exists("cpu.rt_runtime_us"):
		return errs.Hint(err, "a realtime process needs --cpu-rt-runtime here")
	}
	return err
}

// Procs returns the processes in the group and in groups below it. Those of
// other pid namespaces, which have no number here, are left out.
func (g *Group) Procs() ([]int, error) {
	// Every process is in every hierarchy, so one tells all. v2 first: there
	// nothing can leave to above what was delegated.
	for _, d := range slices.Backward(g.all()) {
		pids, err := procs(d)
		slices.Sort(pids)
		return slices.Compact(pids), err
	}
	return nil, nil
}

func procs(d dir) ([]int, error) {
	text, err := d.read("cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		text, err = d.read("cgroup.threads") // a threaded group made inside
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return nil, nil // removed meanwhile
	case err != nil:
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(text) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	for _, sub := range d.children() {
		more, err := procs(sub)
		if err != nil {
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

// children returns the groups directly below d.
func (d dir) children() []dir {
	// The link count of a directory of kernfs is that of its subdirectories and 2.
	var st unix.Stat_t
	if unix.Stat(string(d), &st) == nil && st.Nlink == 2 {
		return nil
	}
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil
	}
	var out []dir
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, d.join(e.Name()))
		}
	}
	return out
}

// patience bounds how long Kill, Freeze and Delete wait for the kernel.
const patience = 2 * time.Second

// await calls done until it reports true, at first often.
func await(done func() (bool, error)) (bool, error) {
	for pause, end := 50*time.Microsecond, time.Now().Add(patience); ; pause = min(2*pause, 20*time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return ok, err
		}
		if time.Now().After(end) {
			return false, nil
		}
		time.Sleep(pause)
	}
}

// Kill sends SIGKILL to every process in the group, also to those that are
// being forked and to frozen ones. It does not wait for their end.
func (g *Group) Kill() error {
	if v2 := dir(g.paths.V2); v2 != "" {
		err := v2.write(killFile, "1")
		switch {
		case err == nil && g.paths.V1["freezer"] != "" && frozen(dir(g.paths.V1["freezer"])):
			return g.Thaw() // v1 keeps frozen processes from dying
		case err == nil, !v2.exists("cgroup.procs"):
			return nil
		case !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("cgroup: kill: %w", err)
		}
	}
	return g.killEach()
}

// killFile is cgroup.kill (Linux 5.14); a test forces what is done without it.
var killFile = "cgroup.kill"

// killEach kills one by one: frozen, so that none can fork meanwhile, if the
// group can be frozen; else again and again until there is none.
func (g *Group) killEach() error {
	frozen := g.Freeze() == nil
	var first error
	_, err := await(func() (bool, error) {
		pids, err := g.Procs()
		if err != nil {
			return false, err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH && first == nil {
				first = fmt.Errorf("cgroup: kill process %d: %w", pid, err)
			}
		}
		return frozen || len(pids) == 0 || first != nil, nil
	})
	if frozen {
		// v1 keeps frozen processes from dying.
		err = errors.Join(err, g.Thaw())
	}
	return errors.Join(first, err)
}

// Freeze stops all processes of the group until Thaw, and waits until they are.
func (g *Group) Freeze() error { return g.freeze(true) }

// Thaw lets a frozen group go on.
func (g *Group) Thaw() error { return g.freeze(false) }

func (g *Group) freeze(on bool) error {
	verb, number, state := "thaw", "0", "THAWED"
	if on {
		verb, number, state = "freeze", "1", "FROZEN"
	}
	v2, v1 := dir(g.paths.V2), dir(g.paths.V1["freezer"])
	var write, done func() error
	var settled func() (bool, error)
	switch {
	case v1 == "" && v2 != "" && v2.exists("cgroup.freeze"):
		write = func() error { return v2.write("cgroup.freeze", number) }
		settled = func() (bool, error) {
			text, err := v2.read("cgroup.events")
			return strings.Contains(text, "frozen "+number), err
		}
		done = func() error { return v2.write("cgroup.freeze", "0") }
	case v1 != "":
		write = func() error { return v1.write("freezer.state", state) }
		settled = func() (bool, error) {
			now, err := v1.read("freezer.state")
			if err == nil && now == "FREEZING" {
				// A process that forks while being frozen escapes; asking again gets it.
				err = v1.write("freezer.state", state)
			}
			return now == state, err
		}
		done = func() error { return v1.write("freezer.state", "THAWED") }
	default:
		return errs.New(errs.Unsupported, "cgroup: %s: the container has no cgroup that can be frozen", verb)
	}
	if err := write(); err != nil {
		return fmt.Errorf("cgroup: %s: %w", verb, err)
	}
	ok, err := await(settled)
	if err == nil && !ok {
		err = errs.New(errs.Unavailable, "not done after %v", patience)
	}
	if err == nil {
		return nil
	}
	if on {
		err = errors.Join(err, done())
	}
	return fmt.Errorf("cgroup: %s: %w", verb, err)
}

// Delete removes the group's directories and those that were made below them
// from inside. The processes must have ended; it waits a little for the last to
// go. What is already gone is no error.
func (g *Group) Delete() error {
	_ = g.Close() // no data in it
	var all error
	for _, d := range g.all() {
		_, err := await(func() (bool, error) {
			err := remove(d)
			if errors.Is(err, unix.EBUSY) {
				return false, nil
			}
			return err == nil, err
		})
		if err == nil {
			// Parents made for --cgroup-parent go with the last that lived there.
			for p := d.up(); p.marked() && unix.Rmdir(string(p)) == nil; p = p.up() {
			}
		}
		if own := g.paths.Unit; err == nil && own != "" && d.base() == own {
			if mgr, derr := dial(hostUID() != 0); derr == nil {
				mgr.stopUnit(own)
				mgr.close()
			}
		}
		if err == nil && d.exists("cgroup.procs") {
			pids, _ := procs(d) // only to say more
			err = errs.New(errs.Conflict, "remove cgroup %s: still in use by processes %v", d, pids)
		}
		all = errors.Join(all, err)
	}
	return all
}

// remove removes d and what is below, deepest first.
func remove(d dir) error {
	err := unix.Rmdir(string(d))
	if err == unix.EBUSY || err == unix.ENOTEMPTY {
		for _, sub := range d.children() {
			if err := remove(sub); err != nil {
				return err
			}
		}
		err = unix.Rmdir(string(d))
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return &os.PathError{Op: "rmdir", Path: string(d), Err: err}
}
