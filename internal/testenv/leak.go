package testenv

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// NoLeaks fails the test if, at its end, anything still refers to dir, the
// directory that everything of this test lives in: a process that has it in its
// environment, arguments or mounts, or a mount in this mount namespace. That
// tells a test's own leftovers from those of tests at its side. What is on its
// way out gets five seconds.
//
// Call it before the helpers whose clean-up must have run first.
func NoLeaks(t testing.TB, dir string) {
	t.Helper()
	t.Cleanup(func() {
		t.Helper()
		for _, leak := range Leaks(dir, 5*time.Second) {
			t.Errorf("left behind: %s", leak)
		}
	})
}

// Leaks waits until nothing refers to dir, for at most patience, and returns
// what still does.
func Leaks(dir string, patience time.Duration) []string {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		found := append(processesOf(dir), mountsOf("/proc/self/mountinfo", dir)...)
		if len(found) == 0 || time.Now().After(end) {
			return found
		}
	}
}

// processesOf lists the processes, other than this one and its parents, that
// name dir in their environment, arguments or mounts.
func processesOf(dir string) []string {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return []string{err.Error()}
	}
	self := ancestors()
	var found []string
	for _, p := range procs {
		if p.Name()[0] < '0' || p.Name()[0] > '9' || self[p.Name()] {
			continue
		}
		base := filepath.Join("/proc", p.Name())
		// Files of a process that has ended or is another user's cannot be read;
		// such a process is not one of the test's.
		cmdline, _ := os.ReadFile(base + "/cmdline")
		environ, _ := os.ReadFile(base + "/environ")
		switch {
		case bytes.Contains(cmdline, []byte(dir)), bytes.Contains(environ, []byte(dir)):
		case len(mountsOf(base+"/mountinfo", dir)) > 0 && !sameMounts(base):
		default:
			continue
		}
		if state(base) == "Z" {
			continue // ended; its parent has yet to ask
		}
		found = append(found, fmt.Sprintf("process %s: %s", p.Name(), strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))))
	}
	return found
}

// Processes returns the pids of the processes that go by a name and have dir in
// their arguments or environment.
func Processes(name, dir string) ([]int, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline")) // it may end meanwhile
		environ, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "environ"))
		if bytes.HasPrefix(cmdline, []byte(name)) && bytes.Contains(append(cmdline, environ...), []byte(dir)) {
			all = append(all, pid)
		}
	}
	return all, nil
}

// sameMounts reports whether the process shares this mount namespace, so that
// its mounts say nothing about it.
func sameMounts(base string) bool {
	a, errA := os.Readlink(base + "/ns/mnt")
	b, errB := os.Readlink("/proc/self/ns/mnt")
	return errA == nil && errB == nil && a == b
}

// ancestors returns the pids of this process and those above it.
func ancestors() map[string]bool {
	up := map[string]bool{}
	for pid := fmt.Sprint(os.Getpid()); pid != "" && pid != "0" && !up[pid]; pid = statField("/proc/"+pid, 1) {
		up[pid] = true
	}
	return up
}

func state(base string) string { return statField(base, 0) }

// statField returns a field of /proc/PID/stat, counted from the state, which
// follows the name in parentheses; proc_pid_stat(5).
func statField(base string, n int) string {
	data, err := os.ReadFile(base + "/stat")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if n >= len(f) {
		return ""
	}
	return f[n]
}

// mountsOf lists the mounts in a mountinfo file that name dir, as place, source
// or option.
func mountsOf(file, dir string) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // the process has ended
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, dir) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	return found
}
