package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

const module = "github.com/isle-engine/isle"

// file is one parsed source file of the module.
type file struct {
	dir     string // of the package, relative to the module
	name    string // relative to the module
	test    bool
	ast     *ast.File
	imports []string
	lines   int
}

// pkg returns the import path of the package the file is in.
func (f file) pkg() string { return path.Join(module, f.dir) }

// source parses every Go file of the module, also those for other systems.
func source(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	root := moduleRoot(t)
	set := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch n := d.Name(); {
			case p == root:
			case n[0] == '.', n == "testdata", n == "bin", n == "dist":
				return filepath.SkipDir
			default:
				if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
					return filepath.SkipDir // a module of its own
				}
			}
			return nil
		}
		if filepath.Ext(p) != ".go" {
			return nil
		}
		a, err := parser.ParseFile(set, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f := file{
			dir: filepath.ToSlash(filepath.Dir(rel)), name: filepath.ToSlash(rel), ast: a,
			// A package named …test helps tests of several packages.
			test: strings.HasSuffix(p, "_test.go") || strings.HasSuffix(filepath.Dir(p), "test"), lines: set.File(a.Pos()).LineCount(),
		}
		for _, i := range a.Imports {
			s, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, s)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found only %d Go files below %s", len(files), root)
	}
	return set, files
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// read returns a text file of the module.
func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(moduleRoot(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// table returns the cells of the Markdown table whose first heading is given.
func table(t *testing.T, text, heading string) [][]string {
	t.Helper()
	var rows [][]string
	in := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			in = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == heading:
			in = true
		case in && strings.Trim(cells[0], "-: ") != "":
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("no table with the heading %q", heading)
	}
	return rows
}

// ticked returns the words in back quotes.
func ticked(s string) []string {
	var words []string
	for i, part := range strings.Split(s, "`") {
		if i%2 == 1 {
			words = append(words, part)
		}
	}
	return words
}

// within reports whether dir is matched by one of the patterns: a directory, or
// a directory and all below it when it ends in /... .
func within(dir string, patterns []string) bool {
	for _, p := range patterns {
		if below, ok := strings.CutSuffix(p, "/..."); ok && (dir == below || strings.HasPrefix(dir, below+"/")) || dir == p {
			return true
		}
	}
	return false
}
