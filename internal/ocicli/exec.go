package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/linux/cgroup"
	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/runtime"
)

// exec starts a process in a container.
func (c *call) exec() error {
	pidFile, err := c.pidFile()
	if err != nil {
		return err
	}
	ct, err := load(c.root, c.args[0])
	if err != nil {
		return err
	}
	switch ct.status() {
	case stopped:
		return errors.New("cannot exec in a stopped container")
	case paused:
		if !c.flags.on("ignore-paused") {
			return errors.New("cannot exec in a paused container (use --ignore-paused to override)")
		}
	}
	s, err := ct.config()
	if err != nil {
		return err
	}
	pr, err := c.process(ct, s)
	if err != nil {
		return err
	}
	detach := c.flags.on("detach")
	if err := c.checkTerminal(pr, detach); err != nil {
		return err
	}
	if ct.Rootless && len(pr.User.AdditionalGids) > 0 {
		return errors.New("cannot set any additional groups in a rootless container")
	}
	inherit, err := c.inherited(0)
	if err != nil {
		return err
	}
	if pr.Env, err = environment(pr.Env, func() string { return homeIn("/proc/"+strconv.Itoa(ct.Pid)+"/root", pr.User.UID) }); err != nil {
		return err
	}
	filter, err := seccomp.Compile(s.Linux.Seccomp)
	if err != nil {
		return err
	}
	group, err := ct.below(c.flags["cgroup"])
	if err != nil {
		return err
	}
	if a := pr.ExecCPUAffinity; a != nil {
		if err := c.tellAffinity(a); err != nil {
			return err
		}
	}
	c.fitCaps(pr)
	if err := c.connect(); err != nil {
		return err
	}
	stdio := runtime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	if pr.Terminal {
		stdio = runtime.Stdio{}
	}
	var w *watch
	if !detach {
		w = newWatch(false, c)
	}
	c.log.debugf("nsexec container setup: join process %d", ct.Pid)
	proc, err := runtime.Exec(runtime.Target{Pid: ct.Pid, Cgroup: group}, pr, runtime.ExecOptions{
		Stdio: stdio, Seccomp: filter, Linux: s.Linux, State: ct.ociState(running), Inherit: inherit, AllCPUs: true, PlainLines: !detach,
	})
	if err != nil {
		return err
	}
	c.log.debugf("child process in init() is %d", proc.Pid)
	c.log.debugf("setns_init: about to exec")
	for _, w := range proc.Warnings {
		c.log.warn("%v", w)
	}
	kill := func(err error) error {
		_ = unixKill(proc)
		return err
	}
	if err := c.handOver(proc, detach); err != nil {
		return kill(err)
	}
	if pidFile != "" {
		if err := writePidFile(pidFile, proc.Pid); err != nil {
			return kill(err)
		}
	}
	if detach {
		return nil
	}
	code, err := w.wait(proc, proc.Console)
	if err != nil {
		return kill(err)
	}
	return exitCode(code)
}

