package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/testenv"
)

// shrunk waits until a container's monitor has executed itself again.
func (r *rig) shrunk(id string) int {
	r.t.Helper()
	r.letGo()
	pid := r.state(id).MonitorPid
	eventually(r.t, "the monitor shrinks", func() bool {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && strings.Count(string(cmdline), "\x00") == 3
	})
	return pid
}

func TestShrunkMonitorDoesEverything(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("printf half; cat; exit 6")
		cfg.OpenStdin, cfg.Name = true, "web"
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		pid := r.shrunk(id)
		if st := r.state(id); st.MonitorPid != pid || st.Status != container.Running {
			t.Errorf("%+v", st)
		}
		if !stateHeld(r, id) {
			t.Error("the lock was lost")
		}
		if err := unix.Kill(r.state(id).Pid, 0); err != nil {
			t.Fatalf("the container died of it: %v", err)
		}
		_, out, in := r.attach(id, true)
		if _, err := in.WriteString(" a line\nmore\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "output goes on", func() bool { return out.sofar() == "half a line\nmore\n" })
		c := r.dial(id)
		ended := make(chan error, 1)
		go func() {
			e, err := c.Wait(t.Context())
			if err == nil && e.Code != 137 {
				err = fmt.Errorf("exit %+v", e)
			}
			ended <- err
		}()
		r.kill(id)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := logged(t, r, id); got != "half a line\nmore\n" {
			t.Errorf("log %q", got)
		}
		if st := r.state(id); st.ExitCode != 137 || st.Status != container.Exited {
			t.Errorf("%+v", st)
		}

		// And one with a terminal, which ends by itself and removes itself.
		cfg = sh("stty size; sleep 1.5; stty size; exit 6")
		cfg.TTY, cfg.AutoRemove = true, true
		id = r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		r.shrunk(id)
		c = r.dial(id)
		if err := c.Resize(11, 22); err != nil {
			t.Fatal(err)
		}
		out = newCapture(t)
		if err := c.Attach(t.Context(), Attach{Stdout: out.w}); err != nil {
			t.Fatal(err)
		}
		out.w.Close()
		if e, err := c.Wait(t.Context()); err != nil || e.Code != 6 {
			t.Errorf("%+v, %v", e, err)
		}
		if got := out.String(); got != "11 22\r\n" {
			t.Errorf("terminal: %q", got)
		}
		if _, err := os.Stat(r.env.Container(id)); !os.IsNotExist(err) {
			t.Errorf("not removed: %v", err)
		}
	})
}

