package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const kernelSupport = "../../docs/kernel-support.md"

// newCalls are the system calls that came after Linux 5.0, in the order of their
// numbers (424 and up): docs/kernel-support.md says of each that isle makes what
// happens without it.
var newCalls = []string{
	"pidfd_send_signal", "io_uring_setup", "io_uring_enter", "io_uring_register", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount",
	"fspick", "pidfd_open", "clone3", "close_range", "openat2", "pidfd_getfd", "faccessat2", "process_madvise", "epoll_pwait2", "mount_setattr",
	"quotactl_fd", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "memfd_secret", "process_mrelease", "futex_waitv",
	"set_mempolicy_home_node", "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue", "statmount", "listmount",
	"lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "mseal", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "open_tree_attr",
}

// TestKernelSupportNamesTests reads the tables of docs/kernel-support.md: each row
// names tests that exist, or says why nothing is forced.
func TestKernelSupportNamesTests(t *testing.T) {
	data, err := os.ReadFile(kernelSupport)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	word := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) == 5 && (strings.HasPrefix(line, "| facility") || strings.HasPrefix(line, "|---")) {
			continue
		}
		if len(cells) != 5 {
			t.Errorf("%d cells, want five: %s", len(cells), line)
			continue
		}
		rows++
		named := word.FindAllStringSubmatch(cells[4], -1)
		if len(named) == 0 && !strings.Contains(cells[4], "not forced: ") {
			t.Errorf("no test: %s", line)
		}
		dir := ""
		for _, m := range named {
			where, name, two := strings.Cut(m[1], ": ")
			if !two {
				where, name = dir, where // of the same package as the one before
			}
			dir = where
			if where == "lane" {
				if _, err := os.Stat("../../test/vm/lanes/" + name); err != nil {
					t.Error(err)
				}
			} else if !hasTest(t, "../../"+where, name) {
				t.Errorf("%s has no test %s: %s", where, name, line)
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d rows", rows)
	}
}

// hasTest reports whether the package in dir has the test.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool {
		data, err := os.ReadFile(f)
		return err == nil && strings.Contains(string(data), "\nfunc "+name+"(t *testing.T)")
	})
}

// TestKernelSupportIsWhole finds the newer system calls in the source.
func TestKernelSupportIsWhole(t *testing.T) {
	doc, err := os.ReadFile(kernelSupport)
	if err != nil {
		t.Fatal(err)
	}
	// unix.SYS_CLOSE_RANGE and unix.CloseRange are the same call.
	call := map[string]string{}
	for _, c := range newCalls {
		call["SYS_"+strings.ToUpper(c)] = c
		camel := ""
		for part := range strings.SplitSeq(c, "_") {
			camel += strings.ToUpper(part[:1]) + part[1:]
		}
		call[camel] = c
	}
	used := map[string]string{}
	err = filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		// What names system calls for filters and for people makes none.
		if err != nil || d.IsDir() && (d.Name() == "seccomp" || d.Name() == "explain" || d.Name() == "refuse" || d.Name() == "testdata") {
			return skip(err)
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") || d.Name() == "format.go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && (x.Name == "unix" || x.Name == "syscall") {
					if c := call[s.Sel.Name]; c != "" {
						used[c] = p
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for c, p := range used {
		if !strings.Contains(string(doc), "`"+c+"`") {
			t.Errorf("%s makes %s, and docs/kernel-support.md does not say what happens without it", p, c)
		}
	}
	if len(used) < 10 {
		t.Errorf("found only %v", used)
	}
}

// skip leaves out a directory.
func skip(err error) error {
	if err != nil {
		return err
	}
	return filepath.SkipDir
}
