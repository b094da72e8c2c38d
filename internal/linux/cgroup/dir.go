package cgroup

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dir is the absolute path of a directory in a cgroup file system.
type dir string

func (d dir) join(name string) dir { return dir(strings.TrimSuffix(string(d), "/") + "/" + name) }

func (d dir) file(name string) string { return string(d.join(name)) }

// up returns the parent directory.
func (d dir) up() dir {
	if i := strings.LastIndexByte(string(d), '/'); i > 0 {
		return d[:i]
	}
	return "/"
}

func (d dir) base() string { return string(d[strings.LastIndexByte(string(d), '/')+1:]) }

// write writes value to a file of the group in one write(2), as the kernel wants
// it. The file is never created: a name that is not there is ENOENT.
func (d dir) write(name, value string) error {
	path := d.file(name)
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	_, err = retry(func() (int, error) { return unix.Write(fd, []byte(value)) })
	_ = unix.Close(fd) // the write has said all there is to say
	if err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: path, Err: err}
	}
	return nil
}

// read returns the contents of a file without the last newline.
func (d dir) read(name string) (string, error) {
	path := d.file(name)
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // read only
	buf := make([]byte, 512)
	n := 0
	for {
		if n == len(buf) {
			buf = append(buf, make([]byte, 4*len(buf))...)
		}
		got, err := retry(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return "", &os.PathError{Op: "read", Path: path, Err: err}
		}
		if got == 0 {
			return strings.TrimSuffix(string(buf[:n]), "\n"), nil
		}
		n += got
	}
}

// unlimited is what readInt returns for "max", and what v1 says for no limit is
// rounded up to.
const unlimited = int64(1<<63 - 1)

// readInt reads a single number; "max" and what is as good as that are unlimited.
func (d dir) readInt(name string) (int64, error) {
	text, err := d.read(name)
	if err != nil {
		return 0, err
	}
	return parseInt(text)
}

func parseInt(text string) (int64, error) {
	if text == "max" {
		return unlimited, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		u, uerr := strconv.ParseUint(text, 10, 64) // v1 counters may pass 2^63
		if uerr != nil {
			return 0, err
		}
		n = int64(min(u, uint64(unlimited)))
	}
	// PAGE_COUNTER_MAX pages, a little less than 2^63 bytes, mean no limit on v1.
	if n >= unlimited-1<<20 {
		n = unlimited
	}
	return n, nil
}

// exists reports whether the group has a file or directory of that name.
func (d dir) exists(name string) bool { return unix.Access(d.file(name), unix.F_OK) == nil }

// writable reports whether the calling process may write the file.
func (d dir) writable(name string) bool {
	return unix.Faccessat(unix.AT_FDCWD, d.file(name), unix.W_OK, unix.AT_EACCESS) == nil
}

// retry repeats a system call that a signal interrupts: Go's runtime sends
// itself signals.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

// fields calls f for each "key value" line of text.
func keyValues(text string, f func(key string, value int64)) {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := parseInt(value); ok && err == nil {
			f(key, n)
		}
	}
}
