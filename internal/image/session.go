package image

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/isle-engine/isle/internal/state"
)

// Session returns what an earlier process has kept under key, "" if nothing, a
// function that replaces it, and one that ends the use of it, which forgets it
// if "" was kept last. It is for what helps a later process and is no loss when
// it is gone: a day later it is swept. While another process has the session,
// there is none to be had or kept.
func (s *Store) Session(key string) (session string, keep func(string), end func()) {
	path := s.tmp(sessionPrefix + digestHex(DigestOf([]byte(key))))
	lock, err := state.TryLock(path)
	if err != nil {
		return "", func(string) {}, func() {}
	}
	f := lock.File()
	data, err := io.ReadAll(io.LimitReader(f, maxSession))
	if err != nil {
		data = nil
	}
	// The key is in it, too: whoever reads it need not trust a hash alone.
	session, _ = strings.CutPrefix(string(data), key+"\n")
	if len(session) == len(data) {
		session = ""
	}
	last := session
	keep = func(session string) {
		last = session
		if session != "" {
			session = key + "\n" + session
		}
		if f.Truncate(0) == nil {
			_, _ = f.WriteAt([]byte(session), 0) // a loss costs a repetition
		}
	}
	return session, keep, func() {
		if last == "" {
			_ = os.Remove(path) // left behind, it is swept later
		}
		_ = lock.Close() // nothing in it is wanted
	}
}

const (
	sessionPrefix = "session-"
	maxSession    = 64 << 10
)

// AddName gives the image id a further name, also one with a digest.
func (s *Store) AddName(id string, n Name) (Err error) {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	img, err := s.byID(id)
	if err != nil {
		return err
	}
	if _, err := s.setName(n, img); err != nil {
		return err
	}
	return s.writeIndex()
}
