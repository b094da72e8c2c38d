package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// Range is a run of subordinate ids.
type Range struct{ Start, Count uint32 }

func (r Range) end() uint64 { return uint64(r.Start) + uint64(r.Count) }

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.Start, r.end()-1) }

func (r Range) overlaps(o Range) bool {
	return uint64(r.Start) < o.end() && uint64(o.Start) < r.end()
}

// The files of subid(5).
const (
	subuidFile = "/etc/subuid"
	subgidFile = "/etc/subgid"
)

// subidMax bounds what is read of a file: some 100,000 lines.
const subidMax = 4 << 20

// owned is one line of /etc/subuid or /etc/subgid.
type owned struct {
	owner string
	Range
}

// Ranges returns the subordinate user and group ids of a user, in file order,
// without overlaps. A user without any gets empty lists.
//
// Lines count by name and by number. Where /etc/nsswitch.conf sends "subid"
// elsewhere (a directory server), getsubids(1) is asked, as newuidmap asks the
// same library.
func Ranges(uid int, name string) (uids, gids []Range, err error) {
	if subidIsElsewhere() && name != "" {
		uids, err = getsubids(name)
		if err == nil {
			gids, err = getsubids("-g", name)
		}
		return uids, gids, err
	}
	if uids, err = fileRanges(subuidFile, uid, name); err != nil {
		return nil, nil, err
	}
	gids, err = fileRanges(subgidFile, uid, name)
	return uids, gids, err
}

func fileRanges(file string, uid int, name string) ([]Range, error) {
	all, err := readSubIDs(file)
	if err != nil {
		return nil, err
	}
	var mine []Range
	number := strconv.Itoa(uid)
	for _, o := range all {
		if o.owner != number && (name == "" || o.owner != name) {
			continue
		}
		// The kernel takes no overlapping extents, and the user's own id is
		// mapped already.
		own := Range{uint32(uid), 1}
		if o.overlaps(own) || slices.ContainsFunc(mine, o.overlaps) {
			continue
		}
		mine = append(mine, o.Range)
	}
	return mine, nil
}

// readSubIDs reads all lines of a file; a missing file has none. Lines that say
// nothing useful are skipped, as newuidmap skips them.
func readSubIDs(file string) ([]owned, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, subidMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > subidMax {
		return nil, errs.New(errs.Invalid, "%s: larger than %d bytes", file, subidMax)
	}
	return parseSubIDs(b), nil
}

func parseSubIDs(b []byte) []owned {
	var all []owned
	for line := range bytes.Lines(b) {
		owner, rest, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
		start, count, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || owner == "" || owner[0] == '#' {
			continue
		}
		s, err1 := strconv.ParseUint(start, 10, 32)
		n, err2 := strconv.ParseUint(count, 10, 32)
		// 2³²-1 is no id: it means "leave as it is" to chown(2).
		if err1 != nil || err2 != nil || n == 0 || s+n > 1<<32-1 {
			continue
		}
		all = append(all, owned{owner, Range{uint32(s), uint32(n)}})
	}
	return all
}

// subidIsElsewhere reports whether nsswitch.conf(5) names a source other than
// the files for "subid".
func subidIsElsewhere() bool {
	b, err := os.ReadFile("/etc/nsswitch.conf")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		line, _, _ = bytes.Cut(line, []byte{'#'})
		if rest, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("subid:")); ok {
			f := bytes.Fields(rest)
			return len(f) > 0 && string(f[0]) != "files"
		}
	}
	return false
}

// getsubids runs getsubids(1): "0: alice 100000 65536".
func getsubids(args ...string) ([]Range, error) {
	path := tool("getsubids")
	if path == "" {
		return nil, nil
	}
	out, err := (&exec.Cmd{Path: path, Args: append([]string{path}, args...)}).Output()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, nil // "Error fetching ranges": none
	}
	if err != nil {
		return nil, err
	}
	var all []Range
	for line := range bytes.Lines(out) {
		f := strings.Fields(string(line))
		if len(f) != 4 {
			continue
		}
		for _, o := range parseSubIDs([]byte(f[1] + ":" + f[2] + ":" + f[3])) {
			if !slices.ContainsFunc(all, o.overlaps) {
				all = append(all, o.Range)
			}
		}
	}
	return all, nil
}

// freeRange returns the first run of 65536 ids that no line of the file gives
// away, from where useradd(8) starts.
func freeRange(all []owned) Range {
	r := Range{100000, 65536}
	for again := true; again; {
		again = false
		for _, o := range all {
			if r.overlaps(o.Range) && o.end()+65536 < 1<<32 {
				r.Start, again = uint32(o.end()), true
			}
		}
	}
	return r
}

// giveRanges returns the commands that give the user ranges, for what is missing.
func giveRanges(user string, needUIDs, needGIDs bool) []string {
	var lines []string
	for _, f := range [...]struct {
		file string
		need bool
	}{{subuidFile, needUIDs}, {subgidFile, needGIDs}} {
		if !f.need {
			continue
		}
		all, err := readSubIDs(f.file)
		if err != nil {
			continue
		}
		r := freeRange(all)
		lines = append(lines, fmt.Sprintf(`as root: echo "%s:%d:%d" >> %s`, user, r.Start, r.Count, f.file))
	}
	return lines
}

// userName returns the login name of uid, or "". Users that are not in
// /etc/passwd are asked for with getent(1), since this program has no NSS.
func userName(uid int) string {
	number := strconv.Itoa(uid)
	find := func(b []byte) string {
		for line := range bytes.Lines(b) {
			f := strings.SplitN(string(line), ":", 4)
			if len(f) == 4 && f[2] == number {
				return f[0]
			}
		}
		return ""
	}
	if b, err := os.ReadFile("/etc/passwd"); err == nil {
		if name := find(b); name != "" {
			return name
		}
	}
	if path := tool("getent"); path != "" {
		if out, err := (&exec.Cmd{Path: path, Args: []string{path, "passwd", number}}).Output(); err == nil {
			return find(out)
		}
	}
	return ""
}

// tool finds a program of the system: in PATH, or where distributions put it
// when PATH is that of a service.
func tool(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range [...]string{"/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/", "/usr/local/bin/", "/run/wrappers/bin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	return ""
}
