// Package host is one user's isle for a test: directories of its own, the
// environment to run it in, and the check that nothing is left in the end.
//
// It hides where the store lies and how a command that hangs is ended.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
)

// patience bounds one command.
const patience = 2 * time.Minute

// Host is an isle with a store of its own.
type Host struct {
	T   testing.TB
	Dir string   // everything of it
	Env []string // of its commands
	Bin string   // the directory of isle and isled
}

// New makes the directories and the environment of an isle that lies in bin; ""
// stands for the build of this tree. At the end of the test its containers are
// removed, and nothing may be left of it.
func New(t testing.TB, bin string, env ...string) *Host {
	t.Helper()
	if bin == "" {
		bin = testenv.Bin(t)
	}
	h := &Host{T: t, Dir: testenv.Dir(t), Bin: bin}
	testenv.NoLeaks(t, h.Dir)
	home := filepath.Join(h.Dir, "home")
	if err := os.MkdirAll(filepath.Join(home, ".config/isle"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.Env = append([]string{
		"PATH=" + bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home, "XDG_CONFIG_HOME=" + home + "/.config", "LANG=C.UTF-8", "USER=" + os.Getenv("USER"),
		"ISLE_ROOT=" + h.Data(), "ISLE_RUNROOT=" + h.Dir + "/r",
	}, env...)
	t.Cleanup(h.removeAll)
	return h
}

// Data is the directory of its store.
func (h *Host) Data() string { return h.Dir + "/d" }

// removeAll removes every container, so that what then remains is a leak. The
// holder of a user's namespace stays for the next container, by design.
func (h *Host) removeAll() {
	h.T.Helper()
	if ids := strings.Fields(h.Isle("ps", "-aq").Out); len(ids) > 0 {
		if r := h.Isle(append([]string{"rm", "-f", "-v"}, ids...)...); r.Code != 0 {
			h.T.Errorf("remove all containers: %s", r)
		}
	}
	pids, err := testenv.Processes("isle-holder", h.Dir)
	if err != nil {
		h.T.Error(err)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Result is how a command ended.
type Result struct {
	Out, Err string
	Code     int // -1: by a signal
}

func (r Result) String() string { return fmt.Sprintf("exit code %d: %s%s", r.Code, r.Out, r.Err) }

// Isle runs isle with these words and waits.
func (h *Host) Isle(words ...string) Result {
	h.T.Helper()
	return h.Run(nil, filepath.Join(h.Bin, "isle"), words...)
}

// OK is Isle for a command that must succeed; it returns its trimmed output.
func (h *Host) OK(words ...string) string {
	h.T.Helper()
	r := h.Isle(words...)
	if r.Code != 0 {
		h.T.Fatalf("isle %q: %s", words, r)
	}
	return strings.TrimSpace(r.Out)
}

// Run runs a program in the host's environment and waits.
func (h *Host) Run(in io.Reader, path string, words ...string) Result {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := h.Command(ctx, path, words...)
	cmd.Stdin = in
	return h.Finish(ctx, cmd)
}

// Command prepares a program in the host's environment. When ctx ends it goes with
// all that it has started in the foreground.
func (h *Host) Command(ctx context.Context, path string, words ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, words...)
	cmd.Env, cmd.Dir = h.Env, h.Dir
	// A container that kept our pipes would hang Wait: that is a bug to report.
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// Finish runs what Command has prepared and waits; one that hangs fails the test.
func (h *Host) Finish(ctx context.Context, cmd *exec.Cmd) Result {
	h.T.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.T.Fatalf("%q: %v", cmd.Args, err)
	}
	if ctx.Err() != nil {
		h.T.Fatalf("%q: still running when its time was over\n%s%s", cmd.Args, out.String(), errOut.String())
	}
	return Result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}
