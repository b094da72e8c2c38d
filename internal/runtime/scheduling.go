package runtime

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// linux is the Linux part of the container's spec, also for a process that joins
// it; nil: unknown.
func (c *compiler) linux() *specs.Linux {
	if c.s != nil {
		return c.s.Linux
	}
	return c.joinedLinux
}

// scheduling sets what of the scheduler's the spec asks for.
func (c *compiler) scheduling(pr *specs.Process) error {
	p := c.p
	if io := pr.IOPriority; io != nil {
		class := map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[io.Class]
		if class == 0 {
			return invalid("invalid ioPriority.Class: %q", io.Class)
		}
		if io.Priority < 0 || io.Priority > 7 {
			return invalid("invalid ioPriority.Priority: %d", io.Priority)
		}
		p.Step(program.Step{Verb: "io priority", Object: string(io.Class)})
		p.Call(unix.SYS_IOPRIO_SET, program.Int(1), program.Int(0), program.Int(class<<13|io.Priority))
	}
	if s := pr.Scheduler; s != nil {
		policy := map[specs.LinuxSchedulerPolicy]uint32{
			specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
		}
		n, ok := policy[s.Policy]
		switch {
		case s.Policy == "":
			return invalid("scheduler policy is required")
		case !ok:
			return invalid("scheduler policy %q: unknown", s.Policy)
		case (s.Policy == specs.SchedOther || s.Policy == specs.SchedBatch) && (s.Nice < -20 || s.Nice > 19):
			return invalid("invalid scheduler.nice: %d when scheduler.policy is %s", s.Nice, s.Policy)
		case s.Priority != 0 && s.Policy != specs.SchedFIFO && s.Policy != specs.SchedRR:
			return invalid("scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
		case s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
			return invalid("scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
		}
		var flags uint64
		for _, f := range s.Flags {
			bit := map[specs.LinuxSchedulerFlag]uint64{
				specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8,
				specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32, specs.SchedFlagUtilClampMax: 64,
			}[f]
			if bit == 0 {
				return invalid("scheduler flag %q: unknown", f)
			}
			flags |= bit
		}
		p.Step(program.Step{Verb: "scheduler", Object: string(s.Policy)})
		p.Sched(unix.SchedAttr{
			Policy: n, Flags: flags, Nice: s.Nice, Priority: uint32(s.Priority),
			Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
		})
	}
	if x := c.linux(); x != nil && x.Personality != nil {
		persona := map[specs.LinuxPersonalityDomain]uint64{specs.PerLinux: 0, specs.PerLinux32: 8}
		v, ok := persona[x.Personality.Domain]
		if !ok || len(x.Personality.Flags) > 0 {
			return invalid("personality %q: unknown", x.Personality.Domain)
		}
		p.Step(program.Step{Verb: "personality", Object: string(x.Personality.Domain)})
		p.Call(unix.SYS_PERSONALITY, program.Uint(v))
	}
	return nil
}
