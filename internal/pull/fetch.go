package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/archive"
	"github.com/isle-engine/isle/internal/image/registry"
	"github.com/isle-engine/isle/internal/storage"
)

// downloads is how many layers are fetched at once, Docker's default.
const downloads = 3

// fetcher gets the layers of one image.
type fetcher struct {
	p      *Puller
	remote *registry.Remote
	show   *display

	unpackers chan struct{} // a place for each processor
	mu        sync.Mutex
	staged    []*storage.Staged
	fetched   atomic.Int64 // bytes of blobs
}

// all fetches and unpacks the layers that are not there. They are on disk when
// it returns without an error; otherwise none of them is in the store.
func (f *fetcher) all(ctx context.Context, layers []image.Layer) error {
	f.unpackers = make(chan struct{}, runtime.NumCPU())
	var todo []*job
	seen := make(map[string]bool)
	for _, l := range layers {
		if seen[l.DiffID] {
			continue // a layer may be in an image twice
		}
		seen[l.DiffID] = true
		if f.p.Layers.Has(l.DiffID) {
			f.show.add(l.Digest, "Already exists").over()
			continue
		}
		todo = append(todo, &job{f: f, Layer: l, line: f.show.add(l.Digest, "Pulling fs layer")})
	}
	// The largest first: one that is begun last would be waited for alone.
	slices.SortStableFunc(todo, func(a, b *job) int { return cmp.Compare(b.Size, a.Size) })
	queue := make(chan *job, len(todo))
	for _, j := range todo {
		queue <- j
	}
	close(queue)

	g, ctx := errgroup.WithContext(ctx)
	for range min(downloads, len(todo)) {
		g.Go(func() error {
			for j := range queue {
				if err := j.run(ctx, g); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		// One wait for the disk, for the files and blobs of all layers.
		err = f.p.Layers.Commit(f.staged...)
		if err == nil && len(todo) > 0 {
			path, _ := f.p.Layers.Path(todo[0].DiffID) // it has been unpacked there: a good diff id
			err = f.p.Images.SyncBlobs(path)
		}
	} else {
		for _, s := range f.staged {
			err = errors.Join(err, s.Discard())
		}
	}
	if err != nil {
		return err
	}
	for _, j := range todo {
		j.line.end("Pull complete")
	}
	return nil
}

// job is one layer on its way.
type job struct {
	f *fetcher
	image.Layer
	line *line
}

// run fetches the blob and has it unpacked meanwhile, by g. It returns when
// the blob is there.
func (j *job) run(ctx context.Context, g *errgroup.Group) error {
	w, err := j.f.p.Images.CreateBlob(ctx, j.Digest)
	if errors.Is(err, errs.Exists) {
		// Fetched for another image, or by a pull that did not live to unpack it.
		blob, err := j.f.p.Images.OpenBlob(j.Digest)
		if err != nil {
			return err
		}
		g.Go(func() error {
			err := j.unpack(ctx, j.extracting(blob, blob.Size))
			_ = blob.Close() // read only; nothing to lose
			if errs.KindOf(err) != errs.Corrupt || !j.damaged() {
				return err
			}
			// By the disk, or by a power loss before its puller had synced it.
			if err := j.f.p.Images.DropBlob(j.Digest); err != nil {
				return err
			}
			return j.run(ctx, g)
		})
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Discard() // after Commit and Close it does nothing
	left, n, err := w.Left()
	if err != nil {
		return err
	}
	if n > j.Size {
		if err := w.Restart(); err != nil {
			return err
		}
		n = 0
	}
	grow := newGrowing(w, func(n int64) { j.line.bar("Downloading", n, j.Size) })
	file, err := w.Follow()
	if err != nil {
		return err
	}
	follow := &follower{g: grow, f: file, read: func(n int64) {
		if grow.ended() {
			j.line.bar("Extracting", n, j.Size)
		}
	}}
	g.Go(func() error {
		defer file.Close() // read only; nothing to lose
		switch err := j.unpack(ctx, follow); {
		case err == nil || grow.failed():
			return nil // the download says what it was
		case errs.KindOf(err) == errs.Corrupt:
			// A damaged blob looks like a damaged archive; its digest tells.
			return grow.wait(err)
		default:
			return err
		}
	})
	err = j.download(ctx, grow, left, n)
	grow.finish(err)
	switch {
	case err == nil:
	case n > 0 && errs.KindOf(err) == errs.Corrupt:
		// What was left may have been damaged by a power loss.
		w.Discard()
		return j.run(ctx, g)
	case j.f.worthKeeping(ctx, err):
		_ = w.Close() // keeps what there is
	}
	return err
}

// damaged reports whether the blob in the store is not what it should be.
func (j *job) damaged() bool {
	blob, err := j.f.p.Images.OpenBlob(j.Digest)
	if err != nil {
		return false
	}
	defer blob.Close() //nolint:errcheck // read only; nothing to lose
	_, err = io.Copy(io.Discard, blob)
	return errs.KindOf(err) == errs.Corrupt
}

// extracting shows how much was read of a blob that was there.
func (j *job) extracting(r io.Reader, size int64) io.Reader {
	var n int64
	return readFunc(func(p []byte) (int, error) {
		k, err := r.Read(p)
		n += int64(k)
		j.line.bar("Extracting", n, size)
		return k, err
	})
}

// keepFrom is how much must have been fetched to be worth keeping when the
// registry broke off.
const keepFrom = 16 << 20

// worthKeeping reports whether what was fetched is to wait for a next pull: when
// the network failed, here or at another layer, and it is not little.
func (f *fetcher) worthKeeping(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	from := f.p.keep
	if from == 0 {
		from = keepFrom
	}
	return errs.KindOf(err) == errs.Unavailable && f.fetched.Load() >= from
}

// download writes the whole blob: what was left of it, then the rest.
func (j *job) download(ctx context.Context, grow *growing, left io.Reader, n int64) error {
	// Large pieces: one system call and one call of the hash for each.
	buf := make([]byte, 256<<10)
	if n > 0 {
		for at := int64(0); at < n; {
			k, err := left.Read(buf[:min(int64(len(buf)), n-at)])
			if k > 0 {
				at += int64(k)
				grow.add(int64(k))
			}
			if err != nil && (err != io.EOF || at < n) {
				return err
			}
		}
	}
	defer func() { j.f.fetched.Add(grow.w.Size()) }()
	body, err := j.f.remote.Blob(ctx, image.Descriptor{Digest: j.Digest, Size: j.Size}, n)
	if err != nil {
		return err
	}
	defer body.Close() // read only; nothing to lose
	if _, err := io.CopyBuffer(struct{ io.Writer }{grow}, struct{ io.Reader }{body}, buf); err != nil {
		return err
	}
	if err := grow.w.Verify(); err != nil {
		return errs.As(errs.Corrupt, fmt.Errorf("layer %s: the registry sends other content: %w", short(j.Digest), err))
	}
	j.line.set("Download complete")
	_, err = grow.w.CommitUnsynced()
	return err
}

// unpack makes a staged layer of the blob that r reads.
func (j *job) unpack(ctx context.Context, r io.Reader) error {
	select {
	case j.f.unpackers <- struct{}{}:
		defer func() { <-j.f.unpackers }()
	case <-ctx.Done():
		return ctx.Err()
	}
	tar, _, err := archive.Decompress(r)
	if err != nil {
		return errs.As(errs.KindOf(err), fmt.Errorf("layer %s: %w", short(j.Digest), err))
	}
	defer tar.Close() // its errors come with Read
	s, err := j.f.p.Layers.Stage(ctx, j.DiffID, tar)
	if err != nil {
		return err
	}
	j.f.mu.Lock()
	j.f.staged = append(j.f.staged, s)
	j.f.mu.Unlock()
	return nil
}
