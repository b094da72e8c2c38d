// Package layout holds no code, only the tests that keep the shape of the
// module: which package may import which (the rows of docs/design.md), where
// unsafe and os/exec may be used, what may run at package initialisation, which
// modules isle depends on and who may import them (docs/dependencies.md), and
// what the isle binary must never link.
//
// The tests parse the source in-process; only what the linker decides is asked
// of the go command. The two documents are read, not repeated here, so that
// neither can drift from the code.
package layout
