// Command ps lists processes as /proc shows them; ps(1).
//
// Usage: ps [-e] [-A] [-f] [-p PID[,PID]...] [-o COLUMN[,COLUMN]...] [aux]
//
// Columns: pid ppid uid user tty stat time comm args cmd vsz rss.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// clockTicks is USER_HZ, which is 100 on every architecture that isle runs on.
const clockTicks = 100

type process struct {
	pid, ppid, tty int
	uid            string
	comm, args     string
	state          string
	ticks          int64
	start          int64 // ticks since boot
	vsz, rss       int64 // KiB
}

func main() {
	if err := ps(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ps:", err)
		os.Exit(1)
	}
}

func ps(w io.Writer, args []string) error {
	columns := []string{"pid", "user", "time", "cmd"}
	var only []int
	for i := 0; i < len(args); i++ {
		a := args[i]
		value := func() (string, error) {
			if i++; i == len(args) {
				return "", fmt.Errorf("option %s: needs a value", a)
			}
			return args[i], nil
		}
		switch a {
		case "-e", "-A", "-a", "-x", "ax", "-ax":
		case "-f", "-ef", "-fe", "-Af", "-fA":
			columns = []string{"uid", "pid", "ppid", "stime", "tty", "time", "cmd"}
		case "aux", "-aux":
			columns = []string{"user", "pid", "vsz", "rss", "tty", "stat", "stime", "time", "cmd"}
		case "-o":
			v, err := value()
			if err != nil {
				return err
			}
			columns = strings.Split(strings.ToLower(v), ",")
		case "-p":
			v, err := value()
			if err != nil {
				return err
			}
			for s := range strings.SplitSeq(v, ",") {
				pid, err := strconv.Atoi(s)
				if err != nil {
					return fmt.Errorf("pid %q: not a number", s)
				}
				only = append(only, pid)
			}
		default:
			return fmt.Errorf("option %s: not known", a)
		}
	}
	boot, err := bootTime()
	if err != nil {
		return err
	}
	all, err := processes()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 1, 8, 1, ' ', 0)
	heads := make([]string, len(columns))
	for i, c := range columns {
		heads[i] = strings.ToUpper(c)
		if _, known := (process{}).column(c, boot); !known {
			return fmt.Errorf("column %q: not known", c)
		}
	}
	fmt.Fprintln(t, strings.Join(heads, "\t"))
	shown := 0
	for _, p := range all {
		if only != nil && !slices.Contains(only, p.pid) {
			continue
		}
		shown++
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i], _ = p.column(c, boot)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if only != nil && shown == 0 {
		return errors.New("no such process")
	}
	return nil
}

func (p process) column(name string, boot time.Time) (string, bool) {
	switch name {
	case "pid":
		return strconv.Itoa(p.pid), true
	case "ppid":
		return strconv.Itoa(p.ppid), true
	case "uid", "user":
		if u, err := user.LookupId(p.uid); err == nil {
			return u.Username, true
		}
		return p.uid, true
	case "tty":
		switch {
		case p.tty == 0:
			return "?", true
		case p.tty>>8 == 136: // Unix98 terminals; proc_pid_stat(5), makedev(3)
			return "pts/" + strconv.Itoa(p.tty&0xff), true
		}
		return strconv.Itoa(p.tty), true
	case "stat", "s":
		return p.state, true
	case "time":
		s := p.ticks / clockTicks
		return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60), true
	case "stime":
		return boot.Add(time.Duration(p.start) * time.Second / clockTicks).Format("15:04"), true
	case "comm":
		return p.comm, true
	case "args", "cmd", "command":
		if p.args == "" {
			return "[" + p.comm + "]", true
		}
		return p.args, true
	case "vsz":
		return strconv.FormatInt(p.vsz, 10), true
	case "rss":
		return strconv.FormatInt(p.rss, 10), true
	}
	return "", false
}

func bootTime() (time.Time, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "btime "); ok {
			s, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Unix(s, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat: no btime")
}

func processes() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []process
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if p, err := read(pid); err == nil { // else it has ended meanwhile
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b process) int { return a.pid - b.pid })
	return all, nil
}

func read(pid int) (process, error) {
	base := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(base + "/stat")
	if err != nil {
		return process{}, err
	}
	open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || shut < open {
		return process{}, fmt.Errorf("%s/stat: %q", base, stat)
	}
	f := strings.Fields(string(stat[shut+1:])) // from the third field, the state
	if len(f) < 22 {
		return process{}, fmt.Errorf("%s/stat: too short", base)
	}
	num := func(field int) int64 {
		v, _ := strconv.ParseInt(f[field-3], 10, 64) // the kernel writes numbers here
		return v
	}
	cmdline, err := os.ReadFile(base + "/cmdline")
	if err != nil {
		return process{}, err
	}
	status, err := os.ReadFile(base + "/status")
	if err != nil {
		return process{}, err
	}
	p := process{
		pid: pid, ppid: int(num(4)), tty: int(num(7)), comm: string(stat[open+1 : shut]), state: f[0],
		ticks: num(14) + num(15), start: num(22), vsz: num(23) / 1024, rss: num(24) * int64(os.Getpagesize()) / 1024,
		args: strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))),
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "Uid:"); ok {
			if ids := strings.Fields(v); len(ids) > 1 {
				p.uid = ids[1] // effective
			}
		}
	}
	return p, nil
}
