package registry

import (
	"context"
	"errors"
	"os"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/isle-engine/isle/internal/errs"
)

// credential is what the user keeps for an endpoint, looked up once, when the
// registry asks for it.
type credential struct {
	conf *Config
	host string
	repo string

	from string // the file it was found in, "" for none
}

// keys returns the names that a credential for the endpoint may be kept under,
// the narrowest first: Podman keeps some for a part of a registry.
func (c *credential) keys() []string {
	if c.host == hubHost {
		return []string{hubName + "/" + c.repo, "https://index.docker.io/v1/", hubName, hubHost, "index." + hubName}
	}
	var keys []string
	for at := c.host + "/" + c.repo; ; {
		keys = append(keys, at)
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			return keys
		}
		at = at[:i]
	}
}

// get returns the credential, or the empty one.
func (c *credential) get(ctx context.Context) (auth.Credential, error) {
	for _, file := range c.conf.authFiles {
		if _, err := os.Stat(file); err != nil {
			continue
		}
		store, err := credentials.NewStore(file, credentials.StoreOptions{})
		if err != nil {
			return auth.EmptyCredential, errs.New(errs.Invalid, "credentials %q: %w", file, err)
		}
		for _, k := range c.keys() {
			cred, err := store.Get(ctx, k)
			if err != nil {
				return auth.EmptyCredential, errs.New(errs.Unavailable, "credentials %q: %s: %w", file, k, err)
			}
			if cred != auth.EmptyCredential {
				c.from = file
				return cred, nil
			}
		}
	}
	for _, h := range c.conf.helpers {
		if h == "containers-auth.json" || strings.ContainsAny(h, "/ ") {
			continue // the files were read already; a helper is named by a word
		}
		store := credentials.NewNativeStore(h)
		for _, k := range c.keys() {
			cred, err := store.Get(ctx, k)
			if err == nil && cred != auth.EmptyCredential {
				c.from = "docker-credential-" + h
				return cred, nil
			}
		}
	}
	return auth.EmptyCredential, nil
}

// noCredential reports whether err says that a registry wants a credential and
// there is none.
func noCredential(err error) bool { return errors.Is(err, auth.ErrBasicCredentialNotFound) }
