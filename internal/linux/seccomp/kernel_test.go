package seccomp

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The tests of this file install a filter in a copy of the test binary and make
// system calls there. The copy prints one result a line.

const childVar = "_ISLE_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVar); name != "" {
		// The filter is for one thread, and all calls are made from it.
		runtime.LockOSThread()
		if run, ok := children()[name]; ok {
			run()
		} else {
			children32()[name]()
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// children are the bodies that run in copies, by name.
func children() map[string]func() {
	return map[string]func(){
		"default": func() { install(Default(defaultCaps)); probe(nativeCases()) },
		"nocaps":  func() { install(Default(nil)); probe([]sysCase{{"chroot", unix.SYS_CHROOT, args{dot()}, unix.EPERM}}) },
		"rules":   func() { install(rulesProfile()); probe(rulesCases()) },
		"kill": func() {
			install(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getppid"}, Action: specs.ActKillProcess}}})
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) // does not return
			fmt.Println("alive")
		},
		"notify": func() {
			f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getppid"}, Action: specs.ActNotify}}})
			if err != nil || !f.Notify {
				panic(fmt.Sprint(err, f.Notify))
			}
			fmt.Println("listener", load2kernel(f) > 2)
		},
	}
}

func child(t *testing.T, name string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+name)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func load2kernel(f *Filter) int {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	prog := unix.SockFprog{Len: uint16(len(f.Prog)), Filter: &f.Prog[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		panic(errno)
	}
	return int(fd)
}

func install(p *specs.LinuxSeccomp) {
	f, err := Compile(p)
	if err != nil {
		panic(err)
	}
	load2kernel(f)
}

type args [3]uintptr

// sysCase is a system call and the errno that must come back.
type sysCase struct {
	name string
	nr   uintptr
	args args
	want unix.Errno
}

func probe(cases []sysCase) {
	for _, c := range cases {
		_, _, errno := unix.RawSyscall(c.nr, c.args[0], c.args[1], c.args[2])
		if errno != c.want {
			fmt.Printf("%s: %v, want %v\n", c.name, errno, c.want)
		}
	}
	fmt.Println("done")
}

func dot() uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(".\x00"))) }

func nativeCases() []sysCase {
	cases := []sysCase{
		{"socket unix", unix.SYS_SOCKET, args{unix.AF_UNIX, unix.SOCK_STREAM}, 0},
		{"socket alg", unix.SYS_SOCKET, args{unix.AF_ALG, unix.SOCK_SEQPACKET}, unix.EPERM},
		{"socket vsock", unix.SYS_SOCKET, args{unix.AF_VSOCK, unix.SOCK_STREAM}, unix.EPERM},
		{"socket alg with a high bit", unix.SYS_SOCKET, args{1<<32 | unix.AF_ALG, unix.SOCK_SEQPACKET}, unix.EPERM},
		{"unshare", unix.SYS_UNSHARE, args{unix.CLONE_NEWUSER}, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, args{}, unix.ENOSYS},
		{"clone of a namespace", unix.SYS_CLONE, args{unix.CLONE_NEWUSER}, unix.EPERM},
		{"mount", unix.SYS_MOUNT, args{}, unix.EPERM},
		{"bpf", unix.SYS_BPF, args{}, unix.EPERM},
		{"keyctl", unix.SYS_KEYCTL, args{}, unix.EPERM},
		{"add_key", unix.SYS_ADD_KEY, args{}, unix.EPERM},
		{"userfaultfd", unix.SYS_USERFAULTFD, args{}, unix.EPERM},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, args{}, unix.EPERM},
		{"personality, asked", unix.SYS_PERSONALITY, args{0xffffffff}, 0},
		{"personality, no randomization", unix.SYS_PERSONALITY, args{0x40000}, unix.EPERM},
		{"newer than the profile", unix.SYS_RSEQ_SLICE_YIELD, args{}, unix.ENOSYS},
		{"far beyond", 100000, args{}, unix.ENOSYS},
		{"getppid", unix.SYS_GETPPID, args{}, 0},
	}
	if runtime.GOARCH == "amd64" {
		cases = append(cases,
			sysCase{"x32 add_key", x32Bit | 248, args{}, unix.EPERM},
			sysCase{"x32 beyond", x32Bit | 900, args{}, unix.ENOSYS},
		)
	}
	if os.Getuid() == 0 {
		cases = append(cases, sysCase{"chroot", unix.SYS_CHROOT, args{dot()}, 0})
	}
	return cases
}

