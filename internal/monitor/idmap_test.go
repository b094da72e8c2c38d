package monitor

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/storage"
)

// removeLayersInside removes the layers, whose copies belong to other ids.
func (r *rig) removeLayersInside() {
	if r.ns == nil {
		return
	}
	r.t.Cleanup(func() { r.inside("test-remove", r.env.Layers()) })
}

const whoami = `id -u; id -g; stat -c '%u:%g' / /data/hello /etc/hosts /dev/shm; touch /tmp/new && stat -c %u /tmp/new; cat /proc/self/uid_map`

func TestUserNamespaceModes(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		r.removeLayersInside()
		uid, gid := strconv.Itoa(r.env.UID), strconv.Itoa(r.env.GID)
		kept := []string{uid, gid, "0:0", "0:0", "0:0", "0:0", uid}
		rootly := []string{"0", "0", "0:0", "0:0", "0:0", "0:0", "0"}
		modes := map[string][]string{"auto": rootly, "auto:size=3000": rootly, "host": rootly}
		if r.env.Rootless {
			modes["keep-id"], modes["nomap"] = kept, rootly
			modes["keep-id:uid=7,gid=8"] = []string{"7", "8", "0:0", "0:0", "0:0", "0:0", "7"}
		}
		for mode, want := range modes {
			for round := range 2 { // the second finds the layers ready
				cfg := sh(whoami)
				cfg.Userns, cfg.AutoRemove = mode, true
				got := r.run(cfg, "")
				words := strings.Fields(got.out)
				if got.exit.Code != 0 || len(words) < len(want) || strings.Join(words[:len(want)], " ") != strings.Join(want, " ") {
					t.Errorf("%s, round %d: %+v, want %q", mode, round, got, want)
				}
			}
		}
	})
}

// Attack: two containers that start at once must not get the same ids.
func TestAutoNeverSharesIDs(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		r.removeLayersInside()
		const n = 6
		ids := make([]string, n)
		conns := make([]*Conn, n)
		for i := range ids {
			cfg := sh("exec sleep 100")
			cfg.Userns = "auto:size=1000"
			ids[i] = r.create(cfg)
			var err error
			if conns[i], err = Spawn(r.env, r.ns); err != nil {
				t.Fatal(err)
			}
		}
		errs := make(chan error, n)
		for i, c := range conns {
			go func() {
				_, err := c.Start(t.Context(), StartRequest{ID: ids[i]})
				errs <- err
			}()
		}
		for range n {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		seen := map[uint32]string{}
		for _, id := range ids {
			maps, err := readMaps(r.env.Container(id))
			if err != nil || !maps.auto || len(maps.uids) == 0 || len(maps.gids) == 0 {
				t.Fatalf("maps %+v: %v", maps, err)
			}
			for _, m := range maps.uids {
				for k := m.HostID; k < m.HostID+m.Size; k++ {
					if other := seen[k]; other != "" {
						t.Fatalf("id %d: of %s and of %s", k, id, other)
					}
					seen[k] = id
				}
			}
		}
		// A container that has ended keeps its ids: its files belong to them.
		before, err := os.ReadFile(r.env.Container(ids[0]) + "/" + mapFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			r.kill(id)
		}
		cfg := sh("cat /proc/self/uid_map")
		cfg.Userns, cfg.AutoRemove = "auto:size=1000", true
		if got := r.run(cfg, ""); got.exit.Code != 0 {
			t.Errorf("%+v", got)
		}
		if _, err := r.start(ids[0], nil); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(r.env.Container(ids[0]) + "/" + mapFile)
		if err != nil || string(after) != string(before) {
			t.Errorf("maps %q, then %q: %v", before, after, err)
		}
		r.kill(ids[0])
	})
}

func TestKeepIDName(t *testing.T) {
	asBoth(t, func(t *testing.T, r *rig) {
		if !r.env.Rootless {
			return // keep-id is for ordinary users
		}
		r.removeLayersInside()
		cfg := sh("grep -c :" + strconv.Itoa(r.env.UID) + ": /etc/passwd; echo $HOME; pwd")
		cfg.Userns, cfg.WorkingDir = "keep-id", "/data"
		id := r.create(cfg)
		for range 2 { // the second start adds nothing
			got := r.runID(id, "")
			if got.out != "1\n/data\n/data\n" {
				t.Errorf("%+v", got)
			}
		}
		r.inside("test-remove", r.env.Container(id))
	})
}

func removeTree(dir string) error { return storage.RemoveTree(dir) }
