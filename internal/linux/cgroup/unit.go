package cgroup

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/errs"
)

// unit is the systemd unit of one container, as cgroupsPath names it:
// slice:prefix:name.
type unit struct{ slice, name string }

func parseUnit(o OCI) (unit, error) {
	u := unit{slice: "system.slice", name: prefix + o.ID + ".scope"}
	if o.Rootless {
		u.slice = "user.slice"
	}
	if o.Path == "" {
		return u, nil
	}
	parts := strings.Split(o.Path, ":")
	if len(parts) != 3 || parts[2] == "" {
		return u, errs.New(errs.Invalid, "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", o.Path)
	}
	if parts[0] != "" {
		u.slice = parts[0]
	}
	if !strings.HasSuffix(u.slice, ".slice") || strings.ContainsAny(u.slice, "/\x00") {
		return u, errs.New(errs.Invalid, "cgroupsPath %q: %q is not the name of a slice", o.Path, u.slice)
	}
	switch name := parts[2]; {
	case strings.HasSuffix(name, ".slice"):
		u.name = name
	case parts[1] == "":
		u.name = name + ".scope"
	default:
		u.name = parts[1] + "-" + name + ".scope"
	}
	if strings.ContainsAny(u.name, "/\x00") {
		return u, errs.New(errs.Invalid, "cgroupsPath %q: %q is not the name of a unit", o.Path, u.name)
	}
	return u, nil
}

// prepareUnit checks everything that can be checked before there is a process,
// and leaves the rest to Attach.
func (m *maker) prepareUnit(o OCI) error {
	if !booted() {
		return errs.New(errs.Unsupported, "systemd not running on this host, cannot use systemd cgroups manager")
	}
	u, err := parseUnit(o)
	if err != nil {
		return err
	}
	props, err := customProperties(o.Properties)
	if err != nil {
		return err
	}
	limits, resources, err := unitLimits("", o.Resources, m.host.mode == "v2", m.group.warn)
	if err != nil {
		return err
	}
	if _, err := m.group.ociRules(o.Resources); err != nil {
		return err
	}
	m.request.Resources, o.Resources = resources, resources
	g := m.group
	g.paths.Manager, g.paths.Unit = Systemd, u.name
	g.start = func(pid int) error {
		mgr, err := dial(o.Rootless)
		if err != nil {
			return noManager(err, o.Rootless)
		}
		defer mgr.close()
		all := append(unitProperties(o.ID, u, pid), props...)
		if err := mgr.startUnit(u.name, append(all, limits...)); err != nil {
			return scopeError(u.name, err)
		}
		return m.enterUnit(o, u, pid)
	}
	return nil
}

// property is one of a unit's, ready to be sent.
type property struct {
	name, signature string
	value           func(*marshal)
}

func stringProperty(name, v string) property {
	return property{name, "s", func(m *marshal) { m.str(v) }}
}

func boolProperty(name string, v bool) property {
	return property{name, "b", func(m *marshal) { m.bool(v) }}
}

func uintProperty(name string, v uint64) property {
	return property{name, "t", func(m *marshal) { m.u64(v) }}
}

// unitProperties are those of every container's unit.
func unitProperties(id string, u unit, pid int) []property {
	props := []property{stringProperty("Description", "isle container "+id)}
	if strings.HasSuffix(u.name, ".slice") {
		props = append(props, property{"Wants", "as", func(m *marshal) { m.array(4, func() { m.str(u.slice) }) }})
	} else {
		props = append(props, stringProperty("Slice", u.slice), boolProperty("Delegate", true))
	}
	return append(
		props,
		property{"PIDs", "au", func(m *marshal) { m.array(4, func() { m.u32(uint32(pid)) }) }},
		boolProperty("MemoryAccounting", true), boolProperty("CPUAccounting", true),
		boolProperty("IOAccounting", true), boolProperty("TasksAccounting", true),
		boolProperty("DefaultDependencies", false),
	)
}

// startUnit makes a transient unit. One of that name that has failed is
// forgotten first.
func (m *manager) startUnit(name string, props []property) error {
	var b marshal
	b.str(name)
	b.str("replace")
	b.properties(props)
	b.array(8, func() {}) // no auxiliary units
	_, err := m.method("StartTransientUnit", "ssa(sv)a(sa(sv))", b)
	if !busErrorIs(err, ".UnitExists") {
		return err
	}
	var name1 marshal
	name1.str(name)
	if _, rerr := m.method("ResetFailedUnit", "s", name1); rerr != nil {
		return err
	}
	_, err = m.method("StartTransientUnit", "ssa(sv)a(sa(sv))", b)
	return err
}

