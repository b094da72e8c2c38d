package registry

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// policy is a containers-policy.json(5): what an image must have to be pulled.
type policy struct {
	Default    []requirement                       `json:"default"`
	Transports map[string]map[string][]requirement `json:"transports"`
}

// requirement is one of those that an image must meet all of.
type requirement struct {
	Type string `json:"type"`

	// Of sigstoreSigned.
	KeyPath        string          `json:"keyPath"`
	KeyPaths       []string        `json:"keyPaths"`
	KeyData        string          `json:"keyData"`
	KeyDatas       []string        `json:"keyDatas"`
	Fulcio         json.RawMessage `json:"fulcio"`
	PKI            json.RawMessage `json:"pki"`
	RekorPath      string          `json:"rekorPublicKeyPath"`
	RekorPaths     []string        `json:"rekorPublicKeyPaths"`
	RekorData      string          `json:"rekorPublicKeyData"`
	RekorDatas     []string        `json:"rekorPublicKeyDatas"`
	SignedIdentity *identity       `json:"signedIdentity"`
	// Of signedBy and signedBaseLayer, which are not supported.
	KeyType           string          `json:"keyType"`
	BaseLayerIdentity json.RawMessage `json:"baseLayerIdentity"`
}

// identity says what a signature must be of.
type identity struct {
	Type             string `json:"type"`
	DockerReference  string `json:"dockerReference"`
	DockerRepository string `json:"dockerRepository"`
	Prefix           string `json:"prefix"`
	SignedPrefix     string `json:"signedPrefix"`
}

// findPolicy returns the first policy file that is there, "" if none is.
func findPolicy(files ...string) string {
	for _, f := range files {
		if _, err := os.Stat(f); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f
		}
	}
	return ""
}

// readPolicy parses a policy. What it does not know it refuses: a requirement
// that is overlooked would be one that everything meets.
func readPolicy(file string) (*policy, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	p := new(policy)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(p); err != nil {
		return nil, errs.New(errs.Invalid, "policy %q: %w", file, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "policy %q: something follows it", file)
	}
	if len(p.Default) == 0 {
		return nil, errs.New(errs.Invalid, "policy %q: no default requirements", file)
	}
	return p, nil
}

// of returns the requirements for an image, and the scope they are of: the
// narrowest that is named.
func (p *policy) of(n image.Name) ([]requirement, string) {
	scopes, ok := p.Transports["docker"]
	if !ok {
		return p.Default, "default"
	}
	for _, s := range policyScopes(n) {
		if r, ok := scopes[s]; ok {
			if s == "" {
				s = "docker transport"
			}
			return r, s
		}
	}
	return p.Default, "default"
}

// policyScopes are the names of an image in a policy, the narrowest first.
func policyScopes(n image.Name) []string {
	scopes := []string{n.String()}
	for at := n.Repository(); ; {
		scopes = append(scopes, at)
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			break
		}
		at = at[:i]
	}
	host := hostOf(n.Domain)
	for {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return append(scopes, "")
		}
		scopes = append(scopes, "*."+rest)
		host = rest
	}
}

// Allowed returns a Denied error unless the policy of this user lets r, of which
// the manifest with the digest instance was chosen, be pulled. Without a policy
// everything may be.
func (c *Client) Allowed(ctx context.Context, r *Remote, instance string) error {
	if c.conf.policy == "" {
		return nil
	}
	p, err := readPolicy(c.conf.policy)
	if err != nil {
		return err
	}
	reqs, scope := p.of(r.Name)
	if len(reqs) == 0 {
		return errs.New(errs.Invalid, "policy %q: no requirements for %s", c.conf.policy, scope)
	}
	for _, q := range reqs {
		if err := c.meets(ctx, q, r, instance); err != nil {
			return errs.As(errs.KindOf(err), fmt.Errorf("image %s: refused by %s (%s): %w", r.Name.Familiar(), c.conf.policy, scope, err))
		}
	}
	return nil
}

func (c *Client) meets(ctx context.Context, q requirement, r *Remote, instance string) error {
	switch q.Type {
	case "insecureAcceptAnything":
		return nil
	case "reject":
		return errs.New(errs.Denied, "no image from there is accepted")
	case "sigstoreSigned":
		return c.sigstore(ctx, q, r, instance)
	case "signedBy", "signedBaseLayer":
		return errs.Hint(errs.New(errs.Denied, "it asks for signatures of the kind %s, which isle cannot verify", q.Type),
			"signatures of sigstore (sigstoreSigned with keyPath) can be")
	}
	return errs.New(errs.Invalid, "requirement %q is not known", q.Type)
}

// maxSignatures bounds how many signatures of an image are looked at.
const maxSignatures = 50

