package monitor

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor/log"
)

// attach connects a new client that captures the container's output.
func (r *rig) attach(id string, logs bool) (c *Conn, out *capture, in *os.File) {
	r.t.Helper()
	c = r.dial(id)
	out = newCapture(r.t)
	pr, pw, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.Attach(r.t.Context(), Attach{Stdin: pr, Stdout: out.w, Stderr: out.w, Logs: logs}); err != nil {
		r.t.Fatal(err)
	}
	pr.Close()
	out.w.Close()
	r.t.Cleanup(func() { pw.Close() })
	return c, out, pw
}

func logged(t *testing.T, r *rig, id string) string {
	t.Helper()
	var b strings.Builder
	err := log.Read(t.Context(), r.env.Container(id), id, log.JSONFile, log.ReadOptions{Tail: -1}, func(e *log.Entry) error {
		b.Write(e.Line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAttachAndDetach(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("echo ready; cat")
		cfg.OpenStdin = true
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "ready is logged", func() bool { return logged(t, r, id) == "ready\n" })

		c1, out1, in1 := r.attach(id, false)
		_, out2, _ := r.attach(id, true)
		if _, err := io.WriteString(in1, "one\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both clients have the line", func() bool { return out1.sofar() == "one\n" && out2.sofar() == "ready\none\n" })

		// A client's end is not the container's end of input, which was
		// started without a client.
		in1.Close()
		_ = c1.Close()
		if out1.String() != "one\n" {
			t.Errorf("client 1 got %q", out1.String())
		}
		_, out3, in3 := r.attach(id, true)
		if _, err := io.WriteString(in3, "three"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a part of a line is there at once", func() bool { return out3.sofar() == "ready\none\nthree" && out2.sofar() == "ready\none\nthree" })
		_, out4, _ := r.attach(id, true)
		eventually(t, "and is replayed", func() bool { return out4.sofar() == "ready\none\nthree" })
		r.kill(id)
		if got := out3.String(); got != "ready\none\nthree" {
			t.Errorf("client 3 got %q", got)
		}
		if got := logged(t, r, id); got != "ready\none\nthree" {
			t.Errorf("log %q", got)
		}
	})
}

func TestClientInputEndsWithIt(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		// -i: the container's input ends when the client that started it ends.
		cfg := sh("cat; echo eof")
		cfg.OpenStdin = true
		id := r.create(cfg)
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.start(id, &Attach{Stdin: pr})
		if err != nil {
			t.Fatal(err)
		}
		pr.Close()
		if _, err := io.WriteString(pw, "x\n"); err != nil {
			t.Fatal(err)
		}
		pw.Close()
		if e, err := c.Wait(t.Context()); err != nil || e.Code != 0 {
			t.Errorf("%+v, %v", e, err)
		}
		if got := logged(t, r, id); got != "x\neof\n" {
			t.Errorf("log %q", got)
		}
	})
}

func TestClientThatDoesNotRead(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		id := r.create(sh("yes 0123456789012345678901234567890123456789"))
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer pr.Close()
		c, err := r.start(id, &Attach{Stdout: pw})
		if err != nil {
			t.Fatal(err)
		}
		pw.Close()
		// It is held up, and everything else works.
		size := func() int64 {
			fi, err := os.Stat(r.env.Container(id) + "/" + id + "-json.log")
			if err != nil {
				return 0
			}
			return fi.Size()
		}
		var last int64
		eventually(t, "output stops", func() bool {
			now := size()
			same := now == last && now > 0
			last = now
			time.Sleep(50 * time.Millisecond)
			return same
		})
		if size() > 8<<20 {
			t.Errorf("%d bytes logged ahead of the client", size())
		}
		start := time.Now()
		r.kill(id)
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("stop took %s", d)
		}
		// The slow client gets what was meant for it, then the exit.
		n, err := io.Copy(io.Discard, pr)
		if n == 0 || err != nil {
			t.Errorf("slow client: %d bytes, %v", n, err)
		}
		if e, err := c.Wait(t.Context()); err != nil || e.Code != 137 {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestClientThatHasGone(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		id := r.create(sh("i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; sleep 0.2; echo last"))
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		pr.Close() // EPIPE at the first byte
		c, err := r.start(id, &Attach{Stdout: pw, Stderr: pw})
		if err != nil {
			t.Fatal(err)
		}
		pw.Close()
		if e, err := c.Wait(t.Context()); err != nil || e.Code != 0 {
			t.Errorf("%+v, %v", e, err)
		}
		if got := logged(t, r, id); !strings.HasSuffix(got, "line 199\nlast\n") {
			t.Errorf("log ends %q", got[max(0, len(got)-40):])
		}
	})
}

