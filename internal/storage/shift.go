package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/userns"
	"github.com/isle-engine/isle/internal/storage/tree"
)

// A container with a user namespace of its own sees the files of layers, which
// belong to the ids of whoever unpacked them, as belonging to its own ids.
//
// Root has the kernel translate: an idmapped mount of each layer is the lower
// directory (overlayfs takes them since Linux 5.19). Nothing is copied.
//
// An ordinary user may not: mount_setattr(2) wants CAP_SYS_ADMIN in the user
// namespace that the file system was mounted from. Then each layer has a copy
// with other owners, LAYER/shift-KEY, made by the first container that needs it
// and gone with the layer. KEY stands for the maps. A copy that has its name is
// whole and on disk. On file systems with reflinks it shares its data with the
// layer.

// shiftPrefix begins the name of a layer's shifted copy.
const shiftPrefix = "shift-"

// mountShifted mounts layers with the owners that o.UIDs and o.GIDs say.
func (s *Store) mountShifted(st *stack) (*os.File, error) {
	if !st.o.UserXattr && !s.noIDMap {
		f, err := s.mountIDMapped(st)
		if err == nil {
			return f, nil
		}
		// EINVAL: this kernel, or this file system, has no idmapped mounts.
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSYS) {
			return nil, err
		}
	}
	made, err := s.shiftStack(st)
	if err != nil {
		return nil, err
	}
	if made > 0 && st.o.Warn != nil && !st.o.UserXattr {
		st.o.Warn("this file system or kernel cannot map the owners of files (idmapped mounts of overlayfs layers, Linux 5.19): " +
			strconv.Itoa(made) + " layers were copied for these ids")
	}
	return s.mount(st)
}

func (s *Store) mountIDMapped(st *stack) (*os.File, error) {
	ns, err := userns.Make(st.o.UIDs, st.o.GIDs)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	mapped := *st
	mapped.userNS = ns
	return s.mount(&mapped)
}

// idmapped returns a detached mount of dir seen through a user namespace's map.
func idmapped(dir string, userNS *os.File) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userNS.Fd()), Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		_ = unix.Close(fd) // a mount that nobody has seen
		return -1, &os.PathError{Op: "mount_setattr idmap", Path: dir, Err: err}
	}
	return fd, nil
}

// shiftStack replaces the layers of a stack by their copies, and tells how many
// of them had to be made. Layers are copied side by side.
func (s *Store) shiftStack(st *stack) (made int, err error) {
	key := shiftKey(st.o.UIDs, st.o.GIDs)
	var todo []int
	for i, l := range st.lower {
		if filepath.Base(l) != diffDir {
			continue // the empty one
		}
		dir := filepath.Dir(l) + "/" + shiftPrefix + key
		if unix.Access(dir, unix.F_OK) != nil {
			todo = append(todo, i)
		}
		st.lower[i] = dir + "/" + diffDir
	}
	if len(todo) == 0 {
		return 0, nil
	}
	// Nobody gives up a mount; the context is for one copier to stop the others.
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // see above
	defer cancel()
	const workers = 4
	var wg sync.WaitGroup
	var once sync.Once
	next := make(chan string, len(todo))
	for _, i := range todo {
		next <- filepath.Dir(filepath.Dir(st.lower[i]))
	}
	close(next)
	for range min(workers, len(todo)) {
		wg.Go(func() {
			for layer := range next {
				if e := s.shift(ctx, layer, key, &st.o); e != nil {
					once.Do(func() { err = e; cancel() })
					return
				}
			}
		})
	}
	wg.Wait()
	return len(todo), err
}

// shift makes a layer's copy, unless somebody else has done so meanwhile.
func (s *Store) shift(ctx context.Context, layer, key string, o *MountOptions) (Err error) {
	h := filepath.Base(layer)
	subject := func(err error) error {
		return s.explain(errs.New(errs.KindOf(err), "layer %s: copy for other ids: %w", short(h), err))
	}
	// One copier a layer; who waits for it finds its work done.
	lock, err := os.Open(layer)
	if err != nil {
		return subject(err)
	}
	defer lock.Close()
	for {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return subject(&os.PathError{Op: "lock", Path: layer, Err: err})
	}
	name := layer + "/" + shiftPrefix + key
	if unix.Access(name, unix.F_OK) == nil {
		return nil
	}
	from, err := os.OpenFile(layer+"/"+diffDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return subject(err)
	}
	defer from.Close()
	st, err := s.newStage(h)
	if err != nil {
		return subject(err)
	}
	defer func() { Err = errors.Join(Err, st.Discard()) }()
	to := st.path + "/" + diffDir
	if err := os.Mkdir(to, 0o700); err != nil {
		return subject(err)
	}
	dst, err := os.OpenFile(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return subject(err)
	}
	defer dst.Close()
	if _, err := tree.Copy(ctx, dst, from, tree.CopyOptions{Layer: true, Owner: o.owner}); err != nil {
		return subject(err)
	}
	if err := unix.Syncfs(int(dst.Fd())); err != nil {
		return subject(&os.PathError{Op: "sync", Path: to, Err: err})
	}
	if err := unix.Renameat2(unix.AT_FDCWD, st.path, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE); err != nil {
		return subject(&os.PathError{Op: "rename", Path: st.path, Err: err})
	}
	_ = st.dir.Close() // nothing was written to it; the directory is in its place
	st.dir = nil
	return nil
}

// owner is who gets a layer's file that belongs to these ids. Ids that do not
// exist inside become the caller's own, as overlayfs could not change them
// either; inside they are seen as nobody's.
func (o *MountOptions) owner(uid, gid uint32) (int, int) {
	return Outside(o.UIDs, uid), Outside(o.GIDs, gid)
}

// keeps reports whether a map leaves all owners as they are: there is none, or
// the caller has a single id, which every file belongs to.
func keeps(maps []specs.LinuxIDMapping) bool {
	return len(maps) == 0 || len(maps) == 1 && maps[0].HostID == 0 && (maps[0].ContainerID == 0 || maps[0].Size == 1)
}

// Outside is a container's id as the caller sees it, 0 for one that it has not.
func Outside(maps []specs.LinuxIDMapping, id uint32) int {
	for _, m := range maps {
		if id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size) {
			return int(m.HostID + (id - m.ContainerID))
		}
	}
	return 0
}

// shiftKey is a name for a pair of maps.
func shiftKey(uids, gids []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, maps := range [...][]specs.LinuxIDMapping{uids, gids} {
		for _, m := range maps {
			for _, v := range [...]uint32{m.ContainerID, m.HostID, m.Size} {
				b.WriteString(strconv.FormatUint(uint64(v), 10))
				b.WriteByte(' ')
			}
		}
		b.WriteByte(';')
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:8])
}
