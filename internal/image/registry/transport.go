package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/isle-engine/isle/internal/errs"
)

// Times after which a peer counts as gone.
const (
	dialTimeout   = 15 * time.Second
	headerTimeout = 60 * time.Second
	stallTimeout  = 45 * time.Second // without a byte
	// A registry takes its time with the end of an upload: some copy the blob.
	commitTimeout = 10 * time.Minute
)

// connect gives e the HTTP client to reach it with.
func (c *Client) connect(e *endpoint) error {
	conf, err := c.conf.tlsConfig(e.host, e.insecure)
	if err != nil {
		return err
	}
	stall := c.stall
	if stall == 0 {
		stall = stallTimeout
	}
	answer, header := stall, headerTimeout
	if e.push {
		answer, header = commitTimeout, commitTimeout
	}
	typed, _ := netip.ParseAddr(hostOf(e.host)) // invalid: a name
	dialer := &net.Dialer{Timeout: dialTimeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		switch a := ap.Addr().Unmap(); {
		case e.loopback && !a.IsLoopback():
			return errs.New(errs.Denied, "%s: not a loopback address, as which %s is trusted", a, e.host)
		case a.IsLinkLocalUnicast() && a.WithZone("") != typed.WithZone("").Unmap():
			// 169.254.169.254 answers with a cloud machine's secrets.
			return errs.New(errs.Denied, "%s: a link-local address, which no registry has", a)
		}
		return nil
	}}
	tr := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{conn, answer, stall}, nil
		},
		TLSClientConfig:       conf,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // or a blob's own compression would be undone
		ResponseHeaderTimeout: header,
		TLSHandshakeTimeout:   dialTimeout,
		IdleConnTimeout:       stallTimeout,
		MaxIdleConnsPerHost:   8,
		ReadBufferSize:        64 << 10,
	}
	e.cred = &credential{conf: c.conf, host: e.host, repo: e.repo}
	e.client = &auth.Client{
		Client:   &http.Client{Transport: tr, CheckRedirect: checkRedirect},
		Cache:    auth.NewCache(),
		ClientID: "isle",
		Credential: func(ctx context.Context, _ string) (auth.Credential, error) {
			return e.cred.get(ctx)
		},
	}
	if e.insecure {
		// A registry on this machine or in the lab may have its token server
		// beside it.
		e.client.BlockedRealmPrefixes = []netip.Prefix{}
	}
	e.client.SetUserAgent("isle")
	return nil
}

// checkRedirect refuses redirects that lead out of the network, to less
// protection, or to an address that only this machine can reach.
func checkRedirect(req *http.Request, via []*http.Request) error {
	from, to := via[0].URL, req.URL
	switch {
	case len(via) >= 10:
		return errs.New(errs.Denied, "redirected more than 10 times")
	case to.Scheme != "http" && to.Scheme != "https":
		return errs.New(errs.Denied, "redirected to %q: refused, it is not an HTTP address", to.Scheme+"://"+to.Host)
	case via[len(via)-1].URL.Scheme == "https" && to.Scheme == "http":
		return errs.New(errs.Denied, "redirected from HTTPS to plain HTTP at %s: refused", to.Host)
	}
	if isLocal(to.Hostname()) && !isLocal(from.Hostname()) {
		return errs.New(errs.Denied, "redirected to this machine's own address %s: refused", to.Host)
	}
	return nil
}

func isLocal(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast())
}

// stallConn is a connection on which every read and write has a time limit of
// its own: a transfer may take hours, but not a minute without a byte.
type stallConn struct {
	net.Conn
	limit time.Duration // of a read
	write time.Duration
}

// Write gives a read that is under way more time, too: HTTP/1 waits for the
// answer from the first byte of the request on.
func (c *stallConn) Write(p []byte) (int, error) {
	now := time.Now()
	if err := errors.Join(c.SetWriteDeadline(now.Add(c.write)), c.SetReadDeadline(now.Add(c.limit))); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no data taken for %s: %w", c.write, err)
	}
	return n, err
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no data for %s: %w", c.limit, err)
	}
	return n, err
}

// tlsConfig returns the TLS settings for host[:port]: the system's CAs and
// those of the directories named after it, and client certificates.
func (c *Config) tlsConfig(hostport string, insecure bool) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure} //nolint:gosec // asked for in the settings
	for _, dir := range c.certDirs {
		dir = filepath.Join(dir, hostport)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, ent := range entries {
			path := filepath.Join(dir, ent.Name())
			base, ext := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path)
			switch ext {
			case ".crt":
				data, err := os.ReadFile(path)
				if err != nil {
					return nil, err
				}
				if conf.RootCAs == nil {
					if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
						conf.RootCAs = x509.NewCertPool() // no system CAs: only the given ones
					}
				}
				if !conf.RootCAs.AppendCertsFromPEM(data) {
					return nil, errs.New(errs.Invalid, "CA certificate %q: no certificate in PEM form in it", path)
				}
			case ".cert":
				pair, err := tls.LoadX509KeyPair(path, base+".key")
				if err != nil {
					return nil, errs.New(errs.Invalid, "client certificate %q: %w", path, err)
				}
				conf.Certificates = append(conf.Certificates, pair)
			}
		}
	}
	return conf, nil
}
