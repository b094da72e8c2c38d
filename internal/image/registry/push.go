package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// Target is a repository that is pushed to. Its methods may be called from
// several goroutines.
type Target struct {
	Name image.Name
	// Sessions, if set, keeps unfinished uploads for a later push.
	Sessions Sessions

	c *Client
	e *endpoint
}

// Sessions keeps where uploads stand, by keys of the caller's choice.
type Sessions interface {
	// Session returns what is kept under key, "" if nothing is, a function that
	// replaces it, and one that ends its use.
	Session(key string) (session string, keep func(session string), end func())
}

// Source is the content of a blob, from the byte at offset on. It may be opened
// more than once.
type Source func(offset int64) (io.ReadCloser, error)

// Target returns the repository of name at its registry. A mirror is never
// pushed to.
func (c *Client) Target(ctx context.Context, name image.Name) (*Target, error) {
	list, err := c.endpoints(ctx, name)
	if err != nil {
		return nil, err
	}
	e := list[len(list)-1]
	e.push = true
	// With the longer times of an upload.
	if err := c.connect(e); err != nil {
		return nil, err
	}
	return &Target{Name: name, c: c, e: e}, nil
}

func (t *Target) explain(err error) error { return t.c.explain(t.e, t.Name, err) }

// Has reports whether the repository has a blob.
func (t *Target) Has(ctx context.Context, digest string) (bool, error) {
	err := t.c.again(ctx, func() error {
		resp, err := t.c.do(ctx, t.e, http.MethodHead, "/blobs/"+digest, nil)
		if err == nil {
			err = resp.Body.Close() // empty
		}
		return err
	})
	var a *answer
	if errors.As(err, &a) && a.status == http.StatusNotFound {
		return false, nil
	}
	return err == nil, t.explain(err)
}

// Mount makes a blob of another repository of the same registry one of this
// repository, without sending it. It reports whether the registry did so; one
// that does not know how, or does not show that repository to us, does not.
func (t *Target) Mount(ctx context.Context, digest, from string) (bool, error) {
	ctx = auth.AppendScopesForHost(ctx, t.e.host, auth.ScopeRepository(from, auth.ActionPull))
	resp, err := t.c.do(ctx, t.e, http.MethodPost, "/blobs/uploads/?mount="+url.QueryEscape(digest)+"&from="+url.QueryEscape(from), nil)
	var a *answer
	switch {
	case errors.As(err, &a) || noCredential(err):
		return false, nil // the upload that follows says what there is to say
	case err != nil:
		return false, t.explain(err)
	}
	_ = resp.Body.Close() // empty
	if resp.StatusCode == http.StatusCreated {
		return true, nil
	}
	if at, err := t.location(resp, nil); err == nil {
		t.cancel(ctx, at) // it has begun an upload instead
	}
	return false, nil
}

// cancel gives up an upload. What the registry says does not matter: it forgets
// unfinished ones by itself.
func (t *Target) cancel(ctx context.Context, at *url.URL) {
	if resp, err := t.c.send(ctx, t.e, http.MethodDelete, fixed(at), nil, nil, 0); err == nil {
		_ = resp.Body.Close() // empty
	}
}

// location returns where an answer says that an upload goes on.
func (t *Target) location(resp *http.Response, before *url.URL) (*url.URL, error) {
	s := resp.Header.Get("Location")
	if s == "" && before != nil {
		return before, nil
	}
	at, err := resp.Request.URL.Parse(s)
	if err != nil || s == "" {
		return nil, errs.New(errs.Unavailable, "%s: its answer does not say where to upload (Location %q)", t.e, oneLine(s))
	}
	return at, checkRedirect(&http.Request{URL: at}, []*http.Request{resp.Request})
}

// chunk is how much of a large blob is sent in one request: after each, an
// upload that was broken off can be gone on with. Registries in the cloud want 5
// MiB at least.
const chunk = 16 << 20

// uploadAttempts is how often a blob is begun again without coming further.
const uploadAttempts = 5

