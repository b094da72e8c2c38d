package storage

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/pack"
)

// Archive writes an unpacked layer as a layer's archive, uncompressed. The same
// files give the same bytes every time, but not those of the archive that the
// layer was unpacked from, unless Archive wrote that too: its order, its padding
// and what could not be unpacked are not kept.
func (s *Store) Archive(ctx context.Context, diffID string, out io.Writer) error {
	path, err := s.Path(diffID)
	if err != nil {
		return err
	}
	dir, err := os.OpenFile(filepath.Clean(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if os.IsNotExist(err) {
		return errs.New(errs.NotFound, "layer %s: %w", short(diffID), errs.NotFound)
	}
	if err != nil {
		return err
	}
	defer dir.Close() // read only; nothing to lose
	w := bufio.NewWriterSize(&canceled{ctx, out}, 1<<20)
	p := pack.New(w, pack.Options{Layer: true})
	if err := p.AddLayer(dir); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	return w.Flush()
}

// canceled is a writer that ends with its context.
type canceled struct {
	ctx context.Context
	w   io.Writer
}

func (c *canceled) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
