package attacks

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

// varUndefended names the directory of the isle that lacks its defences.
const varUndefended = "ISLE_ATTACK_UNDEFENDED"

// attack is one way to break out, and how it is known that it could succeed.
type attack struct {
	class int    // of ledger.md
	name  string // of the test
	cve   string // that it is like

	// How the defence is taken out: its names in package linux/defence, or
	// the flags with which a user gives it up, or why there is no one defence.
	removed string
	flags   []string
	because string

	rootOnly, userOnly bool
	isleOnly           bool // it uses what other engines do not have
	needs              []testenv.Word
	run                func(a *attempt)
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds what attacks, and what is attacked in vain if nothing defends it.
func run(m *testing.M) int {
	if _, built := os.LookupEnv(varProbe); built {
		return m.Run()
	}
	dir, err := os.MkdirTemp("/var/tmp", "isle-attacks-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "attacks:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := errors.Join(os.Chmod(dir, 0o755), build(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "attacks:", err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	root, err := testenv.ModuleRoot()
	if err != nil {
		return err
	}
	for _, b := range []struct{ variable, value, out, pkg, tags string }{
		{varProbe, dir + "/probe", dir + "/probe", "./test/attacks/probe", ""},
		{varUndefended, dir + "/undefended", dir + "/undefended/isle", "./cmd/isle", "undefended"},
		{varUndefended, dir + "/undefended", dir + "/undefended/isled", "./cmd/isled", "undefended"},
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", b.tags, "-ldflags", "-s -w", "-o", b.out, b.pkg)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", b.pkg, err, out)
		}
		if err := os.Setenv(b.variable, b.value); err != nil {
			return err
		}
	}
	return nil
}

// rounds is how often a race is run: ISLE_ATTACK_ROUNDS, or few.
func rounds(t *testing.T, few int) int {
	t.Helper()
	s := os.Getenv("ISLE_ATTACK_ROUNDS")
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("ISLE_ATTACK_ROUNDS=%q: not a number of rounds", s)
	}
	return n
}

func TestAttacksAsRoot(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if testenv.InCgroups(t) {
		attackAll(t, func(k *attack) bool { return !k.userOnly }, false)
	}
}

func TestAttacksAsUser(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	if testenv.AsUserInCgroups(t) {
		attackAll(t, func(k *attack) bool { return !k.rootOnly }, false)
	}
}

// TestDefencesMatter sees each attack succeed where its defence is taken out.
func TestDefencesMatter(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if os.Getenv(varEngine) != "" {
		return // somebody else's defences are not ours to take out
	}
	if testenv.InCgroups(t) {
		attackAll(t, func(k *attack) bool { return !k.userOnly && k.because == "" }, true)
	}
}

func TestDefencesMatterAsUser(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	if os.Getenv(varEngine) != "" {
		return
	}
	if testenv.AsUserInCgroups(t) {
		attackAll(t, func(k *attack) bool { return k.userOnly && k.because == "" }, true)
	}
}

func attackAll(t *testing.T, chosen func(*attack) bool, undefended bool) {
	for _, k := range all() {
		if !chosen(&k) || k.isleOnly && os.Getenv(varEngine) != "" {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			testenv.Need(t, k.needs...)
			a := &attempt{undefended: undefended}
			switch {
			case !undefended:
				a.engine = newEngine(t, "")
			case k.removed != "":
				a.engine = newEngine(t, os.Getenv(varUndefended), "ISLE_UNDEFENDED="+k.removed)
			default:
				a.engine, a.flags = newEngine(t, ""), k.flags
			}
			k.run(a)
			switch {
			case !undefended:
				for _, b := range a.breaks {
					t.Error(b)
				}
			case len(a.breaks) == 0:
				t.Errorf("without %s%q the attack still achieves nothing: the test cannot fail", k.removed, k.flags)
			default:
				t.Logf("without %s%q: %s", k.removed, k.flags, a.breaks[0])
			}
		})
	}
}

// TestEveryAttackCanFail wants each row to say how it was seen to fail.
func TestEveryAttackCanFail(t *testing.T) {
	names := map[string]bool{}
	for _, k := range all() {
		ways := 0
		for _, has := range []bool{k.removed != "", k.flags != nil, k.because != ""} {
			if has {
				ways++
			}
		}
		if ways != 1 || k.class == 0 || names[k.name] {
			t.Errorf("%s: want a class, a name of its own, and one of removed, flags and because", k.name)
		}
		names[k.name] = true
	}
}

// TestLedger compares ledger.md with the attacks.
func TestLedger(t *testing.T) {
	data, err := os.ReadFile("ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	here := map[string]bool{}
	for _, k := range all() {
		here[k.name] = true
	}
	classes := map[int]bool{}
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		class, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			continue
		}
		classes[class] = true
		named := 0
		for i, word := range strings.Split(cells[3], "`") {
			if i%2 == 0 {
				continue
			}
			named++
			if name, elsewhere := strings.CutPrefix(word, "internal/"); elsewhere {
				path, test, _ := strings.Cut(name, " ")
				if !testIn(t, filepath.Join("../../internal", path), test) {
					t.Errorf("class %d: no %s in internal/%s", class, test, path)
				}
				continue
			}
			if name, elsewhere := strings.CutPrefix(word, "test/"); elsewhere {
				path, test, _ := strings.Cut(name, " ")
				if !testIn(t, filepath.Join("..", path), test) {
					t.Errorf("class %d: no %s in test/%s", class, test, path)
				}
				continue
			}
			if !here[word] {
				t.Errorf("class %d: no attack %q", class, word)
			}
			delete(here, word)
		}
		if named == 0 && strings.TrimSpace(cells[3]) == "" {
			t.Errorf("class %d: neither a test nor a reason", class)
		}
	}
	for name := range here {
		t.Errorf("ledger.md does not have %s", name)
	}
	for class := 1; class <= 42; class++ {
		if !classes[class] {
			t.Errorf("ledger.md does not have class %d", class)
		}
	}
}

// testIn reports whether a directory has a test of that name.
func testIn(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
