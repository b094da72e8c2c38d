package container

import (
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// NamespaceMode is a parsed --pid, --ipc, --uts, --userns, --cgroupns, --time or
// --network: a word, or one of the two forms that name something.
type NamespaceMode struct {
	Mode string // "", "host", "private", "container", "ns", "none", "shareable", "auto", "keep-id", or a network's name
	Arg  string // of container:ARG, ns:ARG, auto:ARG, keep-id:ARG
}

// ParseNamespaceMode reads a mode for the namespace kind: "pid", "ipc", "uts",
// "user", "cgroup", "time" or "net".
func ParseNamespaceMode(kind, s string) (NamespaceMode, error) {
	word, arg, has := strings.Cut(s, ":")
	m := NamespaceMode{word, arg}
	ok := false
	switch word {
	case "", "host", "private":
		ok = !has
	case "container":
		ok = arg != ""
	case "ns":
		ok = strings.HasPrefix(arg, "/")
	case "none", "shareable":
		ok = !has && (kind == "ipc" || kind == "net" && word == "none")
	case "auto":
		ok = kind == "user"
	case "keep-id", "nomap":
		ok = kind == "user"
		if word == "keep-id" && has && ok {
			_, _, err := KeepIDs(arg)
			ok = err == nil
		}
	default:
		name, _ := Outside(s)
		ok = kind == "net" && (!has || name != "")
	}
	if ok {
		return m, nil
	}
	switch kind {
	case "pid":
		return m, errs.New(errs.Invalid, "--pid: invalid PID mode")
	case "uts":
		return m, errs.New(errs.Invalid, "--uts: invalid UTS mode")
	case "user":
		return m, errs.New(errs.Invalid, "--userns: invalid USER mode")
	case "cgroup":
		return m, errs.New(errs.Invalid, "--cgroupns: invalid CGROUP mode")
	case "ipc":
		return m, errs.New(errs.Invalid, "invalid IPC mode: %s", s)
	case "time":
		return m, errs.New(errs.Invalid, "--time: invalid TIME mode")
	}
	return m, errs.New(errs.Invalid, "invalid network mode: %s", s)
}

// KeepIDs reads the uid=N,gid=N of keep-id; -1 stands for one that is not given.
func KeepIDs(s string) (uid, gid int, err error) {
	uid, gid = -1, -1
	for f := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(f, "=")
		n, ok, err := ParseID(v)
		if err != nil {
			return -1, -1, err
		}
		switch {
		case ok && k == "uid":
			uid = n
		case ok && k == "gid":
			gid = n
		case ok && k == "size":
		default:
			return -1, -1, errs.New(errs.Invalid, "keep-id:%s: want uid=N,gid=N", s)
		}
	}
	return uid, gid, nil
}

