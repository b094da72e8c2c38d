package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/state"
)

// Nothing of isle runs when the machine has come up, so somebody has to start the
// containers that have a restart policy: a unit of systemd, the system's for root
// and the user's own for others (with lingering, so that it starts without a
// login), or a line of crontab(5) where there is no systemd.

// startupUnit is the name of the unit; startupMark ends the line in the crontab.
const (
	startupUnit = "isle-startup.service"
	startupMark = "# isle startup"
)

// Startup tells how containers come back after a reboot.
type Startup struct {
	Enabled bool
	How     string   // what starts them, and where that is written
	Lacks   []string // what is in the way, although it was set up
	Names   []string // the containers that will be started
}

// systemd reports whether systemd runs this machine.
func systemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// unitPath is where the unit belongs.
func (e *Engine) unitPath() string {
	if !e.env.Rootless {
		return "/etc/systemd/system/" + startupUnit
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(e.env.Home, ".config")
	}
	return filepath.Join(dir, "systemd/user", startupUnit)
}

// unit is the text of the unit. It is not delegated a cgroup: containers go where
// those of every login go, so that each login can enter them.
func (e *Engine) unit(exe string) string {
	target, after := "default.target", ""
	if !e.env.Rootless {
		target, after = "multi-user.target", "Wants=network-online.target\nAfter=network-online.target local-fs.target remote-fs.target\n"
	}
	var environ strings.Builder
	for _, v := range e.startupEnv() {
		fmt.Fprintf(&environ, "Environment=%s\n", strconv.Quote(strings.ReplaceAll(v, "%", "%%")))
	}
	return "# Made by: isle startup enable\n[Unit]\nDescription=Containers of isle that have a restart policy\n" + after +
		"\n[Service]\nType=oneshot\nRemainAfterExit=yes\n" + environ.String() +
		"ExecStart=" + strconv.Quote(strings.ReplaceAll(exe, "%", "%%")) + " startup run\nTimeoutStartSec=0\nTimeoutStopSec=90\n" +
		"\n[Install]\nWantedBy=" + target + "\n"
}

// startupEnv is what must be set so that the same directories are found.
func (e *Engine) startupEnv() (list []string) {
	for _, k := range [...]string{"ISLE_ROOT", "ISLE_RUNROOT", "XDG_DATA_HOME"} {
		if v := os.Getenv(k); filepath.IsAbs(v) {
			list = append(list, k+"="+v)
		}
	}
	return list
}

// EnableStartup sets up that containers come back after a reboot, and checks
// that it is.
func (e *Engine) EnableStartup(ctx context.Context) (Startup, error) {
	exe, err := os.Executable()
	if err != nil {
		return Startup{}, err
	}
	switch {
	case systemd():
		err = e.enableUnit(exe)
	case lookProgram("crontab") != "":
		err = e.editCrontab(func(lines []string) []string { return append(lines, e.cronLine(exe)) })
	default:
		return Startup{}, errs.Hint(errs.New(errs.Unsupported, "startup: there is neither systemd nor cron here"),
			"have whatever starts this machine's services run, as this user: "+exe+" startup run")
	}
	if err != nil {
		return Startup{}, err
	}
	s, err := e.StartupStatus(ctx)
	if err == nil && (!s.Enabled || len(s.Lacks) > 0) {
		err = errs.Hint(errs.New(errs.Unavailable, "startup: was set up, but will not work"), s.Lacks...)
	}
	return s, err
}

func (e *Engine) enableUnit(exe string) error {
	p := e.unitPath()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	if err := state.WriteFile(p, []byte(e.unit(exe)), true); err != nil {
		return err
	}
	if err := os.Chmod(p, 0o644); err != nil { // so that everybody may see what is started
		return err
	}
	if err := e.systemctl("daemon-reload"); err != nil {
		return err
	}
	if err := e.systemctl("enable", startupUnit); err != nil {
		return err
	}
	if e.env.Rootless && !e.lingers() {
		// Allowed to users for themselves, as polkit is set up by default; the
		// check afterwards tells if it was not.
		_, _ = tool("loginctl", nil, "enable-linger")
	}
	return nil
}

