package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// detached starts n containers that sleep and returns what removes them.
func (b *bench) detached(p *peer, n int, options ...string) (ids []string, remove func() error, err error) {
	remove = func() error { return p.remove(ids) }
	for range n {
		id, err := outputOf(p.command(p.runArgs(append([]string{"-d", "--network", "none"}, options...), b.image(), "sleep", "100000")...))
		if err != nil {
			return ids, remove, err
		}
		ids = append(ids, id)
	}
	return ids, remove, nil
}

// cpuOf is the CPU time of a process and of its children that have been reaped.
func cpuOf(pid int) (self, children time.Duration, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	tick := func(i int) time.Duration {
		n, _ := strconv.ParseInt(f[i-3], 10, 64) // the kernel writes numbers
		return time.Duration(n) * (time.Second / 100)
	}
	return tick(14) + tick(15), tick(16) + tick(17), nil
}

// monitors returns the parents of containers' processes: conmon too.
func monitors(p *peer, ids []string) (pids []int, err error) {
	for _, id := range ids {
		pid, err := outputOf(p.command("inspect", "-f", "{{.State.Pid}}", id))
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(line, "PPid:"); ok {
				n, err := strconv.Atoi(strings.TrimSpace(v))
				if err != nil {
					return nil, err
				}
				pids = append(pids, n)
			}
		}
	}
	return pids, nil
}

// health: a check a second on 50 containers.
func health(ctx context.Context, b *bench) (err error) {
	p := b.peer("isle")
	const n, span = 50, 20 * time.Second
	ids, remove, err := b.detached(p, n, "--health-cmd", "true", "--health-interval", "1s")
	defer func() {
		if e := remove(); err == nil {
			err = e
		}
	}()
	if err != nil {
		return err
	}
	pids, err := monitors(p, ids)
	if err != nil {
		return err
	}
	sum := func() (self, children time.Duration, err error) {
		for _, pid := range pids {
			s, c, err := cpuOf(pid)
			if err != nil {
				return 0, 0, err
			}
			self, children = self+s, children+c
		}
		return self, children, nil
	}
	time.Sleep(3 * time.Second) // until the monitors have settled
	s0, c0, err := sum()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, span); err != nil {
		return err
	}
	s1, c1, err := sum()
	if err != nil {
		return err
	}
	took := time.Since(began)
	percent := func(d time.Duration) float64 { return 100 * float64(d) / float64(took) }
	kib, count, err := pssOf(filepath.Join(b.dir, "isle"))
	if err != nil {
		return err
	}
	b.report.printf("  %d containers, a check each second: monitors %.1f %% of a core, the checks' own processes (sh -c true) %.1f %%; %.2f MB each (PSS)\n",
		n, percent(s1-s0), percent(c1-c0), float64(kib)/1024/float64(max(count, 1)))
	b.report.promise("50 containers checked each second, all of it", percent(s1-s0+c1-c0), " % of a core", 5, true)
	return b.podmanCheck()
}

