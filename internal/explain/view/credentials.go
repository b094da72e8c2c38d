package view

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// set is a hexadecimal mask of capabilities.
func set(mask string) caps.Set {
	n, _ := strconv.ParseUint(mask, 16, 64) // the kernel writes a mask
	return caps.Set(n)
}

// known are all capabilities of this kernel.
func known() caps.Set {
	last := caps.Last
	if text, ok := readLine("/proc/sys/kernel/cap_last_cap"); ok {
		if n, err := strconv.Atoi(text); err == nil {
			last = n
		}
	}
	return caps.Set(1)<<(last+1) - 1
}

func (l *looker) credentials() {
	st := l.status
	c := &Credentials{Bounding: st["CapBnd"], NoNewPrivs: st["NoNewPrivs"] == "1"}
	bounding := set(st["CapBnd"])
	c.Effective, c.Kept, c.Dropped = set(st["CapEff"]).Names(), bounding.Names(), (known() &^ bounding).Names()
	for g := range strings.FieldsSeq(st["Groups"]) {
		if n, err := strconv.ParseInt(g, 10, 64); err == nil {
			c.Groups = append(c.Groups, both(l.v.Users.GIDs, n).Inside)
		}
	}
	c.LSM = "none on this machine"
	if text, err := os.ReadFile(l.dir + "/attr/current"); err == nil && len(text) > 0 {
		c.LSM = strings.TrimRight(string(text), "\x00\n")
	}
	if text, ok := readLine(l.dir + "/oom_score_adj"); ok {
		c.OOMScoreAdj, _ = strconv.Atoi(text)
	}
	for n, name := range rlimitNames {
		var theirs, ours unix.Rlimit
		if unix.Prlimit(l.pid, n, nil, &theirs) != nil || unix.Getrlimit(n, &ours) != nil || theirs == ours {
			continue
		}
		c.Rlimits = append(c.Rlimits, Rlimit{name, rlimitText(theirs.Cur), rlimitText(theirs.Max), rlimitText(ours.Cur) + " " + rlimitText(ours.Max)})
	}
	l.seccomp(c)
	l.v.Credentials = c
	cfg := &l.s.Record.Config
	if cfg.NoNewPrivileges != nil {
		l.v.differ("no_new_privs", strconv.FormatBool(*cfg.NoNewPrivileges), strconv.FormatBool(c.NoNewPrivs))
	}
	for _, name := range cfg.CapDrop {
		if n := "CAP_" + strings.ToUpper(strings.TrimPrefix(strings.ToUpper(name), "CAP_")); n != "CAP_ALL" && slices.Contains(c.Kept, n) && !slices.Contains(cfg.CapAdd, name) {
			l.v.differ("capability "+n, "dropped", "kept")
		}
	}
	for _, name := range cfg.CapAdd {
		if n := "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_"); n != "CAP_ALL" && slices.Contains(c.Dropped, n) {
			l.v.differ("capability "+n, "added", "not held")
		}
	}
}

var rlimitNames = [...]string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
}

func rlimitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// seccomp says what the filter refuses. The kernel shows a filter only to root of
// the machine who stops the process; so isle compiles the container's profile anew
// and asks it, and says whether the process has just that one.
func (l *looker) seccomp(c *Credentials) {
	s := &c.Seccomp
	s.Mode = last(l.status["Seccomp"])
	s.Filters = last(l.status["Seccomp_filters"]) // Linux 5.9
	asked := l.s.Record.Config.Seccomp != "unconfined" && (!l.s.Record.Config.Privileged || l.s.Record.Config.Seccomp != "")
	l.v.differ("seccomp", word(asked, "filter", "none"), word(s.Mode == 2, "filter", "none"))
	if s.Mode != 2 || !asked {
		return
	}
	s.Known = s.Filters <= 1
	f := l.filter(c.Kept)
	if f == nil {
		return
	}
	groups := map[string][]string{}
	seccomp.Calls(func(name string, nr uint32) {
		if f.Run(nr, [6]uint64{})&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ALLOW {
			s.Allowed++
			return
		}
		g := SubjectOf(name)
		groups[g] = append(groups[g], name)
	})
	// Some are refused for certain arguments only.
	for _, x := range [...]struct {
		call string
		nr   uint32
		args [6]uint64
		what string
	}{
		{"clone", unix.SYS_CLONE, [6]uint64{unix.CLONE_NEWUSER}, "clone with CLONE_NEWUSER and the like"},
		{"socket", unix.SYS_SOCKET, [6]uint64{unix.AF_VSOCK}, "socket of AF_VSOCK"},
		{"socket", unix.SYS_SOCKET, [6]uint64{unix.AF_ALG}, "socket of AF_ALG"},
		{"personality", unix.SYS_PERSONALITY, [6]uint64{0x40000}, "personality but for the usual ones"},
		{"ioctl", unix.SYS_IOCTL, [6]uint64{0, unix.TIOCSTI}, "ioctl TIOCSTI"},
	} {
		if f.Run(x.nr, x.args)&unix.SECCOMP_RET_ACTION_FULL != unix.SECCOMP_RET_ALLOW && f.Run(x.nr, [6]uint64{})&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ALLOW {
			groups[byArguments] = append(groups[byArguments], x.what)
		}
	}
	for _, g := range subjects() {
		if calls := groups[g]; len(calls) > 0 {
			s.Refused = append(s.Refused, Group{g, calls})
		}
	}
}

// filter is the container's filter, compiled anew for the capabilities it has.
func (l *looker) filter(capabilities []string) *seccomp.Filter {
	return FilterOf(l.s.Record.Config.Seccomp, capabilities)
}

// FilterOf compiles a container's profile ("" for the default one) for a bounding
// set; nil where it has none, or none that can be read.
func FilterOf(profile string, capabilities []string) *seccomp.Filter {
	if profile == "unconfined" {
		return nil
	}
	p := seccomp.Default(capabilities)
	if profile != "" {
		var err error
		if p, err = seccomp.Parse([]byte(profile), capabilities); err != nil {
			return nil
		}
	}
	f, err := seccomp.Compile(p)
	if err != nil {
		return nil
	}
	return f
}
