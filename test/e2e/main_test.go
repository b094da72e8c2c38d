package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/linux/refuse"
	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/images"
)

// varRegistry carries the address of the registry to copies of a test that run
// as somebody else.
const varRegistry = "ISLE_E2E_REGISTRY"

// varSessions lists session files for TestSessions: what a certain machine and
// user see, made ready by whoever runs the tests (test/vm).
const varSessions = "ISLE_E2E_SESSIONS"

// varStore names a directory that keeps the registry's storage between runs, or
// brings it to a machine that has not the packages the images are made of.
const varStore = "ISLE_E2E_STORE"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "refuse" {
		os.Exit(refuse.Main(os.Args[2:]))
	}
	os.Exit(run(m))
}

// run serves the images from one registry to all tests, and their copies.
func run(m *testing.M) int {
	if _, served := os.LookupEnv(varRegistry); served {
		return m.Run()
	}
	dir, err := os.MkdirTemp("/var/tmp", "isle-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	addr, stop, err := serve(dir)
	defer stop()
	if err != nil {
		// The tests that need it say which package is missing, and are counted.
		fmt.Fprintln(os.Stderr, "e2e: no registry:", err)
	}
	if err := os.Setenv(varRegistry, addr); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

func serve(dir string) (addr string, stop func(), err error) {
	if store := os.Getenv(varStore); store != "" {
		if err := errors.Join(os.MkdirAll(store, 0o755), os.Symlink(store, filepath.Join(dir, "store"))); err != nil {
			return "", func() {}, err
		}
	}
	r, err := images.StartRegistry(dir, false)
	if err != nil {
		return "", func() {}, err
	}
	if filled() {
		return r.Addr, r.Stop, nil
	}
	for _, make := range []func(string) (*images.Image, error){images.Alpine, images.Busybox, images.Nginx, images.Stress} {
		m, err := make(dir)
		if err == nil {
			_, err = r.Push(m)
		}
		if err != nil {
			return r.Addr, r.Stop, err
		}
	}
	return r.Addr, r.Stop, nil
}

// filled reports whether the store that was brought along has the images.
func filled() bool {
	store := os.Getenv(varStore)
	_, err := os.Stat(filepath.Join(store, "docker/registry/v2/repositories/library/stress/_manifests/tags/latest"))
	return store != "" && err == nil
}

// needImages are the needs of tests that pull.
func needImages(t *testing.T) {
	t.Helper()
	testenv.Need(t, testenv.Registry, testenv.PS)
	if !filled() {
		testenv.Need(t, testenv.Busybox, testenv.Nginx, testenv.StressNG)
	}
}

// asRoot and asUser run the test's rest as that user, in cgroups of its own.
func asRoot(t *testing.T) bool {
	t.Helper()
	testenv.Need(t, testenv.Root)
	return testenv.InCgroups(t)
}

func asUser(t *testing.T) bool {
	t.Helper()
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	return testenv.AsUserInCgroups(t)
}

// TestReadmeIsTheLesson keeps README.md and the session that is tested the same.
func TestReadmeIsTheLesson(t *testing.T) {
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range parse(t, "lesson.session") {
		if !strings.Contains(string(readme), "\n"+s.cmd) {
			t.Errorf("README.md does not show: %s", s.cmd)
		}
	}
}

func TestLessonAsRoot(t *testing.T) {
	needImages(t)
	if asRoot(t) {
		newHost(t).session("lesson.session")
	}
}

// sessions are the session files that need nothing but the built-in image.
var sessions = [...]string{"health.session", "commit.session", "doctor.session", "volume.session", "logs.session"}

func TestSessionsAsRoot(t *testing.T) {
	if asRoot(t) {
		playSessions(t)
	}
}

func TestSessionsAsUser(t *testing.T) {
	if asUser(t) {
		playSessions(t)
	}
}

func playSessions(t *testing.T) {
	for _, name := range sessions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newHost(t).session(name)
		})
	}
}

func TestImagesAsRoot(t *testing.T) {
	testenv.Need(t, testenv.Registry)
	if asRoot(t) {
		newHost(t).session("images.session")
	}
}

func TestImagesAsUser(t *testing.T) {
	testenv.Need(t, testenv.Registry)
	if asUser(t) {
		newHost(t).session("images.session")
	}
}

func TestLessonAsUser(t *testing.T) {
	needImages(t)
	if asUser(t) {
		newHost(t).session("lesson.session")
	}
}

// TestSessions runs the sessions that the environment names, and none by itself:
// each is for a machine in a certain state.
func TestSessions(t *testing.T) {
	for name := range strings.FieldsSeq(os.Getenv(varSessions)) {
		t.Run(name, func(t *testing.T) { newHost(t).session(name + ".session") })
	}
}
