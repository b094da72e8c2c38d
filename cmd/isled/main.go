// Isled is the part of isle that nobody waits for to start: it fills the image
// store, and later serves APIs. Isle starts it when it is needed.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/isle-engine/isle/internal/builtin"
	"github.com/isle-engine/isle/internal/network/uplink"
	"github.com/isle-engine/isle/internal/pull"
)

func main() {
	ctx := context.Background()
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case "pull":
		os.Exit(pull.Main(ctx, os.Args[2:], pull.Builtin{Name: builtin.Name, Archive: builtin.Archive}))
	case "load":
		os.Exit(pull.LoadMain(ctx, os.Args[2:]))
	case "import":
		os.Exit(pull.ImportMain(ctx, os.Args[2:]))
	case "commit":
		os.Exit(pull.CommitMain(ctx, os.Args[2:]))
	case "push":
		os.Exit(pull.PushMain(ctx, os.Args[2:]))
	case "save":
		os.Exit(pull.SaveMain(ctx, os.Args[2:]))
	case "login":
		os.Exit(pull.LoginMain(ctx, os.Args[2:]))
	case "logout":
		os.Exit(pull.LogoutMain(ctx, os.Args[2:]))
	case "search":
		os.Exit(pull.SearchMain(ctx, os.Args[2:]))
	case "manifest":
		os.Exit(pull.ManifestMain(ctx, os.Args[2:]))
	case "check":
		os.Exit(pull.CheckMain(ctx, os.Args[2:]))
	case "network": // name server and, for ordinary users, the way out
		os.Exit(uplink.Main())
	default:
		fmt.Fprintf(os.Stderr, "isled: %q is none of its roles: network, pull, push, load, save, import, commit, login, logout, search, manifest, check\nisled is started by isle; see isle --help\n", role)
		os.Exit(2)
	}
}
