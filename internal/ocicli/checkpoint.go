package ocicli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func (c *call) checkpoint() error {
	ct, err := change(c.root, c.args[0])
	if err != nil {
		return err
	}
	defer ct.close()
	if err := checkParent(c.flags.str("image-path"), c.flags.str("parent-path")); err != nil {
		return err
	}
	switch st := ct.status(); st {
	case running, paused:
	default:
		return fmt.Errorf("Container cannot be checkpointed in %s state", st) //nolint:staticcheck // callers know it so
	}
	return errNoCheckpoint
}

// errNoCheckpoint is the honest answer while nothing here drives criu.
var errNoCheckpoint = errors.New("checkpoint and restore by criu are not supported by this version")

// checkParent looks at --parent-path, which is relative to the directory of images.
func checkParent(images, parent string) error {
	if parent == "" {
		return nil
	}
	if filepath.IsAbs(parent) {
		return fmt.Errorf("--parent-path %s: must be relative to --image-path", parent)
	}
	if info, err := os.Stat(filepath.Join(images, parent)); err != nil || !info.IsDir() {
		return fmt.Errorf("--parent-path %s: no directory of an earlier dump", parent)
	}
	return nil
}

func (c *call) restore() error { return errNoCheckpoint }
