package container

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

// TestGenerated: json_gen.go is what the declarations make.
func TestGenerated(t *testing.T) {
	testenv.Need(t, testenv.Source)
	want, err := exec.Command("go", "run", "./jsongen", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("json_gen.go")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("json_gen.go is out of date: fields of Config, Record or State have changed; run: go generate ./internal/container (%v)", err)
	}
}
