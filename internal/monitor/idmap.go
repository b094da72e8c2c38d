package monitor

import (
	"os"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/spec"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// A container with a user namespace of its own has its maps written down in its
// directory before its first start, and keeps them: the files of its writable
// layer belong to those ids. Whoever chooses ids looks at the maps of all
// containers, also of those that do not run.

// mapFile is where. The line "auto" says that the ids were chosen to be nobody
// else's; any other line is "u" or "g", then what uid_map holds
// (user_namespaces(7)), HostID as the monitor sees it.
const mapFile = "idmap"

// idmap is a container's maps; both are empty when it has no namespace of its own.
type idmap struct {
	uids, gids []specs.LinuxIDMapping
	auto       bool
}

func (m *idmap) own() bool { return len(m.uids) > 0 }

// mappings returns the maps of this container, and chooses them at its first
// start.
func (m *monitor) mappings() (maps idmap, err error) {
	if u := m.rec.Config.Userns; u == "" || u == "host" {
		return idmap{}, nil
	}
	auto := strings.HasPrefix(m.rec.Config.Userns, "auto")
	if auto {
		// Two that choose at once must not choose the same.
		lock, err := state.LockFile(m.env.Run+"/idmaps", true, time.Minute)
		if err != nil {
			return idmap{}, err
		}
		defer lock.Close() //nolint:errcheck // nothing was written to it
	}
	maps, fresh, err := m.chooseMaps()
	if err != nil || !fresh {
		return maps, err
	}
	return maps, state.WriteFile(m.dir+"/"+mapFile, maps.text(), m.durable())
}

// chooseMaps returns the maps that this container has, or would be given: fresh
// ones, which nobody has written down yet.
func (m *monitor) chooseMaps() (maps idmap, fresh bool, err error) {
	c := &m.rec.Config
	if c.Userns == "" || c.Userns == "host" {
		return idmap{}, false, nil
	}
	if id := m.rec.Joined["user"]; id != "" {
		// Another's namespace: its maps decide whose the files are.
		maps, err = readMaps(m.env.Container(id))
		return maps, false, err
	}
	if maps, err = readMaps(m.dir); err != nil || maps.own() {
		return maps, false, err
	}
	own := m.self()
	if maps.auto = c.Userns == "auto" || strings.HasPrefix(c.Userns, "auto:"); maps.auto {
		if own.UsedUIDs, own.UsedGIDs, err = m.usedIDs(); err != nil {
			return idmap{}, false, err
		}
	}
	if maps.uids, maps.gids, err = spec.Mappings(c.Userns, own); err != nil || !maps.own() {
		return idmap{}, false, err
	}
	return maps, true, nil
}

// self is the user's side of a mapping.
func (m *monitor) self() spec.Own {
	return spec.Own{Rootless: m.env.Rootless, UID: m.env.UID, GID: m.env.GID, UIDs: m.machine.UIDs(), GIDs: m.machine.GIDs()}
}

// usedIDs returns the ids that containers with automatic mappings have, whether
// they run or not.
func (m *monitor) usedIDs() (uids, gids []specs.LinuxIDMapping, err error) {
	ids, err := state.IDs(m.env.Containers())
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		if id == m.id {
			continue
		}
		maps, err := readMaps(m.env.Container(id))
		if err != nil {
			return nil, nil, err
		}
		if !maps.auto {
			continue // keep-id and nomap have all ids of the user; they share them knowingly
		}
		uids, gids = append(uids, maps.uids...), append(gids, maps.gids...)
	}
	return uids, gids, nil
}

// Maps returns the maps of a container's own user namespace, as the files of its
// writable layer have them, HostID as a process in the caller's user namespace
// sees it; none when it has no such namespace, or has never been started.
func Maps(env config.Env, rec *container.Record) (uids, gids []specs.LinuxIDMapping, err error) {
	id := rec.ID
	if rec.Config.Userns == "" || rec.Config.Userns == "host" {
		return nil, nil, nil
	}
	if other := rec.Joined["user"]; other != "" {
		id = other
	}
	m, err := readMaps(env.Container(id))
	return m.uids, m.gids, err
}

func (m *idmap) text() []byte {
	var b []byte
	if m.auto {
		b = append(b, "auto\n"...)
	}
	for i, maps := range [...][]specs.LinuxIDMapping{m.uids, m.gids} {
		for _, e := range maps {
			b = append(b, "ug"[i])
			for _, v := range [...]uint32{e.ContainerID, e.HostID, e.Size} {
				b = strconv.AppendUint(append(b, ' '), uint64(v), 10)
			}
			b = append(b, '\n')
		}
	}
	return b
}

// readMaps reads what is written down in a container's directory; nothing when
// it has no maps.
func readMaps(dir string) (m idmap, err error) {
	data, err := state.ReadFile(dir + "/" + mapFile)
	if errs.KindOf(err) == errs.NotFound {
		return idmap{}, nil
	}
	if err != nil {
		return idmap{}, err
	}
	for line := range strings.Lines(string(data)) {
		if line == "auto\n" {
			m.auto = true
			continue
		}
		f := strings.Fields(line)
		var v [3]uint32
		ok := len(f) == 4 && (f[0] == "u" || f[0] == "g")
		for i := 0; ok && i < len(v); i++ {
			n, err := strconv.ParseUint(f[i+1], 10, 32)
			v[i], ok = uint32(n), err == nil
		}
		if !ok {
			return idmap{}, errs.New(errs.Corrupt, "%s/%s: line %q", dir, mapFile, line)
		}
		e := specs.LinuxIDMapping{ContainerID: v[0], HostID: v[1], Size: v[2]}
		if f[0] == "u" {
			m.uids = append(m.uids, e)
		} else {
			m.gids = append(m.gids, e)
		}
	}
	return m, nil
}

// giveRoot makes a file or directory the container's root's, if it is not.
func (m *idmap) giveRoot(fd int) error {
	if !m.own() {
		return nil
	}
	uid, gid := storage.Outside(m.uids, 0), storage.Outside(m.gids, 0)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || int(st.Uid) == uid && int(st.Gid) == gid {
		return err
	}
	return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// giveUpper gives the container's root its writable layer.
func (m *monitor) giveUpper() error {
	return m.maps.giveDir(m.dir+"/upper", storage.Outside(m.maps.uids, 0), storage.Outside(m.maps.gids, 0))
}

// giveVolume gives a volume that nobody has used to the container's root, or to
// the user who is kept: an empty one that belongs to the caller.
func (b *launcher) giveVolume(dir string, who spec.User) error {
	m := &b.m.maps
	if !strings.HasPrefix(b.m.rec.Config.Userns, "keep-id") {
		who = spec.User{}
	}
	return m.giveDir(dir, storage.Outside(m.uids, who.UID), storage.Outside(m.gids, who.GID))
}

// giveDir changes the owner of an empty directory of the caller's. One that
// somebody has used, or has given to others, is left as it is.
func (m *idmap) giveDir(dir string, uid, gid int) error {
	if !m.own() {
		return nil
	}
	d, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(raw(d), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Uid != 0 || st.Gid != 0 {
		return nil
	}
	if names, _ := d.Readdirnames(1); len(names) > 0 { // what cannot be read is not empty
		return nil
	}
	if err := d.Chown(uid, gid); err != nil {
		return err
	}
	return nil
}
