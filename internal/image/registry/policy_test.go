package registry

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registrytest"
)

// keyData is a public key as a policy holds it.
func keyData(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// signImage stores a signature as cosign does.
func signImage(t *testing.T, s *registrytest.Server, repo, digest, ref, kind string, sign func(payload []byte) []byte) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, ref, digest, kind)
	config := []byte(`{}`)
	s.PushBlob(t, repo, image.DigestOf(payload), payload)
	s.PushBlob(t, repo, image.DigestOf(config), config)
	man, err := json.Marshal(image.Manifest{
		SchemaVersion: 2, MediaType: image.TypeOCIManifest,
		Config: image.Descriptor{MediaType: image.TypeOCIConfig, Digest: image.DigestOf(config), Size: int64(len(config))},
		Layers: []image.Descriptor{{
			MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Digest: image.DigestOf(payload), Size: int64(len(payload)),
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sign(payload))},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.PushManifest(t, repo, strings.Replace(digest, ":", "-", 1)+".sig", image.TypeOCIManifest, man)
}

func TestPolicyScopes(t *testing.T) {
	want := "reg.lab.example:5000/a/b:v1 reg.lab.example:5000/a/b reg.lab.example:5000/a reg.lab.example:5000 *.lab.example *.example "
	if got := strings.Join(policyScopes(name(t, "reg.lab.example:5000/a/b:v1")), " "); got != want {
		t.Errorf("%q", got)
	}
}

func TestPolicy(t *testing.T) {
	s := registrytest.Start(t)
	m := push(t, s, "lab/app", "v1")
	push(t, s, "lab/bare", "v1")
	other := registrytest.Make(t, registrytest.Image{Layers: [][]byte{registrytest.Tar(t, [2]string{"f", "signed for another"})}})
	s.Push(t, "lab/app", "stolen", other)
	index := registrytest.Index(t, other)
	s.PushManifest(t, "lab/app", "multi", image.TypeOCIIndex, index)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := func(payload []byte) []byte {
		sum := sha256.Sum256(payload)
		sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	const kind = "cosign container image signature"
	signImage(t, s, "lab/app", m.Digest, s.Addr+"/lab/app", kind, ec)
	signImage(t, s, "lab/app", image.DigestOf(index), s.Addr+"/lab/app", kind, ec)
	good := keyData(t, &key.PublicKey)
	another, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	repo := `"signedIdentity":{"type":"matchRepository"}`
	signed := func(more string) string { return `[{"type":"sigstoreSigned","keyData":"` + good + `"` + more + `}]` }
	const anything = `[{"type":"insecureAcceptAnything"}]`
	for _, c := range []struct {
		policy, ref, want string // want: "" or a part of the error
	}{
		{`{"default":` + anything + `}`, "lab/app:v1", ""},
		{`{"default":[{"type":"reject"}]}`, "lab/app:v1", "(default): no image from there is accepted"},
		{`{"default":[{"type":"reject"}],"transports":{"docker":{"` + s.Addr + `/lab":` + anything + `}}}`, "lab/app:v1", ""},
		{`{"default":` + anything + `,"transports":{"docker":{"` + s.Addr + `/lab/app:v1":[{"type":"reject"}]}}}`, "lab/app:v1", "refused by"},
		{`{"default":` + anything + `,"transports":{"docker":{"":[{"type":"reject"}]}}}`, "lab/app:v1", "(docker transport)"},
		{`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}]}`, "lab/app:v1", "which isle cannot verify"},
		{`{"default":[{"type":"later"}]}`, "lab/app:v1", `requirement "later" is not known`},
		{`{"default":[{"type":"reject","unless":1}]}`, "lab/app:v1", "unknown field"},
		{`{"default":[]}`, "lab/app:v1", "no default requirements"},
		{`{`, "lab/app:v1", "policy"},
		{`{"default":` + signed(","+repo) + `}`, "lab/app:v1", ""},
		{`{"default":` + signed(","+repo) + `}`, "lab/app@" + m.Digest, ""},
		{`{"default":` + signed("") + `}`, "lab/app@" + m.Digest, ""},
		{`{"default":` + signed("") + `}`, "lab/app:v1", "not for this name"}, // what cosign signs has no tag
		{`{"default":` + signed(","+repo) + `}`, "lab/app:multi", ""},         // the index is signed
		{`{"default":` + signed(","+repo) + `}`, "lab/app:stolen", "no signature found"},
		{`{"default":` + signed(","+repo) + `}`, "lab/bare:v1", "no signature found"},
		{`{"default":` + signed(`,"signedIdentity":{"type":"exactRepository","dockerRepository":"`+s.Addr+`/lab/app"}`) + `}`, "lab/app:v1", ""},
		{`{"default":` + signed(`,"signedIdentity":{"type":"exactRepository","dockerRepository":"`+s.Addr+`/lab"}`) + `}`, "lab/app:v1", "not for this name"},
		{`{"default":` + signed(`,"signedIdentity":{"type":"anything"}`) + `}`, "lab/app:v1", "not for this name"},
		{`{"default":` + signed(`,"rekorPublicKeyPath":"/x",`+repo) + `}`, "lab/app:v1", "Rekor, which isle cannot verify"},
		{`{"default":[{"type":"sigstoreSigned","keyData":"` + keyData(t, &another.PublicKey) + `",` + repo + `}]}`, "lab/app:v1", "not by a key of the policy"},
		{`{"default":[{"type":"sigstoreSigned","keyDatas":["` + keyData(t, &another.PublicKey) + `","` + good + `"],` + repo + `}]}`, "lab/app:v1", ""},
		{`{"default":[{"type":"sigstoreSigned","keyPath":"/nonexistent",` + repo + `}]}`, "lab/app:v1", "no such file"},
		{`{"default":[{"type":"sigstoreSigned",` + repo + `}]}`, "lab/app:v1", "without a key"},
		{`{"default":[{"type":"insecureAcceptAnything"},{"type":"reject"}]}`, "lab/app:v1", "no image"},
	} {
		conf, _ := load(t, false, nil, map[string]string{"etc/containers/policy.json": c.policy})
		cl := client(conf)
		r, err := cl.Resolve(t.Context(), name(t, s.Addr+"/"+c.ref))
		if err != nil {
			t.Fatal(err)
		}
		instance := r.Digest
		if strings.HasSuffix(c.ref, ":multi") {
			instance = other.Digest
		}
		err = cl.Allowed(t.Context(), r, instance)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s with %s: %v, want %q", c.ref, c.policy, err, c.want)
		}
	}
}

// Signatures that are made with other kinds of keys, or say something else than
// they should.
func TestSignatures(t *testing.T) {
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ep, ek, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n := name(t, "r.example/app:v1")
	digest := image.DigestOf([]byte("x"))
	q := requirement{SignedIdentity: &identity{Type: "matchExact"}}
	payload := func(ref, digest, kind string) []byte {
		return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q}}`, ref, digest, kind)
	}
	for _, c := range []struct {
		ref, digest, kind, want string
	}{
		{"r.example/app:v1", digest, payloadType, ""},
		{"r.example/app:v2", digest, payloadType, "not for this name"},
		{"r.example/app", digest, payloadType, "not for this name"},
		{"r.example/app:v1", image.DigestOf(nil), payloadType, "of sha256:"},
		{"r.example/app:v1", digest, "atomic container signature", "of the type"},
	} {
		p := payload(c.ref, c.digest, c.kind)
		sum := sha256.Sum256(p)
		rs, err := rsa.SignPKCS1v15(rand.Reader, rk, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []struct {
			key crypto.PublicKey
			sig []byte
		}{{&rk.PublicKey, rs}, {ep, ed25519.Sign(ek, p)}} {
			err := q.verify([]crypto.PublicKey{k.key}, p, k.sig, n, digest)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v", c, err)
			}
			p2 := append([]byte(" "), p...)
			if err := q.verify([]crypto.PublicKey{k.key}, p2, k.sig, n, digest); err == nil {
				t.Errorf("%+v: a changed payload is taken", c)
			}
		}
	}
	remap := &identity{Type: "remapIdentity", Prefix: "mirror.example/hub", SignedPrefix: "docker.io"}
	for ref, want := range map[string]bool{"mirror.example/hub/lab/app:v1": true, "mirror.example/hubby/lab/app:v1": false, "docker.io/lab/app:v1": true} {
		if got := remap.matches(name(t, ref), "docker.io/lab/app:v1"); got != want {
			t.Errorf("%s: %v", ref, got)
		}
	}
}

// The user's policy comes before the system's, isle's own before the others'.
func TestPolicyFile(t *testing.T) {
	files := map[string]string{}
	for _, f := range []string{"", "etc/containers", "home/.config/containers", "etc/isle", "home/.config/isle"} {
		if f != "" {
			files[f+"/policy.json"] = "{}"
		}
		conf, dir := load(t, false, nil, files)
		want := ""
		if f != "" {
			want = dir + "/" + f + "/policy.json"
		}
		if conf.policy != want {
			t.Errorf("%s: %s", f, conf.policy)
		}
	}
	conf, _ := load(t, false, nil, nil)
	if err := client(conf).Allowed(t.Context(), &Remote{}, ""); err != nil {
		t.Error(err)
	}
}
