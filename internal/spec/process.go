package spec

import (
	"maps"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/caps"
)

// defaultPath is what a container whose image says nothing finds commands by.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// keepGroupsAnnotation tells the runtime to leave the caller's supplementary
// groups as they are; crun and Podman know it by this name.
const keepGroupsAnnotation = "run.oci.keep_original_groups"

// command sets what is executed, where, and with which environment.
func (b *build) command() error {
	c, img, p := b.cfg, b.img, &b.process
	args := Args(c, img)
	if len(args) == 0 {
		return errs.New(errs.Invalid, "no command specified")
	}
	p.Args = args
	p.Terminal = c.TTY
	if c.TTY && c.ConsoleSize != ([2]uint{}) {
		b.box = specs.Box{Height: c.ConsoleSize[0], Width: c.ConsoleSize[1]}
		p.ConsoleSize = &b.box
	}
	p.Cwd = "/"
	for _, dir := range [...]string{c.WorkingDir, img.WorkingDir} {
		if dir == "" {
			continue
		}
		// An image made on another system may name no absolute path.
		if dir[0] != '/' {
			return errs.New(errs.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", dir)
		}
		p.Cwd = dir
		break
	}
	p.Env = b.env()
	for _, list := range [...][]string{p.Args, p.Env} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return errs.New(errs.Invalid, "%q: contains a NUL byte", s)
			}
		}
	}
	return nil
}

// Args is the command line: the entry point and the arguments to it. Asking for
// another entry point drops the image's arguments, which were not meant for it.
func Args(c *container.Config, img *container.ImageConfig) []string {
	entry, cmd := img.Entrypoint, img.Cmd
	if c.EntrypointSet {
		entry, cmd = c.Entrypoint, nil
		if len(entry) == 1 && entry[0] == "" {
			entry = nil
		}
	}
	if len(c.Cmd) > 0 {
		cmd = c.Cmd
	}
	args := make([]string, 0, len(entry)+len(cmd))
	return append(append(args, entry...), cmd...)
}

// env is the environment, in Docker's order: PATH, HOSTNAME, TERM, the user's,
// what remains of the image's, HOME. Later wishes change earlier values in their
// place; "KEY" alone takes a variable away.
func (b *build) env() []string {
	c := b.cfg
	env := make([]string, 0, 4+len(c.Env)+len(b.img.Env))
	env = append(env, "PATH="+defaultPath, "HOSTNAME="+b.hostname())
	if c.TTY {
		env = append(env, "TERM=xterm")
	}
	for _, kv := range c.Env {
		env = setEnv(env, kv)
	}
	for _, kv := range b.img.Env {
		if key, _, _ := strings.Cut(kv, "="); !hasKey(c.Env, key) {
			env = setEnv(env, kv)
		}
	}
	// Empty counts as not set: a shell with HOME= would take "/" for it silently.
	if i := envIndex(env, "HOME"); i < 0 || env[i] == "HOME=" {
		home := b.in.User.Home
		if home == "" {
			home = "/"
		}
		env = setEnv(env, "HOME="+home)
	}
	return env
}

// setEnv puts KEY=VALUE into env, or takes KEY out of it.
func setEnv(env []string, kv string) []string {
	key, _, has := strings.Cut(kv, "=")
	i := envIndex(env, key)
	switch {
	case has && i >= 0:
		env[i] = kv
	case has:
		env = append(env, kv)
	case i >= 0:
		env = append(env[:i], env[i+1:]...)
	}
	return env
}

func envIndex(env []string, key string) int {
	for i, kv := range env {
		if len(kv) > len(key) && kv[len(key)] == '=' && kv[:len(key)] == key {
			return i
		}
	}
	return -1
}

// hasKey reports whether list names key, with a value or without.
func hasKey(list []string, key string) bool {
	for _, kv := range list {
		if strings.HasPrefix(kv, key) && (len(kv) == len(key) || kv[len(key)] == '=') {
			return true
		}
	}
	return false
}

// user sets the ids, as far as they exist where the container runs.
func (b *build) user() error {
	u := &b.in.User
	for _, id := range [...]struct {
		kind, file string
		id         uint32
		in         []specs.LinuxIDMapping
	}{{"user", "/etc/subuid", u.UID, b.uids}, {"group", "/etc/subgid", u.GID, b.gids}} {
		if !mapped(id.in, id.id) {
			err := errs.New(errs.Invalid, "%s %d: no such id in the container's user namespace, which has %s", id.kind, id.id, ranges(id.in))
			if b.in.Facts.Rootless {
				err = errs.Hint(err, "more ids can be given to you in "+id.file+", by root")
			}
			return err
		}
	}
	b.process.User = specs.User{UID: u.UID, GID: u.GID}
	if u.KeepGroups {
		annotations := make(map[string]string, len(b.spec.Annotations)+1)
		maps.Copy(annotations, b.spec.Annotations)
		annotations[keepGroupsAnnotation] = "1"
		b.spec.Annotations = annotations
		return nil
	}
	if b.noSetgroups {
		// A single id was mapped without privilege, so setgroups(2) is given up
		// (user_namespaces(7)).
		if len(b.cfg.GroupAdd) > 0 {
			b.warn("supplementary groups are not available: this user has just one group id")
		}
		return nil
	}
	if b.gids == nil {
		b.process.User.AdditionalGids = u.Groups
		return nil
	}
	for _, g := range u.Groups {
		if mapped(b.gids, g) {
			b.process.User.AdditionalGids = append(b.process.User.AdditionalGids, g)
		} else if len(b.cfg.GroupAdd) > 0 {
			b.warn("group " + strconv.FormatUint(uint64(g), 10) + ": no such id in the container's user namespace; left out")
		}
	}
	return nil
}

// defaultCaps are Docker's, in its order.
var defaultCaps = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// defaultCapSet is the same as a set.
const defaultCapSet caps.Set = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<13 | 1<<18 | 1<<27 | 1<<29 | 1<<31

const allCaps caps.Set = 1<<(caps.Last+1) - 1

// setCapabilities sets the capability sets. Inheritable and ambient stay empty
// (CVE-2022-24769); a user other than root gets none but keeps the bounding set,
// as execve(2) would have it.
func (b *build) setCapabilities() error {
	c := b.cfg
	bounding := b.in.Facts.Bounding
	set := defaultCapSet
	add, addAll, err := capList(c.CapAdd)
	if err != nil {
		return err
	}
	drop, dropAll, err := capList(c.CapDrop)
	if err != nil {
		return err
	}
	switch {
	case c.Privileged:
		set = allCaps
	case addAll:
		set = allCaps &^ drop
	case dropAll:
		set = add
	default:
		set = set&^drop | add
	}
	if missing := add & set &^ bounding; missing != 0 && !c.Privileged {
		for _, name := range missing.Names() {
			b.warn(name + " cannot be given: isle does not have it here")
		}
	}
	set &= bounding
	b.capabilities = set
	var names []string
	if set == defaultCapSet {
		names = defaultCaps[:]
	} else {
		names = make([]string, 0, 41)
		if set&defaultCapSet != 0 && !c.Privileged && !addAll {
			for _, name := range defaultCaps {
				if one, err := caps.Parse([]string{name}); err == nil && set&one != 0 {
					names = append(names, name)
				}
			}
		}
		for n := range caps.Last + 1 {
			if set.Has(n) && (c.Privileged || addAll || !defaultCapSet.Has(n)) {
				names = append(names, caps.Name(n))
			}
		}
	}
	b.caps.Bounding = names
	if b.in.User.UID == 0 {
		b.caps.Effective, b.caps.Permitted = names, names
	}
	b.process.Capabilities = &b.caps
	return nil
}

func capList(list []string) (set caps.Set, all bool, err error) {
	for _, s := range list {
		name, err := container.ParseCapability(s)
		if err != nil {
			return 0, false, err
		}
		if name == "ALL" {
			all = true
			continue
		}
		one, err := caps.Parse([]string{name})
		if err != nil {
			return 0, false, err
		}
		set |= one
	}
	return set, all, nil
}

// rlimitNames are the OCI names by RLIMIT_ number.
var rlimitNames = [...]string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
}

const (
	rlimitNofile = 7
	unlimited    = ^uint64(0)
)

// limits sets the resource limits of the process and its OOM score.
func (b *build) limits() error {
	f := &b.in.Facts
	for i := range b.cfg.Ulimits {
		u := &b.cfg.Ulimits[i]
		n := container.UlimitNumber(u.Name)
		if n < 0 {
			return errs.New(errs.Invalid, "invalid ulimit type: %s", u.Name)
		}
		soft, hard := limit(u.Soft), limit(u.Hard)
		if soft > hard {
			return errs.New(errs.Invalid, "ulimit %s: soft limit must be less than or equal to hard limit: %d > %d", u.Name, u.Soft, u.Hard)
		}
		most, why := unlimited, ""
		if !f.SysResource && hard > f.HardLimits[n] {
			most, why = f.HardLimits[n], "the caller's own hard limit, and it may not raise it"
		}
		// Above fs.nr_open the kernel refuses everybody.
		if n == rlimitNofile && f.MaxFiles != 0 && hard > f.MaxFiles && f.MaxFiles < most {
			most, why = f.MaxFiles, "fs.nr_open"
		}
		if hard > most {
			b.warn("ulimit " + u.String() + ": lowered to " + strconv.FormatUint(most, 10) + ", " + why)
			hard, soft = most, min(soft, most)
		}
		b.process.Rlimits = append(b.process.Rlimits, specs.POSIXRlimit{Type: rlimitNames[n], Hard: hard, Soft: soft})
	}
	b.oomScore()
	return nil
}

func limit(v int64) uint64 {
	if v < 0 {
		return unlimited
	}
	return uint64(v)
}

// oomScore sets oom_score_adj. Docker always sets one, 0 unless asked. Lowering
// it takes CAP_SYS_RESOURCE, so without that a container inherits.
func (b *build) oomScore() {
	have := b.in.Facts.OOMScoreAdj
	want := 0
	if b.cfg.OOMScoreAdj != nil {
		want = *b.cfg.OOMScoreAdj
	}
	if want < have && !b.in.Facts.SysResource {
		if b.cfg.OOMScoreAdj != nil {
			b.warn("oom-score-adj " + strconv.Itoa(want) + ": lowering it is not allowed here; it stays at " + strconv.Itoa(have))
		}
		return
	}
	b.oomAdj = want
	b.process.OOMScoreAdj = &b.oomAdj
}
