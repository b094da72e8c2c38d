package layout

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata")

// neverInIsle are packages that cost isle its start-up time, or that only isled
// may link; a name ends in /... for all below it.
var neverInIsle = []string{
	"net/http/...", "crypto/tls", "crypto/x509", "log/slog", "html/template", "expvar", "go/...", "testing/...",
	"google.golang.org/grpc/...", "google.golang.org/protobuf/...",
	"github.com/spf13/cobra/...", "github.com/opencontainers/go-digest/...", "github.com/distribution/reference/...",
	"github.com/opencontainers/image-spec/...", "github.com/sirupsen/logrus/...",
	"gvisor.dev/gvisor/...", "github.com/moby/buildkit/...", "k8s.io/...",
	module + "/internal/testenv", module + "/internal/pull/...", module + "/internal/network/uplink/...", module + "/internal/image/registry/...", module + "/internal/builtin/...",
}

// Limits of package initialisation in isle; see TestInitialisationIsCheap. Counts
// are the same on every machine; the time is what a slow one may take.
const (
	initLimit    = 700 * time.Microsecond
	initAllocs   = 120
	initPackages = 46
	initRuns     = 15
)

// requirements reads go.mod: module to whether it is marked indirect.
func requirements(t *testing.T) (required map[string]bool, replaces []string) {
	t.Helper()
	required = map[string]bool{}
	block := ""
	for line := range strings.Lines(read(t, "go.mod")) {
		code, comment, _ := strings.Cut(line, "//")
		f := strings.Fields(code)
		verb := block
		switch {
		case len(f) == 0:
			continue
		case f[0] == ")":
			block = ""
			continue
		case len(f) == 2 && f[1] == "(":
			block = f[0]
			continue
		case block == "":
			verb, f = f[0], f[1:]
		}
		switch verb {
		case "require":
			required[f[0]] = strings.TrimSpace(comment) == "indirect"
		case "replace", "exclude":
			replaces = append(replaces, strings.TrimSpace(line))
		}
	}
	return required, replaces
}

func TestGoModReplacesNothing(t *testing.T) {
	required, replaces := requirements(t)
	for _, r := range replaces {
		t.Errorf("go.mod: %s: whoever runs go install would build something else", r)
	}
	if len(required) == 0 {
		t.Error("go.mod: found no requirement")
	}
}

// TestDependenciesAreExplained compares docs/dependencies.md with what the
// source imports, both ways, and each module's importers with the list there.
func TestDependenciesAreExplained(t *testing.T) {
	required, _ := requirements(t)
	allowed := map[string][]string{}
	for _, cells := range table(t, read(t, "docs/dependencies.md"), "module") {
		if len(cells) != 5 {
			t.Fatalf("docs/dependencies.md: %q: want five cells", cells)
		}
		for i, c := range cells {
			if c == "" {
				t.Errorf("docs/dependencies.md: %s: cell %d is empty", cells[0], i+1)
			}
		}
		names := ticked(cells[0])
		if len(names) != 1 {
			t.Fatalf("docs/dependencies.md: %q: want one module in back quotes", cells[0])
		}
		allowed[names[0]] = ticked(cells[4])
	}
	used := map[string]bool{}
	_, files := source(t)
	for _, f := range files {
		for _, imp := range f.imports {
			if standard(imp) || strings.HasPrefix(imp, module) || imp == "C" {
				continue
			}
			mod := moduleOf(required, imp)
			if mod == "" {
				t.Errorf("%s: no module in go.mod provides %s", f.name, imp)
				continue
			}
			used[mod] = true
			list, explained := allowed[mod]
			if !explained {
				t.Errorf("%s: %s has no line in docs/dependencies.md", f.name, mod)
				allowed[mod] = []string{"cmd/...", "internal/...", "bench/...", "test/...", "hack/..."} // said once
				continue
			}
			if !within(f.dir, list) && (!f.test || !slices.Contains(list, "tests")) {
				t.Errorf("%s: %s may be imported by %s only (docs/dependencies.md)", f.name, mod, strings.Join(list, ", "))
			}
		}
	}
	for mod := range allowed {
		if !used[mod] {
			t.Errorf("docs/dependencies.md: %s is imported by nothing", mod)
		}
	}
	for mod, indirect := range required {
		if used[mod] == indirect {
			t.Errorf("go.mod: %s: marked indirect: %v, imported: %v (go mod tidy)", mod, indirect, used[mod])
		}
	}
}

