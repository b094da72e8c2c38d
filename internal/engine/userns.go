package engine

import (
	"encoding/json"
	"io"
	"os"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/linux/userns"
	"github.com/isle-engine/isle/internal/network"
	"github.com/isle-engine/isle/internal/storage"
)

// namespace returns the user's own namespaces, or nil for root, who needs none.
func (e *Engine) namespace() (*userns.Namespace, error) {
	if !e.env.Rootless {
		return nil, nil //nolint:nilnil // no namespace is an answer
	}
	if err := e.env.MakeDirs(); err != nil {
		return nil, err
	}
	ns, err := userns.Ensure(e.env.UserNS(), e.env.UID, e.env.GID)
	if err == nil && len(ns.Advice) > 0 && e.Advise != nil {
		e.Advise(ns.Advice[0], ns.Advice[1:])
	}
	return ns, err
}

// Dissolve ends the user's own namespaces, if no process is in them. They are
// kept for the next container otherwise, by a sleeping process.
func (e *Engine) Dissolve() error {
	if !e.env.Rootless {
		return nil
	}
	return userns.Stop(e.env.UserNS())
}

// The pieces of work that may have to be done inside the user's user namespace,
// because they touch files of its subordinate ids.
const (
	workRemoveTree    = "remove-tree"
	workSweepLayers   = "sweep-layers"
	workRemoveVolume  = "remove-volume"
	workRemoveNetwork = "remove-network"
	workSizes         = "sizes"
)

// work does one piece of work in this process.
func work(env config.Env, op string, args []string) error {
	for _, a := range args {
		var err error
		switch op {
		case workRemoveTree:
			err = storage.RemoveTree(a)
		case workSweepLayers:
			_, err = storage.Open(a).Sweep()
		case workRemoveVolume:
			err = storage.OpenVolumes(env.Volumes()).Remove(a)
		case workRemoveNetwork:
			_, err = network.Open(env).Remove(a)
		default:
			err = errs.New(errs.Invalid, "work %q: unknown", op)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inside does a piece of work with the ids of the user's user namespace: at
// once for root, else in a child that joins the namespace.
func (e *Engine) inside(op string, args ...string) error {
	if !e.env.Rootless {
		return work(e.env, op, args)
	}
	out, err := e.joined("/proc/self/exe", append([]string{"isle-userns", op}, args...), os.Stderr)
	if err != nil {
		return err
	}
	var w *errs.Wire
	if len(out) > 0 {
		if err := json.Unmarshal(out, &w); err != nil {
			return errs.New(errs.Corrupt, "answer of %s: %w", op, err)
		}
	}
	return w.Err()
}

// UsernsMain is the role isle-userns: args are its name, the work, and what it
// is done to. The error, if any, goes to standard output as errs.Wire.
func UsernsMain(args []string) int {
	env, err := config.Load()
	if err == nil && len(args) < 2 {
		err = errs.New(errs.Invalid, "isle-userns: no work named")
	}
	if err == nil && args[1] == workFiles && len(args) == 3 {
		return filesMain(env, args[2])
	}
	if err == nil && args[1] == workLook {
		return lookMain(env)
	}
	if err == nil && args[1] == workSizes {
		return sizesMain(args[2:])
	}
	if err == nil {
		err = work(env, args[1], args[2:])
	}
	if err == nil {
		return 0
	}
	if jerr := json.NewEncoder(os.Stdout).Encode(errs.ToWire(err)); jerr != nil {
		return 2
	}
	return 1
}

// joined runs a program of ours to its end, inside the user's namespaces when
// rootless, and returns what it wrote to standard output. Its standard error is
// progress.
func (e *Engine) joined(path string, args []string, progress *os.File, stdin ...*os.File) ([]byte, error) {
	ns, err := e.namespace()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		_ = w.Close() // nothing was written
		return nil, err
	}
	defer null.Close()
	in := null
	if len(stdin) > 0 && stdin[0] != nil {
		in = stdin[0]
	}
	if progress == nil {
		progress = null
	}
	cmd := program.Command{Path: path, Args: args, Env: e.env.Environ(os.Environ()), Files: []*os.File{in, w, progress}}
	if ns != nil {
		defer ns.Close()
		cmd.Join = ns.Join()
	}
	child, err := cmd.Start()
	_ = w.Close() // the child has it
	if err != nil {
		return nil, err
	}
	out, rerr := io.ReadAll(r)
	if _, err := waitExit(child.Pid); err != nil { // the answer says how it went
		return nil, err
	}
	return out, rerr
}

// removeTree removes a directory tree: directly where that is possible, else
// inside the user's namespace.
func (e *Engine) removeTree(dir string) error {
	err := storage.RemoveTree(dir)
	if err == nil || !e.env.Rootless {
		return err
	}
	return e.inside(workRemoveTree, dir)
}
