package monitor

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/linux/resident"
	"github.com/isle-engine/isle/internal/monitor/log"
	"github.com/isle-engine/isle/internal/state"
)

// A container that has run for a while without a client will probably do so for
// long. What its start has left in the monitor's memory is then given up by
// executing the monitor again: the process, its descriptors, locks and children
// stay, the heap is new. Measured on 20 monitors: 2.4 MB of private memory after
// a start, 0.9 MB after the garbage collector has returned what it could,
// 0.6 MB after the execve.
//
// execve(2) ends all threads but the one that calls it, and that one becomes
// the main thread if it is not already. It is: Main is locked to the main
// thread, so the thread that forked the container lives on, and its death
// signal is not sent.

const (
	shrinkAfter = time.Second
	shrinkRetry = 5 * time.Second
)

// idleMemory bounds the Go heap of the monitor of an idle container. The
// collector does not run until then: each of its cycles touches more memory
// than an idle monitor has.
const idleMemory = 16 << 20

// shrink executes the monitor again, if nothing is under way.
func (m *monitor) shrink() {
	if m.proc == nil || m.ended {
		return
	}
	spare()
	if len(m.peers) > 0 || len(m.in.pending) > 0 || m.checking != nil || m.doubted != nil || !m.timers[timerStop].IsZero() {
		m.set(timerShrink, shrinkRetry)
		return
	}
	if err := m.reexec(); err != nil {
		// It is only memory.
		debug.FreeOSMemory()
	}
}

// spare asks the kernel's out-of-memory killer to look elsewhere: the death of the
// monitor is the container's, and frees next to nothing. A container that is
// started again does not inherit it (spec sets its own). Without CAP_SYS_RESOURCE
// the score cannot be lowered below what it was; and what it was is not what it is
// now: a score that was written for the container while it still shared our
// memory is ours as well (__set_oom_adj in fs/proc/base.c).
func spare() {
	fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	if _, err := unix.Write(fd, []byte("-999")); err != nil {
		_, _ = unix.Write(fd, []byte("0")) // refused where we were born with more
	}
	_ = unix.Close(fd)
}

// reexec does not return unless it fails.
func (m *monitor) reexec() (Err error) {
	if err := m.log.Flush(); err != nil {
		return err
	}
	m.tell()
	mem, err := unix.MemfdCreate("isle-monitor", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(mem) //nolint:errcheck // only after a failure
	kept := &carried{fds: []int{mem}}
	text := m.pack(kept)
	if _, err := unix.Write(mem, text); err != nil {
		return err
	}
	if _, err := unix.Seek(mem, 0, 0); err != nil {
		return err
	}
	for _, fd := range kept.fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
		defer unix.CloseOnExec(fd)
	}
	if m.st.Health != nil {
		if err := m.save(false); err != nil { // with the last probes
			return err
		}
	}
	name := m.rec.Config.Name
	if name == "" {
		name = m.id[:12]
	}
	// The name is for whoever reads ps(1), the number for us.
	environ := os.Environ()
	for i, e := range environ {
		if strings.HasPrefix(e, "GOMAXPROCS=") {
			environ[i] = "GOMAXPROCS=1" // now it does one thing after the other
		}
	}
	return syscall.Exec("/proc/self/exe", []string{Role, name, strconv.Itoa(mem)}, environ)
}

// carried collects the descriptors that must survive.
type carried struct{ fds []int }

func (k *carried) fd(f *os.File) int {
	if f == nil {
		return -1
	}
	return k.raw(raw(f))
}

func (k *carried) raw(fd int) int {
	if fd >= 0 {
		k.fds = append(k.fds, fd)
	}
	return fd
}

