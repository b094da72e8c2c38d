package spec

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
)

// User is who a process in a container runs as.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups, the primary one first (CVE-2022-36109:
	// without it, a group that a file mode denies could be shed by setgid).
	Groups []uint32
	Home   string
	Name   string // "" for a number without an entry in passwd
	// KeepGroups leaves the caller's supplementary groups as they are.
	KeepGroups bool
}

// Limits of what is read of a container's passwd and group, which are the
// container's to write (CVE-2026-47262).
const (
	maxUserFile = 32 << 20
	maxUserLine = 1 << 20
)

// ResolveUser finds out who USER[:GROUP] is, given the container's /etc/passwd
// and /etc/group; nil stands for a file that is not there. It follows Docker:
//
//   - an empty user is 0; a number needs no entry in passwd;
//   - without GROUP, the group is that of passwd, and the supplementary groups
//     are those of group(5) that list the user;
//   - with GROUP, there are no supplementary groups but those of groupAdd.
//
// A string of digits is a number and never a name: an entry called "1000" with
// uid 0 gives nobody root (CVE-2026-46680). A line whose ids are no numbers in
// range is as good as absent.
func ResolveUser(user string, groupAdd []string, passwd, group io.Reader) (User, error) {
	unsafeUser, unsafeGroup, err := container.ParseUser(user)
	if err != nil {
		return User{}, err
	}
	if err := plain(unsafeUser); err != nil {
		return User{}, err
	}
	if err := plain(unsafeGroup); err != nil {
		return User{}, err
	}
	u := User{Home: "/"}
	uid, numeric, err := container.ParseID(unsafeUser)
	if err != nil {
		return User{}, err
	}
	if unsafeUser == "" {
		numeric = true
	}
	found, err := findUser(&u, passwd, unsafeUser, uint32(uid), numeric)
	switch {
	case err != nil:
		return User{}, err
	case !found && !numeric:
		return User{}, errs.New(errs.Invalid, "unable to find user %s: no matching entries in passwd file", unsafeUser)
	case !found:
		u.UID = uint32(uid)
	}
	w := wanted{primary: unsafeGroup, member: u.Name}
	if unsafeGroup != "" {
		w.member = ""
	}
	for _, g := range groupAdd {
		if g == "keep-groups" {
			if len(groupAdd) > 1 {
				return User{}, errs.New(errs.Invalid, "the '--group-add keep-groups' option is not allowed with any other --group-add options")
			}
			u.KeepGroups = true
			continue
		}
		if err := plain(g); err != nil {
			return User{}, err
		}
		w.add = append(w.add, g)
	}
	if err := findGroups(&u, group, &w); err != nil {
		return User{}, err
	}
	return u, nil
}

// plain refuses texts that a careless parser takes for a number: "0x0" is root
// to strtol(3).
func plain(s string) error {
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return errs.New(errs.Invalid, "invalid user or group %q: ids are decimal", s)
	}
	return nil
}

// findUser fills u from the first line of passwd that is about the user.
func findUser(u *User, passwd io.Reader, name string, uid uint32, numeric bool) (found bool, err error) {
	err = eachLine(passwd, "passwd", func(line []byte) bool {
		var f [7][]byte
		if cut(line, f[:]) < 4 || len(f[0]) == 0 {
			return true
		}
		id, ok := number(f[2])
		if !numeric && string(f[0]) != name || numeric && (!ok || id != uid) {
			return true
		}
		gid, ok2 := number(f[3])
		if !ok || !ok2 {
			return true // as good as absent: never 0 in place of what is not a number
		}
		u.UID, u.GID, u.Name, found = id, gid, string(f[0]), true
		if len(f[5]) > 0 {
			u.Home = string(f[5])
		}
		return false
	})
	return found, err
}

// wanted is what is looked for in group(5).
type wanted struct {
	primary string   // GROUP of USER:GROUP; "" for none
	member  string   // whose groups count; "" for nobody's
	add     []string // --group-add
}

