package image

import (
	_ "crypto/sha512" // lets the oracle accept its digests
	"errors"
	"strings"
	"testing"

	"github.com/distribution/reference"

	"github.com/isle-engine/isle/internal/errs"
)

const (
	hex64   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	digest1 = "sha256:" + hex64
)

func TestParseName(t *testing.T) {
	for _, c := range []struct{ ref, normal, familiar string }{
		{"alpine", "docker.io/library/alpine:latest", "alpine:latest"},
		{"alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"},
		{"user/app", "docker.io/user/app:latest", "user/app:latest"},
		{"docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"},
		{"index.docker.io/alpine:1", "docker.io/library/alpine:1", "alpine:1"},
		{"localhost/app", "localhost/app:latest", "localhost/app:latest"},
		{"localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"},
		{"localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"},
		{"127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"},
		{"[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
		{"quay.io/podman/hello", "quay.io/podman/hello:latest", "quay.io/podman/hello:latest"},
		{"alpine@" + digest1, "docker.io/library/alpine@" + digest1, "alpine@" + digest1},
		{"alpine:3@" + digest1, "docker.io/library/alpine:3@" + digest1, "alpine:3@" + digest1},
		{"Registry/app", "Registry/app:latest", "Registry/app:latest"},
		{"a__b/c.d/e---f_g:" + strings.Repeat("x", 128), "docker.io/a__b/c.d/e---f_g:" + strings.Repeat("x", 128), "a__b/c.d/e---f_g:" + strings.Repeat("x", 128)},
		{"docker.io/foo.bar/baz", "docker.io/foo.bar/baz:latest", "docker.io/foo.bar/baz:latest"},
	} {
		n, err := ParseName(c.ref)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if n.String() != c.normal || n.Familiar() != c.familiar {
			t.Errorf("ParseName(%q) = %q, shown as %q; want %q, %q", c.ref, n, n.Familiar(), c.normal, c.familiar)
		}
	}
}

func TestParseNameRefuses(t *testing.T) {
	for ref, words := range map[string]string{
		"":                              "invalid reference format",
		"Alpine":                        "invalid reference format: repository name (library/Alpine) must be lowercase",
		"docker.io/Lib/x":               "repository name (Lib/x) must be lowercase",
		hex64:                           "cannot specify 64-byte hexadecimal strings",
		"a:b:c":                         "invalid reference format",
		"-x":                            "invalid reference format",
		"x-":                            "invalid reference format",
		"x..y":                          "invalid reference format",
		"x___y":                         "invalid reference format",
		"x:":                            "invalid reference format",
		"x@":                            "invalid reference format",
		"x@sha256:abc":                  "invalid reference format",
		"x@md5:" + hex64:                "unsupported digest algorithm",
		"x@sha256:" + hex64 + "0":       "invalid checksum digest length",
		"x:.t":                          "invalid reference format",
		"x:" + strings.Repeat("x", 129): "invalid reference format",
		"http://x/y":                    "invalid reference format",
		"../x":                          "invalid reference format",
		"x/../y":                        "invalid reference format",
		"a//b":                          "invalid reference format",
		" a":                            "invalid reference format",
		strings.Repeat("x/", 130) + "x": "must not be more than 255 characters",
	} {
		_, err := ParseName(ref)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("ParseName(%q): %v, want %q", ref, err, words)
		}
	}
}

// oracle is what Docker makes of ref.
func oracle(ref string) (string, error) {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(n).String(), nil
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{
		"alpine", "alpine:3.20", "a/b/c:t@" + digest1, "localhost:5000/x", "[fe80::1]:1/x", "A/b", "A", hex64, "index.docker.io/x",
		"x@sha512:" + hex64 + hex64, "x.y/z", "X.y/z", "é/x", "a:b/c", "docker.io/a/b", "docker.io", "xn--n3h.com/m:t", "1.2.3.4:0/a",
		"docker.io/foo.bar/baz", "localhost", "", "/", "@", ":", "a@b@c", "a:t@sha384:" + hex64 + hex64[:32], "docker.io/localhost/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		n, err := ParseName(ref)
		want, wantErr := oracle(ref)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("ParseName(%q): %v; Docker: %v", ref, err, wantErr)
		}
		if err != nil {
			if strings.Contains(wantErr.Error(), "must be lowercase") && !strings.HasSuffix(err.Error(), wantErr.Error()) {
				t.Fatalf("ParseName(%q): %v; Docker: %v", ref, err, wantErr)
			}
			return
		}
		if n.String() != want {
			t.Fatalf("ParseName(%q) = %q, Docker says %q", ref, n, want)
		}
		for _, s := range []string{n.String(), n.Familiar()} {
			if again, err := ParseName(s); err != nil || again != n {
				t.Fatalf("%q became %q, which is read as %q (%v)", ref, s, again, err)
			}
		}
		if name := escapeName(n.String()); len(name) > 255 || strings.ContainsRune(name, '/') || name[0] == '.' {
			t.Fatalf("file name %q for %q", name, n)
		}
	})
}
