package cli

import (
	"context"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// holding is an engine whose run lasts until it gets a signal.
type holding struct {
	*memory
	s   *held
	cfg container.Config
}

func (h *holding) Run(_ context.Context, cfg *container.Config, _ engine.CreateOptions, _ *engine.IO) (string, []string, engine.Session, error) {
	h.cfg = *cfg
	return "id", nil, h.s, nil
}

type held struct {
	mu    sync.Mutex
	got   []os.Signal
	sizes [][2]uint16
	end   chan engine.Exit
}

func (s *held) Wait(context.Context) (engine.Exit, error) { return <-s.end, nil }
func (s *held) Close() error                              { return nil }

func (s *held) Signal(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, sig)
	return nil
}

func (s *held) Resize(rows, cols uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes = append(s.sizes, [2]uint16{rows, cols})
	return nil
}

func (s *held) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %s: signals %v, sizes %v", what, s.got, s.sizes)
		}
	}
}

// openPTY returns the two ends of a new pseudoterminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

func isRaw(t *testing.T, f *os.File) bool {
	t.Helper()
	a, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return a.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0
}

// TestTerminalSession: the terminal is raw while the container runs and itself
// again afterwards; its size and the signals of this process are passed on.
func TestTerminalSession(t *testing.T) {
	master, slave := openPTY(t)
	if err := tty.SetSize(master, 24, 80); err != nil {
		t.Fatal(err)
	}
	h := &holding{memory: newMemory(), s: &held{end: make(chan engine.Exit)}}
	a := &app{ctx: t.Context(), name: "isle", in: slave, out: slave, err: slave, open: func() (conductor, error) { return h, nil }}
	code := make(chan int)
	go func() { code <- a.main([]string{"run", "-it", "alpine", "sh"}) }()
	h.s.until(t, "first size", func() bool { return len(h.s.sizes) > 0 })
	if h.cfg.ConsoleSize != [2]uint{24, 80} || h.s.sizes[0] != [2]uint16{24, 80} {
		t.Errorf("first sizes %v, %v", h.cfg.ConsoleSize, h.s.sizes)
	}
	if !isRaw(t, slave) {
		t.Error("terminal is not raw")
	}
	if err := tty.SetSize(master, 50, 132); err != nil {
		t.Fatal(err)
	}
	send := func(sig syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	send(syscall.SIGWINCH)
	h.s.until(t, "second size", func() bool { return len(h.s.sizes) > 1 })
	if h.s.sizes[len(h.s.sizes)-1] != [2]uint16{50, 132} {
		t.Errorf("sizes %v", h.s.sizes)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.Signal(40)} {
		if sig == 40 {
			time.Sleep(200 * time.Millisecond) // the rarer signals are caught a moment later
		}
		send(sig)
		h.s.until(t, sig.String(), func() bool { return len(h.s.got) > 0 && h.s.got[len(h.s.got)-1] == sig })
	}
	h.s.end <- engine.Exit{Code: 42}
	if got := <-code; got != 42 {
		t.Errorf("exit code %d", got)
	}
	if isRaw(t, slave) {
		t.Error("terminal is still raw")
	}
}

func TestSigProxyOff(t *testing.T) {
	h := &holding{memory: newMemory(), s: &held{end: make(chan engine.Exit, 1)}}
	h.s.end <- engine.Exit{Code: 3}
	if r := isle(t, h, "", "run", "--sig-proxy=false", "alpine"); r.code != 3 {
		t.Errorf("%+v", r)
	}
}

func TestHangupIsNotProxied(t *testing.T) {
	for _, s := range proxied() {
		switch s {
		case syscall.SIGHUP, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGWINCH:
			t.Errorf("%v is passed on", s)
		}
	}
}

func BenchmarkRunFlags(b *testing.B) {
	args := []string{"--rm", "-it", "-e", "A=b", "-v", "/a:/b", "-m", "64m", "--name", "web", "alpine", "sh", "-c", "echo hi"}
	b.ReportAllocs()
	for b.Loop() {
		c := &call{app: &app{}}
		run := cmdRun(c)
		if _, err := parseFlags(c.flags, args, false); err != nil || run == nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPs prints 1,000 containers: what is left of 20 ms is for reading them.
func BenchmarkPs(b *testing.B) {
	m := newMemory()
	for range 1000 {
		if _, _, err := m.Create(b.Context(), &container.Config{Image: "alpine", Cmd: []string{"sh", "-c", "sleep 1000"}, Name: "c" + strconv.Itoa(len(m.all))}, engine.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = null.Close() })
	for b.Loop() {
		a := &app{ctx: b.Context(), name: "isle", in: os.Stdin, out: null, err: null, open: func() (conductor, error) { return m, nil }}
		if code := a.main([]string{"ps", "-a"}); code != 0 {
			b.Fatal(code)
		}
	}
}
