package container

import (
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// Port is one published port: where it listens on the host and what it reaches inside.
type Port struct {
	HostIP string // "" is every address
	// HostPort to HostPortEnd is the range to choose from; 0: any free port.
	HostPort, HostPortEnd uint16
	Port                  uint16
	Proto                 string // tcp, udp or sctp
}

// HostPorts returns the host port as Docker writes it: "", "80" or "80-90".
func (p Port) HostPorts() string {
	switch {
	case p.HostPort == 0:
		return ""
	case p.HostPortEnd > p.HostPort:
		return strconv.Itoa(int(p.HostPort)) + "-" + strconv.Itoa(int(p.HostPortEnd))
	}
	return strconv.Itoa(int(p.HostPort))
}

// Key returns "80/tcp".
func (p Port) Key() string { return strconv.Itoa(int(p.Port)) + "/" + p.Proto }

// ParsePublish reads an argument of -p, [[IP:][HOST]:]PORT[/PROTO] with ranges
// A-B and addresses in brackets where they contain colons, or the long form
// target=PORT,published=PORT,protocol=PROTO. A range of ports becomes one Port each.
func ParsePublish(s string) ([]Port, error) {
	if strings.Contains(s, "=") {
		var err error
		if s, err = longPublish(s); err != nil {
			return nil, err
		}
	}
	ip, host, inner := splitPublish(s)
	inner, proto, _ := strings.Cut(inner, "/")
	if inner == "" {
		return nil, errs.New(errs.Invalid, "no port specified: %s<empty>", s)
	}
	if proto = strings.ToLower(proto); proto == "" {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, errs.New(errs.Invalid, "invalid proto: %s", proto)
	}
	if ip != "" && !IsIP(ip) {
		return nil, errs.New(errs.Invalid, "invalid IP address: %s", ip)
	}
	from, to, ok := portRange(inner)
	if !ok || from == 0 {
		return nil, errs.New(errs.Invalid, "invalid containerPort: %s", inner)
	}
	var hostFrom, hostTo uint16
	if host != "" {
		if hostFrom, hostTo, ok = portRange(host); !ok || hostFrom == 0 && hostTo > 0 {
			return nil, errs.New(errs.Invalid, "invalid hostPort: %s", host)
		}
		if hostTo-hostFrom != to-from && from != to {
			return nil, errs.New(errs.Invalid, "invalid ranges specified for container and host Ports: %s and %s", inner, host)
		}
	}
	ports := make([]Port, 0, int(to-from)+1)
	for i := 0; i <= int(to-from); i++ {
		p := Port{HostIP: ip, Port: from + uint16(i), Proto: proto}
		switch {
		case host == "" || hostFrom == 0 && hostTo == 0:
		case from == to:
			p.HostPort, p.HostPortEnd = hostFrom, hostTo
		default:
			p.HostPort, p.HostPortEnd = hostFrom+uint16(i), hostFrom+uint16(i)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// splitPublish cuts IP:HOST:PORT at the last two colons outside brackets.
func splitPublish(s string) (ip, host, inner string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", s
	}
	host, inner = s[:i], s[i+1:]
	if i = strings.LastIndexByte(host, ':'); i >= 0 {
		ip, host = host[:i], host[i+1:]
	}
	if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
		ip = ip[1 : len(ip)-1]
	}
	return ip, host, inner
}

func longPublish(s string) (string, error) {
	var target, published, proto string
	for f := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(f, "=")
		switch strings.ToLower(k) {
		case "target":
			target = v
		case "published":
			published = v + ":"
		case "protocol":
			proto = "/" + v
		case "mode":
			if v != "host" && v != "ingress" {
				return "", errs.New(errs.Invalid, "invalid publish mode value (%s): must be either '\"ingress\"' or '\"host\"'", v)
			}
		default:
			return "", errs.New(errs.Invalid, "invalid field key: %s", k)
		}
	}
	if target == "" {
		return "", errs.New(errs.Invalid, "missing mandatory field '\"target\"'")
	}
	return published + target + proto, nil
}

// ParseExpose reads PORT[-PORT][/PROTO] of --expose.
func ParseExpose(s string) ([]Port, error) {
	if strings.Contains(s, ":") {
		return nil, errs.New(errs.Invalid, "invalid port format for --expose: %s", s)
	}
	r, proto, _ := strings.Cut(s, "/")
	if proto = strings.ToLower(proto); proto == "" {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, errs.New(errs.Invalid, "invalid proto: %s", proto)
	}
	from, to, ok := portRange(r)
	if !ok {
		return nil, errs.New(errs.Invalid, "invalid range format for --expose: %s", r)
	}
	var ports []Port
	for n := int(from); n <= int(to); n++ {
		ports = append(ports, Port{Port: uint16(n), Proto: proto})
	}
	return ports, nil
}

func portRange(s string) (from, to uint16, ok bool) {
	a, b, two := strings.Cut(s, "-")
	x, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, false
	}
	y := x
	if two {
		if y, err = strconv.ParseUint(b, 10, 16); err != nil || y < x {
			return 0, 0, false
		}
	}
	return uint16(x), uint16(y), true
}

// IsIP reports whether s is an IPv4 or IPv6 address without a zone. (net/netip
// would cost every start its initialization.)
func IsIP(s string) bool { return isIPv4(s) || isIPv6(s) }

func isIPv4(s string) bool {
	n := 0
	for part := range strings.SplitSeq(s, ".") {
		if n++; n > 4 || part == "" || len(part) > 3 || len(part) > 1 && part[0] == '0' {
			return false
		}
		if v, err := strconv.ParseUint(part, 10, 8); err != nil || v > 255 || part[0] == '+' {
			return false
		}
	}
	return n == 4
}

func isIPv6(s string) bool {
	head, tail, gap := strings.Cut(s, "::")
	groups := func(s string, last bool) (int, bool) {
		if s == "" {
			return 0, true
		}
		p := strings.Split(s, ":")
		n := len(p)
		for i, g := range p {
			if last && i == len(p)-1 && strings.Contains(g, ".") {
				n++
				if !isIPv4(g) {
					return 0, false
				}
				continue
			}
			if g == "" || len(g) > 4 || strings.Trim(g, "0123456789abcdefABCDEF") != "" {
				return 0, false
			}
		}
		return n, true
	}
	if !gap {
		n, ok := groups(s, true)
		return ok && n == 8
	}
	a, ok1 := groups(head, false)
	b, ok2 := groups(tail, true)
	return ok1 && ok2 && a+b < 8
}
