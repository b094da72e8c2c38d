package spec

import "github.com/isle-engine/isle/internal/container"

// ExecEnv is the environment of a further process in rec's container: that of
// the container, with the process's own wishes over it, for a process that runs
// as u.
func ExecEnv(rec *container.Record, u User, tty bool, extra []string) []string {
	cfg := rec.Config
	cfg.TTY = tty
	cfg.Env = append(append(make([]string, 0, len(cfg.Env)+len(extra)), cfg.Env...), extra...)
	b := &build{in: &Input{Record: rec, User: u}, cfg: &cfg, img: &rec.Image.Config}
	return b.env()
}
