package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/cgroup"
)

// event is a line of what events prints.
type event struct {
	Type string          `json:"type"`
	ID   string          `json:"id"`
	Data *cgroup.Figures `json:"data,omitempty"`
}

// events prints what a container uses and when it runs out of memory, until it ends.
func (c *call) events() error {
	ct, err := load(c.root, c.args[0])
	if err != nil {
		return err
	}
	interval := 5 * time.Second
	if c.flags.set("interval") {
		if interval, err = time.ParseDuration(c.flags.str("interval")); err != nil {
			return err
		}
	}
	if interval <= 0 {
		return errors.New("duration interval must be greater than 0")
	}
	if ct.status() == stopped {
		return fmt.Errorf("container with id %s is not running", ct.ID)
	}
	enc := json.NewEncoder(c.out)
	g := ct.group()
	figures := func() error {
		f := g.Figures()
		return enc.Encode(event{Type: "stats", ID: ct.ID, Data: &f})
	}
	if c.flags.on("stats") {
		return figures()
	}
	fd, err := unix.PidfdOpen(ct.Pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written
	watch, err := g.WatchOOM()
	if err != nil {
		return err
	}
	defer watch.Close()
	next := time.Now().Add(interval)
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(watch.FD()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, max(0, int(time.Until(next)/time.Millisecond)))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if n == 0 {
			if err := figures(); err != nil {
				return err
			}
			next = time.Now().Add(interval)
		}
		if fds[1].Revents != 0 && watch.Kills() {
			if err := enc.Encode(event{Type: "oom", ID: ct.ID}); err != nil {
				return err
			}
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}
