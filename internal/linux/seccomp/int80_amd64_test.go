package seccomp

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// children32 are the bodies that make i386 calls.
func children32() map[string]func() {
	return map[string]func(){
		"int80":       func() { int80 := mapInt80(); install(Default(defaultCaps)); probe32(int80) },
		"int80 plain": func() { fmt.Println("pid", int(mapInt80()(20, 0, 0)) == os.Getpid()) },
	}
}

// mapInt80 maps a function that makes a system call of the i386 ABI. Go passes
// the first three integers in AX, BX and CX, just where int $0x80 wants the
// number and two arguments, and takes the result from AX.
func mapInt80() func(nr, a, b uintptr) uintptr {
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	copy(mem, []byte{
		0x31, 0xd2, // xor %edx, %edx
		0xcd, 0x80, // int $0x80
		0xc3, // ret
	})
	// A func value points to a word that holds the address of the code.
	code := &[1]uintptr{uintptr(unsafe.Pointer(&mem[0]))}
	return *(*func(nr, a, b uintptr) uintptr)(unsafe.Pointer(&code))
}

// probe32 makes i386 calls by their i386 numbers.
func probe32(int80 func(nr, a, b uintptr) uintptr) {
	for _, c := range []sysCase{
		{"getpid", 20, args{}, 0},
		{"mount", 21, args{}, unix.EPERM},
		{"umount", 22, args{}, unix.EPERM},
		{"keyctl", 288, args{}, unix.EPERM},
		{"add_key", 286, args{}, unix.EPERM},
		{"unshare", 310, args{unix.CLONE_NEWUSER}, unix.EPERM},
		{"socket alg", 359, args{unix.AF_ALG, unix.SOCK_SEQPACKET}, unix.EPERM},
		{"clone3", 435, args{}, unix.ENOSYS},
		{"socketcall, bad pointer", 102, args{1, 0}, unix.EFAULT},
		{"beyond", 471, args{}, unix.ENOSYS},
	} {
		ret := int32(int80(c.nr, c.args[0], c.args[1]))
		got := unix.Errno(0)
		if ret < 0 && ret > -4096 {
			got = unix.Errno(-ret)
		}
		if got != c.want {
			fmt.Printf("%s: %v, want %v\n", c.name, got, c.want)
		}
	}
	fmt.Println("done")
}

// TestKernelInt80 makes 32-bit calls from a 64-bit process, the classic way
// round a filter that knows one ABI.
func TestKernelInt80(t *testing.T) {
	if out, err := child(t, "int80 plain"); err != nil && strings.Contains(out, "SIGSEGV") || err == nil && out != "pid true" {
		// The interrupt is not a system call here, with or without a filter; or, in
		// User Mode Linux, it is one by its 64-bit number.
		t.Log("this kernel has no 32-bit system calls: there is nothing to get round")
		return
	}
	if out, err := child(t, "int80"); err != nil || out != "done" {
		t.Errorf("%v\n%s", err, out)
	}
}
