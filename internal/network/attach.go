package network

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network/ip"
	"github.com/isle-engine/isle/internal/state"
)

// Own reports whether a network mode gives a container addresses of its own.
func Own(mode string) bool {
	switch mode {
	case "none", "host":
		return false
	}
	return !strings.HasPrefix(mode, "container:") && !strings.HasPrefix(mode, "ns:")
}

// Attachment is one container's connection to its networks, from before its
// start to after its end.
type Attachment struct {
	State    container.Network
	Warnings []string

	s        *Store
	id       string
	networks []*Network // of State.Endpoints
	held     *reservation
	router   *os.File // namespace of the bridges; nil: this process's
	helper   *os.File // connection to the helper; nil: not needed
	watch    *os.File // tells of removed rules; nil: nobody watches
	exe      string   // the program that connects the container instead, and its options
	options  []string
	name     string // the container's, and its own name servers, for the helper
	dns      []string
}

// Prepare leases the addresses and binds the published ports of a container that
// is about to start. The caller calls Connect, then Detach; or just Detach.
func (s *Store) Prepare(rec *container.Record) (_ *Attachment, Err error) {
	c := &rec.Config
	a := &Attachment{s: s, id: rec.ID, name: c.Name, dns: c.DNS}
	defer func() {
		if Err != nil {
			Err = errors.Join(Err, a.Detach())
		}
	}()
	if name, _ := container.Outside(c.Network); name != "" {
		return a, a.outside(rec)
	}
	first := container.Endpoint{
		Network: c.Network, Aliases: c.NetworkAlias, IPAddress: c.IPAddress, IP6Address: c.IP6Address, MacAddress: c.MacAddress,
		DriverOpts: c.DriverOpts, GwPriority: c.GwPriority,
	}
	if err := a.join(&first); err != nil {
		return nil, err
	}
	a.State.Mode = a.State.Endpoints[0].Network
	for i := range c.MoreNetworks {
		if err := a.join(&c.MoreNetworks[i]); err != nil {
			return nil, err
		}
	}
	if s.env.Rootless {
		var err error
		if a.router, err = s.router(true); err != nil {
			return nil, err
		}
	}
	if a.needsHelper() {
		if err := a.callHelper(); err != nil {
			return nil, err
		}
		a.State.Uplink = s.env.Rootless
	}
	if len(c.Publish) == 0 && !c.PublishAll {
		return a, nil
	}
	return a, a.publish(rec)
}

// join leases the addresses for one network.
func (a *Attachment) join(e *container.Endpoint) error {
	n, err := a.s.Get(e.Network)
	if err != nil {
		return err
	}
	if n.Name == Default && (e.IPAddress != "" || e.IP6Address != "") {
		return errs.New(errs.Invalid, "invalid config for network bridge: user specified IP address is supported on user defined networks only")
	}
	ep := container.NetEndpoint{
		Network: n.Name, NetworkID: n.ID, ID: state.NewID(), Interface: "eth" + strconv.Itoa(a.nextInterface()),
		Aliases: slices.Clone(e.Aliases), Priority: e.GwPriority,
	}
	if n.routed() {
		ep.HostDevice = "veth" + a.id[:9] + string(rune('a'+a.nextInterface()%26))
	}
	// Recorded before the next step, so that Detach undoes it.
	a.State.Endpoints = append(a.State.Endpoints, ep)
	a.networks = append(a.networks, n)
	at := &a.State.Endpoints[len(a.State.Endpoints)-1]
	for _, six := range [...]bool{false, true} {
		text := e.IPAddress
		if six {
			text = e.IP6Address
		}
		var want ip.Addr
		if text != "" {
			var ok bool
			if want, ok = ip.Parse(text); !ok {
				return errs.New(errs.Invalid, "invalid IP address: %s", text)
			}
		}
		sub := n.subnet(six)
		if sub == nil {
			if text != "" {
				return errs.New(errs.Invalid, "invalid endpoint settings: no configured subnet contains IP address %s", text)
			}
			continue
		}
		got, err := a.s.lease(n, sub, a.id, want)
		if err != nil {
			return err
		}
		gw := ""
		if !n.Internal {
			gw = sub.Gateway.String()
		}
		if six {
			at.IP6, at.Bits6, at.Gateway6 = got.String(), sub.Subnet.Bits(), gw
		} else {
			at.IP, at.Bits, at.Gateway = got.String(), sub.Subnet.Bits(), gw
		}
		if at.MAC == "" {
			at.MAC = macOf(got)
		}
	}
	if e.MacAddress != "" {
		at.MAC = strings.ToLower(strings.ReplaceAll(e.MacAddress, "-", ":"))
	}
	return nil
}