// process is what to execute: a file's, or the container's with changes.
func (c *call) process(ct *container, s *specs.Spec) (*specs.Process, error) {
	if name := c.flags.str("process"); name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		p := new(specs.Process)
		if err := json.Unmarshal(data, p); err != nil {
			return nil, err
		}
		return p, checkProcess(p)
	}
	if len(c.args) < 2 {
		return nil, errors.New("exec args cannot be empty")
	}
	p := *s.Process
	// The bundle's may have been changed since, to be used by exec.
	if b, err := readSpec(ct.Bundle + "/" + configFile); err == nil {
		p = *b.Process
	}
	p.Args, p.Terminal = c.args[1:], c.flags.on("tty")
	if cwd := c.flags.str("cwd"); cwd != "" {
		p.Cwd = cwd
	}
	if profile := c.flags.str("apparmor"); profile != "" {
		p.ApparmorProfile = profile
	}
	if label := c.flags.str("process-label"); label != "" {
		p.SelinuxLabel = label
	}
	if added := c.flags["cap"]; len(added) > 0 {
		addCaps(&p, added)
	}
	p.Env = append(append([]string(nil), p.Env...), c.flags["env"]...)
	if c.flags.set("no-new-privs") {
		p.NoNewPrivileges = c.flags.on("no-new-privs")
	}
	if user := c.flags.str("user"); user != "" {
		if err := setUser(&p, user); err != nil {
			return nil, err
		}
	}
	for _, text := range c.flags["additional-gids"] {
		gid, err := strconv.ParseInt(text, 0, 64)
		if err != nil || gid < 0 {
			return nil, fmt.Errorf("additional-gids must be a positive number %s", text)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	return &p, checkProcess(&p)
}

// addCaps adds capabilities. The ambient set, which makes them outlast a change
// of user, is for processes that have inheritable ones anyhow.
func addCaps(p *specs.Process, added []string) {
	l := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		l = *p.Capabilities
	}
	l.Bounding = append(append([]string(nil), l.Bounding...), added...)
	l.Effective = append(append([]string(nil), l.Effective...), added...)
	l.Permitted = append(append([]string(nil), l.Permitted...), added...)
	if l.Inheritable != nil {
		l.Ambient = append(append([]string(nil), l.Ambient...), added...)
	}
	p.Capabilities = &l
}

func setUser(p *specs.Process, user string) error {
	uids, gids, both := strings.Cut(user, ":")
	if both {
		gid, err := strconv.Atoi(gids)
		if err != nil {
			return fmt.Errorf("bad gid: %w", err)
		}
		p.User.GID = uint32(gid)
	}
	uid, err := strconv.Atoi(uids)
	if err != nil {
		return fmt.Errorf("bad uid: %w", err)
	}
	p.User.UID = uint32(uid)
	return nil
}

// below is the container's cgroup, or one below it: [CONTROLLER,...:]PATH.
func (ct *container) below(args []string) (runtime.Cgroup, error) {
	paths := ct.Cgroup
	if len(args) == 0 {
		return birthplace{ct.group()}, nil
	}
	seen := map[string]bool{}
	v1 := make(map[string]string, len(paths.V1))
	maps.Copy(v1, paths.V1)
	for _, arg := range args {
		controllers, sub, ok := strings.Cut(arg, ":")
		if !ok {
			if len(args) != 1 {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (missing <controller>: prefix)", arg)
			}
			sub = arg
			var err error
			if paths.V2, err = join(paths.V2, sub); err != nil {
				return nil, err
			}
			for k, v := range v1 {
				if v1[k], err = join(v, sub); err != nil {
					return nil, err
				}
			}
			continue
		}
		for name := range strings.SplitSeq(controllers, ",") {
			switch {
			case name == "":
				return nil, fmt.Errorf("invalid --cgroup argument: %s (empty <controller> prefix)", arg)
			case seen[name]:
				return nil, fmt.Errorf("invalid --cgroup argument(s): controller %s specified multiple times", name)
			case v1[name] == "":
				return nil, fmt.Errorf("unknown controller %s in --cgroup", name)
			}
			seen[name] = true
			d, err := join(v1[name], sub)
			if err != nil {
				return nil, err
			}
			v1[name] = d
		}
	}
	paths.V1 = v1
	return subgroup{cgroup.Open(paths)}, nil
}

// join is the group sub below base, which it does not leave.
func join(base, sub string) (string, error) {
	if base == "" {
		return "", nil
	}
	d := path.Join(base, sub)
	if d != base && !strings.HasPrefix(d, base+"/") {
		return "", fmt.Errorf("bad sub cgroup path: %s", sub)
	}
	return d, nil
}

// subgroup is a group that the container's processes have made: it may not be there.
type subgroup struct{ g *cgroup.Group }

func (s subgroup) File() *os.File { return nil }

func (s subgroup) Attach(pid int) error {
	if err := s.g.Attach(pid); err != nil {
		return fmt.Errorf("error adding pid %d to cgroups: %w", pid, err)
	}
	return nil
}
