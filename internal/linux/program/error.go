package program

import (
	"errors"
	"fmt"
	"syscall"
)

// CallError is a call of a program that failed.
type CallError struct {
	Index int    // which call of the program
	Step  Step   // what it was for; the zero Step says nothing
	Name  string // the call's name; "" for a check of the program's own
	Call  string // the whole call as strace prints it
	Errno syscall.Errno
	// Exec marks the call that should have become the container's command.
	Exec bool
}

// Error is "step: call: cause" for a call that is one of several of its step,
// and the whole call where no step was named.
func (e *CallError) Error() string {
	if e.Step.Verb == "" {
		return e.Call + ": " + e.Errno.Error()
	}
	if e.Name == "" {
		return e.Step.String() + ": " + e.Errno.Error()
	}
	return e.Step.String() + ": " + e.Name + ": " + e.Errno.Error()
}

// Unwrap gives the errno, from which errs derives a kind.
func (e *CallError) Unwrap() error { return e.Errno }

func (p *Program) callError(i int, errno syscall.Errno) *CallError {
	o := &p.ops[i]
	return &CallError{
		Index: i, Step: p.steps[o.step], Name: p.name(i), Call: p.Text(i), Errno: errno,
		Exec: isExec(o.nr),
	}
}

// stepError is an error of a function that stands for the i-th call.
func (p *Program) stepError(i int, err error) error {
	if s := p.steps[p.ops[i].step]; s.Verb != "" {
		return fmt.Errorf("%s: %w", s, err)
	}
	return err
}

func (p *Program) forkError(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return p.callError(p.fork, errno)
	}
	return err
}
