package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/explain/plan"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/network"
)

// Plan tells what Run would do with cfg, call by call. Nothing is made; the image
// is fetched when it is missing and o says so.
func (e *Engine) Plan(ctx context.Context, cfg *container.Config, o CreateOptions) (*plan.Plan, error) {
	img, err := e.needImage(ctx, cfg, o)
	if err != nil {
		return nil, err
	}
	rec, err := e.newRecord(cfg, img)
	if err != nil {
		return nil, err
	}
	p, err := e.look(rec) //nolint:contextcheck // mounts what is on disk; nothing to wait for
	if err != nil {
		return nil, err
	}
	in := plan.Input{Record: rec, Env: e.env, Facts: plan.Facts(*p)}
	if name, _ := container.Outside(cfg.Network); name == "" && network.Own(cfg.Network) {
		if in.Network, err = network.Open(e.env).Get(cfg.Network); err != nil {
			return nil, err
		}
	}
	return plan.New(in), nil
}

// workLook is monitor.Look: the record comes by standard input, and lookAnswer
// goes to standard output.
const workLook = "look"

type lookAnswer struct {
	Err     *errs.Wire
	Preview *monitor.Preview
}

// look finds out what a start of rec would do, where the user's files have the
// user's ids.
func (e *Engine) look(rec *container.Record) (*monitor.Preview, error) {
	if !e.env.Rootless {
		if err := e.env.MakeDirs(); err != nil {
			return nil, err
		}
		return monitor.Look(e.env, rec)
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	go func() {
		_, _ = w.Write(text) // a reader that is gone has said why
		_ = w.Close()
	}()
	out, err := e.joined("/proc/self/exe", []string{"isle-userns", workLook}, os.Stderr, r)
	if err != nil {
		return nil, err
	}
	var a lookAnswer
	if err := json.Unmarshal(out, &a); err != nil {
		return nil, errs.New(errs.Corrupt, "answer of %s: %w", workLook, err)
	}
	return a.Preview, a.Err.Err()
}

// lookMain is look's other half, inside the user's namespace.
func lookMain(env config.Env) int {
	var a lookAnswer
	var rec container.Record
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = json.Unmarshal(text, &rec)
	}
	if err == nil {
		a.Preview, err = monitor.Look(env, &rec)
	}
	if err != nil {
		a.Err = errs.ToWire(err)
	}
	if errors.Join(err, json.NewEncoder(os.Stdout).Encode(&a)) != nil {
		return 1
	}
	return 0
}
