// Package plan shows a container before it exists: the system calls that a start
// would make, in order, each with what it is for and the manual page to read; and
// the same container as a shell script of ordinary commands.
//
// It hides how the calls were found out (the compiled program of package runtime,
// the layers of storage, the files of linux/cgroup) and how they are told apart:
// calls of the caller and of the child, calls that are ways round a refusal.
//
// Nothing here changes the machine, and nothing is known that the start does not
// use: texts are chosen by the step and the name of a call, never by the
// configuration.
//
// See the manual pages that [Call.Man] names, and unshare(1), mount(8), ip(8),
// setpriv(1) for the script.
package plan
