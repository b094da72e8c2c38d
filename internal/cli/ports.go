package cli

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/container"
)

// shownPort is one port in the list of a running container.
type shownPort struct {
	ip              string
	private, public uint16
	proto           string
}

// ports are the published and exposed ports of a running container whose
// network is its own.
func (r *psRow) ports() []shownPort {
	c := &r.Config
	if r.Container.State.Status != container.Running && r.Container.State.Status != container.Paused {
		return nil
	}
	if c.Network == "host" || c.Network == "none" || strings.HasPrefix(c.Network, "container:") || strings.HasPrefix(c.Network, "ns:") {
		return nil
	}
	var all []shownPort
	published := map[string]bool{}
	if st := r.Container.State.Network; st != nil && len(st.Endpoints) > 0 {
		for _, p := range st.Ports {
			published[num(p.Port)+"/"+p.Proto] = true
			all = append(all, shownPort{p.HostIP, p.Port, p.HostPort, p.Proto})
		}
		return append(all, r.unpublished(published)...)
	}
	for _, spec := range c.Publish {
		ports, err := container.ParsePublish(spec)
		if err != nil {
			continue // a record that an older version wrote
		}
		for _, p := range ports {
			published[p.Key()] = true
			if p.HostIP != "" {
				all = append(all, shownPort{p.HostIP, p.Port, p.HostPort, p.Proto})
				continue
			}
			all = append(all, shownPort{"0.0.0.0", p.Port, p.HostPort, p.Proto}, shownPort{"::", p.Port, p.HostPort, p.Proto})
		}
	}
	return append(all, r.unpublished(published)...)
}

// unpublished are the exposed ports that are not published.
func (r *psRow) unpublished(published map[string]bool) (all []shownPort) {
	for key := range exposed(&r.Record) {
		if n, proto, ok := strings.Cut(key, "/"); ok && !published[key] {
			if v, err := strconv.ParseUint(n, 10, 16); err == nil {
				all = append(all, shownPort{"", uint16(v), 0, proto})
			}
		}
	}
	return all
}

// exposed are all exposed ports of a container, "80/tcp".
func exposed(r *container.Record) map[string]struct{} {
	all := map[string]struct{}{}
	add := func(spec string) {
		ports, err := container.ParseExpose(spec)
		if err != nil {
			return // from an image: shown or not, never fatal
		}
		for _, p := range ports {
			all[p.Key()] = struct{}{}
		}
	}
	for spec := range r.Image.Config.Expose {
		add(spec)
	}
	for _, spec := range r.Config.Expose {
		add(spec)
	}
	for _, spec := range r.Config.Publish {
		if ports, err := container.ParsePublish(spec); err == nil {
			for _, p := range ports {
				all[p.Key()] = struct{}{}
			}
		}
	}
	return all
}

// portsText lists ports as Docker does: unpublished ones first, neighbours as
// ranges, "0.0.0.0:8080->80/tcp".
func portsText(ports []shownPort) string {
	if len(ports) == 0 {
		return ""
	}
	slices.SortFunc(ports, func(a, b shownPort) int {
		return cmp.Or(cmp.Compare(a.private, b.private), cmp.Compare(a.ip, b.ip), cmp.Compare(a.public, b.public), cmp.Compare(a.proto, b.proto))
	})
	type group struct {
		key         string // "tcp", or IP/tcp for ports published under their own number
		first, last uint16
	}
	var open []group // one for each key, in the order of their first port
	var done, mapped []string
	for _, p := range ports {
		key := p.proto
		if p.ip != "" {
			ip := p.ip
			if strings.Contains(ip, ":") {
				ip = "[" + ip + "]"
			}
			if p.public != p.private {
				mapped = append(mapped, ip+":"+num(p.public)+"->"+num(p.private)+"/"+p.proto)
				continue
			}
			key = ip + "/" + p.proto
		}
		i := slices.IndexFunc(open, func(g group) bool { return g.key == key })
		switch {
		case i < 0:
			open = append(open, group{key, p.private, p.private})
		case open[i].last+1 == p.private:
			open[i].last = p.private
		default:
			done = append(done, portRange(open[i].key, open[i].first, open[i].last))
			open[i].first, open[i].last = p.private, p.private
		}
	}
	for _, g := range open {
		done = append(done, portRange(g.key, g.first, g.last))
	}
	return strings.Join(append(done, mapped...), ", ")
}

// portRange writes neighbouring ports as one: "443-444/tcp", "0.0.0.0:80->80/tcp".
func portRange(key string, first, last uint16) string {
	r := num(first)
	if last != first {
		r += "-" + num(last)
	}
	if ip, proto, ok := strings.Cut(key, "/"); ok {
		return ip + ":" + r + "->" + r + "/" + proto
	}
	return r + "/" + key
}

func num(n uint16) string { return strconv.Itoa(int(n)) }
