package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// answer is an error status of a registry.
type answer struct {
	status int
	code   string // of the first error in the body: MANIFEST_UNKNOWN …
	text   string
}

func (a *answer) Error() string {
	s := fmt.Sprintf("HTTP status %d %s", a.status, http.StatusText(a.status))
	if a.text != "" {
		s += ": " + a.text
	}
	return s
}

// retriable reports whether asking again may help.
func (a *answer) retriable() bool {
	return a.status >= 500 && a.status != http.StatusNotImplemented || a.status == http.StatusTooManyRequests || a.status == http.StatusRequestTimeout
}

// readAnswer makes an error of a response that is not a success.
func readAnswer(resp *http.Response) *answer {
	a := &answer{status: resp.StatusCode}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what came is better than nothing
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(data, &body) == nil && len(body.Errors) > 0 {
		a.code, a.text = body.Errors[0].Code, oneLine(body.Errors[0].Message)
	}
	return a
}

// oneLine makes text from the network fit into an error: short, on one line, and
// without anything that a terminal would obey.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
	if s = strings.Join(strings.Fields(s), " "); len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// explain turns what went wrong while fetching name from e into the error that
// the user sees.
func (c *Client) explain(e *endpoint, name image.Name, err error) error {
	var a *answer
	var refused *errcode.ErrorResponse // of a token server
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return errs.As(errs.Canceled, fmt.Errorf("%s %s: interrupted", e.verb(), name.Familiar()))
	case isOurs(err):
		if u, ok := errors.AsType[*url.Error](err); ok {
			return errs.As(errs.KindOf(err), fmt.Errorf("%s: %w", e, u.Err))
		}
		return err
	case errors.As(err, &a):
		return c.explainAnswer(e, name, a)
	case errors.As(err, &refused):
		if refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden {
			return c.denied(e, name)
		}
		return errs.New(errs.Unavailable, "%s: its token server %s answers with HTTP status %d %s", e, refused.URL.Host, refused.StatusCode, http.StatusText(refused.StatusCode))
	case noCredential(err):
		return c.denied(e, name)
	}
	return c.explainNet(e, err)
}

// verb is what is being done.
func (e *endpoint) verb() string {
	if e.push {
		return "push"
	}
	return "pull"
}

// denied is the error for a repository that is not shown to this user: there
// is no telling whether it exists.
func (c *Client) denied(e *endpoint, name image.Name) error {
	if e.cred.from != "" {
		return errs.Hint(errs.New(errs.Denied, "%s access denied for %s: %s refuses the credentials of %s", e.verb(), name.FamiliarName(), e, e.cred.from),
			"correct them, or replace them with `isle login "+name.Domain+"`")
	}
	if e.push {
		return errs.Hint(errs.New(errs.Denied, "push access denied for %s: %s wants credentials", name.FamiliarName(), e), "log in with `isle login "+name.Domain+"`")
	}
	return errs.New(errs.Denied, "pull access denied for %s, repository does not exist or may require 'isle login'", name.FamiliarName())
}

func (c *Client) explainAnswer(e *endpoint, name image.Name, a *answer) error {
	switch {
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden, a.code == "DENIED", a.code == "UNAUTHORIZED", a.code == "NAME_UNKNOWN":
		return c.denied(e, name)
	case a.status == http.StatusNotFound:
		return errs.New(errs.NotFound, "manifest for %s not found: manifest unknown", name.Familiar())
	case a.status == http.StatusTooManyRequests:
		err := errs.New(errs.Unavailable, "%s: too many requests, its rate limit is reached", e)
		if e.cred.from == "" {
			err = errs.Hint(err, "log in with `isle login "+name.Domain+"`: most registries allow more to those they know")
		}
		return err
	case a.status >= 500:
		return errs.New(errs.Unavailable, "%s: %w", e, a)
	}
	return errs.New(errs.Unknown, "%s: %w", e, a)
}

// explainNet is explain for an endpoint that could not be talked to.
func (c *Client) explainNet(e *endpoint, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the method and the address are said otherwise
	}
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
	)
	if errors.As(err, &verify) {
		err = verify.Err
	}
	switch {
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return errs.Hint(errs.New(errs.Unavailable, "%s: speaks plain HTTP, isle wants HTTPS", e),
			fmt.Sprintf("if this registry and the network to it are to be trusted, add to %s:  [[registry]]  location = %q  insecure = true  (three lines)", c.conf.ownFile, e.host))
	case errors.As(err, &authority):
		return errs.Hint(errs.New(errs.Denied, "%s: %w", e, err), "put the CA that signed its certificate into "+c.conf.certDir+"/"+e.host+"/ca.crt")
	case errors.As(err, &hostname), errors.As(err, &invalid):
		return errs.New(errs.Denied, "%s: %w", e, err)
	}
	return errs.New(errs.Unavailable, "%s: %w", e, err)
}

// isOurs reports whether err was classified here, so that it says what there is
// to say and will not pass.
func isOurs(err error) bool {
	for _, k := range [...]errs.Kind{errs.Invalid, errs.NotFound, errs.Denied, errs.Unsupported, errs.Corrupt} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// isTLS reports whether the TLS handshake failed, which it will again.
func isTLS(err error) bool {
	var (
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
	)
	return errors.As(err, &verify) || errors.As(err, &record) || errors.As(err, &alert)
}
