package engine

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage"
	"github.com/isle-engine/isle/internal/storage/pack"
)

// Operations on a volume's files; the ID of the fileWork is its name.
const (
	filesVolumeOut = "volume-out" // they are written to standard output as a tar archive
	filesVolumeIn  = "volume-in"  // a tar archive, standard input, is laid out there
)

// ExportVolume writes a volume's files as a tar archive.
func (e *Engine) ExportVolume(ctx context.Context, name string, out *os.File) error {
	if _, err := e.InspectVolume(ctx, name); err != nil {
		return err
	}
	return e.files(fileWork{Op: filesVolumeOut, ID: name}, nil, out) //nolint:contextcheck // the streams end it
}

// ImportVolume lays a tar archive, compressed by gzip or not, out in a volume, over
// what is there. One that does not exist is made.
func (e *Engine) ImportVolume(ctx context.Context, name string, in *os.File) error {
	if _, err := e.InspectVolume(ctx, name); errors.Is(err, errs.NotFound) {
		_, err = e.CreateVolume(ctx, name, "", nil, nil)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return e.files(fileWork{Op: filesVolumeIn, ID: name}, in, nil) //nolint:contextcheck // the streams end it
}

// doVolume does the work on a volume. What is in the volume is its containers':
// names are resolved in it, and no link leads out of it.
func doVolume(env config.Env, w *fileWork, in io.Reader, out io.Writer) error {
	path, err := storage.OpenVolumes(env.Volumes()).Dir(w.ID)
	if err != nil {
		return err
	}
	dir, err := os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	if w.Op == filesVolumeOut {
		b := bufio.NewWriterSize(out, 1<<20)
		p := pack.New(b, pack.Options{OneFS: true})
		if err := p.AddContent(dir, ""); err != nil {
			return err
		}
		if err := p.Close(); err != nil {
			return err
		}
		return b.Flush()
	}
	b := bufio.NewReaderSize(in, 1<<20)
	var r io.Reader = b
	if magic, err := b.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		if r, err = gzip.NewReader(b); err != nil {
			return errs.New(errs.Corrupt, "archive: %w", err)
		}
	}
	err = pack.Extract(r, pack.Target{Dir: dir, Root: dir, Owner: func(uid, gid int64) (int, int, error) { return int(uid), int(gid), nil }})
	if err != nil {
		return err
	}
	// It must be there after a power loss: nobody else has a copy, perhaps.
	return os.NewSyscallError("syncfs", unix.Syncfs(int(dir.Fd())))
}