func TestTerminal(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("stty size; read x; stty size; echo got $x; tty; exit 4")
		cfg.TTY, cfg.OpenStdin = true, true
		id := r.create(cfg)
		out := newCapture(t)
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer pw.Close()
		c, err := Spawn(r.env, r.ns)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Start(t.Context(), StartRequest{ID: id, Attach: &Attach{Stdin: pr, Stdout: out.w}, Rows: 33, Cols: 101}); err != nil {
			t.Fatal(err)
		}
		out.w.Close()
		pr.Close()
		eventually(t, "the size at the start", func() bool { return out.sofar() == "33 101\r\n" })
		if err := c.Resize(40, 80); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(pw, "hello\r"); err != nil {
			t.Fatal(err)
		}
		if e, err := c.Wait(t.Context()); err != nil || e.Code != 4 {
			t.Errorf("%+v, %v", e, err)
		}
		got := out.String()
		if !strings.Contains(got, "hello\r\n40 80\r\ngot hello\r\n") {
			t.Errorf("%q", got)
		}
		if log := logged(t, r, id); log != got {
			t.Errorf("log %q, terminal %q", log, got)
		}
	})
}

func TestTerminalKeptWhenClosedByContainer(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		// For a moment nobody inside has the terminal open: that is not its end.
		cfg := sh("echo one; (sleep 0.3; echo two > /dev/console) & exec > /dev/null 2>&1 < /dev/null; sleep 0.6")
		cfg.TTY = true
		id := r.create(cfg)
		c, err := r.start(id, &Attach{})
		if err != nil {
			t.Fatal(err)
		}
		if e, err := c.Wait(t.Context()); err != nil || e.Code != 0 {
			t.Errorf("%+v, %v", e, err)
		}
		if got := logged(t, r, id); got != "one\r\ntwo\r\n" {
			t.Errorf("log %q", got)
		}
	})
}

// testClient is a client process: it starts a container in the foreground and
// waits, until it is killed.
func testClient(args []string) int {
	r := rigOf(args)
	c, err := Spawn(r.env, r.ns)
	if err != nil {
		return 1
	}
	_, err = c.Start(context.Background(), StartRequest{ID: args[0], Attach: &Attach{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}})
	if err != nil {
		return 2
	}
	e, err := c.Wait(context.Background())
	if err != nil {
		return 3
	}
	return e.Code
}

func TestClientKilled(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		for i := range 10 {
			cfg := sh("i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); [ $((i%10)) = 0 ] && sleep 0.02; done; echo last; exit 9")
			cfg.OpenStdin, cfg.TTY = i%2 == 0, i%4 == 1
			id := r.create(cfg)
			cmd := r.client(id)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(i*i) * 2 * time.Millisecond)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if _, err := os.Stat(r.env.Container(id) + "/state.json"); err != nil {
				if _, err := Dial(r.env, id); err != nil {
					continue // killed before it had said start, or just at it
				}
			}
			eventually(t, "the end", func() bool {
				st, err := r.tryState(id)
				return err == nil && st.Status == container.Exited
			})
			if st := r.state(id); st.ExitCode != 9 {
				t.Errorf("round %d: %+v", i, st)
			}
			if got := logged(t, r, id); strings.Count(got, "\n") != 101 || !strings.HasPrefix(got, "line 0") {
				t.Errorf("round %d: log %q", i, got)
			}
		}
	})
}

func TestMonitorKilled(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		for _, wait := range []time.Duration{0, shrinkAfter + 300*time.Millisecond} {
			id := r.create(sh("echo up; sleep 1000 & sleep 1000"))
			c, err := r.start(id, nil)
			if err != nil {
				t.Fatal(err)
			}
			pid := c.pid
			time.Sleep(wait)
			st := r.state(id)
			if st.MonitorPid != pid || st.Status != container.Running {
				t.Fatalf("%+v", st)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the container is dead", func() bool {
				start, err := StartTime(st.Pid)
				return err != nil || start != st.PidStart || zombie(st.Pid)
			})
			eventually(t, "the lock is free", func() bool { return !stateHeld(r, id) })
			if _, err := Dial(r.env, id); errs.KindOf(err) != errs.NotFound {
				t.Errorf("dial: %v", err)
			}
			if st := r.state(id); st.Status != container.Running {
				t.Errorf("the record says %s; nobody was left to change it", st.Status)
			}
			// The same container starts again over what was left.
			if got := r.runAgain(id); got.Code != 0 {
				t.Errorf("second start: %+v", got)
			}
		}
	})
}

func zombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}
