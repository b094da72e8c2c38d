package monitor

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/linux/lap"
	"github.com/isle-engine/isle/internal/state"
)

// controlFD is the descriptor of the socket to whoever spawned the monitor.
const controlFD = 3

// mountFD is the descriptor of the mount that the monitor is executed through,
// where there is one (spawnHere).
const mountFD = 4

// Main is the role isle-monitor. It returns when the container has ended for
// good, or at once when nobody ever asks for a start.
func Main(args []string) int {
	if len(args) == 3 {
		mem, err := strconv.Atoi(args[2])
		if err != nil {
			return 2
		}
		return resume(mem)
	}
	// The kernel ties the container's parent-death signal to this thread, the
	// main one, which lives as long as the process.
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, prompt, 0, 0, 0) // see Spawn
	m := &monitor{listener: -1, in: input{fd: -1}}
	first := &peer{fd: controlFD, stdin: -1}
	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(mountFD)
	n, files, err := await(controlFD, m.msg[:])
	if err != nil {
		return 0 // the client had second thoughts
	}
	start, ok := decodeStart(m.msg[:n])
	if !ok {
		closeFDs(files)
		return 2
	}
	if m.env, err = config.Load(); err != nil {
		first.answer(encodeError(err))
		return 1
	}
	m.id, m.dir = start.id, m.env.Container(start.id)
	lap.Begin(lap.Monitor)
	lap.MarkCPU("start of the monitor's process")
	lap.Mark("take the container over")
	if m.waker, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		first.answer(encodeError(err))
		return 1
	}
	if start.flags&flagLock != 0 && len(files) > 0 {
		last := len(files) - 1
		m.lock, files = state.AdoptLock(os.NewFile(uintptr(files[last]), "lock")), files[:last]
	}
	if start.flags&flagRoot != 0 && len(files) > 0 {
		last := len(files) - 1
		m.root, files = os.NewFile(uintptr(files[last]), "overlay"), files[:last]
	}
	_ = unix.SetNonblock(controlFD, true)
	if start.flags&flagAttach != 0 {
		if err := m.attach(first, start.flags&^flagLogs, files); err != nil {
			first.answer(encodeError(err))
			return 1
		}
	} else {
		closeFDs(files)
	}
	m.size = [2]uint16{start.rows, start.cols}
	warnings, err := m.begin(first, start.flags&flagNew != 0)
	if err != nil {
		first.answer(encodeError(err))
		return 1
	}
	m.peers = append(m.peers, first)
	first.answer(encodeStarted(m.proc.pid, warnings))
	if first.attached {
		m.set(timerAnnounce, announceAfter)
	}
	debug.SetGCPercent(100)
	m.listenForTerm()
	m.set(timerShrink, shrinkAfter)
	m.loop()
	return 0
}

// await blocks until the first message.
func await(fd int, buf []byte) (n int, files []int, err error) {
	for {
		n, files, err = recv(fd, buf, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, files, err
		}
	}
}

// background is the context of what this process does: it is a main of its own,
// and nobody can give up on its behalf.
func background() context.Context {
	return context.Background() //nolint:forbidigo // of a role, which is a main
}
