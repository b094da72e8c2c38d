package runtime

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// UsualCause says what is behind most failures of the call that err tells of, ""
// where there is nothing usual about it. It is no hint: nobody has checked it.
func UsualCause(err error) string {
	var ce *CallError
	if !errors.As(err, &ce) {
		return ""
	}
	if h := errs.Hints(err); len(h) > 0 {
		return strings.Join(h, "; ")
	}
	step := ce.Step.Verb
	switch {
	case ce.Exec && ce.Errno == unix.ENOENT:
		return "the command is not in the image, or its interpreter or loader is not"
	case ce.Exec && ce.Errno == unix.EACCES:
		return "the file is not executable, or lies on a mount with noexec"
	case ce.Exec && ce.Errno == unix.ENOEXEC:
		return "a binary for another processor, or a script without #!"
	case ce.Errno == unix.ENOSPC && (ce.Name == "clone3" || ce.Name == "unshare"):
		return "the limit of namespaces is reached (sysctl user.max_*_namespaces)"
	case ce.Errno == unix.EAGAIN && ce.Name == "clone3":
		return "the limit of processes is reached (ulimit -u, or pids.max of the group around)"
	case ce.Errno == unix.ENOMEM:
		return "no memory, or the limit of mounts is reached (sysctl fs.mount-max)"
	case ce.Errno == unix.EPERM && (ce.Name == "clone3" || ce.Name == "unshare"):
		return "user namespaces are switched off for ordinary users (isle info says which setting)"
	case step == "mount" && ce.Errno == unix.ENOENT:
		return "the source of the mount is not there"
	case step == "mount" && ce.Errno == unix.EACCES:
		return "a directory on the way to the source is closed to this user"
	case step == "mount" && ce.Errno == unix.EPERM:
		return "the kernel does not let a user namespace mount this, or with these options"
	case step == "mount" && ce.Errno == unix.EROFS:
		return "the place for the mount is missing in a read-only file system"
	case step == "mount" && ce.Errno == unix.EINVAL:
		return "an option that this file system does not know"
	case step == "sysctl":
		return "this kernel has no such setting, or the value is not one of it"
	case step == "device" && ce.Errno == unix.ENOENT:
		return "the host has no such device"
	case step == "user" && ce.Errno == unix.EINVAL:
		return "the id is not in the container's id map (/etc/subuid gives ranges)"
	case step == "limit" && ce.Errno == unix.EPERM:
		return "the limit is above the hard limit that isle itself has"
	case step == "working directory":
		return "the directory is a file in the image, or is closed to the user"
	}
	return ""
}
