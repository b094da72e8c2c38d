package cgroup

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

func allow(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
}

// dockerDevices are the rules of an ordinary container.
func dockerDevices() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		allow("c", -1, -1, "m"), allow("b", -1, -1, "m"),
		allow("c", 1, 3, "rwm"), allow("c", 1, 8, "rwm"), allow("c", 1, 7, "rwm"), allow("c", 5, 0, "rwm"),
		allow("c", 1, 5, "rwm"), allow("c", 1, 9, "rwm"), allow("c", 5, 1, "rwm"), allow("c", 136, -1, "rwm"),
		allow("c", 5, 2, "rwm"), allow("c", 10, 200, "rwm"),
	}
}

func TestDevices(t *testing.T) {
	testenv.Need(t, testenv.Root)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for name, v1 := range map[string]bool{"bpf": false, "v1": true} {
		t.Run(name, func(t *testing.T) {
			mode := h
			if v1 {
				testenv.Need(t, testenv.CgroupV1)
				mode = &Host{own: h.own, mode: "v1"} // as if no v2 were mounted
			}
			for _, c := range []struct {
				rules []specs.LinuxDeviceCgroup
				want  string
			}{
				{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, allow("c", 1, 3, "rw"), allow("b", -1, -1, "m")}, "/dev/null true,/dev/zero false,mknod true"},
				{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, allow("c", 1, 5, "r"), allow("c", 1, 3, "w")}, "/dev/null false,/dev/zero true,mknod false"},
				{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "a", Access: "rwm"}}, "/dev/null true,/dev/zero true,mknod true"},
			} {
				g, err := mode.Create(Request{Name: testName(t), Resources: &specs.LinuxResources{Devices: c.rules}})
				if err != nil {
					t.Fatal(err)
				}
				if !v1 && len(g.paths.V1) != 0 {
					t.Errorf("joined %v", g.paths.V1)
				}
				p := start(t, g, "open /dev/null,/dev/zero")
				var got []string
				for range 3 {
					got = append(got, p.line(t))
				}
				if strings.Join(got, ",") != c.want {
					t.Errorf("%+v: got %q, want %q", c.rules, got, c.want)
				}
				_ = p.Wait()
				if err := g.Delete(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestDeviceUpdateReplaces(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.CgroupV2)
	g := makeGroup(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}})
	if got := start(t, g, "open /dev/zero").line(t); got != "/dev/zero false" {
		t.Error(got)
	}
	for _, c := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, allow("c", 1, 5, "rw")}, "/dev/zero true"},
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, allow("c", 1, 3, "rw")}, "/dev/zero false"},
	} {
		if err := g.Update(&specs.LinuxResources{Devices: c.rules}); err != nil {
			t.Fatal(err)
		}
		if got := start(t, g, "open /dev/zero").line(t); got != c.want {
			t.Errorf("%+v: %s", c.rules, got)
		}
	}
}

