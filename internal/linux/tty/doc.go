// Package tty handles the terminal that a user sits at, and the sequence of
// keys that detaches from a container.
//
// It hides termios: a terminal is asked for its size, told one, and made raw
// with a way back. A [DetachReader] passes typed bytes on and ends when the
// detach keys have been typed; bytes that may be the beginning of the sequence
// are held back until it is known that they are not.
//
// Invariants: restore may be called any number of times and puts back what was
// there at MakeRaw; a DetachReader loses no byte except the sequence itself.
//
// See termios(3), ioctl_tty(2), ioctl_console(2).
package tty
