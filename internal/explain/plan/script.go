package plan

import (
	"encoding/base64"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/caps"
	"github.com/isle-engine/isle/internal/network"
)

// WriteScript writes the plan as a shell script of ordinary commands (util-linux,
// iproute2, coreutils) which makes an equivalent container and runs its command.
//
// Two things a shell cannot do as isle does. pivot_root(2) takes the tools away in
// the middle of the work, so the new root is moved over the old one, as an
// initramfs does (switch_root(8)). And a seccomp filter needs setpriv of util-linux
// 2.40; without it the script goes on and says so.
func (p *Plan) WriteScript(w io.Writer) error {
	s := &script{p: p, sp: p.in.Facts.Spec}
	s.outer()
	_, err := io.WriteString(w, s.b.String())
	return err
}

type script struct {
	b  strings.Builder
	p  *Plan
	sp *specs.Spec
}

// line writes a line of script.
func (s *script) line(format string, args ...any) {
	fmt.Fprintf(&s.b, format+"\n", args...)
}

// q quotes a word for the shell.
func q(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@+%") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func words(list []string) string {
	quoted := make([]string, len(list))
	for i, w := range list {
		quoted[i] = q(w)
	}
	return strings.Join(quoted, " ")
}

func (s *script) has(t specs.LinuxNamespaceType) (here bool, file string) {
	for _, n := range s.sp.Linux.Namespaces {
		if n.Type == t {
			return true, n.Path
		}
	}
	return false, ""
}

// outer is the part that runs on the host.
func (s *script) outer() {
	p, f := s.p, &s.p.in.Facts
	s.line("#!/bin/sh")
	s.line("# A container made by hand: what `isle run` would do, in ordinary commands.")
	s.line("# Image and command: %s", strings.Join(strings.Fields(strconv.QuoteToGraphic(p.Image+" "+strings.Join(p.Command, " "))), " "))
	if p.Rootless {
		s.line("# To be run by the user who made it (uid %d), from a file: sh script", p.in.Env.UID)
	} else {
		s.line("# To be run by root, from a file: sh script")
	}
	s.line("set -eu")
	s.line("PATH=$PATH:/usr/sbin:/sbin")
	s.line("export name=byhand-$$")
	s.line("export D=$(mktemp -d /var/tmp/$name-XXXXXX)")
	s.line("exec 3<&0")
	s.line("")
	s.line("# What the container writes goes to upper; the image's layers stay as they are.")
	s.line(`chmod 755 "$D"; mkdir "$D/upper" "$D/work" "$D/root"`)
	s.line("")
	s.line("# Files that every container gets.")
	s.line(`printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$D/hosts"`)
	s.line(`echo %s >"$D/hostname"`, q(s.sp.Hostname))
	s.line(`cat /etc/resolv.conf >"$D/resolv.conf" 2>/dev/null || :`)
	if len(f.Filter) > 0 {
		s.line("")
		s.line("# The seccomp filter: a program of %d instructions for the kernel.", len(f.Filter)/8)
		s.line(`base64 -d >"$D/filter" <<'END'`)
		text := base64.StdEncoding.EncodeToString(f.Filter)
		for chunk := range slices.Chunk([]byte(text), 76) {
			s.line("%s", chunk)
		}
		s.line("END")
	}
	groups := s.cgroups()
	cleanup := `rm -rf "$D"`
	ns, file := s.has(specs.NetworkNamespace)
	enter := ""
	switch {
	case file != "":
		enter = "nsenter --net=" + q(file) + " "
	case ns && p.in.Network != nil && !p.Rootless && p.in.Network.Driver == network.DriverBridge:
		enter = `nsenter --net="/run/netns/$name" `
		cleanup = `ip netns del "$name" 2>/dev/null || :; ` + cleanup
	}
	for _, g := range slices.Backward(groups) {
		cleanup = "rmdir " + g + " 2>/dev/null || :; " + cleanup
	}
	s.line("trap %s EXIT", q(cleanup))
	s.line("trap 'exit 143' TERM; trap 'exit 130' INT")
	if strings.Contains(enter, "netns") {
		s.bridge()
	}
	s.line("")
	s.line("# What pid 1 of the container does before it becomes the command. It still sees")
	s.line("# the host's files, but every mount it makes is its own.")
	s.line("inside=$(cat <<'INSIDE'")
	s.inside()
	s.line("INSIDE")
	s.line(")")
	s.line("export inside")
	s.line("")
	s.line("# Its namespaces: what it cannot see. A pid namespace has only those who are born")
	s.line("# in it, hence --fork. The cgroup is joined first: it becomes the root of what is seen.")
	flags := []string{"--mount", "--fork", "--kill-child"}
	for _, n := range [...]struct {
		t    specs.LinuxNamespaceType
		flag string
	}{{specs.PIDNamespace, "--pid"}, {specs.NetworkNamespace, "--net"}, {specs.UTSNamespace, "--uts"}, {specs.IPCNamespace, "--ipc"}, {specs.CgroupNamespace, "--cgroup"}} {
		here, file := s.has(n.t)
		if here && file == "" && (n.t != specs.NetworkNamespace || enter == "") {
			flags = append(flags, n.flag)
		} else if here && file != "" && n.t != specs.NetworkNamespace {
			enter = "nsenter --" + strings.TrimPrefix(n.flag, "--") + "=" + q(file) + " " + enter
		}
	}
	var join strings.Builder
	for _, g := range groups {
		join.WriteString(`echo $$ >` + g + `/cgroup.procs; `)
	}
	start := join.String() + "exec " + enter + "unshare " + strings.Join(flags, " ") + ` sh -c "$inside"`
	uids, gids := s.maps()
	if len(uids) == 0 {
		s.line("sh -c %s <&3 &", q(start))
		s.line("wait $! && code=0 || code=$?")
		s.line("exit $code")
		return
	}
	s.line("# And a user namespace: root inside is somebody else outside. It can do nothing")
	s.line("# until the map is written, from outside.")
	s.line(`mkfifo "$D/mapped"`)
	s.line(`unshare --user sh -c 'read _ <"$D/mapped"; exec sh -c "$0"' %s <&3 &`, q(start))
	s.line("pid=$!")
	s.line(`while [ "$(readlink /proc/$pid/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done`)
	s.writeMap("uid", uids)
	s.writeMap("gid", gids)
	s.line(`echo go >"$D/mapped"`)
	s.line("wait $pid && code=0 || code=$?")
	s.line(`# Files of subordinate ids are removed by whoever they belong to.`)
	s.line(`chmod -R u+rwX "$D" 2>/dev/null || :`)
	s.line("exit $code")
}

