package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// Client fetches images. Its methods may be called from several goroutines.
type Client struct {
	conf  *Config
	stall time.Duration // for tests; 0: stallTimeout
	pause time.Duration // before the first repetition
	chunk int64         // of an upload
}

// New returns a client with the given settings.
func New(conf *Config) *Client {
	return &Client{conf: conf, pause: 200 * time.Millisecond, chunk: chunk}
}

// attempts is how often a request is made that fails in a way that may pass.
const attempts = 5

// Remote is an image at a registry: the content that its name meant when it
// was resolved.
type Remote struct {
	Name      image.Name
	Digest    string // of Content
	MediaType string
	Content   []byte // a manifest or an index

	c  *Client
	at []*endpoint // the one that answered first, then those not asked yet
}

// accept is what manifests may be.
var accept = strings.Join([]string{
	image.TypeDockerManifest, image.TypeDockerList, image.TypeOCIManifest, image.TypeOCIIndex,
}, ", ")

// Resolve fetches what name means. The mirrors are asked first; one that does
// not answer or does not have it is passed over.
func (c *Client) Resolve(ctx context.Context, name image.Name) (*Remote, error) {
	list, err := c.endpoints(ctx, name)
	if err != nil {
		return nil, err
	}
	want := name.Digest
	if want != "" {
		if err := image.CheckDigest(want); err != nil {
			return nil, err
		}
	}
	ref := want
	if ref == "" {
		ref = name.Tag
	}
	var tried []error
	for i, e := range list {
		data, mediaType, err := c.manifest(ctx, e, ref, want)
		if err == nil {
			return &Remote{Name: name, Digest: image.DigestOf(data), MediaType: mediaType, Content: data, c: c, at: list[i:]}, nil
		}
		tried = append(tried, c.explain(e, name, err))
		if ctx.Err() != nil {
			return nil, tried[i]
		}
	}
	return nil, c.verdict(name, list, tried)
}

// verdict makes one error of those that the places gave, the registry's own
// last.
func (c *Client) verdict(name image.Name, list []*endpoint, tried []error) error {
	last := len(tried) - 1
	err := tried[last]
	for i, e := range list[:last] {
		// A mirror that knows the answer is better than a registry out of reach.
		if errs.KindOf(err) == errs.Unavailable && (errs.KindOf(tried[i]) == errs.NotFound || errs.KindOf(tried[i]) == errs.Denied) {
			return errs.New(errs.NotFound, "%s: not on %s, and %w", name.Familiar(), e, err)
		}
	}
	for i, e := range list[:last] {
		if errs.KindOf(tried[i]) != errs.NotFound {
			err = errs.Hint(err, "asked before, "+e.String()+": "+strings.TrimPrefix(tried[i].Error(), e.String()+": "))
		}
	}
	return err
}

// manifest fetches the manifest or index ref (a tag or digest) from e. If
// digest is given, the content has it.
func (c *Client) manifest(ctx context.Context, e *endpoint, ref, digest string) (data []byte, mediaType string, err error) {
	err = c.again(ctx, func() error {
		resp, err := c.do(ctx, e, http.MethodGet, "/manifests/"+ref, http.Header{"Accept": {accept}})
		if err != nil {
			return err
		}
		defer resp.Body.Close() // read only; nothing to lose
		data, err = io.ReadAll(io.LimitReader(resp.Body, image.MaxManifest+1))
		if err != nil {
			return err
		}
		if len(data) > image.MaxManifest {
			return errs.New(errs.Corrupt, "%s: its manifest of %s is larger than %d bytes", e, ref, image.MaxManifest)
		}
		mediaType = resp.Header.Get("Content-Type")
		got := image.DigestOf(data)
		said := resp.Header.Get("Docker-Content-Digest")
		switch {
		case digest != "" && got != digest:
			return errs.New(errs.Corrupt, "%s: the manifest it sends for %s has the digest %s", e, digest, got)
		case strings.HasPrefix(said, "sha256:") && said != got:
			return errs.New(errs.Corrupt, "%s: the manifest it sends for %s has the digest %s, not %s as it says", e, ref, got, oneLine(said))
		}
		return nil
	})
	return data, mediaType, err
}

// Digest asks what name means now without fetching it, which registries that
// count pulls do not count. It is "" if the registry does not say.
func (c *Client) Digest(ctx context.Context, name image.Name) string {
	list, err := c.endpoints(ctx, name)
	if err != nil {
		return ""
	}
	resp, err := c.do(ctx, list[0], http.MethodHead, "/manifests/"+name.Tag, http.Header{"Accept": {accept}})
	if err != nil {
		return ""
	}
	_ = resp.Body.Close() // empty
	if d := resp.Header.Get("Docker-Content-Digest"); image.CheckDigest(d) == nil {
		return d
	}
	return ""
}

