// Package errs holds the kinds of failure that isle knows, the hints that go
// with them, and the one table from a kind to what each front door reports.
//
// An error in isle is one line: what was attempted, on what, why. A kind says
// what the caller can do about it; a hint is a further line that a layer adds
// after it has checked that the hint's cause is true.
//
// Invariants: a kind survives any depth of wrapping (errors.Is); a hint is
// never part of the message; errors cross process borders as [Wire], never as
// text to be parsed.
package errs

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Kind says what the caller of a failed operation can do about it. Each Kind
// is itself an error, to be wrapped with %w.
type Kind uint8

// The kinds. Unknown is an error that nobody classified.
const (
	Unknown     Kind = iota
	Invalid          // the request makes no sense; change it
	NotFound         // the object is not there
	Exists           // an object of that name is there already
	Conflict         // the object is in a state that forbids the operation
	Denied           // the caller may not
	Unsupported      // this machine, kernel or version cannot
	Unavailable      // something needed does not answer; try again
	Canceled         // the caller gave up
	Corrupt          // data on disk or from the wire is damaged
)

var kindText = [...]string{
	"unknown error", "invalid argument", "not found", "already exists", "conflict",
	"permission denied", "not supported", "unavailable", "canceled", "corrupt",
}

// Error returns the kind's plain text, which reads well after "object: ".
func (k Kind) Error() string {
	if int(k) < len(kindText) {
		return kindText[k]
	}
	return kindText[Unknown]
}

// kinded gives an error a kind without changing its text.
type kinded struct {
	kind Kind
	err  error
}

func (e *kinded) Error() string        { return e.err.Error() }
func (e *kinded) Unwrap() error        { return e.err }
func (e *kinded) Is(target error) bool { k, ok := target.(Kind); return ok && k == e.kind }

// As returns err with kind k; its text stays as it is. nil stays nil.
func As(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{k, err}
}

// New returns an error of kind k with a formatted text (fmt.Errorf, %w works).
func New(k Kind, format string, args ...any) error {
	return &kinded{k, fmt.Errorf(format, args...)}
}

// KindOf returns the outermost kind found in err, deriving one from the errno
// or the context error underneath when nobody gave one.
func KindOf(err error) Kind {
	if err == nil {
		return Unknown
	}
	if k := outermost(err); k != Unknown {
		return k
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Unavailable
	case errors.Is(err, syscall.ENOENT):
		return NotFound
	case errors.Is(err, syscall.EEXIST):
		return Exists
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return Denied
	case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EOPNOTSUPP):
		return Unsupported
	}
	return Unknown
}

// outermost returns the first kind that somebody gave err, from the outside in.
func outermost(err error) Kind {
	for err != nil {
		switch e := err.(type) { //nolint:errorlint // the walk itself
		case *kinded:
			return e.kind
		case Kind:
			return e
		case interface{ Unwrap() []error }:
			for _, one := range e.Unwrap() {
				if k := outermost(one); k != Unknown {
					return k
				}
			}
			return Unknown
		}
		err = errors.Unwrap(err)
	}
	return Unknown
}

// hinted carries hint lines beside an error.
type hinted struct {
	err   error
	lines []string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// Hint adds lines of advice to err. The caller has checked that they apply.
func Hint(err error, lines ...string) error {
	if err == nil || len(lines) == 0 {
		return err
	}
	return &hinted{err, lines}
}

// Hints returns all hint lines in err, outermost first.
func Hints(err error) []string {
	var all []string
	for err != nil {
		var h *hinted
		if !errors.As(err, &h) {
			break
		}
		all = append(all, h.lines...)
		err = h.err
	}
	return all
}

// exitCoded gives an error the exit code of the process that reports it.
type exitCoded struct {
	err  error
	code int
}

func (e *exitCoded) Error() string { return e.err.Error() }
func (e *exitCoded) Unwrap() error { return e.err }

// WithExit makes a command that fails with err end with code (Docker's 125,
// 126, 127 of run and exec, or a container's own).
func WithExit(err error, code int) error {
	if err == nil {
		return nil
	}
	return &exitCoded{err, code}
}

// Exit codes of run and exec, as Docker has them.
const (
	ExitEngine        = 125 // the engine itself failed
	ExitNotExecutable = 126 // the command cannot be invoked
	ExitNotFound      = 127 // the command cannot be found
)

// table is the one place where a kind becomes a status of a front door.
var table = [...]struct{ exit, http, grpc int }{
	Unknown:     {1, 500, 2},
	Invalid:     {1, 400, 3},
	NotFound:    {1, 404, 5},
	Exists:      {1, 409, 6},
	Conflict:    {1, 409, 9},
	Denied:      {1, 403, 7},
	Unsupported: {1, 501, 12},
	Unavailable: {1, 503, 14},
	Canceled:    {130, 499, 1},
	Corrupt:     {1, 500, 15},
}

// ExitCode returns the exit code for a command that failed with err: the one
// given by WithExit, else the kind's.
func ExitCode(err error) int {
	if e, ok := errors.AsType[*exitCoded](err); ok {
		return e.code
	}
	return table[KindOf(err)].exit
}

// HasExit reports whether err carries an exit code given by WithExit.
func HasExit(err error) bool {
	var e *exitCoded
	return errors.As(err, &e)
}

// HTTPStatus returns the HTTP status for err.
func HTTPStatus(err error) int { return table[KindOf(err)].http }

// GRPCCode returns the gRPC status code for err.
func GRPCCode(err error) int { return table[KindOf(err)].grpc }

// Wire is an error on its way between two processes of isle.
type Wire struct {
	Kind    Kind     `json:"kind,omitempty"`
	Message string   `json:"message"`
	Errno   int      `json:"errno,omitempty"`
	Hints   []string `json:"hints,omitempty"`
	Exit    int      `json:"exit,omitempty"`
}

// ToWire returns err as data, or nil for nil.
func ToWire(err error) *Wire {
	if err == nil {
		return nil
	}
	w := &Wire{Kind: KindOf(err), Message: err.Error(), Hints: Hints(err)}
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		w.Errno = int(no)
	}
	if e, ok := errors.AsType[*exitCoded](err); ok {
		w.Exit = e.code
	}
	return w
}

// remote is an error that came over a Wire: its text, kind and errno as sent.
type remote struct {
	msg   string
	errno syscall.Errno
}

func (e *remote) Error() string { return e.msg }
func (e *remote) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// Err turns the data back into an error that answers errors.Is, Hints and
// ExitCode as the original did. A nil Wire gives nil.
func (w *Wire) Err() error {
	if w == nil {
		return nil
	}
	var err error = &remote{w.Message, syscall.Errno(w.Errno)}
	if w.Kind != Unknown {
		err = As(w.Kind, err)
	}
	err = Hint(err, w.Hints...)
	if w.Exit != 0 {
		err = WithExit(err, w.Exit)
	}
	return err
}
