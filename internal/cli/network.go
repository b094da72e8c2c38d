package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/network/ip"
)

// networker is the part of the engine that the network commands need.
type networker interface {
	Networks(ctx context.Context, f engine.Filter) ([]*network.Network, error)
	CreateNetwork(ctx context.Context, r network.Request) (*network.Network, error)
	InspectNetwork(ctx context.Context, ref string) (*network.Network, []*engine.Container, error)
	RemoveNetwork(ctx context.Context, ref string) (string, error)
	PruneNetworks(ctx context.Context, o engine.PruneOptions) ([]string, error)
	ConnectNetwork(ctx context.Context, ref string, ep container.Endpoint) error
	DisconnectNetwork(ctx context.Context, name, ref string, force bool) error
}

func (c *call) networker() (networker, error) {
	eng, err := c.engine()
	if err != nil {
		return nil, err
	}
	n, ok := eng.(networker)
	if !ok {
		return nil, errs.New(errs.Unsupported, "networks: this engine has none")
	}
	return n, nil
}

func cmdNetworkCreate(c *call) func() error {
	var r network.Request
	var subnets, gateways, ranges wordsVar
	var labels, aux listVar
	var options mapVar
	ipv4, attachable := true, false
	var scope, ipam string
	c.flags = []flag{
		{name: "attachable", v: (*boolVar)(&attachable), help: "Accepted: every network can be joined by hand"},
		{name: "aux-address", v: funcVar{"map", aux.Set}, help: "Address that no container gets (name=IP)", def: "map[]"},
		refuse("config-from", "string", "for swarms"),
		refuse("config-only", "", "for swarms"),
		{name: "driver", short: 'd', v: (*stringVar)(&r.Driver), help: "Driver (bridge, macvlan, ipvlan)", def: `"bridge"`},
		{name: "gateway", v: &gateways, help: "The host's address on the network"},
		refuse("ingress", "", "for swarms"),
		{name: "internal", v: (*boolVar)(&r.Internal), help: "No way out of the network, and none in"},
		{name: "ip-range", v: &ranges, help: "Give addresses out of this part of the subnet"},
		{name: "ipam-driver", v: (*stringVar)(&ipam), help: "Who chooses addresses; only \"default\"", def: `"default"`},
		{name: "ipam-opt", v: (*mapVar)(new(map[string]string)), help: "Accepted: the default IPAM driver has none", def: "map[]"},
		{name: "ipv4", v: (*boolVar)(&ipv4), help: "IPv4 addresses", def: "true"},
		{name: "ipv6", v: (*boolVar)(&r.IPv6), help: "IPv6 addresses"},
		{name: "label", v: &labels, help: "Set metadata"},
		{name: "opt", short: 'o', v: &options, help: "Options of the driver (mtu, parent, ...)", def: "map[]"},
		{name: "scope", v: (*stringVar)(&scope), help: "Scope of the network; only \"local\""},
		{name: "subnet", v: &subnets, help: "Subnet in CIDR notation"},
	}
	return func() error {
		switch {
		case scope != "" && scope != "local":
			return errs.New(errs.Unsupported, "network create: swarm networks are not supported")
		case ipam != "" && ipam != "default":
			return errs.New(errs.NotFound, "ipam driver %q: not found", ipam)
		}
		r.Name, r.NoIPv4, r.Options = c.args[0], !ipv4, options
		for _, l := range labels {
			k, v, err := container.ParseLabel(l)
			if err != nil {
				return err
			}
			if r.Labels == nil {
				r.Labels = map[string]string{}
			}
			r.Labels[k] = v
		}
		var err error
		if r.Subnets, err = parseSubnets(subnets, gateways, ranges, aux); err != nil {
			return err
		}
		eng, err := c.networker()
		if err != nil {
			return err
		}
		n, err := eng.CreateNetwork(c.ctx, r)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.stdout(), n.ID)
		return nil
	}
}

