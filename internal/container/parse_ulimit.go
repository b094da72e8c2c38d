package container

import (
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// UlimitNames are the resources of setrlimit(2) as --ulimit names them, in the
// order of their numbers in Linux: the index is the RLIMIT_ value.
var UlimitNames = [...]string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile",
	"memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
}

// UlimitNumber returns the RLIMIT_ value of a ulimit's name, or -1.
func UlimitNumber(name string) int {
	for i, n := range UlimitNames {
		if n == name {
			return i
		}
	}
	return -1
}

// ParseUlimit reads NAME=SOFT[:HARD]. -1 and "unlimited" mean no limit; a
// missing hard limit is the soft one.
func ParseUlimit(s string) (Ulimit, error) {
	name, vals, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return Ulimit{}, errs.New(errs.Invalid, "invalid ulimit argument: %s", s)
	}
	if UlimitNumber(name) < 0 {
		return Ulimit{}, errs.New(errs.Invalid, "invalid ulimit type: %s", name)
	}
	soft, hard, two := strings.Cut(vals, ":")
	if strings.Contains(hard, ":") {
		return Ulimit{}, errs.New(errs.Invalid, "too many limit value arguments - %s, can only have up to two, `soft[:hard]`", vals)
	}
	u := Ulimit{Name: name}
	var err error
	if u.Soft, err = ulimitValue(soft); err != nil {
		return Ulimit{}, err
	}
	u.Hard = u.Soft
	if two {
		if u.Hard, err = ulimitValue(hard); err != nil {
			return Ulimit{}, err
		}
	}
	if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
		return Ulimit{}, errs.New(errs.Invalid, "ulimit soft limit must be less than or equal to hard limit: %s > %s", ulimitText(u.Soft), ulimitText(u.Hard))
	}
	return u, nil
}

func ulimitValue(s string) (int64, error) {
	if s == "unlimited" {
		return -1, nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < -1 {
		return 0, errs.New(errs.Invalid, "invalid ulimit value: %q", s)
	}
	return v, nil
}

func ulimitText(v int64) string {
	if v == -1 {
		return "unlimited"
	}
	return strconv.FormatInt(v, 10)
}

// String returns the ulimit as --ulimit takes it.
func (u Ulimit) String() string {
	return u.Name + "=" + strconv.FormatInt(u.Soft, 10) + ":" + strconv.FormatInt(u.Hard, 10)
}
