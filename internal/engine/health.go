package engine

import (
	"context"

	"github.com/isle-engine/isle/internal/monitor"
)

// FreshHealth brings the health of a running container up to date: its monitor
// writes down what changes at once, but not each probe that says the same again.
func (e *Engine) FreshHealth(ctx context.Context, c *Container) error {
	if c.State.Health == nil || !live(c.State.Status) {
		return nil
	}
	conn, err := monitor.Dial(e.env, c.ID)
	if err != nil {
		return e.afterDial(ctx, c, err)
	}
	defer conn.Close() //nolint:errcheck // all has been said
	h, err := conn.Health(ctx)
	if err != nil {
		return e.afterDial(ctx, c, err)
	}
	if h != nil {
		c.State.Health = h
	}
	return nil
}
