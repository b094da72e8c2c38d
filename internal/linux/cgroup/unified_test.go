package cgroup

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Files that are settings of every v2 group need no controller, so that hybrid
// hosts have them too.
func TestFilesWithoutController(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	r := &specs.LinuxResources{Unified: map[string]string{"cgroup.max.descendants": "7"}}
	g, err := h.Create(Request{Name: testName(t), Resources: r, Rootless: os.Getuid() != 0})
	if os.Getuid() != 0 && err != nil {
		// Asked for and not possible is an error, never nothing.
		if !strings.Contains(err.Error(), "cgroup") {
			t.Errorf("%v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
	}()
	d := dir(g.paths.V2)
	if got, err := d.read("cgroup.max.descendants"); err != nil || got != "7" {
		t.Errorf("%q %v", got, err)
	}
	if err := g.Update(&specs.LinuxResources{Unified: map[string]string{"cgroup.max.depth": "3"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := d.read("cgroup.max.depth"); err != nil || got != "3" {
		t.Errorf("after the update: %q %v", got, err)
	}
	for _, name := range []string{"cgroup.procs", "cgroup.kill", "cgroup.subtree_control", "../x.y", "memory", ""} {
		if err := g.Update(&specs.LinuxResources{Unified: map[string]string{name: "1"}}); err == nil || !strings.Contains(err.Error(), "want CONTROLLER.FILE") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if h.mode != "v2" {
		err := g.Update(&specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}})
		if err == nil || !strings.Contains(err.Error(), "is on cgroup v1 here") {
			t.Errorf("a file of a controller on v1: %v", err)
		}
	}
}