// DisableStartup takes it back. Containers that run are left as they are.
func (e *Engine) DisableStartup(context.Context) error {
	var all error
	p := e.unitPath()
	if _, err := os.Stat(p); err == nil {
		if systemd() {
			all = e.systemctl("disable", startupUnit)
		}
		all = errors.Join(all, os.Remove(p))
		if systemd() {
			all = errors.Join(all, e.systemctl("daemon-reload"))
		}
	}
	if lookProgram("crontab") != "" {
		if has, err := e.inCrontab(); err != nil || has {
			all = errors.Join(all, err, e.editCrontab(func(lines []string) []string { return lines }))
		}
	}
	return all
}

// StartupStatus tells how it is.
func (e *Engine) StartupStatus(context.Context) (s Startup, err error) {
	list, err := e.startupContainers()
	if err != nil {
		return s, err
	}
	for _, c := range list {
		s.Names = append(s.Names, c.Config.Name)
	}
	if systemd() {
		p := e.unitPath()
		if _, err := os.Stat(p); errors.Is(err, os.ErrNotExist) {
			s.How = "not set up"
			return s, nil
		}
		s.How = "systemd unit " + p
		out, _ := tool("systemctl", nil, e.scope("is-enabled", startupUnit)...) // it fails unless the word is enabled
		word := strings.TrimSpace(out)
		if s.Enabled = word == "enabled"; !s.Enabled {
			s.Lacks = append(s.Lacks, "systemd says of "+startupUnit+": "+word)
		}
		if e.env.Rootless && !e.lingers() {
			s.Lacks = append(s.Lacks, "as root: loginctl enable-linger "+e.userName())
		}
		return s, nil
	}
	has := false
	if lookProgram("crontab") != "" {
		if has, err = e.inCrontab(); err != nil {
			return s, err
		}
	}
	if !has {
		s.How = "not set up"
		return s, nil
	}
	s.Enabled, s.How = true, "line @reboot of the crontab"
	if !cronRuns() {
		s.Lacks = append(s.Lacks, "no cron daemon runs here; as root: start cron, and have it started at boot")
	}
	return s, nil
}

// lingers reports whether the user's services start without a login.
func (e *Engine) lingers() bool {
	_, err := os.Stat("/var/lib/systemd/linger/" + e.userName())
	return err == nil
}

func (e *Engine) userName() string {
	if u, err := user.LookupId(strconv.Itoa(e.env.UID)); err == nil {
		return u.Username
	}
	return strconv.Itoa(e.env.UID)
}

// scope puts --user before the arguments of systemctl for an ordinary user.
func (e *Engine) scope(args ...string) []string {
	if e.env.Rootless {
		return append([]string{"--user"}, args...)
	}
	return args
}

func (e *Engine) systemctl(args ...string) error {
	out, err := tool("systemctl", nil, e.scope(args...)...)
	if err == nil {
		return nil
	}
	err = errs.New(errs.Unavailable, "systemctl %s: %w: %s", strings.Join(e.scope(args...), " "), err, strings.TrimSpace(out))
	if e.env.Rootless && os.Getenv("XDG_RUNTIME_DIR") == "" {
		err = errs.Hint(err, "this login has no session of systemd; as root: loginctl enable-linger "+e.userName()+
			"; then: XDG_RUNTIME_DIR=/run/user/"+strconv.Itoa(e.env.UID)+" isle startup enable")
	}
	return err
}

