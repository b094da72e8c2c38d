package state

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// nameLock is the file in a names directory under which names are taken away.
const nameLock = ".lock"

// nameWait bounds the wait for it; it is held for a few system calls only.
const nameWait = 10 * time.Second

// Reserve gives name to id. When somebody has the name, the error is Exists and
// tells who.
func Reserve(namesDir, name, id string) error {
	if err := checkName(name); err != nil {
		return err
	}
	for {
		err := unix.Symlink(id, filepath.Join(namesDir, name))
		if err == nil {
			return nil
		}
		if err != unix.EEXIST {
			return &fs.PathError{Op: "reserve name", Path: filepath.Join(namesDir, name), Err: err}
		}
		switch owner, err := Lookup(namesDir, name); {
		case errs.KindOf(err) == errs.NotFound:
			continue // released meanwhile
		case err != nil:
			return err
		case owner != id:
			return errs.New(errs.Exists, "name %q: in use by container %s", name, owner)
		}
		return nil
	}
}

// Lookup returns whose name it is; NotFound when it is nobody's.
func Lookup(namesDir, name string) (id string, err error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	path := filepath.Join(namesDir, name)
	var buf [128]byte
	n, err := unix.Readlink(path, buf[:])
	switch {
	case err == unix.ENOENT:
		return "", errs.New(errs.NotFound, "name %q: %w", name, errs.NotFound)
	case err == unix.EINVAL:
		return "", errs.New(errs.Corrupt, "name %q: not a symbolic link", path)
	case err != nil:
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	case !IsID(string(buf[:n])):
		return "", errs.New(errs.Corrupt, "name %q: leads to %q, which is no container id", path, buf[:n])
	}
	return string(buf[:n]), nil
}

// Release takes name away from id. It is not an error when id does not have it.
func Release(namesDir, name, id string) error {
	return forget(namesDir, name, func(owner string) bool { return owner == id })
}

// Rename gives id the name newName in place of oldName. commit writes the
// container's record with the new name; while it runs, both names lead to the
// container, and if it fails, or the process dies before it is done, the old
// one still does. What is left over after a crash is for [ForgetStale].
func Rename(namesDir, oldName, newName, id string, commit func() error) error {
	if oldName == newName {
		return nil
	}
	if err := Reserve(namesDir, newName, id); err != nil {
		return err
	}
	if err := commit(); err != nil {
		_ = Release(namesDir, newName, id) // the failure of commit is what the caller must know
		return err
	}
	return Release(namesDir, oldName, id)
}

// ForgetStale takes name away when it leads to a container that does not exist,
// or that itself says it has another name (keep returns false), and reports
// whether it did. keep may be nil.
func ForgetStale(namesDir, containersDir, name string, keep func(id string) bool) (bool, error) {
	done := false
	err := forget(namesDir, name, func(owner string) bool {
		var st unix.Stat_t
		err := unix.Lstat(filepath.Join(containersDir, owner), &st)
		done = err == unix.ENOENT || err == nil && keep != nil && !keep(owner)
		return done
	})
	return done && err == nil, err
}

// forget removes the link name if cond agrees. Every removal happens under the
// lock of the directory, so the link that was looked at is the one removed:
// nobody else can have removed it and made another in between.
func forget(namesDir, name string, cond func(owner string) bool) error {
	l, err := LockFile(filepath.Join(namesDir, nameLock), true, nameWait)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // nothing written
	owner, err := Lookup(namesDir, name)
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if !cond(owner) {
		return nil
	}
	path := filepath.Join(namesDir, name)
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "release name", Path: path, Err: err}
	}
	return nil
}

// Names returns all names with their owners; damaged ones are left out.
func Names(namesDir string) (map[string]string, error) {
	list, err := readNames(namesDir)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(list))
	for _, n := range list {
		if id, err := Lookup(namesDir, n); err == nil {
			out[n] = id
		}
	}
	return out, nil
}

// checkName keeps a name from being a path. What makes a good name is decided
// by who takes it from the user.
func checkName(name string) error {
	if name == "" || name[0] == '.' || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return errs.New(errs.Invalid, "name %q: not usable as a name", name)
	}
	return nil
}

// Resolve returns the id of the container that the user calls ref: a full id,
// a name (with or without the slash that Docker's API puts before it), or the
// beginning of just one id, in that order.
func Resolve(containersDir, namesDir, unsafeRef string) (id string, err error) {
	ref := strings.TrimPrefix(unsafeRef, "/")
	if IsID(ref) && exists(filepath.Join(containersDir, ref)) {
		return ref, nil
	}
	if checkName(ref) == nil {
		id, err := Lookup(namesDir, ref)
		if err == nil && exists(filepath.Join(containersDir, id)) {
			return id, nil
		}
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return "", err
		}
	}
	if !isHex(ref) || len(ref) > 64 {
		return "", errs.New(errs.NotFound, "No such container: %s", unsafeRef)
	}
	all, err := readNames(containersDir)
	if err != nil {
		return "", err
	}
	for _, n := range all {
		if !IsID(n) || !strings.HasPrefix(n, ref) {
			continue
		}
		if id != "" {
			return "", errs.New(errs.Invalid, "Multiple IDs found with provided prefix: %s", unsafeRef)
		}
		id = n
	}
	if id == "" {
		return "", errs.New(errs.NotFound, "No such container: %s", unsafeRef)
	}
	return id, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
