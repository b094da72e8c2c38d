package seccomp

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/errs"
)

func TestParseConditions(t *testing.T) {
	const text = `{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
		"archMap": [
			{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
			{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
		"syscalls": [
			{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
			{"name": "open", "action": "SCMP_ACT_ALLOW"},
			{"names": ["a1"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
			{"names": ["a2"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
			{"names": ["c1"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_A", "CAP_B"]}},
			{"names": ["c2"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_A", "CAP_X"]}},
			{"names": ["c3"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_X", "CAP_A"]}},
			{"names": ["c4"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_X"]}},
			{"names": ["k1"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.15"}},
			{"names": ["k2"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.16"}},
			{"names": ["k3"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.20"}},
			{"names": ["k4"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.0"}}
		]}`
	kernel := func() (release, error) { return release{5, 15}, nil }
	for _, c := range []struct {
		arch, want string
		archs      []specs.Arch
	}{
		{"amd64", "read write open a1 c1 c4 k1 k4", []specs.Arch{specs.ArchX86_64, specs.ArchX86}},
		{"arm64", "read write open a2 c1 c4 k1 k4", []specs.Arch{specs.ArchAARCH64, specs.ArchARM}},
	} {
		p, err := parse([]byte(text), []string{"CAP_A", "CAP_B"}, c.arch, kernel)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range p.Syscalls {
			names = append(names, s.Names...)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.arch, got, c.want)
		}
		if !slices.Equal(p.Architectures, c.archs) || *p.DefaultErrnoRet != 38 {
			t.Errorf("%s: architectures %v, errno %v", c.arch, p.Architectures, *p.DefaultErrnoRet)
		}
	}
}

func TestParseEmptyTurnsFilteringOff(t *testing.T) {
	p, err := Parse([]byte("{}"), nil)
	if p != nil || err != nil {
		t.Fatalf("got %v, %v", p, err)
	}
	if f, err := Compile(p); f != nil || err != nil {
		t.Fatalf("got %v, %v", f, err)
	}
}

func TestBadProfiles(t *testing.T) {
	for text, want := range map[string]string{
		``:                                    "EOF",
		`[]`:                                  "cannot unmarshal array",
		`{"defaultAction":"x"} {}`:            "more than one JSON value",
		`{"defaultAction":"SCMP_ACT_NO"}`:     `default action: unknown action "SCMP_ACT_NO"`,
		`{"defaultAction":"SCMP_ACT_NOTIFY"}`: "SCMP_ACT_NOTIFY cannot be used as default action",
		`{"syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW"}]}`:                                                                   `default action: unknown action ""`,
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}`:                                                                  "default action: errno 5000 is above 4095",
		`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}`:                                                       `unknown architecture "SCMP_ARCH_Z80"`,
		`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{}]}`:                                        "both architectures and archMap",
		`{"defaultAction":"SCMP_ACT_ALLOW","flags":["FAST"]}`:                                                                        `unknown flag "FAST"`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}`:                       "rule 1: both name and names",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"ALLOW"}]}`:                                        `rule 1 (read): unknown action "ALLOW"`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read",""],"action":"SCMP_ACT_LOG"}]}`:                              "rule 1 (read): empty system call name",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":6}]}]}`:            "argument index 6 is above 5",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":0,"op":"=="}]}]}`:  `unknown operator "=="`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}`:                             "cannot be used for the write syscall",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","includes":{"minKernel":"five"}}]}`: `kernel version "five": want MAJOR.MINOR`,
	} {
		p, err := Parse([]byte(text), nil)
		if err == nil {
			_, err = Compile(p)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "seccomp profile: ") || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s:\n got %v (%v)\nwant %s", text, err, errs.KindOf(err), want)
		}
	}
}

func TestTooManyInstructions(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for i := range uint64(2000) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"read"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Index: uint(i % 6), Value: i << 30, Op: specs.OpEqualTo}},
		})
	}
	if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), "the kernel allows 4096") {
		t.Errorf("got %v", err)
	}
}

// TestLongJumps makes a program whose parts lie farther apart than a
// conditional jump reaches.
func TestLongJumps(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: archsX86}
	for i := range uint64(120) {
		p.Syscalls = append(p.Syscalls,
			specs.LinuxSyscall{Names: []string{"lseek"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{
				{Index: 0, Value: i << 31, Op: specs.OpGreaterEqual}, {Index: 1, Value: i, ValueTwo: i, Op: specs.OpMaskedEqual},
			}},
			specs.LinuxSyscall{Names: []string{familyX86.table[i*3].name}, Action: specs.ActErrno, ErrnoRet: new(uint(i + 200))})
	}
	f, err := familyX86.compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Prog) < 600 {
		t.Fatalf("only %d instructions", len(f.Prog))
	}
	compare(t, &familyX86, p, f.Prog, 480, 3)
}
