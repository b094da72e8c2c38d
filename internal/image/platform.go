package image

import (
	"runtime"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// Platform is what an image's programs run on.
type Platform struct {
	OS      string `json:"os"`
	Arch    string `json:"architecture"`
	Variant string `json:"variant,omitempty"`
}

// HostPlatform returns the platform of this machine.
func HostPlatform() Platform {
	return Platform{OS: "linux", Arch: runtime.GOARCH}.normal()
}

// ParsePlatform reads os/arch[/variant], arch or os, as Docker's --platform
// does; "" is the host's platform.
func ParsePlatform(s string) (Platform, error) {
	host := HostPlatform()
	if s == "" {
		return host, nil
	}
	part := strings.Split(strings.ToLower(s), "/")
	for _, p := range part {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" || len(part) > 3 {
			return Platform{}, errs.New(errs.Invalid, "platform %q: not of the form os/arch[/variant]", s)
		}
	}
	var p Platform
	switch {
	case len(part) > 1:
		p.OS, p.Arch = part[0], part[1]
		if len(part) == 3 {
			p.Variant = part[2]
		}
	case part[0] == "linux":
		return host, nil
	default:
		p.OS, p.Arch = "linux", part[0]
	}
	p = p.normal()
	if p.OS != "linux" {
		return Platform{}, errs.New(errs.Unsupported, "platform %q: only linux images run here", s)
	}
	return p, nil
}

// String returns os/arch[/variant].
func (p Platform) String() string {
	s := p.OS + "/" + p.Arch
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// normal returns p in the names that Go and image indexes use, without a
// variant that is what the architecture means anyway.
func (p Platform) normal() Platform {
	switch p.Arch {
	case "x86_64", "x86-64":
		p.Arch = "amd64"
	case "aarch64":
		p.Arch = "arm64"
	case "i386", "i486", "i586", "i686":
		p.Arch = "386"
	case "armhf":
		p.Arch = "arm"
	case "armel":
		p.Arch, p.Variant = "arm", "v6"
	}
	switch {
	case p.Arch == "amd64" && p.Variant == "v1",
		p.Arch == "arm64" && (p.Variant == "v8" || p.Variant == "8"):
		p.Variant = ""
	case p.Arch == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Arch == "arm" && len(p.Variant) == 1:
		p.Variant = "v" + p.Variant
	}
	return p
}

// rank says how well an image for have suits p: 0 not at all, and the
// higher, the better.
func (p Platform) rank(have Platform) int {
	p, have = p.normal(), have.normal()
	switch {
	case p.OS != have.OS || p.Arch != have.Arch:
		return 0
	case p.Variant == have.Variant:
		return 100
	}
	// A machine of a higher level of the same architecture runs what was built
	// for a lower one.
	w, h := level(p), level(have)
	if h < 0 || w < 0 || h > w {
		return 0
	}
	return 1 + h
}

// level returns the number in a variant that counts upwards, or -1.
func level(p Platform) int {
	if p.Variant == "" && (p.Arch == "amd64" || p.Arch == "arm64") {
		return 1 // below every variant that has to be named
	}
	if len(p.Variant) == 2 && p.Variant[0] == 'v' && p.Variant[1] >= '0' && p.Variant[1] <= '9' {
		return int(p.Variant[1] - '0')
	}
	return -1
}

// Runs reports whether a machine of platform p runs images for have.
func (p Platform) Runs(have Platform) bool { return p.rank(have) > 0 }
