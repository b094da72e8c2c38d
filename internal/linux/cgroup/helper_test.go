package cgroup

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The workloads of these tests are copies of the test binary.

const workVar = "_ISLE_CGROUP_WORK"

func TestMain(m *testing.M) {
	if work := os.Getenv(workVar); work != "" {
		worker(work)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func worker(work string) {
	name, arg, _ := strings.Cut(work, " ")
	n, _ := strconv.Atoi(arg)
	switch name {
	case "sleep":
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "hog": // touches n MiB, bit by bit, then waits
		var keep [][]byte
		for range n {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			keep = append(keep, b)
		}
		fmt.Println("ready")
		time.Sleep(time.Hour)
		runtime.KeepAlive(keep)
	case "spin": // prints how much CPU time n ms of wall time gave
		end := time.Now().Add(time.Duration(n) * time.Millisecond)
		for time.Now().Before(end) {
		}
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
			panic(err)
		}
		fmt.Println((ru.Utime.Nano() + ru.Stime.Nano()) / 1e6)
	case "forks": // prints how many of n processes could be started
		started := 0
		for range n {
			if err := exec.Command("sleep", "100").Start(); err != nil {
				break
			}
			started++
		}
		fmt.Println(started)
		time.Sleep(time.Hour)
	case "affinity":
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			panic(err)
		}
		var on []string
		for cpu := range 64 {
			if set.IsSet(cpu) {
				on = append(on, strconv.Itoa(cpu))
			}
		}
		fmt.Println(strings.Join(on, ","))
	case "open": // tries to open devices
		for path := range strings.SplitSeq(arg, ",") {
			fd, err := unix.Open(path, unix.O_RDONLY, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			fmt.Println(path, err == nil)
		}
		dir, err := os.MkdirTemp("", "cgroup")
		if err == nil {
			err = unix.Mknod(dir+"/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 99)))
			_ = os.RemoveAll(dir)
		}
		fmt.Println("mknod", err == nil)
	case "exec": // starts a process in the group at the given paths, as isle exec does
		var p Paths
		if err := json.Unmarshal([]byte(arg), &p); err != nil {
			panic(err)
		}
		g := Open(p)
		cmd := exec.Command("cat", "/proc/self/cgroup")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.File().Fd())}
		out, err := cmd.CombinedOutput()
		fmt.Printf("%s%v\n", out, err)
	case "create": // makes a group for a request in JSON, prints it, waits, deletes it
		create(arg)
	}
}

func create(arg string) {
	var r Request
	if err := json.Unmarshal([]byte(arg), &r); err != nil {
		panic(err)
	}
	h, err := Detect()
	if err != nil {
		panic(err)
	}
	g, err := h.Create(r)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	b, _ := json.Marshal(g.Paths())
	fmt.Println(string(b))
	bufio.NewReader(os.Stdin).ReadString('\n') //nolint:errcheck // the end of the input ends it as well
	if err := g.Delete(); err != nil {
		fmt.Println("error:", err)
	}
}

// proc is a workload in a group.
type proc struct {
	*exec.Cmd
	out *bufio.Scanner
}

// start runs a workload in g the way the runtime does: born into the v2 group,
// joining the v1 hierarchies by itself.
func start(t *testing.T, g *Group, work string) *proc {
	t.Helper()
	files, err := g.JoinFiles()
	if err != nil {
		t.Fatal(err)
	}
	script := ""
	for _, f := range files { // by name: a shell knows descriptors of one digit only
		script += fmt.Sprintf("echo 0 >%s; ", f.Name())
	}
	cmd := exec.Command("/bin/sh", "-c", script+`exec "$0"`, "/proc/self/exe")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[3] = exe
	cmd.Env = append(os.Environ(), workVar+"="+work, "GOGC=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if f := g.File(); f != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &proc{cmd, bufio.NewScanner(pipe)}
}

// line returns the next line that the workload prints.
func (p *proc) line(t *testing.T) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the workload ended: %v", p.Wait())
	}
	return p.out.Text()
}

// make makes a group for the test, which removes it at its end.
func makeGroup(t *testing.T, r *specs.LinuxResources) *Group {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create(Request{Name: testName(t), Resources: r, Rootless: os.Getuid() != 0})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
		for _, d := range g.all() {
			if d.exists("") {
				t.Errorf("%s is left", d)
			}
		}
	})
	return g
}

var names int

func testName(t *testing.T) string {
	names++
	return fmt.Sprintf("test-%d-%d", os.Getpid(), names)
}

func memory(limit int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
}
