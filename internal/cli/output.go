package cli

import (
	"crypto/rand"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// archiveTo has f write an archive to the file output, or to the standard output
// if output is "". A file that is there stays as it is until the archive is whole.
func (c *call) archiveTo(output string, f func(out *os.File) error) error {
	if output == "" {
		if tty.IsTerminal(c.out) {
			return errs.New(errs.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return f(c.out)
	}
	// A device or FIFO is written to as it is.
	if fi, err := os.Stat(output); err == nil && !fi.Mode().IsRegular() {
		file, err := os.OpenFile(output, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return fromFile(output, errors.Join(f(file), file.Close()))
	}
	dir := dirOf(output)
	failed := func(err error) error {
		if p, ok := errors.AsType[*os.PathError](err); ok {
			err = p.Err
		}
		return &os.PathError{Op: "create", Path: output, Err: err}
	}
	// Without a name until it is whole: a killed command leaves nothing.
	file, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o666)
	named := ""
	if err != nil {
		// A file system that has no such files, NFS for one (open(2)).
		if file, err = os.CreateTemp(dir, ".isle-"); err != nil {
			return failed(err)
		}
		named = file.Name()
		if err := os.Chmod(named, 0o666&^umask()); err != nil { // CreateTemp is for secrets
			return errors.Join(failed(err), file.Close(), os.Remove(named))
		}
	}
	defer file.Close() // a second time, after a success
	if named != "" {
		defer os.Remove(named) //nolint:errcheck // it is renamed, or of no use
	}
	if err := f(file); err != nil {
		return fromFile(output, err)
	}
	if named == "" {
		// It cannot be linked over a file that is there; a rename replaces one.
		named = dir + "/.isle-" + rand.Text()
		if err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(file.Fd())), unix.AT_FDCWD, named, unix.AT_SYMLINK_FOLLOW); err != nil {
			return failed(err)
		}
	}
	// NFS tells only now what became of the data.
	err = file.Close()
	if err == nil {
		err = os.Rename(named, output)
	}
	if err != nil {
		_ = os.Remove(named) // of no use
		return failed(err)
	}
	return nil
}

// umask returns the process's umask, which can only be read by changing it.
func umask() os.FileMode {
	m := unix.Umask(0o077)
	unix.Umask(m)
	return os.FileMode(m)
}
