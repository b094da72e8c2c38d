package pull

import (
	"context"
	"flag"
	"os"
	"time"

	"github.com/isle-engine/isle/internal/image/archive"
)

// CommitMain is the role `isled commit --base ID --config JSON [options]`:
// it makes an image of an image and a further layer, which is its standard input.
func CommitMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		base := fs.String("base", "", "id of the image below")
		config := fs.String("config", "{}", "configuration of the image, as JSON")
		author := fs.String("author", "", "author of the image")
		message := fs.String("message", "", "comment of the image")
		by := fs.String("created-by", "", "what made the layer")
		return func(ctx context.Context, p *Puller) (any, error) {
			o := archive.CommitOptions{Base: *base, Author: *author, Message: *message, CreatedBy: *by, Now: time.Now().UTC().Truncate(time.Second)}
			var err error
			if o.Config, err = archive.ParseImageConfig([]byte(*config)); err != nil {
				return nil, err
			}
			l := &archive.Loader{Images: p.Images, Layers: p.Layers}
			img, err := l.Commit(ctx, os.Stdin, o)
			if err != nil {
				return nil, interrupted(ctx, "commit", err)
			}
			return Result{Name: img.Ref, Digest: img.Manifest, ID: img.ID, New: true}, nil
		}
	})
}
