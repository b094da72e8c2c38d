// Package why names the cause of every system call that a container refuses to a
// command, proves it where that is safe, and says what would allow it and what
// that costs.
//
// It hides how a refusal is told from a failure, and the order in which the kernel
// asks: seccomp before anything else, then the call's own checks.
//
// # Theory of operation
//
// The command is traced from outside (package linux/trace). A call that has failed
// with an errno that is a refusal is held at its exit, and while it stands still
// everything the kernel decided by can be read: the thread's capabilities and
// filter from /proc/TID/status, its maps, limits and mounts, the mode and the owner
// of the file. The container's filter is asked by running it (seccomp.Filter.Run).
// The cause that follows is a claim; where the call changes nothing that others
// see, it is then made again by a double: a child in the same namespaces with the
// same user, capabilities and filter, less the one cause (runtime.Again). If that
// succeeds, the claim is proven.
//
// # Invariants
//
// The double never makes a call that changes files, clocks, other processes or the
// kernel. Nothing is changed in the container. Strings of the command are returned
// as they are: whoever prints them makes them harmless.
//
// See capabilities(7), seccomp(2), user_namespaces(7), ptrace(2).
package why
