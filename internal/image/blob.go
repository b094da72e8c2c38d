package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
	"github.com/isle-engine/isle/internal/state"
)

// HasBlob reports whether the content with digest is in the store.
func (s *Store) HasBlob(digest string) bool {
	if CheckDigest(digest) != nil {
		return false
	}
	fi, err := os.Lstat(s.blobFile(digest))
	return err == nil && fi.Mode().IsRegular()
}

// BlobReader reads a blob and fails with Corrupt at its end if it is damaged.
type BlobReader struct {
	*Verifier
	f    *os.File
	Size int64
}

// Close ends the reading.
func (r *BlobReader) Close() error { return r.f.Close() }

// OpenBlob returns a reader of the content with digest that verifies it.
func (s *Store) OpenBlob(digest string) (*BlobReader, error) {
	if err := CheckDigest(digest); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.blobFile(digest), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errs.New(errs.NotFound, "blob %s: not in the store", digest)
		}
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errs.New(errs.Corrupt, "blob %s: not a regular file", digest)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &BlobReader{NewVerifier(f, digest, -1), f, fi.Size()}, nil
}

// OpenBlobAt returns a reader of what follows offset in the content with digest,
// which verifies nothing: for whoever has read all of it before.
func (s *Store) OpenBlobAt(digest string, offset int64) (io.ReadCloser, error) {
	r, err := s.OpenBlob(digest)
	if err != nil {
		return nil, err
	}
	if _, err := r.f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, r.f.Close())
	}
	return r.f, nil
}

// ReadBlob returns the content with digest, which must not be larger than limit.
func (s *Store) ReadBlob(digest string, limit int64) ([]byte, error) {
	r, err := s.OpenBlob(digest)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // read only; nothing to lose
	if r.Size > limit {
		return nil, errs.New(errs.Corrupt, "blob %s: larger than %d bytes", digest, limit)
	}
	return io.ReadAll(r)
}

// BlobWriter fills one blob. Nobody sees the blob before Commit has verified it.
type BlobWriter struct {
	s      *Store
	f      *os.File
	lock   *state.Lock
	path   string
	digest string // "" if it is not known beforehand
	sum    hash.Hash
	size   int64
	begun  int64 // up to where writing to disk was started
	done   bool
}

// writeback is how much is written before the kernel is told to begin storing
// it, so that the final fsync has little left to do.
const writeback = 8 << 20

