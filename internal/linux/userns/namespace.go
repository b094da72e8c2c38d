package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
)

// Namespace is the user's own user namespace and the mount namespace in it.
type Namespace struct {
	User  *os.File // nil when the caller is inside already
	Mount *os.File // nil when the caller is inside already
	// UIDs and GIDs are the mappings, HostID as the user sees it outside.
	UIDs, GIDs []specs.LinuxIDMapping
	// Holder is the process that keeps the namespaces.
	Holder int
	// Advice are sentences about a worse mapping than could be had. They are
	// given by the call that created the namespaces only: once, not always.
	Advice []string
}

// SingleID reports whether just the user's own id is mapped, as 0.
func (n *Namespace) SingleID() bool { return size(n.UIDs) <= 1 || size(n.GIDs) <= 1 }

// Join is how a child enters: the user namespace first, as it gives the right to
// enter the other. Inside already, there is nothing to join.
func (n *Namespace) Join() []program.Join {
	if n == nil || n.User == nil {
		return nil
	}
	return []program.Join{{File: n.User, Type: unix.CLONE_NEWUSER}, {File: n.Mount, Type: unix.CLONE_NEWNS}}
}

// Close closes the files. The namespaces live on.
func (n *Namespace) Close() {
	if n == nil {
		return
	}
	if n.User != nil {
		_ = n.User.Close() // nothing to lose
	}
	if n.Mount != nil {
		_ = n.Mount.Close() // nothing to lose
	}
}

func size(maps []specs.LinuxIDMapping) uint64 {
	var n uint64
	for _, m := range maps {
		n += uint64(m.Size)
	}
	return n
}

// Ensure returns the namespaces of the user with these ids (as seen where isle
// was called), creating them when there are none. dir belongs to the user and
// is made when it is missing. The caller closes the result.
//
// A caller that is inside already gets a Namespace without files.
func Ensure(dir string, uid, gid int) (*Namespace, error) {
	r, err := readRecord(dir)
	if err == nil {
		if os.Getuid() != uid && r.inside() {
			return &Namespace{UIDs: r.uids, GIDs: r.gids, Holder: r.pid}, nil
		}
		if r.fingerprint == 0 || r.fingerprint == fingerprint() {
			if n, err := r.open(uid); err == nil {
				return n, nil
			}
		}
	}
	return ensureSlow(dir, uid, gid)
}

// ensureSlow finds or makes the namespaces under the lock.
func ensureSlow(dir string, uid, gid int) (*Namespace, error) {
	if os.Getuid() != uid {
		return nil, errs.New(errs.Conflict, "user namespace of uid %d: called by uid %d from outside it", uid, os.Getuid())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()

	r, err := readRecord(dir)
	if err != nil {
		r, err = adopt(dir)
	}
	if err == nil {
		n, err := r.open(uid)
		if err != nil {
			n, err = rejoin(dir, r, uid)
		}
		switch {
		case err != nil: // made anew below
		case r.fingerprint == 0 || r.fingerprint == fingerprint():
			return n, nil
		case occupied(r):
			// What the single id was for has changed, but containers live there.
			n.Advice = []string{"ids have been given to this user since; stop the running containers and the next one will use them"}
			r.fingerprint = fingerprint()
			return n, r.write(dir)
		default:
			n.Close()
			if err := stop(dir, r); err != nil {
				return nil, err
			}
		}
	}
	plan, err := planMaps(uid, gid)
	if err != nil {
		return nil, err
	}
	if r, err = create(dir, plan); err != nil {
		return nil, err
	}
	n, err := r.open(uid)
	if err != nil {
		return nil, fmt.Errorf("user namespace of uid %d: open the new one: %w", uid, err)
	}
	n.Advice = plan.advice
	return n, nil
}

// Stop ends the holder recorded in dir, and with it the namespaces, unless
// another process is in them. A container that is being started meanwhile has
// them, and the next one new ones.
func Stop(dir string) error {
	unlock, err := lock(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // never was one
	}
	if err != nil {
		return err
	}
	defer unlock()
	r, err := readRecord(dir)
	if err != nil {
		r, err = adopt(dir)
	}
	if err != nil {
		return nil // no record and no holder: nothing to stop
	}
	if occupied(r) {
		return nil
	}
	return stop(dir, r)
}

func stop(dir string, r *record) error {
	// A pidfd, so that the process whose start time is checked is the one that
	// is killed.
	fd, err := unix.PidfdOpen(r.pid, 0)
	if err == nil {
		if start, serr := startTime(r.pid); serr == nil && start == r.start {
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		_ = unix.Close(fd)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("end user namespace holder %d: %w", r.pid, err)
	}
	if err := os.Remove(filepath.Join(dir, recordName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// lock takes the lock on dir for the time of a creation or removal.
func lock(dir string) (unlock func(), err error) {
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close() // the first error says why
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// open opens the recorded namespaces, or says why they are not there any more.
func (r *record) open(uid int) (*Namespace, error) {
	base := "/proc/" + strconv.Itoa(r.pid)
	user, err := openNS(base+"/ns/user", r.userID)
	if err != nil {
		return nil, err
	}
	mount, err := openNS(base+"/ns/mnt", r.mountID)
	if err != nil {
		_ = unix.Close(user)
		return nil, err
	}
	// The start time is read after the files were opened: if it is right now,
	// the process was the right one then.
	start, err := startTime(r.pid)
	if err == nil && start != r.start {
		err = errs.New(errs.NotFound, "process %d: another one", r.pid)
	}
	if err == nil {
		err = checkOwner(user, uid)
	}
	if err != nil {
		_ = unix.Close(user)
		_ = unix.Close(mount)
		return nil, err
	}
	return &Namespace{
		User: os.NewFile(uintptr(user), "user namespace"), Mount: os.NewFile(uintptr(mount), "mount namespace"),
		UIDs: r.uids, GIDs: r.gids, Holder: r.pid,
	}, nil
}

// openNS opens a namespace file and checks its identity.
func openNS(name string, id uint64) (int, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != id {
		_ = unix.Close(fd)
		return -1, errs.New(errs.NotFound, "%s: another namespace", name)
	}
	return fd, nil
}

// inside reports whether the calling process is in the recorded user namespace.
func (r *record) inside() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino == r.userID
}
