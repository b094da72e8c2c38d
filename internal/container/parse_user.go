package container

import (
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
)

// MaxID is the largest user or group id that may be asked for. The kernel knows
// 32 bits, with 2^32-1 meaning "no change": ids that only fit when wrapped
// around have given root before (CVE-2024-40635), so the limit is Docker's.
const MaxID = 1<<31 - 1

// ParseUser splits USER[:GROUP] of --user. Names are looked up later, inside the
// container; what can be seen to be wrong without it is refused here: an empty
// user, signs, white space, and ids out of range.
func ParseUser(s string) (user, group string, err error) {
	user, group, two := strings.Cut(s, ":")
	if user == "" && s != "" || two && group == "" {
		return "", "", errs.New(errs.Invalid, "invalid user %q: want <name|uid>[:<group|gid>]", s)
	}
	for _, part := range [...]string{user, group} {
		if err := checkIDOrName(part); err != nil {
			return "", "", errs.New(errs.Invalid, "invalid user %q: %w", s, err)
		}
	}
	return user, group, nil
}

// ParseID reads a numeric user or group id. ok is false when s is not a plain
// decimal number, which makes it a name; a number out of range is an error.
func ParseID(s string) (id int, ok bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil && defence.Removed("uid") {
		return int(uint32(n)), true, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n > MaxID {
		return 0, true, errs.New(errs.Invalid, "id %s: uids and gids must be in range 0-%d", s, MaxID)
	}
	return int(n), true, nil
}

func checkIDOrName(s string) error {
	if _, ok, err := ParseID(s); ok {
		return err
	}
	if s != "" && (s[0] == '-' || s[0] == '+') {
		return errs.New(errs.Invalid, "%q is neither an id nor a name", s)
	}
	if strings.ContainsAny(s, ":/ \t\r\n\x00,") {
		return errs.New(errs.Invalid, "%q is neither an id nor a name", s)
	}
	return nil
}
