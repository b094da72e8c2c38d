package engine

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
	"github.com/isle-engine/isle/internal/storage/pack"
)

// fileWork is what is to be done with the files of a container. An ordinary
// user's are owned by its subordinate ids, so that it is done by the role
// isle-userns; root does it itself. Nothing of the container is executed.
type fileWork struct {
	Op     string `json:"op"`
	ID     string `json:"id"`
	Path   string `json:"path,omitempty"`   // inside
	Follow bool   `json:"follow,omitempty"` // the link that Path may be
	// Source describes what comes in.
	Source source `json:"source,omitzero"`
	// User is whom the files that come in are given to.
	User string `json:"user,omitempty"`
	Name string `json:"name,omitempty"` // what the archive calls Path
}

// The operations on a container's files.
const (
	filesIn     = "in"     // standard input, a tar archive, is laid out at Path
	filesOut    = "out"    // Path is written to standard output as a tar archive
	filesExport = "export" // and so is the whole root file system
	filesDiff   = "diff"   // changes, as a letter, a path and NUL each
	filesLayer  = "layer"  // the changes as a tar archive of a layer
)

// workFiles is the name of all these to the role.
const workFiles = "files"

// files does w with in and out as its streams. A container that does not run may
// be removed meanwhile; then that is the error, also where all went well: a
// removal begins with the record, so files may have been missing.
func (e *Engine) files(w fileWork, in, out *os.File) error {
	err := e.workOn(w, in, out)
	if w.Op == filesVolumeIn || w.Op == filesVolumeOut { // ID is a volume's name
		return err
	}
	if _, gone := os.Lstat(filepath.Join(e.env.Container(w.ID), state.RecordFile)); errors.Is(gone, os.ErrNotExist) {
		return errs.New(errs.NotFound, "No such container: %s", w.ID)
	}
	return err
}

func (e *Engine) workOn(w fileWork, in, out *os.File) error {
	if !e.env.Rootless {
		return doFiles(e.env, w, in, out)
	}
	ns, err := e.namespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	request, err := json.Marshal(w)
	if err != nil {
		return err
	}
	r, answer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := program.Command{
		Path: "/proc/self/exe", Args: []string{"isle-userns", workFiles, string(request)}, Env: e.env.Environ(os.Environ()),
		Files: []*os.File{in, out, os.Stderr, answer}, Join: ns.Join(),
	}
	child, err := cmd.Start()
	_ = answer.Close() // the child has it
	if err != nil {
		return err
	}
	b, rerr := io.ReadAll(r)
	code, err := waitExit(child.Pid)
	if err != nil || rerr != nil {
		return errors.Join(err, rerr)
	}
	var failed *errs.Wire
	if len(b) > 0 {
		if err := json.Unmarshal(b, &failed); err != nil {
			return errs.New(errs.Corrupt, "answer of %s: %w", workFiles, err)
		}
	} else if code != 0 {
		return errs.New(errs.Unavailable, "work on files: ended with code %d and no answer", code)
	}
	return failed.Err()
}

// filesMain is the work of the role isle-userns; errors go to descriptor 3.
func filesMain(env config.Env, request string) int {
	var w fileWork
	err := json.Unmarshal([]byte(request), &w)
	if err == nil {
		err = doFiles(env, w, os.Stdin, os.Stdout)
	}
	if err == nil {
		return 0
	}
	answer := os.NewFile(3, "answer")
	if jerr := json.NewEncoder(answer).Encode(errs.ToWire(err)); jerr != nil {
		return 2
	}
	return 1
}