// pss is the proportional set size of a process in kB.
func pss(t *testing.T, pid int) (kB int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			if kB, err = strconv.Atoi(f[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kB
}

// TestIdleMemory: 1 MB for the monitor of an idle container (docs/promises.md).
func TestIdleMemory(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		const n = 20
		var ids []string
		for range n {
			id := r.create(container.Config{Cmd: []string{"/bin/sleep", "1000"}})
			c, err := r.start(id, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.f.Close()
			ids = append(ids, id)
		}
		var pids []int
		for _, id := range ids {
			pids = append(pids, r.shrunk(id))
		}
		time.Sleep(200 * time.Millisecond)
		total := 0
		for _, pid := range pids {
			total += pss(t, pid)
		}
		t.Logf("%d kB each", total/n)
		if total/n > 1024 {
			t.Errorf("%d kB for the monitor of an idle container, want at most 1024", total/n)
		}
		for _, id := range ids {
			r.kill(id)
		}
	})
}

func TestRestartPolicy(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		cfg := sh("echo run; exit 3")
		cfg.Restart = container.RestartPolicy{Name: "on-failure", MaxRetries: 2}
		id := r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		if e, err := r.dial(id).Wait(t.Context()); err != nil || e.Code != 3 {
			t.Errorf("%+v, %v", e, err)
		}
		if st := r.state(id); st.RestartCount != 2 || st.Status != container.Exited || st.ExitCode != 3 {
			t.Errorf("%+v", st)
		}
		if got := logged(t, r, id); got != "run\nrun\nrun\n" {
			t.Errorf("log %q", got)
		}

		// An attached client learns of the first end; a stop between two runs is one.
		cfg = sh("echo run")
		cfg.Restart.Name = "always"
		id = r.create(cfg)
		c, err := r.start(id, &Attach{})
		if err != nil {
			t.Fatal(err)
		}
		if e, err := c.Wait(t.Context()); err != nil || e.Code != 0 {
			t.Errorf("%+v, %v", e, err)
		}
		eventually(t, "the pause gets longer", func() bool {
			st := r.state(id)
			return st.RestartCount >= 2 && st.Status == container.Restarting
		})
		if err := r.dial(id).Stop(t.Context(), unix.SIGTERM, time.Second); err != nil {
			t.Fatal(err)
		}
		if st := r.state(id); st.Status != container.Exited || !st.StoppedByUser {
			t.Errorf("%+v", st)
		}

		// A command that has gone away cannot be started again.
		cfg = sh("rm /bin/true /bin/sh /bin/busybox; exit 1")
		cfg.Cmd = []string{"/data/once"}
		cfg.Restart.Name = "always"
		cfg.Mounts = []container.Mount{{Type: "bind", Source: onceScript(t, r), Target: "/data/once"}}
		id = r.create(cfg)
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(cfg.Mounts[0].Source); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it gives up", func() bool { return r.state(id).Status == container.Exited })
		if st := r.state(id); st.Error == "" || st.ExitCode != 125 {
			t.Errorf("%+v", st)
		}
	})
}

func onceScript(t *testing.T, r *rig) string {
	t.Helper()
	path := r.env.Home + "/once"
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 0.3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMonitorAskedToEnd(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		for _, shrink := range []bool{false, true} {
			cfg := sh("trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done")
			cfg.Restart.Name = "always"
			id := r.create(cfg)
			c, err := r.start(id, nil)
			if err != nil {
				t.Fatal(err)
			}
			pid := c.pid
			_ = c.f.Close()
			if shrink {
				r.shrunk(id)
			}
			time.Sleep(150 * time.Millisecond)
			if err := unix.Kill(pid, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the end", func() bool { return !stateHeld(r, id) })
			st := r.state(id)
			if st.Status != container.Exited || st.ExitCode != 0 || st.StoppedByUser {
				t.Errorf("shrunk %v: %+v", shrink, st)
			}
			if got := logged(t, r, id); got != "bye\n" {
				t.Errorf("shrunk %v: log %q", shrink, got)
			}
		}
	})
}

