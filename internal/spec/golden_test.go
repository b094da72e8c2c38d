package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// rootInput is root on an ordinary machine with an image that says little.
func rootInput() Input {
	in := Input{
		Record: &container.Record{ID: testID, Image: container.Image{Config: container.ImageConfig{
			Cmd: []string{"sh"}, Env: []string{"PATH=/usr/bin:/bin"},
		}}},
		Facts: Facts{
			Hostname: "host", Bounding: allCaps, SysResource: true, MaxFiles: 1 << 20,
			CPUs: 4, CPUList: "0-3", CgroupV2: true, HostMqueue: true,
		},
		User:       User{Groups: []uint32{0}, Home: "/root", Name: "root"},
		EtcFiles:   EtcFiles{Hostname: "/c/hostname", Hosts: "/c/hosts", Resolv: "/c/resolv.conf"},
		CgroupPath: "/isle/" + testID,
	}
	for i := range in.Facts.HardLimits {
		in.Facts.HardLimits[i] = unlimited
	}
	return in
}

// rootlessInput is an ordinary user in the user's own namespace.
func rootlessInput() Input {
	in := rootInput()
	in.Facts.Rootless, in.Facts.InUserNS, in.Facts.SysResource = true, true, false
	in.Facts.UIDs = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65536}}
	in.Facts.GIDs = in.Facts.UIDs
	in.Facts.HardLimits[rlimitNofile] = 4096
	in.Facts.OOMScoreAdj = 200
	return in
}

// archive reads "-- name --" sections (the txtar format).
func archive(text string) map[string]string {
	out := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(s, " --") {
			name = strings.TrimSuffix(s, " --")
			out[name] = ""
			continue
		}
		out[name] += line
	}
	return out
}

// TestGolden: each file of testdata/golden has an input, as JSON over rootInput
// (or rootlessInput, with "rootless": true), and what Build makes of it. The
// spec is written one value a line; all files but default.txtar and
// rootless.txtar show the lines that differ from those.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := archive(string(b))
			var kind struct{ Rootless bool }
			if err := json.Unmarshal([]byte(parts["input"]), &kind); err != nil {
				t.Fatal(err)
			}
			in, base := rootInput(), rootInput()
			if kind.Rootless {
				in, base = rootlessInput(), rootlessInput()
			}
			dec := json.NewDecoder(strings.NewReader(parts["input"]))
			dec.DisallowUnknownFields()
			withKind := struct {
				*Input
				Rootless bool
			}{Input: &in}
			if err := dec.Decode(&withKind); err != nil {
				t.Fatal(err)
			}
			got := result(in)
			if whole := filepath.Base(file); whole != "default.txtar" && whole != "rootless.txtar" && !strings.HasPrefix(got, "-- error --") {
				got = difference(result(base), got)
			}
			text := strings.TrimRight(parts[""], "\n") + "\n-- input --\n" + strings.TrimSpace(parts["input"]) + "\n" + got
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(b), text); d != "" {
				t.Errorf("(-want +got; -update accepts)\n%s", d)
			}
		})
	}
}

// result is what Build makes of in, as sections of a golden file.
func result(in Input) string {
	s, warnings, err := Build(in)
	if err != nil {
		out := "-- error --\n" + err.Error() + "\n"
		for _, h := range errs.Hints(err) {
			out += "hint: " + h + "\n"
		}
		return out
	}
	out := "-- spec --\n" + strings.Join(flat(s), "\n") + "\n"
	if len(warnings) > 0 {
		out += "-- warnings --\n" + strings.Join(warnings, "\n") + "\n"
	}
	return out
}

// flat writes a spec one value a line, each with its path; lists of plain values
// stay on one line. The seccomp rules are only counted.
func flat(s *specs.Spec) []string {
	shallow := *s
	if s.Linux.Seccomp != nil {
		linux, sec := *s.Linux, *s.Linux.Seccomp
		rules := len(sec.Syscalls)
		sec.Syscalls, sec.Architectures = nil, nil
		linux.Seccomp = &sec
		shallow.Linux = &linux
		if rules == 0 {
			linux.Seccomp.ListenerMetadata = "no rules"
		}
	}
	b, err := json.Marshal(shallow)
	if err != nil {
		panic(err)
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		panic(err)
	}
	var lines []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			keys := make([]string, 0, len(v))
			for k := range v {
				keys = append(keys, k)
			}
			sort.Strings(keys)
			for _, k := range keys {
				walk(path+"."+k, v[k])
			}
			return
		case []any:
			plain := !slices.ContainsFunc(v, func(e any) bool { _, is := e.(map[string]any); return is })
			if !plain {
				for i, e := range v {
					m, _ := e.(map[string]any)
					name := fmt.Sprint(i)
					for _, key := range []string{"destination", "type", "path"} {
						if s, ok := m[key].(string); ok && !strings.HasSuffix(path, ".devices") && !strings.HasSuffix(path, "mappings") {
							name = s
							break
						}
					}
					one, err := json.Marshal(e)
					if err != nil {
						panic(err)
					}
					lines = append(lines, path[1:]+"["+name+"] = "+string(one))
				}
				return
			}
		}
		one, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		lines = append(lines, path[1:]+" = "+string(one))
	}
	walk("", v)
	return lines
}

// difference shows the lines that are only in one of two results, and where the
// order of lines common to both has changed.
func difference(base, got string) string {
	a, b := strings.Split(strings.TrimSuffix(base, "\n"), "\n"), strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	var out []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			out = append(out, "- "+l)
		}
	}
	for i, l := range b {
		switch {
		case l == "-- warnings --":
			return "-- diff --\n" + strings.Join(out, "\n") + "\n" + strings.Join(b[i:], "\n") + "\n"
		case !slices.Contains(a, l):
			out = append(out, "+ "+l)
		}
	}
	return "-- diff --\n" + strings.Join(out, "\n") + "\n"
}
