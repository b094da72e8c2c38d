package storage

import (
	"strconv"
)

// Calls are the system calls by which Mount stacks layers, as strace(1) prints
// them: those of kernels that take layers one by one (6.8); older ones are given
// the same in other ways (mount.go). Nothing is mounted.
func (s *Store) Calls(layers []string, upper, work string, o MountOptions) ([]string, error) {
	st, err := s.stack(layers, upper, work, o)
	if err != nil {
		return nil, err
	}
	calls := []string{`fsopen("overlay", FSOPEN_CLOEXEC) → overlay context`}
	set := func(key, value string) error {
		if value == "" {
			calls = append(calls, "fsconfig(‹overlay context›, FSCONFIG_SET_FLAG, "+strconv.Quote(key)+", NULL, 0)")
			return nil
		}
		calls = append(calls, "fsconfig(‹overlay context›, FSCONFIG_SET_STRING, "+strconv.Quote(key)+", "+strconv.Quote(value)+", 0)")
		return nil
	}
	if err := st.options(set); err != nil {
		return nil, err
	}
	for _, l := range st.lower {
		if err := set(appendOption, l); err != nil {
			return nil, err
		}
	}
	if upper != "" {
		if err := set("upperdir", upper); err != nil {
			return nil, err
		}
		if err := set("workdir", work); err != nil {
			return nil, err
		}
	}
	return append(calls,
		"fsconfig(‹overlay context›, FSCONFIG_CMD_CREATE, NULL, NULL, 0)",
		"fsmount(‹overlay context›, FSMOUNT_CLOEXEC, 0) → overlay"), nil
}

// Lower are the directories that a stack of layers is made of, highest first, as
// overlayfs has them.
func (s *Store) Lower(layers []string, o MountOptions) ([]string, error) {
	st, err := s.stack(layers, "upper", "work", o) // as with a writable layer
	if err != nil {
		return nil, err
	}
	return st.lower, nil
}