func TestKernelDefault(t *testing.T) {
	for _, name := range []string{"default", "nocaps"} {
		if out, err := child(t, name); err != nil || out != "done" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// rulesProfile tests every operator on the arguments of calls that fail in
// other ways when they pass, all from one allowing profile.
func rulesProfile() *specs.LinuxSeccomp {
	deny := func(name string, errno uint, arg ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: new(errno), Args: arg}
	}
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{
			deny("lseek", 101, specs.LinuxSeccompArg{Index: 1, Value: 1 << 40, Op: specs.OpEqualTo}),
			deny("lseek", 102, specs.LinuxSeccompArg{Index: 1, Value: 1 << 50, Op: specs.OpGreaterThan}),
			deny("lseek", 103, specs.LinuxSeccompArg{Index: 1, Value: 0xff00000000, ValueTwo: 0x4200000000, Op: specs.OpMaskedEqual},
				specs.LinuxSeccompArg{Index: 2, Value: 7, Op: specs.OpNotEqual}),
			deny("ioctl", 104, specs.LinuxSeccompArg{Index: 1, Value: unix.TIOCSTI, Op: specs.OpEqualTo}),
			deny("getpgid", 105),
			{Names: []string{"getsid"}, Action: specs.ActTrace},
			{Names: []string{"getpriority"}, Action: specs.ActLog},
		},
	}
}

func rulesCases() []sysCase {
	const bad = ^uintptr(0) // as descriptor: EBADF if the filter lets it pass
	return []sysCase{
		{"eq", unix.SYS_LSEEK, args{bad, 1 << 40}, 101},
		{"eq, low half only", unix.SYS_LSEEK, args{bad, 0}, unix.EBADF},
		{"gt", unix.SYS_LSEEK, args{bad, 1<<50 + 1}, 102},
		{"gt by the high half", unix.SYS_LSEEK, args{bad, 1 << 51}, 102},
		{"not gt", unix.SYS_LSEEK, args{bad, 1 << 50}, unix.EBADF},
		{"masked", unix.SYS_LSEEK, args{bad, 0x4212345678, 0}, 103},
		{"masked and ne", unix.SYS_LSEEK, args{bad, 0x4212345678, 7}, unix.EBADF},
		{"tiocsti", unix.SYS_IOCTL, args{bad, unix.TIOCSTI}, 104},
		{"tiocsti with a high bit", unix.SYS_IOCTL, args{bad, 1<<32 | unix.TIOCSTI}, 104},
		{"other ioctl", unix.SYS_IOCTL, args{bad, unix.TCGETS}, unix.EBADF},
		{"all", unix.SYS_GETPGID, args{}, 105},
		{"trace without a tracer", unix.SYS_GETSID, args{}, unix.ENOSYS},
		{"log", unix.SYS_GETPRIORITY, args{}, 0},
	}
}

func TestKernelRules(t *testing.T) {
	if out, err := child(t, "rules"); err != nil || out != "done" {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := child(t, "kill")
	if err == nil || !strings.Contains(err.Error(), "bad system call") || out != "" {
		t.Errorf("kill: %v %q", err, out)
	}
	if out, err := child(t, "notify"); err != nil || out != "listener true" {
		t.Errorf("notify: %v %q", err, out)
	}
}

// BenchmarkInstall is the cost of the filter at the start of a container: the
// kernel translates it and walks it for every number.
func BenchmarkInstall(b *testing.B) {
	f, err := Compile(Default(defaultCaps))
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan bool)
	for b.Loop() {
		// Each goroutine ends with its thread, so that filters do not pile up.
		go func() {
			runtime.LockOSThread()
			load2kernel(f)
			done <- true
		}()
		<-done
	}
}
