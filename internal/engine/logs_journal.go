package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/monitor/log"
)

// readJournal gives what the journal has of a container to emit. The journal's
// files are read by journalctl, which knows their formats.
func readJournal(ctx context.Context, id string, o log.ReadOptions, emit func(*log.Entry) error) error {
	path := lookProgram("journalctl")
	if path == "" {
		return errs.Hint(errs.New(errs.Unsupported, "logs: the container logs to journald, and journalctl, which reads it, is not installed here"),
			"install systemd's journalctl, or use --log-driver json-file")
	}
	args := []string{"journalctl", "--output=json", "--quiet", "--no-pager", "--all", "CONTAINER_ID_FULL=" + id}
	stamp := func(t time.Time) string { return fmt.Sprintf("@%d.%06d", t.Unix(), t.Nanosecond()/1000) }
	if !o.Since.IsZero() {
		args = append(args, "--since="+stamp(o.Since))
	}
	if !o.Until.IsZero() && !o.Follow {
		args = append(args, "--until="+stamp(o.Until))
	}
	lines := "all"
	if o.Tail >= 0 {
		lines = strconv.Itoa(o.Tail)
	}
	args = append(args, "--lines="+lines)
	if o.Follow {
		args = append(args, "--follow")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	complaints, cw, err := os.Pipe()
	if err != nil {
		_ = w.Close() // nothing was written
		return err
	}
	defer complaints.Close()
	cmd := program.Command{Path: path, Args: args, Env: append(os.Environ(), "LC_ALL=C"), Files: []*os.File{nil, w, cw}, PdeathSig: 0}
	child, err := cmd.Start()
	_, _ = w.Close(), cw.Close() // the child has them
	if err != nil {
		return err
	}
	stop := func() { _ = unix.PidfdSendSignal(int(child.Pidfd.Fd()), unix.SIGTERM, nil, 0) } // it may have ended
	defer child.Pidfd.Close()
	cancel := context.AfterFunc(ctx, stop)
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	if o.Follow {
		go endFollow(o, stop, over)
	}
	var e log.Entry
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	var failed error
	for sc.Scan() {
		if failed != nil || !log.ParseJournal(sc.Bytes(), &e) {
			continue
		}
		if !o.Since.IsZero() && e.Time.Before(o.Since) || !o.Until.IsZero() && e.Time.After(o.Until) {
			continue
		}
		if failed = emit(&e); failed != nil {
			stop()
		}
	}
	said, _ := io.ReadAll(io.LimitReader(complaints, 4096))
	code, err := waitExit(child.Pid)
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return err
	case code != 0 && code != 128+int(unix.SIGTERM) && ctx.Err() == nil:
		err := errs.New(errs.Unavailable, "journalctl: exit code %d: %s", code, strings.TrimSpace(string(said)))
		if strings.Contains(string(said), "insufficient permissions") {
			// A journal in memory has no parts that belong to users.
			return errs.Hint(err, "as root: mkdir -p /var/log/journal && systemctl restart systemd-journald (each user may read its own part then)",
				"or, as root: usermod -aG systemd-journal USER (may read all of it)")
		}
		return err
	}
	if serr := sc.Err(); serr != nil && !errors.Is(serr, os.ErrClosed) {
		return serr
	}
	return nil
}

// settleTime is how long the journal may take to show what a container that has
// ended has written.
const settleTime = 500 * time.Millisecond

// endFollow ends journalctl, which would follow for ever, after the container, or
// after Until.
func endFollow(o log.ReadOptions, stop func(), over <-chan struct{}) {
	for o.Running() && (o.Until.IsZero() || time.Now().Before(o.Until)) {
		select {
		case <-over:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	select {
	case <-over:
	case <-time.After(settleTime):
		stop()
	}
}
