package seccomp

import (
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sysno is one row of the system call tables: the numbers of a name in each ABI
// of a family, -1 where it has none.
type sysno struct {
	name string
	nr   [3]int32
}

// abi is one way to make system calls that a process on this machine can use.
type abi struct {
	arch   specs.Arch
	audit  uint32 // AUDIT_ARCH_*, what seccomp_data.arch says
	base   uint32 // added to every number: x32's bit
	column int    // in the tables
	wide   bool   // arguments have 64 bits
	muxed  bool   // has socketcall and ipc
}

// x32Bit marks a system call made under x32; its AUDIT_ARCH is x86-64's.
const x32Bit = 0x40000000

// armPrivate is the first of ARM's private calls (set_tls and others), far above
// all others.
const armPrivate = 0xf0000

// family is the set of ABIs that one kind of processor runs, native first, and
// their tables. ABIs that share an AUDIT_ARCH are neighbours, the lower base first.
type family struct {
	abis     []abi
	table    []sysno // sorted by name
	archs    []specs.Arch
	profile  []condRule
	resolved [2][]specs.LinuxSyscall // for the capability masks in staticMasks
	filters  [2][]unix.SockFilter    // resolved, compiled
}

// The families are static data; the linker keeps the host's only.
var (
	familyX86 = family{
		abis: []abi{
			{arch: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64, column: 0, wide: true},
			{arch: specs.ArchX32, audit: unix.AUDIT_ARCH_X86_64, base: x32Bit, column: 2, wide: true},
			{arch: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, column: 1, muxed: true},
		},
		table: sysnoX86, archs: archsX86, profile: profileX86,
		resolved: [2][]specs.LinuxSyscall{rulesX860, rulesX861}, filters: [2][]unix.SockFilter{staticX860, staticX861},
	}
	familyARM = family{
		abis: []abi{
			{arch: specs.ArchAARCH64, audit: unix.AUDIT_ARCH_AARCH64, column: 0, wide: true},
			{arch: specs.ArchARM, audit: unix.AUDIT_ARCH_ARM, column: 1},
		},
		table: sysnoARM, archs: archsARM, profile: profileARM,
		resolved: [2][]specs.LinuxSyscall{rulesARM0, rulesARM1}, filters: [2][]unix.SockFilter{staticARM0, staticARM1},
	}
)

// host returns this machine's family.
func host() *family {
	if runtime.GOARCH == "arm64" {
		return &familyARM
	}
	return &familyX86
}

// lookup returns the row of name, or nil.
func (f *family) lookup(name string) *sysno {
	lo, hi := 0, len(f.table)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch row := &f.table[mid]; {
		case row.name == name:
			return row
		case row.name < name:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return nil
}

// knownArch reports whether a is an architecture of the OCI specification.
func knownArch(a specs.Arch) bool {
	switch a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
		specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// mux returns through which i386 call, and with which value of its first
// argument, name can also be made (net/socket.c, ipc/syscall.c).
func mux(name string) (call string, number uint64) {
	switch name {
	case "socket":
		return "socketcall", 1
	case "bind":
		return "socketcall", 2
	case "connect":
		return "socketcall", 3
	case "listen":
		return "socketcall", 4
	case "accept":
		return "socketcall", 5
	case "getsockname":
		return "socketcall", 6
	case "getpeername":
		return "socketcall", 7
	case "socketpair":
		return "socketcall", 8
	case "send":
		return "socketcall", 9
	case "recv":
		return "socketcall", 10
	case "sendto":
		return "socketcall", 11
	case "recvfrom":
		return "socketcall", 12
	case "shutdown":
		return "socketcall", 13
	case "setsockopt":
		return "socketcall", 14
	case "getsockopt":
		return "socketcall", 15
	case "sendmsg":
		return "socketcall", 16
	case "recvmsg":
		return "socketcall", 17
	case "accept4":
		return "socketcall", 18
	case "recvmmsg":
		return "socketcall", 19
	case "sendmmsg":
		return "socketcall", 20
	case "semop":
		return "ipc", 1
	case "semget":
		return "ipc", 2
	case "semctl":
		return "ipc", 3
	case "semtimedop":
		return "ipc", 4
	case "msgsnd":
		return "ipc", 11
	case "msgrcv":
		return "ipc", 12
	case "msgget":
		return "ipc", 13
	case "msgctl":
		return "ipc", 14
	case "shmat":
		return "ipc", 21
	case "shmdt":
		return "ipc", 22
	case "shmget":
		return "ipc", 23
	case "shmctl":
		return "ipc", 24
	}
	return "", 0
}

// truncated reports whether the kernel uses only the low 32 bits of argument i
// of name, whatever the register holds. Only calls that profiles really filter
// by argument are listed.
func truncated(name string, i uint) bool {
	switch name {
	case "socket", "socketpair":
		return i <= 2
	case "personality", "keyctl", "prctl":
		return i == 0
	case "ioctl", "fcntl", "setns":
		return i <= 1
	}
	return false
}
