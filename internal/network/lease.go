package network

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/network/ip"
	"github.com/isle-engine/isle/internal/state"
)

// lastName is the file with the last address given, one for each IP version.
func lastName(six bool) string {
	if six {
		return "/.last6"
	}
	return "/.last"
}

// lease takes an address of the subnet for container id: want, or the next free.
func (s *Store) lease(n *Network, p *Subnet, id string, want ip.Addr) (ip.Addr, error) {
	dir := s.leases(n.Name)
	if want.IsValid() {
		if !p.Subnet.Contains(want) {
			return want, errs.New(errs.Invalid, "invalid endpoint settings: no configured subnet contains IP address %s", want)
		}
		if s.reserved(p, want) {
			return want, errs.New(errs.Conflict, "address %s: belongs to network %s itself", want, n.Name)
		}
		ok, err := s.take(dir, want, id)
		if err == nil && !ok {
			err = errs.New(errs.Conflict, "Address already in use: %s in network %s", want, n.Name)
		}
		return want, err
	}
	pool := p.Subnet
	if p.Range.IsValid() {
		pool = p.Range
	}
	last := dir + lastName(pool.Addr().Is6())
	fd, err := unix.Open(last, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		if err == unix.ENOENT {
			return ip.Addr{}, errs.New(errs.NotFound, "network %s not found", n.Name)
		}
		return ip.Addr{}, &fs.PathError{Op: "open", Path: last, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // a hint
	var buf [64]byte
	got, _ := unix.Pread(fd, buf[:], 0) // unreadable is as good as empty
	cur, ok := ip.Parse(strings.TrimSpace(string(buf[:max(got, 0)])))
	if !ok || !pool.Contains(cur) {
		cur = pool.Last() // so that the next is the first
	}
	for range min(pool.Size(), 1<<20) {
		if cur = cur.Next(); !pool.Contains(cur) {
			cur = pool.First()
		}
		if s.reserved(p, cur) {
			continue
		}
		ok, err := s.take(dir, cur, id)
		if err != nil {
			return ip.Addr{}, err
		}
		if ok {
			text := cur.String()
			_, _ = unix.Pwrite(fd, append([]byte(text), strings.Repeat(" ", 45-len(text))...), 0) // a hint
			return cur, nil
		}
	}
	return ip.Addr{}, errs.New(errs.Unavailable, "no available IPv%d addresses on this network's address pools: %s (%s)", map[bool]int{false: 4, true: 6}[pool.Addr().Is6()], n.Name, n.ID)
}

// reserved reports whether a is never given to a container.
func (s *Store) reserved(p *Subnet, a ip.Addr) bool {
	if a == p.Gateway || a == p.Subnet.First() || a.Is4() && a == p.Subnet.Last() {
		return true
	}
	for _, x := range p.Aux {
		if x == a {
			return true
		}
	}
	return false
}

// take makes the lease of address a, if nobody who lives has it.
func (s *Store) take(dir string, a ip.Addr, id string) (bool, error) {
	name := dir + "/" + a.String()
	ok, err := create(name, id)
	if ok || err != nil {
		return ok, err
	}
	if s.leaseLives(name) {
		return false, nil
	}
	// What a killed monitor left. Two that find it must not both replace it.
	l, err := s.lock()
	if err != nil {
		return false, err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	if s.leaseLives(name) {
		return false, nil
	}
	if err := unix.Unlink(name); err != nil && err != unix.ENOENT {
		return false, &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return create(name, id)
}

// create makes the file of a lease; false when there is one.
func create(name, id string) (bool, error) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == unix.EEXIST {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	_, err = unix.Write(fd, []byte(id))
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		_ = unix.Unlink(name) // the error says more
		return false, &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return true, nil
}

// leaseLives reports whether the container of a lease lives. One that is being
// written, and so still empty, does.
func (s *Store) leaseLives(name string) bool {
	id, err := state.ReadFile(name)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	return !state.IsID(string(id)) || s.lives(string(id))
}

// lives reports whether a container's monitor does.
func (s *Store) lives(id string) bool { return state.ObjectHeld(s.env.Run+"/locks", id) }

// giveBack ends the lease of address a, if it is container id's.
func (s *Store) giveBack(network, a, id string) {
	if a == "" {
		return
	}
	name := s.leases(network) + "/" + a
	if who, err := state.ReadFile(name); err == nil && string(who) == id {
		_ = unix.Unlink(name) // a lease of the dead is taken over anyway
	}
}

// liveLeases returns the living containers with a lease in dir.
func (s *Store) liveLeases(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close() // only read
	if err != nil {
		return nil, err
	}
	var ids []string
	seen := map[string]bool{}
	for _, name := range names {
		if name[0] == '.' {
			continue
		}
		id, err := state.ReadFile(dir + "/" + name)
		if err != nil || !state.IsID(string(id)) || seen[string(id)] {
			continue
		}
		if s.lives(string(id)) {
			seen[string(id)] = true
			ids = append(ids, string(id))
		}
	}
	return ids, nil
}
