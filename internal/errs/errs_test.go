package errs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"syscall"
	"testing"
)

func TestKindSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("stop: %w", New(Conflict, "container %q: is %s", "web", "removing"))
	if KindOf(err) != Conflict || !errors.Is(err, Conflict) || errors.Is(err, NotFound) {
		t.Fatalf("kind of %v is %v", err, KindOf(err))
	}
	if got := err.Error(); got != `stop: container "web": is removing` {
		t.Fatalf("text %q", got)
	}
}

func TestKindFromErrnoAndContext(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, NotFound},
		{fmt.Errorf("mkdir: %w", syscall.EEXIST), Exists},
		{syscall.EACCES, Denied},
		{syscall.EPERM, Denied},
		{syscall.ENOSYS, Unsupported},
		{context.Canceled, Canceled},
		{context.DeadlineExceeded, Unavailable},
		{errors.New("x"), Unknown},
		{nil, Unknown},
		{As(Corrupt, syscall.ENOENT), Corrupt},
		{As(Corrupt, fmt.Errorf("x: %w", New(Invalid, "y"))), Corrupt},
		{errors.Join(errors.New("x"), fmt.Errorf("y: %w", NotFound)), NotFound},
	} {
		if got := KindOf(c.err); got != c.want {
			t.Errorf("KindOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestWireKeepsEverything(t *testing.T) {
	in := WithExit(Hint(As(Denied, fmt.Errorf("publish 0.0.0.0:80: %w", syscall.EACCES)), "use -p 8080:80"), ExitEngine)
	out := fmt.Errorf("run: %w", ToWire(in).Err())
	if out.Error() != "run: publish 0.0.0.0:80: permission denied" {
		t.Errorf("text %q", out)
	}
	if KindOf(out) != Denied || !errors.Is(out, syscall.EACCES) || ExitCode(out) != 125 || HTTPStatus(out) != 403 {
		t.Errorf("lost something: kind %v exit %d", KindOf(out), ExitCode(out))
	}
	if got := Hints(out); !reflect.DeepEqual(got, []string{"use -p 8080:80"}) {
		t.Errorf("hints %q", got)
	}
	if ToWire(nil) != nil || (*Wire)(nil).Err() != nil {
		t.Error("nil does not stay nil")
	}
}

func TestNilStaysNil(t *testing.T) {
	if As(Denied, nil) != nil || Hint(nil, "x") != nil || WithExit(nil, 3) != nil {
		t.Error("a nil error became one")
	}
}
