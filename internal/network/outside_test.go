package network

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/testenv"
)

// outsideRig has programs of those names that write down how they were called.
// Root is in the user's place.
func outsideRig(t *testing.T, script string) (s *Store, said func() string) {
	t.Helper()
	testenv.Need(t, testenv.Root)
	runtime.LockOSThread() // whose end the processes it starts do not survive
	dir := testenv.Dir(t)
	env := config.Env{Data: dir + "/data", Run: dir + "/run", Rootless: true}
	if err := env.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pasta", "slirp4netns"} {
		if err := os.WriteFile(dir+"/"+name, []byte("#!/bin/sh\necho \"$@\" >"+dir+"/said\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return Open(env), func() string {
		b, err := os.ReadFile(dir + "/said")
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
}

func connectOutside(t *testing.T, s *Store, c container.Config) (*Attachment, error) {
	t.Helper()
	rec := &container.Record{ID: state.NewID(), Config: c}
	a, err := s.Prepare(rec)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = a.Detach() })
	w := &wire{t: t}
	return a, a.Connect(w.sleeper())
}

func TestSlirp4netns(t *testing.T) {
	s, said := outsideRig(t, "echo 1 >&3; exec env ISLE_TEST_RUN=$0 cat <&4")
	a, err := connectOutside(t, s, container.Config{Network: "slirp4netns:mtu=1400"})
	if err != nil {
		t.Fatal(err)
	}
	got := said()
	for _, want := range []string{"--mtu=1400", "--disable-host-loopback", "--netns-type=path", s.nsFile(a.id) + " tap0"} {
		if !strings.Contains(got, want) {
			t.Errorf("called with %q, want %q in it", got, want)
		}
	}
	if dns := a.DNS(); len(dns) != 1 || dns[0] != slirpDNS {
		t.Errorf("name servers: %v", dns)
	}
	if a.HostAddr() != "" {
		t.Errorf("the host is %s without having been asked for", a.HostAddr())
	}
	life := a.Files()[0]
	var st unix.Statfs_t
	if err := unix.Statfs(s.nsFile(a.id), &st); err != nil || st.Type != nsfsMagic {
		t.Errorf("the namespace is not where the program was told: %v", err)
	}
	// It ends with the container: the other end of its pipe is closed.
	p := []unix.PollFd{{Fd: int32(life.Fd())}}
	if n, err := unix.Poll(p, 0); n != 0 || err != nil {
		t.Fatalf("ended early: %d %v", p[0].Revents, err)
	}
	if err := a.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.nsFile(a.id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		pids, err := testenv.Processes("cat", s.env.Run)
		if err == nil && len(pids) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the program outlives its container: %v %v", pids, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestPasta(t *testing.T) {
	s, said := outsideRig(t, "exit 0")
	a, err := connectOutside(t, s, container.Config{Network: "pasta:-m,1500", Publish: []string{"127.0.0.1:18080:80"}})
	if err != nil {
		t.Fatal(err)
	}
	got := said()
	for _, want := range []string{"-t 127.0.0.1/18080:80", "-u none", "--no-map-gw", "-m 1500", "--netns " + s.nsFile(a.id)} {
		if !strings.Contains(got, want) {
			t.Errorf("called with %q, want %q in it", got, want)
		}
	}
	if _, err := connectOutside(t, s, container.Config{Network: "pasta:--map-gw"}); err != nil || strings.Contains(said(), "map-gw") {
		t.Errorf("asked for the host's loopback: %q %v", said(), err)
	}
}

func TestOutsideFails(t *testing.T) {
	s, _ := outsideRig(t, "echo cannot work here >&2; exit 3")
	for _, mode := range []string{"pasta", "slirp4netns"} {
		if _, err := connectOutside(t, s, container.Config{Network: mode}); err == nil || !strings.Contains(err.Error(), "cannot work here") {
			t.Errorf("%s: %v", mode, err)
		}
	}
	t.Setenv("PATH", "/nowhere")
	if lookPath("pasta") == "" {
		if _, err := s.Prepare(&container.Record{ID: state.NewID(), Config: container.Config{Network: "pasta"}}); !errors.Is(err, errs.NotFound) {
			t.Errorf("not installed: %v", err)
		}
	}
	s.env.Rootless = false
	if _, err := s.Prepare(&container.Record{ID: state.NewID(), Config: container.Config{Network: "pasta"}}); !errors.Is(err, errs.Unsupported) {
		t.Errorf("for root: %v", err)
	}
}