// findGroups fills the groups of u. One pass over the file serves all.
func findGroups(u *User, group io.Reader, w *wanted) error {
	primaryID, primaryNumeric, err := container.ParseID(w.primary)
	if err != nil {
		return err
	}
	addIDs := make([]int64, len(w.add)) // -1: not yet found
	names := w.primary != "" && !primaryNumeric || w.member != ""
	for i, g := range w.add {
		id, ok, err := container.ParseID(g)
		if err != nil {
			return err
		}
		addIDs[i] = int64(id)
		if !ok {
			addIDs[i], names = -1, true
		}
	}
	if primaryNumeric {
		u.GID = uint32(primaryID)
	}
	var member []uint32
	foundPrimary := false
	if names {
		err = eachLine(group, "group", func(line []byte) bool {
			var f [4][]byte
			if cut(line, f[:]) < 3 || len(f[0]) == 0 {
				return true
			}
			id, ok := number(f[2])
			if !ok {
				return true
			}
			if !primaryNumeric && w.primary != "" && !foundPrimary && string(f[0]) == w.primary {
				u.GID, foundPrimary = id, true
			}
			if w.member != "" && listed(f[3], w.member) {
				member = append(member, id)
			}
			for i, g := range w.add {
				if addIDs[i] < 0 && string(f[0]) == g {
					addIDs[i] = int64(id)
				}
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	if w.primary != "" && !primaryNumeric && !foundPrimary {
		return errs.New(errs.Invalid, "unable to find group %s: no matching entries in group file", w.primary)
	}
	for i, id := range addIDs {
		if id < 0 {
			return errs.New(errs.Invalid, "unable to find group %s: no matching entries in group file", w.add[i])
		}
		member = append(member, uint32(id))
	}
	u.Groups = append(make([]uint32, 0, 1+len(member)), u.GID)
	seen := map[uint32]bool{}
	if len(member) > 32 {
		for _, g := range u.Groups {
			seen[g] = true
		}
	}
	for _, g := range member {
		if len(member) > 32 {
			if seen[g] {
				continue
			}
			seen[g] = true
		} else if slices.Contains(u.Groups, g) {
			continue
		}
		u.Groups = append(u.Groups, g)
	}
	// NGROUPS_MAX; the kernel would refuse more with EINVAL.
	if len(u.Groups) > 65536 {
		return errs.New(errs.Invalid, "user %s: is in more than 65536 groups", u.Name)
	}
	return nil
}

// listed reports whether the comma-separated list names the user.
func listed(list []byte, name string) bool {
	for len(list) > 0 {
		var one []byte
		one, list, _ = bytes.Cut(list, []byte{','})
		if string(one) == name {
			return true
		}
	}
	return false
}

// cut splits a line at colons into f and returns how many parts there are.
func cut(line []byte, f [][]byte) int {
	for i := range f {
		part, rest, more := bytes.Cut(line, []byte{':'})
		f[i] = part
		if !more || i == len(f)-1 {
			return i + 1
		}
		line = rest
	}
	return len(f)
}

// number reads an id: decimal digits only, at most container.MaxID.
func number(b []byte) (uint32, bool) {
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	var v uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + uint64(c-'0')
	}
	return uint32(v), v <= container.MaxID
}

// eachLine calls f for each line that is not a comment, until f returns false.
// It holds one line at a time.
func eachLine(r io.Reader, name string, f func(line []byte) bool) error {
	if r == nil {
		return nil
	}
	file, longest := int64(maxUserFile), maxUserLine
	if defence.Removed("limits") {
		file, longest = math.MaxInt64-1, math.MaxInt
	}
	lr := &io.LimitedReader{R: r, N: file + 1}
	br := bufio.NewReaderSize(lr, 4096)
	var long []byte
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(long)+len(line) > longest {
				return errs.New(errs.Invalid, "the container's /etc/%s: a line is longer than %d bytes", name, maxUserLine)
			}
			long = append(long, line...)
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return errs.New(errs.Unknown, "the container's /etc/%s: %w", name, err)
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if lr.N == 0 {
			return errs.New(errs.Invalid, "the container's /etc/%s: larger than %d bytes", name, maxUserFile)
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !f(line) {
			return nil
		}
		if err != nil {
			return nil //nolint:nilerr // the end of the file
		}
		long = long[:0]
	}
}

// String names the user as USER[:GROUP] takes it.
func (u User) String() string {
	return strconv.FormatUint(uint64(u.UID), 10) + ":" + strconv.FormatUint(uint64(u.GID), 10)
}
