package unpack

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
)

// maxDirs is how many directories stay open. Archives come in order, so that a
// few would do; layers made by package managers jump about a little.
const maxDirs = 128

// dirNode is an open directory of the layer.
type dirNode struct {
	path       string // canonical: below the root, without symbolic links; "" is the root
	fd         int    // O_PATH
	pins       int
	prev, next *dirNode // by last use
}

// dirCache keeps directories open by their canonical path, and remembers which
// other paths lead to them through symbolic links.
type dirCache struct {
	root    *dirNode
	nodes   map[string]*dirNode
	aliases map[string]string
	last    *dirNode // the one asked for before, and how it was called
	lastKey string
	ring    dirNode // sentinel: next is the latest used, prev the oldest
	base    string  // what /proc says of the root, found when needed
	looking bool    // nothing is made: see lookup
	// made is called for every directory that the cache had to make.
	made func(parent *dirNode, name string, overWhiteout bool) error
}

func newDirCache(root int) *dirCache {
	c := &dirCache{nodes: map[string]*dirNode{}}
	c.ring.prev, c.ring.next = &c.ring, &c.ring
	c.root = &dirNode{fd: root, pins: 1}
	return c
}

// close closes all directories but the root.
func (c *dirCache) close() {
	for _, n := range c.nodes {
		_ = unix.Close(n.fd)
	}
}

func (c *dirCache) unlink(n *dirNode) { n.prev.next, n.next.prev = n.next, n.prev }

func (c *dirCache) front(n *dirNode) {
	n.prev, n.next = &c.ring, c.ring.next
	n.prev.next, n.next.prev = n, n
}

func (c *dirCache) insert(path string, fd int) *dirNode {
	if n := c.nodes[path]; n != nil {
		_ = unix.Close(fd)
		return n
	}
	n := &dirNode{path: path, fd: fd}
	c.nodes[path] = n
	c.front(n)
	for old := c.ring.prev; len(c.nodes) > maxDirs && old != &c.ring && old != n; {
		prev := old.prev
		if old.pins == 0 {
			c.drop(old)
		}
		old = prev
	}
	return n
}

func (c *dirCache) drop(n *dirNode) {
	c.unlink(n)
	delete(c.nodes, n.path)
	_ = unix.Close(n.fd)
	if c.last == n {
		c.last = nil
	}
}

// forget closes what is at and below a canonical path that is about to change.
func (c *dirCache) forget(path string) {
	clear(c.aliases)
	c.last = nil
	for p, n := range c.nodes {
		if p == path || strings.HasPrefix(p, path) && p[len(path)] == '/' {
			c.drop(n)
		}
	}
}

// closeFD closes a descriptor. What was written to it is for the sync of the
// whole layer to answer for.
func closeFD(fd int) { _ = unix.Close(fd) }

// openHere opens the directory at path below dir. No link is followed unless
// inRoot, which follows them as if the layer's root were "/".
func openHere(dir int, path string, inRoot bool) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	if inRoot {
		how.Flags &^= unix.O_NOFOLLOW
		how.Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	}
	how.Resolve = defence.Resolve(how.Resolve)
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// get returns the directory at path (clean, relative, "" for the root), making
// what is missing. The result stays open until the next get, or while pinned.
func (c *dirCache) get(path string) (*dirNode, error) {
	if path == "" {
		return c.root, nil
	}
	if c.last != nil && c.lastKey == path {
		return c.last, nil
	}
	n, err := c.find(path)
	if err != nil {
		return nil, err
	}
	c.last, c.lastKey = n, path
	return n, nil
}

// lookup is get for a directory that must be there.
func (c *dirCache) lookup(path string) (*dirNode, error) {
	c.looking = true
	defer func() { c.looking = false }()
	return c.get(path)
}

func (c *dirCache) find(path string) (*dirNode, error) {
	if path == "" {
		return c.root, nil
	}
	key := path
	if to, ok := c.aliases[path]; ok {
		key = to
	}
	if n := c.nodes[key]; n != nil {
		c.unlink(n)
		c.front(n)
		return n, nil
	}
	if key == "" {
		return c.root, nil
	}
	fd, err := openHere(c.root.fd, key, false)
	if err == nil {
		return c.insert(key, fd), nil
	}
	if err != unix.ENOENT && err != unix.ELOOP && err != unix.ENOTDIR {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}

	// Something is missing or is a link: go down from the last directory above.
	dir, name := splitPath(key)
	up, err := c.find(dir)
	if err != nil {
		return nil, err
	}
	real := join(up.path, name)
	fd, err = openHere(up.fd, name, false)
	if err == unix.ENOENT && !c.looking {
		if err := unix.Mkdirat(up.fd, name, 0o755); err != nil {
			return nil, &os.PathError{Op: "mkdir", Path: real, Err: err}
		}
		if err := c.made(up, name, false); err != nil {
			return nil, err
		}
		fd, err = openHere(up.fd, name, false)
	}
	if err == unix.ELOOP || err == unix.ENOTDIR {
		fd, real, err = c.through(up, name)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	n := c.insert(real, fd)
	if real == "" {
		// A link to the root itself.
		c.drop(n)
		n = c.root
	}
	if real != path {
		if c.aliases == nil {
			c.aliases = map[string]string{}
		}
		c.aliases[path] = real
	}
	return n, nil
}

// through handles a path component that is there and is no directory.
func (c *dirCache) through(up *dirNode, name string) (fd int, real string, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(up.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, "", err
	}
	real = join(up.path, name)
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		fd, err := openHere(c.root.fd, real, true)
		if err == unix.ENOENT {
			return -1, "", errs.New(errs.Corrupt, "dangling symbolic link: %w", err)
		}
		if err == unix.ELOOP || err == unix.ENOTDIR {
			return -1, "", errs.As(errs.Corrupt, err)
		}
		if err != nil {
			return -1, "", err
		}
		real, err := c.pathOf(fd)
		if err != nil {
			_ = unix.Close(fd)
			return -1, "", err
		}
		return fd, real, nil
	case isWhiteout(&st) && !c.looking:
		// "x deleted, then x/y": a new directory that hides the one below.
		if err := unix.Unlinkat(up.fd, name, 0); err != nil {
			return -1, "", err
		}
		if err := unix.Mkdirat(up.fd, name, 0o755); err != nil {
			return -1, "", err
		}
		if err := c.made(up, name, true); err != nil {
			return -1, "", err
		}
		fd, err := openHere(up.fd, name, false)
		return fd, real, err
	}
	return -1, "", errs.As(errs.Corrupt, unix.ENOTDIR)
}

// pathOf returns the canonical path of an open directory of the layer.
func (c *dirCache) pathOf(fd int) (string, error) {
	if c.base == "" {
		base, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(c.root.fd))
		if err != nil {
			return "", err
		}
		c.base = base
	}
	full, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(full, c.base)
	if defence.Removed("resolve") {
		return full, nil // as an unpacker that keeps no account of where it is
	}
	if !ok || rest != "" && rest[0] != '/' {
		return "", errs.New(errs.Conflict, "directory left the layer: %w", unix.EXDEV)
	}
	return strings.TrimPrefix(rest, "/"), nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func splitPath(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
