package engine

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/spec"
)

// CommitOptions of commit.
type CommitOptions struct {
	Name    string // of the image; "": none
	Author  string
	Message string
	Changes []string // Dockerfile instructions
	Pause   bool     // freeze the container meanwhile
}

// Commit makes an image of what a container has changed over its image's layers,
// and of how it was started. It returns the image's id.
func (e *Engine) Commit(ctx context.Context, ref string, o CommitOptions) (id string, Err error) {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return "", err
	}
	if c.State.Status == container.Dead {
		return "", errs.New(errs.Conflict, "container %s: is dead and cannot be committed", c.ID)
	}
	if o.Name != "" {
		n, err := image.ParseName(o.Name)
		if err != nil {
			return "", err
		}
		if n.Digest != "" {
			return "", errs.New(errs.Invalid, "image reference %q: cannot commit to a digest reference", o.Name)
		}
	}
	conf := committed(c)
	for _, line := range o.Changes {
		if err := image.ApplyChange(conf, line); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return "", err
	}
	if o.Pause && c.State.Status == container.Running {
		switch err := e.Pause(ctx, c.ID, true); {
		case err == nil:
			defer func() {
				// Also when ctx has ended: a container must not stay frozen.
				if err := e.Pause(context.WithoutCancel(ctx), c.ID, false); err != nil && !errors.Is(err, errs.Conflict) {
					Err = errors.Join(Err, err)
				}
			}()
		case errors.Is(err, errs.Unsupported): // it has no cgroup that could be frozen
		default:
			return "", err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	packed := make(chan error, 1)
	go func() { //nolint:contextcheck // a mount is not cancelled; the streams end the rest
		packed <- e.files(fileWork{Op: filesLayer, ID: c.ID}, nil, w)
		_ = w.Close() // a pipe end of ours
	}()
	args := []string{
		"commit", "--base", c.Image.ID, "--config", string(text), "--author", o.Author, "--message", o.Message,
		"--created-by", strings.Join(spec.Args(&c.Config, &c.Image.Config), " "),
	}
	var res struct {
		ID string `json:"id"`
	}
	err = e.server(ctx, &res, os.Stderr, r, args...)
	_ = r.Close() // a packer that still writes gets EPIPE
	if perr := <-packed; perr != nil {
		// An archive that was cut off may have become an image.
		// Unless somebody else has the same one, under a name.
		if err == nil {
			if img, ierr := e.images.Inspect(res.ID); ierr == nil && len(img.Tags) == 0 {
				_, err = e.RemoveImage(ctx, res.ID, false, false)
			}
		}
		if errs.KindOf(perr) == errs.NotFound {
			return "", perr // the archive is empty for that reason
		}
		return "", errors.Join(perr, err)
	}
	if err == nil && o.Name != "" {
		err = e.images.Tag(res.ID, o.Name)
	}
	if err != nil {
		return "", err
	}
	e.tellContainer(&c.Record, "commit", "comment", o.Message, "imageID", res.ID, "imageRef", o.Name)
	return res.ID, nil
}

// committed is the configuration of an image that starts as c was started.
func committed(c *Container) *container.ImageConfig {
	conf, own := c.Image.Config, &c.Config
	conf.Env = slices.Clone(conf.Env)
	for _, kv := range own.Env {
		key, _, has := strings.Cut(kv, "=")
		conf.Env = slices.DeleteFunc(conf.Env, func(e string) bool { k, _, _ := strings.Cut(e, "="); return k == key })
		if has {
			conf.Env = append(conf.Env, kv)
		}
	}
	switch {
	case own.EntrypointSet:
		conf.Entrypoint, conf.Cmd = own.Entrypoint, own.Cmd
	case len(own.Cmd) > 0:
		conf.Cmd = own.Cmd
	}
	if own.User != "" {
		conf.User = own.User
	}
	if own.WorkingDir != "" {
		conf.WorkingDir = own.WorkingDir
	}
	if own.StopSignal != "" {
		conf.StopSignal = own.StopSignal
	}
	conf.Labels = maps.Clone(c.Labels())
	conf.Health = container.MergeHealth(own.Health, conf.Health)
	conf.Expose, conf.Volumes = maps.Clone(conf.Expose), maps.Clone(conf.Volumes)
	for _, p := range own.Expose {
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		if conf.Expose == nil {
			conf.Expose = map[string]struct{}{}
		}
		conf.Expose[p] = struct{}{}
	}
	for i := range own.Mounts {
		// As Docker: an anonymous volume of the container is one of the image.
		if m := &own.Mounts[i]; m.Type == "volume" && m.Source == "" && m.Typed != "" {
			if conf.Volumes == nil {
				conf.Volumes = map[string]struct{}{}
			}
			conf.Volumes[path.Clean(m.Target)] = struct{}{}
		}
	}
	return &conf
}
