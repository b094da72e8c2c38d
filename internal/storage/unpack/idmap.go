package unpack

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// IDs tells which user and group ids exist in the caller's user namespace.
type IDs struct {
	uids, gids []idRange
}

type idRange struct{ first, count uint64 }

// allIDs is the size of the initial user namespace.
const allIDs = 1<<32 - 1

// OwnIDs reads the mapping of the calling process.
func OwnIDs() (IDs, error) {
	var ids IDs
	for _, f := range []struct {
		path string
		to   *[]idRange
	}{{"/proc/self/uid_map", &ids.uids}, {"/proc/self/gid_map", &ids.gids}} {
		b, err := os.ReadFile(f.path)
		if err != nil {
			return ids, err
		}
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if len(w) != 3 {
				continue
			}
			first, err1 := strconv.ParseUint(w[0], 10, 32)
			count, err2 := strconv.ParseUint(w[2], 10, 33)
			if err1 != nil || err2 != nil {
				return ids, fmt.Errorf("%s: %q", f.path, line)
			}
			*f.to = append(*f.to, idRange{first, count})
		}
	}
	return ids, nil
}

// Initial reports whether the mapping is that of the initial user namespace.
func (m IDs) Initial() bool {
	return len(m.uids) == 1 && m.uids[0] == idRange{0, allIDs}
}

func has(rs []idRange, id int64) bool {
	for _, r := range rs {
		if uint64(id)-r.first < r.count {
			return true
		}
	}
	return false
}
