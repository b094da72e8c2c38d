package registry

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/isle-engine/isle/internal/errs"
)

// Fetch returns what is at an HTTP address that the user has typed. It gives up
// on a server that sends nothing for a while, and redirects are followed as
// with registries.
func (c *Client) Fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errs.New(errs.Invalid, "address %q: not of the form http[s]://host/path", address)
	}
	conf, err := c.conf.tlsConfig(u.Host, false)
	if err != nil {
		return nil, err
	}
	stall := c.stall
	if stall == 0 {
		stall = stallTimeout
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	tr := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{conn, stall, stall}, nil
		},
		TLSClientConfig: conf, ForceAttemptHTTP2: true, DisableCompression: true,
		ResponseHeaderTimeout: headerTimeout, TLSHandshakeTimeout: dialTimeout,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errs.New(errs.Invalid, "address %q: %w", address, err)
	}
	req.Header.Set("User-Agent", "isle")
	resp, err := (&http.Client{Transport: tr, CheckRedirect: checkRedirect}).Do(req)
	if err != nil {
		if isOurs(err) {
			return nil, err
		}
		return nil, c.explainNet(&endpoint{host: u.Host}, err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // not what was wanted
		kind := errs.Unavailable
		if resp.StatusCode/100 == 4 {
			kind = errs.NotFound
		}
		return nil, errs.As(kind, fmt.Errorf("%s: HTTP status %s", address, resp.Status))
	}
	return resp.Body, nil
}
