package ocicli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestFlagsAreParsedAsRuncDoes(t *testing.T) {
	flags := []flag{{names: "bundle b"}, {names: "detach d", kind: boolean}, {names: "preserve-fds", kind: integer}, {names: "env e", kind: list}}
	for _, c := range []struct {
		args   string
		mixed  bool
		bundle string
		detach bool
		rest   string
		err    string
	}{
		{"--bundle x id", true, "x", false, "id", ""},
		{"-bundle=x id", true, "x", false, "id", ""},
		{"-b x -d id", true, "x", true, "id", ""},
		{"id -b x", true, "x", false, "id", ""},
		{"id -b x", false, "", false, "id -b x", ""},
		{"--detach=false id", true, "", false, "id", ""},
		{"-- -b", true, "", false, "-b", ""},
		{"--nonsense", true, "", false, "", "flag provided but not defined: -nonsense"},
		{"--bundle", true, "", false, "", "flag needs an argument: -bundle"},
		{"--preserve-fds x", true, "", false, "", `invalid value "x" for flag -preserve-fds: parse error`},
		{"--detach=maybe", true, "", false, "", `invalid boolean value "maybe" for -detach: parse error`},
	} {
		v, rest, err := parse(flags, strings.Fields(c.args), c.mixed)
		if err != nil || c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: error %v, want %q", c.args, err, c.err)
			}
			continue
		}
		if v.str("bundle") != c.bundle || v.on("detach") != c.detach || strings.Join(rest, " ") != c.rest {
			t.Errorf("%q: %v, rest %q", c.args, v, rest)
		}
	}
}

func TestContainerNames(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A-b_c.d+1": true, "": false, ".": false, "..": false, "a/b": false, "a b": false, "a\x00": false, "ä": false,
	} {
		if err := checkID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	home := func() string { return "/home" }
	for in, want := range map[string]string{
		"A=1":                       "A=1 HOME=/home",
		"A=1 B=2 A=3":               "A=3 B=2 HOME=/home",
		"HOME=/x":                   "HOME=/x",
		"HOME= A=1":                 "A=1 HOME=/home",
		"HOME=/x HOME= HOME=/y A=1": "HOME=/y A=1",
		"HOME=/x HOME=":             "HOME=/home",
	} {
		got, err := environment(strings.Fields(in), home)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"A", "=x", "A=\x00"} {
		if _, err := environment([]string{bad}, home); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// The container's passwd is its own to write, also as a link to the host's.
func TestHomeIsTheContainersOwn(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if got := homeIn(root, 0); got != "/" {
		t.Errorf("a link out of the container: %q", got)
	}
	if err := os.Remove(filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("bad\nroot:x:0:0::/r:\nu:x:7:7::/home/u:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, b, c := homeIn(root, 0), homeIn(root, 7), homeIn(root, 8); a != "/r" || b != "/home/u" || c != "/" {
		t.Errorf("%q %q %q", a, b, c)
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "1024": 1024, "64k": 64 << 10, "64M": 64 << 20, "1GiB": 1 << 30, "1.5g": 3 << 29, "-1": -1} {
		if got, err := parseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "1x", "-2", "1kk"} {
		if n, err := parseBytes(bad); err == nil {
			t.Errorf("%q: %d", bad, n)
		}
	}
}

func TestSignals(t *testing.T) {
	for in, want := range map[string]int{"TERM": 15, "SIGTERM": 15, "kill": 9, "9": 9, "0": 0} {
		if got, err := parseSignal(in); err != nil || int(got) != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	if _, err := parseSignal("NONSENSE"); err == nil || err.Error() != `unknown signal "NONSENSE"` {
		t.Errorf("NONSENSE: %v", err)
	}
}

// Callers read the log by machine.
func TestLogFormats(t *testing.T) {
	var out, errOut bytes.Buffer
	c := &call{name: "runc", out: &out, err: &errOut}
	c.log.c = c
	file := filepath.Join(t.TempDir(), "log")
	if code := c.main([]string{"--root", t.TempDir(), "--log", file, "--log-format", "json", "state", "none"}); code != 1 {
		t.Errorf("code %d", code)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(data, &line); err != nil || line.Level != "error" || line.Msg != errNotExist.Error() || line.Time == "" {
		t.Errorf("%s: %+v, %v", data, line, err)
	}
	// Who has a log still wants to see the error.
	if errOut.String() != errNotExist.Error()+"\n" {
		t.Errorf("standard error: %q", errOut.String())
	}
}

// The spec to begin with is one that can be read back.
func TestExampleIsASpec(t *testing.T) {
	t.Chdir(t.TempDir())
	for range 2 {
		var out, errOut bytes.Buffer
		c := &call{name: "runc", out: &out, err: &errOut}
		c.log.c = c
		c.main([]string{"spec"})
		if s, err := readSpec(configFile); err != nil || s.Version != specs.Version || len(s.Mounts) != 7 {
			t.Fatalf("%+v, %v", s, err)
		}
		if first := errOut.Len() == 0; !first && !strings.Contains(errOut.String(), "exists. Remove it first") {
			t.Errorf("second: %s", errOut.String())
		}
	}
}