// standard reports whether an import path is of the standard library.
func standard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

// moduleOf returns the longest required module path that imp lies in.
func moduleOf(required map[string]bool, imp string) string {
	best := ""
	for m := range required {
		if (imp == m || strings.HasPrefix(imp, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	return best
}

// linked returns the packages that a command links.
func linked(t *testing.T, cmd string) []string {
	t.Helper()
	out := run(t, nil, "go", "list", "-deps", cmd)
	return strings.Fields(out)
}

func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = moduleRoot(t)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux"), env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errOut.String())
	}
	return out.String()
}

func TestIsleLinksNothingHeavy(t *testing.T) {
	for _, pkg := range linked(t, "./cmd/isle") {
		if within(pkg, neverInIsle) {
			t.Errorf("cmd/isle links %s (go list -deps; who: go mod why -m, or go list -f '{{.ImportPath}} {{.Imports}}' -deps ./cmd/isle)", pkg)
		}
	}
}

// TestPackageListIsReviewed keeps the list of other people's packages in isle in
// git, so that a new one shows in review.
func TestPackageListIsReviewed(t *testing.T) {
	var list []string
	for _, pkg := range linked(t, "./cmd/isle") {
		if !standard(pkg) && !strings.HasPrefix(pkg, module) {
			list = append(list, pkg)
		}
	}
	slices.Sort(list)
	got := strings.Join(list, "\n") + "\n"
	name := filepath.Join("testdata", "isle-packages.txt")
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("packages in isle changed; look at them, then go test ./internal/layout -update\ngot:\n%swant:\n%s", got, want)
	}
}

// TestInitialisationIsCheap bounds what runs before main: the sum over packages
// as the Go runtime reports it, the best of several starts because the machine
// may be busy.
func TestInitialisationIsCheap(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "isle")
	run(t, nil, "go", "build", "-o", exe, "./cmd/isle")
	best, packages, allocs := time.Hour, 0, 0
	var worst string
	for range initRuns {
		cmd := exec.Command(exe, "version")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1", "ISLE_ROOT="+t.TempDir(), "ISLE_RUNROOT="+t.TempDir())
		var trace bytes.Buffer
		cmd.Stderr = &trace
		if err := cmd.Run(); err != nil {
			t.Fatalf("isle version: %v\n%s", err, trace.String())
		}
		sum, n, a := time.Duration(0), 0, 0
		for line := range strings.Lines(trace.String()) {
			// init internal/bytealg @0.008 ms, 0 ms clock, 0 bytes, 0 allocs
			f := strings.Fields(line)
			if len(f) != 11 || f[0] != "init" {
				continue
			}
			d, err := time.ParseDuration(f[4] + "ms")
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			var k int
			for _, c := range f[9] {
				k = k*10 + int(c-'0')
			}
			sum, n, a = sum+d, n+1, a+k
		}
		if n == 0 {
			t.Fatalf("no trace of initialisation:\n%s", trace.String())
		}
		if sum < best {
			best, packages, allocs, worst = sum, n, a, trace.String()
		}
	}
	t.Logf("initialisation of isle: %v in %d packages, %d allocations", best, packages, allocs)
	if best > initLimit || packages > initPackages || allocs > initAllocs {
		t.Errorf("initialisation of isle: %v in %d packages with %d allocations; at most %v, %d, %d\n%s",
			best, packages, allocs, initLimit, initPackages, initAllocs, worst)
	}
}