// ParseNetwork reads an argument of --network: a mode or name, or the form
// name=NET,alias=A,ip=IP,... with settings for that network.
func ParseNetwork(s string) (Endpoint, error) {
	var e Endpoint
	if name, _ := Outside(s); name != "" || !strings.Contains(s, "=") {
		if s == "" {
			return e, errs.New(errs.Invalid, "network name/id is not specified")
		}
		e.Network = s
		return e, nil
	}
	fields, err := splitCSV(s)
	if err != nil {
		return e, err
	}
	for _, f := range fields {
		k, v, has := strings.Cut(f, "=")
		if !has || k == "" {
			return e, errs.New(errs.Invalid, "invalid field %s", f)
		}
		v = strings.TrimSpace(v)
		switch key := strings.ToLower(strings.TrimSpace(k)); key {
		case "name":
			e.Network = v
		case "alias":
			e.Aliases = append(e.Aliases, v)
		case "ip":
			if !isIPv4(v) {
				return e, errs.New(errs.Invalid, "invalid IPv4 address: %s", v)
			}
			e.IPAddress = v
		case "ip6":
			if !isIPv6(v) {
				return e, errs.New(errs.Invalid, "invalid IPv6 address: %s", v)
			}
			e.IP6Address = v
		case "link-local-ip":
			if !IsIP(v) {
				return e, errs.New(errs.Invalid, "invalid IP address: %s", v)
			}
			e.LinkLocalIPs = append(e.LinkLocalIPs, v)
		case "mac-address":
			if !IsMAC(v) {
				return e, errs.New(errs.Invalid, "%s is not a valid mac address", v)
			}
			e.MacAddress = v
		case "driver-opt":
			name, val, ok := strings.Cut(v, "=")
			if !ok || name == "" {
				return e, errs.New(errs.Invalid, "invalid key value pair in driver options")
			}
			if e.DriverOpts == nil {
				e.DriverOpts = map[string]string{}
			}
			e.DriverOpts[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(val)
		case "gw-priority":
			n, err := strconv.Atoi(v)
			if err != nil {
				return e, errs.New(errs.Invalid, "invalid gw-priority (%s): not an integer", v)
			}
			e.GwPriority = n
		default:
			return e, errs.New(errs.Invalid, "invalid field key %s", key)
		}
	}
	if e.Network == "" {
		return e, errs.New(errs.Invalid, "network name/id is not specified")
	}
	return e, nil
}

// Outside splits the mode of a container that another program connects:
// pasta[:OPTION,...], slirp4netns[:OPTION,...]; "" for other modes.
func Outside(mode string) (name string, options []string) {
	name, rest, _ := strings.Cut(mode, ":")
	if name != "pasta" && name != "slirp4netns" {
		return "", nil
	}
	if rest != "" {
		options = strings.Split(rest, ",")
	}
	return name, options
}

// IsUserNetwork reports whether a --network is a network's name rather than one of the modes.
func IsUserNetwork(s string) bool {
	switch s {
	case "", "default", "bridge", "host", "none", "private":
		return false
	}
	name, _ := Outside(s)
	return name == "" && !strings.HasPrefix(s, "container:") && !strings.HasPrefix(s, "ns:")
}

// ParseExtraHost reads NAME:IP or NAME=IP of --add-host, where the address may
// be in brackets or the word host-gateway, and returns NAME:IP.
func ParseExtraHost(s string) (string, error) {
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" || strings.ContainsAny(name, " \t\r\n") {
		return "", errs.New(errs.Invalid, "bad format for add-host: %q", s)
	}
	if n := len(ip); n > 2 && ip[0] == '[' && ip[n-1] == ']' {
		ip = ip[1 : n-1]
	}
	if ip != "host-gateway" && !IsIP(ip) {
		return "", errs.New(errs.Invalid, "invalid IP address in add-host: %q", ip)
	}
	return name + ":" + ip, nil
}

// CheckDNS reports what is wrong with a --dns.
func CheckDNS(s string) error {
	if !IsIP(s) {
		return errs.New(errs.Invalid, "IP address is not correctly formatted: %s", s)
	}
	return nil
}

// ParseDNSSearch returns a search domain, or "." for "none".
func ParseDNSSearch(s string) (string, error) {
	d := strings.Trim(s, " ")
	if d == "." {
		return d, nil
	}
	letter := false
	for label := range strings.SplitSeq(strings.TrimSuffix(d, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", errs.New(errs.Invalid, "%s is not a valid domain", s)
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && c != '-' {
				return "", errs.New(errs.Invalid, "%s is not a valid domain", s)
			}
			letter = letter || label[i] > '9'
		}
	}
	if !letter || len(d) > 254 {
		return "", errs.New(errs.Invalid, "%s is not a valid domain", s)
	}
	return d, nil
}

// IsMAC reports whether s is a 48-bit hardware address in the form aa:bb:cc:dd:ee:ff
// or with hyphens.
func IsMAC(s string) bool {
	if len(s) != 17 {
		return false
	}
	for i := range len(s) {
		switch {
		case i%3 == 2:
			if s[i] != s[2] || s[i] != ':' && s[i] != '-' {
				return false
			}
		case strings.IndexByte("0123456789abcdefABCDEF", s[i]) < 0:
			return false
		}
	}
	return true
}

// ParseLink reads NAME[:ALIAS] of --link.
func ParseLink(s string) (name, alias string, err error) {
	if s == "" {
		return "", "", errs.New(errs.Invalid, "empty string specified for links")
	}
	name, alias, two := strings.Cut(s, ":")
	if strings.Contains(alias, ":") || two && alias == "" || name == "" {
		return "", "", errs.New(errs.Invalid, "bad format for links: %s", s)
	}
	if !two {
		alias = strings.TrimPrefix(name, "/")
	}
	return name, alias, nil
}

// CheckHostname reports what is wrong with a --hostname: sethostname(2) takes 64
// bytes, and the name goes into /etc/hosts, so no white space.
func CheckHostname(s string) error {
	if len(s) > 64 {
		return errs.New(errs.Invalid, "invalid hostname format: %s: longer than 64 bytes", s)
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '-' && c != '.' && c != '_' && c < 0x80 {
			return errs.New(errs.Invalid, "invalid hostname format: %q", s)
		}
	}
	return nil
}
