// Package runtime turns an OCI runtime-spec into a running container: it
// compiles the spec into a list of system calls, starts the list, and enters
// containers that run.
//
// It hides the order in which a container is made, what differs between root
// and user namespaces, and every way to name a path in the container wrongly.
//
// # Theory of operation
//
// [Compile] touches nothing: its result is a program (package linux/program)
// that can be printed (Calls) before it is run. The calls before the clone are
// made by the caller's thread, which can still see the host: it opens the
// sources of bind mounts and the namespaces to join. The rest is the child's:
//
//	join, new user namespace     the parent writes the id maps
//	mounts private, root in place
//	proc and sysfs, detached     while the host's are still visible: in a user
//	                             namespace the kernel wants to see a full one
//	                             before it gives a new one (mount_too_revealing)
//	pivot_root, old root gone    from here no name leads to the host
//	sysctls                      through the detached proc, which nothing can cover
//	mounts, devices, terminal    each target opened in the root, mounted by descriptor
//	cgroup namespace and mounts  after the parent has joined v1 hierarchies
//	masked and read-only paths, read-only root, working directory
//	host name, limits, session, standard files
//	credentials, parent-death signal, seccomp
//	execve
//
// Seccomp goes last unless it needs privilege: without no_new_privs a filter can
// be installed by CAP_SYS_ADMIN only (seccomp(2)), so it then comes before the
// last capset, the one call besides execve that the filter must allow.
//
// What takes a right over the host's file systems or devices is done by the
// parent, which the child asks (Sync, and Exchange where a descriptor goes along):
// id maps of mounts in the container's own tree, the files of a tmpfs with
// tmpcopyup, network devices that move in. A seccomp agent (SCMP_ACT_NOTIFY) is
// connected to before the clone; the child sends it the listener in the one call
// that follows the installation of the filter.
//
// # Meaning
//
// Every field of the specification is honoured or an error, [Program.Warnings]
// being for what the specification itself lets a runtime leave out. Where it is
// silent, runc decides: a bind mount with any option has only the attributes that
// are named, unless a user namespace locks them (setAttrs); a missing target is
// made; a tmpfs without a mode has that of the directory it covers; a source or a
// destination below the root's path on the host is a place in the container. We
// differ in that bind mounts without a propagation type are private.
//
// # Invariants
//
// A path inside the container is resolved by openat2 with RESOLVE_IN_ROOT and
// RESOLVE_NO_MAGICLINKS, once, and is used by descriptor from then on. /proc,
// /sys and /dev and what lies below them are resolved without following
// symbolic links at all. Only the descriptors 0, 1 and 2 survive. Until execve
// the child cannot be traced or looked into by processes of the container
// (PR_SET_DUMPABLE). The command cannot be a script for the caller's executable:
// that lies on a read-only mount (program.Command.Protect), or a sealed memory
// file executes the command (raiseShield).
//
// See the OCI runtime specification, namespaces(7), mount_setattr(2),
// pivot_root(2), capabilities(7), devpts in the kernel's documentation.
package runtime
