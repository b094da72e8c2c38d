// Package lap notes when a phase of a start begins, in all processes that take
// part, when somebody asked for it (`run --timeline`); otherwise a note costs one
// comparison.
//
// The processes share a file: its name travels in the environment, and every note
// is one record of fixed size, appended by one write(2), so that a child without a
// Go runtime can write it too (package program).
//
//	0   struct timespec   CLOCK_MONOTONIC, the same in all processes
//	16  who               'C' the command, 'M' the monitor, 'P' the forked child
//	17  what              text, ended by zeros
//
// See clock_gettime(2).
package lap

import (
	"bytes"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Size of a record.
const Size = 64

// Var is the environment variable that carries the file's name to children.
const Var = "_ISLE_TIMELINE"

// Who notes.
const (
	Command = 'C'
	Monitor = 'M'
	Child   = 'P'
)

// state is this process's part.
var state struct {
	file *os.File
	who  byte
}

// Begin makes this process note into the file that the environment names, if any.
func Begin(who byte) {
	name := os.Getenv(Var)
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return // whoever asked finds fewer notes
	}
	state.file, state.who = f, who
}

// File is where notes go; nil: nowhere.
func File() *os.File { return state.file }

// Mark notes that what begins now.
func Mark(what string) {
	if state.file == nil {
		return
	}
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) == nil {
		mark(ts.Nano(), what)
	}
}

func mark(ns int64, what string) {
	r := Record(state.who, what)
	binary.NativeEndian.PutUint64(r[0:], uint64(ns/1e9))
	binary.NativeEndian.PutUint64(r[8:], uint64(ns%1e9))
	_, _ = state.file.Write(r) // whoever asked finds fewer notes
}

// MarkCPU notes what as having begun as long ago as this process has used its CPU:
// a program's start-up, before it could note anything.
func MarkCPU(what string) {
	var now, used unix.Timespec
	if state.file == nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil || unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used) != nil {
		return
	}
	mark(now.Nano()-used.Nano(), what)
}

// Record is a record without its time.
func Record(who byte, what string) []byte {
	var r [Size]byte
	r[16] = who
	copy(r[17:Size-1], what)
	return r[:]
}

// Note is one record.
type Note struct {
	At   int64 // nanoseconds
	Who  byte
	What string
}

// Read returns the notes of a file in the order they were written.
func Read(name string) ([]Note, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var out []Note
	for len(text) >= Size {
		r := text[:Size]
		text = text[Size:]
		what, _, _ := bytes.Cut(r[17:], []byte{0})
		out = append(out, Note{
			At:  int64(binary.NativeEndian.Uint64(r[0:]))*1e9 + int64(binary.NativeEndian.Uint64(r[8:])),
			Who: r[16], What: string(what),
		})
	}
	return out, nil
}
