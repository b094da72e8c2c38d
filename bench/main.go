// Command bench measures isle side by side with its peers, in the same run on the
// same machine: podman, docker, runc, crun and bwrap where they are installed, and
// a static C program that makes the same system calls (bench/limit), which is
// taken as the limit of what can be had.
//
// Absolute times drift with the machine; ratios last. Contenders therefore take
// turns, round by round, so that a busy moment hits all of them; the median
// stands for each. The result is printed with the promises of docs/promises.md
// and kept in bench/results, one file a commit and size.
//
//	make bench                     a few minutes
//	make bench BENCH=full          with the gigabyte images
//	make bench ONLY=start,exec     some scenarios
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/images"
)

// scenario is one thing measured.
type scenario struct {
	name string
	run  func(context.Context, *bench) error
}

// scenarios in the order they run: what is quick and undisturbed first.
func scenarios() []scenario {
	return []scenario{
		{"version", version},
		{"start", start},
		{"exec", execScenario},
		{"many", many},
		{"ps", psScenario},
		{"memory", memory},
		{"health", health},
		{"stats", stats},
		{"copy", copyScenario},
		{"flood", flood},
		{"net", network},
		{"pull", pull},
	}
}

// bench is what scenarios share.
type bench struct {
	bin    string
	dir    string // of everything a run leaves on disk; removed at the end
	full   bool
	rounds int
	reg    *images.Registry
	peers  []*peer
	report report
	undo   []func()
}

func main() {
	bin := flag.String("bin", "bin", "directory of isle and isled")
	size := flag.String("size", "quick", "quick or full")
	only := flag.String("only", "", "scenarios, by commas")
	check := flag.Bool("check", false, "end with 1 when a promise is not kept")
	out := flag.String("o", "", "file of the result (default bench/results/COMMIT-SIZE.txt)")
	flag.Parse()
	if what := os.Getenv(varRR); what != "" {
		if err := requestResponse(what); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(*bin, *size, *only, *out, *check); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(bin, size, only, out string, check bool) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if size != "quick" && size != "full" {
		return fmt.Errorf("size %q: neither quick nor full", size)
	}
	if os.Getuid() != 0 {
		return errors.New("needs root: most peers and the limit do (isle's rootless figures are measured as well)")
	}
	b := &bench{full: size == "full", rounds: 31}
	if b.full {
		b.rounds = 101
	}
	if b.bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "isle-bench-"); err != nil {
		return err
	}
	b.later(func() {
		if err := testenv.RemoveAll(b.dir); err != nil {
			fmt.Fprintln(os.Stderr, "bench: clean up:", err)
		}
	})
	if err := os.Chmod(b.dir, 0o755); err != nil { // the rootless contender's directories are below
		return err
	}
	defer func() {
		for _, undo := range slices.Backward(b.undo) {
			undo()
		}
	}()
	b.report.head = fmt.Sprintf("%s, %s, %s/%s, %d CPUs, kernel %s", commit(), size, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), kernel())
	if err := b.serve(); err != nil {
		return err
	}
	if err := b.findPeers(ctx); err != nil {
		return err
	}
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, s := range scenarios() {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		began := time.Now()
		b.report.section(s.name)
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "[%s: %v]\n", s.name, time.Since(began).Round(time.Second))
	}
	if out == "" && len(wanted) == 0 {
		out = filepath.Join("bench", "results", commit()+"-"+size+".txt")
	}
	if err := b.report.finish(out); err != nil {
		return err
	}
	if check && b.report.missed > 0 {
		return fmt.Errorf("%d promises not kept", b.report.missed)
	}
	return nil
}

// later has f done at the end, in reverse order.
func (b *bench) later(f func()) { b.undo = append(b.undo, f) }

// sub makes a directory below the run's.
func (b *bench) sub(name string) (string, error) {
	d := filepath.Join(b.dir, name)
	return d, os.MkdirAll(d, 0o755)
}

// serve starts the registry that every contender pulls the same image from.
func (b *bench) serve() error {
	dir, err := b.sub("registry")
	if err != nil {
		return err
	}
	if b.reg, err = images.StartRegistry(dir, false); err != nil {
		return err
	}
	b.later(b.reg.Stop)
	m, err := images.Busybox(dir)
	if err != nil {
		return err
	}
	_, err = b.reg.Push(m)
	return err
}

// image is the name of the small image that containers are made of.
func (b *bench) image() string { return b.reg.Addr + "/library/busybox:latest" }

func commit() string {
	out, err := output("git", "describe", "--always", "--dirty", "--exclude", "*")
	if err != nil {
		return "unknown"
	}
	return out
}

func kernel() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(data))
}