func TestPause(t *testing.T) {
	t.Run("root", func(t *testing.T) {
		testenv.Need(t, testenv.Root, testenv.Overlay, testenv.Busybox)
		if !testenv.InCgroups(t) {
			return
		}
		r := newRig(t)
		id := r.create(sh("while :; do echo tick; sleep 0.01; done"))
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		c := r.dial(id)
		if err := c.Pause(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if st := r.state(id); st.Status != container.Paused {
			t.Errorf("%+v", st)
		}
		if err := c.Pause(t.Context(), true); errs.KindOf(err) != errs.Conflict || err.Error() != "Container "+id+" is already paused" {
			t.Errorf("pause twice: %v", err)
		}
		was := logged(t, r, id)
		time.Sleep(100 * time.Millisecond)
		if now := logged(t, r, id); now != was {
			t.Error("it goes on while it is paused")
		}
		if err := c.Pause(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if err := c.Pause(t.Context(), false); errs.KindOf(err) != errs.Conflict || err.Error() != "Container "+id+" is not paused" {
			t.Errorf("unpause twice: %v", err)
		}
		eventually(t, "it goes on", func() bool { return logged(t, r, id) != was })
		// A paused container can be stopped.
		if err := c.Pause(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := r.dial(id).Stop(t.Context(), unix.SIGTERM, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if st := r.state(id); st.Status != container.Exited {
			t.Errorf("%+v", st)
		}
	})
}

func TestOutOfMemory(t *testing.T) {
	test := func(t *testing.T, r *rig) {
		cfg := sh("tail /dev/zero")
		cfg.Resources.Memory = 32 << 20
		cfg.Resources.MemorySwap = 32 << 20
		id := r.create(cfg)
		got := r.runID(id, "")
		if !got.exit.OOMKilled || got.exit.OOM == nil || got.exit.OOM.Limit != 32<<20 || got.exit.OOM.Kills != 1 || got.exit.Code != 137 {
			t.Errorf("%+v %+v", got.exit, got.exit.OOM)
		}
		st := r.state(id)
		if !st.OOMKilled || st.OOM == nil || !strings.Contains(st.OOM.Text, "limit 32 MiB") {
			t.Errorf("%+v %+v", st, st.OOM)
		}
		t.Log(st.OOM.Text)
	}
	t.Run("root", func(t *testing.T) {
		testenv.Need(t, testenv.Root, testenv.Overlay, testenv.Busybox)
		if !testenv.Has(t, testenv.CgroupV2Delegated) {
			testenv.Need(t, testenv.CgroupV1Memory)
		}
		if testenv.InCgroups(t) {
			test(t, newRig(t))
		}
	})
	t.Run("user", func(t *testing.T) {
		testenv.Need(t, testenv.UserNS, testenv.CgroupV2Delegated, testenv.Busybox)
		if testenv.AsUserInCgroups(t) {
			test(t, newRig(t))
		}
	})
}

// TestNothingInherited: descriptors that the caller of isle left open do not
// live on in the monitor.
func TestNothingInherited(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		nothingInherited(t, r)
		closeRange = func(uint, uint, uint) error { return unix.ENOSYS }
		nothingInherited(t, r)
		closeRange = unix.CloseRange
	})
}

func nothingInherited(t *testing.T, r *rig) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	high, err := unix.FcntlInt(uintptr(p[1]), unix.F_DUPFD, 200)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(p[1])
	id := r.create(container.Config{Cmd: []string{"/bin/sleep", "1000"}})
	if _, err := r.start(id, nil); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(high)
	if n, err := unix.Read(p[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("read %d, %v: somebody has the pipe open", n, err)
	}
	r.kill(id)
}

func TestSpawnedInVain(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		c, err := Spawn(r.env, r.ns)
		if err != nil {
			t.Fatal(err)
		}
		pid := c.pid
		if err := c.f.Close(); err != nil {
			t.Fatal(err)
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
			t.Errorf("%v, status %v", err, ws)
		}
	})
}

func TestStartedTwice(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		id := r.create(sh("sleep 1000"))
		if _, err := r.start(id, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.start(id, nil); errs.KindOf(err) != errs.Conflict {
			t.Errorf("second start: %v", err)
		}
		if st := r.state(id); st.Status != container.Running {
			t.Errorf("the second start changed the state: %+v", st)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := r.dial(id).Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait with an end: %v", err)
		}
		r.kill(id)
	})
}

// TestLeftoverCgroup: a monitor was killed after it had made the cgroup and before
// it had written the state.
func TestLeftoverCgroup(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		id := r.create(sh("exit 0"))
		g, err := newGroup(cgroup.Request{Name: id, Rootless: r.env.Rootless})
		if err != nil {
			t.Fatal(err)
		}
		if g.Empty() {
			return // no cgroups for this user here
		}
		// Its first child is not dead yet.
		child := exec.Command("sleep", "100")
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.Attach(child.Process.Pid); err != nil {
			t.Fatal(err)
		}
		go func() { _ = child.Wait() }()
		if got := r.runID(id, ""); got.exit.Code != 0 {
			t.Errorf("%+v", got)
		}
		if g, err = newGroup(cgroup.Request{Name: id, Rootless: r.env.Rootless}); err != nil {
			t.Fatal(err)
		}
		Sweep(r.env, &container.Record{ID: id})
		if _, err := os.Stat(g.Paths().V2); g.Paths().V2 != "" && !os.IsNotExist(err) {
			t.Errorf("not swept: %v", err)
		}
	})
}
