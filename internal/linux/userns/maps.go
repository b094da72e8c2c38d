package userns

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// maxExtents is how many lines the kernel takes in a map (since 4.15).
const maxExtents = 340

// maps is how the ids of a new user namespace shall be mapped.
type maps struct {
	uid, gid             int // the user's own, mapped to 0
	user                 string
	uids, gids           []specs.LinuxIDMapping
	newuidmap, newgidmap string // "": written directly
	single               bool
	advice               []string
}

// planMaps decides on the mapping and collects advice where it is a poor one.
func planMaps(uid, gid int) (*maps, error) {
	p := &maps{uid: uid, gid: gid}
	if uid == 0 {
		return p, p.planRoot()
	}
	p.user = userName(uid)
	uids, gids, err := Ranges(uid, p.user)
	if err != nil {
		return nil, fmt.Errorf("subordinate ids of uid %d: %w", uid, err)
	}
	uids, lostUIDs := mapped(uids, "/proc/self/uid_map")
	gids, lostGIDs := mapped(gids, "/proc/self/gid_map")
	p.newuidmap, p.newgidmap = tool("newuidmap"), tool("newgidmap")
	name := p.user
	if name == "" {
		name = strconv.Itoa(uid) // subid(5) takes the number as well
	}
	why := ""
	switch {
	case lostUIDs || lostGIDs:
		why = "the ids given to this user in /etc/subuid or /etc/subgid do not exist in the container that isle runs in"
	case len(uids) == 0 || len(gids) == 0:
		why = fmt.Sprintf("user %s has no ids in /etc/subuid or /etc/subgid", name)
		p.advice = giveRanges(name, len(uids) == 0, len(gids) == 0)
		if p.newuidmap == "" || p.newgidmap == "" {
			p.advice = append([]string{installUIDMap}, p.advice...)
		}
	case p.newuidmap == "" || p.newgidmap == "":
		why = "newuidmap and newgidmap are not installed"
		p.advice = []string{installUIDMap}
	default:
		if reason, repair := powerless(p.newuidmap, p.newgidmap); reason != "" {
			why, p.advice = reason, repair
		}
	}
	if why != "" {
		p.planSingle()
		p.advice = append([]string{why + ": containers have just one user, and images with more than one may not work"}, p.advice...)
		return p, nil
	}
	p.uids, p.gids = extents(uint32(uid), uids), extents(uint32(gid), gids)
	p.advice = shared(uids, uid, p.user)
	return p, nil
}

const installUIDMap = "as root: apt-get install uidmap"

// planSingle maps nothing but the user's own ids, which needs nobody's leave.
func (p *maps) planSingle() {
	p.single = true
	p.newuidmap, p.newgidmap = "", ""
	p.uids = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(p.uid), Size: 1}}
	p.gids = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(p.gid), Size: 1}}
}

// planRoot: root of the host or of a container may map every id it has.
func (p *maps) planRoot() error {
	var err error
	if p.uids, err = ReadMap("/proc/self/uid_map"); err != nil {
		return err
	}
	if p.gids, err = ReadMap("/proc/self/gid_map"); err != nil {
		return err
	}
	for i := range p.uids {
		p.uids[i].HostID = p.uids[i].ContainerID
	}
	for i := range p.gids {
		p.gids[i].HostID = p.gids[i].ContainerID
	}
	return nil
}

// extents is the map 0 → own, 1… → ranges.
func extents(own uint32, ranges []Range) []specs.LinuxIDMapping {
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: own, Size: 1}}
	next := uint64(1)
	for _, r := range ranges {
		if len(m) == maxExtents || next+uint64(r.Count) > 1<<32-1 {
			break
		}
		m = append(m, specs.LinuxIDMapping{ContainerID: uint32(next), HostID: r.Start, Size: r.Count})
		next += uint64(r.Count)
	}
	return m
}

// mapped keeps the ranges that exist in the caller's own user namespace: inside
// a container, /etc/subuid may promise ids that the container does not have.
func mapped(ranges []Range, mapFile string) (kept []Range, lost bool) {
	own, err := ReadMap(mapFile)
	if err != nil {
		return ranges, false
	}
	for _, r := range ranges {
		for _, m := range own {
			if r.Start >= m.ContainerID && r.end() <= uint64(m.ContainerID)+uint64(m.Size) {
				kept = append(kept, r)
				break
			}
		}
	}
	return kept, len(kept) == 0 && len(ranges) > 0
}

// powerless tells why the set-uid programs could do nothing, so that they are
// not even run, and the remedy.
func powerless(tools ...string) (why string, repair []string) {
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && n == 1 {
		return "this process may not gain privileges (no_new_privs), so newuidmap cannot work", nil
	}
	for _, path := range tools {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			continue
		}
		var caps [64]byte
		_, xerr := unix.Getxattr(path, "security.capability", caps[:])
		if (st.Mode&unix.S_ISUID == 0 || st.Uid != 0) && xerr != nil {
			return path + " is not set-uid root", []string{"as root: apt-get install --reinstall uidmap", "or, as root: chmod u+s " + path}
		}
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) == nil && fs.Flags&unix.ST_NOSUID != 0 {
			return path + " is on a file system mounted nosuid", nil
		}
	}
	return "", nil
}

