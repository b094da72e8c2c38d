// Package resident makes a process that is going to wait for a long time small.
//
// It hides how a process finds its own file mappings and that their pages can be
// given back: they are clean copies of the executable, and come back from the
// page cache when they are needed.
//
// See madvise(2), proc_pid_maps(5).
package resident

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// DropFilePages unmaps the pages of the executable's code and constants that
// are mapped at the moment. Most of them served the start. The next instruction
// faults its own page in again, from the page cache.
func DropFilePages() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		// 00400000-008e3000 r-xp 00000000 fe:00 1234 /usr/bin/isle
		from, rest, ok1 := bytes.Cut(line, []byte{'-'})
		to, rest, ok2 := bytes.Cut(rest, []byte{' '})
		if !ok1 || !ok2 || len(rest) < 4 || rest[1] != '-' || rest[3] != 'p' || !bytes.Contains(rest, []byte{'/'}) {
			continue // writable pages may be changed ones, which nothing would bring back
		}
		a, err1 := strconv.ParseUint(string(from), 16, 64)
		b, err2 := strconv.ParseUint(string(to), 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		if _, _, e := unix.RawSyscall(unix.SYS_MADVISE, uintptr(a), uintptr(b-a), unix.MADV_DONTNEED); e != 0 {
			return os.NewSyscallError("madvise", e)
		}
	}
	return nil
}
