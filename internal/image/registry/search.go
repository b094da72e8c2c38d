package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// Found is a repository that a search found.
type Found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
}

// maxAnswer bounds what is read of a search.
const maxAnswer = 8 << 20

// hubIndex answers searches of docker.io.
const hubIndex = "index." + hubName

// Search asks the index of a registry ("docker.io" if term names none) for
// repositories. The mirrors of docker.io are asked first. A registry without an
// index is asked for the names of its repositories.
func (c *Client) Search(ctx context.Context, term string, limit int) ([]Found, error) {
	host, rest, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = hubName, term
	}
	rest = strings.TrimPrefix(rest, "library/")
	name, err := image.ParseName(host + "/x")
	if err != nil || rest == "" {
		return nil, errs.New(errs.Invalid, "search term %q: not [HOST/]WORDS", term)
	}
	list, err := c.endpoints(ctx, name)
	if err != nil {
		return nil, err
	}
	var tried []error
	for _, e := range list {
		e.repo = ""
		if e.host == hubHost {
			e.host = hubIndex
		}
		found, err := c.search(ctx, e, rest, limit)
		if err == nil {
			return found, nil
		}
		tried = append(tried, err)
		if ctx.Err() != nil {
			return nil, errs.New(errs.Canceled, "search %q: interrupted", term)
		}
	}
	last := tried[len(tried)-1]
	for i, e := range list[:len(list)-1] {
		last = errs.Hint(last, "asked before, "+e.String()+": "+strings.TrimPrefix(tried[i].Error(), e.String()+": "))
	}
	return nil, last
}

func (c *Client) search(ctx context.Context, e *endpoint, words string, limit int) ([]Found, error) {
	q := url.Values{"q": {words}, "n": {strconv.Itoa(limit)}}
	var index struct {
		Results []Found `json:"results"`
	}
	err := c.getJSON(ctx, e, func() string { return e.base() + "/v1/search?" + q.Encode() }, &index)
	var a *answer
	if !errors.As(err, &a) || a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
		if err != nil {
			return nil, c.explain(e, image.Name{Domain: e.host}, err)
		}
		return index.Results[:min(limit, len(index.Results))], nil
	}
	// No index there. The catalog is of the distribution specification.
	ctx = auth.AppendScopesForHost(ctx, e.host, auth.ScopeRegistryCatalog)
	var found []Found
	last := ""
	for {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		at := "/v2/_catalog?n=1000"
		if last != "" {
			at += "&last=" + url.QueryEscape(last)
		}
		err := c.getJSON(ctx, e, func() string { return e.base() + at }, &page)
		if errors.As(err, &a) && a.status == http.StatusNotFound {
			return nil, errs.New(errs.Unsupported, "%s: offers no search", e)
		}
		if err != nil {
			return nil, c.explain(e, image.Name{Domain: e.host}, err)
		}
		for _, r := range page.Repositories {
			if strings.Contains(r, words) {
				found = append(found, Found{Name: r})
			}
			if len(found) == limit {
				return found, nil
			}
		}
		n := len(page.Repositories)
		if n == 0 || page.Repositories[n-1] == last || n < 1000 {
			return found, nil
		}
		last = page.Repositories[n-1]
	}
}

func (c *Client) getJSON(ctx context.Context, e *endpoint, at func() string, v any) error {
	return c.again(ctx, func() error {
		resp, err := c.send(ctx, e, http.MethodGet, at, http.Header{"Accept": {"application/json"}}, nil, 0)
		if err != nil {
			return err
		}
		defer resp.Body.Close() // read only; nothing to lose
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v); err != nil {
			return errs.New(errs.Corrupt, "%s: its answer to a search is not what it should be: %w", e, err)
		}
		return nil
	})
}
