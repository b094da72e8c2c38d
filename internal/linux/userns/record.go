package userns

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// recordName is the file in the user's directory that tells of the holder:
//
//	pid PID START             START in clock ticks since boot
//	ns USER MNT               inode numbers of the two namespaces
//	single FINGERPRINT        only where just one id could be mapped
//	uid INSIDE OUTSIDE SIZE   one line for each extent
//	gid INSIDE OUTSIDE SIZE
const recordName = "holder"

type record struct {
	pid             int
	start           uint64
	userID, mountID uint64
	// fingerprint of what decided that only one id is mapped; 0: more are.
	fingerprint uint64
	uids, gids  []specs.LinuxIDMapping
}

// readRecord reads dir/holder without trust: a damaged file is one that is not
// there.
func readRecord(dir string) (*record, error) {
	var buf [4096]byte
	name := dir + "/" + recordName
	b, err := readSmall(name, buf[:])
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	r := new(record)
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		key, rest, _ := bytes.Cut(line, []byte{' '})
		var n [3]uint64
		count := fields(rest, n[:])
		switch {
		case string(key) == "pid" && count == 2:
			r.pid, r.start = int(n[0]), n[1]
		case string(key) == "ns" && count == 2:
			r.userID, r.mountID = n[0], n[1]
		case string(key) == "single" && count == 1:
			r.fingerprint = n[0]
		case string(key) == "uid" && count == 3:
			r.uids = append(r.uids, idMap(n))
		case string(key) == "gid" && count == 3:
			r.gids = append(r.gids, idMap(n))
		default:
			return nil, errs.New(errs.Corrupt, "%s: line %q", name, line)
		}
	}
	if r.pid <= 1 || r.userID == 0 || r.mountID == 0 || len(r.uids) == 0 || len(r.gids) == 0 {
		return nil, errs.New(errs.Corrupt, "%s: incomplete", name)
	}
	return r, nil
}

func idMap(n [3]uint64) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: uint32(n[0]), HostID: uint32(n[1]), Size: uint32(n[2])}
}

// fields parses the blank-separated decimal numbers of b into n and returns how
// many there are, or -1 when b holds anything else or more.
func fields(b []byte, n []uint64) int {
	count := 0
	for i := 0; i < len(b); {
		if b[i] == ' ' || b[i] == '\t' {
			i++
			continue
		}
		if count == len(n) {
			return -1
		}
		v := uint64(0)
		for ; i < len(b) && b[i] != ' ' && b[i] != '\t'; i++ {
			if b[i] < '0' || b[i] > '9' || v > (1<<64-1-9)/10 {
				return -1
			}
			v = v*10 + uint64(b[i]-'0')
		}
		n[count] = v
		count++
	}
	return count
}

// write replaces dir/holder.
func (r *record) write(dir string) error {
	b := make([]byte, 0, 256)
	b = fmt.Appendf(b, "pid %d %d\nns %d %d\n", r.pid, r.start, r.userID, r.mountID)
	if r.fingerprint != 0 {
		b = fmt.Appendf(b, "single %d\n", r.fingerprint)
	}
	for _, m := range r.uids {
		b = fmt.Appendf(b, "uid %d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	for _, m := range r.gids {
		b = fmt.Appendf(b, "gid %d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	name := filepath.Join(dir, recordName)
	tmp := name + ".new" // under the lock: nobody else writes it
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	// No fsync: after a reboot no holder lives.
	return os.Rename(tmp, name)
}

// describe fills in what the kernel says of the holder: start time, namespaces
// and maps.
func describe(pid int) (*record, error) {
	r := &record{pid: pid}
	base := "/proc/" + strconv.Itoa(pid)
	var st unix.Stat_t
	var err error
	if err = unix.Stat(base+"/ns/user", &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: base + "/ns/user", Err: err}
	}
	r.userID = st.Ino
	if err = unix.Stat(base+"/ns/mnt", &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: base + "/ns/mnt", Err: err}
	}
	r.mountID = st.Ino
	if r.uids, err = ReadMap(base + "/uid_map"); err != nil {
		return nil, err
	}
	if r.gids, err = ReadMap(base + "/gid_map"); err != nil {
		return nil, err
	}
	r.start, err = startTime(pid)
	return r, err
}

// ReadMap reads a uid_map or gid_map, as the caller's namespace sees it.
func ReadMap(name string) ([]specs.LinuxIDMapping, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // only read
	// The kernel gives whole lines, up to a page a call; a line has 33 bytes.
	const page, line = 4096, 33
	buf := make([]byte, 0, page)
	for {
		if cap(buf)-len(buf) < page {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		buf = buf[:len(buf)+n]
		if n <= page-2*line {
			break
		}
	}
	var maps []specs.LinuxIDMapping
	for len(buf) > 0 {
		var text []byte
		text, buf, _ = bytes.Cut(buf, []byte{'\n'})
		var n [3]uint64
		if fields(text, n[:]) != 3 {
			return nil, errs.New(errs.Corrupt, "%s: line %q", name, text)
		}
		maps = append(maps, idMap(n))
	}
	return maps, nil
}

// startTime returns field 22 of /proc/PID/stat: with the pid it names a process
// for the time of a boot.
func startTime(pid int) (uint64, error) {
	var buf [1024]byte
	name := "/proc/" + strconv.Itoa(pid) + "/stat"
	b, err := readSmall(name, buf[:])
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: name, Err: err}
	}
	// The name of the program, in brackets, may hold blanks and brackets.
	i := bytes.LastIndexByte(b, ')')
	for field := 2; i >= 0 && field < 22; field++ {
		next := bytes.IndexByte(b[i+1:], ' ')
		if next < 0 {
			break
		}
		i += 1 + next
		if field == 21 {
			b = b[i+1:]
			if end := bytes.IndexByte(b, ' '); end > 0 {
				return strconv.ParseUint(string(b[:end]), 10, 64)
			}
		}
	}
	return 0, errs.New(errs.Corrupt, "%s: no start time", name)
}

// readSmall reads a file that fits into buf, without the cost of an os.File.
func readSmall(name string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.Read(fd, buf)
	_ = unix.Close(fd)
	if err != nil {
		return nil, err
	}
	if n == len(buf) {
		return nil, unix.EFBIG
	}
	return buf[:n], nil
}