// nextInterface is the first number that no interface has.
func (a *Attachment) nextInterface() int {
	for i := 0; ; i++ {
		if !slices.ContainsFunc(a.State.Endpoints, func(e container.NetEndpoint) bool { return e.Interface == "eth"+strconv.Itoa(i) }) {
			return i
		}
	}
}

// macOf makes a locally administered hardware address of an IP address: whoever
// has the address next has the same one, and no neighbour's table is wrong.
func macOf(a ip.Addr) string {
	b := a.Bytes()
	m := append([]byte{0x02, 0x42}, b[len(b)-4:]...)
	const hex = "0123456789abcdef"
	s := make([]byte, 0, 17)
	for i, x := range m {
		if i > 0 {
			s = append(s, ':')
		}
		s = append(s, hex[x>>4], hex[x&15])
	}
	return string(s)
}

func parseMAC(s string) (m [6]byte) {
	for i := range m {
		if len(s) >= 3*i+2 {
			m[i] = hexByte(s[3*i:])
		}
	}
	return m
}

// publish binds the host's ports.
func (a *Attachment) publish(rec *container.Record) error {
	want, err := wantedPorts(rec)
	if err != nil || len(want) == 0 {
		return err
	}
	var to4, to6 ip.Addr
	for i, e := range a.State.Endpoints {
		if a.networks[i].Internal || !a.networks[i].routed() {
			continue // it cannot be reached from outside
		}
		if !to4.IsValid() {
			to4, _ = ip.Parse(e.IP)
		}
		if !to6.IsValid() {
			to6, _ = ip.Parse(e.IP6)
		}
	}
	if !to4.IsValid() && !to6.IsValid() {
		return nil // as Docker: nothing can be published, nothing is
	}
	for i := range want {
		if want[i].Proto == "sctp" && a.s.env.Rootless {
			return errs.New(errs.Unsupported, "publish %s: an ordinary user can publish tcp and udp", want[i].Key())
		}
	}
	if a.held, err = reserve(want, to4, to6); err != nil {
		return err
	}
	a.State.Ports = a.held.ports
	if a.helper == nil && a.needsHelper() {
		if err := a.callHelper(); err != nil {
			return err
		}
	}
	err = state.WriteJSON(a.s.netFile(a.id), &a.State, false)
	if errors.Is(err, os.ErrNotExist) { // the first time after a boot
		if err = os.MkdirAll(a.s.env.Run+"/net", 0o700); err == nil {
			err = state.WriteJSON(a.s.netFile(a.id), &a.State, false)
		}
	}
	return err
}

// Files are the sockets that hold the published ports. They have to stay open as
// long as the container runs.
func (a *Attachment) Files() []*os.File {
	if a.held == nil {
		return nil
	}
	return a.held.files
}

// Addr is the container's first address, "" for none.
func (a *Attachment) Addr() string {
	for _, e := range a.State.Endpoints {
		if e.IP != "" {
			return e.IP
		}
		if e.IP6 != "" {
			return e.IP6
		}
	}
	return ""
}