// podmanCheck tells what one check costs podman, whose timers need systemd.
func (b *bench) podmanCheck() (err error) {
	p := b.peer("podman")
	if p == nil {
		return nil
	}
	ids, remove, err := b.detached(p, 1, "--health-cmd", "true", "--health-interval", "disable")
	defer func() {
		if e := remove(); err == nil {
			err = e
		}
	}()
	if err != nil {
		return err
	}
	const rounds = 10
	var cpu time.Duration
	for range rounds {
		cmd := p.command("healthcheck", "run", ids[0])
		if _, err := outputOf(cmd); err != nil {
			b.report.printf("  podman healthcheck run: %v\n", err)
			return nil
		}
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	each := cpu / rounds
	b.report.printf("  podman healthcheck run: %s of CPU time each, %.0f %% of a core for 50 a second\n", ms(each), 100*float64(each*50)/float64(time.Second))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// stats: the live display of 200 containers.
func stats(ctx context.Context, b *bench) (err error) {
	p := b.peer("isle")
	const n, span = 200, 10 * time.Second
	_, remove, err := b.detached(p, n)
	defer func() {
		if e := remove(); err == nil {
			err = e
		}
	}()
	if err != nil {
		return err
	}
	cmd := p.command("stats")
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // ended by our signal
	}()
	screens := 0
	go func() {
		for s := bufio.NewScanner(lines); s.Scan(); {
			if strings.Contains(s.Text(), "CONTAINER ID") {
				screens++
			}
		}
	}()
	if err := pause(ctx, 3*time.Second); err != nil { // until all are known
		return err
	}
	before, _, err := cpuOf(cmd.Process.Pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, span); err != nil {
		return err
	}
	after, _, err := cpuOf(cmd.Process.Pid)
	if err != nil {
		return err
	}
	b.report.promise("isle stats of 200 containers", 100*float64(after-before)/float64(time.Since(began)), " % of a core", 1, true)
	return nil
}

// copyScenario: cp of many small files and of one large one, both ways.
func copyScenario(ctx context.Context, b *bench) (err error) {
	dir, err := b.sub("copy")
	if err != nil {
		return err
	}
	size, rounds := int64(256<<20), 5
	if b.full {
		size, rounds = 2<<30, 3
	}
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	if err := smallFiles(small, 10_000); err != nil {
		return err
	}
	if out, err := exec.Command("dd", "if=/dev/urandom", "of="+large, "bs=1M", fmt.Sprintf("count=%d", size>>20)).CombinedOutput(); err != nil {
		return fmt.Errorf("dd: %w: %s", err, out)
	}
	// Into memory: making many files on a disk from which as many have just been
	// removed measures that file system, and nothing else.
	fast, err := os.MkdirTemp("/dev/shm", "isle-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fast) //nolint:errcheck // in memory
	for _, c := range []struct {
		what, path string
	}{{"10,000 files of 1 KB", small}, {fmt.Sprintf("one file of %d MB", size>>20), large}} {
		var in, out []contender
		for _, p := range b.peers {
			if p.user != nil {
				continue
			}
			ids, remove, err := b.detached(p, 1)
			defer func() {
				if e := remove(); err == nil && e != nil {
					fmt.Fprintln(os.Stderr, "bench: clean up:", e)
				}
			}()
			if err != nil {
				return err
			}
			id, to := ids[0], filepath.Join(fast, "out-"+p.name)
			in = append(in, contender{p.name, func() *exec.Cmd { return p.command("cp", c.path, id+":/in") }})
			out = append(out, contender{p.name, func() *exec.Cmd {
				_ = os.RemoveAll(to) // of the round before
				return p.command("cp", id+":/in", to)
			}})
		}
		for _, way := range []struct {
			name string
			all  []contender
		}{{"into the container", in}, {"out of it", out}} {
			got, err := race(ctx, rounds, way.all)
			if err != nil {
				return err
			}
			b.report.printf("  %s, %s\n", c.what, way.name)
			b.report.table(way.all, got, "isle")
			for _, o := range way.all[1:] {
				b.report.promise(o.name+" cp to isle cp: "+c.what+" "+way.name, ratio(got[o.name].median(), got["isle"].median()), "×", 1, false)
			}
		}
	}
	return nil
}

func smallFiles(dir string, n int) error {
	text := bytes.Repeat([]byte("x"), 1024)
	for i := range n {
		sub := filepath.Join(dir, strconv.Itoa(i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(i)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// numbered makes a file of lines that begin with their numbers.
func (b *bench) numbered(lines, width int) (string, error) {
	dir, err := b.sub("flood")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "lines")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	pad := strings.Repeat("x", width-11)
	for i := range lines {
		fmt.Fprintf(w, "%09d %s\n", i, pad)
	}
	if err := w.Flush(); err != nil {
		_ = f.Close() // the error says more
		return "", err
	}
	return name, f.Close()
}

// flood: a gigabyte of log, as fast as it comes, beside a container that works.
func flood(ctx context.Context, b *bench) error {
	p := b.peer("isle")
	const lines, width = 10_000_000, 100
	file, err := b.numbered(lines, width)
	if err != nil {
		return err
	}
	// Work that takes one CPU for about a second.
	work := func() *exec.Cmd {
		return p.command(p.runArgs([]string{"--rm", "--network", "none"}, b.image(), "sh", "-c", "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done")...)
	}
	quiet := func() (figures, error) {
		got, err := race(ctx, 5, []contender{{"work", work}})
		return got["work"], err
	}
	alone, err := quiet()
	if err != nil {
		return err
	}
	began := time.Now()
	id, err := outputOf(p.command(p.runArgs([]string{"-d", "--network", "none", "-v", file + ":/lines:ro"}, b.image(), "cat", "/lines")...))
	if err != nil {
		return err
	}
	defer func() { _ = p.remove([]string{id}) }() // the run's end removes it otherwise
	ended := make(chan time.Duration, 1)
	go func() {
		_, _ = outputOf(p.command("wait", id)) // its log is looked at below
		ended <- time.Since(began)
	}()
	var beside figures
	var took time.Duration
	for took == 0 {
		d, err := timed(ctx, work())
		if err != nil {
			return err
		}
		select {
		case took = <-ended:
		default:
			beside = append(beside, d) // all of it during the flood
		}
	}
	sortFigures(beside)
	log, err := outputOf(p.command("logs", id))
	if err != nil {
		return err
	}
	kept := strings.Split(log, "\n")
	next, lost := -1, 0
	for _, l := range kept {
		n, err := strconv.Atoi(l[:min(9, len(l))])
		if err != nil || next >= 0 && n != next {
			lost++
		}
		next = n + 1
	}
	b.report.printf("  1 GB of log in %.1f s (%.0f MB/s); the newest %d lines are kept, the last of them %d\n", took.Seconds(), lines*width/1e6/took.Seconds(), len(kept), next-1)
	b.report.promise("lines lost of those that are kept", float64(lost+lines-next), "", 0, true)
	if len(beside) > 0 {
		b.report.promise("work in another container, during the flood to alone", ratio(beside.median(), alone.median()), "×", 1.1, true)
	}
	return nil
}
