package program

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExchange(t *testing.T) {
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	p := New()
	out, in := p.Slot("the child's pipe"), p.Slot("the parent's")
	// Before the fork: a descriptor of the caller's, made by Go code.
	p.Do(func() (*os.File, error) {
		fd, err := unix.FcntlInt(pw.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), "pipe"), err
	}).To(out)
	nothing := p.Slot("none")
	p.Do(func() (*os.File, error) { return nil, nil }).To(nothing) //nolint:nilnil // what is tested
	p.Fork(Clone{})
	p.Meanwhile(func(int) error { return nil }) // its token must not be taken for the answer
	p.Exchange(out.Arg(), func(pid int, f *os.File) (*os.File, error) {
		if pid <= 0 || f == nil {
			t.Errorf("pid %d, file %v", pid, f)
			return nil, nil //nolint:nilnil // what is tested
		}
		defer f.Close()
		if _, err := f.WriteString("from the parent\n"); err != nil {
			return nil, err
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), "back"), err
	}).To(in)
	text := p.Buffer(8)
	p.Octal(text, Uint(0o1750))
	p.Call(unix.SYS_WRITE, in.Arg(), text, Int(5)).Want(5)
	p.Await()
	p.Exchange(Int(-1), func(_ int, f *os.File) (*os.File, error) {
		if f != nil {
			t.Errorf("a file where none was sent: %v", f.Name())
		}
		return nil, nil //nolint:nilnil // what is tested
	}).To(nothing)
	p.Exit(0)
	c, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	reap(c.Pid)
	_ = pw.Close()
	got, err := io.ReadAll(pr)
	if err != nil || string(got) != "from the parent\n01750" {
		t.Errorf("%q %v", got, err)
	}
}

func TestExchangeThatFails(t *testing.T) {
	p := New()
	p.Fork(Clone{})
	p.Step(Step{Verb: "copy", Object: "files"})
	p.Exchange(Int(-1), func(int, *os.File) (*os.File, error) { return nil, unix.EDQUOT })
	p.Exit(0)
	if _, err := p.Start(); !errors.Is(err, unix.EDQUOT) || !strings.Contains(err.Error(), "copy files: ") {
		t.Errorf("%v", err)
	}
	p = New()
	p.Do(func() (*os.File, error) { return nil, unix.ENOSPC })
	p.Fork(Clone{})
	p.Exit(0)
	if _, err := p.Start(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
}
