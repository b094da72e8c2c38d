package userns

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/pid1"
)

// holderName is the holder's argv[0] and what ps(1) shows.
const holderName = "isle-holder"

// Files that a holder is started with, beside /dev/null as 0 to 2.
const (
	fdTalk  = 3
	fdExe   = 4
	fdUser  = 5
	fdMount = 6
)

// holder is a holder process that is being set up.
type holder struct {
	pid  int
	talk *os.File
}

// startHolder starts a holder. With flags it is in new namespaces, else it joins
// those of the files.
func startHolder(dir string, flags uintptr, files ...*os.File) (*holder, error) {
	exe, err := pid1.MemFD()
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	talk, peer := os.NewFile(uintptr(pair[0]), "holder"), os.NewFile(uintptr(pair[1]), "holder")
	defer peer.Close()
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), peer.Fd(), exe.Fd()},
		Sys:   &syscall.SysProcAttr{Cloneflags: flags, Setsid: true},
	}
	// The last argument tells which directory the holder belongs to (adopt).
	argv := []string{holderName, "hold", strconv.Itoa(fdTalk), dir}
	if flags != 0 {
		// execve drops all capabilities of a process whose uid is not yet
		// mapped to 0; the holder still has to change its mounts.
		attr.Sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	} else {
		argv = []string{holderName, "join", strconv.Itoa(fdTalk), strconv.Itoa(fdUser), strconv.Itoa(fdMount), dir}
		for _, f := range files {
			attr.Files = append(attr.Files, f.Fd())
		}
	}
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(fdExe), argv, attr)
	if err != nil {
		_ = talk.Close()
		return nil, err
	}
	return &holder{pid, talk}, nil
}

// answer reads the errno that the holder reports.
func (h *holder) answer() error {
	var b [4]byte
	n, err := h.talk.Read(b[:])
	if err != nil || n != len(b) {
		return errs.New(errs.Unknown, "holder %d: ended early: %w", h.pid, err)
	}
	if no := syscall.Errno(b[0]) | syscall.Errno(b[1])<<8; no != 0 {
		return no
	}
	return nil
}

// release leaves the holder to itself.
func (h *holder) release() {
	_ = h.talk.Close()
	pid := h.pid
	// A caller that lives long must not keep a zombie once the holder is killed.
	go func() { _, _ = syscall.Wait4(pid, nil, 0, nil) }()
}

// kill ends a holder whose set-up failed.
func (h *holder) kill() {
	_ = h.talk.Close()
	_ = syscall.Kill(h.pid, syscall.SIGKILL) // our own child, not yet waited for
	_, _ = syscall.Wait4(h.pid, nil, 0, nil)
}

// create makes new namespaces with a new holder and records them.
func create(dir string, plan *maps) (*record, error) {
	h, err := startHolder(dir, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS)
	if err != nil {
		err = fmt.Errorf("create a user namespace for uid %d: %w", plan.uid, err)
		return nil, errs.Hint(err, Obstacles(err)...)
	}
	r, err := settle(h, plan)
	if err == nil {
		if plan.single {
			r.fingerprint = fingerprint()
		}
		err = r.write(dir)
	}
	if err != nil {
		h.kill()
		return nil, err
	}
	h.release()
	return r, nil
}

// settle writes the maps of a new holder and lets it go to sleep.
func settle(h *holder, plan *maps) (*record, error) {
	if err := plan.write(h.pid); err != nil {
		return nil, err
	}
	if _, err := h.talk.Write([]byte{1}); err != nil {
		return nil, fmt.Errorf("holder %d: %w", h.pid, err)
	}
	if err := h.answer(); err != nil {
		err = fmt.Errorf("mount namespace in the new user namespace: mount / MS_SLAVE|MS_REC: %w", err)
		return nil, errs.Hint(err, Obstacles(err)...)
	}
	return describe(h.pid)
}

// rejoin finds a process that is still in the recorded namespaces, although
// their holder is gone, and starts a new holder there.
func rejoin(dir string, r *record, uid int) (*Namespace, error) {
	pid := 0
	eachProcess(func(p int, base string) bool {
		var st unix.Stat_t
		if unix.Stat(base+"/ns/user", &st) == nil && st.Ino == r.userID &&
			unix.Stat(base+"/ns/mnt", &st) == nil && st.Ino == r.mountID {
			pid = p
		}
		return pid == 0
	})
	if pid == 0 {
		return nil, errs.New(errs.NotFound, "user namespace %d: no process is left in it", r.userID)
	}
	member, err := describe(pid)
	if err != nil {
		return nil, err
	}
	if member.userID != r.userID || member.mountID != r.mountID {
		return nil, errs.New(errs.NotFound, "user namespace %d: no process is left in it", r.userID)
	}
	n, err := member.open(uid)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	h, err := startHolder(dir, 0, n.User, n.Mount)
	if err != nil {
		return nil, err
	}
	if err = h.answer(); err == nil {
		var nr *record
		if nr, err = describe(h.pid); err == nil {
			nr.fingerprint = r.fingerprint
			*r = *nr
			err = r.write(dir)
		}
	}
	if err != nil {
		h.kill()
		return nil, err
	}
	h.release()
	return r.open(uid)
}

// adopt finds the live holder that belongs to dir, when its record is lost.
func adopt(dir string) (*record, error) {
	var found *record
	eachProcess(func(p int, base string) bool {
		var buf [4352]byte
		b, err := readSmall(base+"/cmdline", buf[:])
		if err != nil || !bytes.HasPrefix(b, []byte(holderName+"\x00")) || !bytes.HasSuffix(b, []byte("\x00"+dir+"\x00")) {
			return true
		}
		if r, err := describe(p); err == nil && len(r.uids) > 0 && len(r.gids) > 0 && checkOwnerOf(p) == nil {
			if size(r.uids) <= 1 || size(r.gids) <= 1 {
				r.fingerprint = fingerprint()
			}
			found = r
		}
		return found == nil
	})
	if found == nil {
		return nil, errs.New(errs.NotFound, "user namespace: no holder for %s", dir)
	}
	return found, found.write(dir)
}

// occupied reports whether any process but the holder is in the user namespace.
// One that has ended and waits for its parent is in no mount namespace any more.
func occupied(r *record) bool {
	other := false
	eachProcess(func(p int, base string) bool {
		var st unix.Stat_t
		if p != r.pid && unix.Stat(base+"/ns/user", &st) == nil && st.Ino == r.userID && unix.Stat(base+"/ns/mnt", &st) == nil {
			other = true
		}
		return !other
	})
	return other
}

// eachProcess calls f for each process until it returns false. This is never
// done on the way of a start whose holder lives.
func eachProcess(f func(pid int, base string) bool) {
	d, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1) // what could be read is better than nothing
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && !f(pid, "/proc/"+name) {
			return
		}
	}
}

// checkOwnerOf checks that the user namespace of process pid is the caller's.
func checkOwnerOf(pid int) error {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only read
	return checkOwner(fd, os.Getuid())
}

// checkOwner checks that uid owns the user namespace that fd is open on.
func checkOwner(fd, uid int) error {
	owner, err := unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
	if err != nil {
		return os.NewSyscallError("NS_GET_OWNER_UID", err)
	}
	if owner != uint32(uid) {
		return errs.New(errs.Denied, "user namespace: belongs to uid %d", owner)
	}
	return nil
}
