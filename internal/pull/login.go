package pull

import (
	"context"
	"flag"
	"io"
	"os"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image/registry"
)

// maxPassword bounds what is read as a password or token.
const maxPassword = 64 << 10

// LoginMain is the role `isled login --username NAME [SERVER]`: the password
// comes through the standard input, so that no list of processes shows it. With
// --stored it verifies the credential that is kept.
func LoginMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		user := fs.String("username", "", "name at the registry")
		stored := fs.Bool("stored", false, "verify what is kept")
		return func(ctx context.Context, p *Puller) (any, error) {
			if fs.NArg() > 1 {
				return nil, errs.New(errs.Invalid, "login: wants one registry, got %d", fs.NArg())
			}
			if *stored {
				return p.Client.LoginAgain(ctx, fs.Arg(0))
			}
			data, err := io.ReadAll(io.LimitReader(os.Stdin, maxPassword))
			if err != nil {
				return nil, err
			}
			password := strings.TrimRight(string(data), "\r\n")
			if *user == "" || password == "" {
				return nil, errs.New(errs.Invalid, "login: username and password must not be empty")
			}
			return p.Client.Login(ctx, fs.Arg(0), *user, password)
		}
	})
}

// LogoutMain is the role `isled logout [SERVER]`.
func LogoutMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		return func(ctx context.Context, p *Puller) (any, error) {
			if fs.NArg() > 1 {
				return nil, errs.New(errs.Invalid, "logout: wants one registry, got %d", fs.NArg())
			}
			key, kept, err := p.Client.Logout(ctx, fs.Arg(0))
			return struct {
				Server string          `json:"server"`
				Forgot []registry.Kept `json:"forgot"`
			}{key, kept}, err
		}
	})
}
