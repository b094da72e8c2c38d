package monitor

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/userns"
	"github.com/isle-engine/isle/internal/state"
)

// Conn is a connection to a monitor. Start, Attach, Wait, Stop, Kill, Pause and
// Update are used one at a time; Resize, Signal and Close at any time.
type Conn struct {
	f   *os.File
	rc  syscall.RawConn
	pid int // of the monitor, where this process started it
}

// Attach connects a client's streams to a container. Each is nil if it is not
// wanted. They are duplicated; the caller keeps its own.
type Attach struct {
	// Stdin is the reading end of a pipe that the caller writes to; closing the
	// writing end is the end of the container's input where the container
	// was started with Stdin attached and has no terminal.
	Stdin          *os.File
	Stdout, Stderr *os.File // the monitor writes to them itself
	Logs           bool     // first what was logged before
}

// StartRequest tells a fresh monitor which container to start.
type StartRequest struct {
	ID     string
	Attach *Attach // nil: detached
	// Rows, Cols are the terminal's size at the start; 0: the container's own.
	Rows, Cols uint16
	Sent       func() // called when the monitor has been told
	// Root is what MountRoot returned. Start closes it.
	Root *os.File
	// New is true where the monitor is to tell that the container was made.
	New bool
	// Lock is the container's, for the monitor to hold from now on, so that nobody
	// else gets hold of a container between its making and its start. Start closes it.
	Lock *state.Lock
}

// Started is the answer to a start.
type Started struct {
	Pid      int // of the container's init, as this process's pid namespace numbers it
	Warnings []string
}

// Exit is how a container ended.
type Exit struct {
	Code      int            `json:"code"`
	Signal    int            `json:"signal,omitempty"`
	OOMKilled bool           `json:"oomKilled,omitempty"`
	OOM       *container.OOM `json:"oom,omitempty"`
	Error     string         `json:"error,omitempty"` // why a restart failed
	By        string         `json:"by,omitempty"`    // who sent the signal, where that was isle
}

// Role is argv[0] of a monitor.
const Role = "isle-monitor"

// Spawn starts a monitor that waits to be told its container, inside the
// user's namespaces where ns is not nil. It is called as early as possible: the
// monitor's Go runtime comes up while the caller prepares the container. Close
// before Start makes it go away silently.
func Spawn(env config.Env, ns *userns.Namespace) (*Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start monitor: %w", os.NewSyscallError("socketpair", err))
	}
	theirs := os.NewFile(uintptr(pair[1]), "monitor")
	defer theirs.Close()
	// Two things at once are the most it does (ahead.go), and until the container
	// runs all of its memory fits the first heap.
	environ := append(env.Environ(os.Environ()), "GOMAXPROCS=2", "GOGC=off")
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil || strings.HasSuffix(exe, " (deleted)") {
		exe = "/proc/self/exe" // replaced by a newer version; the old one goes on
	}
	// Go's runtime has a thread that looks around every 20 µs at first. In a
	// monitor it finds nothing to do, and takes the time from those who have. It
	// inherits how late it may be woken (PR_SET_TIMERSLACK in prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, lazy, 0, 0, 0) // it is only time
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)  //nolint:errcheck // back to what it was
	var pid int
	if ns == nil {
		pid, err = spawnHere(exe, environ, theirs)
	} else {
		pid, err = spawnInside(exe, environ, theirs, ns)
	}
	if err != nil {
		_ = unix.Close(pair[0]) // nothing was sent
		return nil, fmt.Errorf("start monitor: %w", err)
	}
	c, err := newConn(pair[0])
	if err != nil {
		return nil, err
	}
	c.pid = pid
	return c, nil
}

// The timer slack of a monitor's threads, in nanoseconds; its main thread, and
// the container that is cloned from it, have the usual one.
const (
	lazy   = 500_000
	prompt = 50_000
)

// spawnInside starts the monitor in the user's namespaces.
func spawnInside(exe string, environ []string, sock *os.File, ns *userns.Namespace) (pid int, err error) {
	cmd := program.Command{
		Path: exe, Args: []string{Role}, Env: environ, Files: []*os.File{nil, nil, nil, sock},
		Setsid: true, Dir: "/", Join: ns.Join(), Protect: exe != "/proc/self/exe",
	}
	child, err := cmd.Start()
	if err != nil {
		return 0, err
	}
	_ = child.Pidfd.Close() // not used
	return child.Pid, nil
}

