package program

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/defence"
)

// This file holds the arguments that are structures of the kernel, so that
// users of the package need no unsafe.

func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// SetMountAttr adds a mount_setattr(2) of the mount at fd.
func (p *Program) SetMountAttr(fd Arg, attr unix.MountAttr, recursive bool) Op {
	f := unix.AT_EMPTY_PATH
	if recursive {
		f |= unix.AT_RECURSIVE
	}
	return p.Call(unix.SYS_MOUNT_SETATTR, fd, p.Empty(), Int(f), p.Bytes(bytesOf(&attr)), Uint(uint64(unsafe.Sizeof(attr))))
}

// MapMountIDs adds a mount_setattr(2) that maps the owners of files in the mount
// at fd as the user namespace does.
func (p *Program) MapMountIDs(fd, userns Arg, recursive bool) Op {
	f := unix.AT_EMPTY_PATH
	if recursive {
		f |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP}
	at := p.Bytes(bytesOf(&attr))
	p.Poke64(at.Plus(int(unsafe.Offsetof(attr.Userns_fd))), userns)
	return p.Call(unix.SYS_MOUNT_SETATTR, fd, p.Empty(), Int(f), at, Uint(uint64(unsafe.Sizeof(attr))))
}

// MountFlags adds an fstatfs(2) and returns where the flags of the mount (ST_*)
// will be: 64 bits.
func (p *Program) MountFlags(fd Arg) Arg {
	buf := p.Buffer(int(unsafe.Sizeof(unix.Statfs_t{})))
	p.Call(unix.SYS_FSTATFS, fd, buf)
	return buf.Plus(int(unsafe.Offsetof(unix.Statfs_t{}.Flags)))
}

// Openat2 adds an openat2(2).
func (p *Program) Openat2(dir Arg, path string, how unix.OpenHow) Op {
	how.Resolve = defence.Resolve(how.Resolve)
	return p.Call(unix.SYS_OPENAT2, dir, p.String(path), p.Bytes(bytesOf(&how)), Uint(uint64(unsafe.Sizeof(how))))
}

// MoveMount adds a move_mount(2) from descriptor to descriptor: no path is
// resolved, so nothing can be swapped under it.
func (p *Program) MoveMount(from, to Arg) Op {
	return p.Call(unix.SYS_MOVE_MOUNT, from, p.Empty(), to, p.Empty(), Int(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// Stat is memory that an Fstat of this program fills.
type Stat struct{ at Arg }

// Fstat adds an fstat(2).
func (p *Program) Fstat(fd Arg) (Stat, Op) {
	st := Stat{p.Buffer(int(unsafe.Sizeof(unix.Stat_t{})))}
	return st, p.Call(unix.SYS_FSTAT, fd, st.at)
}

// ExpectType fails with e unless st is of the file type (unix.S_IFDIR ...).
func (p *Program) ExpectType(st Stat, fileType uint32, e unix.Errno) Op {
	return p.Expect32(st.at.Plus(int(unsafe.Offsetof(unix.Stat_t{}.Mode))), unix.S_IFMT, fileType, e)
}

// ExpectDevice fails with e unless st is the device.
func (p *Program) ExpectDevice(st Stat, fileType, major, minor uint32, e unix.Errno) {
	p.ExpectType(st, fileType, e)
	p.Expect64(st.at.Plus(int(unsafe.Offsetof(unix.Stat_t{}.Rdev))), ^uint64(0), unix.Mkdev(major, minor), e)
}

// LoadMode stores the permission bits of st in s.
func (p *Program) LoadMode(s Slot, st Stat) Op {
	return p.Load32(s, st.at.Plus(int(unsafe.Offsetof(unix.Stat_t{}.Mode))), 0o7777)
}

// ExpectFS fails with e unless fd lies on a file system of that magic number.
func (p *Program) ExpectFS(fd Arg, magic uint32, e unix.Errno) {
	buf := p.Buffer(int(unsafe.Sizeof(unix.Statfs_t{})))
	p.Call(unix.SYS_FSTATFS, fd, buf)
	p.Expect32(buf, 0xffffffff, magic, e) // f_type comes first
}

// Setrlimit adds a prlimit64(2) of the child itself.
func (p *Program) Setrlimit(resource int, lim unix.Rlimit) Op {
	return p.Call(unix.SYS_PRLIMIT64, Int(0), Int(resource), p.Bytes(bytesOf(&lim)), Null)
}

// Capset adds a capset(2); each set is a mask of capability numbers.
func (p *Program) Capset(effective, permitted, inheritable uint64) Op {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	return p.Call(unix.SYS_CAPSET, p.Bytes(bytesOf(&hdr)), p.Bytes(bytesOf(&data)))
}

// Seccomp adds the installation of a filter.
func (p *Program) Seccomp(prog []unix.SockFilter, flags uint) Op {
	code := p.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(prog))), len(prog)*int(unsafe.Sizeof(unix.SockFilter{}))))
	fprog := p.Words(Int(len(prog)), code) // struct sock_fprog, little endian
	return p.Call(unix.SYS_SECCOMP, Int(unix.SECCOMP_SET_MODE_FILTER), Uint(uint64(flags)), fprog)
}

// Sendmsg adds a sendmsg(2) of size bytes at data, with a descriptor.
func (p *Program) Sendmsg(sock, data Arg, size int, fd Arg) Op {
	ctl := fdControl{len: uint64(unsafe.Offsetof(fdControl{}.fd)) + 4, level: unix.SOL_SOCKET, typ: unix.SCM_RIGHTS}
	at := p.Bytes(bytesOf(&ctl))
	p.Poke32(at.Plus(int(unsafe.Offsetof(ctl.fd))), fd)
	// struct msghdr: name and its length, vector and its length, control and its length, flags
	msg := p.Words(Null, Int(0), p.Words(data, Int(size)), Int(1), at, Int(int(unsafe.Sizeof(ctl))), Int(0))
	return p.Call(unix.SYS_SENDMSG, sock, msg, Int(unix.MSG_NOSIGNAL)).Want(size)
}

// Setgroups adds a setgroups(2).
func (p *Program) Setgroups(gids []uint32) Op {
	list := Null
	if len(gids) > 0 {
		list = p.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(gids))), 4*len(gids)))
	}
	return p.Call(unix.SYS_SETGROUPS, Int(len(gids)), list)
}

// Winsize is the address of a struct winsize.
func (p *Program) Winsize(rows, cols uint16) Arg {
	ws := unix.Winsize{Row: rows, Col: cols}
	return p.Bytes(bytesOf(&ws))
}

// Sched adds a sched_setattr(2) of the child itself.
func (p *Program) Sched(attr unix.SchedAttr) Op {
	attr.Size = uint32(unsafe.Sizeof(attr))
	return p.Call(unix.SYS_SCHED_SETATTR, Int(0), p.Bytes(bytesOf(&attr)), Int(0))
}

// DieWithParent sends the child sig when the thread that started it dies. The
// kernel forgets the wish when credentials change or a set-uid program is
// executed (prctl(2)), so it comes after the former. A parent that died before
// has closed its end of the socket, which is looked at: getppid(2) could not
// tell, since in a new pid namespace it is 0 before and after.
func (p *Program) DieWithParent(sig int) {
	p.Call(unix.SYS_PRCTL, Int(unix.PR_SET_PDEATHSIG), Int(sig), Int(0), Int(0), Int(0))
	p.Call(opAlive)
}