// maps are those of the container's user namespace in the host's terms.
func (s *script) maps() (uids, gids []specs.LinuxIDMapping) {
	l, f := s.sp.Linux, &s.p.in.Facts
	uids, gids = l.UIDMappings, l.GIDMappings
	if !s.p.Rootless {
		return uids, gids
	}
	if len(uids) == 0 {
		return f.UIDs, f.GIDs
	}
	return through(uids, f.UIDs), through(gids, f.GIDs)
}

// through gives the maps of a namespace inside another in terms of the outermost.
func through(inner, outer []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range inner {
		for _, o := range outer {
			lo, hi := max(m.HostID, o.ContainerID), min(m.HostID+m.Size, o.ContainerID+o.Size)
			if lo < hi {
				out = append(out, specs.LinuxIDMapping{ContainerID: m.ContainerID + lo - m.HostID, HostID: o.HostID + lo - o.ContainerID, Size: hi - lo})
			}
		}
	}
	return out
}

func (s *script) writeMap(kind string, maps []specs.LinuxIDMapping) {
	text := strings.ReplaceAll(mapText(maps), ",", "")
	single := len(maps) == 1 && maps[0].Size == 1
	switch {
	case !s.p.Rootless:
		s.line(`printf '%s\n' >/proc/$pid/%s_map`, strings.ReplaceAll(mapText(maps), ", ", `\n`), kind)
	case single && kind == "gid":
		s.line("echo deny >/proc/$pid/setgroups # or a group that denies access could be shed")
		s.line("echo %s >/proc/$pid/gid_map", q(text))
	case single:
		s.line("echo %s >/proc/$pid/uid_map", q(text))
	default:
		s.line("new%smap $pid %s # set-uid root: checks /etc/sub%s", kind, text, kind)
	}
}

