package why

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/explain/view"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/linux/trace"
)

// The causes.
const (
	Seccomp    = "seccomp rule"
	Capability = "missing capability"
	UserNS     = "user namespace"
	Mapping    = "id that is not mapped"
	Mount      = "mount"
	Device     = "device rule"
	Limit      = "resource limit"
	LSM        = "security module"
	Permission = "file permission"
	Kernel     = "kernel"
)

// Refusal is a call that was refused, and why.
type Refusal struct {
	Call  string `json:"call"`
	Name  string `json:"name"`
	Errno string `json:"errno"`
	Pid   int    `json:"pid"` // on the host
	Comm  string `json:"command"`
	Times int    `json:"times"`

	Cause  string `json:"cause"`
	Text   string `json:"text"`             // the cause in this case
	Behind string `json:"behind,omitempty"` // what would be in the way next
	// Proof is what was done to be sure; Proven: it bore the claim out.
	Proof  string `json:"proof,omitempty"`
	Proven bool   `json:"proven"`
	Flag   string `json:"flag,omitempty"` // the smallest that allows it
	Cost   string `json:"cost,omitempty"`
	VM     string `json:"vm,omitempty"` // why a virtual machine is the right answer
}

// Subject is the container that the command runs in.
type Subject struct {
	Record   *container.Record
	State    *container.State
	Rootless bool
}

// Report is what a run has shown.
type Report struct {
	Refusals []*Refusal `json:"refusals"`
	Calls    int        `json:"calls"` // that were watched
	ExitCode int        `json:"exitCode"`
	Signal   string     `json:"signal,omitempty"`
}

// Watch traces the process pid, which is to run a command in s, until it ends. See
// trace.Watch for seize and started.
func Watch(s *Subject, pid int, seize bool, started func()) (*Report, error) {
	d := &detective{s: s, report: &Report{}, seen: map[string]*Refusal{}, filters: map[uint64]*seccomp.Filter{}}
	d.pids = d.pidsLimit()
	d.ooms = d.oomKills()
	ws, err := trace.Watch(pid, seize, started, &trace.Watcher{Call: d.call, Dies: d.dies})
	if err != nil {
		return nil, err
	}
	r := d.report
	r.ExitCode = ws.ExitStatus()
	if ws.Signaled() {
		r.ExitCode, r.Signal = 128+int(ws.Signal()), container.SignalName(ws.Signal())
	}
	return r, nil
}

// detective is one run of Watch.
type detective struct {
	s       *Subject
	report  *Report
	seen    map[string]*Refusal
	filters map[uint64]*seccomp.Filter // by bounding set
	pids    int64                      // pids.max of the container's group; 0: none
	ooms    int64
}

// call looks at a call that has returned.
func (d *detective) call(c *trace.Call) {
	d.report.Calls++
	if c.Err == 0 {
		return
	}
	name := seccomp.Name(uint32(c.Nr))
	if name == "" {
		name = "syscall_" + strconv.FormatUint(c.Nr, 10)
	}
	if !refusal(name, c) {
		return
	}
	k := &clue{d: d, c: c, name: name, pid: c.Pid}
	text := k.decode()
	if r := d.seen[text+c.Err.Error()]; r != nil {
		r.Times++
		return
	}
	if !k.look() || k.isleItself() {
		return
	}
	r := &Refusal{Call: text, Name: name, Errno: unix.ErrnoName(c.Err), Pid: c.Pid, Comm: k.status["Name"], Times: 1}
	k.r = r
	k.judge()
	if r.Cause == "" {
		return // it failed for a reason of its own
	}
	if len(d.seen) >= maxRefusals {
		return
	}
	d.seen[text+c.Err.Error()] = r
	d.report.Refusals = append(d.report.Refusals, r)
}

// maxRefusals bounds a report.
const maxRefusals = 500

// dies looks at a process that a signal ends.
func (d *detective) dies(pid int, sig unix.Signal) {
	r := &Refusal{Call: "(ended by " + container.SignalName(sig) + ")", Name: "signal", Errno: container.SignalName(sig), Pid: pid, Times: 1}
	switch sig {
	case unix.SIGKILL:
		n := d.oomKills()
		if n <= d.ooms {
			return
		}
		d.ooms = n
		limit := d.s.Record.Config.Resources.Memory
		r.Cause, r.Text = Limit, "out of memory: the kernel killed it at the container's limit"
		if limit > 0 {
			r.Text += " of " + size(limit)
		}
		r.Proof, r.Proven = "the group's count of kills went up (oom_kill)", true
		r.Flag, r.Cost = "--memory with more", "less memory for others"
	case unix.SIGSYS:
		r.Cause, r.Text = Seccomp, "its filter kills for a system call"
		r.Flag, r.Cost = "--security-opt seccomp=PROFILE", costs("seccomp")
	case unix.SIGXFSZ:
		r.Cause, r.Text = Limit, "a file would have become larger than allowed (RLIMIT_FSIZE)"
		r.Flag, r.Cost = "--ulimit fsize=BYTES", "none but the room"
	case unix.SIGXCPU:
		r.Cause, r.Text = Limit, "its CPU time is used up (RLIMIT_CPU)"
		r.Flag, r.Cost = "--ulimit cpu=SECONDS", "none but the time"
	default:
		return
	}
	d.report.Refusals = append(d.report.Refusals, r)
}

// filter is the container's filter for a bounding set; nil: none.
func (d *detective) filter(bounding uint64, names []string) *seccomp.Filter {
	c := &d.s.Record.Config
	if c.Privileged && c.Seccomp == "" {
		return nil
	}
	f, ok := d.filters[bounding]
	if !ok {
		f = view.FilterOf(c.Seccomp, names)
		d.filters[bounding] = f
	}
	return f
}

// refusal reports whether an errno of a call says that something was not allowed,
// rather than that something is not there.
func refusal(name string, c *trace.Call) bool {
	switch name {
	case "epoll_ctl", "rt_sigreturn", "restart_syscall":
		return false // EPERM: a file that cannot be waited for; the result of another call
	}
	switch c.Err { //nolint:exhaustive // all others are no refusals
	case unix.EPERM, unix.EACCES, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.EFBIG, unix.ENOSPC, unix.EDQUOT:
		return true
	case unix.ENOSYS:
		return name != "clone3" && name != "rseq" // the C library goes on without
	case unix.EAGAIN:
		switch name {
		case "clone", "clone3", "fork", "vfork", "setuid", "setresuid", "setreuid", "mlock", "mlock2", "mlockall":
			return true
		}
	case unix.ENOMEM:
		switch name {
		case "mmap", "brk", "mremap", "mlock", "mlock2", "mlockall", "clone", "clone3", "fork", "vfork":
			return true
		}
	case unix.EINVAL:
		switch name {
		case "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "chown", "lchown", "fchown", "fchownat", "sched_setaffinity":
			return true
		}
	case unix.EAFNOSUPPORT:
		return name == "socket" || name == "socketpair"
	case unix.ENOENT:
		return opens(name) // of a device that was not given: judge decides
	}
	return false
}

func opens(name string) bool {
	return name == "open" || name == "openat" || name == "openat2" || name == "creat"
}
