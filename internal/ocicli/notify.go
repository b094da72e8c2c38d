package ocicli

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notifySocket carries what a container says by sd_notify(3) to the service
// manager, which believes this process only. The container gets a socket of
// ours, so that it can say that it is ready and nothing else.
type notifySocket struct {
	host string // the manager's
	dir  string // mounted into the container
	path string
	fd   int // -1: not bound
}

const notifyInside = "/run/notify"

func newNotifySocket(host, containerDir string) *notifySocket {
	dir := containerDir + "/notify"
	return &notifySocket{host: host, dir: dir, path: dir + "/notify.sock", fd: -1}
}

// mount adds the socket to what the container gets.
func (n *notifySocket) mount(s *specs.Spec) {
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: notifyInside, Source: n.dir, Type: "bind",
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	s.Process.Env = append(s.Process.Env, "NOTIFY_SOCKET="+notifyInside+"/notify.sock")
}

// make makes the directory and, if the container is started at once, the socket.
func (n *notifySocket) make(bind bool) error {
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		return err
	}
	if !bind {
		return nil
	}
	return n.bind()
}

func (n *notifySocket) bind() error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	// Through the directory, for the path may be longer than an address can be.
	d, err := unix.Open(n.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(d) + "/notify.sock"})
		_ = unix.Close(d) // only named something
	}
	if err == nil {
		err = unix.Chmod(n.path, 0o777) // whatever user the container has
	}
	if err != nil {
		_ = unix.Close(s) // nobody knows it
		return &os.PathError{Op: "bind", Path: n.path, Err: err}
	}
	n.fd = s
	return nil
}

// relay waits until the container says that it is ready, or ends, and passes it
// on, with main as the service's main process.
func (n *notifySocket) relay(pid, main int, c *call) {
	if n.fd < 0 {
		return
	}
	host, err := dial(n.host, unix.SOCK_DGRAM)
	if err != nil {
		c.log.warn("%v", err)
		return
	}
	defer unix.Close(host) //nolint:errcheck // datagrams: all is sent
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(pidfd) //nolint:errcheck // nothing is written
	buf := make([]byte, 4096)
	for {
		fds := []unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			return
		}
		if fds[0].Revents == 0 {
			return // it has ended without a word
		}
		got, _, err := unix.Recvfrom(n.fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			continue
		}
		for line := range bytes.SplitSeq(buf[:got], []byte{'\n'}) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				n.ready(host, line, main, c)
				return
			}
		}
	}
}

// ready tells the manager, and waits until it has understood: it may not know
// the main process otherwise when this one ends.
func (n *notifySocket) ready(host int, line []byte, main int, c *call) {
	say := func(text string) bool {
		err := unix.Sendto(host, []byte(text), unix.MSG_NOSIGNAL, nil)
		if err != nil {
			c.log.warn("notify %s: %v", n.host, err)
		}
		return err == nil
	}
	if !say(string(line)+"\n") || !say("MAINPID="+strconv.Itoa(main)+"\n") {
		return
	}
	// sd_notify_barrier(3): the manager closes the pipe when all before is done.
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	err = unix.Sendmsg(host, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, unix.MSG_NOSIGNAL)
	_ = w.Close() // the manager has its own
	if err != nil {
		return
	}
	if r.SetReadDeadline(time.Now().Add(30*time.Second)) == nil {
		_, err = r.Read(make([]byte, 1))
		if os.IsTimeout(err) {
			c.log.warn("notify %s: no answer to the barrier after 30s", n.host)
		}
	}
}