// cronLine is what crontab(5) shall do at boot.
func (e *Engine) cronLine(exe string) string {
	words := []string{"@reboot"}
	for _, kv := range e.startupEnv() {
		k, v, _ := strings.Cut(kv, "=")
		words = append(words, k+"="+quoteShell(v))
	}
	words = append(words, quoteShell(exe), "startup run ")
	return strings.ReplaceAll(strings.Join(words, " "), "%", `\%`) + startupMark
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// editCrontab replaces the user's crontab: its lines without ours, as change
// gives them back.
func (e *Engine) editCrontab(change func([]string) []string) error {
	lines, err := e.crontab()
	if err != nil {
		return err
	}
	lines = change(slices.DeleteFunc(lines, func(l string) bool { return strings.HasSuffix(l, startupMark) }))
	text := strings.Join(lines, "\n")
	if text != "" {
		text += "\n"
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	go func() {
		_, _ = io.WriteString(w, text) // crontab that does not read it fails
		_ = w.Close()                  // so does one that sees too little
	}()
	if out, err := tool("crontab", r, "-"); err != nil {
		return errs.New(errs.Unavailable, "crontab: %w: %s", err, strings.TrimSpace(out))
	}
	return nil
}

func (e *Engine) inCrontab() (bool, error) {
	lines, err := e.crontab()
	return slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, startupMark) }), err
}

// crontab returns the lines of the user's crontab.
func (e *Engine) crontab() ([]string, error) {
	out, err := tool("crontab", nil, "-l")
	if err != nil && strings.Contains(out, "no crontab") {
		return nil, nil
	}
	if err != nil {
		return nil, errs.New(errs.Unavailable, "crontab -l: %w: %s", err, strings.TrimSpace(out))
	}
	var lines []string
	for l := range strings.Lines(out) {
		lines = append(lines, strings.TrimSuffix(l, "\n"))
	}
	return lines, nil
}

// cronRuns looks for a cron daemon.
func cronRuns() bool {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			continue
		}
		switch strings.TrimSpace(string(b)) {
		case "cron", "crond", "fcron", "dcron":
			return true
		}
	}
	return false
}

// lookProgram looks a program up, where administrators' programs are, too.
func lookProgram(name string) string {
	for dir := range strings.SplitSeq(os.Getenv("PATH")+":/usr/bin:/bin:/usr/sbin:/sbin", ":") {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && filepath.IsAbs(p) && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// tool runs a program of the system to its end and returns what it wrote.
func tool(name string, in *os.File, args ...string) (string, error) {
	path := lookProgram(name)
	if path == "" {
		return "", errs.New(errs.NotFound, "%s: not found", name)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	cmd := program.Command{Path: path, Args: append([]string{name}, args...), Env: os.Environ(), Files: []*os.File{in, w, w}}
	child, err := cmd.Start()
	_ = w.Close() // the child has it
	if err != nil {
		return "", err
	}
	out, rerr := io.ReadAll(io.LimitReader(r, 1<<20))
	code, err := waitExit(child.Pid)
	switch {
	case err != nil:
		return "", err
	case rerr != nil:
		return "", rerr
	case code != 0:
		return string(out), fmt.Errorf("exit code %d", code)
	}
	return string(out), nil
}

// startupContainers are those that shall run when the machine is up: Docker's
// rules. Those that share something of others come after them.
func (e *Engine) startupContainers() ([]*Container, error) {
	all, err := e.loadAll()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(c *Container) bool { return !startsAtBoot(c) })
	slices.SortStableFunc(all, func(a, b *Container) int {
		if n := len(a.Joined) - len(b.Joined); n != 0 {
			return n
		}
		return a.Created.Compare(b.Created)
	})
	return all, nil
}

func startsAtBoot(c *Container) bool {
	st, p := &c.State, c.Config.Restart
	switch p.Name {
	case "always":
		return st.Status != container.Created
	case "unless-stopped":
		return st.Status != container.Created && !st.StoppedByUser
	case "on-failure":
		if live(st.Status) {
			return true
		}
		return st.Status == container.Exited && st.ExitCode != 0 && !st.StoppedByUser && (p.MaxRetries == 0 || st.RestartCount < p.MaxRetries)
	}
	return false
}

// RunStartup starts the containers that shall run and do not. One that does not
// start keeps no other from it.
func (e *Engine) RunStartup(ctx context.Context) (started []string, Err error) {
	list, err := e.startupContainers()
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if live(c.State.Status) {
			continue
		}
		if _, err := e.Start(ctx, c.ID, nil); err != nil {
			Err = errors.Join(Err, fmt.Errorf("container %q: %w", c.Config.Name, err))
			continue
		}
		started = append(started, c.Config.Name)
	}
	return started, Err
}
