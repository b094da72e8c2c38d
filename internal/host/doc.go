// Package host says what this machine allows, and what to do when it does not.
//
// It hides where each fact comes from (a sysctl, a file of /proc or /sys, a
// system call) and what older and stranger machines answer.
//
// # Theory
//
// A [Machine] knows nothing until it is asked; each question costs a few system
// calls once and nothing afterwards, so that a container start pays for just the
// facts it needs. [Machine.Advise] asks everything and turns what is amiss into
// sentences with remedies. Errors all over isle carry the same sentences as
// hints, so that "isle doctor" says beforehand what a failing command would say.
//
// # Invariants
//
//   - Advice names a cause only after it was looked at.
//   - Nothing here changes the machine.
//   - A fact that cannot be found out is the one that promises least.
//
// See proc(5), sysfs(5), cgroups(7), capabilities(7), user_namespaces(7),
// resolv.conf(5).
package host