// parseSubnets joins --subnet with the --gateway, --ip-range and --aux-address that lie in each.
func parseSubnets(subnets, gateways, ranges, aux []string) ([]network.Subnet, error) {
	var all []network.Subnet
	for _, s := range subnets {
		p, ok := ip.ParsePrefix(s)
		if !ok {
			return nil, errs.New(errs.Invalid, "invalid subnet %s: invalid CIDR block notation", s)
		}
		all = append(all, network.Subnet{Subnet: p.Masked()})
	}
	in := func(a ip.Addr) *network.Subnet {
		for i := range all {
			if all[i].Subnet.Contains(a) {
				return &all[i]
			}
		}
		return nil
	}
	for _, s := range gateways {
		a, ok := ip.Parse(s)
		if !ok {
			return nil, errs.New(errs.Invalid, "invalid gateway %s", s)
		}
		p := in(a)
		if p == nil {
			return nil, errs.New(errs.Invalid, "no matching subnet for gateway %s", s)
		}
		p.Gateway = a
	}
	for _, s := range ranges {
		r, ok := ip.ParsePrefix(s)
		if !ok {
			return nil, errs.New(errs.Invalid, "invalid ip-range %s", s)
		}
		p := in(r.Addr())
		if p == nil {
			return nil, errs.New(errs.Invalid, "no matching subnet for range %s", s)
		}
		p.Range = r.Masked()
	}
	for _, s := range aux {
		name, text, _ := strings.Cut(s, "=")
		a, ok := ip.Parse(text)
		if !ok {
			return nil, errs.New(errs.Invalid, "invalid auxiliary address %s", s)
		}
		p := in(a)
		if p == nil {
			return nil, errs.New(errs.Invalid, "no matching subnet for aux-address %s", s)
		}
		if p.Aux == nil {
			p.Aux = map[string]ip.Addr{}
		}
		p.Aux[name] = a
	}
	return all, nil
}

func cmdNetworkList(c *call) func() error {
	var o struct {
		quiet, noTrunc bool
		format         string
		filter         engine.Filter
	}
	c.flags = []flag{
		{name: "filter", short: 'f', v: (*filterVar)(&o.filter), help: "Show those that match (driver, id, label, name, type, dangling)"},
		{name: "format", v: (*stringVar)(&o.format), help: formatHelp},
		{name: "no-trunc", v: (*boolVar)(&o.noTrunc), help: "Do not shorten the output"},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.quiet), help: "Show network IDs only"},
	}
	return func() error {
		eng, err := c.networker()
		if err != nil {
			return err
		}
		nets, err := eng.Networks(c.ctx, o.filter)
		if err != nil {
			return err
		}
		rows := make([]networkRow, len(nets))
		for i, n := range nets {
			rows[i] = networkRow{n, !o.noTrunc}
		}
		if o.quiet {
			for i := range rows {
				fmt.Fprintln(c.stdout(), rows[i].id())
			}
			return nil
		}
		l := &list{
			text: o.format, columns: []string{"ID", "Name", "Driver", "Scope"},
			headings: map[string]string{
				"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
				"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
			},
		}
		return l.print(c.app, len(rows), func(i int) row { return &rows[i] })
	}
}

type networkRow struct {
	n     *network.Network
	trunc bool
}

func (r *networkRow) id() string {
	if r.trunc {
		return r.n.ID[:12]
	}
	return r.n.ID
}

func (r *networkRow) keys() []string {
	return []string{"CreatedAt", "Driver", "ID", "IPv4", "IPv6", "Internal", "Labels", "Name", "Scope"}
}

