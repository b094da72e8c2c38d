package seccomp

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Run evaluates the filter on a native system call as the kernel would, and
// returns its verdict (SECCOMP_RET_*). The address of the call is taken as 0.
func (f *Filter) Run(nr uint32, args [6]uint64) uint32 {
	var data [64]byte // struct seccomp_data
	binary.NativeEndian.PutUint32(data[0:], nr)
	binary.NativeEndian.PutUint32(data[4:], host().abis[0].audit)
	for i, a := range args {
		binary.NativeEndian.PutUint64(data[16+8*i:], a)
	}
	return run(f.Prog, data[:])
}

// run is the part of classic BPF that seccomp allows (seccomp_check_filter in the
// kernel's kernel/seccomp.c). A program that does anything else kills.
func run(prog []unix.SockFilter, data []byte) uint32 {
	var a, x uint32
	var mem [16]uint32
	for pc := 0; pc < len(prog); pc++ {
		i := &prog[pc]
		src := i.K
		if i.Code&unix.BPF_X != 0 {
			src = x
		}
		jump := func(cond bool) {
			if cond {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if int(i.K)+4 > len(data) {
				return unix.SECCOMP_RET_KILL_PROCESS
			}
			a = binary.NativeEndian.Uint32(data[i.K:])
		case unix.BPF_LD | unix.BPF_IMM:
			a = i.K
		case unix.BPF_LDX | unix.BPF_IMM:
			x = i.K
		case unix.BPF_LD | unix.BPF_MEM:
			a = mem[i.K&15]
		case unix.BPF_LDX | unix.BPF_MEM:
			x = mem[i.K&15]
		case unix.BPF_ST:
			mem[i.K&15] = a
		case unix.BPF_STX:
			mem[i.K&15] = x
		case unix.BPF_MISC | unix.BPF_TAX:
			x = a
		case unix.BPF_MISC | unix.BPF_TXA:
			a = x
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, unix.BPF_ALU | unix.BPF_AND | unix.BPF_X:
			a &= src
		case unix.BPF_ALU | unix.BPF_OR | unix.BPF_K, unix.BPF_ALU | unix.BPF_OR | unix.BPF_X:
			a |= src
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_X:
			jump(a == src)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGT | unix.BPF_X:
			jump(a > src)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_X:
			jump(a >= src)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_X:
			jump(a&src != 0)
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_RET | unix.BPF_A:
			return a
		default:
			return unix.SECCOMP_RET_KILL_PROCESS
		}
	}
	return unix.SECCOMP_RET_KILL_PROCESS
}

// Calls calls f with every native system call that is known here, by name.
func Calls(f func(name string, nr uint32)) {
	h := host()
	for i := range h.table {
		if nr := h.table[i].nr[h.abis[0].column]; nr >= 0 {
			f(h.table[i].name, uint32(nr))
		}
	}
}

// Name is the name of a native system call, "" for one that is not known here.
func Name(nr uint32) string {
	h := host()
	for i := range h.table {
		if h.table[i].nr[h.abis[0].column] == int32(nr) {
			return h.table[i].name
		}
	}
	return ""
}