func doFiles(env config.Env, w fileWork, in, out *os.File) error {
	if w.Op == filesVolumeIn || w.Op == filesVolumeOut {
		return doVolume(env, &w, in, out)
	}
	eng, err := Open(env)
	if err != nil {
		return err
	}
	c := &Container{Dir: env.Container(w.ID)}
	if err := state.ReadRecord(c.Dir, &c.Record); err != nil {
		return err
	}
	if err := state.ReadState(c.Dir, &c.State); err != nil && !errors.Is(err, errs.NotFound) {
		return err
	}
	v := &view{eng: eng, c: c, running: live(c.State.Status) && monitor.Alive(env, w.ID)}
	defer v.close()
	if v.uids, v.gids, err = monitor.Maps(env, &c.Record); err != nil {
		return err
	}
	v.ids = [2]pack.IDs{packIDs(v.uids), packIDs(v.gids)}
	switch w.Op {
	case filesIn:
		return v.in(&w, in)
	case filesOut:
		return v.out(&w, out)
	case filesExport:
		return v.export(out)
	case filesDiff:
		return v.diff(out)
	case filesLayer:
		return v.layer(out)
	}
	return errs.New(errs.Invalid, "work on files %q: unknown", w.Op)
}

// view is a container's file system as this process can reach it.
type view struct {
	eng     *Engine
	c       *Container
	running bool
	done    chan struct{} // ends the thread that holds the mounts
	ids     [2]pack.IDs   // users and groups; nil: as they are
	// uids and gids are the maps of the container's own user namespace, if any.
	uids, gids []specs.LinuxIDMapping
}

func packIDs(maps []specs.LinuxIDMapping) (ids pack.IDs) {
	for _, m := range maps {
		ids = append(ids, pack.IDRange{Inside: m.ContainerID, Outside: m.HostID, Count: m.Size})
	}
	return ids
}

func (v *view) close() {
	if v.done != nil {
		close(v.done)
	}
}

// root opens the container's root: that of its running init, volumes and all,
// or, when it does not run, its layers with its volumes mounted in them.
func (v *view) root() (*os.File, error) {
	if !v.running {
		return v.assemble()
	}
	init, err := openInit(v.c)
	if err != nil {
		return nil, err
	}
	defer init.Close()
	proc := "/proc/" + strconv.Itoa(v.c.State.Pid)
	root, err := os.OpenFile(proc+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		_ = root.Close() // O_PATH; nothing to lose
		return nil, err
	}
	theirs, err := os.Readlink(proc + "/ns/user")
	if err != nil {
		_ = root.Close() // O_PATH; nothing to lose
		return nil, err
	}
	for i, name := range [...]string{"/uid_map", "/gid_map"} {
		if own == theirs || v.ids[i] != nil {
			break // its ids are ours, or known
		}
		if v.ids[i], err = readIDs(proc + name); err != nil {
			_ = root.Close() // O_PATH; nothing to lose
			return nil, err
		}
	}
	// What was opened is of our process: the pidfd says that it has not ended.
	if err := unix.PidfdSendSignal(int(init.Fd()), 0, nil, 0); err != nil {
		_ = root.Close() // O_PATH; nothing to lose
		return nil, errs.New(errs.Conflict, "container %q: has ended meanwhile", v.c.Config.Name)
	}
	return root, nil
}

func readIDs(file string) (pack.IDs, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var m pack.IDs
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, errs.New(errs.Corrupt, "%s: %q", file, line)
		}
		var n [3]uint32
		for i := range n {
			u, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, errs.New(errs.Corrupt, "%s: %q", file, line)
			}
			n[i] = uint32(u)
		}
		m = append(m, pack.IDRange{Inside: n[0], Outside: n[1], Count: n[2]})
	}
	return m, nil
}

func (v *view) options() pack.Options {
	if v.ids[0] == nil {
		return pack.Options{}
	}
	return pack.Options{UID: v.ids[0].In, GID: v.ids[1].In}
}

// plain mounts the container's layers, without anything mounted in them.
func (v *view) plain() (*os.File, error) {
	dir := v.c.Dir
	return v.eng.layers.Mount(v.c.Image.Layers, dir+"/upper", dir+"/work", storage.MountOptions{UserXattr: v.eng.env.Rootless, UIDs: v.uids, GIDs: v.gids, Places: true})
}

// lower mounts the image's layers only, to be read.
func (v *view) lower() (*os.File, error) {
	return v.eng.layers.Mount(v.c.Image.Layers, "", "", storage.MountOptions{UserXattr: v.eng.env.Rootless, ReadOnly: true, UIDs: v.uids, GIDs: v.gids})
}
