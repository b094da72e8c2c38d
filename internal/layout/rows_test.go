package layout

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// execAllowed are the packages that may start other programs, each with its
// reason. Tests may.
var execAllowed = map[string]string{
	"internal/linux/userns": "newuidmap and newgidmap are set-uid programs: only they may write the maps",
	"internal/engine":       "starts the monitor and isled",
	"internal/ocicli":       "hooks, ps and criu are programs",
	"internal/monitor":      "starts helpers of the container it stays with",
	"internal/image/pull":   "credential helpers are programs, as Docker defines them",
	"internal/testenv":      "runs tests again",
}

// outside are directories with programs that are no part of isle's rows: what
// builds, measures and tests it.
var outside = []string{"cmd/...", "bench/...", "hack/...", "test/...", "internal/layout", "internal/builtin/..."}

// generator is the last element of the directory of a program that go generate
// runs; it is no part of the binaries.
const generator = "gen"

// rows reads the table of docs/design.md: first element of a package's path
// below internal/ to its row.
func rows(t *testing.T) map[string]int {
	t.Helper()
	row := map[string]int{}
	for _, cells := range table(t, read(t, "docs/design.md"), "row") {
		n, err := strconv.Atoi(cells[0])
		if err != nil || len(cells) < 2 {
			t.Fatalf("docs/design.md: row %q", cells)
		}
		for _, name := range ticked(cells[1]) {
			row[strings.TrimSuffix(name, "/*")] = n
		}
	}
	if row["cli"] != 1 || row["linux"] == 0 || row["errs"] <= row["linux"] {
		t.Fatalf("docs/design.md: rows %v", row)
	}
	return row
}

// subject is the first element of a package below internal/, or "".
func subject(pkg string) string {
	rest, ok := strings.CutPrefix(pkg, module+"/internal/")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func TestImportsPointDown(t *testing.T) {
	row := rows(t)
	_, files := source(t)
	for _, f := range files {
		if within(f.dir, outside) {
			continue
		}
		from := subject(f.pkg())
		if row[from] == 0 {
			t.Errorf("%s: package %s has no row in docs/design.md", f.name, f.dir)
			continue
		}
		for _, imp := range f.imports {
			to := subject(imp)
			switch {
			case imp != module && !strings.HasPrefix(imp, module+"/"), to == from:
			case to == "testenv" && !f.test:
				t.Errorf("%s: testenv is for tests", f.name)
			case to == "" || row[to] <= row[from]:
				t.Errorf("%s (row %d) imports %s (row %d): imports point down", f.name, row[from], imp, row[to])
			}
		}
	}
}

func TestUnsafeStaysInLinux(t *testing.T) {
	_, files := source(t)
	for _, f := range files {
		if slices.Contains(f.imports, "C") {
			t.Errorf("%s: uses cgo", f.name)
		}
		if within(f.dir, []string{"internal/linux/..."}) {
			continue
		}
		if slices.Contains(f.imports, "unsafe") {
			t.Errorf("%s: unsafe is for internal/linux", f.name)
		}
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:linkname ") {
					t.Errorf("%s: go:linkname is for internal/linux", f.name)
				}
			}
		}
	}
}

func TestProgramsAreStartedInFewPlaces(t *testing.T) {
	_, files := source(t)
	for _, f := range files {
		if !slices.Contains(f.imports, "os/exec") || f.test || within(f.dir, outside) || path.Base(f.dir) == generator {
			continue
		}
		if execAllowed[f.dir] == "" {
			t.Errorf("%s: os/exec is not for %s; the list with reasons is execAllowed", f.name, f.dir)
		}
	}
}

// TestNothingHappensAtImport keeps out what every start of isle would pay for.
func TestNothingHappensAtImport(t *testing.T) {
	set, files := source(t)
	for _, f := range files {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: init function", set.Position(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, s := range d.Specs {
					spec, ok := s.(*ast.ValueSpec)
					if !ok {
						continue
					}
					for _, v := range spec.Values {
						if what := costly(v); what != "" {
							t.Errorf("%s: package-level %s runs at every start", set.Position(v.Pos()), what)
						}
					}
				}
			}
		}
	}
}

// costly names what in a package-level initialiser the compiler cannot lay out
// in the binary, or returns "".
func costly(v ast.Expr) string {
	what := ""
	ast.Inspect(v, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false // runs when called
		case *ast.CompositeLit:
			if _, ok := n.Type.(*ast.MapType); ok && len(n.Elts) > 0 {
				what = "map"
			}
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok {
					switch x.Name + "." + s.Sel.Name {
					case "regexp.MustCompile", "regexp.Compile", "template.New", "template.Must", "os.Getenv", "os.Getpid", "os.Getuid", "time.Now":
						what = x.Name + "." + s.Sel.Name
					}
				}
			}
			if x, ok := n.Fun.(*ast.Ident); ok && x.Name == "make" {
				what = "make"
			}
		}
		return what == ""
	})
	return what
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	_, files := source(t)
	said := map[string]bool{}
	for _, f := range files {
		said[f.dir] = said[f.dir] || f.ast.Doc != nil && (strings.HasPrefix(f.ast.Doc.Text(), "Package ") || f.ast.Name.Name == "main")
	}
	for _, f := range files {
		if !f.test && !said[f.dir] {
			said[f.dir] = true // once is enough
			t.Errorf("%s: no package comment", f.dir)
		}
	}
}

// TestNothingIsHalfThere: what is not finished is an issue, or an error that
// the user sees; not a note in the source.
func TestNothingIsHalfThere(t *testing.T) {
	set, files := source(t)
	for _, f := range files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				for _, word := range []string{"TODO", "FIXME", "XXX"} {
					if strings.Contains(c.Text, word) && f.name != "internal/layout/rows_test.go" {
						t.Errorf("%s: %s", set.Position(c.Pos()), word)
					}
				}
			}
		}
		if f.lines > 700 && !f.test && !ast.IsGenerated(f.ast) {
			t.Errorf("%s: %d lines; is it one subject?", f.name, f.lines)
		}
	}
}
