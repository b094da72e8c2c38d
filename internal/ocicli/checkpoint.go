package ocicli

import (
	"errors"
	"fmt"
)

func (c *call) checkpoint() error {
	ct, err := change(c.root, c.args[0])
	if err != nil {
		return err
	}
	defer ct.close()
	switch st := ct.status(); st {
	case running, paused:
	default:
		return fmt.Errorf("Container cannot be checkpointed in %s state", st) //nolint:staticcheck // callers know it so
	}
	return errors.New("criu: not installed")
}

func (c *call) restore() error { return errors.New("criu: not installed") }
