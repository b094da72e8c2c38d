// Command probe is what runs in the containers of the attack suite: it tries what
// a hostile process would try and prints what it got. Words on a line, one line a
// try; it never asserts.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "probe: what?")
		os.Exit(2)
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "fds":
		descriptors()
	case "status":
		status()
	case "syscalls":
		calls()
		otherABIs()
	case "undo":
		undo()
	case "cgroup":
		cgroups()
	case "grab":
		grab(args)
	case "swap":
		swap(args[0], args[1])
	case "connect":
		for _, addr := range args {
			connect(addr)
		}
	case "sockets":
		sockets()
	case "device":
		device()
	default:
		fmt.Fprintf(os.Stderr, "probe: %q?\n", os.Args[1])
		os.Exit(2)
	}
}

// report prints the outcome of one try.
func report(what string, err error) {
	var e unix.Errno
	switch {
	case err == nil, errors.As(err, &e) && e == 0:
		fmt.Println(what+":", "ok")
	case errors.As(err, &e):
		fmt.Println(what+":", unix.ErrnoName(e))
	default:
		fmt.Println(what+":", err)
	}
}

// descriptors lists what is open beside the standard files, here and in PID 1.
func descriptors() {
	for _, pid := range []string{"self", "1"} {
		dir, err := os.Open("/proc/" + pid + "/fd")
		if err != nil {
			continue
		}
		names, _ := dir.Readdirnames(-1)
		own := strconv.Itoa(int(dir.Fd()))
		for _, n := range names {
			to, _ := os.Readlink("/proc/" + pid + "/fd/" + n)
			// The Go runtime's own: epoll and its wake-up.
			if (pid == "self" && n == own) || strings.HasPrefix(to, "anon_inode:") {
				continue
			}
			if n != "0" && n != "1" && n != "2" && to != "" && !strings.HasSuffix(to, "/fd") {
				fmt.Println(pid, n, to)
			}
		}
		_ = dir.Close()
	}
}

// status prints what of /proc/self/status says how this process is confined.
func status() {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		report("status", err)
		return
	}
	for line := range strings.Lines(string(data)) {
		key, _, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters":
			fmt.Println(strings.Join(strings.Fields(line), " "))
		}
	}
	for _, f := range []string{"cgroup", "oom_score_adj", "limits"} {
		data, _ := os.ReadFile("/proc/self/" + f)
		for line := range strings.Lines(string(data)) {
			fmt.Println(f, strings.Join(strings.Fields(line), " "))
		}
	}
}

