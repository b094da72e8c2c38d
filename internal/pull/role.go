package pull

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registry"
	"github.com/isle-engine/isle/internal/storage"
)

// Main is the role `isled pull [options] REF`.
func Main(ctx context.Context, args []string, builtin Builtin) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		var o Options
		fs.StringVar(&o.Platform, "platform", "", "os/arch[/variant] of the image")
		fs.BoolVar(&o.AllTags, "all-tags", false, "pull all tags of the repository")
		fs.BoolVar(&o.Quiet, "quiet", false, "show no progress")
		fs.StringVar((*string)(&o.Progress), "progress", string(Auto), "how to show progress: auto, tty, plain or none")
		return func(ctx context.Context, p *Puller) (any, error) {
			switch o.Progress {
			case Auto, TTY, Plain, Quiet:
			default:
				return nil, errs.New(errs.Invalid, "progress %q: not auto, tty, plain or none", o.Progress)
			}
			if fs.NArg() != 1 {
				return nil, errs.New(errs.Invalid, "pull: wants one image reference, got %d", fs.NArg())
			}
			o.Ref, o.Out, p.Builtin = fs.Arg(0), os.Stderr, builtin
			return p.Pull(ctx, o)
		}
	})
}

// role runs a piece of work: it reads the flags, opens the stores, makes the
// signals of an interruption end the work in order, and writes the answer.
func role(ctx context.Context, args []string, define func(*flag.FlagSet) func(context.Context, *Puller) (any, error)) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	fs := flag.NewFlagSet("isled", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	work := define(fs)
	if err := fs.Parse(args); err != nil {
		return answer(nil, errs.As(errs.Invalid, err))
	}
	p, err := open()
	if err != nil {
		return answer(nil, err)
	}
	return answer(work(ctx, p))
}

// open returns a Puller for the user that the environment tells of.
func open() (*Puller, error) {
	env, err := config.Load()
	if err != nil {
		return nil, err
	}
	if err := env.MakeDirs(); err != nil {
		return nil, err
	}
	conf, err := registry.LoadConfig(env, os.Getenv)
	if err != nil {
		return nil, err
	}
	return &Puller{Images: image.Open(env.Images()), Layers: storage.Open(env.Layers()), Client: registry.New(conf), Containers: env.Containers()}, nil
}

// answer writes the result or the error, one line of JSON, and returns the
// exit code that goes with it.
func answer(v any, err error) int {
	code := 0
	if err != nil {
		v = struct {
			Error *errs.Wire `json:"error"`
		}{errs.ToWire(err)}
		code = errs.ExitCode(err)
	}
	data, jerr := json.Marshal(v)
	if jerr != nil {
		return errs.ExitEngine
	}
	if _, err := os.Stdout.Write(append(data, '\n')); err != nil {
		return errs.ExitEngine // whoever wanted the answer is gone
	}
	return code
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }
