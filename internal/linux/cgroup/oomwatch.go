package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OOMWatch tells when processes of a group are killed for want of memory.
type OOMWatch struct {
	g     *Group
	files []*os.File // the first one is polled
	v1    bool
	kills int64
}

// WatchOOM begins to watch. On v1 the kernel is asked to signal an eventfd
// (Documentation/admin-guide/cgroup-v1/memory.rst, OOM Control), on v2
// memory.events is watched. A group without memory control is never heard of.
func (g *Group) WatchOOM() (*OOMWatch, error) {
	w := &OOMWatch{g: g}
	var err error
	if d := dir(g.paths.V1["memory"]); d != "" {
		w.v1 = true
		err = w.watchV1(d)
	} else {
		err = w.watchV2(dir(g.paths.V2))
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	info, err := g.OOM()
	w.kills = info.Kills
	return w, err
}

func (w *OOMWatch) watchV1(d dir) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	w.files = append(w.files, os.NewFile(uintptr(fd), "oom"))
	control, err := os.Open(d.file("memory.oom_control"))
	if err != nil {
		return err
	}
	w.files = append(w.files, control)
	return d.write("cgroup.event_control", strconv.Itoa(fd)+" "+strconv.Itoa(int(control.Fd())))
}

func (w *OOMWatch) watchV2(d dir) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify_init1: %w", err)
	}
	w.files = append(w.files, os.NewFile(uintptr(fd), "oom"))
	if d == "" {
		return nil
	}
	_, err = unix.InotifyAddWatch(fd, d.file("memory.events"), unix.IN_MODIFY)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// FD is readable when there is something to ask Kills about.
func (w *OOMWatch) FD() int { return int(w.files[0].Fd()) }

// Kills reports whether processes were killed since it was last asked.
func (w *OOMWatch) Kills() bool {
	var buf [512]byte
	n, err := unix.Read(w.FD(), buf[:])
	if w.v1 {
		// The end of the group is told in the same way.
		return n == 8 && err == nil && dir(w.g.paths.V1["memory"]).exists("memory.oom_control")
	}
	info, err := w.g.OOM()
	if err != nil || info.Kills <= w.kills {
		return false
	}
	w.kills = info.Kills
	return true
}

// Close ends the watch.
func (w *OOMWatch) Close() {
	for _, f := range w.files {
		_ = f.Close() // read only
	}
}
