package monitor

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor/log"
	"github.com/isle-engine/isle/internal/state"
)

func sh(script string) container.Config {
	return container.Config{Cmd: []string{"/bin/sh", "-c", script}}
}

func TestExitCodesAndSignals(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		for _, c := range []struct {
			script       string
			code, signal int
		}{
			{"exit 0", 0, 0}, {"exit 3", 3, 0}, {"exit 255", 255, 0},
		} {
			id := r.create(sh(c.script))
			got := r.runID(id, "")
			if got.exit.Code != c.code || got.exit.Signal != c.signal {
				t.Errorf("%s: %+v", c.script, got.exit)
			}
			st := r.state(id)
			if st.Status != container.Exited || st.ExitCode != c.code || st.Pid != 0 || st.FinishedAt.Before(st.StartedAt) {
				t.Errorf("%s: state %+v", c.script, st)
			}
			if Alive(r.env, id) {
				t.Errorf("%s: the lock is held after the exit was told", c.script)
			}
		}
		id := r.create(sh("sleep 1000"))
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		r.kill(id)
		if st := r.state(id); st.ExitCode != 137 || st.Signal != 9 || !st.StoppedByUser {
			t.Errorf("killed: %+v", st)
		}
	})
}

func TestStartErrors(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		for _, c := range []struct {
			cfg  container.Config
			code int
			text string
		}{
			{container.Config{Cmd: []string{"nope"}}, 127, "executable file not found in $PATH"},
			{container.Config{Cmd: []string{"/bin/nope"}}, 127, "no such file or directory"},
			{container.Config{Cmd: []string{"/etc/noexec"}}, 126, "permission denied"},
			{container.Config{Cmd: []string{"/etc"}}, 126, "permission denied"},
			{container.Config{Cmd: []string{"true"}, User: "nobody2"}, 125, "nobody2"},
			{container.Config{Cmd: []string{"true"}, LogDriver: "nowhere"}, 125, "log driver"},
			{container.Config{Cmd: []string{"true"}, Mounts: []container.Mount{{Type: "bind", Source: "/nonexistent", Target: "/x"}}}, 125, "bind source path does not exist"},
		} {
			id := r.create(c.cfg)
			conn, err := r.start(id, nil)
			if err == nil || errs.ExitCode(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%+v: %v, exit code %d", c.cfg, err, errs.ExitCode(err))
			}
			st := r.state(id)
			if st.Status != container.Created || st.ExitCode != c.code || st.Error == "" {
				t.Errorf("%+v: state %+v", c.cfg, st)
			}
			if Alive(r.env, id) {
				t.Errorf("%+v: the lock is held after the failure was told", c.cfg)
			}
			_ = conn.Close()
		}
	})
}

func TestForegroundStreams(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		got := r.run(sh("echo out; echo err >&2; printf rest"), "")
		if got.out != "out\nrest" || got.errOut != "err\n" {
			t.Errorf("%+v", got)
		}
		cfg := sh("cat; echo end >&2")
		cfg.OpenStdin = true
		in := strings.Repeat("0123456789\n", 50_000)
		got = r.run(cfg, in)
		if got.out != in || got.errOut != "end\n" {
			t.Errorf("cat: %d bytes of %d, stderr %q", len(got.out), len(in), got.errOut)
		}
		// A user that is not root opens its streams by name.
		cfg = sh("echo named > /dev/stdout; echo too > /proc/self/fd/2; id -u")
		cfg.User = "web"
		if got = r.run(cfg, ""); got.out != "named\n33\n" || got.errOut != "too\n" {
			if !(r.env.Rootless && r.ns.SingleID()) {
				t.Errorf("as web: %+v", got)
			}
		}
		// Without -i there is nothing to read.
		if got = r.run(sh("cat; echo $?"), ""); got.out != "0\n" {
			t.Errorf("no stdin: %+v", got)
		}
	})
}

func TestLogHasEverything(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		const n = 20000
		cfg := sh(fmt.Sprintf("seq %d; seq 100 >&2; printf end", n))
		cfg.LogOpts = map[string]string{"max-size": "-1"}
		id := r.create(cfg)
		got := r.runID(id, "")
		var out, errOut strings.Builder
		err := log.Read(t.Context(), r.env.Container(id), id, log.JSONFile, log.ReadOptions{Tail: -1}, func(e *log.Entry) error {
			w := &out
			if e.Stream == "stderr" {
				w = &errOut
			}
			w.Write(e.Line)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != got.out || errOut.String() != got.errOut || !strings.HasSuffix(got.out, fmt.Sprintf("%d\nend", n)) {
			t.Errorf("log has %d and %d bytes, the client got %d and %d", out.Len(), errOut.Len(), len(got.out), len(got.errOut))
		}
		raw, err := os.ReadFile(r.env.Container(id) + "/" + id + "-json.log")
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Log, Stream string
			Time        time.Time
		}
		line, _, _ := strings.Cut(string(raw), "\n")
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Stream == "" || time.Since(v.Time) > time.Minute {
			t.Errorf("first line %q: %v", line, err)
		}
	})
}

func TestAutoRemove(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("exit 7")
		cfg.AutoRemove, cfg.Name = true, "gone"
		id := r.create(cfg)
		if got := r.runID(id, ""); got.exit.Code != 7 {
			t.Errorf("%+v", got)
		}
		for _, p := range []string{r.env.Container(id), r.env.RunContainer(id)} {
			if _, err := os.Lstat(p); !os.IsNotExist(err) {
				t.Errorf("%s: %v", p, err)
			}
		}
		eventually(t, "its name is free", func() bool {
			_, err := state.Lookup(r.env.Names(), "gone")
			return errs.KindOf(err) == errs.NotFound
		})
		eventually(t, "tmp is empty", func() bool {
			left, err := os.ReadDir(r.env.Tmp())
			return err == nil && len(left) == 0
		})
	})
}

func TestStop(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		// It ends by itself on the signal.
		id := r.create(sh("trap 'exit 5' USR1; while :; do sleep 0.05; done"))
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // until the trap is set
		if err := r.dial(id).Stop(t.Context(), unix.SIGUSR1, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		if st := r.state(id); st.ExitCode != 5 || !st.StoppedByUser {
			t.Errorf("%+v", st)
		}
		// PID 1 without a handler ignores SIGTERM, and is killed in the end.
		id = r.create(sh("sleep 1000"))
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := r.dial(id).Stop(t.Context(), unix.SIGTERM, 300*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 300*time.Millisecond || d > 5*time.Second {
			t.Errorf("stop took %s", d)
		}
		if st := r.state(id); st.ExitCode != 137 {
			t.Errorf("%+v", st)
		}
		if _, err := Dial(r.env, id); errs.KindOf(err) != errs.NotFound {
			t.Errorf("dial after the end: %v", err)
		}
	})
}