// Field returns a field by Docker's name.
func (r *networkRow) Field(name string, args []any) (any, bool) {
	switch name {
	case "ID":
		return r.id(), true
	case "Name":
		return visible(r.n.Name), true
	case "Driver":
		return r.n.Driver, true
	case "Scope":
		return "local", true
	case "IPv4":
		return strconv.FormatBool(slices.ContainsFunc(r.n.Subnets, func(s network.Subnet) bool { return s.Subnet.Addr().Is4() })), true
	case "IPv6":
		return strconv.FormatBool(r.n.IPv6), true
	case "Internal":
		return strconv.FormatBool(r.n.Internal), true
	case "CreatedAt":
		return r.n.Created.Local().Format("2006-01-02 15:04:05.999999999 -0700 MST"), true
	case "Label":
		if len(args) == 1 {
			if k, ok := args[0].(string); ok {
				return r.n.Labels[k], true
			}
		}
		return "", true
	case "Labels":
		var all []string
		for k, v := range r.n.Labels {
			all = append(all, k+"="+v)
		}
		slices.Sort(all)
		return visible(strings.Join(all, ",")), true
	}
	return nil, false
}

func cmdNetworkInspect(c *call) func() error {
	o := inspectOptions{kind: "network"}
	verbose := false
	c.flags = []flag{
		{name: "format", short: 'f', v: (*stringVar)(&o.format), help: inspectFormatHelp},
		{name: "verbose", short: 'v', v: (*boolVar)(&verbose), help: "Accepted for Docker's sake"},
	}
	return func() error { return c.inspect(&o) }
}

// networkJSON is a network as Docker's inspect shows it.
type networkJSON struct {
	Name       string
	ID         string `json:"Id"`
	Created    time.Time
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       struct {
		Driver  string
		Options map[string]string
		Config  []ipamConfigJSON
	}
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom struct{ Network string }
	ConfigOnly bool
	Containers map[string]networkContainerJSON
	Options    map[string]string
	Labels     map[string]string
}

type ipamConfigJSON struct {
	Subnet             string
	IPRange            string            `json:",omitempty"`
	Gateway            string            `json:",omitempty"`
	AuxiliaryAddresses map[string]string `json:",omitempty"`
}

type networkContainerJSON struct {
	Name        string
	EndpointID  string
	MacAddress  string
	IPv4Address string
	IPv6Address string
}

func (c *call) inspectNetwork(ref string) (any, error) {
	eng, err := c.networker()
	if err != nil {
		return nil, err
	}
	n, users, err := eng.InspectNetwork(c.ctx, ref)
	if err != nil {
		return nil, err
	}
	j := &networkJSON{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, EnableIPv6: n.IPv6, Internal: n.Internal,
		Containers: map[string]networkContainerJSON{}, Options: n.Options, Labels: n.Labels,
	}
	if j.Options == nil {
		j.Options = map[string]string{}
	}
	if j.Labels == nil {
		j.Labels = map[string]string{}
	}
	j.IPAM.Driver = "default"
	for _, s := range n.Subnets {
		j.EnableIPv4 = j.EnableIPv4 || s.Subnet.Addr().Is4()
		k := ipamConfigJSON{Subnet: s.Subnet.String(), IPRange: s.Range.String(), Gateway: s.Gateway.String()}
		for name, a := range s.Aux {
			if k.AuxiliaryAddresses == nil {
				k.AuxiliaryAddresses = map[string]string{}
			}
			k.AuxiliaryAddresses[name] = a.String()
		}
		j.IPAM.Config = append(j.IPAM.Config, k)
	}
	for _, ct := range users {
		if ct.State.Network == nil {
			continue
		}
		for _, e := range ct.State.Network.Endpoints {
			if e.NetworkID != n.ID {
				continue
			}
			k := networkContainerJSON{Name: ct.Config.Name, EndpointID: e.ID, MacAddress: e.MAC}
			if e.IP != "" {
				k.IPv4Address = e.IP + "/" + strconv.Itoa(e.Bits)
			}
			if e.IP6 != "" {
				k.IPv6Address = e.IP6 + "/" + strconv.Itoa(e.Bits6)
			}
			j.Containers[ct.ID] = k
		}
	}
	return j, nil
}

func cmdNetworkRm(c *call) func() error {
	force := false
	c.flags = []flag{{name: "force", short: 'f', v: (*boolVar)(&force), help: "Do not complain about networks that do not exist"}}
	return func() error {
		eng, err := c.networker()
		if err != nil {
			return err
		}
		return c.each(func(arg string) error {
			_, err := eng.RemoveNetwork(c.ctx, arg)
			if force && errors.Is(err, errs.NotFound) {
				return nil
			}
			if err == nil {
				fmt.Fprintln(c.stdout(), arg)
			}
			return err
		})
	}
}

