package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/program"
)

// Top lists a container's processes: titles, and a row for each. Without
// options the columns are those of ps -ef, read from /proc; else the host's ps
// is asked, and its lines about other processes are left out.
func (e *Engine) Top(ctx context.Context, ref string, options []string) (titles []string, rows [][]string, err error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	if !live(c.State.Status) {
		return nil, nil, errs.New(errs.Conflict, "container %s is not running", c.ID)
	}
	pids, err := e.pids(c)
	if err != nil {
		return nil, nil, err
	}
	if len(options) > 0 {
		return hostPS(options, pids)
	}
	names := userNames("/etc/passwd")
	boot := bootTime()
	for _, pid := range pids {
		if row := psRow(pid, names, boot); row != nil {
			rows = append(rows, row)
		}
	}
	return []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}, rows, nil
}

// pids are the container's processes in the host's numbers: those of its
// cgroups, or where it has none those of its pid namespace.
func (e *Engine) pids(c *Container) ([]int, error) {
	if g := cgroup.Open(cgroup.Paths(c.State.Cgroup)); !g.Empty() {
		pids, err := g.Procs()
		slices.Sort(pids)
		return pids, errors.Join(err, g.Close())
	}
	own, err := os.Readlink("/proc/" + strconv.Itoa(c.State.Pid) + "/ns/pid")
	if err != nil {
		return nil, err
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, d := range all {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink("/proc/" + d.Name() + "/ns/pid"); err == nil && ns == own {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// hertz is USER_HZ, in which the kernel tells times to programs; it is the same
// on all architectures that Go has.
const hertz = 100

// psRow is one line of ps -ef; nil when the process has ended.
func psRow(pid int, names map[string]string, boot time.Time) []string {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil
	}
	// The name is in parentheses and may have any character (proc_pid_stat(5)).
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return nil
	}
	f := strings.Fields(string(b[end+1:])) // from field 3 on
	if len(f) < 20 {
		return nil
	}
	number := func(field int) int64 {
		n, err := strconv.ParseInt(f[field-3], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	uid := ""
	if st, err := os.ReadFile(dir + "/status"); err == nil {
		for line := range strings.Lines(string(st)) {
			if v, ok := strings.CutPrefix(line, "Uid:"); ok {
				if w := strings.Fields(v); len(w) > 1 {
					uid = w[1] // effective
				}
			}
		}
	}
	if n, ok := names[uid]; ok {
		uid = n
	}
	used := (number(14) + number(15)) / hertz
	start := boot.Add(time.Duration(number(22)) * time.Second / hertz)
	busy := int64(0)
	if age := int64(time.Since(start) / time.Second); age > 0 {
		busy = used * 100 / age
	}
	stime := start.Local().Format("15:04")
	if time.Since(start) > 24*time.Hour {
		stime = start.Local().Format("Jan02")
	}
	cmd := "[" + string(b[open+1:end]) + "]"
	if line, err := os.ReadFile(dir + "/cmdline"); err == nil && len(line) > 0 {
		cmd = strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")
	}
	clock := time.Duration(used) * time.Second
	hms := pad2(int(clock.Hours())) + ":" + pad2(int(clock.Minutes())%60) + ":" + pad2(int(clock.Seconds())%60)
	return []string{uid, strconv.Itoa(pid), f[1], strconv.FormatInt(busy, 10), stime, terminal(number(7)), hms, cmd}
}

func pad2(n int) string {
	s := strconv.Itoa(n)
	if len(s) < 2 {
		s = "0" + s
	}
	return s
}

// terminal names a terminal by its number (devices.txt: 136 to 143 are pts).
func terminal(dev int64) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return "pts/" + strconv.FormatInt((major-136)<<20|minor, 10)
	case major == 4:
		return "tty" + strconv.FormatInt(minor, 10)
	}
	return "?"
}

func bootTime() time.Time {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Now()
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "btime "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
				return time.Unix(n, 0)
			}
		}
	}
	return time.Now()
}

// userNames are the host's users by id.
func userNames(file string) map[string]string {
	names := map[string]string{}
	b, err := os.ReadFile(file)
	if err != nil {
		return names
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && names[f[2]] == "" {
			names[f[2]] = f[0]
		}
	}
	return names
}

// hostPS runs the host's ps and keeps the lines of pids.
func hostPS(options []string, pids []int) (titles []string, rows [][]string, err error) {
	path := ""
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if st, err := os.Stat(dir + "/ps"); err == nil && st.Mode().IsRegular() && filepath.IsAbs(dir) {
			path = dir + "/ps"
			break
		}
	}
	if path == "" {
		return nil, nil, errs.Hint(errs.New(errs.NotFound, "ps: not found in PATH"), "top without options needs no ps")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	cmd := program.Command{Path: path, Args: append([]string{"ps"}, options...), Env: os.Environ(), Files: []*os.File{nil, w, os.Stderr}}
	child, err := cmd.Start()
	_ = w.Close() // the child has it
	if err != nil {
		return nil, nil, err
	}
	out, rerr := io.ReadAll(r)
	code, err := waitExit(child.Pid)
	if err != nil || rerr != nil {
		return nil, nil, err
	}
	if code != 0 {
		return nil, nil, errs.New(errs.Invalid, "ps %s: exit code %d", strings.Join(options, " "), code)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	titles = strings.Fields(lines[0])
	at := slices.Index(titles, "PID")
	if at < 0 {
		return nil, nil, errs.New(errs.Invalid, "Couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= at {
			continue
		}
		if pid, err := strconv.Atoi(f[at]); err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if last := len(titles) - 1; len(f) > len(titles) { // a command has blanks
			f = append(f[:last:last], strings.Join(f[last:], " "))
		}
		rows = append(rows, f)
	}
	return titles, rows, nil
}
