package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// digestPrefix starts every digest that the store itself uses.
const digestPrefix = "sha256:"

// CheckDigest returns an Invalid error unless s is a well-formed sha256 digest,
// the only algorithm that the store keeps content by.
func CheckDigest(s string) error {
	why := checkDigest(s)
	if why == "" && !strings.HasPrefix(s, digestPrefix) {
		why = "unsupported digest algorithm"
	}
	if why != "" {
		return errs.New(errs.Invalid, "digest %q: %s", s, why)
	}
	return nil
}

// checkDigest says in Docker's words what is wrong with a digest.
func checkDigest(s string) (why string) {
	alg, sum, ok := strings.Cut(s, ":")
	if !ok || alg == "" || len(sum) < 32 {
		return "invalid reference format"
	}
	n := 0
	switch alg {
	case "sha256":
		n = 64
	case "sha384":
		n = 96
	case "sha512":
		n = 128
	default:
		return "unsupported digest algorithm"
	}
	if len(sum) != n {
		return "invalid checksum digest length"
	}
	if !isHex(sum) {
		return "invalid checksum digest format"
	}
	return ""
}

// DigestOf returns the digest of data.
func DigestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return digestPrefix + hex.EncodeToString(sum[:])
}

func digestHex(digest string) string { return strings.TrimPrefix(digest, digestPrefix) }

// Verifier reads through a source and fails with Corrupt at the end of it,
// instead of io.EOF, if what was read has not the digest or the size asked for.
// It fails before the end when the source is longer than it should be.
type Verifier struct {
	src    io.Reader
	sum    hash.Hash
	digest string
	left   int64 // -1: the size is not known
	done   error
}

// NewVerifier returns a reader of src that must turn out to have digest and,
// unless size is negative, size bytes.
func NewVerifier(src io.Reader, digest string, size int64) *Verifier {
	return &Verifier{src: src, sum: sha256.New(), digest: digest, left: size}
}

// Read implements io.Reader.
func (v *Verifier) Read(p []byte) (int, error) {
	if v.done != nil {
		return 0, v.done
	}
	n, err := v.src.Read(p)
	_, _ = v.sum.Write(p[:n]) // never fails (hash.Hash)
	if v.left >= 0 {
		if int64(n) > v.left {
			v.done = errs.New(errs.Corrupt, "blob %s: longer than it was announced", v.digest)
			return 0, v.done
		}
		v.left -= int64(n)
	}
	if errors.Is(err, io.EOF) {
		err = v.verdict()
	}
	v.done = err
	return n, err
}

func (v *Verifier) verdict() error {
	if v.left > 0 {
		return errs.New(errs.Corrupt, "blob %s: %d bytes are missing at its end: %w", v.digest, v.left, io.ErrUnexpectedEOF)
	}
	if got := digestPrefix + hex.EncodeToString(v.sum.Sum(nil)); got != v.digest {
		return errs.New(errs.Corrupt, "blob %s: its content has the digest %s", v.digest, got)
	}
	return io.EOF
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

func isHexByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
