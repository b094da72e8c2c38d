package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/state"
)

// Networks returns the user's networks that match the filter: driver, id, label,
// name, type (custom, builtin) and dangling.
func (e *Engine) Networks(_ context.Context, f Filter) ([]*network.Network, error) {
	all, err := e.networks().List()
	if err != nil {
		return nil, err
	}
	for key, values := range f {
		switch key {
		case "driver", "id", "label", "name", "type", "dangling", "scope":
		default:
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
		var kept []*network.Network
		for _, n := range all {
			ok := slices.ContainsFunc(values, func(v string) bool { return e.networkMatches(n, key, v) })
			if ok {
				kept = append(kept, n)
			}
		}
		all = kept
	}
	return all, nil
}

func (e *Engine) networkMatches(n *network.Network, key, v string) bool {
	switch key {
	case "driver":
		return n.Driver == v
	case "id":
		return strings.HasPrefix(n.ID, v)
	case "name":
		return strings.Contains(n.Name, v)
	case "scope":
		return v == "local"
	case "type":
		return v == "custom" && n.User() || v == "builtin" && !n.User()
	case "dangling":
		users, err := e.networks().Users(n)
		return err == nil && n.User() && (len(users) == 0) == (v == "true" || v == "1")
	case "label":
		k, want, has := strings.Cut(v, "=")
		got, ok := n.Labels[k]
		return ok && (!has || got == want)
	}
	return false
}

func (e *Engine) networks() *network.Store { return network.Open(e.env) }

// CreateNetwork makes a network.
func (e *Engine) CreateNetwork(_ context.Context, r network.Request) (*network.Network, error) {
	if err := e.env.MakeDirs(); err != nil {
		return nil, err
	}
	return e.networks().Create(r)
}

// InspectNetwork returns a network and the running containers on it.
func (e *Engine) InspectNetwork(_ context.Context, ref string) (*network.Network, []*Container, error) {
	n, err := e.networks().Get(ref)
	if err != nil {
		return nil, nil, err
	}
	ids, err := e.networks().Users(n)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(ids)
	var all []*Container
	for _, id := range ids {
		c, err := e.load(id)
		if errors.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		all = append(all, c)
	}
	return n, all, nil
}

// RemoveNetwork removes a network that no running container is on.
func (e *Engine) RemoveNetwork(_ context.Context, ref string) (string, error) {
	if e.env.Rootless { // its bridge is in the user's namespaces
		n, err := e.networks().Get(ref)
		if err != nil {
			return "", err
		}
		return n.Name, e.inside(workRemoveNetwork, n.Name)
	}
	n, err := e.networks().Remove(ref)
	if err != nil {
		return "", err
	}
	return n.Name, nil
}

// PruneNetworks removes the networks that no container, running or not, wants,
// and of these what o selects.
func (e *Engine) PruneNetworks(ctx context.Context, o PruneOptions) ([]string, error) {
	for key := range o.Filter {
		if key != "label" && key != "label!" {
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	all, err := e.Networks(ctx, nil)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{network.Default: true}
	ids, err := state.IDs(e.env.Containers())
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		var rec container.Record
		if err := state.ReadRecord(e.env.Container(id), &rec); err != nil {
			continue // removed meanwhile
		}
		used[rec.Config.Network] = true
		for _, m := range rec.Config.MoreNetworks {
			used[m.Network] = true
		}
	}
	var gone []string
	for _, n := range all {
		if used[n.Name] || used[n.ID] || !o.Until.IsZero() && !n.Created.Before(o.Until) || !labelsSelected(n.Labels, o.Filter) {
			continue
		}
		if _, err := e.RemoveNetwork(ctx, n.Name); err != nil {
			if errors.Is(err, errs.Conflict) || errors.Is(err, errs.NotFound) {
				continue
			}
			return gone, err
		}
		gone = append(gone, n.Name)
	}
	return gone, nil
}

// ConnectNetwork connects a container to a network, at once when it runs.
func (e *Engine) ConnectNetwork(ctx context.Context, ref string, ep container.Endpoint) error {
	n, err := e.networks().Get(ep.Network)
	if err != nil {
		return err
	}
	ep.Network = n.Name
	return e.changeNetwork(ctx, ref, monitor.NetworkChange{Connect: true, Endpoint: ep})
}

// DisconnectNetwork disconnects a container from a network.
func (e *Engine) DisconnectNetwork(ctx context.Context, name, ref string, force bool) error {
	n, err := e.networks().Get(name)
	if err == nil {
		name = n.Name
	} else if !force {
		return err
	}
	return e.changeNetwork(ctx, ref, monitor.NetworkChange{Endpoint: container.Endpoint{Network: name}})
}

func (e *Engine) changeNetwork(ctx context.Context, ref string, change monitor.NetworkChange) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if live(c.State.Status) {
		conn, err := monitor.Dial(e.env, c.ID)
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:errcheck // nothing to lose
		return conn.Network(ctx, change)
	}
	lock, err := monitor.Lock(e.env, c.ID)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing was written to it
	if err := state.ReadRecord(c.Dir, &c.Record); err != nil {
		return err
	}
	if change.Connect {
		err = network.Add(&c.Config, change.Endpoint)
	} else {
		err = network.Drop(&c.Config, change.Endpoint.Network)
	}
	if err != nil {
		return err
	}
	return state.WriteRecord(c.Dir, &c.Record, true)
}
