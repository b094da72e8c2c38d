// Package ocicli is the OCI runtime's command line: what containerd, CRI-O,
// Docker, Podman and people call in place of runc.
//
// It hides that one container is the work of several short processes: what
// create leaves behind is found and finished by start, kill and delete.
//
// # Theory of operation
//
// A container is a directory below the root (--root; /run/isle-oci), whose name
// is the container's and which the file system makes unique:
//
//	state.json   what is true: the process and when it started, cgroups, bundle
//	config.json  the bundle's, as it was when the container was created
//	exec.fifo    there until the container is started
//	notify/      the socket of sd_notify(3), where the caller has one
//
// The container's process waits before execve in a read of the fifo, which it
// has open for reading and writing, so that it waits also once the creator has
// ended:
//
//	create                      the container's process              start
//	  mkdir, lock
//	  clone ──────────────────▶ namespaces, mounts …
//	  state.json, network
//	  hooks ◀───────────────── asks (prestart, createRuntime, createContainer)
//	  answers ────────────────▶ root, limits …
//	  ends ◀────────────────── is ready
//	                            read(exec.fifo) ◀─────────────────── startContainer hooks, one byte
//	                            credentials, seccomp, execve          unlink(exec.fifo), poststart hooks
//
// run is both in one process, and needs no fifo where no hook wants one.
// startContainer hooks are run by start as processes of the container, with the
// rights of its own.
//
// # Invariants
//
// Nothing of the container runs before state.json names its process; so what a
// killed create leaves behind can be deleted. A status is never recorded: it is
// what the process, the fifo and the freezer say. A pid is believed together
// with its start time. Who changes a container holds the lock on its directory.
//
// Names of commands and flags, exit codes, output and the wording of common
// errors are runc's, which programs look for.
//
// See the OCI runtime specification (runtime.md, config.md), runc(8),
// sd_notify(3).
package ocicli