func cmdNetworkPrune(c *call) func() error {
	var force bool
	var filter engine.Filter
	c.flags = []flag{
		{name: "filter", v: (*filterVar)(&filter), help: `Remove those only that match ("until=24h", "label=KEY")`},
		{name: "force", short: 'f', v: (*boolVar)(&force), help: "Do not ask"},
	}
	return func() error {
		o, err := pruneOptions(filter, time.Now())
		if err != nil {
			return err
		}
		eng, err := c.networker()
		if err != nil {
			return err
		}
		if !force && !c.confirm("WARNING! This will remove all custom networks not used by at least one container.") {
			return nil
		}
		gone, err := eng.PruneNetworks(c.ctx, o)
		c.pruned("Deleted Networks:", gone)
		return err
	}
}

func cmdNetworkConnect(c *call) func() error {
	var e container.Endpoint
	var options mapVar
	c.flags = []flag{
		{name: "alias", v: (*wordsVar)(&e.Aliases), help: "Further names within the network"},
		{name: "driver-opt", v: funcVar{"strings", options.Set}, help: "Options of the driver"},
		{name: "gw-priority", v: (*intVar)(&e.GwPriority), help: "The network with the highest gives the default route"},
		{name: "ip", v: (*stringVar)(&e.IPAddress), help: "IPv4 address"},
		{name: "ip6", v: (*stringVar)(&e.IP6Address), help: "IPv6 address"},
		{name: "link", v: (*listVar)(&e.Links), help: "Add a link to another container"},
		{name: "link-local-ip", v: (*wordsVar)(&e.LinkLocalIPs), help: "Add a link-local address"},
	}
	return func() error {
		for _, a := range [...]string{e.IPAddress, e.IP6Address} {
			if a != "" && !container.IsIP(a) {
				return errs.New(errs.Invalid, "invalid IP address: %s", a)
			}
		}
		eng, err := c.networker()
		if err != nil {
			return err
		}
		e.Network, e.DriverOpts = c.args[0], options
		return eng.ConnectNetwork(c.ctx, c.args[1], e)
	}
}

func cmdNetworkDisconnect(c *call) func() error {
	force := false
	c.flags = []flag{{name: "force", short: 'f', v: (*boolVar)(&force), help: "Also from a network that is gone"}}
	return func() error {
		eng, err := c.networker()
		if err != nil {
			return err
		}
		return eng.DisconnectNetwork(c.ctx, c.args[0], c.args[1], force)
	}
}

func cmdPort(c *call) func() error {
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		ct, err := eng.Inspect(c.ctx, c.args[0])
		if err != nil {
			return err
		}
		var ports []container.Published
		if ct.State.Network != nil {
			ports = slices.Clone(ct.State.Network.Ports)
		}
		slices.SortStableFunc(ports, func(a, b container.Published) int { return int(a.Port) - int(b.Port) })
		want := ""
		if len(c.args) == 2 {
			n, proto, ok := strings.Cut(c.args[1], "/")
			if !ok {
				proto = "tcp"
			}
			if _, err := strconv.ParseUint(n, 10, 16); err != nil {
				return errs.New(errs.Invalid, "Error: invalid port format: '%s'", c.args[1])
			}
			want = n + "/" + proto
		}
		found := false
		for _, p := range ports {
			key := num(p.Port) + "/" + p.Proto
			host := p.HostIP
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			switch want {
			case "":
				fmt.Fprintf(c.stdout(), "%s -> %s:%d\n", key, host, p.HostPort)
			case key:
				fmt.Fprintf(c.stdout(), "%s:%d\n", host, p.HostPort)
				found = true
			}
		}
		if want != "" && !found {
			return errs.New(errs.NotFound, "Error: No public port '%s' published for %s", want, c.args[0])
		}
		return nil
	}
}
