package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// contender is one way to do what a scenario measures.
type contender struct {
	name string
	cmd  func() *exec.Cmd
}

// figures are the times of one contender, sorted.
type figures []time.Duration

func (f figures) at(share float64) time.Duration {
	if len(f) == 0 {
		return 0
	}
	return f[min(int(share*float64(len(f))), len(f)-1)]
}

func (f figures) median() time.Duration { return f.at(0.5) }

// race times the contenders in turns. Two rounds go before, unmeasured. A
// contender that fails is an error: a fast failure is not a result.
func race(ctx context.Context, rounds int, all []contender) (map[string]figures, error) {
	got := map[string]figures{}
	for i := range rounds + 2 {
		for _, c := range all {
			d, err := timed(ctx, c.cmd())
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if i >= 2 {
				got[c.name] = append(got[c.name], d)
			}
		}
	}
	for _, f := range got {
		slices.Sort(f)
	}
	return got, nil
}

// timed runs a command and returns the wall time from start to end.
func timed(ctx context.Context, cmd *exec.Cmd) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var said bytes.Buffer
	// A file, not a pipe: with a pipe Wait would wait for whoever holds it, and
	// a goroutine of ours would take CPU from the contender.
	log, err := os.CreateTemp("", "isle-bench-out-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(log.Name()) }() // ours, empty or read
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	began := time.Now()
	err = cmd.Run()
	took := time.Since(began)
	if err != nil {
		data, readErr := os.ReadFile(log.Name())
		said.Write(data)
		return took, errors.Join(fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String())), readErr)
	}
	return took, nil
}

// output runs a command and returns its trimmed output.
func output(name string, args ...string) (string, error) {
	return outputOf(exec.Command(name, args...))
}

func outputOf(cmd *exec.Cmd) (string, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// report collects what is printed and kept.
type report struct {
	head   string
	body   strings.Builder
	missed int
}

func (r *report) section(name string) { r.printf("\n%s\n", name) }

func (r *report) printf(format string, args ...any) {
	fmt.Fprintf(&r.body, format, args...)
	fmt.Fprintf(os.Stdout, format, args...)
}

// table prints the figures of a race, in the contenders' order, with ratios to
// one of them.
func (r *report) table(all []contender, got map[string]figures, to string) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\tmedian\t10%%\t90%%\tto %s\t\n", to)
	base := got[to].median()
	for _, c := range all {
		f := got[c.name]
		ratio := "-"
		if base > 0 {
			ratio = fmt.Sprintf("%.2f", float64(f.median())/float64(base))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", c.name, ms(f.median()), ms(f.at(0.1)), ms(f.at(0.9)), ratio)
	}
	_ = w.Flush() // into memory
	r.printf("%s", b.String())
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// promise says whether a figure is within what docs/promises.md says.
func (r *report) promise(text string, got float64, unit string, limit float64, atMost bool) {
	kept := got <= limit
	word := "at most"
	if !atMost {
		kept, word = got >= limit, "at least"
	}
	verdict := "kept  "
	if !kept {
		verdict = "MISSED"
		r.missed++
	}
	r.printf("  %s  %s: %.2f%s (%s %g%s)\n", verdict, text, got, unit, word, limit, unit)
}

func (r *report) finish(name string) error {
	if r.missed > 0 {
		r.printf("\n%d promises MISSED\n", r.missed)
	}
	if name == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(r.head+"\n"+r.body.String()), 0o644)
}

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func sortFigures(f figures) { slices.Sort(f) }