// calls makes system calls that Docker's default profile refuses, with arguments
// that would do no harm.
func calls() {
	raw := func(name string, nr uintptr, a ...uintptr) {
		var x [6]uintptr
		copy(x[:], a)
		_, _, e := unix.RawSyscall6(nr, x[0], x[1], x[2], x[3], x[4], x[5])
		report(name, e)
	}
	var null uintptr
	raw("keyctl", unix.SYS_KEYCTL, 0, ^null-2) // KEYCTL_GET_KEYRING_ID of the session
	raw("add_key", unix.SYS_ADD_KEY)
	raw("bpf", unix.SYS_BPF, 0, 0, 0)
	raw("perf_event_open", unix.SYS_PERF_EVENT_OPEN)
	raw("userfaultfd", unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1)
	raw("io_uring_setup", unix.SYS_IO_URING_SETUP, 1)
	raw("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT)
	raw("kexec_load", unix.SYS_KEXEC_LOAD, 0, 1000)
	raw("init_module", unix.SYS_INIT_MODULE)
	raw("mount", unix.SYS_MOUNT)
	raw("fsopen", unix.SYS_FSOPEN)
	raw("setns", unix.SYS_SETNS, ^null)
	raw("swapon", unix.SYS_SWAPON)
	raw("move_pages", unix.SYS_MOVE_PAGES, uintptr(os.Getpid()))
	raw("AF_ALG", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	raw("AF_VSOCK", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	// The same family with rubbish above the 32 bits that the kernel reads.
	raw("AF_VSOCK high bits", unix.SYS_SOCKET, 1<<32|unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if f, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err == nil {
		raw("clone3", unix.SYS_CLONE3, 0, 0)
		_ = unix.Close(f)
	}
	raw("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWUSER) // last: it changes what comes after
}

// undo tries to take back what hides or protects files of /proc and /sys.
func undo() {
	for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware", "/proc/sys", "/proc/sysrq-trigger", "/sys", "/sys/fs/cgroup", "/proc"} {
		if unix.Access(p, unix.F_OK) != nil {
			continue
		}
		report("umount "+p, unix.Unmount(p, unix.MNT_DETACH))
		report("remount "+p, unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
		report("cover "+p, unix.Mount("tmpfs", p, "tmpfs", 0, ""))
	}
	for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		var b [1]byte
		if n, _ := f.Read(b[:]); n == 1 {
			report("read "+p, nil)
		}
		_ = f.Close()
	}
	for _, p := range []string{"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/sys/kernel/uevent_helper", "/proc/sys/vm/swappiness"} {
		fd, err := unix.Open(p, unix.O_WRONLY, 0) // opened only
		if err == nil {
			_ = unix.Close(fd)
		}
		if err != unix.ENOENT {
			report("open for writing "+p, err)
		}
	}
}

// cgroups tries the ways out by the control groups (CVE-2022-0492).
func cgroups() {
	dir := "/tmp/cg"
	_ = os.Mkdir(dir, 0o755)
	for _, typ := range []string{"cgroup", "cgroup2"} {
		opts := ""
		if typ == "cgroup" {
			opts = "rdma"
		}
		err := unix.Mount("cgroup", dir, typ, 0, opts)
		report("mount "+typ, err)
		if err == nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return filepath.SkipDir
		}
		switch d.Name() {
		case "release_agent", "cgroup.procs", "memory.max", "memory.limit_in_bytes", "pids.max", "devices.allow", "cgroup.subtree_control":
			fd, err := unix.Open(p, unix.O_WRONLY, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			report("open for writing "+p, err)
		}
		return nil
	})
	if data, err := os.ReadFile("/proc/self/cgroup"); err == nil && bytes.Contains(data, []byte("..")) {
		fmt.Println("outside:", string(data))
	}
}

// grab waits for processes that come into this pid namespace with an executable
// that is not of this container's, and holds it open, to write it once it is no
// longer busy (CVE-2019-5736). It prints the inode of each, and whether it came
// from a mount that cannot be written.
func grab(args []string) {
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		seconds = 10
	}
	var root unix.Stat_t
	if unix.Stat("/", &root) != nil {
		return
	}
	self := os.Getpid()
	held := map[uint64]int{}
	fmt.Println("ready")
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		dir, err := os.Open("/proc")
		if err != nil {
			return
		}
		names, _ := dir.Readdirnames(-1)
		_ = dir.Close()
		for _, n := range names {
			pid, err := strconv.Atoi(n)
			if err != nil || pid == self {
				continue
			}
			fd, err := unix.Open("/proc/"+n+"/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			var st unix.Stat_t
			if unix.Fstat(fd, &st) != nil || st.Dev == root.Dev || held[st.Ino] != 0 {
				_ = unix.Close(fd)
				continue
			}
			held[st.Ino] = fd
			// It is busy as long as it runs anywhere; whoever holds it can wait.
			var fs unix.Statfs_t
			how := "rw"
			if unix.Fstatfs(fd, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0 {
				how = "ro"
			}
			fmt.Println("holds", st.Ino, how)
		}
	}
}

// swap exchanges two names as fast as it can until it is killed.
func swap(a, b string) {
	fmt.Println("ready")
	for {
		_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}
}

func connect(addr string) {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err == nil {
		_ = c.Close()
		fmt.Println("reached", addr)
	}
}

// sockets lists the abstract Unix sockets in sight (CVE-2020-15257).
func sockets() {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) == 8 && w[7][0] == '@' {
			fmt.Println(w[7])
		}
	}
}

// device makes a node of a device that is not the container's, and opens it.
func device() {
	for _, d := range []struct {
		name         string
		mode         uint32
		major, minor uint32
	}{{"kmsg", unix.S_IFCHR, 1, 11}, {"mem", unix.S_IFCHR, 1, 1}, {"loop", unix.S_IFBLK, 7, 0}} {
		p := "/tmp/" + d.name
		if err := unix.Mknod(p, d.mode|0o600, int(unix.Mkdev(d.major, d.minor))); err != nil {
			report("mknod "+d.name, err)
			continue
		}
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		report("open "+d.name, err)
	}
}