func (m *marshal) properties(props []property) {
	m.array(8, func() {
		for _, p := range props {
			m.property(p.name, p.signature, func() { p.value(m) })
		}
	})
}

// setUnit changes properties of a unit until the machine is booted again.
func (m *manager) setUnit(name string, props []property) error {
	if len(props) == 0 {
		return nil
	}
	var b marshal
	b.str(name)
	b.bool(true) // runtime
	b.properties(props)
	_, err := m.method("SetUnitProperties", "sba(sv)", b)
	return err
}

// stopUnit ends a unit whose processes are gone; one that is gone too is fine.
func (m *manager) stopUnit(name string) {
	var b marshal
	b.str(name)
	b.str("replace")
	_, _ = m.method("StopUnit", "ss", b)
	b = marshal{}
	b.str(name)
	_, _ = m.method("ResetFailedUnit", "s", b)
}

// enterUnit waits until pid is in the unit, and makes what systemd does not: the
// groups on v1 hierarchies that it leaves alone, the limits it has no word for.
func (m *maker) enterUnit(o OCI, u unit, pid int) error {
	controller := ""
	if m.host.mode != "v2" {
		controller = "name=systemd"
	}
	inner := ""
	ok, err := await(func() (bool, error) {
		list, err := memberships(strconv.Itoa(pid))
		if err != nil {
			return false, err
		}
		member, _ := on(list, controller)
		if dir(member.path).base() != u.name {
			return false, nil
		}
		inner = member.path
		return true, nil
	})
	if err == nil && !ok {
		err = errs.New(errs.Unavailable, "not started after %v", patience)
	}
	if err != nil {
		return fmt.Errorf("systemd: unit %s: %w", u.name, err)
	}
	if controller != "" {
		if err := m.ociV1(o, true, inner); err != nil {
			return err
		}
	}
	if m.host.v2mount != "" {
		at := m.host.v2mount
		if _, err := m.mkdirs(location{at, at}, inner, m.fit); err != nil {
			return err
		}
		m.group.paths.V2 = string(at.join(strings.Trim(inner, "/")))
		if err := m.limitOCI(dir(m.group.paths.V2), o); err != nil {
			return err
		}
	}
	return m.ociDevices(o)
}

// customProperties parses properties from annotations, whose values are in
// GVariant's text format. A name in …Sec takes seconds for systemd's …USec.
func customProperties(list map[string]string) ([]property, error) {
	var out []property
	for name, text := range list {
		bad := func(what string) error {
			return errs.New(errs.Invalid, "annotation org.systemd.property.%s=%s: %s", name, text, what)
		}
		if len(name) < 3 {
			return nil, bad("name too short")
		}
		for _, c := range name {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return nil, bad("name contains non-alphabetic character")
			}
		}
		p, number, ok := parseVariant(text)
		if !ok {
			return nil, bad("value parse error")
		}
		p.name = name
		if base, cut := strings.CutSuffix(name, "Sec"); cut && base[len(base)-1] >= 'a' {
			if math.IsNaN(number) {
				return nil, bad("not a number")
			}
			p = uintProperty(base+"USec", uint64(number*1e6))
		}
		out = append(out, p)
	}
	return out, nil
}

