package cli

import "github.com/isle-engine/isle/internal/errs"

// refusedVar is the value of a flag that Docker has and isle refuses. Each such
// flag has its row and its reason in docs/docker-compatibility.md.
type refusedVar struct{ word, why string }

func (v refusedVar) kind() string { return v.word }

// Set refuses. A switch that is turned off asks for nothing.
func (v refusedVar) Set(s string) error {
	if v.word == "" && (s == "false" || s == "0") {
		return nil
	}
	return errs.New(errs.Unsupported, "%s", v.why)
}

// refuse returns the flag name, which takes word ("" for a switch), refused for
// the reason why.
func refuse(name, word, why string) flag {
	return flag{name: name, v: refusedVar{word, why}, help: "Refused: " + why}
}

// hidden keeps a flag out of the help, as Docker does.
func hidden(f flag) flag {
	f.hidden = true
	return f
}

// refusedCommand is a command or group of commands of Docker's that isle has not.
type refusedCommand struct{ path, why string }

// refusedCommands lists them.
func refusedCommands() []refusedCommand {
	const swarm = "isle runs containers on one machine; for more, run it under Kubernetes"
	const build = "isle does not build images yet; `buildah build` and `docker build` can save what `isle load` reads"
	return []refusedCommand{
		{"build", build},
		{"image build", build},
		{"builder", build},
		{"buildx", build},
		{"checkpoint", "checkpoints are not supported"},
		{"compose", "isle has no compose files yet"},
		{"config", swarm},
		{"context", "there is no daemon to connect to; to work on another machine, run isle there (ssh HOST isle ...)"},
		{"node", swarm},
		{"plugin", "isle loads no plugins into itself"},
		{"secret", swarm},
		{"service", swarm},
		{"stack", swarm},
		{"swarm", swarm},
		{"trust", "Notary is obsolete, and Docker turns it off too; images are verified by digest"},
		{"volume update", "volumes of a swarm; " + swarm},
	}
}

// refusal returns the error for a command of Docker's that isle has not, nil
// if args begin with none.
func refusal(args []string) error {
	for _, r := range refusedCommands() {
		if r.path == args[0] || len(args) > 1 && r.path == args[0]+" "+args[1] {
			return errs.WithExit(errs.New(errs.Unsupported, "%s: %s", r.path, r.why), errs.ExitEngine)
		}
	}
	return nil
}
