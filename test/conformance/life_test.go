package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// state is the state of the container c in what can be compared.
func (r *runtimes) state(t *testing.T, who string) string {
	t.Helper()
	res := r.do(t, who, "state", "c")
	var s struct {
		OCIVersion, ID, Status, Bundle, Rootfs, Created, Owner string
		Pid                                                    int
		Annotations                                            map[string]string
	}
	if res.code != 0 {
		return fmt.Sprintf("state: code %d %s\n", res.code, normal(res.err))
	}
	if err := json.Unmarshal([]byte(res.out), &s); err != nil {
		t.Fatalf("%s state: %v\n%s", who, err, res.out)
	}
	_, err := time.Parse(time.RFC3339Nano, s.Created)
	return fmt.Sprintf("state: %s %s %s %s pid %v created %v %v owner %q\n", s.ID, s.Status, s.Bundle, s.Rootfs, s.Pid > 0, err == nil, s.Annotations, s.Owner)
}

// waitState waits until the container has the status.
func (r *runtimes) waitState(t *testing.T, who, status string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(r.state(t, who), " "+status+" "); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: container is not %s after %v: %s", who, status, patience, r.state(t, who))
		}
	}
}

var executable = regexp.MustCompile(`/[^ :"]*/(runc|isle-oci)`)

// words are a command's code and what it says.
func (r *runtimes) words(t *testing.T, who string, args ...string) string {
	t.Helper()
	res := r.do(t, who, args...)
	text := executable.ReplaceAllString(normal(res.out+res.err), "RUNTIME")
	return fmt.Sprintf("%v: code %d %s\n", args, res.code, text)
}

// TestLife takes a container through its states, with commands that are right
// and wrong in each.
func TestLife(t *testing.T) {
	r := newRuntimes(t)
	dir := r.bundle(t, "life", func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"}
		s.Annotations = map[string]string{"a": "b"}
	})
	wrong := []string{"start", "delete", "pause", "resume", "exec", "kill", "create"}
	// try gives each of the commands that must fail in this state.
	try := func(who string, except ...string) string {
		out := ""
		for _, w := range wrong {
			args := []string{w, "c"}
			switch w {
			case "exec":
				args = append(args, "true")
			case "kill":
				args = append(args, "0")
			case "create":
				args = []string{w, "--bundle", dir, "c"}
			}
			skip := false
			for _, e := range except {
				skip = skip || e == w
			}
			if !skip {
				out += r.words(t, who, args...)
			}
		}
		return out
	}
	r.both(t, "life", func(who string) string {
		out := "none\n" + r.state(t, who) + try(who, "create")
		out += r.words(t, who, "create", "--bundle", dir, "--pid-file", filepath.Join(r.dir, "pid"), "c")
		pid, err := os.ReadFile(filepath.Join(r.dir, "pid"))
		out += fmt.Sprintf("pid file %v %v\n", err, strings.Trim(string(pid), "0123456789"))
		out += "created\n" + r.state(t, who) + try(who, "start", "delete", "pause", "exec")
		out += r.words(t, who, "exec", "c", "echo", "in created")
		out += r.words(t, who, "start", "c")
		r.waitState(t, who, "running")
		out += "running\n" + r.state(t, who) + try(who, "pause", "exec")
		out += r.words(t, who, "exec", "c", "sh", "-c", "echo out; exit 3")
		out += r.words(t, who, "exec", "--user", "1000:1000", "--cwd", "/tmp", "--env", "X=y", "c", "sh", "-c", "id -u; id -g; pwd; echo $X")
		out += r.words(t, who, "pause", "c")
		out += "paused\n" + r.state(t, who) + try(who, "resume")
		out += r.words(t, who, "resume", "c")
		out += r.words(t, who, "kill", "c", "TERM")
		r.waitState(t, who, "stopped")
		out += "stopped\n" + r.state(t, who) + try(who, "delete")
		out += r.words(t, who, "delete", "c") + r.state(t, who)
		return out + leftovers(r, who)
	})
}

