package spec

import (
	"strconv"
	"strings"
)

// labels returns the SELinux contexts of the container's processes and mounts:
// those of the policy, with the categories of this container, changed as asked.
func (b *build) labels() (process, file string) {
	process, file = b.in.Facts.SELinuxProcess, b.in.Facts.SELinuxFile
	if process == "" || b.cfg.Privileged {
		return "", ""
	}
	p, f := split(process), split(file)
	if len(p) != 4 || len(f) != 4 {
		return "", ""
	}
	p[3] = level(b.in.Record.ID)
	for _, opt := range b.cfg.SELinuxLabels {
		key, val, _ := strings.Cut(opt, ":")
		switch key {
		case "disable":
			return "", ""
		case "user":
			p[0] = val
		case "role":
			p[1] = val
		case "type":
			p[2] = val
		case "filetype":
			f[2] = val
		case "level":
			p[3] = val
		}
	}
	f[0], f[3] = p[0], p[3]
	return strings.Join(p, ":"), strings.Join(f, ":")
}

func split(context string) []string { return strings.SplitN(context, ":", 4) }

// level is the pair of categories that sets one container apart from others. It
// follows from the id, so that it is the same at every start.
func level(id string) string {
	n := uint32(0)
	if v, err := strconv.ParseUint(id[:min(8, len(id))], 16, 32); err == nil {
		n = uint32(v)
	}
	// A pair of different numbers below 1024, smaller first.
	a, c := n%1024, n/1024%1023
	if c >= a {
		c++
	}
	return "s0:c" + strconv.Itoa(int(min(a, c))) + ",c" + strconv.Itoa(int(max(a, c)))
}
