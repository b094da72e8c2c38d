// Isled is the part of isle that nobody waits for to start: it fills the image
// store, and later serves APIs. Isle starts it when it is needed.
package main

import (
	"fmt"
	"os"

	"github.com/isle-engine/isle/internal/builtin"
	"github.com/isle-engine/isle/internal/pull"
)

func main() {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case "pull":
		os.Exit(pull.Main(os.Args[2:], pull.Builtin{Name: builtin.Name, Archive: builtin.Archive}))
	case "load":
		os.Exit(pull.LoadMain(os.Args[2:]))
	case "import":
		os.Exit(pull.ImportMain(os.Args[2:]))
	case "login":
		os.Exit(pull.LoginMain(os.Args[2:]))
	case "logout":
		os.Exit(pull.LogoutMain(os.Args[2:]))
	default:
		fmt.Fprintf(os.Stderr, "isled: %q is none of its roles: pull, load, import, login, logout\nisled is started by isle; see isle --help\n", role)
		os.Exit(2)
	}
}
