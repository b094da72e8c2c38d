package host

import (
	"slices"
	"strings"
)

// Where systemd-resolved puts its stub (127.0.0.53) and its real servers.
const (
	resolvConf         = "/etc/resolv.conf"
	resolvConfResolved = "/run/systemd/resolve/resolv.conf"
)

// ResolvConf returns the host's resolv.conf. Where it names nothing but
// systemd-resolved's stub, which a container cannot reach, it is the file with
// the servers behind the stub, as in Docker.
func (m *Machine) ResolvConf() string {
	text := m.text(resolvConf)
	servers := 0
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			servers++
			if f[1] != "127.0.0.53" {
				return text
			}
		}
	}
	if servers > 0 {
		if real := m.text(resolvConfResolved); real != "" {
			return real
		}
	}
	return text
}

// Resolver is what a container's resolv.conf shall say beside the host's.
type Resolver struct {
	Servers, Search, Options []string // replace the host's, each when not empty
	// Private leaves out servers on the host's loopback, which are somebody
	// else's in a network of one's own.
	Private bool
	// NoIPv6 leaves out servers with an IPv6 address.
	NoIPv6 bool
}

// Text returns a container's resolv.conf, made from the host's.
func (r *Resolver) Text(host string) string {
	if !r.Private && !r.NoIPv6 && len(r.Servers)+len(r.Search)+len(r.Options) == 0 {
		return host
	}
	var out strings.Builder
	servers, search, options := r.Servers, r.Search, r.Options
	for line := range strings.Lines(host) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if len(r.Servers) == 0 && !r.drop(f[1]) {
				servers = append(servers, f[1])
			}
		case "search", "domain":
			if len(r.Search) == 0 {
				search = f[1:] // the last line counts (resolv.conf(5))
			}
		case "options":
			if len(r.Options) == 0 {
				options = append(slices.Clip(options), f[1:]...)
			}
		}
	}
	for _, s := range servers {
		out.WriteString("nameserver " + s + "\n")
	}
	if len(search) > 0 && !(len(search) == 1 && search[0] == ".") {
		out.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	if len(options) > 0 {
		out.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return out.String()
}

func (r *Resolver) drop(server string) bool {
	addr, _, _ := strings.Cut(server, "%")
	v6 := strings.ContainsRune(addr, ':')
	loopback := strings.HasPrefix(addr, "127.") || addr == "::1"
	return r.Private && loopback || r.NoIPv6 && v6
}
