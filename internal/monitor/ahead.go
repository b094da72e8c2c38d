package monitor

import (
	"os"

	"github.com/isle-engine/isle/internal/runtime"
)

// netnsAhead is a network namespace in the making, on a thread of its own, while
// the rest of the container is prepared.
type netnsAhead struct {
	done chan struct{}
	file *os.File
	err  error
}

// startNetns begins to make the container's network namespace, where that can be
// done ahead: it must belong to the user namespace that this process is in, and
// nobody may want to plug anything into it while it is made.
func (m *monitor) startNetns() *netnsAhead {
	if m.rec.Config.Network != "none" || len(m.maps.uids) > 0 {
		return nil
	}
	a := &netnsAhead{done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.file, a.err = runtime.NewNetns()
	}()
	return a
}

// get waits until the namespace is there. On nil it returns nil: the clone makes it.
func (a *netnsAhead) get() (*os.File, error) {
	if a == nil {
		return nil, nil //nolint:nilnil // no file is an answer
	}
	<-a.done
	return a.file, a.err
}

// drop closes the namespace, which whoever has joined it keeps.
func (a *netnsAhead) drop() {
	if f, _ := a.get(); f != nil {
		_ = f.Close() // a namespace's file
	}
}
