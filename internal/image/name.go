package image

import (
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// Name is a complete reference to an image: where it is from and which one it
// is. At least one of Tag and Digest is set.
type Name struct {
	Domain string // registry's host[:port]; "docker.io" for Docker Hub
	Path   string // repository within the registry
	Tag    string
	Digest string // algorithm:hex
}

const (
	hubDomain  = "docker.io"
	hubLegacy  = "index.docker.io" // what docker.io was called; read as docker.io
	hubLibrary = "library/"        // namespace of names without one
	defaultTag = "latest"
	maxTag     = 128
	maxPath    = 255
)

// ParseName reads ref as Docker does: a name without a registry is on
// docker.io, one without a namespace there is in library/, and one without tag
// and digest has the tag latest. The error is Invalid, in Docker's words.
func ParseName(ref string) (Name, error) {
	n, why := parseName(ref)
	if why != "" {
		return Name{}, errs.New(errs.Invalid, "image reference %q: %s", ref, why)
	}
	return n, nil
}

func parseName(ref string) (n Name, why string) {
	const bad = "invalid reference format"
	if len(ref) == 64 && isHex(ref) {
		return n, "invalid repository name (" + ref + "), cannot specify 64-byte hexadecimal strings"
	}
	domain, rest := splitDomain(ref)

	// Docker looks for capitals before anything else, in all that precedes the
	// first colon, so that its message names the usual mistake.
	repo, _, _ := strings.Cut(rest, ":")
	if strings.ToLower(repo) != repo {
		return n, bad + ": repository name (" + repo + ") must be lowercase"
	}

	rest, digest, hasDigest := strings.Cut(rest, "@")
	path, tag, hasTag := strings.Cut(rest, ":")
	switch {
	case !isDomain(domain), !isPath(path), hasTag && !isTag(tag):
		return n, bad
	case hasDigest:
		if why := checkDigest(digest); why != "" {
			return n, why
		}
	}
	if len(path) > maxPath {
		return n, "repository name must not be more than 255 characters"
	}
	if !hasTag && !hasDigest {
		tag = defaultTag
	}
	return Name{domain, path, tag, digest}, ""
}

// splitDomain separates the registry from the repository and tag. The first
// element is a registry only if it looks like one: localhost, or with a dot, a
// port or a capital in it.
func splitDomain(ref string) (domain, rest string) {
	first, after, found := strings.Cut(ref, "/")
	switch {
	case !found:
		return hubDomain, hubLibrary + ref
	case !looksLikeDomain(first):
		domain, rest = hubDomain, ref
	case first == hubLegacy:
		domain, rest = hubDomain, after
	default:
		domain, rest = first, after
	}
	if domain == hubDomain && !strings.Contains(rest, "/") {
		rest = hubLibrary + rest
	}
	return domain, rest
}

func looksLikeDomain(first string) bool {
	return first == "localhost" || strings.ContainsAny(first, ".:") || strings.ToLower(first) != first
}

// String returns the normalized form, domain/path[:tag][@digest].
func (n Name) String() string {
	return n.Repository() + n.suffix()
}

// Repository returns domain/path.
func (n Name) Repository() string { return n.Domain + "/" + n.Path }

// Familiar returns the name as Docker shows it, without what ParseName adds.
func (n Name) Familiar() string { return n.FamiliarName() + n.suffix() }

// FamiliarName returns the repository as Docker shows it: "alpine",
// "user/app", "localhost:5000/app".
func (n Name) FamiliarName() string {
	if n.Domain != hubDomain {
		return n.Repository()
	}
	short := n.Path
	if p, ok := strings.CutPrefix(short, hubLibrary); ok && !strings.Contains(p, "/") {
		return p
	}
	// Unlike Docker, the domain stays where the rest would be read as one.
	if first, _, _ := strings.Cut(short, "/"); looksLikeDomain(first) {
		return n.Repository()
	}
	return short
}

func (n Name) suffix() string {
	s := ""
	if n.Tag != "" {
		s = ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest
	}
	return s
}

// WithDigest returns the name of the content with that digest in n's
// repository, without a tag.
func (n Name) WithDigest(digest string) Name {
	return Name{Domain: n.Domain, Path: n.Path, Digest: digest}
}

// isDomain reports whether s is host[:port], the host a DNS name, an IPv4
// address or a bracketed IPv6 address (its characters only, as Docker does).
func isDomain(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 2 {
			return false
		}
		for _, c := range []byte(s[1:end]) {
			if !isHexByte(c) && c != ':' {
				return false
			}
		}
		port = s[end+1:]
		if port != "" && port[0] != ':' {
			return false
		}
	} else {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, port = s[:i], s[i:]
		}
		for part := range strings.SplitSeq(host, ".") {
			if part == "" || part[0] == '-' || part[len(part)-1] == '-' {
				return false
			}
			for _, c := range []byte(part) {
				if !isAlnum(c) && c != '-' {
					return false
				}
			}
		}
	}
	if port == "" {
		return true
	}
	if len(port) == 1 {
		return false
	}
	for _, c := range []byte(port[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// isPath reports whether s is one or more components with "/" between them.
func isPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !isComponent(part) {
			return false
		}
	}
	return true
}

// isComponent reports whether s is runs of [a-z0-9] separated by one ".", one
// or two "_", or any number of "-".
func isComponent(s string) bool {
	for {
		i := 0
		for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9') {
			i++
		}
		if i == 0 {
			return false
		}
		if i == len(s) {
			return true
		}
		s = s[i:]
		i = 1
		switch s[0] {
		case '.':
		case '_':
			if len(s) > 1 && s[1] == '_' {
				i = 2
			}
		case '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		default:
			return false
		}
		s = s[i:]
	}
}

func isTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !isAlnum(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
