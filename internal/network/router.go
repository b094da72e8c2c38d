package network

import (
	"os"

	"golang.org/x/sys/unix"
)

// router returns the namespace that the bridges are in: nil, the caller's own,
// for root. With make it is made where it is missing.
func (s *Store) router(bool) (*os.File, error) {
	if !s.env.Rootless {
		return nil, nil //nolint:nilnil // the own namespace is an answer
	}
	return nil, unix.ENOSYS
}
