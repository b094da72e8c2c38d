// Package crash kills isle at every system call that changes something on disk
// or in the kernel, one call a round, and looks whether what then lies there is
// whole: what was acknowledged is there, what was not is gone or finished, every
// command works, and nothing is left behind.
//
// It hides how a process is stopped just there: strace(1) injects SIGKILL at the
// Nth of these calls, in the command itself or in a process that it started, the
// monitor and isled among them.
package crash
