// Package load has many processes use one store at once: they import, run, exec,
// stop, commit, tag, remove and prune, without knowing of each other. Each
// command must do its work or say in one line why somebody else was faster, and
// when all are done nothing is left: no directory, process, mount or control
// group, and what the store counts is what lies there.
//
// How many and how long: ISLE_LOAD_PROCESSES, ISLE_LOAD_SECONDS.
package load
