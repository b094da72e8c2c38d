package runtime

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// maxCPUs is as many as the kernel can be built for (CONFIG_NR_CPUS).
const maxCPUs = 8192

// ParseCPUs reads a list of CPUs, "0-3,7", into a mask of 64 to the word, which
// has at least one.
func ParseCPUs(list string) ([]uint64, error) {
	mask := make([]uint64, 1)
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		from, to, isRange := strings.Cut(part, "-")
		lo, err := strconv.ParseUint(from, 10, 32)
		hi := lo
		if err == nil && isRange {
			hi, err = strconv.ParseUint(to, 10, 32)
		}
		if err != nil || hi < lo || hi >= maxCPUs {
			return nil, invalid("invalid CPU affinity %q: %q is not a CPU or a range of CPUs", list, part)
		}
		for n := lo; n <= hi; n++ {
			for n/64 >= uint64(len(mask)) {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, nil
}

// affinity puts the child on CPUs; "": it stays where it is.
func (c *compiler) affinity(list string) error {
	if list == "" {
		return nil
	}
	mask, err := ParseCPUs(list)
	if err != nil {
		return err
	}
	b := make([]byte, 0, 8*len(mask))
	for _, w := range mask {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	c.p.Step(program.Step{Verb: "cpu affinity", Object: list})
	c.p.Call(unix.SYS_SCHED_SETAFFINITY, program.Int(0), program.Int(len(b)), c.p.Bytes(b))
	return nil
}

// allCPUs frees the child from the caller's own CPU affinity; the kernel takes
// the cpuset's CPUs off the mask (sched_setaffinity(2)).
func (c *compiler) allCPUs() {
	if !c.o.AllCPUs {
		return
	}
	mask := make([]byte, maxCPUs/8)
	for i := range mask {
		mask[i] = 0xff
	}
	c.p.Step(program.Step{Verb: "cpu affinity", Object: "all"})
	c.p.Call(unix.SYS_SCHED_SETAFFINITY, program.Int(0), program.Int(len(mask)), c.p.Bytes(mask)).Ignore()
}
