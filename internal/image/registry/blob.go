package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// Blob returns a reader of the content that d points to, from the byte at
// offset on. The reader goes on where a connection broke, gives exactly the
// rest of d.Size bytes or an error, and does not check the digest.
func (r *Remote) Blob(ctx context.Context, d image.Descriptor, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > d.Size {
		return nil, errs.New(errs.Invalid, "blob %s: offset %d of %d bytes", d.Digest, offset, d.Size)
	}
	return &blobReader{ctx: ctx, r: r, d: d, at: offset, places: r.at}, nil
}

type blobReader struct {
	ctx    context.Context
	r      *Remote
	d      image.Descriptor
	at     int64
	places []*endpoint // the one in use, and those to turn to
	body   io.ReadCloser
	fails  int // since the last byte
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.at == b.d.Size {
			return 0, io.EOF
		}
		var err error
		if b.body == nil {
			err = b.open()
		}
		n := 0
		if err == nil {
			if left := b.d.Size - b.at; int64(len(p)) > left {
				p = p[:left]
			}
			n, err = b.body.Read(p)
			b.at += int64(n)
			if n > 0 {
				b.fails = 0
				return n, nil // an error comes again, or the rest does
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			if err == nil {
				continue
			}
		}
		if err := b.failed(err); err != nil {
			return 0, err
		}
	}
}

// failed decides what follows an error: nil means to try again.
func (b *blobReader) failed(err error) error {
	if b.body != nil {
		_ = b.body.Close() // broken
		b.body = nil
	}
	if b.ctx.Err() != nil {
		return b.r.c.explain(b.places[0], b.r.Name, context.Canceled)
	}
	b.fails++
	if passes(err) || isDial(err) { // it has answered before, with the manifest
		if b.fails < attempts {
			select {
			case <-time.After(b.r.c.pause << (b.fails - 1)):
				return nil
			case <-b.ctx.Done():
				return b.r.c.explain(b.places[0], b.r.Name, context.Canceled)
			}
		}
	}
	if len(b.places) > 1 {
		b.places, b.fails = b.places[1:], 0
		return nil
	}
	e := b.places[0]
	var a *answer
	switch {
	case errors.As(err, &a) && a.status == http.StatusNotFound:
		return errs.New(errs.NotFound, "layer %s: %s does not have it", short(b.d.Digest), e)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errs.New(errs.Unavailable, "layer %s: cut off after %d of %d bytes by %s, %d times: %w", short(b.d.Digest), b.at, b.d.Size, e, b.fails, io.ErrUnexpectedEOF)
	}
	err = b.r.c.explain(e, b.r.Name, err)
	return errs.Hint(errs.As(errs.KindOf(err), fmt.Errorf("layer %s: %w", short(b.d.Digest), err)), errs.Hints(err)...)
}

// open asks for the rest of the blob.
func (b *blobReader) open() error {
	e := b.places[0]
	h := http.Header{"Accept": {"*/*"}}
	if b.at > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", b.at))
	}
	resp, err := b.r.c.do(b.ctx, e, http.MethodGet, "/blobs/"+b.d.Digest, h)
	if err != nil {
		return err
	}
	skip, size := b.at, resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		var from, to, all int64
		if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &all); n < 2 || from > b.at {
			_ = resp.Body.Close() // not what was asked for
			return errs.New(errs.Corrupt, "layer %s: %s sends the range %q of it, asked for was %q", short(b.d.Digest), e, oneLine(resp.Header.Get("Content-Range")), h.Get("Range"))
		}
		skip = b.at - from
		if size >= 0 {
			size += from
		}
	}
	if size >= 0 && size != b.d.Size {
		_ = resp.Body.Close() // of no use
		return errs.New(errs.Corrupt, "layer %s: %d bytes on %s, %d according to the manifest", short(b.d.Digest), size, e, b.d.Size)
	}
	b.body = resp.Body
	// A server without ranges sends all again.
	if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// Close ends the reading.
func (b *blobReader) Close() error {
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}

// short is how Docker shows a digest.
func short(digest string) string {
	_, h, _ := strings.Cut(digest, ":")
	return h[:min(12, len(h))]
}

// isDial reports whether there was no connection at all.
func isDial(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns)
}

// isBroken reports whether a connection ended before its time.
func isBroken(err error) bool {
	var n net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.As(err, &n) && !isDial(err) && !isTLS(err) || isStream(err)
}

// isStream reports whether err is the end of an HTTP/2 stream or connection.
func isStream(err error) bool {
	s := err.Error()
	return strings.Contains(s, "stream error:") || strings.Contains(s, "http2: ")
}