// parseVariant reads what systemd's properties need of GVariant's text format:
// strings, booleans, numbers with and without a type, and arrays of strings.
// number is NaN for what is none.
func parseVariant(text string) (p property, number float64, ok bool) {
	text = strings.TrimSpace(text)
	number = math.NaN()
	quoted := func(s string) (string, bool) {
		if len(s) < 2 || s[0] != '\'' && s[0] != '"' || s[len(s)-1] != s[0] {
			return "", false
		}
		return s[1 : len(s)-1], !strings.ContainsRune(s[1:len(s)-1], rune(s[0]))
	}
	if s, is := quoted(text); is {
		return stringProperty("", s), number, true
	}
	if text == "true" || text == "false" {
		return boolProperty("", text == "true"), number, true
	}
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		var list []string
		for part := range strings.SplitSeq(text[1:len(text)-1], ",") {
			s, is := quoted(strings.TrimSpace(part))
			if !is {
				return p, number, false
			}
			list = append(list, s)
		}
		return property{"", "as", func(m *marshal) {
			m.array(4, func() {
				for _, s := range list {
					m.str(s)
				}
			})
		}}, number, true
	}
	kind, digits, typed := strings.Cut(text, " ")
	if !typed {
		kind, digits = "int32", text
		if strings.ContainsAny(text, ".e") {
			kind = "double"
		}
	}
	digits = strings.TrimSpace(digits)
	bits, signature := 32, "i"
	switch kind {
	case "uint32", "uint64":
		signature = "u"
		if kind == "uint64" {
			bits, signature = 64, "t"
		}
		n, err := strconv.ParseUint(digits, 0, bits)
		if err != nil {
			return p, number, false
		}
		p = property{"", signature, func(m *marshal) { m.number(bits, n) }}
		return p, float64(n), true
	case "int64":
		bits, signature = 64, "x"
	case "int32":
	case "double":
		n, err := strconv.ParseFloat(digits, 64)
		p = property{"", "d", func(m *marshal) { m.u64(math.Float64bits(n)) }}
		return p, n, err == nil
	default:
		return p, number, false
	}
	n, err := strconv.ParseInt(digits, 0, bits)
	if err != nil {
		return p, number, false
	}
	return property{"", signature, func(m *marshal) { m.number(bits, uint64(n)) }}, float64(n), true
}

func (m *marshal) number(bits int, n uint64) {
	if bits == 64 {
		m.u64(n)
		return
	}
	m.u32(uint32(n))
}

// infinity is how systemd's properties say that there is no limit.
const infinity = ^uint64(0)

