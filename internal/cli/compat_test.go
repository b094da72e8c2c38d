package cli

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

const compatFile = "../../docs/docker-compatibility.md"

// compatSection is a command in docs/docker-compatibility.md.
type compatSection struct {
	paths   []string // its spellings: "ps", "container ls"
	verdict string   // of the command: same, differs, refused, isle only
	flags   map[string]compatFlag
}

type compatFlag struct{ spelled, verdict string }

var (
	compatHead    = regexp.MustCompile("^### `[a-z _-]+`( · `[a-z _-]+`)*$")
	compatRow     = regexp.MustCompile("^\\| (?:command|`((?:-[A-Za-z], )?--([a-z0-9-]+)(?: [^`]+)?)`) \\| (same|differs|refused|isle only)(?: \\((.+)\\))? \\|$")
	compatSpelled = regexp.MustCompile("`(?:docker|isle) ([a-z _-]+)`")
)

// readCompat parses the document. Whatever looks like a part of a table and is
// none fails.
func readCompat(t *testing.T) []compatSection {
	t.Helper()
	testenv.Need(t, testenv.Source)
	data, err := os.ReadFile(compatFile)
	if err != nil {
		t.Fatal(err)
	}
	var all []compatSection
	for n, line := range strings.Split(string(data), "\n") {
		bad := func(why string) { t.Errorf("%s:%d: %s: %s", compatFile, n+1, why, line) }
		switch {
		case strings.HasPrefix(line, "### "):
			if !compatHead.MatchString(line) {
				bad("not a list of commands")
				continue
			}
			s := compatSection{flags: map[string]compatFlag{}}
			for _, m := range compatSpelled.FindAllStringSubmatch(line, -1) {
				s.paths = append(s.paths, m[1])
			}
			all = append(all, s)
		case strings.HasPrefix(line, "|") && len(all) > 0 && line != "| | |" && line != "|---|---|":
			m := compatRow.FindStringSubmatch(line)
			s := &all[len(all)-1]
			switch {
			case m == nil:
				bad("not a row of the form | `-x, --flag word` | same, differs (why), refused (why) or isle only (what) |")
			case m[3] != "same" && m[4] == "":
				bad("does not say why")
			case m[2] == "":
				s.verdict = m[3]
			case s.flags[m[2]].verdict != "":
				bad("there twice")
			default:
				s.flags[m[2]] = compatFlag{m[1], m[3]}
			}
		}
	}
	if len(all) < 50 {
		t.Fatalf("%s: %d commands", compatFile, len(all))
	}
	return all
}

// flagsOf returns the flags of a command, the hidden ones too.
func flagsOf(cmd *command) []flag {
	c := &call{app: &app{name: "isle"}, cmd: cmd, path: cmd.paths[0]}
	cmd.setup(c)
	return c.flags
}

// TestCompatibilityTable compares docs/docker-compatibility.md with the
// commands and flags that there are, both ways.
func TestCompatibilityTable(t *testing.T) {
	seen := map[string]bool{}
	refused := map[string]bool{}
	for _, r := range refusedCommands() {
		refused[r.path] = true
	}
	for _, s := range readCompat(t) {
		switch s.verdict {
		case "":
			t.Errorf("%s: no row for the command", s.paths)
			continue
		case "refused":
			for _, p := range s.paths {
				if !refused[p] {
					t.Errorf("%s: refused in the table, not in refused.go", p)
				}
				if cmd, _, _ := find(strings.Fields(p)); cmd != nil {
					t.Errorf("%s: refused in the table, but it is there: say same or differs (how, why), and list its flags", p)
				}
				delete(refused, p)
			}
			if len(s.flags) > 0 {
				t.Errorf("%s: a refused command needs no flags in the table", s.paths)
			}
			continue
		}
		cmd, _, _ := find(strings.Fields(s.paths[0]))
		if cmd == nil {
			t.Errorf("%s: %s in the table, but there is no such command", s.paths[0], s.verdict)
			continue
		}
		for _, p := range s.paths {
			seen[p] = true
			if !slices.Contains(cmd.paths, p) {
				t.Errorf("%s: no spelling of %s", p, cmd.paths[0])
			}
		}
		if s.verdict == "isle only" && len(s.flags) == 0 {
			continue // its flags have nothing to be compared with
		}
		compareFlags(t, cmd, s)
	}
	for p := range refused {
		t.Errorf("%s: in refused.go, not in %s", p, compatFile)
	}
	table := commands()
	for i := range table {
		for _, p := range table[i].paths {
			if !seen[p] && !strings.HasPrefix(p, "__") {
				t.Errorf("%s: not in %s: add a section, with the verdict \"isle only (what)\" if Docker has no such command", p, compatFile)
			}
		}
	}
}

func compareFlags(t *testing.T, cmd *command, s compatSection) {
	left := maps.Clone(s.flags)
	for _, f := range flagsOf(cmd) {
		row, ok := left[f.name]
		delete(left, f.name)
		spelled := strings.TrimSpace(f.spelled())
		_, isRefused := f.v.(refusedVar)
		switch {
		case !ok:
			t.Errorf("%s --%s: not in %s: add | `%s` | same, or isle only (what) |", cmd.paths[0], f.name, compatFile, spelled)
		case row.spelled != spelled:
			t.Errorf("%s --%s: `%s` in the table, it is `%s`", cmd.paths[0], f.name, row.spelled, spelled)
		case isRefused != (row.verdict == "refused"):
			t.Errorf("%s --%s: %s in the table, the command line says otherwise (see refuse)", cmd.paths[0], f.name, row.verdict)
		}
	}
	for name, row := range left {
		t.Errorf("%s --%s: %s in the table, but there is no such flag (a flag that is refused is made by refuse)", cmd.paths[0], name, row.verdict)
	}
}

// TestRefusals: what is refused says so in one line, with Docker's exit code for
// a wrong flag.
func TestRefusals(t *testing.T) {
	for _, r := range refusedCommands() {
		got := isle(t, newMemory(), "", append(strings.Fields(r.path), "x")...)
		want := result{125, "", fmt.Sprintf("isle: %s: %s\n", r.path, r.why)}
		if got != want {
			t.Errorf("%s: %+v", r.path, got)
		}
	}
	table := commands()
	n := 0
	for i := range table {
		for _, f := range flagsOf(&table[i]) {
			v, ok := f.v.(refusedVar)
			if !ok {
				continue
			}
			n++
			for _, p := range table[i].paths {
				got := isle(t, newMemory(), "", append(strings.Fields(p), "--"+f.name+"=1")...)
				if want := (result{125, "", fmt.Sprintf("isle: --%s: %s\n", f.name, v.why)}); got != want {
					t.Errorf("%s --%s: %+v", p, f.name, got)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("%d refused flags", n)
	}
}
