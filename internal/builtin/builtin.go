// Package builtin carries the built-in image: a small root file system with a
// shell and the usual commands, so that the first command of README.md runs
// where no registry answers.
//
// It hides how the image is made. `make` builds the commands from source (u-root's,
// and a few of isle's own in userland/, one binary for all), pack lays them out as an OCI image in
// a tar archive, and go:embed takes that into isled; isle does not link
// this package. The archive is byte for byte the same for the same sources.
//
// A build without make (go build ./...) has no image, and says so when it is
// asked for it.
package builtin

import (
	"runtime"

	"github.com/isle-engine/isle/internal/errs"
)

// Name is what the image is called. isle answers for it before any registry is
// asked.
const Name = "docker.io/isle/base:latest"

// Archive returns the image for this machine's architecture as the bytes of an
// archive that `isle load` reads: an OCI image layout with Docker's
// manifest.json beside it.
func Archive() ([]byte, error) {
	b, err := data.ReadFile("data/" + runtime.GOARCH + "/base.tar")
	if err != nil {
		return nil, errs.Hint(errs.New(errs.NotFound, "built-in image %s: not in this build", Name),
			"build isled with make, which makes the image first")
	}
	return b, nil
}
