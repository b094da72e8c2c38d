// Package inside says what a further process in a running container is: the one
// of exec, and the one of a health check, which must not be weaker confined than
// it, nor than the container.
//
// It hides where that is read: from the kernel, of the container's init (bounding
// set, no_new_privs, resource limits, OOM score, security label), and from the
// container's own passwd and group, which are opened inside its root and may be
// anything.
//
// See proc_pid_status(5), openat2(2), and the OCI runtime specification's process.
package inside
