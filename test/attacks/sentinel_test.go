package attacks

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secret is the content of the host's files that no container may see.
const secret = "the host's own words"

// tree is a directory of the host that no attack may read or change.
type tree struct {
	t      *testing.T
	path   string
	before string
}

// newTree makes the tree: a file, a passwd with a user that only the host has,
// and directories named like those that engines mount over.
func newTree(a *attempt) *tree {
	a.t.Helper()
	s := &tree{t: a.t, path: filepath.Join(a.dir, "host")}
	for _, d := range []string{"etc", "data", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(s.path, d), 0o755); err != nil {
			a.t.Fatal(err)
		}
	}
	for name, data := range map[string]string{
		"secret": secret + "\n", "data/secret": secret + "\n", "etc/hosts": secret + "\n",
		"etc/passwd": "hostuser:x:0:0::/:/bin/sh\n", "etc/group": "hostgroup:x:0:\n",
	} {
		if err := os.WriteFile(filepath.Join(s.path, name), []byte(data), 0o644); err != nil {
			a.t.Fatal(err)
		}
	}
	s.before = s.listing()
	return s
}

// check notes what an attack changed.
func (s *tree) check(a *attempt) {
	a.t.Helper()
	if now := s.listing(); now != s.before {
		a.broke("the host's tree changed:\n%s\nwas\n%s", now, s.before)
		s.before = now
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(mounts), " "+s.path) {
		a.broke("something is mounted on the host's tree")
	}
}

// seen notes output that shows what only the host has.
func (s *tree) seen(a *attempt, what string, r result) {
	a.t.Helper()
	if strings.Contains(r.out+r.err, secret) {
		a.broke("%s shows a file of the host: %s", what, r)
	}
}

func (s *tree) listing() string {
	s.t.Helper()
	var b strings.Builder
	err := filepath.Walk(s.path, func(name string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, name, fi.Mode(), fi.Size(), fi.ModTime().UnixNano(), sum(name, fi))
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

func sum(name string, fi os.FileInfo) string {
	if !fi.Mode().IsRegular() {
		return ""
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// binary returns a check that the engine's executable is as it was.
func (a *attempt) binary() func() {
	a.t.Helper()
	read := func() [32]byte {
		data, err := os.ReadFile(a.path)
		if err != nil {
			a.t.Fatal(err)
		}
		return sha256.Sum256(data)
	}
	before := read()
	return func() {
		if read() != before {
			a.broke("the engine's executable has changed")
		}
	}
}

// listener opens a port of the host's loopback.
func listener(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}
