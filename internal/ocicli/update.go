package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// update changes limits.
func (c *call) update() error {
	ct, err := change(c.root, c.args[0])
	if err != nil {
		return err
	}
	defer ct.close()
	if ct.status() == stopped {
		return errNotRunning
	}
	r := &specs.LinuxResources{}
	if c.flags.set("resources") {
		err = readResources(c.flags.str("resources"), r)
	} else {
		err = c.resources(r)
	}
	if err != nil {
		return err
	}
	if err := c.checkRDT(); err != nil {
		return err
	}
	if m := r.Memory; m != nil {
		if m.Kernel != nil || m.KernelTCP != nil { //nolint:staticcheck // callers still give it
			c.log.warn("Kernel memory settings are ignored and will be removed")
		}
		if m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
			m.Swap = new(int64(-1)) // a limit of both may not stay below that of one
		}
	}
	// Devices are not for update: others may have added to the rules.
	r.Devices = nil
	complete(r, ct)
	g := ct.group()
	if err := g.UpdateOCI(r); err != nil {
		return err
	}
	for _, w := range g.Warnings() {
		c.log.warn("%s", w)
	}
	ct.remember(r)
	return ct.save()
}

// complete adds what one limit cannot be set without, from what was set before:
// a quota means nothing without its period, and systemd wants both.
func complete(r *specs.LinuxResources, ct *container) {
	now := ct.Limits
	if now == nil {
		s, err := ct.config()
		if err != nil || s.Linux.Resources == nil {
			return
		}
		now = s.Linux.Resources
	}
	if r.CPU == nil || now.CPU == nil {
		return
	}
	if r.CPU.Quota != nil && r.CPU.Period == nil {
		r.CPU.Period = now.CPU.Period
	}
	if r.CPU.Period != nil && r.CPU.Quota == nil {
		r.CPU.Quota = now.CPU.Quota
	}
}

// remember keeps what the next update has to know.
func (ct *container) remember(r *specs.LinuxResources) {
	if r.CPU == nil || r.CPU.Quota == nil && r.CPU.Period == nil {
		return
	}
	ct.Limits = &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: r.CPU.Quota, Period: r.CPU.Period}}
}

func readResources(name string, r *specs.LinuxResources) error {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	return json.NewDecoder(in).Decode(r)
}

// resources reads the flags.
func (c *call) resources(r *specs.LinuxResources) error {
	var first error
	number := func(flag string) *int64 {
		text := c.flags.str(flag)
		if text == "" || first != nil {
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			first = fmt.Errorf("invalid value for %s: %w", flag, err)
			return nil
		}
		return &n
	}
	unsigned := func(flag string) *uint64 {
		text := c.flags.str(flag)
		if text == "" || first != nil {
			return nil
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			first = fmt.Errorf("invalid value for %s: %w", flag, err)
			return nil
		}
		return &n
	}
	bytes := func(flag string) *int64 {
		text := c.flags.str(flag)
		if text == "" || first != nil {
			return nil
		}
		n, err := parseBytes(text)
		if err != nil {
			first = fmt.Errorf("invalid value for %s: %w", flag, err)
			return nil
		}
		return &n
	}
	cpu := specs.LinuxCPU{
		Shares: unsigned("cpu-share"), Quota: number("cpu-quota"), Burst: unsigned("cpu-burst"), Period: unsigned("cpu-period"),
		RealtimeRuntime: number("cpu-rt-runtime"), RealtimePeriod: unsigned("cpu-rt-period"),
		Cpus: c.flags.str("cpuset-cpus"), Mems: c.flags.str("cpuset-mems"), Idle: number("cpu-idle"),
	}
	if cpu != (specs.LinuxCPU{}) {
		r.CPU = &cpu
	}
	memory := specs.LinuxMemory{
		Limit: bytes("memory"), Swap: bytes("memory-swap"), Reservation: bytes("memory-reservation"),
		Kernel: bytes("kernel-memory"), KernelTCP: bytes("kernel-memory-tcp"), //nolint:staticcheck // callers still give it
	}
	if memory != (specs.LinuxMemory{}) {
		r.Memory = &memory
	}
	if c.flags.set("pids-limit") {
		r.Pids = &specs.LinuxPids{Limit: new(int64(c.flags.num("pids-limit")))}
	}
	if w := c.flags.num("blkio-weight"); w != 0 {
		r.BlockIO = &specs.LinuxBlockIO{Weight: new(uint16(w))}
	}
	return first
}

// parseBytes reads a size: 1024, 64k, 1.5GiB; -1 for no limit.
func parseBytes(text string) (int64, error) {
	if text == "-1" {
		return -1, nil
	}
	digits := strings.TrimRight(text, "bBiIkKmMgGtTpP ")
	n, err := strconv.ParseFloat(digits, 64)
	unit := strings.ToLower(strings.TrimSpace(text[len(digits):]))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("invalid size: '%s'", text)
	}
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	shift := strings.Index("kmgtp", unit)
	switch {
	case unit == "":
		return int64(n), nil
	case len(unit) != 1 || shift < 0:
		return 0, fmt.Errorf("invalid suffix: '%s'", unit)
	}
	return int64(n * float64(int64(1)<<(10*(shift+1)))), nil
}

// checkRDT refuses Intel RDT, for which containers get no group of their own.
func (c *call) checkRDT() error {
	mounted := unix.Access("/sys/fs/resctrl/schemata", unix.F_OK) == nil
	switch {
	case c.flags.str("l3-cache-schema") != "" && !mounted:
		return errors.New("Intel RDT/CAT: l3 cache schema is not enabled") //nolint:staticcheck // callers know it so
	case c.flags.str("mem-bw-schema") != "" && !mounted:
		return errors.New("Intel RDT/MBA: memory bandwidth schema is not enabled") //nolint:staticcheck // callers know it so
	case c.flags.str("l3-cache-schema")+c.flags.str("mem-bw-schema") != "":
		return errors.New("updating a non-existent Intel RDT configuration is not supported")
	}
	return nil
}