// sigstore asks for a signature by one of the keys, over the manifest or the
// index that it was chosen from.
func (c *Client) sigstore(ctx context.Context, q requirement, r *Remote, instance string) error {
	if len(q.Fulcio)+len(q.PKI)+len(q.RekorPath)+len(q.RekorPaths)+len(q.RekorData)+len(q.RekorDatas) > 0 {
		return errs.New(errs.Denied, "it asks for certificates of Fulcio, a PKI or Rekor, which isle cannot verify; keys it can")
	}
	keys, err := q.keys()
	if err != nil {
		return err
	}
	why := errs.New(errs.Denied, "no signature found at its repository")
	digests := []string{instance}
	if r.Digest != instance {
		digests = append(digests, r.Digest)
	}
	for _, digest := range digests {
		at := image.Name{Domain: r.Name.Domain, Path: r.Name.Path, Tag: strings.Replace(digest, ":", "-", 1) + ".sig"}
		sigs, err := c.Resolve(ctx, at)
		if errs.KindOf(err) == errs.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		man, _, err := image.ParseManifest(sigs.Content, sigs.MediaType)
		if err != nil {
			return err
		}
		if man == nil {
			continue
		}
		for i, d := range man.Layers[:min(len(man.Layers), maxSignatures)] {
			sig, err := base64.StdEncoding.DecodeString(d.Annotations["dev.cosignproject.cosign/signature"])
			if err != nil || len(sig) == 0 {
				continue
			}
			payload, err := signedPayload(ctx, sigs, d)
			if err != nil {
				return err
			}
			if err := q.verify(keys, payload, sig, r.Name, digest); err != nil {
				why = errs.New(errs.Denied, "signature %d: %w", i+1, err)
				continue
			}
			return nil
		}
	}
	return why
}

// signedPayload fetches what a signature is over.
func signedPayload(ctx context.Context, r *Remote, d image.Descriptor) ([]byte, error) {
	if d.Size > 1<<20 {
		return nil, errs.New(errs.Denied, "signature of %d bytes", d.Size)
	}
	body, err := r.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close() // read only; nothing to lose
	return io.ReadAll(image.NewVerifier(body, d.Digest, d.Size))
}

// keys reads the public keys of a requirement.
func (q *requirement) keys() ([]crypto.PublicKey, error) {
	var pems [][]byte
	for _, f := range append([]string{q.KeyPath}, q.KeyPaths...) {
		if f == "" {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		pems = append(pems, data)
	}
	for _, s := range append([]string{q.KeyData}, q.KeyDatas...) {
		if s == "" {
			continue
		}
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, errs.New(errs.Invalid, "keyData: %w", err)
		}
		pems = append(pems, data)
	}
	var keys []crypto.PublicKey
	for _, data := range pems {
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, errs.New(errs.Invalid, "public key: not in PEM form")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errs.New(errs.Invalid, "public key: %w", err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errs.New(errs.Invalid, "sigstoreSigned without a key")
	}
	return keys, nil
}

// payloadType is what cosign signs.
const payloadType = "cosign container image signature"

// verify checks one signature: by whom, over which manifest, and for which name.
func (q *requirement) verify(keys []crypto.PublicKey, payload, sig []byte, name image.Name, digest string) error {
	good := false
	for _, k := range keys {
		good = good || signedBy(k, payload, sig)
	}
	if !good {
		return errors.New("not by a key of the policy")
	}
	var p struct {
		Critical struct {
			Type     string
			Identity struct {
				Reference string `json:"docker-reference"`
			}
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			}
		}
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return fmt.Errorf("what is signed: %w", err)
	}
	switch {
	case p.Critical.Type != payloadType:
		return fmt.Errorf("of the type %q", oneLine(p.Critical.Type))
	case p.Critical.Image.Digest != digest:
		return fmt.Errorf("of %s", oneLine(p.Critical.Image.Digest))
	case !q.SignedIdentity.matches(name, p.Critical.Identity.Reference):
		return fmt.Errorf("for %q, not for this name", oneLine(p.Critical.Identity.Reference))
	}
	return nil
}

func signedBy(key crypto.PublicKey, payload, sig []byte) bool {
	sum := sha256.Sum256(payload)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, payload, sig)
	}
	return false
}

// matches reports whether a signature for the name signed is one for the image
// that was asked for. The rules are those of containers-policy.json(5); nil is
// matchRepoDigestOrExact.
func (i *identity) matches(asked image.Name, signed string) bool {
	s, err := image.ParseName(signed)
	if err != nil {
		return false
	}
	if !hasTag(signed) && s.Digest == "" {
		s.Tag = "" // ParseName has added it
	}
	rule := "matchRepoDigestOrExact"
	if i != nil {
		rule = i.Type
	}
	repo := s.Repository()
	switch rule {
	case "matchRepository":
		return repo == asked.Repository()
	case "matchExact":
		return s == asked
	case "exactRepository":
		n, err := image.ParseName(i.DockerRepository)
		return err == nil && repo == n.Repository()
	case "exactReference":
		n, err := image.ParseName(i.DockerReference)
		return err == nil && hasTag(i.DockerReference) && s == n
	case "remapIdentity":
		rest, ok := strings.CutPrefix(asked.Repository(), i.Prefix)
		if !ok || i.Prefix == "" || rest != "" && rest[0] != '/' {
			return (*identity)(nil).matches(asked, signed)
		}
		n, err := image.ParseName(i.SignedPrefix + rest)
		if err != nil {
			return false
		}
		asked.Domain, asked.Path = n.Domain, n.Path
		return (*identity)(nil).matches(asked, signed)
	case "matchRepoDigestOrExact":
		if asked.Digest != "" {
			return repo == asked.Repository()
		}
		return s == asked
	}
	return false
}

// hasTag reports whether a reference names a tag.
func hasTag(ref string) bool {
	return strings.LastIndexByte(ref, ':') > strings.LastIndexByte(ref, '/') && !strings.Contains(ref, "@")
}
