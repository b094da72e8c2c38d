package userns

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/program"
)

// Make makes a user namespace with these maps, HostID as the caller sees them,
// and returns a file of it. Nobody is in it: it is there to be the map of an
// idmapped mount (mount_setattr(2)). The caller has CAP_SETUID and CAP_SETGID
// over its own namespace.
func Make(uids, gids []specs.LinuxIDMapping) (_ *os.File, err error) {
	var ns *os.File
	p := program.New()
	p.Step(program.Step{Verb: "new namespace", Object: "user"})
	p.Fork(program.Clone{Flags: unix.CLONE_NEWUSER})
	p.Meanwhile(func(pid int) error {
		base := "/proc/" + strconv.Itoa(pid)
		if err := writeOnce(base+"/uid_map", format(uids)); err != nil {
			return err
		}
		if err := writeOnce(base+"/gid_map", format(gids)); err != nil {
			return err
		}
		ns, err = os.Open(base + "/ns/user")
		return err
	})
	p.Await()
	p.Exit(0)
	child, err := p.Start()
	if err == nil {
		err = errors.Join(child.Wait(), child.Pidfd.Close())
		for {
			if _, e := unix.Wait4(child.Pid, nil, 0, nil); e != unix.EINTR {
				break // it has ended, or will have in a moment
			}
		}
	}
	if err != nil {
		if ns != nil {
			_ = ns.Close() // only a name for the namespace
		}
		return nil, fmt.Errorf("create a user namespace: %w", err)
	}
	return ns, nil
}