// spawnHere starts the monitor where this process is. Go's own fork is the
// cheapest there is (CLONE_VFORK and CLONE_VM: no page table is copied), as no
// namespace has to be joined.
//
// The monitor is executed through a read-only mount of its directory that nobody
// can name: an image whose command is a script for /proc/self/exe would
// otherwise be a way to this file (CVE-2019-5736; program.Command.Protect does
// the same). The mount's descriptor stays open in the monitor: closing it waits
// for an RCU grace period, which this way happens when nobody waits for the
// monitor any more.
func spawnHere(exe string, environ []string, sock *os.File) (pid int, err error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer unix.Close(null) //nolint:errcheck // nothing was written
	// What a careless caller of isle left open (a pipe of a script that waits
	// for its end, a lock) must not live as long as the container.
	if err := closeRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		// A filter of another engine around us may not know it.
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0, err
		}
		for _, d := range fds {
			if fd, err := strconv.Atoi(d.Name()); err == nil && fd > 2 {
				unix.CloseOnExec(fd)
			}
		}
	}
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(raw(sock))}
	if dir, err := readOnlyMount(filepath.Dir(exe)); err == nil && exe != "/proc/self/exe" {
		defer unix.Close(dir) //nolint:errcheck // the child has its own
		exe = "/proc/self/fd/" + strconv.Itoa(len(files)) + "/" + filepath.Base(exe)
		files = append(files, uintptr(dir))
	}
	pid, err = syscall.ForkExec(exe, []string{Role}, &syscall.ProcAttr{Dir: "/", Env: environ, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, &fs.PathError{Op: "execve", Path: exe, Err: err}
	}
	return pid, nil
}

// closeRange is close_range(2) (Linux 5.11 for the flag); a test forces what is
// done without it.
var closeRange = unix.CloseRange

// readOnlyMount returns a detached, read-only mount of a directory.
func readOnlyMount(dir string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		_ = unix.Close(fd) // a mount's root
		return -1, err
	}
	return fd, nil
}

// newConn makes a connection of a connected socket.
func newConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // so that contexts can end a wait
		_ = unix.Close(fd) // nothing was sent
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "monitor")
	rc, err := f.SyscallConn()
	if err != nil {
		_ = f.Close() // nothing was sent
		return nil, err
	}
	return &Conn{f: f, rc: rc}, nil
}

// Dial connects to the monitor of a running container. The error is NotFound
// when there is none.
func Dial(env config.Env, id string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	path := sockPath(env, id)
	name, closeDir, err := shortPath(path)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		closeDir()
	}
	switch {
	case err == nil:
		// The other end must be ours: a runtime directory in /tmp is a place
		// where somebody else may have been first.
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			if int(cred.Uid) != os.Geteuid() && os.Geteuid() != 0 {
				err = errs.New(errs.Denied, "connect to monitor %q: it belongs to uid %d", path, cred.Uid)
			}
		}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		err = errs.New(errs.NotFound, "connect to monitor %q: %w", path, err)
	default:
		err = &fs.PathError{Op: "connect to monitor", Path: path, Err: err}
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was sent
		return nil, err
	}
	return newConn(fd)
}

// Start tells the monitor to start a container and returns when its command has
// been executed, or with the reason why not; the monitor is gone then.
func (c *Conn) Start(ctx context.Context, req StartRequest) (Started, error) {
	m := startMsg{id: req.ID, rows: req.Rows, cols: req.Cols}
	files, flags := req.Attach.files()
	if req.New {
		flags |= flagNew
	}
	if req.Root != nil {
		flags |= flagRoot
		files = append(files, raw(req.Root))
	}
	if req.Lock != nil {
		flags |= flagLock
		files = append(files, raw(req.Lock.File()))
	}
	m.flags = flags
	err := c.write(m.encode(), files...)
	if req.Lock != nil {
		_ = req.Lock.Close() // the monitor's copy holds it
	}
	if req.Root != nil {
		_ = req.Root.Close() // a mount's root, now the monitor's
	}
	if err != nil {
		return Started{}, err
	}
	if req.Sent != nil {
		req.Sent()
	}
	b, err := c.read(ctx)
	if err != nil {
		return Started{}, err
	}
	if b[0] != msgStarted || len(b) < 5 {
		return Started{}, unexpected(b)
	}
	s := Started{Pid: int(binary.LittleEndian.Uint32(b[1:]))}
	if len(b) > 5 {
		s.Warnings = strings.Split(string(b[5:]), "\x00")
	}
	return s, nil
}

// files returns what goes with 'S' and 'A'.
func (a *Attach) files() (fds []int, flags byte) {
	if a == nil {
		return nil, 0
	}
	flags = flagAttach
	if a.Logs {
		flags |= flagLogs
	}
	for i, f := range [...]*os.File{a.Stdin, a.Stdout, a.Stderr} {
		if f != nil {
			fds = append(fds, raw(f))
			flags |= flagStdin << i
		}
	}
	return fds, flags
}

// Attach connects the caller's streams to the container.
func (c *Conn) Attach(ctx context.Context, a Attach) error {
	files, flags := a.files()
	return c.request(ctx, []byte{msgAttach, flags}, files...)
}

// Wait returns when the container ends. A client that is attached learns of the
// next end, also of a container that will be restarted; another one waits
// until the container does not run any more.
func (c *Conn) Wait(ctx context.Context) (Exit, error) {
	if err := c.write([]byte{msgWait, 0}); err != nil && !errors.Is(err, unix.EPIPE) {
		return Exit{}, err // after EPIPE the answer may be waiting already
	}
	b, err := c.read(ctx)
	if err != nil {
		return Exit{}, err
	}
	if b[0] != msgExit || len(b) < 7 {
		return Exit{}, unexpected(b)
	}
	e := Exit{Code: int(int32(binary.LittleEndian.Uint32(b[1:]))), Signal: int(b[5]), OOMKilled: b[6] != 0}
	if len(b) > 7 {
		if err := json.Unmarshal(b[7:], &e); err != nil {
			return Exit{}, errs.New(errs.Corrupt, "answer of the monitor: %w", err)
		}
	}
	return e, nil
}

