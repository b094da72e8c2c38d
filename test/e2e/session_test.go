package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	alone "github.com/isle-engine/isle/test/host"
)

// host is one user's isle with directories of its own.
type host struct {
	*alone.Host
	t   *testing.T
	dir string
	env []string
}

// newHost makes the directories and the environment that isle runs in, with the
// test registry as mirror of docker.io. At the end of the test nothing may be
// left of it.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Host: alone.New(t, "", "REG="+os.Getenv(varRegistry), "TZ=UTC"), t: t}
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		h.Env = append(h.Env, "XDG_RUNTIME_DIR="+run)
	}
	h.dir, h.env = h.Dir, h.Env
	conf := "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n"
	if addr := os.Getenv(varRegistry); addr != "" {
		conf += "[[registry.mirror]]\nlocation = \"" + addr + "\"\ninsecure = true\n"
	}
	h.write("home/.config/isle/registries.conf", conf)
	return h
}

func (h *host) write(name, data string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(data), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// processes returns the pids of this host's processes of one role.
func (h *host) processes(role string) []int {
	all, err := testenv.Processes(role, h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
}

// command prepares a line for the shell, or the words of a command.
func (h *host) command(ctx context.Context, words ...string) *exec.Cmd {
	if len(words) == 1 {
		words = []string{"/bin/bash", "-c", words[0]}
	}
	path := words[0]
	if !filepath.IsAbs(path) {
		path = filepath.Join(h.Bin, path)
	}
	return h.Command(ctx, path, words[1:]...)
}

// run runs a line for the shell, or the words of a command, and waits.
func (h *host) run(words ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r := h.Finish(ctx, h.command(ctx, words...))
	return result{r.Out, r.Err, r.Code}
}

// ok is run for a command that must succeed; it returns its trimmed output.
func (h *host) ok(words ...string) string {
	h.t.Helper()
	r := h.run(words...)
	if r.code != 0 {
		h.t.Fatalf("%q: exit code %d\n%s%s", words, r.code, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// step is one command of a session and what is expected of it.
type step struct {
	line   int
	cmd    string
	code   int
	expect []expectation
}

type expectation struct {
	stderr, not bool
	re          *regexp.Regexp
}

var words = map[string]func(*testing.T) bool{
	"root": func(*testing.T) bool { return os.Getuid() == 0 },
	"user": func(*testing.T) bool { return os.Getuid() != 0 },
	"nosystemd": func(*testing.T) bool {
		_, err := os.Stat("/run/systemd/system")
		return err != nil
	},
	"v1": func(t *testing.T) bool { return testenv.Has(t, testenv.CgroupV1Memory) },
	"v2": func(t *testing.T) bool { return testenv.Has(t, testenv.CgroupV2Delegated) },
	// procps 4.0.2 gives up where /proc/cpuinfo does not tell cores, as in User Mode
	// Linux: there ps prints no start time, on the host or in a container.
	"ps":   func(*testing.T) bool { return exec.Command("ps", "-ef").Run() == nil },
	"nops": func(*testing.T) bool { return exec.Command("ps", "-ef").Run() != nil },
}

// parse reads a session file, leaving out what does not apply here.
func parse(t *testing.T, name string) []step {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	applies := true
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		sign, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		if sign == "@" {
			applies = true
			for w := range strings.FieldsSeq(rest) {
				is, known := words[w]
				if !known {
					t.Fatalf("%s:%d: unknown word %q", name, n, w)
				}
				applies = applies && is(t)
			}
			continue
		}
		if !applies || sign == "" || strings.HasPrefix(sign, "#") {
			continue
		}
		if sign == "$" {
			steps = append(steps, step{line: n, cmd: rest})
			continue
		}
		if len(steps) == 0 {
			t.Fatalf("%s:%d: %q before the first command", name, n, sign)
		}
		s := &steps[len(steps)-1]
		if sign == "=" {
			if s.code, err = strconv.Atoi(rest); err != nil {
				t.Fatalf("%s:%d: %v", name, n, err)
			}
			continue
		}
		kind, not := strings.CutPrefix(sign, "!")
		if kind != "|" && kind != "2|" {
			t.Fatalf("%s:%d: unknown sign %q", name, n, sign)
		}
		re, err := regexp.Compile("(?m)" + rest)
		if err != nil {
			t.Fatalf("%s:%d: %v", name, n, err)
		}
		s.expect = append(s.expect, expectation{stderr: kind == "2|", not: not, re: re})
	}
	if len(steps) == 0 {
		t.Fatalf("%s: no command", name)
	}
	return steps
}

// session types a session file and compares what is seen.
func (h *host) session(name string) {
	h.t.Helper()
	for _, s := range parse(h.t, name) {
		began := time.Now()
		r := h.run(s.cmd)
		h.t.Logf("$ %s\n%s%s[%d, %v]", s.cmd, r.stdout, r.stderr, r.code, time.Since(began).Round(100*time.Microsecond))
		var wrong []string
		if r.code != s.code {
			wrong = append(wrong, fmt.Sprintf("exit code %d, want %d", r.code, s.code))
		}
		for _, e := range s.expect {
			text, from := r.stdout, "output"
			if e.stderr {
				text, from = r.stderr, "standard error"
			}
			if e.re.MatchString(text) == e.not {
				wrong = append(wrong, fmt.Sprintf("%s: match of %q: want %v", from, e.re, !e.not))
			}
		}
		if wrong != nil {
			h.t.Errorf("%s:%d: $ %s\n%s\n%s%s", name, s.line, s.cmd, strings.Join(wrong, "\n"), r.stdout, r.stderr)
		}
	}
}