// Upload sends a blob. sent is told how many bytes the registry has of it. An
// upload that broke, also that of an earlier process, is gone on with where
// the registry still knows of it.
func (t *Target) Upload(ctx context.Context, d image.Descriptor, src Source, sent func(n int64)) error {
	u := &upload{t: t, d: d, src: src, sent: sent, keep: func(string) {}}
	if t.Sessions != nil && d.Size > t.c.chunk {
		s, keep, end := t.Sessions.Session(t.e.host + "/" + t.e.repo + "@" + d.Digest)
		defer end()
		u.keep = keep
		if at, err := url.Parse(s); err == nil && at.Host != "" && (at.Scheme == "https" || t.e.insecure) {
			u.at = at
			u.ask(ctx)
		}
	}
	pause := t.c.pause
	for fails, reached := 0, int64(0); ; {
		err := u.run(ctx)
		if err == nil {
			u.keep("")
			return nil
		}
		if u.done > reached {
			fails, reached = 0, u.done
		}
		var a *answer
		switch fails++; {
		case ctx.Err() != nil:
			return t.explain(context.Canceled)
		case fails >= uploadAttempts:
			return t.uploadError(d, err)
		case errors.As(err, &a) && u.at != nil && (a.status == http.StatusNotFound || a.status == http.StatusRequestedRangeNotSatisfiable || a.code == "BLOB_UPLOAD_INVALID" || a.code == "BLOB_UPLOAD_UNKNOWN"):
			u.restart() // it does not know this upload any more
		case errors.As(err, &a) && u.at != nil && u.chunked() && a.status/100 == 4 && a.status != http.StatusUnauthorized && a.status != http.StatusForbidden && a.status != http.StatusTooManyRequests:
			u.whole = true // it does not take parts
			u.restart()
		case passes(err) || isDial(err) && u.at != nil:
			if err := t.c.rest(ctx, pause); err != nil {
				return t.explain(context.Canceled)
			}
			pause *= 2
			if u.at != nil {
				u.ask(ctx)
			}
		default:
			return t.uploadError(d, err)
		}
	}
}

func (t *Target) uploadError(d image.Descriptor, err error) error {
	var a *answer
	if errors.As(err, &a) && a.status == http.StatusRequestEntityTooLarge {
		return errs.New(errs.Invalid, "blob %s: %s does not take %d bytes: %w", short(d.Digest), t.e, d.Size, a)
	}
	err = t.explain(err)
	return errs.Hint(errs.As(errs.KindOf(err), fmt.Errorf("blob %s: %w", short(d.Digest), err)), errs.Hints(err)...)
}

// upload is a blob on its way.
type upload struct {
	t     *Target
	d     image.Descriptor
	src   Source
	sent  func(int64)
	keep  func(string)
	at    *url.URL // where it goes on; nil: not begun
	done  int64    // bytes that the registry has acknowledged
	whole bool     // in one piece
}

func (u *upload) chunked() bool { return !u.whole && u.d.Size > u.t.c.chunk }

func (u *upload) restart() {
	u.at, u.done = nil, 0
	u.keep("")
}

// run sends what is missing.
func (u *upload) run(ctx context.Context) error {
	t := u.t
	if u.at == nil {
		resp, err := t.c.do(ctx, t.e, http.MethodPost, "/blobs/uploads/", nil)
		if err != nil {
			return err
		}
		_ = resp.Body.Close() // empty
		if u.at, err = t.location(resp, nil); err != nil {
			return err
		}
	}
	for u.chunked() && u.done < u.d.Size {
		if err := u.chunk(ctx); err != nil {
			return err
		}
	}
	left := u.d.Size - u.done
	q := u.at.Query()
	q.Set("digest", u.d.Digest)
	end := *u.at
	end.RawQuery = q.Encode()
	resp, err := t.c.send(ctx, t.e, http.MethodPut, fixed(&end), http.Header{"Content-Type": {"application/octet-stream"}}, u.body(u.done, left), left)
	if err != nil {
		return err
	}
	u.sent(u.d.Size)
	return resp.Body.Close() // empty
}

