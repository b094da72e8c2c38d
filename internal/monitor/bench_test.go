package monitor

import (
	"os"
	"testing"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/testenv"
)

// BenchmarkRun is a --rm container from the client's side: monitor spawned
// while the directory is written, started, awaited.
func BenchmarkRun(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.Overlay, testenv.Busybox)
	r := newRig(b)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := Spawn(r.env, r.ns)
		if err != nil {
			b.Fatal(err)
		}
		id := r.create(container.Config{Cmd: []string{"/bin/true"}, AutoRemove: true})
		if _, err := c.Start(b.Context(), StartRequest{ID: id, Attach: &Attach{Stdout: null, Stderr: null}}); err != nil {
			b.Fatal(err)
		}
		if e, err := c.Wait(b.Context()); err != nil || e.Code != 0 {
			b.Fatal(e, err)
		}
		_ = c.Close()
	}
}