// cgroups makes the groups and returns their names as the shell has them.
func (s *script) cgroups() []string {
	f := &s.p.in.Facts
	var groups []string
	id := s.p.in.Record.ID
	f = s.byHand(f, id)
	add := func(dir string) {
		g := `"` + strings.Replace(dir, "isle-"+id, "isle-$name", 1) + `"`
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	if f.Cgroup.V2 != "" {
		add(f.Cgroup.V2)
	}
	for _, c := range sortedKeys(f.Cgroup.V1) {
		add(f.Cgroup.V1[c])
	}
	if len(groups) == 0 {
		return nil
	}
	s.line("")
	s.line("# Limits: a cgroup for all of its processes together.")
	if !s.p.Rootless && len(f.Cgroup.V1) == 0 && len(f.Writes) > 0 {
		// isle asks systemd for a place; by hand it is below the root, where the
		// controllers only have to be handed on.
		s.line(`for c in memory pids cpu cpuset io; do echo +$c >%s/cgroup.subtree_control 2>/dev/null || :; done`, v2root)
	}
	for _, g := range groups {
		s.line("mkdir %s", g)
	}
	for _, w := range f.Writes {
		s.line(`echo %s >"%s"`, q(w.Value), strings.Replace(w.File, "isle-"+id, "isle-$name", 1))
	}
	if f.Cgroup.V2 != "" && !s.p.Rootless {
		s.line("# Device rules are a BPF program on the group, which no command installs: not done here.")
	}
	if d := f.Cgroup.V1["devices"]; d != "" {
		g := strings.Replace(d, "isle-"+id, "isle-$name", 1)
		for _, r := range s.sp.Linux.Resources.Devices {
			file, num := "devices.deny", func(n *int64) string {
				if n == nil || *n < 0 {
					return "*"
				}
				return strconv.FormatInt(*n, 10)
			}
			if r.Allow {
				file = "devices.allow"
			}
			typ := r.Type
			if typ == "" {
				typ = "a"
			}
			rule := typ + " " + num(r.Major) + ":" + num(r.Minor) + " " + r.Access
			if typ == "a" {
				rule = "a"
			}
			s.line(`echo %s >"%s/%s"`, q(rule), g, file)
		}
	}
	return groups
}

// v2root is where every distribution mounts the one hierarchy.
const v2root = "/sys/fs/cgroup"

// byHand are the facts with the group of a machine that has cgroup v2 only below
// the root of the hierarchy, for root: isle's own place is systemd's to give.
func (s *script) byHand(f *Facts, id string) *Facts {
	if s.p.Rootless || len(f.Cgroup.V1) > 0 || len(f.Writes) == 0 || !strings.HasPrefix(f.Cgroup.V2, v2root+"/") {
		return f
	}
	own := *f
	own.Cgroup.V2 = v2root + "/isle-" + id
	own.Writes = slices.Clone(f.Writes)
	for i := range own.Writes {
		own.Writes[i].File = own.Cgroup.V2 + strings.TrimPrefix(f.Writes[i].File, f.Cgroup.V2)
	}
	return &own
}

// bridge is the network of a container on a bridge, for root.
func (s *script) bridge() {
	n := s.p.in.Network
	s.line("")
	s.line("# Network: a virtual cable, one end in the bridge, the other in a namespace.")
	s.line(`ip link show %s >/dev/null 2>&1 || { echo "no bridge %s yet: isle makes it with the first container of network %s" >&2; exit 1; }`, q(n.Device), n.Device, n.Name)
	s.line(`ip netns add "$name"`)
	s.line(`ip link add "vb$$" type veth peer name eth0 netns "$name"`)
	s.line(`ip link set "vb$$" master %s up`, q(n.Device))
	s.line(`ip -n "$name" link set lo up`)
	for _, sub := range n.Subnets {
		if !sub.Subnet.Addr().Is4() {
			continue
		}
		b := sub.Subnet.Last().Bytes()
		b[3] -= 5 // isle gives addresses from the other end
		s.line(`ip -n "$name" addr add %d.%d.%d.%d/%d dev eth0`, b[0], b[1], b[2], b[3], sub.Subnet.Bits())
		s.line(`ip -n "$name" link set eth0 up`)
		if sub.Gateway.IsValid() && !n.Internal {
			s.line(`ip -n "$name" route add default via %s`, sub.Gateway)
		}
	}
	if len(s.p.in.Record.Config.Publish) > 0 {
		s.line("# Published ports (%s) are not part of this script.", strings.Join(s.p.in.Record.Config.Publish, " "))
	}
}

// inside is what the container's first process does.
func (s *script) inside() {
	f := &s.p.in.Facts
	s.line("set -eu")
	s.line("# Nobody on the host sees what is mounted from here on.")
	s.line("mount --make-rprivate /")
	s.line("# The image's layers and upper, seen as one tree.")
	lower := make([]string, len(f.Layers))
	for i, l := range f.Layers {
		lower[i] = strings.ReplaceAll(l, ":", `\:`)
	}
	opts := "lowerdir=" + strings.Join(lower, ":")
	extra := ",index=off,redirect_dir=nofollow,metacopy=off"
	if f.Userxattr {
		extra = ",userxattr"
	}
	s.line(`mount -t overlay overlay -o %s,upperdir="$D/upper",workdir="$D/work"%s "$D/root"`, q(opts), extra)
	s.line(`cd "$D/root"`)
	s.line("umask 0")
	dev := false
	for i := range s.sp.Mounts {
		m := &s.sp.Mounts[i]
		if m.Type != "cgroup" && m.Type != "cgroup2" {
			s.mount(m)
		}
		if path.Clean(m.Destination) == "/dev" && m.Type != "bind" {
			dev = true
			s.devices()
		}
	}
	if !dev {
		s.devices()
	}
	for i := range s.sp.Mounts {
		if m := &s.sp.Mounts[i]; m.Type == "cgroup" || m.Type == "cgroup2" {
			s.mount(m)
		}
	}
	sysctls := make([]string, 0, len(s.sp.Linux.Sysctl))
	for k := range s.sp.Linux.Sysctl {
		sysctls = append(sysctls, k)
	}
	slices.Sort(sysctls)
	for _, k := range sysctls {
		s.line("echo %s >%s", q(s.sp.Linux.Sysctl[k]), q("proc/sys/"+strings.ReplaceAll(k, ".", "/")))
	}
	if masked := s.sp.Linux.MaskedPaths; len(masked) > 0 {
		s.line("# Hide what tells of the host, or what only the host's root should touch.")
		s.line("for m in %s; do", words(relative(masked)))
		s.line("\tif [ -d $m ]; then mount -t tmpfs -o ro,nosuid,nodev,noexec tmpfs $m")
		s.line("\telif [ -e $m ]; then mount --bind dev/null $m; fi")
		s.line("done")
	}
	if ro := s.sp.Linux.ReadonlyPaths; len(ro) > 0 {
		s.line("# Settings of the whole machine may be read only.")
		s.line("for m in %s; do", words(relative(ro)))
		s.line("\t[ -e $m ] || continue")
		s.line("\tmount --bind $m $m; mount -o remount,bind,ro,nosuid,nodev,noexec $m")
		s.line("done")
	}
	if s.sp.Root != nil && s.sp.Root.Readonly {
		s.line("mount -o remount,bind,ro .")
	}
	if s.sp.Hostname != "" {
		s.line("hostname %s", q(s.sp.Hostname))
	}
	if here, file := s.has(specs.NetworkNamespace); here && file == "" {
		s.line("ip link set lo up")
	}
	if adj := s.sp.Process.OOMScoreAdj; adj != nil {
		s.line("echo %d >/proc/self/oom_score_adj 2>/dev/null || : # lower than before needs CAP_SYS_RESOURCE", *adj)
	}
	s.limits()
	s.line("umask 022")
	s.line("# The new root goes over the old one.")
	s.line("mount -n --move . /")
	s.last()
}

func relative(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = strings.TrimPrefix(path.Clean(p), "/")
	}
	return out
}

func (s *script) mount(m *specs.Mount) {
	dst := q(strings.TrimPrefix(path.Clean("/"+m.Destination), "/"))
	var opts, prop []string
	bind, rec := m.Type == "bind", false
	for _, o := range m.Options {
		switch o {
		case "bind":
			bind = true
		case "rbind":
			bind, rec = true, true
		case "private", "rprivate", "shared", "rshared", "slave", "rslave":
			prop = append(prop, "--make-"+o)
		default:
			opts = append(opts, o)
		}
	}
	if bind {
		src := m.Source
		for _, etc := range [...]string{"hosts", "hostname", "resolv.conf"} {
			if m.Destination == "/etc/"+etc {
				src = "" // a file of isle's own
				s.line(`[ -e %s ] || { mkdir -p etc; : >%s; }; mount --bind "$D/%s" %s`, dst, dst, etc, dst)
			}
		}
		if src == "" {
			if len(opts) > 0 {
				s.line("mount -o remount,bind,%s %s", q(strings.Join(opts, ",")), dst)
			}
			return
		}
		s.line("if [ -d %s ]; then mkdir -p %s; else mkdir -p %s; [ -e %s ] || : >%s; fi", q(src), dst, q(path.Dir(strings.TrimPrefix(path.Clean("/"+m.Destination), "/"))), dst, dst)
		flag := "--bind"
		if rec {
			flag = "--rbind"
		}
		s.line("mount %s %s %s", flag, q(src), dst)
		if len(opts) > 0 {
			s.line("mount -o remount,bind,%s %s", q(strings.Join(opts, ",")), dst)
		}
		for _, p := range prop {
			s.line("mount %s %s", p, dst)
		}
		return
	}
	s.line("mkdir -p %s", dst)
	if m.Type == "cgroup" || m.Type == "cgroup2" {
		s.mountCgroup(dst, opts)
		return
	}
	o := ""
	writable := slices.DeleteFunc(slices.Clone(opts), func(o string) bool { return o == "ro" })
	if len(writable) > 0 {
		o = " -o " + q(strings.Join(writable, ","))
	}
	s.line("mount -t %s%s %s %s", q(m.Type), o, q(m.Source), dst)
	if len(writable) < len(opts) {
		s.line("mount -o remount,bind,%s %s # the mount, not the file system", q(strings.Join(opts, ",")), dst)
	}
}

// mountCgroup shows the container's own groups: one tree on v2, one for each
// controller that it has a group of on v1.
func (s *script) mountCgroup(dst string, opts []string) {
	v1 := s.p.in.Facts.Cgroup.V1
	o := q(strings.Join(opts, ","))
	if len(v1) == 0 {
		rest := slices.DeleteFunc(slices.Clone(opts), func(o string) bool { return o == "ro" })
		s.line("mount -t cgroup2 -o %s cgroup %s; mount -o remount,bind,%s %s", q(strings.Join(rest, ",")), dst, o, dst)
		return
	}
	rest := slices.DeleteFunc(slices.Clone(opts), func(o string) bool { return o == "ro" })
	s.line("mount -t tmpfs -o %s tmpfs %s", q(strings.Join(append(rest, "mode=755"), ",")), dst)
	for _, c := range sortedKeys(v1) {
		s.line(`mkdir %s/%s; mount --bind "%s" %s/%s; mount -o remount,bind,%s %s/%s`, dst, c, strings.Replace(v1[c], "isle-"+s.p.in.Record.ID, "isle-$name", 1), dst, c, o, dst, c)
	}
	if slices.Contains(opts, "ro") {
		s.line("mount -o remount,bind,%s %s", o, dst)
	}
}

// devices fills /dev: nodes made by root, the host's own bound where a user
// namespace may not make any.
func (s *script) devices() {
	type node struct {
		path, typ string
		maj, min  int64
		mode      uint32
	}
	nodes := []node{
		{"/dev/null", "c", 1, 3, 0o666},
		{"/dev/zero", "c", 1, 5, 0o666},
		{"/dev/full", "c", 1, 7, 0o666},
		{"/dev/random", "c", 1, 8, 0o666},
		{"/dev/urandom", "c", 1, 9, 0o666},
		{"/dev/tty", "c", 5, 0, 0o666},
	}
	for _, d := range s.sp.Linux.Devices {
		i := slices.IndexFunc(nodes, func(n node) bool { return n.path == d.Path })
		if i < 0 {
			nodes = append(nodes, node{})
			i = len(nodes) - 1
		}
		nodes[i] = node{d.Path, d.Type, d.Major, d.Minor, 0o666}
		if d.FileMode != nil {
			nodes[i].mode = uint32(d.FileMode.Perm())
		}
	}
	bound := s.p.Rootless || len(s.sp.Linux.UIDMappings) > 0
	if bound {
		s.line("# A user namespace may not make device nodes: the host's own are bound.")
	}
	s.line("mkdir -p dev")
	for _, n := range nodes {
		dst := q(strings.TrimPrefix(n.path, "/"))
		if dir := path.Dir(n.path); dir != "/dev" {
			s.line("(umask 022; mkdir -p %s)", q(strings.TrimPrefix(dir, "/")))
		}
		if bound {
			s.line("[ -e %s ] || : >%s; mount --bind %s %s", dst, dst, q(n.path), dst)
			continue
		}
		s.line("[ -e %s ] || mknod -m %03o %s %s %d %d", dst, n.mode, dst, n.typ, n.maj, n.min)
	}
	s.line("ln -s /proc/self/fd dev/fd; ln -s /proc/self/fd/0 dev/stdin; ln -s /proc/self/fd/1 dev/stdout")
	s.line("ln -s /proc/self/fd/2 dev/stderr; ln -s pts/ptmx dev/ptmx; [ ! -e /proc/kcore ] || ln -s /proc/kcore dev/core")
}