// TestWords compares the commands' messages where there is no container.
func TestWords(t *testing.T) {
	r := newRuntimes(t)
	dir := r.bundle(t, "words", nil)
	for i, args := range [][]string{
		{"state"},
		{"state", "none"},
		{"state", "a", "b"},
		{"start", "none"},
		{"kill", "none"},
		{"kill", "none", "NONSENSE"},
		{"delete", "none"},
		{"delete", "--force", "none"},
		{"pause", "none"},
		{"resume", "none"},
		{"exec", "none", "true"},
		{"ps", "none"},
		{"update", "none"},
		{"list", "--format", "nonsense"},
		{"list", "-q"},
		{"events", "none"},
		{"run", "--bundle", "/nonexistent", "c"},
		{"run", "--bundle", "/", "c"},
		{"run", "--bundle", dir, "bad/name"},
		{"run", "--bundle", dir, ".."},
		{"run", "--bundle", dir, ""},
		{"run", "--bundle", dir, "a b"},
		{"create", "--bundle", dir, "--console-socket", "/nonexistent", "c"},
		{"run", "--bundle", dir, "--preserve-fds", "5", "c"},
	} {
		name := "words/" + strings.ReplaceAll(strings.Join(args, " "), r.dir, "")
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r.both(t, name, func(who string) string {
				res := r.do(t, who, args...)
				// Help, which a wrong number of arguments shows, is each one's own.
				text := executable.ReplaceAllString(normal(res.err), "RUNTIME")
				return fmt.Sprintf("code %d\n%s", res.code, text)
			})
		})
	}
}

// TestHooks compares the order of hooks, their input, directories and rights.
func TestHooks(t *testing.T) {
	r := newRuntimes(t)
	log := filepath.Join(r.rootfs, "tmp/hooks")
	hook := func(kind, path string) []specs.Hook {
		// In the container the log is at another place.
		file := log
		if kind == "startContainer" {
			file = "/tmp/hooks"
		}
		script := `exec 2>&1; { echo "` + kind + ` $(cat | sed 's/"pid":[0-9]*/"pid":N/') cwd $(pwd) env $(env | grep -v '^PWD\|^SHLVL\|^_=\|^OLDPWD' | sort | tr '\n' ' ')"; } >>` + file
		return []specs.Hook{
			{Path: path, Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin", "K=" + kind}},
			{Path: path, Args: []string{"sh", "-c", "echo second " + kind + " >>" + file}, Env: []string{"PATH=/bin:/usr/bin"}},
		}
	}
	kinds := []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
	set := func(s *specs.Spec, kind string, list []specs.Hook) {
		if s.Hooks == nil {
			s.Hooks = &specs.Hooks{}
		}
		switch kind {
		case "prestart":
			s.Hooks.Prestart = list //nolint:staticcheck // deprecated, and used
		case "createRuntime":
			s.Hooks.CreateRuntime = list
		case "createContainer":
			s.Hooks.CreateContainer = list
		case "startContainer":
			s.Hooks.StartContainer = list
		case "poststart":
			s.Hooks.Poststart = list
		case "poststop":
			s.Hooks.Poststop = list
		}
	}
	life := func(who, dir string) string {
		_ = os.Remove(log) // not there at first
		out := fmt.Sprintln("create", r.do(t, who, "create", "--bundle", dir, "c").code)
		created, _ := os.ReadFile(log)
		out += fmt.Sprintln("start", r.do(t, who, "start", "c").code)
		if !strings.Contains(r.state(t, who), "state: code") {
			r.waitState(t, who, "stopped")
		}
		out += fmt.Sprintln("delete", r.do(t, who, "delete", "--force", "c").code)
		all, _ := os.ReadFile(log)
		return normal(out + fmt.Sprintf("by create:\n%sall:\n%s", created, all) + leftovers(r, who))
	}
	all := r.bundle(t, "hooks-all", func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "echo process >>/tmp/hooks"}
		s.Annotations = map[string]string{"a": "b"}
		for _, k := range kinds {
			set(s, k, hook(k, "/bin/sh"))
		}
	})
	t.Run("all", func(t *testing.T) {
		r.both(t, "hooks/all", func(who string) string { return life(who, all) })
	})
	for _, k := range kinds {
		for what, h := range map[string]specs.Hook{
			"fails": {Path: "/bin/false"}, "missing": {Path: "/bin/nonexistent"}, "slow": {Path: "/bin/sleep", Args: []string{"sleep", "20"}, Timeout: new(1)},
		} {
			if what == "slow" && k != "createRuntime" && k != "createContainer" {
				continue // a second each
			}
			name := "hooks/" + k + "-" + what
			dir := r.bundle(t, strings.ReplaceAll(name, "/", "-"), func(s *specs.Spec) {
				s.Process.Args = []string{"sh", "-c", "echo process >>/tmp/hooks"}
				set(s, k, []specs.Hook{h})
			})
			t.Run(k+"-"+what, func(t *testing.T) {
				r.both(t, name, func(who string) string { return life(who, dir) })
			})
		}
	}
}
