package cli

import (
	"context"
	"io"
	"os"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/image"
)

// conductor is what the commands need of the engine; *engine.Engine is one, and
// tests have a small one in memory.
type conductor interface {
	Env() config.Env
	Create(ctx context.Context, cfg *container.Config, o engine.CreateOptions) (id string, warnings []string, err error)
	Run(ctx context.Context, cfg *container.Config, o engine.CreateOptions, io *engine.IO) (id string, warnings []string, s engine.Session, err error)
	Start(ctx context.Context, ref string, io *engine.IO) (engine.Session, error)
	Attach(ctx context.Context, ref string, io engine.IO) (engine.Session, error)
	Exec(ctx context.Context, ref string, cfg container.ExecConfig, io engine.IO) (engine.Session, error)
	Stop(ctx context.Context, ref, signal string, timeout *int) error
	Kill(ctx context.Context, ref, signal string) error
	Restart(ctx context.Context, ref, signal string, timeout *int) error
	Pause(ctx context.Context, ref string, on bool) error
	Rename(ctx context.Context, ref, name string) error
	PruneContainers(ctx context.Context, o engine.PruneOptions) (removed []string, bytes int64, err error)
	History(ctx context.Context, ref string) ([]engine.Step, error)
	Wait(ctx context.Context, ref, condition string) (int, error)
	Remove(ctx context.Context, ref string, o engine.RemoveOptions) error
	List(ctx context.Context, o engine.ListOptions) ([]engine.Container, error)
	Inspect(ctx context.Context, ref string) (*engine.Container, error)
	Logs(ctx context.Context, ref string, o engine.LogOptions, stdout, stderr io.Writer) error
	Pull(ctx context.Context, ref string, o engine.PullOptions) (engine.Pulled, error)
	Images(ctx context.Context, f engine.Filter, all bool) ([]image.Image, error)
	InspectImage(ctx context.Context, ref string) (*image.Image, error)
	RemoveImage(ctx context.Context, ref string, force, noPrune bool) ([]string, error)
	Load(ctx context.Context, r *os.File, quiet bool) ([]string, error)
	Import(ctx context.Context, r *os.File, from, ref string, changes []string, message, platform string) (string, error)
	Tag(ctx context.Context, src, dst string) error
	Info(ctx context.Context) (engine.Info, error)
}
