package storage

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The places that every container has something mounted on, whatever its image
// holds. Docker makes them in a layer of its own for each container; as they are
// always empty, one for all, below the image, does.
var (
	placeDirs  = [...]string{"dev", "etc", "proc", "sys"}
	placeFiles = [...]string{"etc/hostname", "etc/hosts", "etc/resolv.conf"}
)

// makePlaces makes that layer, the first time. It belongs to whoever unpacks
// layers, so to root as containers see it.
func (s *Store) makePlaces() error {
	dir := s.dir + "/" + placesLayer
	if unix.Access(dir, unix.F_OK) == nil {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	stage, lock, err := makeStage(s.dir, "", 0o700)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.RemoveAll(stage) //nolint:errcheck // renamed away, or left to Sweep
	// By chmod: what the caller's umask takes away a container would miss.
	if err := os.Chmod(stage, 0o755); err != nil {
		return err
	}
	for _, d := range placeDirs {
		path := filepath.Join(stage, d)
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o755)); err != nil {
			return err
		}
	}
	for _, f := range placeFiles {
		fd, err := os.OpenFile(filepath.Join(stage, f), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(fd.Chmod(0o644), fd.Close()); err != nil {
			return err
		}
	}
	// Empty files have nothing that a power loss could take; what is missing then
	// is made in the containers' own layers.
	err = os.Rename(stage, dir)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = nil // another container was first
	}
	return err
}
