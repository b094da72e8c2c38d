package runtime

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/userns"
)

// CallError is a system call that failed; errors of Start and Exec hold one.
type CallError = program.CallError

// startError gives err the exit code and, for the command itself, the words
// that Docker has.
func startError(err error, command string) error {
	var ce *CallError
	if errors.As(err, &ce) && ce.Exec {
		return execError(ce, command)
	}
	if ce != nil {
		if isLink(ce) && (ce.Step.Type == "proc" || ce.Step.Type == "sysfs") {
			err = fmt.Errorf("filesystem %q must be mounted on ordinary directory: %w", ce.Step.Type, err)
		}
		if ce.Name == "sched_setattr" && ce.Errno == unix.EPERM {
			// sched_setattr(2): a deadline needs a process that may be on every CPU.
			err = fmt.Errorf("process scheduler can't be used together with AllowedCPUs, or without CAP_SYS_NICE: %w", err)
		}
		err = errs.Hint(err, hints(ce)...)
	}
	return errs.WithExit(err, errs.ExitEngine)
}

// hints says what is the cause of a failed call, where the call leaves no doubt.
func hints(ce *CallError) []string {
	isMount := ce.Step.Verb == "mount"
	switch {
	case isMount && ce.Step.Type == "bind" && ce.Name == "" && ce.Errno == unix.ENOTDIR:
		return []string{ce.Step.Src + " is a directory and " + ce.Step.Dst + " in the image is not"}
	case isMount && ce.Step.Type == "bind" && ce.Name == "" && ce.Errno == unix.EISDIR:
		return []string{ce.Step.Src + " is not a directory and " + ce.Step.Dst + " in the image is one"}
	case isLink(ce):
		return []string{"the image has a symbolic link at " + ce.Step.Dst + ", where none is followed"}
	case (ce.Name == "clone3" || ce.Name == "unshare") && strings.Contains(ce.Call, "CLONE_NEWUSER"):
		return userns.Obstacles(ce)
	}
	return nil
}

// isLink reports whether the call met a symbolic link where none is followed.
func isLink(ce *CallError) bool {
	return ce.Step.Verb == "mount" && ce.Name == "openat2" && ce.Errno == unix.ELOOP && strict(ce.Step.Dst)
}

// commandError is a command that cannot be executed. Its text is Docker's; the
// call stays reachable for whoever wants to know more.
type commandError struct {
	text string
	call *CallError
}

func (e *commandError) Error() string { return e.text }
func (e *commandError) Unwrap() error { return e.call }

func execError(ce *CallError, command string) error {
	e := &commandError{call: ce}
	switch ce.Errno { //nolint:exhaustive // what Docker has words for
	case unix.ENOENT, unix.ENOTDIR:
		if strings.Contains(command, "/") {
			e.text = fmt.Sprintf("exec: %q: stat %s: no such file or directory", command, command)
		} else {
			e.text = fmt.Sprintf("exec: %q: executable file not found in $PATH", command)
		}
		return errs.WithExit(errs.As(errs.NotFound, e), errs.ExitNotFound)
	case unix.ENOEXEC:
		e.text = fmt.Sprintf("exec: %q: exec format error", command)
		return errs.WithExit(errs.Hint(errs.As(errs.Invalid, e), "a script needs a first line such as #!/bin/sh; a binary must be of this machine's architecture"), errs.ExitNotExecutable)
	case unix.EACCES, unix.EISDIR:
		e.text = fmt.Sprintf("exec: %q: permission denied", command)
		return errs.WithExit(errs.As(errs.Denied, e), errs.ExitNotExecutable)
	}
	e.text = fmt.Sprintf("exec: %q: %s", command, ce.Errno.Error())
	return errs.WithExit(e, errs.ExitNotExecutable)
}

func invalid(format string, args ...any) error {
	return errs.WithExit(errs.New(errs.Invalid, format, args...), errs.ExitEngine)
}

func unsupported(format string, args ...any) error {
	return errs.WithExit(errs.New(errs.Unsupported, format, args...), errs.ExitEngine)
}
