package registry

import (
	"context"
	"errors"
	"net/http"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// Kept tells where a credential is kept.
type Kept struct {
	Server string `json:"server"` // the key that it is kept under
	User   string `json:"user"`
	File   string `json:"file"`
	Plain  bool   `json:"plain"` // in the file itself, not by a helper
}

// server returns the endpoint of a registry and the key of its credential.
func (c *Client) server(ctx context.Context, host string) (*endpoint, string, error) {
	if host == "" || host == "index."+hubName || host == hubHost || host == hubKey {
		host = hubName
	}
	host = readPlace(host, false).location
	n, err := image.ParseName(host + "/x")
	if err != nil || n.Domain != host {
		return nil, "", errs.New(errs.Invalid, "registry %q: not of the form host[:port]", host)
	}
	list, err := c.endpoints(ctx, n)
	if err != nil {
		return nil, "", err
	}
	e := list[len(list)-1]
	e.mirror, e.repo = false, ""
	if host == hubName {
		return e, hubKey, nil
	}
	return e, host, nil
}

// Login verifies a credential with a registry and keeps it where Docker does,
// or in REGISTRY_AUTH_FILE.
func (c *Client) Login(ctx context.Context, host, user, password string) (Kept, error) {
	e, key, err := c.server(ctx, host)
	if err != nil {
		return Kept{}, err
	}
	cred := auth.Credential{Username: user, Password: password}
	if err := c.tryCredential(ctx, e, cred); err != nil {
		return Kept{}, err
	}
	file := c.conf.authFiles[0]
	store, err := credentials.NewStore(file, credentials.StoreOptions{AllowPlaintextPut: true})
	if err == nil {
		err = store.Put(ctx, key, cred)
	}
	if err != nil {
		return Kept{}, errs.New(errs.KindOf(err), "credentials %q: %w", file, err)
	}
	return Kept{Server: key, User: user, File: file, Plain: !c.helped(file, key)}, nil
}

// LoginAgain verifies the credential that is kept for a registry. The error is
// NotFound if there is none.
func (c *Client) LoginAgain(ctx context.Context, host string) (Kept, error) {
	e, key, err := c.server(ctx, host)
	if err != nil {
		return Kept{}, err
	}
	cred, err := e.cred.get(ctx)
	if err != nil {
		return Kept{}, err
	}
	if cred == auth.EmptyCredential {
		return Kept{}, errs.New(errs.NotFound, "credential for %s: %w", key, errs.NotFound)
	}
	return Kept{Server: key, User: cred.Username, File: e.cred.from}, c.tryCredential(ctx, e, cred)
}

// tryCredential asks a registry whether it takes a credential.
func (c *Client) tryCredential(ctx context.Context, e *endpoint, cred auth.Credential) error {
	e.client.Credential = func(context.Context, string) (auth.Credential, error) { return cred, nil }
	name := image.Name{Domain: e.host}
	err := c.again(ctx, func() error {
		resp, err := c.do(ctx, e, http.MethodGet, "", nil)
		if err != nil {
			return err
		}
		return resp.Body.Close() // what it says does not matter
	})
	if err = c.explain(e, name, err); errors.Is(err, errs.Denied) && !errors.Is(err, errs.NotFound) {
		return errs.New(errs.Denied, "%s: unauthorized: incorrect username or password", e)
	}
	return err
}

// helped reports whether a helper keeps the credential of key for file.
func (c *Client) helped(file, key string) bool {
	f, err := readAuth(file)
	return err == nil && (f.Store != "" || f.Helpers[key] != "")
}

// Logout forgets the credential of a registry, in every file that has it, and
// returns what it is kept under.
func (c *Client) Logout(ctx context.Context, host string) (key string, done []Kept, err error) {
	_, key, err = c.server(ctx, host)
	if err != nil {
		return "", nil, err
	}
	for _, file := range c.conf.authFiles {
		f, err := readAuth(file)
		if err != nil {
			return key, done, errs.New(errs.Invalid, "credentials %q: %w", file, err)
		}
		_, kept := f.Auths[key]
		helped := f.Store != "" || f.Helpers[key] != ""
		if !kept && !helped {
			continue
		}
		store, err := credentials.NewStore(file, credentials.StoreOptions{AllowPlaintextPut: true})
		if err == nil {
			err = store.Delete(ctx, key)
		}
		if err != nil {
			return key, done, errs.New(errs.KindOf(err), "credentials %q: %w", file, err)
		}
		done = append(done, Kept{Server: key, File: file, Plain: !helped})
	}
	return key, done, nil
}
