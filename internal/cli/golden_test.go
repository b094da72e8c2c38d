package cli

import (
	"encoding/json"
	stdflag "flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = stdflag.Bool("update", false, "rewrite the golden files")

// TestGoldenConfigs reads testdata/run/*.txtar: a comment, the arguments of run
// one a line, and the container.Config that they make, or the error.
func TestGoldenConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/run/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	t.Setenv("FROM_ENV", "value of FROM_ENV")
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			comment, rest, ok := strings.Cut(string(b), "-- args --\n")
			if !ok {
				t.Fatal("no section args")
			}
			lines, want := rest, ""
			if i := strings.Index(rest, "\n-- "); i >= 0 {
				lines, want = rest[:i+1], rest[i+1:]
			}
			got := goldenConfig(t, strings.Split(strings.TrimSuffix(lines, "\n"), "\n"))
			if *update {
				if err := os.WriteFile(name, []byte(comment+"-- args --\n"+lines+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func goldenConfig(t *testing.T, args []string) string {
	var o containerFlags
	rest, err := parseFlags(o.flags(), args, false)
	if err == nil {
		if _, err = o.config(rest); err == nil {
			b, err := json.MarshalIndent(&o.cfg, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			return "-- config.json --\n" + string(b) + "\n"
		}
	}
	return "-- error --\n" + err.Error() + "\n"
}
