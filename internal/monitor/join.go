package monitor

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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

// mappings computes the ids of a container with a user namespace of its own.
func (m *monitor) mappings(f *spec.Facts) (uids, gids []specs.LinuxIDMapping, err error) {
	own := spec.Own{Rootless: m.env.Rootless, UID: m.env.UID, GID: m.env.GID, UIDs: f.UIDs, GIDs: f.GIDs}
	if isAuto(m.rec.Config.Userns) {
		if own.UsedUIDs, own.UsedGIDs, err = m.usedIDs(); err != nil {
			return nil, nil, err
		}
	}
	return spec.Mappings(m.rec.Config.Userns, own)
}

// usedIDs returns the ids that live containers with automatic mappings have.
func (m *monitor) usedIDs() (uids, gids []specs.LinuxIDMapping, err error) {
	ids, err := state.IDs(m.env.Containers())
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		if id == m.id || !Alive(m.env, id) {
			continue
		}
		var st container.State
		var rec container.Record
		dir := m.env.Container(id)
		if state.ReadState(dir, &st) != nil || st.Pid == 0 || state.ReadRecord(dir, &rec) != nil || !isAuto(rec.Config.Userns) {
			continue
		}
		uids = append(uids, readMap(st.Pid, "uid_map")...)
		gids = append(gids, readMap(st.Pid, "gid_map")...)
	}
	return uids, gids, nil
}

func isAuto(mode string) bool { return mode == "auto" || strings.HasPrefix(mode, "auto:") }

// readMap reads a process's id map in terms of this process's namespace
// (user_namespaces(7)); none for a process that has ended.
func readMap(pid int, name string) (out []specs.LinuxIDMapping) {
	data, err := state.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		var v [3]uint32
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		ok := true
		for i := range v {
			n, err := strconv.ParseUint(f[i], 10, 32)
			v[i], ok = uint32(n), ok && err == nil
		}
		if ok {
			out = append(out, specs.LinuxIDMapping{ContainerID: v[0], HostID: v[1], Size: v[2]})
		}
	}
	return out
}
