package ocicli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/runtime"
)

// runHooks runs the hooks of one kind in order, each with run, and stops at the
// first that fails.
func runHooks(kind string, hooks []specs.Hook, st *specs.State, run func(h *specs.Hook, stdin []byte) error) error {
	if len(hooks) == 0 {
		return nil
	}
	stdin, err := json.Marshal(st)
	if err != nil {
		return err
	}
	for i := range hooks {
		if err := run(&hooks[i], stdin); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

// onHost runs a hook in the runtime's own namespaces, where this process is.
func onHost(h *specs.Hook, stdin []byte) error { return onHostIn("")(h, stdin) }

// onHostIn is onHost in a directory; "": this process's.
func onHostIn(dir string) func(h *specs.Hook, stdin []byte) error {
	return func(h *specs.Hook, stdin []byte) error { return hookCommand(dir, h, stdin) }
}

func hookCommand(dir string, h *specs.Hook, stdin []byte) error {
	ctx := context.Background() //nolint:forbidigo // a command of its own; the hook's timeout is all that ends it
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Dir = hookArgs(h), hookEnv(h), dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errOut
	// A hook may leave a process behind that keeps its output open.
	cmd.WaitDelay = 10 * time.Millisecond
	err := cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("hook ran past specified timeout of %.1fs", float64(*h.Timeout))
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	}
	return fmt.Errorf("%w, stdout: %s, stderr: %s", err, out.String(), errOut.String())
}

func hookArgs(h *specs.Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

// hookEnv is the hook's environment: what it says, if it says anything, else this
// process's, as with other runtimes.
func hookEnv(h *specs.Hook) []string {
	if h.Env == nil {
		return os.Environ()
	}
	return h.Env
}

// child is a process of ours that a hook runs in.
type child struct {
	pid    int
	pidfd  *os.File
	output *os.File // its standard output and error
}

// hookStdio returns the files of a hook: standard input that holds stdin, and a
// memory file for what it says, so that nobody has to read while it runs.
func hookStdio(stdin []byte) (in, out *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	// A pipe holds 64 KiB; the state is the caller's annotations and little more.
	if _, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, max(len(stdin), 4096)); err == nil {
		_, err = w.Write(stdin)
	}
	fd := -1
	if err == nil {
		fd, err = unix.MemfdCreate("hook output", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
		if errors.Is(err, unix.EINVAL) {
			fd, err = unix.MemfdCreate("hook output", unix.MFD_CLOEXEC) // Linux < 6.3
		}
	}
	if err != nil {
		_ = r.Close() // read only
		return nil, nil, fmt.Errorf("hook: %w", err)
	}
	return r, os.NewFile(uintptr(fd), "hook output"), nil
}

// wait waits for the hook's end, or kills it when its time is up.
func (k *child) wait(h *specs.Hook) error {
	defer k.pidfd.Close()
	timeout := -1
	if h.Timeout != nil {
		timeout = *h.Timeout * 1000
	}
	end := time.Now().Add(time.Duration(timeout) * time.Millisecond)
	late := false
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(k.pidfd.Fd()), Events: unix.POLLIN}}, timeout)
		if err == unix.EINTR {
			if timeout >= 0 {
				timeout = max(0, int(time.Until(end)/time.Millisecond))
			}
			continue
		}
		if n == 0 && err == nil {
			late = true
			_ = unix.Kill(k.pid, unix.SIGKILL) // ours and not reaped
		}
		break
	}
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(k.pid, &ws, unix.WALL, nil); err != unix.EINTR {
			break
		}
	}
	if late {
		return fmt.Errorf("hook ran past specified timeout of %.1fs", float64(*h.Timeout))
	}
	if ws.Exited() && ws.ExitStatus() == 0 {
		return nil
	}
	why := "exit status " + strconv.Itoa(ws.ExitStatus())
	if ws.Signaled() {
		why = "signal: " + ws.Signal().String()
	}
	said := make([]byte, 64<<10)
	n, _ := k.output.ReadAt(said, 0) // what it has said helps; without it there is still the status
	return fmt.Errorf("%s, output: %s", why, strings.TrimSpace(string(said[:n])))
}

// inNamespaces runs a hook in the namespaces of a container whose root is not
// changed yet, in the directory of its root.
func inNamespaces(pid int, root string) func(h *specs.Hook, stdin []byte) error {
	return func(h *specs.Hook, stdin []byte) error {
		in, out, err := hookStdio(stdin)
		if err != nil {
			return err
		}
		defer in.Close()
		defer out.Close()
		flags, err := runtime.Namespaces(pid)
		if err != nil {
			return err
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return fmt.Errorf("pidfd_open: %w", err)
		}
		target := os.NewFile(uintptr(fd), "pidfd")
		defer target.Close()
		cmd := &program.Command{
			Path: h.Path, Args: hookArgs(h), Env: hookEnv(h), Dir: root,
			Files: []*os.File{in, out, out},
		}
		if flags != 0 {
			cmd.Join = []program.Join{{File: target, Type: int(flags)}}
		}
		c, err := cmd.Start()
		if err != nil {
			// Not as a call of the container's own program, which it would be taken for.
			return errors.New(err.Error())
		}
		return (&child{c.Pid, c.Pidfd, out}).wait(h)
	}
}

// inContainer runs a hook as a process of the container, with the rights of the
// container's own process.
func inContainer(ct *container, pr *specs.Process, filter *seccomp.Filter) func(h *specs.Hook, stdin []byte) error {
	return func(h *specs.Hook, stdin []byte) error {
		in, out, err := hookStdio(stdin)
		if err != nil {
			return err
		}
		defer in.Close()
		defer out.Close()
		p := *pr
		p.Args, p.Terminal = hookArgs(h), false
		if len(h.Env) > 0 {
			p.Env = h.Env
		}
		proc, err := runtime.Exec(runtime.Target{Pid: ct.Pid, Cgroup: birthplace{ct.group()}}, &p, runtime.ExecOptions{
			Stdio: runtime.Stdio{In: in, Out: out, Err: out}, Seccomp: filter, Linux: ct.spec.Linux, State: ct.ociState(created), Path: h.Path,
		})
		if err != nil {
			return errors.New(err.Error()) // as above
		}
		return (&child{proc.Pid, proc.Pidfd, out}).wait(h)
	}
}