// unitLimits are the limits that systemd has a word for: it would undo what is
// written to their files behind its back. A quota is rounded up to the 10 ms a
// second that it knows, which resources then say too. group is where usage can
// be read, if the unit is there already.
func unitLimits(group dir, r *specs.LinuxResources, v2 bool, warn func(string)) (props []property, resources *specs.LinuxResources, err error) {
	if r == nil {
		return nil, nil, nil
	}
	clone := *r
	limit := func(name string, n *int64) {
		switch {
		case n == nil || *n == 0:
		case *n < 0:
			props = append(props, uintProperty(name, infinity))
		default:
			props = append(props, uintProperty(name, uint64(*n)))
		}
	}
	if m := r.Memory; m != nil {
		if group != "" {
			if err := checkUsage(group, m); err != nil {
				return nil, nil, err
			}
		}
		if v2 {
			limit("MemoryMax", m.Limit)
			limit("MemoryLow", m.Reservation)
			if m.Swap != nil && m.Limit != nil && *m.Limit > 0 && *m.Swap >= *m.Limit {
				props = append(props, uintProperty("MemorySwapMax", uint64(*m.Swap-*m.Limit)))
			} else if m.Swap != nil && *m.Swap < 0 || m.Swap == nil && m.Limit != nil && *m.Limit < 0 {
				props = append(props, uintProperty("MemorySwapMax", infinity))
			}
		} else {
			limit("MemoryLimit", m.Limit)
		}
	}
	if c := r.CPU; c != nil {
		cpu := *c
		clone.CPU = &cpu
		idle := v2 && c.Idle != nil && *c.Idle == 1
		switch shares := c.Shares != nil && *c.Shares != 0; {
		case idle:
			props = append(props, uintProperty("CPUWeight", 0)) // systemd 252; before it the file below is enough
			if shares {
				warn("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight")
				cpu.Shares = nil
			}
		case shares && v2:
			props = append(props, uintProperty("CPUWeight", weight(*c.Shares)))
		case shares:
			props = append(props, uintProperty("CPUShares", *c.Shares))
		}
		quota, period := int64(0), uint64(0)
		if c.Quota != nil {
			quota = *c.Quota
		}
		if c.Period != nil {
			period = *c.Period
		}
		props = append(props, quotaProperties(&quota, period)...)
		if c.Quota != nil {
			cpu.Quota = &quota
		}
		if v2 {
			for _, f := range [...]struct{ name, value string }{{"AllowedCPUs", c.Cpus}, {"AllowedMemoryNodes", c.Mems}} {
				if f.value == "" {
					continue
				}
				p, ok := setProperty(f.name, f.value)
				if !ok {
					return nil, nil, errs.New(errs.Invalid, "cpuset %q: want a list of numbers and ranges, as 0-2,4", f.value)
				}
				props = append(props, p)
			}
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		n := infinity
		if *p.Limit >= 0 {
			n = uint64(max(*p.Limit, 1)) // 0 is none that systemd takes
		}
		props = append(props, uintProperty("TasksMax", n))
	}
	more, err := unifiedProperties(r.Unified, warn)
	return append(props, more...), &clone, err
}

// quotaProperties says a CPU quota in systemd's terms; it may grow quota.
func quotaProperties(quota *int64, period uint64) []property {
	var props []property
	if period != 0 {
		props = append(props, uintProperty("CPUQuotaPeriodUSec", period)) // systemd 242
	}
	if *quota == 0 && period == 0 {
		return nil
	}
	perSec := infinity
	if *quota > 0 {
		if period == 0 {
			period = defaultPeriod
		}
		perSec = uint64(*quota) * 1000000 / period
		if rest := perSec % 10000; rest != 0 {
			perSec += 10000 - rest
			*quota = int64(perSec * period / 1000000)
		}
	}
	return append(props, uintProperty("CPUQuotaPerSecUSec", perSec))
}

// setProperty writes a list as "0-2,4" as a bit set.
func setProperty(name, text string) (property, bool) {
	set, ok := parseSet(text)
	var bits []byte
	for n := range set {
		for len(bits) <= n/8 {
			bits = append(bits, 0)
		}
		bits[n/8] |= 1 << (n % 8)
	}
	return property{name, "ay", func(m *marshal) { m.array(1, func() { m.b = append(m.b, bits...) }) }}, ok
}

// unifiedProperties are the files that systemd has a word for.
func unifiedProperties(files map[string]string, warn func(string)) ([]property, error) {
	var props []property
	for name, v := range files {
		v = strings.TrimSpace(v)
		bad := func() error { return errs.New(errs.Invalid, "unified resource %q value invalid: %q", name, v) }
		number := func(as string) error {
			n := infinity
			if v != "max" {
				var err error
				if n, err = strconv.ParseUint(v, 10, 64); err != nil {
					return bad()
				}
			}
			props = append(props, uintProperty(as, n))
			return nil
		}
		var err error
		switch name {
		case "cpu.idle":
			if v == "1" {
				props = append(props, uintProperty("CPUWeight", 0))
			}
		case "cpu.weight":
			if strings.TrimSpace(files["cpu.idle"]) == "1" {
				warn("unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight")
				continue
			}
			err = number("CPUWeight")
		case "cpu.max":
			f := strings.Fields(v)
			if len(f) < 1 || len(f) > 2 {
				return nil, bad()
			}
			quota, period := int64(-1), uint64(defaultPeriod)
			if f[0] != "max" {
				if quota, err = strconv.ParseInt(f[0], 10, 64); err != nil {
					return nil, bad()
				}
			}
			if len(f) == 2 {
				if period, err = strconv.ParseUint(f[1], 10, 64); err != nil || period == 0 {
					return nil, bad()
				}
			}
			props = append(props, quotaProperties(&quota, period)...)
		case "cpuset.cpus", "cpuset.mems":
			as := "AllowedCPUs"
			if name == "cpuset.mems" {
				as = "AllowedMemoryNodes"
			}
			p, ok := setProperty(as, v)
			if !ok {
				return nil, bad()
			}
			props = append(props, p)
		case "memory.high":
			err = number("MemoryHigh")
		case "memory.low":
			err = number("MemoryLow")
		case "memory.min":
			err = number("MemoryMin")
		case "memory.max":
			err = number("MemoryMax")
		case "memory.swap.max":
			err = number("MemorySwapMax")
		case "pids.max":
			if v == "0" {
				v = "1"
			}
			err = number("TasksMax")
		}
		if err != nil {
			return nil, err
		}
	}
	return props, nil
}

// checkUsage refuses a limit below what is in use, where the caller asked for
// that (checkBeforeUpdate): the kernel would kill processes for it.
func checkUsage(d dir, m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate {
		return nil
	}
	usage, err := d.readInt("memory.current")
	if err != nil {
		return nil //nolint:nilerr // v1, whose kernel refuses by itself
	}
	if m.Swap != nil && *m.Swap > 0 && *m.Swap <= usage {
		return errs.New(errs.Conflict, "rejecting memory+swap limit %d <= usage %d", *m.Swap, usage)
	}
	if m.Limit != nil && *m.Limit > 0 && *m.Limit <= usage {
		return errs.New(errs.Conflict, "rejecting memory limit %d <= usage %d", *m.Limit, usage)
	}
	return nil
}
