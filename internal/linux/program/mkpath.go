package program

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	pathMax     = 4096
	scratchSize = 4*pathMax + 64
	linksMax    = 40
	triesMax    = 16
)

// pathScratch is the memory of one mkpath.
type pathScratch struct {
	cur  [pathMax + 256]byte // what has been walked: no symbolic link, no dot
	rest [pathMax]byte       // what is still to be walked
	link [pathMax]byte
	how  unix.OpenHow
}

var _ [scratchSize - unsafe.Sizeof(pathScratch{})]byte

// mkpathOnOwnStack is mkpath, called through a variable: the linker bounds chains
// of nosplit functions by what every goroutine's stack has left, and cannot know
// that this chain has a stack of its own (stackSize).
var mkpathOnOwnStack = mkpath

// mkpath is the child's part of Program.Mkpath. It keeps the walked prefix as
// text without symbolic links and opens every prefix anew from root with
// RESOLVE_NO_SYMLINKS, so a component swapped for a link between two steps
// makes the walk fail (ELOOP) and never leaves root.
//
//go:nosplit
//go:norace
func mkpath(root, path uintptr, dir bool, uid, gid uintptr, mem unsafe.Pointer) (uintptr, syscall.Errno) {
	s := (*pathScratch)(mem)
	s.how.Flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	s.how.Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS
	rest, ok := copyPath(&s.rest, path)
	if !ok {
		return 0, syscall.ENAMETOOLONG
	}
	var cur, links, tries int // cur: length of s.cur in use
	pos := 0                  // next byte of s.rest
	for {
		for pos < rest && s.rest[pos] == '/' {
			pos++
		}
		end := pos
		for end < rest && s.rest[end] != '/' {
			end++
		}
		last := end == rest
		for k := end; k < rest; k++ {
			if last = s.rest[k] == '/'; !last {
				break
			}
		}
		n := end - pos
		switch {
		case n == 0: // only slashes were left: the result is what was walked
			return openPrefix(root, s, cur)
		case n == 1 && s.rest[pos] == '.':
			pos = end
			if last {
				return openPrefix(root, s, cur)
			}
			continue
		case n == 2 && s.rest[pos] == '.' && s.rest[pos+1] == '.':
			for cur > 0 && s.cur[cur-1] != '/' {
				cur--
			}
			if cur > 0 {
				cur--
			}
			pos = end
			if last {
				return openPrefix(root, s, cur)
			}
			continue
		case n > 255 || cur+1+n >= pathMax:
			return 0, syscall.ENAMETOOLONG
		}
		name := cur
		if cur > 0 {
			s.cur[name] = '/'
			name++
		}
		for k := range n {
			s.cur[name+k] = s.rest[pos+k]
		}
		fd, e := openPrefix(root, s, name+n)
		if e == syscall.ENOENT {
			if tries++; tries > triesMax {
				return 0, e
			}
			if e = makeName(root, s, cur, name, name+n, dir || !last, uid, gid); e != 0 {
				return 0, e
			}
			continue // and open it
		}
		if e != 0 {
			return 0, e
		}
		// Only a symbolic link answers readlinkat with an empty path.
		m, _, e := syscall.RawSyscall6(syscall.SYS_READLINKAT, fd, uintptr(unsafe.Pointer(&emptyPath)), uintptr(unsafe.Pointer(&s.link)), pathMax, 0, 0)
		if e != 0 {
			cur, pos, tries = name+n, end, 0
			if last {
				return fd, 0
			}
			_, _, _ = syscall.RawSyscall6(syscall.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
			continue
		}
		_, _, _ = syscall.RawSyscall6(syscall.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
		if links++; links > linksMax {
			return 0, syscall.ELOOP
		}
		// rest = link + what follows the component; s.cur is still its prefix.
		tail := rest - end
		if int(m)+tail >= pathMax {
			return 0, syscall.ENAMETOOLONG
		}
		if tail > 0 && int(m) != end {
			if int(m) < end {
				for k := range tail {
					s.rest[int(m)+k] = s.rest[end+k]
				}
			} else {
				for k := tail - 1; k >= 0; k-- {
					s.rest[int(m)+k] = s.rest[end+k]
				}
			}
		}
		for k := 0; k < int(m); k++ {
			s.rest[k] = s.link[k]
		}
		pos, rest = 0, int(m)+tail
		if m > 0 && s.link[0] == '/' {
			cur = 0
		}
	}
}

var emptyPath [1]byte

// copyPath copies the string at addr, an address within a program's memory.
//
//go:nosplit
//go:norace
func copyPath(dst *[pathMax]byte, addr uintptr) (int, bool) {
	src := *(**[pathMax]byte)(unsafe.Pointer(&addr))
	for k := range pathMax {
		c := src[k]
		if c == 0 {
			return k, true
		}
		dst[k] = c
	}
	return 0, false
}

// byteAt is s.cur[n] without a check: mkpath has bounded n, and the code that
// reports a bad index would not fit the child's stack.
//
//go:nosplit
//go:norace
func byteAt(s *pathScratch, n int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(&s.cur), n)) }

// openPrefix opens the first n bytes of s.cur below root; none of them is root.
//
//go:nosplit
//go:norace
func openPrefix(root uintptr, s *pathScratch, n int) (uintptr, syscall.Errno) {
	// What lies behind the prefix is put back afterwards.
	first, end := *byteAt(s, 0), *byteAt(s, max(n, 1))
	if n == 0 {
		*byteAt(s, 0) = '.'
	}
	*byteAt(s, max(n, 1)) = 0
	fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT2, root, uintptr(unsafe.Pointer(&s.cur)), uintptr(unsafe.Pointer(&s.how)), unsafe.Sizeof(s.how), 0, 0)
	*byteAt(s, 0), *byteAt(s, max(n, 1)) = first, end
	return fd, e
}

// makeName makes the last component of s.cur[:end], which begins at name, in
// the directory s.cur[:cur]. That somebody else made it first is no error.
//
//go:nosplit
//go:norace
func makeName(root uintptr, s *pathScratch, cur, name, end int, dir bool, uid, gid uintptr) syscall.Errno {
	*byteAt(s, end) = 0
	parent, e := openPrefix(root, s, cur)
	if e != 0 {
		return e
	}
	at := uintptr(unsafe.Pointer(byteAt(s, name)))
	if dir {
		_, _, e = syscall.RawSyscall6(syscall.SYS_MKDIRAT, parent, at, 0o755, 0, 0, 0)
	} else {
		_, _, e = syscall.RawSyscall6(syscall.SYS_MKNODAT, parent, at, syscall.S_IFREG|0o644, 0, 0, 0)
	}
	if e == 0 && (int(uid) != -1 || int(gid) != -1) {
		_, _, e = syscall.RawSyscall6(syscall.SYS_FCHOWNAT, parent, at, uid, gid, unix.AT_SYMLINK_NOFOLLOW, 0)
	}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_CLOSE, parent, 0, 0, 0, 0, 0)
	if e == syscall.EEXIST {
		e = 0
	}
	return e
}
