// Package engine is the conductor: it holds isle's use cases (create, start,
// stop, remove, pull, list ...), that is, the order of steps, the locks and the
// undo. It decides; front doors only translate, and subsystems know nothing of
// one another.
//
// There is no daemon and no global lock. Each use case reads the records it
// needs, does its work, and leaves records that any later process can finish
// or undo (recover.go). A container that runs is owned by its monitor; the
// engine talks to it over the monitor's socket. A container that does not run
// is changed under its own lock file, the one that a monitor holds for life.
//
// A rootless engine stays outside the user's user namespace: what has to be
// done inside (removing files of subordinate ids, unpacking, pulling) is done by
// a child that joins it (userns.go).
package engine
