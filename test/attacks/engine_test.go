package attacks

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/host"
)

// varEngine names the program under attack; isle of this tree without it.
const varEngine = "ENGINE"

// engine is a container engine with Docker's command line.
type engine struct {
	*host.Host
	t    *testing.T
	dir  string // everything of this test
	path string // of the program, its own copy for isle
	base string // the layer with busybox and probe, an archive
}

// newEngine prepares an engine with a store of its own. binaries is the directory
// that isle and isled are copied from; "" takes the program that ENGINE names, or
// the build of this tree.
func newEngine(t *testing.T, binaries string, env ...string) *engine {
	t.Helper()
	testenv.Need(t, testenv.Busybox)
	e := &engine{t: t}
	if other := os.Getenv(varEngine); other != "" && binaries == "" {
		path, err := exec.LookPath(other)
		if err != nil {
			t.Fatal(err)
		}
		e.Host, e.path = &host.Host{T: t, Dir: testenv.Dir(t), Env: os.Environ()}, path
		t.Cleanup(func() {
			if ids := strings.Fields(e.call("ps", "-aq", "--filter", "label=isle.attack="+e.label()).out); len(ids) > 0 {
				e.call(append([]string{"rm", "-f"}, ids...)...)
			}
		})
	} else {
		if binaries == "" {
			binaries = testenv.Bin(t)
		}
		// A copy, where the attacks may try to write it.
		bin := testenv.Dir(t)
		for _, name := range []string{"isle", "isled"} {
			copyFile(t, filepath.Join(binaries, name), filepath.Join(bin, name))
		}
		e.Host, e.path = host.New(t, bin, env...), filepath.Join(bin, "isle")
	}
	e.dir = e.Dir
	e.base = baseLayer(t, e.dir)
	return e
}

// label tells this test's containers from others of the same engine.
func (e *engine) label() string { return filepath.Base(e.dir) }

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// result is how a command ended.
type result struct {
	out, err string
	code     int
}

func (r result) String() string { return fmt.Sprintf("exit code %d: %s%s", r.code, r.out, r.err) }

// call runs the engine with these words.
func (e *engine) call(words ...string) result { return e.input(nil, words...) }

// input is call with a standard input.
func (e *engine) input(in io.Reader, words ...string) result {
	e.t.Helper()
	return e.program(in, e.path, words...)
}

// program runs any program in the engine's environment.
func (e *engine) program(in io.Reader, path string, words ...string) result {
	e.t.Helper()
	r := e.Run(in, path, words...)
	return result{r.Out, r.Err, r.Code}
}

// attempt is one try of one attack.
type attempt struct {
	*engine
	flags  []string // for every run, with which a user gives a defence up
	breaks []string // what the attack got

	undefended bool // the attack is expected to succeed
}

// few is how often a race is run by default: more often where it must be won.
func (a *attempt) few(n int) int {
	if a.undefended {
		return 50 * n
	}
	return n
}

// broke notes something that an attack must not get.
func (a *attempt) broke(format string, args ...any) {
	a.breaks = append(a.breaks, fmt.Sprintf(format, args...))
}

// run runs a container of an image: words are flags, image and command.
func (a *attempt) run(words ...string) result {
	a.t.Helper()
	return a.call(a.words("run", words...)...)
}

func (a *attempt) words(verb string, words ...string) []string {
	all := []string{verb}
	if verb == "run" {
		all = append(all, "--rm", "--network", "none", "--label", "isle.attack="+a.label())
	} else {
		all = append(all, "--network", "none", "--label", "isle.attack="+a.label())
	}
	return append(append(all, a.flags...), words...)
}

// detached starts a container in the background and returns its name.
func (a *attempt) detached(words ...string) string {
	a.t.Helper()
	name := fmt.Sprintf("%s-%d", a.label(), time.Now().UnixNano())
	all := a.words("run", append([]string{"-d", "--name", name}, words...)...)
	r := a.call(all...)
	if r.code != 0 {
		a.t.Fatalf("%q: %s", all, r)
	}
	return name
}
