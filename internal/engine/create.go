package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// Create makes a container from cfg and returns its full id and warnings. On
// return the container is on disk for good; on error nothing of it is left.
func (e *Engine) Create(ctx context.Context, cfg *container.Config, o CreateOptions) (string, []string, error) {
	img, err := e.needImage(ctx, cfg, o)
	if err != nil {
		return "", nil, err
	}
	rec, lock, err := e.create(cfg, img)
	if err != nil {
		return "", nil, err
	}
	_ = lock.Close() // nothing is written to it
	e.tellContainer(rec, "create")
	return rec.ID, nil, nil
}

// needImage resolves cfg's image, pulling it as o asks.
func (e *Engine) needImage(ctx context.Context, cfg *container.Config, o CreateOptions) (*image.Image, error) {
	if err := cfg.CheckDrivers(); err != nil {
		return nil, err
	}
	if o.Pull != "always" {
		img, err := e.images.Resolve(cfg.Image)
		if err == nil {
			err = platformMatches(img, cfg.Platform)
		}
		if err == nil {
			return img, nil
		}
		if !errors.Is(err, errs.NotFound) {
			return nil, err
		}
		if o.Pull == "never" {
			return nil, errs.New(errs.NotFound, "No such image: %s", cfg.Image)
		}
	}
	progress := o.Progress
	if o.Quiet {
		progress = nil
	}
	if progress != nil && o.Pull != "always" {
		fmt.Fprintf(progress, "Unable to find image '%s' locally\n", familiar(cfg.Image))
	}
	if _, err := e.Pull(ctx, cfg.Image, PullOptions{Platform: cfg.Platform, Quiet: o.Quiet, Progress: progress}); err != nil {
		return nil, err
	}
	return e.images.Resolve(cfg.Image)
}

// familiar is ref as Docker shows it, with its tag.
func familiar(ref string) string {
	n, err := image.ParseName(ref)
	if err != nil {
		return ref
	}
	return n.Familiar()
}

// platformMatches refuses an image of another platform than the one asked for,
// as NotFound, so that the right one is pulled.
func platformMatches(img *image.Image, platform string) error {
	if platform == "" {
		return nil
	}
	p := strings.SplitN(strings.ToLower(platform), "/", 3)
	ok := p[0] == img.OS
	if len(p) > 1 {
		ok = ok && p[1] == img.Arch
	}
	if len(p) > 2 && img.Variant != "" {
		ok = ok && p[2] == img.Variant
	}
	if !ok {
		return errs.New(errs.NotFound, "image %q: found for %s/%s, not for %s", img.Ref, img.OS, img.Arch, platform)
	}
	return nil
}

// create writes the container's directory and takes its name. The directory is
// complete before the name is taken: a name never points at something half made.
// The caller gets the container's lock: until the record is written it says that
// somebody is at it (sweep), and until the start, that nobody shall prune it.
func (e *Engine) create(cfg *container.Config, img *image.Image) (_ *container.Record, _ *state.Lock, Err error) {
	rec, err := e.newRecord(cfg, img)
	if err != nil {
		return nil, nil, err
	}
	lock, err := monitor.Lock(e.env, rec.ID)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if Err != nil {
			_ = lock.Close() // nothing is written to it
		}
	}()
	dir := e.env.Container(rec.ID)
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrNotExist) {
		if err = e.env.MakeDirs(); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if err := e.fill(dir, rec); err != nil {
		return nil, nil, errors.Join(err, storage.RemoveTree(dir))
	}
	return rec, lock, nil
}

// newRecord is the record of a container that does not exist yet.
func (e *Engine) newRecord(cfg *container.Config, img *image.Image) (*container.Record, error) {
	if len(cfg.Cmd) == 0 && len(img.Config.Cmd) == 0 && len(img.Config.Entrypoint) == 0 && (!cfg.EntrypointSet || len(cfg.Entrypoint) == 0) {
		return nil, errs.New(errs.Invalid, "no command specified")
	}
	rec := &container.Record{ID: state.NewID(), Created: time.Now().UTC(), Config: *cfg}
	rec.Image = container.Image{ID: img.ID, Ref: img.Ref, Config: img.Config, Layers: make([]string, len(img.Layers))}
	for i, l := range img.Layers {
		rec.Image.Layers[i] = l.DiffID
	}
	if err := e.resolveJoined(rec); err != nil {
		return nil, err
	}
	return rec, nil
}

// fill writes what belongs into a new container's directory, and takes the name.
func (e *Engine) fill(dir string, rec *container.Record) error {
	cfg := &rec.Config
	// A --rm container promises nothing after a power loss: no fsync on the way.
	durable := !cfg.AutoRemove
	for _, d := range [...]string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := e.resolveVolumes(rec); err != nil {
		return err
	}
	generated := cfg.Name == ""
	for try := 0; ; try++ {
		if generated {
			cfg.Name = container.RandomName(try)
		}
		if err := state.WriteRecord(dir, rec, durable && !generated); err != nil {
			return err
		}
		err := state.Reserve(e.env.Names(), cfg.Name, rec.ID)
		if err == nil {
			break
		}
		if !errors.Is(err, errs.Exists) {
			return err
		}
		if generated && try < 10 {
			continue
		}
		if try < 10 && e.nobodys(cfg.Name) {
			continue
		}
		holder, lerr := state.Lookup(e.env.Names(), cfg.Name)
		if lerr != nil {
			return lerr
		}
		return errs.Hint(errs.New(errs.Conflict, `Conflict. The container name "/%s" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, cfg.Name, holder),
			fmt.Sprintf("isle rm -f %s removes it; isle start %s starts it again", cfg.Name, cfg.Name))
	}
	if durable && generated {
		return state.WriteRecord(dir, rec, true)
	}
	return nil
}

// nobodys reports whether a name that was taken is free after all: it has been
// given back meanwhile, or led to no container, because the removal of one gives
// back its name last, or was killed before it did.
func (e *Engine) nobodys(name string) bool {
	freed, err := state.ForgetStale(e.env.Names(), e.env.Containers(), name, nil)
	if err != nil || freed {
		return err == nil
	}
	_, err = state.Lookup(e.env.Names(), name)
	return errs.KindOf(err) == errs.NotFound
}

// resolveJoined turns every "container:NAME" into the id it means now: a later
// rename or a new container of that name must not change what is joined.
func (e *Engine) resolveJoined(rec *container.Record) error {
	c := &rec.Config
	for _, m := range [...]struct{ key, mode string }{
		{"network", c.Network}, {"pid", c.PID}, {"ipc", c.IPC}, {"uts", c.UTS}, {"user", c.Userns}, {"cgroup", c.Cgroupns}, {"time", c.Time},
	} {
		name, ok := strings.CutPrefix(m.mode, "container:")
		if !ok {
			continue
		}
		id, err := e.resolve(name)
		if err != nil {
			return err
		}
		if rec.Joined == nil {
			rec.Joined = make(map[string]string, 2)
		}
		rec.Joined[m.key] = id
	}
	return nil
}

// resolve returns the full id of the container that ref names.
func (e *Engine) resolve(ref string) (string, error) {
	return state.Resolve(e.env.Containers(), e.env.Names(), ref)
}
