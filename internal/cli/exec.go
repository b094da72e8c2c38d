package cli

import (
	"os"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/linux/tty"
)

func cmdExec(c *call) func() error {
	var o struct {
		container.ExecConfig
		env, envFiles []string
	}
	c.flags = []flag{
		{name: "detach", short: 'd', v: (*boolVar)(&o.Detach), help: "Run the command in the background"},
		{name: "detach-keys", v: (*stringVar)(&o.DetachKeys), help: "Keys that detach from the command (default ctrl-p,ctrl-q)"},
		{name: "env", short: 'e', v: funcVar{"list", func(s string) error {
			e, err := container.ParseEnv(s, os.LookupEnv)
			o.env = append(o.env, e)
			return err
		}}, help: "Set environment variables"},
		{name: "env-file", v: (*listVar)(&o.envFiles), help: "Read environment variables from a file"},
		{name: "interactive", short: 'i', v: (*boolVar)(&o.Stdin), help: "Keep STDIN open even if not attached"},
		{name: "privileged", v: (*boolVar)(&o.Privileged), help: "Give the command all that the container's creator may do"},
		{name: "tty", short: 't', v: (*boolVar)(&o.TTY), help: "Allocate a pseudo-TTY"},
		{name: "user", short: 'u', v: (*stringVar)(&o.User), help: "User inside (<name|uid>[:<group|gid>])"},
		{name: "workdir", short: 'w', v: (*stringVar)(&o.WorkingDir), help: "Working directory inside the container"},
	}
	return func() error {
		for _, name := range o.envFiles {
			kv, err := container.ReadEnvFile(name, os.LookupEnv)
			if err != nil {
				return err
			}
			o.Env = append(o.Env, kv...)
		}
		o.Env = append(o.Env, o.env...)
		o.Cmd = c.args[1:]
		if o.User != "" {
			if _, _, err := container.ParseUser(o.User); err != nil {
				return err
			}
		}
		if err := checkKeys(o.DetachKeys); err != nil {
			return err
		}
		var io engine.IO
		if !o.Detach {
			io = engine.IO{Stdout: c.out, Stderr: c.err, DetachKeys: o.DetachKeys}
			if o.Stdin {
				io.Stdin = c.in
				if o.TTY && !tty.IsTerminal(c.in) {
					return errNoTTY()
				}
			}
		}
		if o.TTY {
			o.ConsoleSize = c.consoleSize()
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		s, err := eng.Exec(c.ctx, c.args[0], o.ExecConfig, io)
		if err != nil || o.Detach {
			if s != nil {
				_ = s.Close() // it lives on by itself
			}
			return err
		}
		return c.follow(s, follow{tty: o.TTY, stdin: o.Stdin, name: c.args[0], sigProxy: false})
	}
}
