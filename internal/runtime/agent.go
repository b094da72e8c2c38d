package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/seccomp"
)

// agent is the connection to whoever answers for system calls that the filter
// does not decide about (SCMP_ACT_NOTIFY).
type agent struct {
	socket program.Slot
	state  program.Arg // JSON, of size bytes
	size   int
}

// connectAgent connects to the agent, in the caller's thread: its socket has a
// name on the host only.
func (c *compiler) connectAgent(filter *seccomp.Filter) error {
	if filter == nil || !filter.Notify {
		return nil
	}
	l := c.linux()
	switch {
	case l == nil || l.Seccomp == nil || c.o.State == nil:
		return unsupported("seccomp: a profile that notifies an agent")
	case l.Seccomp.ListenerPath == "":
		return invalid("seccomp: listenerPath is missing, and the profile has the action %s", specs.ActNotify)
	}
	for i := range l.Seccomp.Syscalls {
		if s := &l.Seccomp.Syscalls[i]; s.Action == specs.ActNotify && slices.Contains(s.Names, "sendmsg") {
			// Nobody could answer: it hands over the listener.
			return invalid("seccomp profile: %s cannot be used for the sendmsg syscall", specs.ActNotify)
		}
	}
	path := l.Seccomp.ListenerPath
	c.agent = &agent{socket: c.p.Slot("seccomp agent")}
	c.p.Step(program.Step{Verb: "connect", Object: path})
	c.p.Do(func() (*os.File, error) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		f := os.NewFile(uintptr(fd), path)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			_ = f.Close() // nothing was sent
			return nil, fmt.Errorf("failed to connect with seccomp agent specified in the seccomp profile: %w", err)
		}
		return f, nil
	}).To(c.agent.socket)
	return nil
}

// describe gets the message for the agent from the parent, which alone knows the
// pid. The room for it is measured with the longest there is.
func (c *compiler) describe() error {
	if c.agent == nil {
		return nil
	}
	message := func(pid int) ([]byte, error) {
		s := *c.o.State
		if s.Pid == 0 {
			s.Pid = pid
		}
		return json.Marshal(specs.ContainerProcessState{
			Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid,
			Metadata: c.linux().Seccomp.ListenerMetadata, State: s,
		})
	}
	longest, err := message(1<<31 - 1)
	if err != nil {
		return err
	}
	c.agent.size = len(longest)
	c.agent.state = c.p.Buffer(len(longest))
	c.p.Step(program.Step{Verb: "state for the seccomp agent"})
	c.p.Sync(c.agent.state, len(longest), func(pid int, reply []byte) error {
		b, err := message(pid)
		for i := copy(reply, b); i < len(reply); i++ {
			reply[i] = ' ' // which JSON may end with
		}
		return err
	})
	return nil
}

// listen sends the listener that the installation of the filter has given. It is
// the only call between that and those that the container's process makes.
func (c *compiler) listen(listener program.Slot) {
	c.p.Step(program.Step{Verb: "send listener to the seccomp agent"})
	c.p.Sendmsg(c.agent.socket.Arg(), c.agent.state, c.agent.size, listener.Arg())
}
