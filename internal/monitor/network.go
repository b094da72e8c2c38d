package monitor

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/host"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/state"
)

// prepareNetwork leases what a container with networks of its own needs.
func (m *monitor) prepareNetwork() error {
	if !network.Own(m.rec.Config.Network) {
		return nil
	}
	var err error
	m.net, err = network.Open(m.env).Prepare(&m.rec)
	return err
}

// connector is what the runtime calls when the network namespace is there.
func (m *monitor) connector() func(pid int) error {
	if m.net == nil {
		return nil
	}
	return m.net.Connect
}

// networkState is what state.json says of the network.
func (m *monitor) networkState() *container.Network {
	if m.net != nil {
		return &m.net.State
	}
	mode := m.rec.Config.Network
	if network.Own(mode) {
		return nil // it has ended
	}
	return &container.Network{Mode: mode}
}

// networkFiles are the sockets that hold the published ports.
func (m *monitor) networkFiles() []*os.File {
	if m.net != nil {
		return m.net.Files()
	}
	return m.netFDs
}

// resumeNetwork takes the network up again after an execve.
func (m *monitor) resumeNetwork() {
	if m.net != nil {
		return
	}
	m.know()
	st := m.st.Network
	if st == nil {
		st = &container.Network{Mode: m.rec.Config.Network}
	}
	m.net = network.Open(m.env).Resume(&m.rec, st, m.netFDs, m.netHelper, m.netWatch)
	m.netFDs, m.netHelper, m.netWatch = nil, nil, nil
}

// helperFile is the connection to the network helper.
func (m *monitor) helperFile() *os.File {
	if m.net != nil {
		return m.net.Helper()
	}
	return m.netHelper
}

// helperDied starts the network helper again. When that fails, the container goes
// on without until the next try.
func (m *monitor) helperDied() {
	m.resumeNetwork()
	if err := m.net.Revive(); err != nil {
		m.set(timerHelper, helperRetry)
	}
}

// restoreFilter puts the packet filter's rules back, if they are among what has
// been removed. When that fails the next removal, or start, is another chance.
func (m *monitor) restoreFilter() {
	m.resumeNetwork()
	_ = m.net.Restore()
	m.set(timerShrink, shrinkAfter) // what this took of memory is for the moment
}

// watchFile tells when the packet filter has lost rules.
func (m *monitor) watchFile() *os.File {
	if m.net != nil {
		return m.net.Watch()
	}
	return m.netWatch
}

// disconnect gives back what the container's network had.
func (m *monitor) disconnect() error {
	if m.st.Network != nil && network.Own(m.st.Network.Mode) {
		m.resumeNetwork()
	}
	if m.net == nil {
		return nil
	}
	err := m.net.Detach()
	m.net = nil
	return err
}

// hostsFile is the container's /etc/hosts: the host's own where it is in the
// host's network, what --add-host and --link say, and its own names.
func (m *monitor) hostsFile(hostname string) ([]byte, error) {
	c := &m.rec.Config
	b := []byte(hostsHead)
	if c.Network == "host" {
		if host, err := readBounded("/etc/hosts", maxEtc); err == nil {
			b = host
			if len(b) > 0 && b[len(b)-1] != '\n' {
				b = append(b, '\n')
			}
		}
	}
	named := false
	for _, h := range c.ExtraHosts {
		name, ip, ok := strings.Cut(h, ":")
		if alt, altIP, altOK := strings.Cut(h, "="); altOK && (!ok || len(alt) < len(name)) {
			name, ip = alt, altIP
		}
		ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
		if ip == "host-gateway" {
			if ip = m.hostGateway(); ip == "" {
				return nil, errs.New(errs.Unsupported, "add-host %q: this network has no gateway", h)
			}
		}
		named = named || name == hostName
		b = append(b, ip+"\t"+name+"\n"...)
	}
	for _, l := range c.Links {
		line, err := m.link(l)
		if err != nil {
			return nil, err
		}
		b = append(b, line...)
	}
	if m.net == nil {
		return b, nil
	}
	if ip := m.net.HostAddr(); ip != "" && !named {
		b = append(b, ip+"\t"+hostName+"\n"...)
	}
	for _, e := range m.net.State.Endpoints {
		for _, ip := range [...]string{e.IP, e.IP6} {
			if ip == "" {
				continue
			}
			b = append(b, ip+"\t"+hostname...)
			if short, _, dotted := strings.Cut(hostname, "."); dotted {
				b = append(b, " "+short...)
			}
			b = append(b, '\n')
		}
	}
	return b, nil
}