// pack writes down what the next incarnation needs, with a zero byte, which no
// path holds, after each item. No JSON: its first use costs more memory than
// all the rest of an idle monitor's heap.
func (m *monitor) pack(k *carried) []byte {
	lock := -1
	if m.lock != nil {
		lock = k.fd(m.lock.File())
	}
	outs := [2]int{-1, -1}
	var rest [2][]byte
	for _, o := range m.outs {
		if o.fd < 0 {
			continue
		}
		outs[o.index] = o.fd
		rest[o.index] = o.stream.Unfinished()
		if m.console == nil {
			k.raw(o.fd)
		}
	}
	in := m.in.fd
	if m.console == nil {
		k.raw(in)
	}
	o := m.logOptions
	items := []string{
		m.id, m.env.Data, m.env.Run, m.env.Home, strconv.Itoa(m.env.UID), strconv.Itoa(m.env.GID),
		strconv.Itoa(lock), strconv.Itoa(k.raw(m.listener)), strconv.Itoa(k.fd(m.proc.pidfd)),
		strconv.Itoa(k.fd(m.console)), strconv.Itoa(k.fd(m.consolePeer)),
		strconv.Itoa(outs[0]), strconv.Itoa(outs[1]), strconv.Itoa(in),
		strconv.Itoa(m.proc.pid), strconv.FormatUint(m.proc.start, 10), strconv.FormatInt(m.proc.started.UnixNano(), 10),
		strconv.Itoa(int(m.size[0])), strconv.Itoa(int(m.size[1])), strconv.FormatBool(m.once), strconv.FormatInt(int64(m.backoff), 10),
		strconv.FormatInt(nanos(m.timers[timerHealth]), 10),
		o.Driver, strconv.FormatInt(o.MaxSize, 10), strconv.Itoa(o.MaxFiles), strconv.FormatBool(o.Compress), string(o.Attrs), m.logErr,
	}
	var b strings.Builder
	for _, item := range items {
		b.WriteString(item)
		b.WriteByte(0)
	}
	for _, r := range rest {
		b.WriteString(strconv.Itoa(len(r)))
		b.WriteByte(0)
		b.Write(r)
	}
	for _, f := range [...]*os.File{m.helperFile(), m.watchFile()} {
		b.WriteString(strconv.Itoa(k.fd(f)))
		b.WriteByte(0)
	}
	files := m.networkFiles()
	b.WriteString(strconv.Itoa(len(files)))
	b.WriteByte(0)
	for _, f := range files {
		b.WriteString(strconv.Itoa(k.fd(f)))
		b.WriteByte(0)
	}
	return []byte(b.String())
}

// nanos is a time as a number; 0 for none.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// unpacker reads what pack wrote.
type unpacker struct {
	s   string
	bad bool
}

func (u *unpacker) str() string {
	item, rest, ok := strings.Cut(u.s, "\x00")
	u.s = rest
	u.bad = u.bad || !ok
	return item
}

func (u *unpacker) num() int64 {
	n, err := strconv.ParseInt(u.str(), 10, 64)
	u.bad = u.bad || err != nil
	return n
}

func (u *unpacker) file(name string) *os.File {
	fd := int(u.num())
	if fd < 0 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

func (u *unpacker) fd() int {
	fd := int(u.num())
	if fd >= 0 {
		unix.CloseOnExec(fd)
	}
	return fd
}

// resume is the monitor's second life; mem is the descriptor that pack's text is
// in.
func resume(mem int) int {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(idleMemory)
	text, err := readFD(mem, "memfd", maxEtc)
	_ = unix.Close(mem) // read to the end
	if err != nil {
		return 1
	}
	m := &monitor{}
	if !m.unpack(&unpacker{s: string(text)}) {
		return 1
	}
	if m.waker, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return 1
	}
	m.vague = true
	m.listenForTerm()
	_ = resident.DropFilePages() // it is only memory
	m.loop()
	return 0
}

func (m *monitor) unpack(u *unpacker) bool {
	m.id = u.str()
	m.env = config.Env{Data: u.str(), Run: u.str(), Home: u.str(), UID: int(u.num()), GID: int(u.num())}
	m.env.Rootless = m.env.UID != 0
	m.dir = m.env.Container(m.id)
	if f := u.file("lock"); f != nil {
		m.lock = state.AdoptLock(f)
	}
	m.listener = u.fd()
	m.proc = &process{pidfd: u.file("pidfd")}
	m.console, m.consolePeer = u.file("console"), u.file("pty")
	var fds [3]int
	for i := range fds {
		fds[i] = u.fd()
	}
	m.in = input{fd: fds[2], tty: m.console != nil}
	m.proc.pid, m.proc.start = int(u.num()), uint64(u.num())
	m.proc.started = time.Unix(0, u.num())
	m.size = [2]uint16{uint16(u.num()), uint16(u.num())}
	m.once = u.str() == "true"
	m.backoff = time.Duration(u.num())
	if n := u.num(); n != 0 {
		m.timers[timerHealth] = time.Unix(0, n)
	}
	o := log.Options{Driver: u.str(), MaxSize: u.num(), MaxFiles: int(u.num()), Compress: u.str() == "true", Attrs: []byte(u.str())}
	m.logErr = u.str()
	m.logOptions = o
	m.log = log.NewWriter(m.dir, m.id, o)
	for i, name := range [...]string{"stdout", "stderr"} {
		n := int(u.num())
		if u.bad || n < 0 || n > len(u.s) {
			return false
		}
		rest := u.s[:n]
		u.s = u.s[n:]
		if fds[i] >= 0 {
			m.outs = append(m.outs, &output{fd: fds[i], index: i, stream: m.log.Stream(name)})
			m.outs[len(m.outs)-1].stream.Write([]byte(rest), now())
		}
	}
	m.netHelper, m.netWatch = u.file("network helper"), u.file("packet filter")
	for range u.num() {
		m.netFDs = append(m.netFDs, u.file("published port"))
	}
	return !u.bad && m.proc.pidfd != nil
}
