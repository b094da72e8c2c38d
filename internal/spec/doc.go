// Package spec turns what a user asked for, an image's configuration and the
// facts of this machine into an OCI runtime-spec. It is the only bridge between
// the two models of a container that isle has: container.Config (asked) and
// specs.Spec (told to the kernel).
//
// It hides Docker's defaults and the rules by which options change one another.
//
// # Theory
//
//	container.Record ─┐
//	Facts (Probe)     ├─▶ Build ─▶ specs.Spec, warnings
//	User (ResolveUser)┘
//
// [Build] is a pure function: the same input gives the same output, and nothing
// is read or written. What needs the machine is done before, by [Probe] (only
// what the record makes necessary), [ResolveDevices] and [ResolveUser].
//
// What Docker does, Build does; where it differs, a comment says so. The
// differences: the cgroup namespace is private on every machine; a limit that
// the caller may not raise is lowered with a warning; oom_score_adj is set to 0
// only where that is possible; inside a user namespace, kernel file systems that
// can only be mounted by the owner of a namespace are bound from the host, and
// ids that are not mapped are not used.
//
// # Invariants
//
//   - An image's labels, and whatever else is in its configuration beside Env,
//     Entrypoint, Cmd, User and WorkingDir, change nothing (CVE-2026-53488).
//   - The result shares static data: callers do not change it.
//   - An id that could not be read exactly as a decimal number never becomes one,
//     least of all 0.
//
// Implements the OCI runtime specification 1.3.0, config-linux.md; user lookup
// follows passwd(5), group(5) and Docker's USER.
package spec