// hostName is what a container calls its host, as with Docker Desktop.
const hostName = "host.docker.internal"

// hostGateway is the address by which the container reaches the host.
func (m *monitor) hostGateway() string {
	if m.rec.Config.Network == "host" {
		return "127.0.0.1"
	}
	if m.net == nil {
		return ""
	}
	return m.net.HostAddr()
}

// link is the line of a --link: another container's address by an alias.
func (m *monitor) link(l string) (string, error) {
	name, alias, err := container.ParseLink(l)
	if err != nil {
		return "", err
	}
	name = strings.TrimPrefix(name, "/")
	id, err := state.Resolve(m.env.Containers(), m.env.Names(), name)
	if err != nil {
		return "", err
	}
	var rec container.Record
	var st container.State
	dir := m.env.Container(id)
	if err := state.ReadRecord(dir, &rec); err != nil {
		return "", err
	}
	if err := state.ReadState(dir, &st); err != nil || st.Network == nil || !Alive(m.env, id) {
		return "", errs.New(errs.Conflict, "Cannot link to a non running container: /%s AS %s", rec.Config.Name, alias)
	}
	for _, e := range st.Network.Endpoints {
		if e.IP != "" {
			line := e.IP + "\t" + alias + " " + id[:12]
			if rec.Config.Name != alias {
				line += " " + rec.Config.Name
			}
			return line + "\n", nil
		}
	}
	return "", errs.New(errs.Conflict, "Cannot link to %s, as it has no network of its own", rec.Config.Name)
}

// resolvFile is the container's /etc/resolv.conf.
func (m *monitor) resolvFile() string {
	c := &m.rec.Config
	r := host.Resolver{Servers: c.DNS, Search: c.DNSSearch, Options: c.DNSOptions, Private: c.Network != "host"}
	text := m.machine.ResolvConf()
	if m.net == nil {
		return r.Text(text)
	}
	if dns := m.net.DNS(); len(dns) > 0 {
		// The servers that the user named are asked by ours.
		r.Servers = dns
	}
	return r.Text(text)
}

// NetworkChange asks for a running container to be connected to a network or
// disconnected from it.
type NetworkChange struct {
	Connect  bool               `json:"connect"`
	Endpoint container.Endpoint `json:"endpoint"`
}

// Network connects or disconnects a running container.
func (c *Conn) Network(ctx context.Context, n NetworkChange) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return c.request(ctx, append([]byte{msgNetwork}, b...))
}

// changeNetwork carries out a NetworkChange: first what the container asks for,
// in memory, then its interfaces, then both records.
func (m *monitor) changeNetwork(text []byte) error {
	var n NetworkChange
	if err := json.Unmarshal(text, &n); err != nil {
		return errs.New(errs.Invalid, "monitor: malformed network change: %w", err)
	}
	if m.proc == nil {
		return errs.New(errs.Conflict, "container %s is not running", m.id)
	}
	cfg := m.rec.Config
	cfg.MoreNetworks = slices.Clone(cfg.MoreNetworks)
	var err error
	if n.Connect {
		err = network.Add(&cfg, n.Endpoint)
	} else {
		err = network.Drop(&cfg, n.Endpoint.Network)
	}
	if err != nil {
		return err
	}
	m.resumeNetwork()
	if n.Connect {
		err = m.net.Plug(m.proc.pid, &n.Endpoint, cfg.Name)
	} else {
		err = m.net.Unplug(m.proc.pid, n.Endpoint.Network)
	}
	if err != nil {
		return err
	}
	m.rec.Config = cfg
	m.st.Network = m.networkState()
	if err := state.WriteRecord(m.dir, &m.rec, m.durable()); err != nil {
		return err
	}
	if hosts, err := m.hostsFile(m.hostname()); err == nil {
		_ = m.writePlain(m.dir+"/hosts", hosts) // the addresses work without
	}
	return m.save(m.durable())
}

// hostname is the container's host name, as its file has it.
func (m *monitor) hostname() string {
	name, err := readBounded(m.dir+"/hostname", maxEtc)
	if err != nil {
		return m.id[:12]
	}
	return strings.TrimSpace(string(name))
}
