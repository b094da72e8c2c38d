// Package seccomp turns an OCI seccomp profile into a classic BPF program that
// the kernel runs before every system call of a container.
//
// It hides the profile formats (OCI, and Docker's with its conditions on
// capabilities, architectures and kernel versions), the system call tables of
// every ABI that a process on this machine can use, and the limits of classic
// BPF. It never installs anything: the forked child of the runtime does that
// with the program and flags of a [Filter].
//
// # Theory
//
// A profile is first resolved into one cell for each system call of each ABI
// (x86-64, x32 and i386 on amd64; aarch64 and arm on arm64). Neighbouring cells
// with the same verdict become one range, and the ranges of one AUDIT_ARCH become
// a balanced tree of comparisons:
//
//	load arch ── x86-64 ─▶ load nr ─▶ tree over 0 … x86-64 … 0x40000000 … x32 … 2³²-1
//	         ├── i386   ─▶ load nr ─▶ tree
//	         └── other  ─▶ kill
//
// A verdict is an action, or a chain of argument tests that ends in one. Since
// 5.11 the kernel runs a new filter once for every number and remembers those
// that are allowed without looking at arguments (a bitmap, tested before any
// filter runs); it can follow loads of arch and nr and jumps only, so nothing
// else comes before a verdict. Depth, not speed of a call, is what the tree
// saves: some 900 numbers are walked at every start of a container.
//
// The program for the default capability set is static data made by go
// generate; starting a container with it compiles and allocates nothing.
//
// # Meaning
//
// Where the OCI specification is silent we do as runc with libseccomp, because
// profiles have been tested with them:
//
//   - a name that no ABI knows is ignored;
//   - a rule whose action equals the default action is ignored;
//   - a rule without arguments beats all rules with arguments for that call,
//     wherever it stands; among such rules the first one counts;
//   - several tests of one argument in one rule are alternatives; otherwise all
//     tests of a rule must hold;
//   - a number above the highest one that the profile names fails with ENOSYS,
//     not with the default action, so that programs fall back to older calls;
//   - an architecture that the profile does not list is killed.
//
// We differ, always to the safe side, in this:
//
//   - rules with arguments are tried in the order of the profile (libseccomp
//     sorts them by argument, which nobody can predict);
//   - arguments that the kernel truncates to 32 bits (the family of socket, the
//     request of ioctl, …) are compared as 32 bits: a deny rule cannot be passed
//     by setting a high bit, as in CVE-2019-10063;
//   - i386 socketcall and ipc inherit the rules of the calls they stand for, but
//     an allowing rule with arguments does not carry over, since the arguments
//     are behind a pointer there;
//   - the highest number is looked for without ARM's private calls, which begin
//     at 0xf0000 and would make the ENOSYS range useless.
//
// # Invariants
//
// No state and no work at program start. Profiles and programs that are static
// data are shared: callers do not change what [Default] and [Compile] return.
//
// Implements seccomp(2), the seccomp part of the OCI runtime specification 1.3,
// and the profile format of github.com/moby/profiles.
package seccomp

//go:generate go run gen/main.go
//go:generate go test -run ^TestStaticFilters$ -update
