package pull

import (
	"context"
	"flag"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image/registry"
)

// SearchMain is the role `isled search [--limit N] TERM`.
func SearchMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		limit := fs.Int("limit", 25, "most results")
		return func(ctx context.Context, p *Puller) (any, error) {
			if fs.NArg() != 1 {
				return nil, errs.New(errs.Invalid, "search: wants one term, got %d", fs.NArg())
			}
			found, err := p.Client.Search(ctx, fs.Arg(0), *limit)
			return struct {
				Found []registry.Found `json:"found"`
			}{found}, err
		}
	})
}