func (s *script) limits() {
	for _, l := range s.sp.Process.Rlimits {
		s.line("prlimit --pid $$ --%s=%s:%s", strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_")), unlimited(l.Soft), unlimited(l.Hard))
	}
	if !slices.ContainsFunc(s.sp.Process.Rlimits, func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_NOFILE" }) {
		s.line("ulimit -S -n 1024 2>/dev/null || :")
	}
}

func unlimited(n uint64) string {
	if n == ^uint64(0) {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// last is the change of credentials and the execve.
func (s *script) last() {
	pr := s.sp.Process
	var set caps.Set
	if pr.Capabilities != nil {
		set, _ = caps.Parse(pr.Capabilities.Bounding) // the spec is isle's own
	}
	dir := pr.Cwd
	if dir == "" {
		dir = "/"
	}
	uid, gid := pr.User.UID, pr.User.GID
	var ids []string
	for _, g := range pr.User.AdditionalGids {
		ids = append(ids, strconv.FormatUint(uint64(g), 10))
	}
	groups := strings.Join(ids, ",")
	s.line("# Only these parts of root's power are kept: no program it runs can get the others.")
	if !set.Has(unix.CAP_SYS_CHROOT) || uid != 0 && !set.Has(unix.CAP_SETUID) {
		// setpriv would give up what chroot and setuid need; capsh does all in one process.
		s.line("# (capsh, of libcap2-bin, since what is given up is needed until the last moment)")
		var drop []string
		for n := range caps.Last + 1 {
			if !set.Has(n) {
				drop = append(drop, strings.ToLower(caps.Name(n)))
			}
		}
		s.line("set -- --chroot=. --drop=%s --gid=%d --groups=%s --uid=%d", strings.Join(drop, ","), gid, groups, uid)
		if pr.NoNewPrivileges {
			s.line(`set -- "$@" --no-new-privs`)
		}
		s.line(`exec "$(command -v env)" -i %s "$(command -v capsh)" "$@" --shell=/bin/sh -- -c \`, words(pr.Env))
		s.line(`	%s sh %s`, q("cd "+q(dir)+` && exec "$@"`), words(pr.Args))
		return
	}
	kept := []string{"-all"}
	for _, c := range set.Names() {
		kept = append(kept, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	who := "--regid=" + strconv.FormatUint(uint64(gid), 10) + " --clear-groups"
	switch _, gids := s.maps(); {
	case len(gids) == 1 && gids[0].Size == 1:
		who = "--keep-groups" // setgroups(2) is off for good
	case groups != "":
		who = "--regid=" + strconv.FormatUint(uint64(gid), 10) + " --groups=" + groups
	}
	s.line("set -- %s --bounding-set=%s --inh-caps=-all", who, strings.Join(kept, ","))
	if pr.NoNewPrivileges {
		s.line(`set -- "$@" --no-new-privs`)
	}
	if len(s.p.in.Facts.Filter) > 0 {
		s.line(`if setpriv --help | grep -q seccomp-filter; then set -- "$@" --seccomp-filter "$D/filter"`)
		s.line(`else echo "this setpriv cannot install a seccomp filter (util-linux 2.40 can): going on without" >&2; fi`)
	}
	s.line("# chroot, the working directory and the user come last, then the command.")
	user := ""
	if uid != 0 {
		user = fmt.Sprintf(" --setuid=%d", uid)
	}
	s.line(`exec "$(command -v env)" -i %s "$(command -v setpriv)" "$@" -- \`, words(pr.Env))
	s.line(`	"$(command -v unshare)" --root=. --wd=%s%s -- %s`, q(dir), user, words(pr.Args))
}
