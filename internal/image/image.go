package image

import (
	"time"

	"github.com/isle-engine/isle/internal/container"
)

// Image is an image in the store, resolved from a name or an id.
type Image struct {
	ID       string   // sha256:… of the configuration blob (Docker's image ID)
	Ref      string   // the normalized name it was resolved by; "" when by id
	Tags     []string // all its names, as docker.io-shortened "repo:tag"
	Digests  []string // "repo@sha256:…"
	Manifest string   // digest of the platform's manifest blob
	Layers   []Layer  // lowest first
	Created  time.Time
	Size     int64 // bytes unpacked, sum of layers
	OS       string
	Arch     string
	Variant  string
	Author   string
	Comment  string
	History  []History
	Config   container.ImageConfig
}

// Layer is one layer of an image.
type Layer struct {
	DiffID    string // digest of the uncompressed tar
	Digest    string // digest of the blob as fetched
	MediaType string
	Size      int64 // of the blob
	Unpacked  int64 // bytes on disk
}

// History is one line of an image's history.
type History struct {
	Created    time.Time
	CreatedBy  string
	Comment    string
	EmptyLayer bool
}
