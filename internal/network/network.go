package network

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/network/ip"
	"github.com/isle-engine/isle/internal/state"
)

// Default is the network of containers that ask for none.
const Default = "bridge"

// isle is the name of the packet filter's table, and begins that of the default
// network's bridge; see storeNames.
const isle = "isle"

// Drivers.
const (
	DriverBridge  = "bridge"
	DriverMacvlan = "macvlan"
	DriverIPvlan  = "ipvlan"
)

// Network is one network: the record network.json.
type Network struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Created  time.Time         `json:"created"`
	Driver   string            `json:"driver"`
	Device   string            `json:"device"` // the bridge, or the parent of macvlan and ipvlan
	Subnets  []Subnet          `json:"subnets,omitempty"`
	IPv6     bool              `json:"ipv6,omitempty"`
	Internal bool              `json:"internal,omitempty"`
	MTU      int               `json:"mtu,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	// Attachable is kept for Docker's sake: every network is.
	Attachable bool `json:"attachable,omitempty"`
}

// Subnet is one range of addresses of a network.
type Subnet struct {
	Subnet  ip.Prefix          `json:"subnet"`
	Gateway ip.Addr            `json:"gateway,omitzero"`
	Range   ip.Prefix          `json:"range,omitzero"`      // where addresses are given from
	Aux     map[string]ip.Addr `json:"auxiliary,omitempty"` // never given
}

// User reports whether n is one that a user made: its containers find each other by name.
func (n *Network) User() bool { return n.Name != Default }

// subnet returns the network's subnet of an IP version, or nil.
func (n *Network) subnet(six bool) *Subnet {
	for i := range n.Subnets {
		if n.Subnets[i].Subnet.Addr().Is6() == six {
			return &n.Subnets[i]
		}
	}
	return nil
}

// masked reports whether traffic that leaves the network gets the host's address.
func (n *Network) masked() bool {
	return !n.Internal && n.Options["com.docker.network.bridge.enable_ip_masquerade"] != "false"
}

// gateway reports whether the host is on the network.
func (n *Network) routed() bool { return n.Driver == DriverBridge }

// Store is the set of a user's networks. It holds no state of its own.
type Store struct {
	env    config.Env
	table  netlink.Table // of the packet filter
	device string        // the bridge of the default network
}

// Open returns the networks of env.
func Open(env config.Env) *Store {
	s := &Store{env: env}
	s.table.Family = unix.NFPROTO_INET
	s.table.Name, s.device = storeNames(env.Data, env.Rootless)
	return s
}

// storeNames are the names of a store's table and bridge. Another root's store
// than the usual one (ISLE_ROOT) has names made of its path: it has other subnets
// and ports, and would take the first one's rules for stale. An ordinary user's
// are in a namespace of their own.
func storeNames(data string, rootless bool) (table, device string) {
	if rootless || data == "/var/lib/isle" {
		return isle, isle + "0"
	}
	h := uint32(2166136261) // FNV-1a
	for i := range len(data) {
		h = (h ^ uint32(data[i])) * 16777619
	}
	name := []byte(isle + "-")
	for shift := 28; shift >= 0; shift -= 4 {
		name = append(name, "0123456789abcdef"[h>>shift&15])
	}
	return string(name), string(name)
}

func (s *Store) dir(name string) string    { return s.env.Networks() + "/" + name }
func (s *Store) record(name string) string { return s.dir(name) + "/network.json" }
func (s *Store) leases(name string) string { return s.dir(name) + "/addr" }

// lock keeps others from changing networks, rules and published ports.
func (s *Store) lock() (*state.Lock, error) {
	path := s.env.Networks() + "/.lock"
	l, err := state.LockFile(path, true, 30*time.Second)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(s.env.Networks(), 0o700); err != nil {
			return nil, err
		}
		l, err = state.LockFile(path, true, 30*time.Second)
	}
	return l, err
}

// CheckName reports what is wrong with a network's name.
func CheckName(name string) error {
	ok := name != "" && name[0] != '.' && name[0] != '-' && name[0] != '_' && len(name) <= 128
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-' || c == '.')
	}
	if !ok {
		return errs.New(errs.Invalid, "invalid network name: %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed", name)
	}
	switch name {
	case "host", "none", "default", "private", "container", "ns", "pasta", "slirp4netns":
		return errs.New(errs.Denied, "network name %q: reserved", name)
	}
	return nil
}

// get reads a network by its exact name.
func (s *Store) get(name string) (*Network, error) {
	n := new(Network)
	if err := state.ReadJSON(s.record(name), n); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, errs.New(errs.NotFound, "network %s not found", name)
		}
		return nil, err
	}
	return n, nil
}

// Get returns the network of a name, an id or the beginning of one. The default
// network is made when it is first asked for.
func (s *Store) Get(ref string) (*Network, error) {
	if ref == "" || ref == "default" || ref == "private" {
		ref = Default
	}
	if CheckName(ref) == nil {
		n, err := s.get(ref)
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, errs.NotFound) {
			return nil, err
		}
	}
	if ref == Default {
		n, err := s.Create(Request{Name: Default, Device: s.device})
		if errors.Is(err, errs.Exists) {
			return s.get(Default)
		}
		return n, err
	}
	all, err := s.records()
	if err != nil {
		return nil, err
	}
	var found *Network
	for _, n := range all {
		if ref != "" && strings.HasPrefix(n.ID, ref) {
			if found != nil {
				return nil, errs.New(errs.Invalid, "network %s is ambiguous (2 matches found on ID prefix)", ref)
			}
			found = n
		}
	}
	if found == nil {
		return nil, errs.New(errs.NotFound, "network %s not found", ref)
	}
	return found, nil
}

// List returns all networks, by name.
func (s *Store) List() ([]*Network, error) {
	if _, err := s.Get(Default); err != nil {
		return nil, err
	}
	return s.records()
}

func (s *Store) records() ([]*Network, error) {
	d, err := os.Open(s.env.Networks())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close() // only read
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []*Network
	for _, name := range names {
		if name[0] == '.' {
			continue
		}
		n, err := s.get(name)
		if errors.Is(err, errs.NotFound) {
			continue // removed meanwhile, or a create that was killed
		}
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// Request is what create is asked for.
type Request struct {
	Name     string
	Driver   string // "": bridge
	Device   string // of the default network; else chosen, or the option's
	Subnets  []Subnet
	IPv6     bool
	NoIPv4   bool
	Internal bool
	Options  map[string]string
	Labels   map[string]string
}

// Create makes a network and returns it. Its device is made by the first
// container that needs it.
func (s *Store) Create(r Request) (*Network, error) {
	if err := CheckName(r.Name); err != nil {
		return nil, err
	}
	l, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	if _, err := s.get(r.Name); err == nil {
		return nil, errs.New(errs.Exists, "network with name %s already exists", r.Name)
	}
	n := &Network{
		Name: r.Name, ID: state.NewID(), Created: time.Now().UTC(), Driver: r.Driver, Device: r.Device,
		Subnets: slices.Clone(r.Subnets), IPv6: r.IPv6, Internal: r.Internal, Options: r.Options, Labels: r.Labels,
	}
	if err := s.complete(n, r.NoIPv4); err != nil {
		return nil, err
	}
	dir := s.dir(n.Name)
	// A killed create left a directory without a record.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.leases(n.Name), 0o700); err != nil {
		return nil, err
	}
	if err := state.WriteJSON(s.record(n.Name), n, true); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return n, nil
}

// complete fills in what the user left to us, and refuses what cannot work.
func (s *Store) complete(n *Network, noIPv4 bool) error {
	switch n.Driver {
	case "":
		n.Driver = DriverBridge
	case DriverBridge:
	case DriverMacvlan, DriverIPvlan:
		if s.env.Rootless {
			return errs.New(errs.Unsupported, "network driver %s: an ordinary user has no device of the host to put it on", n.Driver)
		}
	default:
		return errs.New(errs.NotFound, "plugin %q not found: the network drivers are bridge, macvlan and ipvlan", n.Driver)
	}
	for k, v := range n.Options {
		switch k {
		case "com.docker.network.driver.mtu", "mtu":
			mtu, err := strconv.Atoi(v)
			if err != nil || mtu < 68 || mtu > 65535 {
				return errs.New(errs.Invalid, "option %s=%s: not an MTU", k, v)
			}
			n.MTU = mtu
		case "com.docker.network.bridge.name", "parent":
			if len(v) == 0 || len(v) >= unix.IFNAMSIZ || strings.ContainsAny(v, "/ \t\n") {
				return errs.New(errs.Invalid, "option %s=%s: not a device's name", k, v)
			}
			n.Device = v
		}
	}
	if n.Device == "" {
		if n.Driver != DriverBridge {
			return errs.New(errs.Invalid, "network driver %s: needs --opt parent=DEVICE", n.Driver)
		}
		n.Device = "br-" + n.ID[:12]
	}
	all, err := s.records()
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Device == n.Device && n.Driver == DriverBridge {
			return errs.New(errs.Conflict, "device %s: belongs to network %s", n.Device, o.Name)
		}
	}
	return s.fillSubnets(n, all, noIPv4)
}

// Remove removes a network that no living container is on.
func (s *Store) Remove(ref string) (*Network, error) {
	n, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	if n.Name == Default {
		return nil, errs.New(errs.Denied, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	l, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer l.Close() //nolint:errcheck // nothing was written to it
	// Out of the way first: whoever leases an address from now on finds nothing.
	grave := filepath.Join(s.env.Networks(), ".rm-"+n.ID)
	if err := os.Rename(s.dir(n.Name), grave); err != nil {
		return nil, err
	}
	live, err := s.liveLeases(grave + "/addr")
	if err == nil && len(live) > 0 {
		err = errs.New(errs.Conflict, "error while removing network: network %s has active endpoints (container %s)", n.Name, live[0][:12])
	}
	if err != nil {
		return nil, errors.Join(err, os.Rename(grave, s.dir(n.Name)))
	}
	return n, errors.Join(s.dropDevice(n), os.RemoveAll(grave))
}

// Users returns the ids of the living containers on a network.
func (s *Store) Users(n *Network) ([]string, error) { return s.liveLeases(s.leases(n.Name)) }
