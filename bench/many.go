package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// remove removes containers, many in one command.
func (p *peer) remove(ids []string) error {
	for chunk := range slices.Chunk(ids, 100) {
		if _, err := outputOf(p.command(append([]string{"rm", "-f"}, chunk...)...)); err != nil {
			return err
		}
	}
	return nil
}

// many: 300 containers started in a loop, all of them alive at the end.
func many(ctx context.Context, b *bench) (err error) {
	p := b.peer("isle")
	const n, part = 300, 30
	var ids []string
	defer func() {
		if e := p.remove(ids); err == nil {
			err = e
		}
	}()
	var times figures
	for range n {
		var out strings.Builder
		cmd := p.command(p.runArgs([]string{"-d", "--network", "none"}, b.image(), "sleep", "100000")...)
		cmd.Stdout = &out
		d, err := timed(ctx, cmd)
		if err != nil {
			return err
		}
		ids = append(ids, strings.TrimSpace(out.String()))
		times = append(times, d)
	}
	first, last := slices.Clone(times[:part]), slices.Clone(times[n-part:])
	slices.Sort(first)
	slices.Sort(last)
	b.report.printf("  %d containers: the first %d start in %s, the last %d in %s (medians)\n", n, part, ms(first.median()), part, ms(last.median()))
	b.report.promise("the last 30 of 300 to the first 30", ratio(last.median(), first.median()), "×", 1.3, true)
	return nil
}

// psScenario: ps -a with a thousand containers.
func psScenario(ctx context.Context, b *bench) (err error) {
	p := b.peer("isle")
	const n = 1000
	var ids []string
	defer func() {
		if e := p.remove(ids); err == nil {
			err = e
		}
	}()
	for range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, err := outputOf(p.command("create", "--network", "none", b.image(), "true"))
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	all := []contender{{"isle", func() *exec.Cmd { return p.command("ps", "-a") }}}
	got, err := race(ctx, b.rounds, all)
	if err != nil {
		return err
	}
	b.report.promise("isle ps -a with 1000 containers", float64(got["isle"].median())/1e6, " ms", 20, true)
	return nil
}

// memory: what an idle detached container costs beyond its own process.
func memory(_ context.Context, b *bench) (err error) {
	const n = 20
	for _, p := range b.peers {
		if p.name == "docker" {
			continue // its shims run apart from its containers; facts are in docs/promises.md
		}
		var ids []string
		for range n {
			id, err := outputOf(p.command(p.runArgs([]string{"-d", "--network", "none"}, b.image(), "sleep", "100000")...))
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		time.Sleep(time.Second) // what a monitor does after the start is over
		kib, count, err := pssOf(filepath.Join(b.dir, strings.ReplaceAll(p.name, " ", "-")))
		if e := p.remove(ids); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		b.report.printf("  %s: %d idle containers, %d processes of the engine, %.0f KiB in all\n", p.name, n, count, float64(kib))
		if strings.HasPrefix(p.name, "isle") {
			b.report.promise(p.name+": memory of an idle container (PSS)", float64(kib)/n/1024, " MB", 1, true)
		} else {
			b.report.printf("  %s: %.2f MB each\n", p.name, float64(kib)/n/1024)
		}
	}
	return nil
}

// pssOf sums the proportional memory of the processes that name dir in their
// arguments or environment: monitors and holders, not the containers.
func pssOf(dir string) (kib int64, count int, err error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, err
	}
	for _, e := range procs {
		if _, err := strconv.Atoi(e.Name()); err != nil || e.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		base := filepath.Join("/proc", e.Name())
		environ, _ := os.ReadFile(base + "/environ") // it may have ended
		cmdline, _ := os.ReadFile(base + "/cmdline")
		if !strings.Contains(string(environ), dir+"/") && !strings.Contains(string(cmdline), dir+"/") {
			continue
		}
		f, err := os.Open(base + "/smaps_rollup")
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if v, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
				n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				if err != nil {
					f.Close()
					return 0, 0, fmt.Errorf("%s: %w", f.Name(), err)
				}
				kib += n
				count++
			}
		}
		f.Close()
	}
	return kib, count, nil
}
