// The Go runtime would keep two cgroup files open and look at them every second,
// to size its thread pool, with a goroutine of its own from the start. No role of
// isle has use for it.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command isle is the container engine: the command line, and every process
// role that a container needs.
package main

import (
	"os"
	"path/filepath"

	"github.com/isle-engine/isle/internal/cli"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/ocicli"
)

// Every process that this binary can be, by the name it is called with.
func main() {
	switch filepath.Base(os.Args[0]) {
	case "isle-monitor": // stays with one container
		os.Exit(monitor.Main(os.Args))
	case "isle-userns": // one piece of work inside the user's own user namespace
		os.Exit(engine.UsernsMain(os.Args))
	case "isle-oci", "runc": // the OCI runtime
		os.Exit(ocicli.Main(os.Args))
	default:
		if len(os.Args) > 1 && os.Args[1] == "oci" {
			os.Exit(ocicli.Main(append([]string{"isle oci"}, os.Args[2:]...)))
		}
		os.Exit(cli.Main(os.Args))
	}
}
