package runtime

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// maxNodes is as many as the kernel can be built for (CONFIG_NODES_SHIFT).
const maxNodes = 1024

// memoryPolicy sets which NUMA nodes memory comes from (set_mempolicy(2)).
func (c *compiler) memoryPolicy() error {
	l := c.linux()
	if l == nil || l.MemoryPolicy == nil {
		return nil
	}
	m := l.MemoryPolicy
	mode, ok := map[specs.MemoryPolicyModeType]int{
		specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3,
		specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
	}[m.Mode]
	if !ok {
		return invalid("invalid memory policy mode %q", m.Mode)
	}
	for _, f := range m.Flags {
		bit := map[specs.MemoryPolicyFlagType]int{specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15}[f]
		if bit == 0 {
			return invalid("invalid memory policy flag %q", f)
		}
		mode |= bit
	}
	mask, total := make([]byte, maxNodes/8), 0
	for part := range strings.SplitSeq(m.Nodes, ",") {
		if m.Nodes == "" {
			break
		}
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		lo, err := strconv.ParseUint(from, 10, 32)
		hi := lo
		if err == nil && isRange {
			hi, err = strconv.ParseUint(to, 10, 32)
		}
		if err != nil || hi < lo || hi >= maxNodes {
			return invalid("invalid memory policy node %q", part)
		}
		for n := lo; n <= hi; n++ {
			total++
			word := mask[n/64*8:]
			binary.NativeEndian.PutUint64(word, binary.NativeEndian.Uint64(word)|1<<(n%64))
		}
	}
	switch none := m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal; {
	case none && total > 0:
		return invalid("memory policy mode requires 0 nodes but got %d", total)
	case !none && m.Mode != specs.MpolPreferred && total == 0:
		return invalid("memory policy mode requires at least one node but got 0")
	}
	nodes, count := program.Null, 0
	if m.Nodes != "" {
		nodes, count = c.p.Bytes(mask), maxNodes+1 // the kernel takes one off
	}
	c.p.Step(program.Step{Verb: "memory policy", Object: string(m.Mode) + " " + m.Nodes})
	c.p.Call(unix.SYS_SET_MEMPOLICY, program.Int(mode), nodes, program.Int(count))
	return nil
}
