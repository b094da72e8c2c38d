package registry

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

const (
	hubName = "docker.io"            // what names say
	hubHost = "registry-1.docker.io" // what answers
)

// endpoint is one place where an image may be fetched, or pushed to.
type endpoint struct {
	host     string // host[:port]
	repo     string
	insecure bool
	mirror   bool
	loopback bool // insecure only because it is this machine itself
	push     bool // to be written to
	client   *auth.Client
	cred     *credential

	mu     sync.Mutex
	scheme string // what is tried
	worked bool   // it has answered
}

func (e *endpoint) url(rest string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	base := e.scheme + "://" + e.host + "/v2/"
	if e.repo == "" {
		return base
	}
	return base + e.repo + rest
}

// base is the address of the host.
func (e *endpoint) base() string { return e.schemeNow() + "://" + e.host }

func (e *endpoint) schemeNow() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.scheme
}

// answered notes that scheme is the right one.
func (e *endpoint) answered(scheme string) {
	e.mu.Lock()
	e.scheme, e.worked = scheme, true
	e.mu.Unlock()
}

// fallBack makes the endpoint speak plain HTTP, if it may and does not yet.
func (e *endpoint) fallBack() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.insecure || e.worked || e.scheme == "http" {
		return false
	}
	e.scheme = "http"
	return true
}

func (e *endpoint) String() string {
	if e.mirror {
		return "mirror " + e.host
	}
	return "registry " + e.host
}

// endpoints returns where name is to be fetched from, in order.
func (c *Client) endpoints(ctx context.Context, name image.Name) ([]*endpoint, error) {
	var list []*endpoint
	add := func(p place, below string, isMirror bool) error {
		at := p.location
		if below != "" {
			at += "/" + below
		}
		host, repo, _ := strings.Cut(at, "/")
		if host == hubName || host == "index."+hubName {
			host = hubHost
		}
		e := &endpoint{host: host, repo: repo, scheme: "https", insecure: p.insecure || c.conf.isInsecure(host), mirror: isMirror}
		if p.plain {
			e.scheme = "http"
		}
		if !e.insecure && isLoopback(ctx, host) {
			// Docker trusts the machine itself too.
			e.insecure, e.loopback = true, true
		}
		list = append(list, e)
		return c.connect(e)
	}
	primary, below := place{location: name.Domain}, name.Path
	if r := c.conf.match(name); r != nil {
		if r.blocked {
			return nil, errs.New(errs.Denied, "registry %s: blocked by %s", r.prefix, r.file)
		}
		// What follows the prefix in the name follows the location; a prefix
		// with a wildcard rewrites nothing.
		if !strings.HasPrefix(r.prefix, "*") {
			below = strings.TrimPrefix(strings.TrimPrefix(name.Repository(), trimSuffix(r.prefix)), "/")
		}
		for _, m := range r.mirrors {
			if m.digestOnly && name.Digest == "" || m.tagOnly && name.Digest != "" {
				continue
			}
			if err := add(m.place, below, true); err != nil {
				return nil, err
			}
		}
		primary.insecure = r.insecure
		if r.location != "" {
			primary.location = trimSuffix(r.location)
		}
	}
	if name.Domain == hubName {
		for _, m := range c.conf.hubMirrors {
			if err := add(m, name.Path, true); err != nil {
				return nil, err
			}
		}
	}
	return list, add(primary, below, false)
}

// trimSuffix takes a tag or digest off a prefix.
func trimSuffix(prefix string) string {
	prefix, _, _ = strings.Cut(prefix, "@")
	slash := strings.LastIndexByte(prefix, '/')
	if slash < 0 {
		return prefix
	}
	if i := strings.IndexByte(prefix[slash:], ':'); i >= 0 {
		return prefix[:slash+i]
	}
	return prefix
}

// isLoopback reports whether host[:port] is this machine and nothing else.
func isLoopback(ctx context.Context, hostport string) bool {
	host := hostOf(hostport)
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	if host == "localhost" {
		return true
	}
	if !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".local") {
		// A name of the hosts file, most likely. Names of the Internet are not
		// looked up for this: their DNS has no say in what is trusted.
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		for _, a := range addrs {
			if !a.IsLoopback() {
				return false
			}
		}
		return err == nil && len(addrs) > 0
	}
	return false
}

// AllowInsecure lets the registry host be talked to without verified TLS.
func (c *Client) AllowInsecure(host string) { c.conf.insecure = append(c.conf.insecure, host) }
