package seccomp

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestRunAgreesWithTheOracle evaluates the default filter on every native call
// and a few arguments with another machine (golang.org/x/net/bpf).
func TestRunAgreesWithTheOracle(t *testing.T) {
	f, err := Compile(Default(nil))
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]bpf.RawInstruction, len(f.Prog))
	for i, in := range f.Prog {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter cannot be disassembled")
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	Calls(func(name string, nr uint32) {
		for _, arg := range []uint64{0, 1, 0x7e020000, 40, ^uint64(0)} {
			args := [6]uint64{arg, arg, arg, arg, arg, arg}
			got := f.Run(nr, args)
			// The virtual machine reads as the network orders bytes.
			var data [64]byte
			binary.BigEndian.PutUint32(data[0:], nr)
			binary.BigEndian.PutUint32(data[4:], host().abis[0].audit)
			for i, a := range args {
				low, high := 16+8*i, 20+8*i
				binary.BigEndian.PutUint32(data[low:], uint32(a))
				binary.BigEndian.PutUint32(data[high:], uint32(a>>32))
			}
			want, err := vm.Run(data[:])
			if err != nil || uint32(want) != got {
				t.Errorf("%s(%#x): %#x, the oracle %#x (%v)", name, arg, got, want, err)
			}
			n++
		}
	})
	if n < 1500 {
		t.Errorf("only %d verdicts", n)
	}
	if Name(unix.SYS_OPENAT) != "openat" || Name(9999) != "" {
		t.Error("names of calls are wrong")
	}
}