// CreateBlob begins to write the content with digest, or content whose digest
// is not known yet if digest is "". While somebody else writes the same
// content it waits; if the blob is there (then or before), the error is Exists.
//
// A writer of known content finds what an interrupted one has left: see Left.
func (s *Store) CreateBlob(ctx context.Context, digest string) (*BlobWriter, error) {
	for {
		w, err := s.createBlob(digest, time.Second)
		if !errors.Is(err, errs.Unavailable) {
			return w, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (s *Store) createBlob(digest string, wait time.Duration) (*BlobWriter, error) {
	path := ""
	if digest != "" {
		if err := CheckDigest(digest); err != nil {
			return nil, err
		}
		path = s.tmp(digestHex(digest) + ".part")
	} else {
		path = s.tmp("new-" + rand.Text() + ".part")
	}
	// The lock is on the file itself: LockFile starts again when the file was
	// renamed or removed while it waited.
	lock, err := state.LockFile(path, true, wait)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.create(); err == nil {
			lock, err = state.LockFile(path, true, wait)
		}
	}
	if err != nil {
		return nil, err
	}
	w := &BlobWriter{s: s, f: lock.File(), lock: lock, path: path, digest: digest, sum: sha256.New()}
	if digest != "" && s.HasBlob(digest) {
		w.Discard()
		return nil, errs.New(errs.Exists, "blob %s: in the store", digest)
	}
	return w, nil
}

// Follow opens the file that is being written, for a reader of its own.
func (w *BlobWriter) Follow() (*os.File, error) { return os.Open(w.path) }

// Left returns a reader of what an interrupted writer has left of this content,
// and its size. What is read counts as written; the caller reads all of it, or
// calls Restart, before it writes.
func (w *BlobWriter) Left() (io.Reader, int64, error) {
	fi, err := w.f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	return leftReader{w}, fi.Size(), nil
}

type leftReader struct{ w *BlobWriter }

func (r leftReader) Read(p []byte) (int, error) {
	n, err := r.w.f.Read(p)
	_, _ = r.w.sum.Write(p[:n]) // never fails (hash.Hash)
	r.w.size += int64(n)
	return n, err
}

// Restart throws away what was written.
func (w *BlobWriter) Restart() error {
	w.sum.Reset()
	w.size, w.begun = 0, 0
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return w.f.Truncate(0)
}

// Write implements io.Writer.
func (w *BlobWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	_, _ = w.sum.Write(p[:n]) // never fails (hash.Hash)
	w.size += int64(n)
	if w.size-w.begun >= writeback {
		// Advice; a file system that cannot do it makes fsync slower, no more.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.begun, w.size-w.begun, unix.SYNC_FILE_RANGE_WRITE)
		w.begun = w.size
	}
	return n, w.s.explain(err)
}

// explain says of a full disk which one it is.
func (s *Store) explain(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errs.Hint(err, "the file system of "+s.dir+" is full, or your share of it")
	}
	return err
}

// Size returns how many bytes there are so far.
func (w *BlobWriter) Size() int64 { return w.size }

// Digest returns the digest of what there is so far.
func (w *BlobWriter) Digest() string {
	return digestPrefix + hex.EncodeToString(w.sum.Sum(nil))
}

// Verify returns a Corrupt error unless what was written is the content that
// was announced.
func (w *BlobWriter) Verify() error {
	if got := w.Digest(); w.digest != "" && got != w.digest && !defence.Removed("digest") {
		return errs.New(errs.Corrupt, "blob %s: its content has the digest %s", w.digest, got)
	}
	return nil
}

// Commit verifies the content and makes it a blob of the store that survives
// a power loss. It returns the blob's digest. On failure the content is gone.
func (w *BlobWriter) Commit() (string, error) { return w.commit(true) }

// CommitUnsynced is Commit for one of many blobs: the caller calls SyncBlobs
// before it records an image with them. After a power loss before that, the
// blob may be damaged; whoever finds it so discards it with DropBlob.
func (w *BlobWriter) CommitUnsynced() (string, error) { return w.commit(false) }

func (w *BlobWriter) commit(sync bool) (string, error) {
	digest := w.Digest()
	err := w.Verify()
	if err == nil && sync {
		err = w.f.Sync()
	}
	if err == nil {
		err = w.f.Chmod(0o600)
	}
	if err == nil {
		err = os.Rename(w.path, w.s.blobFile(digest))
	}
	if err == nil && sync {
		err = state.SyncDir(w.s.dir + "/blobs/sha256")
	}
	if err != nil {
		w.Discard()
		return "", err
	}
	w.done = true
	return digest, w.lock.Close()
}

// Close ends the writing. Without a Commit before it, what was written of known
// content stays for a later writer to go on from; other content is removed.
func (w *BlobWriter) Close() error {
	if w.done {
		return nil
	}
	if w.digest == "" || w.size == 0 {
		w.Discard()
		return nil
	}
	w.done = true
	return w.lock.Close()
}

// Discard ends the writing and removes what was written. After Commit it does
// nothing.
func (w *BlobWriter) Discard() {
	if w.done {
		return
	}
	w.done = true
	_ = os.Remove(w.path) // left behind, it is swept later
	_ = w.lock.Close()    // nothing in it is wanted
}

// SyncBlobs puts on disk what was committed unsynced. It does nothing if the
// store is on the file system of the path synced, for which that was done since.
func (s *Store) SyncBlobs(synced string) error {
	dir := s.dir + "/blobs/sha256"
	var a, b unix.Stat_t
	if synced != "" && unix.Stat(dir, &a) == nil && unix.Stat(synced, &b) == nil && a.Dev == b.Dev {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err = unix.Syncfs(int(f.Fd())); err != nil {
		err = &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	return errors.Join(err, f.Close())
}

// DropBlob removes a blob whose reader has found it damaged.
func (s *Store) DropBlob(digest string) error {
	if err := CheckDigest(digest); err != nil {
		return err
	}
	return os.Remove(s.blobFile(digest))
}

// PutBlob stores data and returns its digest. It is idempotent.
func (s *Store) PutBlob(data []byte) (string, error) {
	digest := DigestOf(data)
	w, err := s.createBlob(digest, lockTimeout)
	if errors.Is(err, errs.Exists) {
		return digest, nil
	}
	if err != nil {
		return "", err
	}
	defer w.Close() //nolint:errcheck // after Commit it does nothing
	if err := w.Restart(); err != nil {
		return "", err
	}
	if _, err := w.Write(data); err != nil {
		return "", err
	}
	return w.Commit()
}

// keepPart is how long what is left of an interrupted download, or is known of
// an upload, waits for a pull or push that goes on with it.
const keepPart = 24 * time.Hour

// sweepTmp removes what dead processes left unfinished. The caller holds the
// store's lock. keepParts spares recent parts of downloads.
func (s *Store) sweepTmp(keepParts bool) error {
	for _, d := range []string{"", "/refs", "/ids"} {
		if err := state.Sweep(s.dir + d); err != nil {
			return err
		}
	}
	files, err := readDir(s.dir + "/tmp")
	if err != nil {
		return err
	}
	for _, f := range files {
		if keepParts && (strings.HasSuffix(f, ".part") && !strings.HasPrefix(f, "new-") || strings.HasPrefix(f, sessionPrefix)) {
			if fi, err := os.Lstat(s.tmp(f)); err == nil && time.Since(fi.ModTime()) < keepPart {
				continue
			}
		}
		l, err := state.TryLock(s.tmp(f))
		if errors.Is(err, errs.Conflict) {
			continue // its owner lives
		}
		if err != nil {
			return err
		}
		err = os.Remove(s.tmp(f))
		if err := errors.Join(err, l.Close()); err != nil {
			return err
		}
	}
	return nil
}
