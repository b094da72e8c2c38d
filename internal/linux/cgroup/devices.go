package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// makeDevices restricts the devices that the container may open or make. On a
// v2 group that is a BPF program, also on hybrid hosts, where it spares the
// container a v1 hierarchy; the v1 controller is for hosts without.
func (m *maker) makeDevices() error {
	if m.request.Resources == nil || m.request.Rootless {
		return nil
	}
	rules, err := parseDevices(m.request.Resources.Devices)
	if err != nil || allowsAll(rules) {
		return err
	}
	var bpfErr error
	if f := m.group.File(); f != nil {
		// BPF_PROG_ATTACH wants a descriptor that was really opened.
		if bpfErr = setDeviceProgram(m.group.paths.V2, deviceProgram(rules)); bpfErr == nil {
			return nil
		}
	}
	if !m.host.isV1("devices") {
		err := errs.New(errs.Unsupported, "device rules: this machine has no devices controller")
		if bpfErr != nil {
			err = fmt.Errorf("device rules: %w", bpfErr)
		} else if m.noGroup != nil {
			return errs.Hint(fmt.Errorf("device rules: no cgroup to put them on: %w", m.noGroup),
				"--device-cgroup-rule='a *:* rwm' does without device rules")
		}
		return errs.Hint(err, "the kernel needs CONFIG_CGROUP_BPF, and isle CAP_SYS_ADMIN or CAP_BPF with CAP_NET_ADMIN",
			"--device-cgroup-rule='a *:* rwm' does without device rules")
	}
	if err := m.makeV1(need{"devices", "device rules"}); err != nil {
		return err
	}
	return writeDevicesV1(dir(m.group.paths.V1["devices"]), rules)
}

// deviceRule is a checked rule: -1 stands for any.
type deviceRule struct {
	allow        bool
	kind         byte // 'b', 'c', or 'a' for both
	major, minor int64
	access       uint32 // BPF_DEVCG_ACC_*
}

const allAccess = unix.BPF_DEVCG_ACC_MKNOD | unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE

func parseDevices(list []specs.LinuxDeviceCgroup) ([]deviceRule, error) {
	var out []deviceRule
	for i, s := range list {
		bad := func(what string) error { return errs.New(errs.Invalid, "device rule %d: bad %s", i+1, what) }
		r := deviceRule{allow: s.Allow, major: -1, minor: -1}
		switch s.Type {
		case "", "a":
			r.kind = 'a'
		case "b":
			r.kind = 'b'
		case "c", "u":
			r.kind = 'c'
		default:
			return nil, bad("type " + strconv.Quote(s.Type))
		}
		for _, n := range [...]struct {
			from *int64
			to   *int64
		}{{s.Major, &r.major}, {s.Minor, &r.minor}} {
			if n.from == nil {
				continue
			}
			if *n.from < -1 || *n.from > 1<<32-1 {
				return nil, bad("number " + strconv.FormatInt(*n.from, 10))
			}
			*n.to = *n.from
		}
		if s.Access == "" {
			r.access = allAccess
		}
		for _, c := range s.Access {
			switch c {
			case 'r':
				r.access |= unix.BPF_DEVCG_ACC_READ
			case 'w':
				r.access |= unix.BPF_DEVCG_ACC_WRITE
			case 'm':
				r.access |= unix.BPF_DEVCG_ACC_MKNOD
			default:
				return nil, bad("access " + strconv.Quote(s.Access))
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// everything reports whether the rule is about every access to every device.
func (r deviceRule) everything() bool {
	return r.kind == 'a' && r.major < 0 && r.minor < 0 && r.access == allAccess
}

// allowsAll reports whether the rules forbid nothing. Later rules win.
func allowsAll(rules []deviceRule) bool {
	for _, r := range slices.Backward(rules) {
		if !r.allow {
			return false
		}
		if r.everything() {
			return true
		}
	}
	return true
}

// writeDevicesV1 gives the rules to the v1 controller. It knows no rule for both
// kinds at once but the one for everything, and it keeps a list of exceptions
// from that one, in which a rule finds only those with the very same numbers
// (Documentation/admin-guide/cgroup-v1/devices.rst).
func writeDevicesV1(d dir, rules []deviceRule) error {
	base, exceptions, err := devicesV1(rules)
	if err != nil {
		return err
	}
	write := func(file, line string) error { return fail("device rule "+line, d.write(file, line)) }
	first, other := "devices.deny", "devices.allow"
	if base {
		first, other = other, first
	}
	if len(rules) > 0 {
		if err := write(first, "a"); err != nil {
			return err
		}
	}
	for _, r := range exceptions {
		for _, line := range r.lines() {
			if err := write(other, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// devicesV1 turns rules of which the last one wins into one about everything and
// the exceptions from it.
func devicesV1(rules []deviceRule) (base bool, exceptions []deviceRule, err error) {
	base = true // as on v1 before any rule
	for _, r := range rules {
		if r.everything() {
			base, exceptions = r.allow, nil
			continue
		}
		kinds := []byte{r.kind}
		if r.kind == 'a' {
			kinds = []byte{'b', 'c'}
		}
		for _, r.kind = range kinds {
			if exceptions, err = r.addTo(base, exceptions); err != nil {
				return false, nil, err
			}
		}
	}
	return base, exceptions, nil
}

// addTo adds a rule to a list of exceptions, or takes it away from them.
func (r deviceRule) addTo(base bool, list []deviceRule) ([]deviceRule, error) {
	covers := func(a, b int64) bool { return a < 0 || a == b }
	meets := func(a, b int64) bool { return a < 0 || b < 0 || a == b }
	out := list[:0:len(list)]
	for _, e := range list {
		switch {
		case e.kind != r.kind:
		case r.allow != base && e.major == r.major && e.minor == r.minor:
			r.access |= e.access
			continue
		case r.allow == base && covers(r.major, e.major) && covers(r.minor, e.minor):
			if e.access &^= r.access; e.access == 0 {
				continue
			}
		case r.allow == base && meets(r.major, e.major) && meets(r.minor, e.minor) && r.access&e.access != 0:
			return nil, errs.New(errs.Unsupported, "device rule %s: cgroup v1 cannot take a part out of %s", r.lines()[0], e.lines()[0])
		}
		out = append(out, e)
	}
	if r.allow != base {
		out = append(out, r)
	}
	return out, nil
}

func (r deviceRule) lines() []string {
	if r.everything() {
		return []string{"a"}
	}
	number := func(n int64) string {
		if n < 0 {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	access := make([]byte, 0, 3)
	for _, a := range [...]struct {
		bit  uint32
		name byte
	}{{unix.BPF_DEVCG_ACC_READ, 'r'}, {unix.BPF_DEVCG_ACC_WRITE, 'w'}, {unix.BPF_DEVCG_ACC_MKNOD, 'm'}} {
		if r.access&a.bit != 0 {
			access = append(access, a.name)
		}
	}
	rest := " " + number(r.major) + ":" + number(r.minor) + " " + string(access)
	if r.kind == 'a' {
		return []string{"c" + rest, "b" + rest}
	}
	return []string{string(r.kind) + rest}
}

// Instructions of eBPF that the device program uses (Documentation/bpf/standardization).
const (
	bpfLoadWord = 0x61 // dst = *(u32 *)(src + off)
	bpfMovImm   = 0xb7
	bpfMovReg   = 0xbf
	bpfAndImm   = 0x57
	bpfRshImm   = 0x77
	bpfJump     = 0x05
	bpfJeqImm   = 0x15
	bpfJneImm   = 0x55
	bpfJeq32Imm = 0x16 // the lower halves: an immediate is extended by its sign
	bpfJne32Imm = 0x56
	bpfExit     = 0x95
)

// bpfInsn is struct bpf_insn.
type bpfInsn struct {
	op   uint8
	regs uint8 // source in the upper half, destination in the lower
	off  int16
	imm  int32
}

// Targets of jumps that are not known yet; others are fixed with land.
const (
	toDeny  = -1
	toAllow = -2
)

// deviceAsm assembles a device program.
type deviceAsm struct{ p []bpfInsn }

// jump puts a jump and returns where it is.
func (a *deviceAsm) jump(op, reg uint8, imm int64, target int16) int {
	a.p = append(a.p, bpfInsn{op, reg, target, int32(uint32(imm))})
	return len(a.p) - 1
}

// land makes the jump at lead to the next instruction, -1 being none.
func (a *deviceAsm) land(at int) {
	if at >= 0 {
		a.p[at].off = int16(len(a.p) - at - 1)
	}
}

// deviceProgram compiles the rules for BPF_PROG_TYPE_CGROUP_DEVICE. For each bit
// of access that is asked for, the last rule about the device and that bit
// decides, and what no rule is about is allowed, as on v1 before any rule:
//
//	r2 = kind, r3 = bits still undecided, r4 = major, r5 = minor
//	for each rule, last first:
//	    another device?         next rule
//	    deny:  r3 & access?     return 0
//	    allow: r3 &^= access    empty? return 1
//	return 1
//
// Rules about one kind and one major number share these tests: the verifier
// takes some 3 µs for each instruction, at the start of every container. It also
// refuses instructions that cannot be reached, so nothing is put after a rule
// that decides everything.
func deviceProgram(rules []deviceRule) []bpfInsn {
	a := deviceAsm{p: []bpfInsn{
		// struct bpf_cgroup_dev_ctx: access_type, major, minor
		{bpfLoadWord, 1<<4 | 2, 0, 0},
		{bpfMovReg, 2<<4 | 3, 0, 0},
		{bpfAndImm, 2, 0, 0xffff},
		{bpfRshImm, 3, 0, 16},
		{bpfLoadWord, 1<<4 | 4, 4, 0},
		{bpfLoadWord, 1<<4 | 5, 8, 0},
	}}
	last := int16(toAllow)
	for end := len(rules); end > 0; {
		if r := rules[end-1]; r.everything() {
			last = r.verdict()
			break
		}
		begin := end - 1
		for begin > 0 && rules[begin-1].kind == rules[end-1].kind && !rules[begin-1].everything() {
			begin--
		}
		skip := -1
		switch rules[begin].kind {
		case 'b':
			skip = a.jump(bpfJneImm, 2, unix.BPF_DEVCG_DEV_BLOCK, 0)
		case 'c':
			skip = a.jump(bpfJneImm, 2, unix.BPF_DEVCG_DEV_CHAR, 0)
		}
		a.kind(rules[begin:end])
		a.land(skip)
		end = begin
	}
	// The two ends, as far as something leads there; the first is fallen into.
	for _, verdict := range [...]int16{last, toAllow + toDeny - last} {
		used := verdict == last
		for i := range a.p {
			if a.p[i].off == verdict {
				a.land(i)
				used = true
			}
		}
		if used {
			a.p = append(a.p, bpfInsn{bpfMovImm, 0, 0, 0}, bpfInsn{op: bpfExit})
			if verdict == toAllow {
				a.p[len(a.p)-2].imm = 1
			}
		}
	}
	return a.p
}

// kind puts rules of one kind of device, last first.
func (a *deviceAsm) kind(rules []deviceRule) {
	for end := len(rules); end > 0; {
		major, begin := rules[end-1].major, end-1
		for begin > 0 && rules[begin-1].major == major {
			begin--
		}
		skip := -1
		if major >= 0 {
			skip = a.jump(bpfJne32Imm, 4, major, 0)
		}
		for i := end - 1; i >= begin; i-- {
			if a.rule(rules[i]) {
				if major < 0 {
					return
				}
				break
			}
		}
		a.land(skip)
		end = begin
	}
}

// rule puts one rule whose kind and major number were tested. It reports whether
// it decides about every device and access that comes here.
func (a *deviceAsm) rule(r deviceRule) bool {
	if r.access == allAccess {
		if r.minor < 0 {
			a.jump(bpfJump, 0, 0, r.verdict())
			return true
		}
		a.jump(bpfJeq32Imm, 5, r.minor, r.verdict())
		return false
	}
	skip := -1
	if r.minor >= 0 {
		skip = a.jump(bpfJne32Imm, 5, r.minor, 0)
	}
	if r.allow {
		a.p = append(a.p, bpfInsn{bpfAndImm, 3, 0, int32(allAccess &^ r.access)})
		a.jump(bpfJeqImm, 3, 0, toAllow)
	} else {
		a.p = append(a.p, bpfInsn{bpfMovReg, 3<<4 | 6, 0, 0}, bpfInsn{bpfAndImm, 6, 0, int32(r.access)})
		a.jump(bpfJneImm, 6, 0, toDeny)
	}
	a.land(skip)
	return false
}

func (r deviceRule) verdict() int16 {
	if r.allow {
		return toAllow
	}
	return toDeny
}

// updateDevices replaces the rules of a group, wherever they are kept.
func (g *Group) updateDevices(list []specs.LinuxDeviceCgroup) error {
	rules, err := parseDevices(list)
	if err != nil || len(rules) == 0 {
		return err
	}
	if d := g.paths.V1["devices"]; d != "" {
		return writeDevicesV1(dir(d), rules)
	}
	if g.paths.V2 == "" {
		return errs.New(errs.Unsupported, "device rules: the container has no cgroup")
	}
	if err := setDeviceProgram(g.paths.V2, deviceProgram(rules)); err != nil && !(errors.Is(err, unix.EPERM) && allowsAll(rules)) {
		return fmt.Errorf("device rules: %w", err)
	}
	return nil
}
