package state

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FIFO is a named pipe in a private directory of its own.
type FIFO struct {
	*os.File // open for writing, also while nobody reads
	Dir      string
	Path     string
}

// TempFIFO makes one. The caller closes it and removes the directory.
func TempFIFO() (*FIFO, error) {
	dir, err := os.MkdirTemp("", "isle-")
	if err != nil {
		return nil, err
	}
	f := &FIFO{Dir: dir, Path: filepath.Join(dir, "fifo")}
	err = unix.Mkfifo(f.Path, 0o600)
	if err == nil {
		f.File, err = os.OpenFile(f.Path, os.O_RDWR, 0)
	}
	if err != nil {
		_ = os.RemoveAll(dir) // new
		return nil, &os.PathError{Op: "mkfifo", Path: f.Path, Err: err}
	}
	return f, nil
}
