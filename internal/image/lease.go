package image

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

// Lease keeps content from being deleted while it has no record yet. It ends
// with Close or with the process.
type Lease struct {
	s    *Store
	lock *state.Lock
	path string
}

// Lease begins a lease that protects nothing yet.
func (s *Store) Lease() (*Lease, error) {
	// Under the store's lock, or whoever sweeps would meet the file between
	// its creation and its locking.
	l, err := s.lock()
	if err != nil {
		return nil, err
	}
	path := s.tmp("lease-" + rand.Text())
	own, err := state.TryLock(path)
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, err
	}
	return &Lease{s, own, path}, nil
}

// Add protects blobs and layers by their digests and diff ids. What is found
// present after Add stays present until the lease ends.
func (l *Lease) Add(digests ...string) error {
	lock, err := l.s.lock()
	if err != nil {
		return err
	}
	// Not fsynced: after a power loss its owner is dead too.
	_, err = l.lock.File().WriteString(strings.Join(digests, "\n") + "\n")
	return errors.Join(l.s.explain(err), lock.Close())
}

// Close ends the lease.
func (l *Lease) Close() error {
	return errors.Join(os.Remove(l.path), l.lock.Close())
}

// leased returns the digests in the leases of live processes. The caller holds
// the store's lock.
func (s *Store) leased() (map[string]bool, error) {
	files, err := readDir(s.dir + "/tmp")
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool)
	for _, f := range files {
		if !strings.HasPrefix(f, "lease-") || !state.Held(s.tmp(f)) {
			continue
		}
		data, err := os.ReadFile(s.tmp(f))
		if errors.Is(err, fs.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "lease: %w", err)
		}
		for d := range strings.SplitSeq(string(data), "\n") {
			out[d] = true
		}
	}
	return out, nil
}
