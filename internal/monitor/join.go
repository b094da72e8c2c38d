package monitor

import (
	"strconv"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/state"
)

// join fills in what the container shares with others that run: the files of
// their namespaces, and the directory of the one whose network it is.
func (b *launcher) join(in *spec.Input) (peerDir string, err error) {
	m := b.m
	in.Joined = make(map[string]string, len(m.rec.Joined))
	for key, id := range m.rec.Joined {
		var st container.State
		dir := m.env.Container(id)
		if err := state.ReadState(dir, &st); err != nil && errs.KindOf(err) != errs.NotFound {
			return "", err
		}
		live := st.Pid != 0 && Alive(m.env, id)
		if start, err := StartTime(st.Pid); !live || err != nil || start != st.PidStart {
			return "", errs.New(errs.Conflict, "cannot join %s of a non running container: %s", key, id)
		}
		ns := key
		switch key {
		case "network":
			ns = "net"
			if peerDir, in.PeerHostname, err = m.networkOwner(id); err != nil {
				return "", err
			}
		case "ipc":
			// Its /dev/shm goes with it.
			shm, err := openShm(st.Pid)
			if err != nil {
				return "", err
			}
			if shm != nil {
				b.bind("/dev/shm", shm)
				in.ShmPath = "/dev/shm of container " + id[:12] // shown, not opened
			}
		}
		in.Joined[key] = "/proc/" + strconv.Itoa(st.Pid) + "/ns/" + ns
	}
	return peerDir, nil
}

// networkOwner follows containers that share a network to the one that has it,
// and returns its directory and host name.
func (m *monitor) networkOwner(id string) (dir, hostname string, err error) {
	for range maxShared {
		var rec container.Record
		dir = m.env.Container(id)
		if err := state.ReadRecord(dir, &rec); err != nil {
			return "", "", err
		}
		if next := rec.Joined["network"]; next != "" {
			id = next
			continue
		}
		if hostname = rec.Config.Hostname; hostname == "" {
			hostname = id[:12]
		}
		return dir, hostname, nil
	}
	return "", "", errs.New(errs.Conflict, "network of container %s: shared by too many in a row", id)
}

// maxShared bounds a chain of containers that share a network.
const maxShared = 64