// Connect gives the process's network namespace its interfaces. pid is any
// process in it.
func (a *Attachment) Connect(pid int) error {
	if len(a.networks) == 0 {
		return a.connectOutside(pid)
	}
	inner, ns, err := a.enter(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer inner.Close() //nolint:errcheck // nothing to lose
	outer, err := netlink.DialIn(a.router, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer outer.Close() //nolint:errcheck // nothing to lose
	for i := range a.State.Endpoints {
		if err := a.plug(outer, inner, ns, i); err != nil {
			return errs.New(errs.Unknown, "connect to network %s: %w", a.networks[i].Name, err)
		}
	}
	if err := a.defaultRoutes(inner); err != nil {
		return err
	}
	if err := a.filter(); err != nil {
		return err
	}
	return a.register()
}

// filter puts the packet filter in order for the container's networks and ports.
func (a *Attachment) filter() error {
	c, err := netlink.DialIn(a.router, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	for _, n := range a.networks {
		if !n.routed() {
			continue
		}
		a.listen()
		if err := a.s.ensureRules(c, n); err != nil {
			return err
		}
		if n.Internal || a.s.env.Rootless {
			continue
		}
		if drop, err := foreignDrop(c, n); err == nil && drop { // else nobody knows
			a.Warnings = append(a.Warnings, "network "+n.Name+": another firewall drops what is forwarded (the policy of its chain FORWARD, which Docker and ufw set): "+
				"as root: iptables -I FORWARD -i "+n.Device+" -j ACCEPT; iptables -I FORWARD -o "+n.Device+" -j ACCEPT (with Docker, the chain DOCKER-USER instead of FORWARD)")
		}
	}
	if len(a.State.Ports) == 0 || a.s.env.Rootless {
		return nil
	}
	return a.s.openPorts(c, a.State.Ports)
}

// Detach gives back what Prepare and Connect took. The interfaces go with the
// container's namespace.
func (a *Attachment) Detach() error {
	err := a.s.release(a.id, &a.State)
	if a.held != nil {
		a.held.close() // after its rules are gone: the port's next owner has its own
		a.held = nil
	}
	a.State.Ports = nil
	if a.helper != nil {
		_ = a.helper.Close() // which tells the helper that the container has ended
		a.helper = nil
	}
	if a.watch != nil {
		_ = a.watch.Close() // only listened
		a.watch = nil
	}
	if a.router != nil {
		_ = a.router.Close() // a namespace's handle
		a.router = nil
	}
	return err
}

// release removes the rules and leases of a container.
func (s *Store) release(id string, st *container.Network) error {
	var err error
	if name, _ := container.Outside(st.Mode); name != "" {
		s.dropOutside(id)
	}
	if len(st.Ports) > 0 {
		if !s.env.Rootless {
			err = s.closePorts(st.Ports)
		}
	}
	_ = unix.Unlink(s.netFile(id)) // most have none, and that of a dead container is not believed
	for i := range st.Endpoints {
		e := &st.Endpoints[i]
		s.giveBack(e.Network, e.IP, id)
		s.giveBack(e.Network, e.IP6, id)
	}
	return err
}

// Release gives back what a container had whose monitor was killed, except ports
// that another one has taken since. It does what can be done and says nothing:
// leftovers are taken over by whoever needs them.
func (s *Store) Release(id string, st *container.Network) {
	if st == nil {
		return
	}
	old := *st
	if len(old.Ports) > 0 {
		var now []container.Published
		if s.livePorts(func(p *container.Published) { now = append(now, *p) }) != nil {
			old.Ports = nil
		}
		old.Ports = slices.DeleteFunc(slices.Clone(old.Ports), func(p container.Published) bool {
			return slices.ContainsFunc(now, func(q container.Published) bool {
				return q.HostIP == p.HostIP && q.HostPort == p.HostPort && q.Proto == p.Proto
			})
		})
	}
	_ = s.release(id, &old)
}

// Resume is the Attachment of a monitor that goes on after an execve.
func (s *Store) Resume(rec *container.Record, st *container.Network, files []*os.File, helper, watch *os.File) *Attachment {
	a := &Attachment{s: s, id: rec.ID, State: *st, helper: helper, watch: watch, name: rec.Config.Name, dns: rec.Config.DNS}
	if len(files) > 0 {
		a.held = &reservation{files: files, ports: st.Ports}
	}
	return a
}

// HostAddr is the address by which the container reaches the host; "" when it
// cannot.
func (a *Attachment) HostAddr() string {
	if name, _ := container.Outside(a.State.Mode); name != "" {
		if name == "slirp4netns" && slices.Contains(a.options, "allow_host_loopback=true") {
			return slirpHost
		}
		return ""
	}
	if a.s.env.Rootless {
		host := ""
		for i, e := range a.State.Endpoints {
			switch {
			case a.networks[i].Internal:
			case e.IP != "":
				return UplinkHost
			case e.IP6 != "":
				host = UplinkHost6
			}
		}
		return host
	}
	for i, e := range a.State.Endpoints {
		if !a.networks[i].routed() {
			continue
		}
		if sub := a.networks[i].subnet(false); sub != nil && e.IP != "" {
			return sub.Gateway.String()
		}
		if sub := a.networks[i].subnet(true); sub != nil && e.IP6 != "" {
			return sub.Gateway.String()
		}
	}
	return ""
}