func TestBadDeviceRules(t *testing.T) {
	for _, r := range []specs.LinuxDeviceCgroup{
		{Type: "x"}, {Type: "c", Access: "rx"}, allow("c", -2, 0, "r"), allow("c", 1<<32, 0, "r"),
	} {
		if _, err := parseDevices([]specs.LinuxDeviceCgroup{r}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// describe writes rules as the v1 controller reads them.
func describe(rules []deviceRule) string {
	var b strings.Builder
	for _, r := range rules {
		verb := "deny "
		if r.allow {
			verb = "allow "
		}
		b.WriteString(verb + strings.Join(r.lines(), ", ") + "\n")
	}
	return b.String()
}

// run interprets a device program.
func run(t *testing.T, p []bpfInsn, kind, access, major, minor uint32) bool {
	t.Helper()
	ctx := map[int16]uint32{0: access<<16 | kind, 4: major, 8: minor}
	var r [10]uint64
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		dst, src := &r[in.regs&15], in.regs>>4
		jump := false
		switch in.op {
		case bpfLoadWord:
			*dst = uint64(ctx[in.off])
		case bpfMovImm:
			*dst = uint64(int64(in.imm))
		case bpfMovReg:
			*dst = r[src]
		case bpfAndImm:
			*dst &= uint64(int64(in.imm))
		case bpfRshImm:
			*dst >>= uint(in.imm)
		case bpfJump:
			jump = true
		case bpfJeqImm:
			jump = *dst == uint64(int64(in.imm))
		case bpfJneImm:
			jump = *dst != uint64(int64(in.imm))
		case bpfJeq32Imm:
			jump = uint32(*dst) == uint32(in.imm)
		case bpfJne32Imm:
			jump = uint32(*dst) != uint32(in.imm)
		case bpfExit:
			return r[0] == 1
		default:
			t.Fatalf("instruction %#x", in.op)
		}
		if jump {
			pc += int(in.off)
		}
	}
	t.Fatal("fell off the end")
	return false
}

// permitted says what the rules mean: the last rule about a device and a bit of
// access decides about that bit.
func permitted(rules []deviceRule, kind byte, access uint32, major, minor int64) bool {
	for bit := uint32(1); bit <= allAccess; bit <<= 1 {
		if access&bit == 0 {
			continue
		}
		ok := true
		for _, r := range rules {
			if (r.kind == 'a' || r.kind == kind) && (r.major < 0 || r.major == major) && (r.minor < 0 || r.minor == minor) && r.access&bit != 0 {
				ok = r.allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// TestDeviceProgram compares programs for random rules with what the rules
// mean, and has the kernel's verifier read them.
func TestDeviceProgram(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.CgroupV2)
	g := makeGroup(t, nil)
	docker, err := parseDevices(dockerDevices())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Docker's rules: %d instructions", len(deviceProgram(docker)))
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		rules := docker
		if seed > 0 {
			rules = nil
			for range rnd.IntN(12) {
				r := deviceRule{allow: rnd.IntN(2) == 0, kind: "abc"[rnd.IntN(3)], major: int64(rnd.IntN(4)) - 1, minor: int64(rnd.IntN(4)) - 1, access: 1 + uint32(rnd.IntN(allAccess))}
				switch rnd.IntN(8) {
				case 0:
					r.major = 1<<32 - 1
				case 1:
					r = deviceRule{allow: r.allow, kind: 'a', major: -1, minor: -1, access: allAccess}
				}
				rules = append(rules, r)
			}
		}
		p := deviceProgram(rules)
		if err := setDeviceProgram(g.paths.V2, p); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, describe(rules))
		}
		for kind, number := range map[byte]uint32{'b': unix.BPF_DEVCG_DEV_BLOCK, 'c': unix.BPF_DEVCG_DEV_CHAR} {
			for _, major := range []int64{0, 1, 2, 5, 136, 1<<32 - 1} {
				for minor := range int64(10) {
					for access := uint32(1); access <= allAccess; access++ {
						got, want := run(t, p, number, access, uint32(major), uint32(minor)), permitted(rules, kind, access, major, minor)
						if got != want {
							t.Fatalf("seed %d: %c %d:%d access %d: %v, want %v\n%s", seed, kind, major, minor, access, got, want, describe(rules))
						}
					}
				}
			}
		}
	}
	if allowsAll(docker) || !allowsAll(nil) || !allowsAll(slices.Concat(docker, []deviceRule{{true, 'a', -1, -1, allAccess}})) {
		t.Error("allowsAll")
	}
}

func BenchmarkDeviceProgram(b *testing.B) {
	testenv.Need(b, testenv.Root)
	h, err := Detect()
	if err != nil {
		b.Fatal(err)
	}
	r := &specs.LinuxResources{Devices: dockerDevices()}
	for b.Loop() {
		g, err := h.Create(Request{Name: "bench", Resources: r})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Delete(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDeviceRulesWithoutAGroup: a caller in a threaded group cannot have groups
// below it, which is what the error shall say, and not that the kernel lacks
// something.
func TestDeviceRulesWithoutAGroup(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.CgroupV2)
	if !testenv.InCgroups(t) {
		return
	}
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	own, err := h.ownIn("")
	if err != nil {
		t.Fatal(err)
	}
	threaded := own.dir.join("threaded")
	if err := unix.Mkdir(string(threaded), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.dir.write("cgroup.procs", "0"); err != nil {
			t.Error(err)
		}
		if err := remove(threaded); err != nil {
			t.Error(err)
		}
	})
	if err := threaded.write("cgroup.type", "threaded"); err != nil {
		t.Fatal(err)
	}
	if err := threaded.write("cgroup.procs", "0"); err != nil {
		t.Fatal(err)
	}
	if h, err = Detect(); err != nil {
		t.Fatal(err)
	}
	g, err := h.Create(Request{Name: testName(t), Resources: &specs.LinuxResources{Devices: dockerDevices()}})
	if err == nil {
		// The v1 controller does not mind.
		if g.paths.V2 != "" || !h.isV1("devices") {
			t.Errorf("made %+v", g.paths)
		}
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
		return
	}
	if !strings.HasPrefix(err.Error(), "device rules: no cgroup to put them on: cgroup ") || errs.KindOf(err) != errs.Unsupported {
		t.Error(err)
	}
}