// Stop asks the container to end by signal, kills it when it still runs after
// timeout (negative: never), and returns when its end is recorded.
func (c *Conn) Stop(ctx context.Context, sig syscall.Signal, timeout time.Duration) error {
	if timeout < 0 {
		timeout = -time.Millisecond
	}
	err := c.request(ctx, encodeStop(byte(sig), timeout))
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// Kill sends the container's init a signal that the user asked for: restart
// policies take it as the user's wish.
func (c *Conn) Kill(ctx context.Context, sig syscall.Signal) error {
	return c.request(ctx, []byte{msgKill, byte(sig)})
}

// Pause freezes or thaws the container.
func (c *Conn) Pause(ctx context.Context, on bool) error {
	b := []byte{msgPause, 0}
	if on {
		b[1] = 1
	}
	return c.request(ctx, b)
}

// Update makes the monitor read the container's record again, for what a
// running container lets change: its restart policy and its name.
func (c *Conn) Update(ctx context.Context) error { return c.request(ctx, []byte{msgUpdate}) }

// Health returns the health of the container as it is now: what was recorded of
// it may lack the last probes. nil: it has no health check.
func (c *Conn) Health(ctx context.Context) (*container.Health, error) {
	if err := c.write([]byte{msgHealth}); err != nil {
		return nil, err
	}
	b, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	if b[0] != msgProbes {
		return nil, unexpected(b)
	}
	var st container.State
	if err := st.ParseJSON(b[1:]); err != nil {
		return nil, errs.New(errs.Corrupt, "answer of the monitor: %w", err)
	}
	return st.Health, nil
}

// Resize tells the container's terminal its new size.
func (c *Conn) Resize(rows, cols uint16) error {
	b := binary.LittleEndian.AppendUint16([]byte{msgResize}, rows)
	return c.write(binary.LittleEndian.AppendUint16(b, cols))
}

// Signal passes a signal that the client got on to the container's init.
func (c *Conn) Signal(sig syscall.Signal) error { return c.write([]byte{msgSignal, byte(sig)}) }

// Close ends the connection. The container lives on.
func (c *Conn) Close() error {
	if c.pid != 0 {
		// A process that lives longer than the container must not keep a zombie.
		go reapLater(c.pid)
		c.pid = 0
	}
	return c.f.Close()
}

// reapLater takes the exit status of a monitor that this process has started.
func reapLater(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// request sends a message and waits for 'a'.
func (c *Conn) request(ctx context.Context, msg []byte, files ...int) error {
	if err := c.write(msg, files...); err != nil {
		return err
	}
	b, err := c.read(ctx)
	if err != nil {
		return err
	}
	switch b[0] {
	case msgAck:
		return nil
	case msgExit:
		return errEnded
	}
	return unexpected(b)
}

// errEnded is the answer to a request that came too late.
const errEnded = endedError("the container has ended")

type endedError string

func (e endedError) Error() string        { return string(e) }
func (e endedError) Is(target error) bool { return target == errs.Conflict }

// unexpected is the error in an answer that is not the one hoped for.
func unexpected(b []byte) error {
	if b[0] == msgError {
		return decodeError(b)
	}
	return errs.New(errs.Corrupt, "answer of the monitor: unexpected message %q", b[0])
}

func (c *Conn) write(b []byte, files ...int) error {
	var err error
	werr := c.rc.Write(func(fd uintptr) bool {
		err = send(int(fd), b, unix.MSG_DONTWAIT, files...)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = errors.Join(werr, err); err != nil {
		return errs.New(errs.Unavailable, "monitor: %w", err)
	}
	return nil
}

func (c *Conn) read(ctx context.Context) ([]byte, error) {
	if done := ctx.Done(); done != nil {
		stop := context.AfterFunc(ctx, func() { _ = c.f.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	buf := make([]byte, maxMessage)
	var n int
	var files []int
	var err error
	reset := false
	rerr := c.rc.Read(func(fd uintptr) bool {
		for {
			n, files, err = recv(int(fd), buf, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.ECONNRESET) && !reset {
				// It ended without reading all that we said; what it said
				// itself is still to be had (unix(7) tells of the reset first).
				reset = true
				continue
			}
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return !errors.Is(err, unix.EAGAIN)
		}
	})
	closeFDs(files) // a monitor sends none
	switch {
	case ctx.Err() != nil && rerr != nil:
		_ = c.f.SetReadDeadline(time.Time{})
		return nil, ctx.Err()
	case rerr != nil:
		return nil, errs.New(errs.Unavailable, "monitor: %w", rerr)
	case err != nil:
		return nil, errs.New(errs.Unavailable, "monitor: ended without an answer: %w", err)
	}
	return buf[:n], nil
}
