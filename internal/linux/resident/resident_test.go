package resident

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestDropFilePages: the process is smaller afterwards, and still works.
func TestDropFilePages(t *testing.T) {
	before := fileKB(t)
	if err := DropFilePages(); err != nil {
		t.Fatal(err)
	}
	after := fileKB(t)
	if after >= before {
		t.Errorf("%d kB of files before, %d kB after", before, after)
	}
	t.Logf("%d kB of files before, %d kB after", before, after)
	if !bytes.Equal([]byte(strings.Repeat("x", 10000)), bytes.Repeat([]byte("x"), 10000)) {
		t.Error("code or constants have changed")
	}
}

// fileKB is RssFile of proc_pid_status(5).
func fileKB(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "RssFile:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile")
	return 0
}