// chunk sends one part.
func (u *upload) chunk(ctx context.Context) error {
	n := min(u.t.c.chunk, u.d.Size-u.done)
	h := http.Header{
		"Content-Type":  {"application/octet-stream"},
		"Content-Range": {fmt.Sprintf("%d-%d", u.done, u.done+n-1)},
	}
	resp, err := u.t.c.send(ctx, u.t.e, http.MethodPatch, fixed(u.at), h, u.body(u.done, n), n)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // empty
	if u.at, err = u.t.location(resp, u.at); err != nil {
		return err
	}
	u.done += n
	if has, ok := ranged(resp); ok && has != u.done {
		return errs.New(errs.Unavailable, "%s: it has %d bytes of a blob of which %d were sent", u.t.e, has, u.done)
	}
	u.keep(u.at.String())
	return nil
}

// ask finds out where an upload stands, and begins anew if the registry does
// not say.
func (u *upload) ask(ctx context.Context) {
	resp, err := u.t.c.send(ctx, u.t.e, http.MethodGet, fixed(u.at), nil, nil, 0)
	if err != nil {
		if ctx.Err() == nil && !isDial(err) {
			u.restart()
		}
		return
	}
	_ = resp.Body.Close() // empty
	has, ok := ranged(resp)
	at, err := u.t.location(resp, u.at)
	if !ok || err != nil || has > u.d.Size {
		u.restart()
		return
	}
	u.at, u.done = at, has
	u.sent(has)
}

// ranged reads the header Range of an upload: "0-N", N being the last byte.
// Nothing at all is also written "0-0".
func ranged(resp *http.Response) (int64, bool) {
	from, to, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(to, 10, 64)
	if !ok || from != "0" || err != nil || n < 0 {
		return 0, false
	}
	if n == 0 {
		return 0, true // or one byte, which nobody sends by itself
	}
	return n + 1, true
}

// body returns what is to be sent, n bytes from offset on.
func (u *upload) body(offset, n int64) func() (io.ReadCloser, error) {
	if n == 0 {
		return nil
	}
	return func() (io.ReadCloser, error) {
		r, err := u.src(offset)
		if err != nil {
			return nil, err
		}
		return &counting{r: io.LimitReader(r, n), c: r, at: offset, sent: u.sent}, nil
	}
}

// counting tells how much was read of a body.
type counting struct {
	r    io.Reader
	c    io.Closer
	at   int64
	sent func(int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.at += int64(n)
	c.sent(c.at)
	return n, err
}

func (c *counting) Close() error { return c.c.Close() }

// fixed is an address that does not follow the endpoint's scheme.
func fixed(u *url.URL) func() string {
	s := u.String()
	return func() string { return s }
}

// PutManifest gives a manifest or index the name ref, a tag or digest.
func (t *Target) PutManifest(ctx context.Context, ref, mediaType string, data []byte) error {
	var said string
	err := t.c.again(ctx, func() error {
		body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		resp, err := t.c.send(ctx, t.e, http.MethodPut, func() string { return t.e.url("/manifests/" + ref) }, http.Header{"Content-Type": {mediaType}}, body, int64(len(data)))
		if err != nil {
			return err
		}
		said = resp.Header.Get("Docker-Content-Digest")
		return resp.Body.Close() // empty
	})
	var a *answer
	if errors.As(err, &a) && (a.status == http.StatusBadRequest || a.status == http.StatusNotFound && a.code != "NAME_UNKNOWN") {
		return errs.New(errs.Invalid, "%s: refuses the manifest of %s: %w", t.e, t.Name.Familiar(), a)
	}
	if err != nil {
		return t.explain(err)
	}
	if got := image.DigestOf(data); strings.HasPrefix(said, "sha256:") && said != got {
		return errs.New(errs.Corrupt, "%s: stored the manifest as %s, not as %s", t.e, oneLine(said), got)
	}
	return nil
}

// Beside returns what the repository of name is called at the target's registry,
// if it is another repository of the same.
func (t *Target) Beside(name image.Name) (repo string, ok bool) {
	if name.Domain != t.Name.Domain || name.Path == t.Name.Path || t.e.repo != t.Name.Path {
		return "", false
	}
	return name.Path, true
}
