package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
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

// hubKey is what Docker Hub's credentials are kept under.
const hubKey = "https://index.docker.io/v1/"

// keys returns the names that a credential for the endpoint may be kept under,
// the narrowest first: Podman keeps some for a part of a registry.
func (c *credential) keys() []string {
	if c.host == hubHost {
		return []string{hubName + "/" + c.repo, hubKey, hubName, hubHost, "index." + hubName}
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
		keys, err := c.known(file)
		if err != nil {
			return auth.EmptyCredential, errs.New(errs.Invalid, "credentials %q: %w", file, err)
		}
		if len(keys) == 0 {
			continue
		}
		store, err := credentials.NewStore(file, credentials.StoreOptions{})
		if err != nil {
			return auth.EmptyCredential, errs.New(errs.Invalid, "credentials %q: %w", file, err)
		}
		for _, k := range keys {
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

// authFile is a file of credentials, as far as it tells what is in it.
type authFile struct {
	Auths   map[string]json.RawMessage `json:"auths"`
	Helpers map[string]string          `json:"credHelpers"`
	Store   string                     `json:"credsStore"`
}

func readAuth(file string) (f authFile, err error) {
	data, err := readFile(file)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &f)
	}
	return f, err
}

// known returns the keys that file has something for, or may have by a helper.
// Looking for all of them would run the helper again and again, and the store
// takes any key of the host for the host's.
func (c *credential) known(file string) ([]string, error) {
	f, err := readAuth(file)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, k := range c.keys() {
		_, kept := f.Auths[k]
		_, helped := f.Helpers[k]
		if kept || helped || f.Store != "" && !strings.Contains(strings.TrimPrefix(k, "https://"), "/") || f.Store != "" && k == hubKey {
			keys = append(keys, k)
		}
	}
	for k := range f.Auths {
		// An address, as old versions of Docker wrote it.
		if u, err := url.Parse(k); err == nil && u.Host == c.host && (u.Scheme == "https" || u.Scheme == "http") {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// noCredential reports whether err says that a registry wants a credential and
// there is none.
func noCredential(err error) bool { return errors.Is(err, auth.ErrBasicCredentialNotFound) }
