package userns

import (
	"cmp"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isle-engine/isle/internal/errs"
)

// AutoSize is how many ids --userns=auto gives without size=.
const AutoSize = 65536

// The functions below compute the mapping of a container's own user namespace.
// Its HostID are ids inside the user's namespace, where the user is 0 and the
// subordinate ids follow; own is the mapping of that namespace.

// KeepID maps id inside to the user, and the subordinate ids around it:
//
//	inside        user's namespace
//	0 … id-1      1 … id
//	id            0 (the user)
//	id+1 …        id+1 …
//
// With fewer subordinate ids than id, the ids that are missing are those
// directly below id.
func KeepID(own []specs.LinuxIDMapping, id uint32) []specs.LinuxIDMapping {
	have := available(own)
	if have == 0 {
		return nil
	}
	below := min(id, have-1)
	var m []specs.LinuxIDMapping
	if below > 0 {
		m = append(m, specs.LinuxIDMapping{ContainerID: 0, HostID: 1, Size: below})
	}
	m = append(m, specs.LinuxIDMapping{ContainerID: id, HostID: 0, Size: 1})
	if rest := have - 1 - below; rest > 0 {
		m = append(m, specs.LinuxIDMapping{ContainerID: id + 1, HostID: below + 1, Size: min(rest, 1<<32-2-id)})
	}
	return m
}

// NoMap maps the subordinate ids from 0 on, and the user not at all.
func NoMap(own []specs.LinuxIDMapping) ([]specs.LinuxIDMapping, error) {
	have := available(own)
	if have < 2 {
		return nil, errs.New(errs.Unsupported, "userns nomap: this user has no subordinate ids")
	}
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: have - 1}}, nil
}

// available is the number of ids from 0 on without a gap.
func available(own []specs.LinuxIDMapping) uint32 {
	sorted := slices.Clone(own)
	slices.SortFunc(sorted, func(a, b specs.LinuxIDMapping) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
	var next uint32
	for _, m := range sorted {
		if m.ContainerID != next {
			break
		}
		next += m.Size
	}
	return next
}

// Auto maps count ids, from 0 inside, to ids of avail (HostID is not looked at)
// that no extent of used (by its HostID) has: no two containers share an id. It takes the lowest
// free ids, in several pieces where it must.
func Auto(avail, used []specs.LinuxIDMapping, count uint32) ([]specs.LinuxIDMapping, error) {
	taken := slices.Clone(used)
	slices.SortFunc(taken, func(a, b specs.LinuxIDMapping) int { return cmp.Compare(a.HostID, b.HostID) })
	pool := slices.Clone(avail)
	slices.SortFunc(pool, func(a, b specs.LinuxIDMapping) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
	var m []specs.LinuxIDMapping
	got := uint64(0)
	take := func(from, to uint64) {
		if from < to && got < uint64(count) {
			n := min(to-from, uint64(count)-got)
			m = append(m, specs.LinuxIDMapping{ContainerID: uint32(got), HostID: uint32(from), Size: uint32(n)})
			got += n
		}
	}
	for _, a := range pool {
		from, end := uint64(a.ContainerID), uint64(a.ContainerID)+uint64(a.Size)
		if from == 0 {
			from = 1 // the user itself is nobody's spare id
		}
		for _, u := range taken {
			lo, hi := uint64(u.HostID), uint64(u.HostID)+uint64(u.Size)
			if hi <= from || lo >= end {
				continue
			}
			take(from, lo)
			from = hi
		}
		take(from, end)
	}
	if got < uint64(count) || len(m) > maxExtents {
		return nil, errs.New(errs.Unavailable, "userns auto: %d ids wanted, %d are free", count, got)
	}
	return m, nil
}

// RootRange is where root's --userns=auto takes ids from: the range of the user
// "containers" in /etc/subuid and /etc/subgid, as Podman has it, or else the ids
// from 2³¹-1 on, which useradd(8) gives to nobody.
func RootRange() (uids, gids []specs.LinuxIDMapping, err error) {
	for _, f := range [...]struct {
		file string
		out  *[]specs.LinuxIDMapping
	}{{subuidFile, &uids}, {subgidFile, &gids}} {
		all, err := readSubIDs(f.file)
		if err != nil {
			return nil, nil, err
		}
		*f.out = rootRange(all)
	}
	return uids, gids, nil
}

func rootRange(all []owned) []specs.LinuxIDMapping {
	var m []specs.LinuxIDMapping
	for _, o := range all {
		if o.owner == "containers" {
			m = append(m, specs.LinuxIDMapping{ContainerID: o.Start, HostID: o.Start, Size: o.Count})
		}
	}
	if m != nil {
		return m
	}
	free := []specs.LinuxIDMapping{{ContainerID: 1<<31 - 1, HostID: 1<<31 - 1, Size: 1 << 31}}
	for _, o := range all {
		var kept []specs.LinuxIDMapping
		for _, f := range free {
			lo, hi := uint64(f.ContainerID), uint64(f.ContainerID)+uint64(f.Size)
			if uint64(o.Start) >= hi || o.end() <= lo {
				kept = append(kept, f)
				continue
			}
			if uint64(o.Start) > lo {
				kept = append(kept, specs.LinuxIDMapping{ContainerID: uint32(lo), HostID: uint32(lo), Size: uint32(uint64(o.Start) - lo)})
			}
			if o.end() < hi {
				kept = append(kept, specs.LinuxIDMapping{ContainerID: uint32(o.end()), HostID: uint32(o.end()), Size: uint32(hi - o.end())})
			}
		}
		free = kept
	}
	return free
}
