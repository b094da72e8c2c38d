package cli

// cmdPause freezes containers, or lets them go on.
func cmdPause(on bool) func(*call) func() error {
	return func(c *call) func() error {
		return func() error {
			eng, err := c.engine()
			if err != nil {
				return err
			}
			return c.eachAtOnce(func(ref string) (string, error) { return ref, eng.Pause(c.ctx, ref, on) })
		}
	}
}

func cmdRename(c *call) func() error {
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		return eng.Rename(c.ctx, c.args[0], c.args[1])
	}
}