// shared warns of ranges that belong to somebody else as well.
func shared(ranges []Range, uid int, name string) []string {
	all, err := readSubIDs(subuidFile)
	if err != nil {
		return nil
	}
	for _, o := range all {
		if o.owner == name || o.owner == strconv.Itoa(uid) {
			continue
		}
		for _, r := range ranges {
			if r.overlaps(o.Range) {
				return []string{fmt.Sprintf("ids %v of this user and %v of %s in %s overlap: the containers of one can reach the files of the other", r, o.Range, o.owner, subuidFile)}
			}
		}
	}
	return nil
}

// write writes the maps of process pid, the first in its user namespace.
func (p *maps) write(pid int) error {
	if p.newuidmap != "" {
		return p.writeByTools(pid)
	}
	base := "/proc/" + strconv.Itoa(pid)
	err := writeMaps(base, p.uids, p.gids)
	if p.uid == 0 && errors.Is(err, unix.EPERM) {
		// Root without CAP_SETUID (a container that dropped it) is like anybody.
		p.planSingle()
		p.advice = []string{"root may not map ids here (no CAP_SETUID): containers have just one user"}
		err = writeMaps(base, p.uids, p.gids)
	}
	return err
}

// writeMaps writes maps directly.
func writeMaps(base string, uids, gids []specs.LinuxIDMapping) error {
	if err := writeOnce(base+"/uid_map", format(uids)); err != nil {
		return err
	}
	if size(gids) == 1 {
		// Since 3.19 (CVE-2014-8989) a group map of one's own is taken only
		// after setgroups(2) was given up: it could shed a group that denies.
		if err := writeOnce(base+"/setgroups", "deny"); err != nil {
			return err
		}
	}
	return writeOnce(base+"/gid_map", format(gids))
}

// writeOnce writes text with one call: the kernel takes a map whole.
func writeOnce(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func format(m []specs.LinuxIDMapping) string {
	var b []byte
	for _, e := range m {
		b = fmt.Appendf(b, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
	}
	return string(b)
}

// writeByTools runs newuidmap and newgidmap, side by side.
func (p *maps) writeByTools(pid int) error {
	failed := make(chan error, 1)
	go func() { failed <- runMapTool(p.newgidmap, pid, p.gids) }()
	err := runMapTool(p.newuidmap, pid, p.uids)
	if gerr := <-failed; err == nil {
		err = gerr
	}
	if err == nil {
		return nil
	}
	user := p.user
	if user == "" {
		user = strconv.Itoa(p.uid)
	}
	return errs.Hint(err, mapHints(err, user)...)
}

func runMapTool(path string, pid int, m []specs.LinuxIDMapping) error {
	args := make([]string, 0, 2+3*len(m))
	args = append(args, path, strconv.Itoa(pid))
	for _, e := range m {
		args = append(args, strconv.FormatUint(uint64(e.ContainerID), 10), strconv.FormatUint(uint64(e.HostID), 10), strconv.FormatUint(uint64(e.Size), 10))
	}
	out, err := (&exec.Cmd{Path: path, Args: args}).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if text == "" {
		text = err.Error()
	}
	return errs.New(errs.Denied, "%s: %s", strings.Join(args, " "), text)
}

// mapHints explains what newuidmap and newgidmap say.
func mapHints(err error, user string) []string {
	text := err.Error()
	switch {
	case strings.Contains(text, "not allowed"):
		// The tool reads the files by the name that it finds for the uid.
		return []string{
			"the ranges of " + user + " in /etc/subuid and /etc/subgid are not what newuidmap accepts; does another line claim them?",
			"getsubids " + user + " and getsubids -g " + user + " show what counts",
		}
	case strings.Contains(text, "Invalid argument"):
		return []string{"two ranges of " + user + " in /etc/subuid or /etc/subgid overlap, or one contains the user's own id"}
	case strings.Contains(text, "Operation not permitted"):
		return []string{"newuidmap lacks the privilege to write the map: is isle in a container without CAP_SETUID and CAP_SETGID, or without these ids?"}
	}
	return nil
}

// fingerprint is a figure over what makes a user have a single id only. When it
// changes, another try is worth its while. It is never 0.
func fingerprint() uint64 {
	h := fnv.New64a()
	for _, name := range [...]string{subuidFile, subgidFile, "/usr/bin/newuidmap", "/usr/bin/newgidmap"} {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			fmt.Fprintf(h, "%d %d %d %o,", st.Ino, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode)
		}
		_, _ = h.Write([]byte{';'})
	}
	if s := h.Sum64() >> 1; s != 0 { // fields takes no more than 63 bits
		return s
	}
	return 1
}

// Advice says what is poor about the mapping that a user would get now, and the
// remedies; nothing when it is as it should be. It changes nothing.
func Advice(uid, gid int) []string {
	p, err := planMaps(uid, gid)
	if err != nil {
		return []string{err.Error()}
	}
	return p.advice
}