// Manifest fetches the manifest that an entry of r's index points to.
func (r *Remote) Manifest(ctx context.Context, d image.Descriptor) ([]byte, error) {
	var err error
	for _, e := range r.at {
		var data []byte
		if data, _, err = r.c.manifest(ctx, e, d.Digest, d.Digest); err == nil {
			if int64(len(data)) != d.Size && d.Size != 0 {
				return nil, errs.New(errs.Corrupt, "manifest %s: %d bytes, %d according to the index", d.Digest, len(data), d.Size)
			}
			return data, nil
		}
		if err = r.c.explain(e, r.Name, err); ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

// do sends one request to e and returns a successful response.
func (c *Client) do(ctx context.Context, e *endpoint, method, rest string, h http.Header) (*http.Response, error) {
	return c.send(ctx, e, method, func() string { return e.url(rest) }, h, nil, 0)
}

// send is do for any address, which may be asked for again, and with a body of
// size bytes, which may be opened again; nil is none.
func (c *Client) send(ctx context.Context, e *endpoint, method string, to func() string, h http.Header, body func() (io.ReadCloser, error), size int64) (*http.Response, error) {
	for {
		ctx := ctx
		if e.repo != "" {
			actions := []string{auth.ActionPull}
			if e.push {
				actions = append(actions, auth.ActionPush)
			}
			ctx = auth.AppendScopesForHost(ctx, e.host, auth.ScopeRepository(e.repo, actions...))
		}
		req, err := http.NewRequestWithContext(ctx, method, to(), nil)
		if err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w", e, err)
		}
		if h != nil {
			req.Header = h.Clone()
		}
		if body != nil {
			if req.Body, err = body(); err != nil {
				return nil, err
			}
			req.GetBody, req.ContentLength = body, size
		}
		var resp *http.Response
		if req.URL.Host == e.host {
			resp, err = e.client.Do(req)
		} else {
			resp, err = e.client.Client.Do(req) // another host gets no credential
		}
		if err != nil {
			// Whatever is wrong with HTTPS there, a registry that may be spoken
			// to without it is, as Docker does.
			if ctx.Err() == nil && req.URL.Scheme == "https" && !noCredential(err) && e.fallBack() {
				continue
			}
			return nil, err
		}
		if req.URL.Host == e.host {
			e.answered(req.URL.Scheme)
		}
		if resp.StatusCode/100 != 2 {
			a := readAnswer(resp)
			_ = resp.Body.Close() // read as far as wanted
			return nil, c.waitFor(ctx, resp, a)
		}
		return resp, nil
	}
}

// waitFor keeps the pause that a registry asks for, if it is short.
func (c *Client) waitFor(ctx context.Context, resp *http.Response, a *answer) error {
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && a.retriable() && s > 0 && s <= 10 {
		select {
		case <-time.After(time.Duration(s) * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return a
}

// again calls f until it succeeds, fails for good, or has failed too often.
func (c *Client) again(ctx context.Context, f func() error) error {
	pause := c.pause
	for n := 1; ; n++ {
		err := f()
		if err == nil || n == attempts || !passes(err) {
			return err
		}
		if err := c.rest(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}

// rest waits, with some chance in it so that many clients do not come back at
// once.
func (c *Client) rest(ctx context.Context, pause time.Duration) error {
	select {
	case <-time.After(pause/2 + rand.N(pause)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passes reports whether what caused err may be over soon.
func passes(err error) bool {
	var a *answer
	switch {
	case errors.As(err, &a):
		return a.retriable()
	case isOurs(err), errors.Is(err, context.Canceled):
		return false
	case isDial(err):
		return false // whoever typed a wrong address wants to know at once
	}
	return isBroken(err)
}

// maxTags bounds the list of a repository's tags.
const maxTags = 100_000

// Tags lists the tags of name's repository, at the registry itself.
func (c *Client) Tags(ctx context.Context, name image.Name) ([]string, error) {
	list, err := c.endpoints(ctx, name)
	if err != nil {
		return nil, err
	}
	for i, e := range list {
		tags, err := c.tags(ctx, e)
		if err == nil {
			return tags, nil
		}
		if err = c.explain(e, name, err); i == len(list)-1 || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, errs.New(errs.Unavailable, "registry %s: nowhere to ask", name.Domain)
}

func (c *Client) tags(ctx context.Context, e *endpoint) ([]string, error) {
	var all []string
	last := ""
	for len(all) < maxTags {
		rest := "/tags/list?n=1000"
		if last != "" {
			rest += "&last=" + url.QueryEscape(last)
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		more := false
		err := c.again(ctx, func() error {
			resp, err := c.do(ctx, e, http.MethodGet, rest, http.Header{"Accept": {"application/json"}})
			if err != nil {
				return err
			}
			defer resp.Body.Close() // read only; nothing to lose
			more = resp.Header.Get("Link") != ""
			return json.NewDecoder(io.LimitReader(resp.Body, image.MaxManifest)).Decode(&page)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, page.Tags...)
		if !more || len(page.Tags) == 0 || page.Tags[len(page.Tags)-1] == last {
			break
		}
		last = page.Tags[len(page.Tags)-1]
	}
	return all, nil
}
