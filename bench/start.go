package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/isle-engine/isle/internal/testenv"
)

// limit builds the static C program that makes a container by the same calls,
// and returns how to run true with it. Where there is no C compiler, ok is false
// and the report says so.
func (b *bench) limit() (run func() *exec.Cmd, ok bool, err error) {
	cc, err := testenv.LookTool("cc")
	if err != nil {
		b.report.printf("no limit to compare with: %v\n", err)
		return nil, false, nil
	}
	rootfs, err := b.rootfs()
	if err != nil {
		return nil, false, err
	}
	work, err := b.sub("limit")
	if err != nil {
		return nil, false, err
	}
	exe := filepath.Join(work, "limit")
	if _, err := os.Stat(exe); err != nil {
		if _, err := output(cc, "-O2", "-static", "-o", exe, "bench/limit/limit.c"); err != nil {
			return nil, false, err
		}
	}
	return func() *exec.Cmd { return exec.Command(exe, rootfs, work, "/bin/true") }, true, nil
}

// start: a container that runs true and goes, the whole process, warm.
func start(ctx context.Context, b *bench) error {
	var all []contender
	add := func(name string, cmd func() *exec.Cmd) { all = append(all, contender{name, cmd}) }
	rootfs, err := b.rootfs()
	if err != nil {
		return err
	}
	add("true", func() *exec.Cmd { return exec.Command(filepath.Join(rootfs, "bin/busybox"), "true") })
	limit, limited, err := b.limit()
	if err != nil {
		return err
	}
	if limited {
		add("limit", limit)
	}
	for _, p := range b.peers {
		add(p.name, func() *exec.Cmd {
			return p.command(p.runArgs([]string{"--rm", "--network", "none"}, b.image(), "true")...)
		})
	}
	for _, name := range []string{"runc", "crun"} {
		exe, err := testenv.LookTool(name)
		if err != nil {
			continue
		}
		bundle, err := b.bundle(exe, "true")
		if err != nil {
			return err
		}
		state, err := b.sub(name + "-state")
		if err != nil {
			return err
		}
		cmd := func() *exec.Cmd {
			return exec.Command(exe, "--root", state, "run", "--bundle", bundle, "bench-"+name)
		}
		if _, err := outputOf(cmd()); err != nil {
			b.report.printf("not compared: %v\n", err)
			continue
		}
		add(name, cmd)
	}
	if exe, err := testenv.LookTool("bwrap"); err == nil {
		add("bwrap", func() *exec.Cmd {
			return exec.Command(exe, "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "/bin/true")
		})
	}
	got, err := race(ctx, b.rounds, all)
	if err != nil {
		return err
	}
	b.report.table(all, got, "isle")
	isle := got["isle"].median()
	if limited {
		b.report.promise("isle run to the limit", ratio(isle, got["limit"].median()), "×", 3, true)
	}
	for _, name := range []string{"podman", "docker"} {
		if b.peer(name) != nil {
			b.report.promise(name+" to isle run", ratio(got[name].median(), isle), "×", 25, false)
		}
	}
	if f, raced := got["runc"]; raced {
		b.report.promise("runc run to isle run", ratio(f.median(), isle), "×", 1, false)
	}
	if f, raced := got["isle rootless"]; raced {
		b.report.promise("isle run rootless to root", ratio(f.median(), isle), "×", 1.5, true)
	}
	return nil
}

// execScenario: true in a container that runs.
func execScenario(ctx context.Context, b *bench) error {
	var all []contender
	for _, p := range b.peers {
		id, err := outputOf(p.command(p.runArgs([]string{"-d", "--network", "none"}, b.image(), "sleep", "100000")...))
		if err != nil {
			return err
		}
		all = append(all, contender{p.name, func() *exec.Cmd { return p.command("exec", id, "true") }})
		defer func() {
			if _, err := outputOf(p.command("rm", "-f", id)); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}()
		if p.name != "isle" {
			continue
		}
		limit, limited, err := b.limit()
		if err != nil {
			return err
		}
		if limited {
			all = append(all, contender{"limit", limit})
		}
	}
	got, err := race(ctx, b.rounds, all)
	if err != nil {
		return err
	}
	b.report.table(all, got, "isle")
	if f, raced := got["limit"]; raced {
		b.report.promise("isle exec to the limit", ratio(got["isle"].median(), f.median()), "×", 2.5, true)
	}
	return nil
}

// version: what the start of the binary costs beyond that of any Go program.
func version(ctx context.Context, b *bench) error {
	dir, err := b.sub("empty")
	if err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/main.go", []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", "linked", "main.go")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GO111MODULE=off")
	if _, err := outputOf(build); err != nil {
		return err
	}
	// A copy starts faster than what the linker leaves; isle is a copy, too.
	if _, err := output("cp", dir+"/linked", dir+"/empty"); err != nil {
		return err
	}
	isle := b.peer("isle")
	all := []contender{
		{"empty Go program", func() *exec.Cmd { return exec.Command(dir + "/empty") }},
		{"isle", func() *exec.Cmd { return isle.command("version") }},
	}
	got, err := race(ctx, 3*b.rounds, all)
	if err != nil {
		return err
	}
	b.report.table(all, got, "empty Go program")
	b.report.promise("isle version beyond an empty Go program", float64(got["isle"].median()-got["empty Go program"].median())/1e6, " ms", 1.5, true)
	var sizes []string
	for _, n := range []string{"isle", "isled"} {
		st, err := os.Stat(filepath.Join(b.bin, n))
		if err != nil {
			return err
		}
		sizes = append(sizes, fmt.Sprintf("%s %.1f MB", n, float64(st.Size())/1e6))
	}
	b.report.printf("  size: %s\n", strings.Join(sizes, ", "))
	return nil
}
