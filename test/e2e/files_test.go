package e2e

import "testing"

func TestFilesAsRoot(t *testing.T) {
	needImages(t)
	if asRoot(t) {
		newHost(t).session("files.session")
	}
}

func TestFilesAsUser(t *testing.T) {
	needImages(t)
	if asUser(t) {
		newHost(t).session("files.session")
	}
}
